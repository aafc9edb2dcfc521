"""Many structures relaxed at once against one by one in ASE: CPU time of one thread, and where they end.

    OMP_NUM_THREADS=1 python benchmarks/relax_many.py --model model.adatom --structures frames.xyz --count 200

Every structure is displaced by 0.1 Å first. One by one: ``adatom.relax``, ASE's L-BFGS. At once: ``relax_many``. Both
to the same largest force, with the same model, uncompiled unless ``--compile on``. Adds its record to
``benchmarks/results/relax_many.json``.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
import torch
from accuracy import append, commit

from adatom.sim.calculator import Calculator
from adatom.sim.relax import relax
from adatom.sim.relax_many import relax_many

RESULTS = Path(__file__).resolve().parent / "results" / "relax_many.json"
SAME = 1e-3  # eV/atom: two ends this close in energy are one minimum


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--structures", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--largest", type=int, default=10_000, help="atoms: larger structures are left out")
    parser.add_argument("--fmax", type=float, default=0.02, help="eV/Å")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--compile", choices=("on", "off"), default="off")
    parser.add_argument("--name", required=True, help="of the set, in the record")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    given = displaced(options.structures, options.count, options.largest)
    calculator = Calculator(options.model, compile=options.compile)
    relax_many(given[:2], calculator, fmax=options.fmax, steps=2)  # warm, and compiled
    begin = time.process_time()
    many = relax_many(given, calculator, fmax=options.fmax, steps=options.steps)
    at_once = time.process_time() - begin
    begin = time.process_time()
    alone = [relax(atoms, calculator, fmax=options.fmax, steps=options.steps) for atoms in given]
    one_by_one = time.process_time() - begin
    both = [(a, b) for a, b in zip(many.results, alone, strict=True) if a.converged and b.converged]
    apart = np.array([(a.energy - b.energy) / len(a.atoms) for a, b in both])
    record: dict[str, Any] = {
        "set": options.name, "structures": len(given), "atoms": sum(len(atoms) for atoms in given),
        "fmax": options.fmax, "compile": options.compile,
        "at_once_cpu_s": round(at_once, 2), "one_by_one_cpu_s": round(one_by_one, 2),
        "ratio": round(one_by_one / at_once, 2),
        "steps": {"at_once": sum(one.steps for one in many.results), "one_by_one": sum(one.steps for one in alone)},
        "converged": {"at_once": sum(o.converged for o in many.results), "one_by_one": sum(o.converged for o in alone)},
        "same_minimum": int((np.abs(apart) < SAME).sum()), "lower_at_once": int((apart <= -SAME).sum()),
        "higher_at_once": int((apart >= SAME).sum()),
        "load": round(os.getloadavg()[0], 1), "date": time.strftime("%Y-%m-%d %H:%M"), "commit": commit(),
    }  # fmt: skip
    append(options.results, record)
    print(record)


def displaced(path: Path, count: int, largest: int) -> list[ase.Atoms]:
    """The first structures of a file, each atom moved by a normal 0.1 Å along each axis."""
    frames = [atoms for atoms in ase.io.read(path, ":") if len(atoms) <= largest]
    rng = np.random.default_rng(0)
    chosen = [frames[k % len(frames)].copy() for k in range(count)]
    for atoms in chosen:
        atoms.calc = None
        atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
    return chosen


if __name__ == "__main__":
    main()
