"""Water at 300 K from a model: a long run, its structure, vibrations and diffusion, and the density at one bar.

    OMP_NUM_THREADS=1 python benchmarks/water.py nvt MODEL --frames FRAMES... --runs DIR --ps 100
    OMP_NUM_THREADS=1 python benchmarks/water.py spectrum MODEL --frames FRAMES... --runs DIR --ps 10
    OMP_NUM_THREADS=1 python benchmarks/water.py npt MODEL --frames FRAMES... --runs DIR --ps 50
    python benchmarks/water.py analyse MODEL --frames FRAMES... --runs DIR

``FRAMES`` are the reference: frames of path-integral dynamics of 64 molecules at 300 K (PBE0). The dynamics here are
classical. Every run goes on where it stood when it is called again: a machine may be switched off in between.
Bussi's thermostat at 0.5 ps disturbs diffusion hardly (Bussi, Donadio, Parrinello, J. Chem. Phys. 126, 014101 (2007)).

nvt        frames every 10 fs, from the first reference frame, relaxed downhill
spectrum   from the last frame of nvt there is, frames every 2 fs: a stretch of O-H takes 9 fs
npt        from the last frame of nvt there is, 1 bar
analyse    what there is of the three, into benchmarks/results/water.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ase
import ase.io
from ase.optimize import FIRE

from adatom.sim.calculator import Calculator
from adatom.sim.md import MDConfig, run

RESULTS = Path(__file__).resolve().parent / "results" / "water.json"
TIMESTEP = 0.5  # fs
SHARED = {
    "timestep_fs": TIMESTEP, "temperature_K": 300.0, "thermostat": "bussi", "thermostat_ps": 0.5, "log_every": 20,
    "restart_every": 2000, "min_distance_margin": 0.5, "compile": "on",
}  # fmt: skip
STAGES = {
    "nvt": {"ensemble": "nvt", "trajectory_every": 20, "seed": 1},
    "spectrum": {"ensemble": "nvt", "trajectory_every": 4, "seed": 2},
    "npt": {
        "ensemble": "npt", "pressure_GPa": 1e-4, "barostat_ps": 1.0, "compressibility_per_GPa": 0.45,
        "trajectory_every": 200, "seed": 3,
    },
}  # fmt: skip


def stage(name: str, options: argparse.Namespace) -> None:
    """One run, or what is left of it."""
    config = MDConfig.parse(SHARED | STAGES[name] | {"steps": round(1e3 * options.ps / TIMESTEP)}, where=name)
    calculator = Calculator(options.model)
    going_on = (options.runs / f"{name}.restart.npz").exists()
    if name == "nvt":
        first = ase.io.read(options.frames[0], 0)
        start = first if going_on else calmed(first, calculator)
    else:
        start = ase.io.read(options.runs / "nvt.xyz", -1)
        start.calc = None
    done = run(start, calculator, config, options.runs, name, restart=going_on)
    print(f"{name}: {done.steps} steps, {done.us_per_atom_step:.1f} µs per atom and step")


def calmed(atoms: ase.Atoms, calculator: Calculator) -> ase.Atoms:
    """Downhill until no force is above 1 eV/Å, for 100 steps at most: beads of path integrals are hot as atoms."""
    calm = atoms.copy()
    calm.calc = calculator
    FIRE(calm, logfile=None).run(fmax=1.0, steps=100)
    calm.calc = None
    return calm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(*STAGES,))
    parser.add_argument("model", type=Path)
    parser.add_argument("--frames", type=Path, nargs="+", required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/water_md"))
    parser.add_argument("--ps", type=float, default=100.0)
    options = parser.parse_args()
    stage(options.what, options)


if __name__ == "__main__":
    main()
