"""Speed and memory of ours and of peers, call by call in turn: energy and forces, with stress, and a training step.

    python benchmarks/speed.py --data DIR --envs ENVS
    python benchmarks/speed.py --data DIR --envs ENVS --systems 'nemp-S-*' mace nequip-l2 --structures water192

DIR holds the data sets; ENVS one environment for each peer (``benchmarks/systems/README.md``); a peer that has none is
left out, and the run says so. Every system is a process of its own on one thread, in float32, with random weights and a
cutoff of 5 Å where it has a choice. The processes take turns, A B A B: each does one call and says what CPU time the
call took; the least of seven or more is kept (of three where a call takes over 5 s; on a CUDA device the median between
device events). Calls are passes through a network on a finished graph. A structure that would take a system too long or
too much memory, judged by a smaller one, is left out, with the reason. A run is added to
``benchmarks/results/speed.json``, or to ``--results``. Compare only what ran in one run.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import platform
import re
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import ase.io
import numpy as np
from accuracy import append, commit
from ase.build import bulk

from adatom.data.read import read

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "speed.json"
ROUNDS, SLOW_ROUNDS, SLOW = 7, 3, 5.0  # calls that count; where a call takes more than so many seconds
TASKS = ("forces", "stress", "training")
Record = dict[str, Any]


class Script(NamedTuple):
    """Who runs a system."""

    file: str
    environment: str | None  # folder of its environment below --envs; None: that of this package


def known_systems() -> dict[str, Script]:
    """Every system by name: architecture, size, form and code of ours; size and code of peers."""
    ours = [f"{a}-{size}-{form}" for a in ("nemp", "mlanet", "allscaip") for size in "SML" for form in FORMS]
    found = {f"{name}-{code}": Script("speed_ours.py", None) for name in ours for code in CODE}
    for environment, (file, names) in PEERS.items():
        found |= {name: Script(file, environment) for name in names}
    return found


CODE = ("eager", "compiled")
FORMS = ("default", "paper")
MACE = ("64x0e", "128x0e", "128x0e+128x1o", "32x0e")
NEQUIP = ("nequip-l1", "nequip-l2", "nequip-l1-2x32", "nequip-l2-3x16", "allegro")
# environment: (script, names of its systems)
PEERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "mace": ("speed_mace.py", tuple(f"mace-{h}-{c}" for h in MACE for c in CODE)),
    "nequip": ("speed_nequip.py", tuple(f"{n}-{c}" for n in NEQUIP for c in CODE)),
    "sevenn": ("speed_sevenn.py", ("sevenn-l1-eager", "sevenn-0-eager")),
    "chgnet": ("speed_chgnet.py", ("chgnet-eager",)),
    "symmetrix": ("speed_symmetrix.py", ("symmetrix-128x0e+128x1o-compiled",)),
    "fairchem": ("speed_fairchem.py", ("fairchem-allscaip-sm-eager",)),
}
# name: (system of structures, number of atoms where it is repeated)
STRUCTURES = {
    "ethanol": 9, "aspirin": 21, "water192": 192, "water1536": 1536, "water12288": 12288, "slab": 0,
    "silicon64": 64, "silicon512": 512, "silicon1000": 1000, "silicon4096": 4096, "silicon32768": 32768,
    "silicon97336": 97336,
}  # fmt: skip
TRAINED = 600  # atoms up to which a training step is asked for


def structure(name: str, data: Path) -> ase.Atoms:
    """A structure by name; periodic ones in one cell or repeated."""
    if name in ("ethanol", "aspirin"):
        atoms = read(data / f"rmd17/{name}/test_01.xyz.xz")[0][0].atoms
    elif name.startswith("water"):
        cell = read(data / "water_pbe0_deepmd/data_3.xyz.xz")[0][0].atoms
        atoms = cell.repeat(round((STRUCTURES[name] / len(cell)) ** (1 / 3)))
    elif name.startswith("silicon"):
        atoms = bulk("Si", cubic=True).repeat(round((STRUCTURES[name] / 8) ** (1 / 3)))
        atoms.rattle(0.05, seed=0)
    else:
        frames = read(data / "oc20_s2ef_sample/all.xyz.xz")[0]
        atoms = max(frames, key=lambda frame: len(set(frame.atoms.numbers))).atoms  # the first with most elements
    bare = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    bare.info |= {"total_charge": 0, "multiplicity": 1}
    return bare


def write_structures(names: list[str], data: Path, folder: Path) -> dict[str, int]:
    """Write ``NAME.xyz`` and ``elements.json``: the elements that a network for this structure knows. Atoms of each."""
    tables: dict[str, list[int]] = {}
    counts = {}
    for name in names:
        atoms = structure(name, data)
        ase.io.write(folder / f"{name}.xyz", atoms, format="extxyz")
        counts[name] = len(atoms)
        tables[name] = [14] if name.startswith("silicon") else [1, 6, 8]
        if name == "slab":  # a network for the whole set: 41 elements
            frames = read(data / "oc20_s2ef_sample/all.xyz.xz")[0]
            tables[name] = sorted({int(z) for frame in frames for z in frame.atoms.numbers})
    (folder / "elements.json").write_text(json.dumps(tables))
    return counts


def family(structure: str) -> str:
    """Structures that differ in size alone."""
    return re.sub(r"\d+$", "", structure)


class BrokenError(Exception):
    """A system that cannot do what it is asked."""


@dataclass
class Process:
    """A system at work.

    ``known`` holds what it has shown: (family, task) -> (atoms, seconds, MiB more than before) of the largest.
    """

    name: str
    child: subprocess.Popen[str]
    log: Path
    versions: dict[str, str]
    known: dict[tuple[str, str], tuple[int, float, float]] = field(default_factory=dict)

    @classmethod
    def start(cls, name: str, script: Script, python: Path, folder: Path, device: str) -> Process:
        """Load a system; BrokenError when it does not come up."""
        one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        log = folder / f"{name}.log"
        command = [python, HERE / "systems" / script.file, "--system", name]
        command += ["--structures", folder, "--device", device]
        kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" or script.environment is None}
        with log.open("w") as errors:
            child = subprocess.Popen(
                [str(c) for c in command], env=kept | one, text=True, bufsize=1,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        process = cls(name, child, log, {})
        process.versions = process.answer()["ready"]
        return process

    def ask(self, **wanted: str) -> Record:
        """Send one request and wait for its answer."""
        assert self.child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the answer says why
            self.child.stdin.write(json.dumps(wanted) + "\n")
        return self.answer()

    def answer(self) -> Record:
        """The next answer; BrokenError for one that says what went wrong, and for none."""
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        while line and not line.startswith("@"):  # what a library prints
            line = self.child.stdout.readline()
        if not line:
            code = self.child.wait()
            said = self.log.read_text().strip().splitlines() or [""]
            raise BrokenError("killed, for want of memory most likely" if code == -9 else said[-1][:300])
        found: Record = json.loads(line[1:])
        if "error" in found:
            raise BrokenError(found["error"][:300])
        return found

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self.child.poll() is None

    def stop(self) -> None:
        """End it."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.child.stdin.close()
        try:
            self.child.wait(30)
        except subprocess.TimeoutExpired:
            self.child.kill()
        self.child.stdout.close()

    def too_much(self, structure: str, task: str, atoms: int, seconds: float, MiB: float) -> str | None:
        """Why this should not be tried, judged by the largest structure of the kind so far; None: try it."""
        before = self.known.get((family(structure), task))
        if before is None:
            return None
        ratio = atoms / before[0]
        if ratio * before[1] > seconds:
            return f"{before[1]:.3g} s for {before[0]} atoms: over {seconds:g} s a call"
        if ratio * before[2] > MiB:
            return f"{before[2]:.0f} MiB for {before[0]} atoms: over {MiB:.0f} MiB"
        return None


