"""Molecules by their bonds: which atoms belong together, one of them taken out whole, and which have come apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import ase
import numpy as np

from adatom.elements import covalent_radius
from adatom.errors import DataError
from adatom.neighbors import neighbor_list

BOND, TORN = 1.25, 1.6  # of the sum of the covalent radii: bonded below, no longer bonded above


@dataclass(frozen=True)
class Molecules:
    """The molecules of a system; ``positions`` has each of them whole, wherever the boundaries of the cell are."""

    members: tuple[np.ndarray, ...]  # atoms of each molecule
    bonds: np.ndarray  # (B, 2)  atoms, i < j
    positions: np.ndarray  # (N, 3)  Å
    formulas: tuple[str, ...]  # of each molecule

    def one(self, atoms: ase.Atoms, number: int = 0) -> ase.Atoms:
        """One molecule alone in the open."""
        picked = self.members[number]
        return ase.Atoms(
            numbers=atoms.numbers[picked], positions=self.positions[picked], masses=atoms.get_masses()[picked]
        )


@dataclass(frozen=True)
class Integrity:
    """Molecules that had come apart, counted along a trajectory."""

    molecules: int
    frames: int
    torn_at_most: int  # at once
    torn_at_end: int  # in the last frame
    torn_ever: int  # different ones

    @property
    def whole(self) -> bool:
        """Whether no molecule was ever seen in parts."""
        return self.torn_ever == 0


def molecules(atoms: ase.Atoms, bond: float = BOND) -> Molecules:
    """Atoms that are bonded: closer than ``bond`` times the sum of their covalent radii, directly or through others.

    DataError where bonds lead from an atom to its own periodic image: a network has no molecules.
    """
    radii = covalent_radius(atoms.numbers)
    cell = np.asarray(atoms.cell)
    reach = 2.0 * bond * float(radii.max(initial=0.1))
    pairs, shifts = neighbor_list(atoms.get_positions(), cell, atoms.pbc, reach)
    vectors = atoms.positions[pairs[1]] + shifts @ cell - atoms.positions[pairs[0]]  # (E, 3)
    bonded = np.linalg.norm(vectors, axis=1) < bond * (radii[pairs[0]] + radii[pairs[1]])
    pairs, vectors = pairs[:, bonded], vectors[bonded]
    starts = np.searchsorted(pairs[0], np.arange(len(atoms) + 1))  # pairs are sorted by their first atom
    placed = np.full((len(atoms), 3), np.nan)
    members: list[np.ndarray] = []
    for first in range(len(atoms)):
        if np.isfinite(placed[first, 0]):
            continue
        placed[first] = atoms.positions[first]
        found = [first]
        for atom in found:  # grows as it is walked
            for edge in range(starts[atom], starts[atom + 1]):
                other, place = int(pairs[1, edge]), placed[atom] + vectors[edge]
                if not np.isfinite(placed[other, 0]):
                    placed[other] = place
                    found.append(other)
                elif np.abs(placed[other] - place).max() > 1e-6:
                    raise DataError(
                        "bonds lead from atoms to their own periodic images: this is a network, without molecules",
                        where=f"{atoms.get_chemical_formula()}, atom {other}",
                        wanted="a molecular liquid",
                        remedy="leave out what needs molecules",
                    )
        members.append(np.sort(np.array(found)))
    once = pairs[0] < pairs[1]
    return Molecules(
        members=tuple(members),
        bonds=pairs[:, once].T.copy(),
        positions=placed,
        formulas=tuple(atoms[part].get_chemical_formula() for part in members),
    )


def integrity(frames: Iterable[ase.Atoms], at_start: Molecules, torn: float = TORN) -> Integrity:
    """Count the molecules of which a bond is longer than ``torn`` times the sum of the covalent radii, frame by frame.

    DataError where there are no frames.
    """
    of_atom = np.empty(len(at_start.positions), dtype=np.int64)
    for number, part in enumerate(at_start.members):
        of_atom[part] = number
    ever: set[int] = set()
    most = last = count = 0
    for atoms in frames:
        broken = _broken(atoms, at_start.bonds, torn)
        now = set(of_atom[at_start.bonds[broken, 0]].tolist())
        ever |= now
        most, last, count = max(most, len(now)), len(now), count + 1
    if count == 0:
        raise DataError("there are no frames in which to look for molecules", remedy="write frames more often")
    return Integrity(len(at_start.members), count, most, last, len(ever))


def _broken(atoms: ase.Atoms, bonds: np.ndarray, torn: float) -> np.ndarray:
    """Which bonds are longer than they may be, by their shortest image, (B,)."""
    if len(bonds) == 0:
        return np.zeros(0, dtype=bool)
    radii = covalent_radius(atoms.numbers)
    cell = np.asarray(atoms.cell.complete())
    way = atoms.positions[bonds[:, 1]] - atoms.positions[bonds[:, 0]]
    turns = np.where(atoms.pbc, np.rint(way @ np.linalg.inv(cell)), 0.0)
    length = np.linalg.norm(way - turns @ cell, axis=1)
    broken: np.ndarray = length > torn * radii[bonds].sum(axis=1)
    return broken


def kinds(found: Molecules) -> Sequence[str]:
    """Formulas of the kinds of molecules there are, the most frequent first."""
    names, counts = np.unique(np.array(found.formulas), return_counts=True)
    return [str(name) for name in names[np.argsort(-counts)]]
