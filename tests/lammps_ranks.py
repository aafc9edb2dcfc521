"""LAMMPS on as many processes as there are: ``mpirun -n 2 python lammps_ranks.py FOLDER`` keeps what they say."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch
from ase.build import bulk, molecule

from adatom.errors import AdatomError
from adatom.graph import Graph
from adatom.potential import Potential
from adatom.sim.lammps.drive import run
from adatom.sim.lammps.library import communicator
from adatom.testing.untrained import untrained
from lammps_cases import script, write_data

ATOMIC = (
    "compute e all pe/atom\ncompute w all stress/atom NULL virial\ncompute te all reduce sum c_e\n"
    "compute tw all reduce max c_w[1]\nthermo_style custom step pe etotal c_te c_tw press vol pxx pyy pzz pxy pxz pyz\n"
)


def tilted() -> ase.Atoms:
    """Two elements in a tilted cell; hot, so that atoms change hands."""
    atoms = bulk("SiO", "zincblende", a=4.6, cubic=True) * (2, 2, 2)
    cell = atoms.cell.array.copy()
    cell[1, 0], cell[2, 0], cell[2, 1] = 1.5, -0.7, 2.0
    atoms.set_cell(cell, scale_atoms=True)
    atoms.rattle(0.1, seed=1)
    return atoms


def lopsided(lone: bool) -> ase.Atoms:
    """A molecule in one half of an open box: the other process has no atoms, or one atom without neighbours."""
    atoms = molecule("H2O")
    atoms.set_cell([14.0, 14.0, 24.0])
    atoms.center()
    atoms.positions[:, 2] -= 8.0
    return atoms + ase.Atoms("H", [[7.0, 7.0, 20.0]]) if lone else atoms


MOVE = "fix move all nve\nneighbor 0.5 bin\nthermo 10\n"
HOT = "velocity all create 8000 12\ntimestep 0.002\n"


def network(architecture: str) -> Potential:
    potential = untrained(architecture, elements=(1, 8, 14), cutoff=4.0).eval()
    potential.network.to(torch.float64)
    return potential


def say(name: str, atoms: ase.Atoms, boundary: str, body: str, potential: Potential, folder: Path) -> None:
    """Run a script and write forces, positions and the last row of thermo, by the first process."""
    comm = communicator()
    elements = tuple(sorted(set(atoms.get_chemical_symbols())))
    if comm.rank == 0:
        write_data(atoms, folder / f"{name}.data", elements)
        style = f"pair_style adatom\npair_coeff * * {' '.join(elements)}\n"
        (folder / f"{name}.lmp").write_text(script(folder / f"{name}.data", boundary, style + body))
    comm.barrier()
    found: dict[str, Any] = {}

    def look(library: Any) -> None:
        for key in ("f", "x"):
            found[key] = np.array(library.gather_atoms(key, 1, 3)).reshape(-1, 3)
        row = library.last_thermo()
        found.update({f"thermo {key}": value for key, value in row.items()})
        found["least"] = comm.allreduce(library.extract_setting("nlocal"), op=_least())

    done = run(
        folder / f"{name}.lmp", potential, charge=0.0, multiplicity=1.0, compile="off", inspect=look,
        log=folder / f"{name}.log",
    )  # fmt: skip
    if comm.rank == 0:
        np.savez(folder / f"{name}.npz", way=np.array(done.evaluated), processes=np.array(done.processes), **found)


def broken(folder: Path) -> None:
    """One process finds no number: what each of them says of it."""
    comm = communicator()
    potential = network("nemp")
    if comm.rank == comm.size - 1:
        inner = potential.atomic_references

        def bad(graph: Graph) -> torch.Tensor:
            return inner(graph).masked_fill(torch.arange(graph.numbers.shape[0]) == 0, torch.nan)

        potential.atomic_references = bad  # type: ignore[method-assign]
    try:
        say("broken", tilted(), "p p p", HOT + MOVE + "run 5", potential, folder)
        said = "nothing"
    except AdatomError as error:
        said = f"{type(error).__name__}: {error.problem}"
    (folder / f"broken.{comm.rank}").write_text(said)


def _least() -> Any:
    from mpi4py import MPI

    return MPI.MIN


def all_cases(folder: Path) -> None:
    """All that the test looks at."""
    say("tilted", tilted(), "p p p", ATOMIC + HOT + MOVE + "run 40", network("nemp"), folder)
    say(
        "layers", tilted(), "p p p", "fix move all npt temp 300 300 0.1 aniso 0 0 0.5\nrun 5", network("mlanet"), folder
    )
    for name, lone in (("empty", False), ("lone", True)):
        say(name, lopsided(lone), "f f f", MOVE + "run 5", network("nemp"), folder)
    say("whole", tilted(), "p p p", "run 0", network("allscaip"), folder)


if __name__ == "__main__":
    all_cases(Path(sys.argv[1]))
    broken(Path(sys.argv[1]))