def measure(
    processes: list[Process], structure: str, task: str, atoms: int, options: argparse.Namespace
) -> list[Record]:
    """One task on one structure by all systems in turn."""
    records: list[Record] = []
    ready: dict[str, Record] = {}
    times: dict[str, list[float]] = {}
    peaks: dict[str, float] = {}

    def left_out(process: Process, why: str) -> None:
        records.append({"system": process.name, "structure": structure, "task": task, "atoms": atoms, "skipped": why})
        print(f"  {process.name}: left out: {why}", flush=True)

    asked = [p for p in processes if p.alive]
    for process in asked:
        why = process.too_much(structure, task, atoms, options.limit, options.memory)
        if why is not None:
            left_out(process, why)
            continue
        try:
            ready[process.name] = process.ask(do="prepare", structure=structure, task=task)
            times[process.name] = []
        except BrokenError as error:
            left_out(process, str(error))
    for _ in range(options.rounds):
        for process in (p for p in asked if p.name in times):
            enough = SLOW_ROUNDS if ready[process.name]["seconds"] > SLOW else options.rounds
            if len(times[process.name]) >= enough:
                continue
            try:
                found = process.ask(do="run")
            except BrokenError as error:
                del times[process.name]
                left_out(process, str(error))
                continue
            times[process.name].append(found["seconds"])
            peaks[process.name] = found["peak_MiB"]
    for process in (p for p in asked if p.name in times):
        seconds = times[process.name]
        best = statistics.median(seconds) if options.device != "cpu" else min(seconds)
        process.known[family(structure), task] = (atoms, best, peaks[process.name] - ready[process.name]["held_MiB"])
        records.append({
            "system": process.name, "structure": structure, "task": task, "atoms": atoms, "seconds": best,
            "median_seconds": statistics.median(seconds), "rounds": len(seconds), "us_per_atom": 1e6 * best / atoms,
            "peak_MiB": peaks[process.name],
            **{k: ready[process.name][k] for k in ("seconds_to_the_first", "held_MiB")},
        })  # fmt: skip
        print(f"  {process.name}: {1e6 * best / atoms:.1f} µs/atom, {peaks[process.name]:.0f} MiB", flush=True)
        if process.alive:
            process.ask(do="drop")
    return records


