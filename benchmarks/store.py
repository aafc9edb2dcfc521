"""Speed of stores: start-up, shuffled reading against ase.db, filling of batches; ``benchmarks/results/store.json``.

    OMP_NUM_THREADS=1 python benchmarks/store.py --folder FOLDER [--frames 1000000] [--database 50000]

Makes a store of so many frames of about 20 atoms in FOLDER (about 1.5 GB for a million) and takes it away again.
CPU seconds of this process, rounds of all readers by turns, the best of each.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ase
import ase.db
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator

from adatom.data import pack as packing
from adatom.data.batches import Budget, batches
from adatom.data.dataset import Dataset
from adatom.data.frames import Frame
from adatom.data.loader import load
from adatom.data.store import Store

RESULTS = Path(__file__).parent / "results"
MEAN, SPREAD, BATCH = 20, 5, 1000  # atoms of a frame, and atoms of a batch
START = """
import time, resource
from adatom.data.dataset import Budget, Dataset, batches
from adatom.data.split import Split, split
from adatom.data.read import read
began = time.process_time(), time.perf_counter()
structures, _ = read({store!r})
train, valid, _ = split(structures, Split(valid=0.01))
opened = time.process_time()
dataset = Dataset(train, 0.0)
plan = batches(dataset, Budget(atoms={budget}), seed=0, epoch=0)
planned = time.process_time()
dataset.batch(plan[0])
ended = time.process_time(), time.perf_counter()
print(opened - began[0], planned - opened, ended[0] - planned, ended[0] - began[0], ended[1] - began[1], len(plan),
      resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def frames(count: int, seed: int = 0) -> Iterator[ase.Atoms]:
    """Open molecules on a loose lattice: 15 to 25 atoms of H, C, N and O."""
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3), axis=-1).reshape(-1, 3)[:40] * 1.5
    for _ in range(count):
        n = int(random.integers(MEAN - SPREAD, MEAN + SPREAD + 1))
        positions = grid[random.permutation(40)[:n]] + random.normal(scale=0.1, size=(n, 3))
        atoms = ase.Atoms(random.choice([1, 6, 7, 8], n), positions)
        atoms.calc = SinglePointCalculator(atoms, energy=float(random.normal()), forces=random.normal(size=(n, 3)))
        yield atoms


def made(count: int) -> Iterator[Frame]:
    """The same as frames of a file."""
    for atoms in frames(count):
        yield Frame(atoms.copy(), dict(atoms.calc.results))


def make_store(folder: Path, count: int) -> tuple[Store, float]:
    """A store of frames that come from nowhere; CPU seconds."""
    source = folder / "made.xyz"
    source.write_text(str(count))
    original, began = packing.stream_frames, time.process_time()
    packing.stream_frames = lambda path, start=0: made(count)
    try:
        store = packing.pack([source], folder / "store")
    finally:
        packing.stream_frames = original
    return store, time.process_time() - began


def start_up(folder: Path, budget: int) -> dict[str, float]:
    """Open, split, plan an epoch, collate the first batch: in a fresh process, best of three."""
    rows = []
    for _ in range(3):
        script = START.format(store=str(folder / "store"), budget=budget)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        rows.append([float(word) for word in done.stdout.split()])
    names = ("open_and_split_s", "plan_s", "first_batch_s", "total_cpu_s", "total_wall_s", "batches", "memory_MB")
    return dict(zip(names, min(rows, key=lambda row: row[3]), strict=True))


