"""Structures of all sorts, written to files, and ways to compare and to break them."""

from __future__ import annotations

from pathlib import Path

import ase
import ase.io
import numpy as np
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from adatom.data.structure import Structure


def odd_structures(count: int, seed: int = 0) -> list[ase.Atoms]:
    """Molecules, crystals, thin cells, slabs, lone atoms; labels here and there; masses, momenta, constraints."""
    random = np.random.default_rng(seed)
    made = []
    for k in range(count):
        kind = int(random.integers(6))
        atoms = (
            molecule(str(random.choice(["H2O", "CH3CH2OH", "C6H6"]))),
            bulk("Si", cubic=True),
            bulk("Cu"),
            ase.Atoms("Ar"),
            ase.Atoms("O2", [(0, 0, 5), (0, 0, 6.2)], cell=[3, 3, 20], pbc=(True, True, False)),
            ase.Atoms("NaCl", [(0, 0, 0), (0, 0, 2.4)], cell=[60, 60, 2.9 * 2], pbc=(False, False, True)),
        )[kind]
        if kind in (1, 2):
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.05 * random.normal(size=(3, 3))), scale_atoms=True)
        if len(atoms) > 1:
            atoms.positions += 0.03 * random.normal(size=atoms.positions.shape)
        results = {}
        if random.random() < 0.9:
            results["energy"] = float(random.normal())
        if random.random() < 0.8:
            results["forces"] = random.normal(size=(len(atoms), 3))
        if atoms.pbc.all() and random.random() < 0.8:
            results["stress"] = random.normal(size=6)
        if results:
            atoms.calc = SinglePointCalculator(atoms, **results)
        if random.random() < 0.5:
            atoms.info["config_type"] = str(random.choice(["bulk", "gas", "Schicht ü"]))
        if random.random() < 0.3:
            atoms.info["total_charge"] = int(random.integers(-2, 3))
        if random.random() < 0.3:
            atoms.info["multiplicity"] = int(random.integers(1, 4))
        if random.random() < 0.3:
            atoms.set_masses(random.uniform(1, 50, len(atoms)))
        if random.random() < 0.3:
            atoms.set_momenta(random.normal(size=(len(atoms), 3)))
        if random.random() < 0.3:
            atoms.set_constraint(FixAtoms([0]))
        atoms.info["system"] = f"s{k % 7}"
        made.append(atoms)
    return made


def write(path: Path, frames: list[ase.Atoms]) -> Path:
    """Write structures; extended XYZ keeps momenta by name alone."""
    ase.io.write(path, frames)
    return path


def bits(array: object) -> bytes:
    """Bytes of float64 numbers: NaN equals NaN, and -0 is not 0."""
    return np.ascontiguousarray(array, dtype=np.float64).tobytes()


def assert_same(a: Structure, b: Structure) -> None:
    """Two structures are the same bit for bit."""
    assert a.atoms.numbers.tolist() == b.atoms.numbers.tolist()
    for left, right in (
        (a.atoms.positions, b.atoms.positions),
        (a.atoms.cell.array, b.atoms.cell.array),
        (a.atoms.pbc, b.atoms.pbc),
        (a.energy, b.energy),
        (a.forces, b.forces),
        (a.stress, b.stress),
        (a.atoms.get_masses(), b.atoms.get_masses()),
        (a.atoms.get_momenta(), b.atoms.get_momenta()),
    ):
        assert bits(left) == bits(right)
    assert a.atoms.info == b.atoms.info
    assert [c.todict() for c in a.atoms.constraints] == [c.todict() for c in b.atoms.constraints]
    assert sorted(a.atoms.arrays) == sorted(b.atoms.arrays)
    for name in ("name", "config_type", "fields", "isolated"):
        assert getattr(a, name) == getattr(b, name)
    assert dict(a.tags) == dict(b.tags)
    assert dict(a.keys) == dict(b.keys)


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, and of those inside it."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def flip(path: Path, at: int) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << (at % 8)
    path.write_bytes(data)
