"""The space group of a crystal, and what it says of positions, forces, strain and stress."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ase
import numpy as np
import spglib
from ase.constraints import FixConstraint
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress
from scipy.spatial import KDTree

from adatom.errors import GeometryError
from adatom.sim.calculator import require_volume

SYMPREC = 1e-2  # Å, by which atoms at rest may miss their symmetric places


@dataclass(frozen=True)
class SpaceGroup:
    """Operations x' = W x + w on fractional coordinates, and where each carries every atom."""

    number: int
    symbol: str  # international, as in Fd-3m
    rotations: np.ndarray  # (G, 3, 3)  W, integers
    translations: np.ndarray  # (G, 3)  w
    images: np.ndarray  # (G, N)  atom i stands where operation g carries it: on atom images[g, i]
    equivalent: np.ndarray  # (N,)  first of the atoms that the operations carry into this one
    to_conventional: np.ndarray  # (3, 3)  turns columns from these axes to those of the conventional cell

    def __str__(self) -> str:
        return f"{self.symbol} ({self.number})"

    def cartesian(self, cell: np.ndarray) -> np.ndarray:
        """Operations on Cartesian columns, (G, 3, 3); the cell has rows as vectors."""
        frame = np.asarray(cell, dtype=np.float64).T
        turns: np.ndarray = frame @ self.rotations @ np.linalg.inv(frame)
        return turns


def space_group(atoms: ase.Atoms, symprec: float = SYMPREC) -> SpaceGroup:
    """The space group that a crystal has within ``symprec`` (Å).

    StressError without periodicity in three directions; GeometryError where no group is found.
    """
    require_volume(atoms)
    found = ask(atoms, spglib.get_symmetry_dataset, symprec)
    scaled = atoms.get_scaled_positions()
    rotations, translations = np.asarray(found.rotations), np.asarray(found.translations, dtype=np.float64)
    return SpaceGroup(
        int(found.number),
        str(found.international),
        rotations,
        translations,
        _images(scaled, atoms.numbers, rotations, translations),
        np.asarray(found.equivalent_atoms, dtype=np.int64),
        np.asarray(found.std_rotation_matrix, dtype=np.float64),
    )


def ask(atoms: ase.Atoms, question: Callable[..., Any], symprec: float = SYMPREC, **settings: bool) -> Any:
    """What a function of spglib says of a crystal; GeometryError where it finds no answer.

    spglib speaks through None in one version and through exceptions in another: both are one error here.
    """
    crystal = atoms.cell.tolist(), atoms.get_scaled_positions().tolist(), atoms.numbers.tolist()
    cause: Exception | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # spglib 2.7 announces that None will be an exception
        try:
            answer = question(crystal, symprec=symprec, **settings)
        except Exception as error:  # older versions have no class of their own for it
            answer, cause = None, error
    if answer is None:
        raise GeometryError(
            "no symmetry could be found",
            where=atoms.get_chemical_formula(),
            wanted="a crystal: a cell with a volume, no two atoms on one spot",
            remedy="relax the structure first, or check its cell",
        ) from cause
    return answer


def symmetrised(atoms: ase.Atoms, group: SpaceGroup) -> ase.Atoms:
    """A copy that has the symmetry of ``group`` to the last digits; it turns and shifts as little as can be."""
    cell = np.asarray(atoms.cell.array)
    metric = np.mean(np.swapaxes(group.rotations, 1, 2) @ (cell @ cell.T) @ group.rotations, axis=0)
    back = np.linalg.inv(cell)
    values, vectors = np.linalg.eigh(back @ metric @ back.T)  # cell F with F symmetric has this metric
    scaled = atoms.get_scaled_positions(wrap=False)
    mean = np.zeros_like(scaled)
    for rotation, translation, images in zip(group.rotations, group.translations, group.images, strict=True):
        carried = scaled @ rotation.T + translation  # (N, 3), the place of atom images[i]
        mean[images] += carried - np.round(carried - scaled[images])
    copy = atoms.copy()
    copy.set_constraint()
    copy.set_cell(cell @ (vectors * np.sqrt(values)) @ vectors.T)
    copy.set_scaled_positions(mean / len(group.rotations))
    copy.set_constraint(atoms.constraints)
    return copy


class KeepSymmetry(FixConstraint):  # type: ignore[misc]
    """Constraint of ASE: forces, stress and steps are averaged over the operations of a space group.

    The rotations are those of the cell at the start: a strain that has their symmetry leaves them as they are.
    """

    def __init__(self, group: SpaceGroup, cell: np.ndarray) -> None:
        self.images = group.images
        self.turns = group.cartesian(cell)  # (G, 3, 3), on columns

    def get_removed_dof(self, atoms: ase.Atoms) -> int:
        """None are counted: a temperature is not what this constraint is for."""
        return 0

    def adjust_forces(self, atoms: ase.Atoms, forces: np.ndarray) -> None:
        """Average in place, (N, 3)."""
        forces[:] = self._vectors(forces)

    def adjust_positions(self, atoms: ase.Atoms, new: np.ndarray) -> None:
        """Average the step that leads to ``new``."""
        new[:] = atoms.positions + self._vectors(new - atoms.positions)

    def adjust_stress(self, atoms: ase.Atoms, stress: np.ndarray) -> None:
        """Average in place, six components."""
        stress[:] = full_3x3_to_voigt_6_stress(self._tensor(voigt_6_to_full_3x3_stress(stress)))

    def adjust_cell(self, atoms: ase.Atoms, cell: np.ndarray) -> None:
        """Average the strain that leads to ``cell``."""
        now = atoms.cell.array
        cell[:] = now @ self._tensor(np.linalg.inv(now) @ np.asarray(cell))

    def _vectors(self, vectors: np.ndarray) -> np.ndarray:
        mean = np.zeros_like(vectors)
        for turn, images in zip(self.turns, self.images, strict=True):
            mean[images] += vectors @ turn.T
        return mean / len(self.turns)

    def _tensor(self, tensor: np.ndarray) -> np.ndarray:
        mean: np.ndarray = np.mean(self.turns @ tensor @ np.swapaxes(self.turns, 1, 2), axis=0)
        return mean


def _images(scaled: np.ndarray, numbers: np.ndarray, rotations: np.ndarray, translations: np.ndarray) -> np.ndarray:
    """Where each operation carries each atom, (G, N): the nearest atom of its element."""
    images = np.zeros((len(rotations), len(scaled)), dtype=np.int64)
    for element in np.unique(numbers):
        members = np.flatnonzero(numbers == element)
        tree = KDTree(_inside(scaled[members]), boxsize=1.0)
        for g, (rotation, translation) in enumerate(zip(rotations, translations, strict=True)):
            _, nearest = tree.query(_inside(scaled[members] @ rotation.T + translation))
            images[g, members] = members[nearest]
    return images


def _inside(scaled: np.ndarray) -> np.ndarray:
    """Fractional coordinates in [0, 1): the remainder of a tiny negative number is 1."""
    wrapped = scaled % 1.0
    return np.where(wrapped >= 1.0, 0.0, wrapped)