def readers(folder: Path, store: Store, small: int) -> dict[str, Callable[[int], int]]:
    """Ways to read about so many shuffled frames; they return the number of frames."""
    database = ase.db.connect(str(folder / "made.db"))
    random = np.random.default_rng(0)

    def from_store(cutoff: float, workers: int = 0) -> Callable[[int], int]:
        dataset = Dataset(store, cutoff)
        dataset._room = 0  # as with more structures than memory holds
        plan = batches(dataset, Budget(atoms=BATCH), seed=1)

        def read(count: int) -> int:
            wanted = min(count * MEAN // BATCH, len(plan) - 1)
            start = int(random.integers(len(plan) - wanted))
            some = plan[start : start + wanted]
            for _ in load(dataset, some, workers):
                pass
            return sum(map(len, some))

        return read

    def from_ase(count: int) -> int:
        batch: list[Any] = []
        for k in random.permutation(small)[:count]:
            row = database._get_row(int(k) + 1)  # the row alone: no Atoms are made
            batch.append((row.numbers, row.positions, row.forces, row.energy))
            if len(batch) == BATCH // MEAN:
                for column in zip(*batch, strict=True):
                    np.concatenate([np.atleast_1d(part) for part in column])
                batch = []
        return count

    def as_objects(count: int) -> int:
        for k in random.permutation(len(store))[:count]:
            store[int(k)]
        return count

    return {
        "ase.db rows, collated": from_ase,
        "store, no neighbours": from_store(0.0),
        "store, neighbours within 5 A": from_store(5.0),
        "store, one structure at a time": as_objects,
    }


def measure(ways: dict[str, Callable[[int], int]], rounds: int) -> dict[str, Any]:
    """Frames a second, all by turns."""
    counts = {name: 2_000 if "ase" in name or "one" in name else 20_000 for name in ways}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for name, way in ways.items():
        way(counts[name])  # once for the caches
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.process_time()
            read = way(counts[name])
            rates[name].append(read / (time.process_time() - began))
    base = max(rates["ase.db rows, collated"])
    return {
        name: {"frames_per_s": round(max(r)), "median": round(float(np.median(r))), "x_ase_db": round(max(r) / base, 1)}
        for name, r in rates.items()
    }


def fillings() -> list[dict[str, Any]]:
    """Filling of batches for a million molecules of 2 to 350 atoms, log-normal about 50, as in OMol25."""
    random = np.random.default_rng(0)
    drawn = np.rint(np.exp(random.normal(np.log(50), 0.7, 2_000_000))).astype(int)
    atoms = drawn[(drawn >= 2) & (drawn <= 350)][:1_000_000]
    near = np.minimum(atoms - 1, 60 * (1 - 1.2 * atoms ** (-1 / 3)) + 8)
    edges = np.maximum(atoms * near * random.normal(1, 0.1, len(atoms)).clip(0.7, 1.3), 2).astype(int)

    class Sizes:
        pass

    data: Any = Sizes()
    data.atoms, data.edges = atoms, edges
    found = []
    for limit in (400, 700, 1000, 2000, 4000):
        for bound in (None, int(limit * edges.sum() / atoms.sum())):
            began = time.process_time()
            plan = batches(data, Budget(atoms=limit, edges=bound), seed=0, epoch=1)
            seconds = time.process_time() - began
            row = {"atoms": limit, "edges": bound, "batches": len(plan), "plan_s": round(seconds, 2)}
            row["filled_atoms"] = round(float(atoms.sum() / (limit * len(plan))), 4)
            if bound:
                row["filled_edges"] = round(float(edges.sum() / (bound * len(plan))), 4)
            found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--database", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS / "store.json")
    options = parser.parse_args()
    folder = options.folder
    folder.mkdir(parents=True)
    try:
        store, packed = make_store(folder, options.frames)
        with ase.db.connect(str(folder / "made.db"), append=False) as database:
            for atoms in frames(options.database):
                database.write(atoms)
        size = sum(path.stat().st_size for path in (folder / "store").iterdir())
        results = {
            "frames": len(store),
            "atoms": len(store.arrays.rows),
            "store_MB": round(size / 1e6),
            "bytes_per_atom": round(size / len(store.arrays.rows), 1),
            "pack_without_parsing_frames_per_s": round(len(store) / packed),
            "start_up": start_up(folder, BATCH),
            "reading": measure(readers(folder, store, options.database), options.rounds),
            "filling": fillings(),
            "load_average": os.getloadavg()[0],
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "memory_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
    finally:
        for path in [*folder.glob("store/*"), *folder.glob("made.*")]:
            path.unlink()
        (folder / "store").rmdir()
        folder.rmdir()
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
