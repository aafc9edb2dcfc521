"""Structures as LAMMPS holds them, scripts about them, and what comes out, for tests against the real engine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.build import bulk, fcc111, molecule
from ase.data import atomic_masses, atomic_numbers

MPIRUN = "mpirun"
BAR_IN_GPA = 1e-4
TABLE = (
    "thermo_style custom step temp pe ke etotal press vol pxx pyy pzz pyz pxz pxy\nthermo_modify format float %.14g\n"
)


def structures() -> dict[str, tuple[ase.Atoms, str]]:
    """Name to structure, cells as LAMMPS wants them (a along x, b in the xy plane), and its boundary."""
    water = molecule("H2O")
    water.set_cell([12.0, 12.0, 12.0])
    water.center()
    cubic = bulk("Cu", "fcc", a=3.62, cubic=True) * (2, 2, 2)
    tilted = bulk("Cu", "fcc", a=3.7, cubic=True) * (2, 2, 2)
    tilted.set_cell([[7.4, 0.0, 0.0], [1.9, 7.2, 0.0], [-1.4, 2.3, 7.6]], scale_atoms=True)
    silica = bulk("SiO", "zincblende", a=4.6, cubic=True) * (1, 2, 2)
    slab = fcc111("Cu", (3, 3, 3), a=3.62, vacuum=6.0, orthogonal=False)
    thin = bulk("Cu", "fcc", a=3.62)  # one atom, a cell far thinner than the cutoff
    thin.set_cell(thin.cell.standard_form()[0], scale_atoms=True)
    named = {
        "molecule": (water, "f f f"), "cubic": (cubic, "p p p"), "tilted": (tilted, "p p p"),
        "two species": (silica, "p p p"), "slab": (slab, "p p f"), "thin": (thin, "p p p"),
    }  # fmt: skip
    for name, (atoms, boundary) in named.items():
        atoms.pbc = [letter == "p" for letter in boundary.split()]
        if name != "molecule":
            atoms.rattle(0.08, seed=3)
    return named


def write_data(atoms: ase.Atoms, path: Path, elements: tuple[str, ...]) -> None:
    """A data file with the atoms in a shuffled order of lines, folded into the box."""
    cell, n = atoms.cell.array, len(atoms)
    assert abs(np.triu(cell, 1)).max() < 1e-12
    tilt = (
        "" if abs(np.tril(cell, -1)).max() == 0 else f"{cell[1, 0]:.17g} {cell[2, 0]:.17g} {cell[2, 1]:.17g} xy xz yz\n"
    )
    sides = "".join(f"0.0 {cell[k, k]:.17g} {axis}lo {axis}hi\n" for k, axis in enumerate("xyz"))
    masses = "".join(f"{k} {atomic_masses[atomic_numbers[e]]:.6f}\n" for k, e in enumerate(elements, start=1))
    kinds = [elements.index(symbol) + 1 for symbol in atoms.get_chemical_symbols()]
    rows = np.random.default_rng(0).permutation(n)
    lines = "".join(
        f"{i + 1} {kinds[i]} " + " ".join(f"{x:.17g}" for x in atoms.get_positions(wrap=True)[i]) + "\n" for i in rows
    )
    head = f"for tests\n\n{n} atoms\n{len(elements)} atom types\n\n{sides}{tilt}"
    path.write_text(f"{head}\nMasses\n\n{masses}\nAtoms # atomic\n\n{lines}")


def script(data: Path, boundary: str, body: str) -> str:
    """An input script that reads a data file."""
    return f"units metal\nboundary {boundary}\natom_style atomic\nread_data {data}\n{TABLE}{body}\n"


def state(library: Any) -> dict[str, np.ndarray]:
    """Forces, positions and velocities by tag; energy (eV), volume (Å^3), pressure (bar) of the last row of a table."""
    n = int(library.get_natoms())
    order = np.argsort(library.numpy.extract_atom("id", nelem=n))
    arrays = {name: library.numpy.extract_atom(name, nelem=n, dim=3)[order].copy() for name in ("f", "x", "v")}
    row = library.last_thermo()
    pressure = np.array([row[name] for name in ("Pxx", "Pyy", "Pzz", "Pyz", "Pxz", "Pxy") if name in row])
    figures = {"pe": np.array(row["PotEng"]), "vol": np.array(row["Volume"])}
    return arrays | figures | {"pressure": pressure}


def thermo(log: Path) -> list[dict[str, float]]:
    """All tables of a log, row by row."""
    rows: list[dict[str, float]] = []
    names: list[str] = []
    for line in log.read_text().splitlines():
        words = line.split()
        if words[:1] == ["Step"]:
            names = words
        elif names and len(words) == len(names) and re.fullmatch(r"\d+", words[0]):
            rows.append(dict(zip(names, map(float, words), strict=True)))
        elif line.startswith("Loop time"):
            names = []
    return rows
