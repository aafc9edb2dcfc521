"""Ten picoseconds from 300 to 3,000 K: does a model survive what it was never shown?

    python benchmarks/heating.py si=runs/si/model.adatom water=runs/water/model.adatom --structure water=start.xyz

A crash is a stop of the guard as it is shipped (two atoms nearer than heat can bring them, a temperature far above the
target) or a number that is none. That molecules fall apart and crystals melt at such temperatures is physics. Water and
molecules take steps of 0.5 fs, crystals without hydrogen 1 fs; Langevin, 0.1 ps; fixed cell. ``--margin 0`` takes the
guard of distances away and goes on to the end: then the record says how near atoms came, and what broke.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import ase
import ase.io
import numpy as np
from accuracy import commit
from ase.build import bulk

from adatom.elements import symbol
from adatom.errors import AdatomError
from adatom.model_file import load
from adatom.neighbors import neighbor_list
from adatom.sim.calculator import Calculator
from adatom.sim.md import MDConfig, run

RESULTS = Path(__file__).parent / "results" / "heating.json"
COLD, HOT, PICOSECONDS = 300.0, 3000.0, 10.0
EVERY = 50  # steps between frames that are looked at


def start_of(name: str, given: dict[str, Path], elements: list[int]) -> ase.Atoms:
    """The structure given, or 64 atoms of silicon."""
    if name in given:
        return ase.io.read(given[name])
    if elements == [14]:
        return bulk("Si", cubic=True, a=5.47) * 2
    raise SystemExit(f"give a start for {name}: --structure {name}=FILE")


def heated(
    name: str,
    path: Path,
    atoms: ase.Atoms,
    margin: float | None,
    folder: Path,
    picoseconds: float,
    seed: int,
    timestep: float | None,
) -> dict[str, object]:
    """One ramp, and what it came to."""
    potential = load(path)
    step = timestep or (0.5 if 1 in atoms.numbers else 1.0)
    settings = MDConfig(
        temperature_K=COLD, final_temperature_K=HOT, steps=math.ceil(1e3 * picoseconds / step), timestep_fs=step,
        log_every=EVERY, trajectory_every=EVERY, restart_every=1000, min_distance_margin=margin, seed=seed,
    )  # fmt: skip
    begin, reason = time.process_time(), "finished"
    try:
        begun = (folder / f"{name}.restart.npz").exists()  # one that was cut off goes on
        run(atoms, Calculator(potential), settings, folder, name, restart=begun)
    except AdatomError as error:
        reason = " ".join(str(error).split())
    lines = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    frames = ase.io.read(folder / f"{name}.xyz", index=":")
    return {
        "model": path.name, "formula": atoms.get_chemical_formula(), "atoms": len(atoms),
        "architecture": potential.network.config.architecture, "floor": potential.network.config.closest is not None,
        "priors": [prior.config.model_dump(mode="json", exclude={"closest"}) for prior in potential.priors],
        "timestep_fs": step, "margin": margin, "seed": seed, "reason": reason, "crash": reason != "finished",
        "ps": steps[-1]["time_ps"], "target_K": settings.target_K(steps[-1]["step"]),
        "hottest_K": max(line["temperature_K"] for line in steps),
        "closest_A": closest(frames), "trained_A": potential.card.get("min_distance_A", {}),
        "cpu_s": time.process_time() - begin,
    }  # fmt: skip


def closest(frames: list[ase.Atoms]) -> dict[str, float]:
    """Shortest distance of each pair of elements in the frames, Å."""
    found: dict[str, float] = {}
    for atoms in frames:
        edges, shifts = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, 3.0)
        vectors = atoms.positions[edges[1]] + shifts @ atoms.cell.array - atoms.positions[edges[0]]
        for (a, b), r in zip(np.sort(atoms.numbers[edges], axis=0).T, np.linalg.norm(vectors, axis=1), strict=True):
            pair = f"{symbol(a)}-{symbol(b)}"
            found[pair] = min(found.get(pair, math.inf), float(r))
    return dict(sorted(found.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="NAME=model.adatom")
    parser.add_argument("--structure", action="append", default=[], help="NAME=FILE, its first frame is the start")
    parser.add_argument("--margin", type=float, help="of the shortest trained distance, still allowed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timestep", type=float, help="fs")
    parser.add_argument("--ps", type=float, default=PICOSECONDS)
    parser.add_argument("--folder", type=Path, default=Path("runs/heating"))
    options = parser.parse_args()
    given = {name: Path(path) for name, _, path in (entry.partition("=") for entry in options.structure)}
    for name, _, path in (entry.partition("=") for entry in options.models):
        atoms = start_of(name, given, load(path).elements)
        label = f"{name}, seed {options.seed}" + (f", {options.timestep:g} fs" if options.timestep else "")
        one = heated(
            label, Path(path), atoms, options.margin, options.folder, options.ps, options.seed, options.timestep
        )
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}  # others may have written since
        results[label] = one | {"commit": commit()}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        print(f"{label:24} {one['ps']:6.2f} ps, {one['target_K']:.0f} K: {one['reason'][:120]}", flush=True)


if __name__ == "__main__":
    main()