def chosen(patterns: list[str], names: list[str]) -> list[str]:
    """The names that a pattern matches, whole or from their beginning on."""
    found = [n for n in names if any(fnmatch.fnmatchcase(n, p) or n.startswith(f"{p}-") for p in patterns)]
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(n, pattern) or n.startswith(f"{pattern}-") for n in names):
            raise SystemExit(f"nothing is called '{pattern}'; there are {', '.join(names)}")
    return found


def start(options: argparse.Namespace, folder: Path) -> tuple[list[Process], dict[str, str]]:
    """The systems that come up, and why others do not."""
    processes, absent = [], {}
    systems = known_systems()
    for name in chosen(options.systems, list(systems)):
        script = systems[name]
        python = Path(sys.executable)
        if script.environment is not None:
            python = options.envs / script.environment / "bin" / "python"
        if script.environment is not None and options.device != "cpu":
            absent[name] = "peers are measured on a CPU"
        elif not python.exists():
            absent[name] = f"no environment {script.environment}"
        else:
            try:
                processes.append(Process.start(name, script, python, folder, options.device))
                print(f"{name}: {processes[-1].versions}", flush=True)
                continue
            except BrokenError as error:
                absent[name] = str(error)
        print(f"{name}: left out: {absent[name]}", flush=True)
    return processes, absent


def machine(device: str) -> Record:
    """What all this ran on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    found: Record = {"cpu": model, "cores": os.cpu_count(), "device": device}
    if device != "cpu":
        import torch

        found["card"] = torch.cuda.get_device_name(device)
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--envs", type=Path, default=Path("envs"), help="a folder with one environment for each peer")
    parser.add_argument("--systems", nargs="+", default=["*"], help="names, beginnings or patterns")
    parser.add_argument("--structures", nargs="+", default=["*"], help="names or patterns")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=["forces", "training"])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds of a call beyond which nothing is tried")
    parser.add_argument("--memory", type=float, default=4096.0, help="MiB of a call beyond which nothing is tried")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; peers run on a CPU only")
    parser.add_argument("--note", default="", help="a word on this run, kept with it")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


def command(options: argparse.Namespace) -> str:
    """What to type to run this again; where data and environments lie is left open."""
    words = ["python benchmarks/speed.py --data DIR --envs ENVS"]
    for name in ("systems", "structures", "tasks"):
        words += [f"--{name}", *(shlex.quote(word) for word in getattr(options, name))]
    return " ".join([*words, f"--rounds {options.rounds} --limit {options.limit:g} --device {options.device}"])


def main() -> None:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was measured is kept
    names = chosen(options.structures, list(STRUCTURES))
    header: Record = {
        "date": time.strftime("%Y-%m-%d %H:%M"), "commit": commit(), "machine": machine(options.device),
        "threads": 1, "precision": "float32", "cutoff_A": 5.0, "note": options.note,
        "command": command(options),
    }  # fmt: skip
    records: list[Record] = []
    loads: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        counts = write_structures(names, options.data, folder)
        processes, absent = start(options, folder)
        try:
            for task in options.tasks:
                for name in names:
                    periodic = ase.io.read(folder / f"{name}.xyz").pbc.all()
                    if (task == "training" and counts[name] > TRAINED) or (task == "stress" and not periodic):
                        continue
                    loads.append(os.getloadavg()[0])
                    print(f"{name}, {task}, {counts[name]} atoms, load {loads[-1]:.2f}", flush=True)
                    records += measure(processes, name, task, counts[name], options)
        finally:
            for process in processes:
                process.stop()
            if records:
                load = {"mean": float(np.mean(loads)), "largest": max(loads)}
                versions = {p.name: p.versions for p in processes}
                run = header | {"load": load, "versions": versions, "absent": absent, "records": records}
                append(options.results, run)


if __name__ == "__main__":
    main()
