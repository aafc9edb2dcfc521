"""Structures as flat arrays, in memory or mapped from files: what batches, splits and checks read without any object.

Shapes: F structures (frames), N atoms of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final, NamedTuple

import numpy as np

from adatom.data.structure import LABELS, Structure
from adatom.neighbors import NEUTRAL, SINGLET, given_charge_and_spin

ENERGY, CHARGE, SPIN = range(3)  # columns of totals
FLAGS, CONFIG_TYPE, KIND, FRAME = range(4)  # columns of codes
# bits of the flags
PBC: Final = (1, 2, 4)
ISOLATED, MASSES, MOMENTA = 8, 16, 32
HAS: Final = dict(zip(LABELS, (64, 128, 256), strict=True))  # complete labels
SOME: Final = dict(zip(LABELS, (512, 1024, 2048), strict=True))  # one finite number at least

_ODD: Final = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio; odd
_WIDTH: Final = 8  # weights of an atom


class Taken(NamedTuple):
    """Some structures, copied out of the arrays in the order asked for: S structures, n atoms."""

    counts: np.ndarray  # (S,)  atoms of each
    numbers: np.ndarray  # (n,)  int64
    positions: np.ndarray  # (n, 3)  Å
    forces: np.ndarray  # (n, 3)  eV/Å
    cell: np.ndarray  # (S, 3, 3)  Å, as the file gives it, along open axes too
    stress: np.ndarray  # (S, 3, 3)  eV/Å^3
    pbc: np.ndarray  # (S, 3)  bool
    energy: np.ndarray  # (S,)  eV
    charge: np.ndarray  # (S,)  e; 0 where the file does not say
    spin: np.ndarray  # (S,)  multiplicity; 1 where the file does not say


@dataclass(frozen=True)
class Arrays:
    """F structures with N atoms. One row holds all that a batch needs of an atom: one place to read from disk."""

    rows: np.ndarray  # (N, 6)  float64, position (Å) and force (eV/Å)
    numbers: np.ndarray  # (N,)  uint8
    lattices: np.ndarray  # (F, 18)  float64, cell (Å) and stress (eV/Å^3), each row by row
    totals: np.ndarray  # (F, 3)  float64, energy (eV), total charge (e) and multiplicity; NaN where not given
    codes: np.ndarray  # (F, 4)  int32, flags, number of the config type, number of the kind, frame in its file
    bounds: np.ndarray  # (F + 1,)  int64, atoms before each structure
    words: np.ndarray  # (F, 2)  uint64, check words of geometry and of labels; (0, 2) where nothing is checked

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def atoms_of(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the atoms of some structures stand: their rows (n,), their place in the structure (n,), counts (S,)."""
        first = self.bounds[index]
        counts = self.bounds[index + 1] - first
        ends = counts.cumsum()
        place = np.arange(ends[-1] if len(ends) else 0)
        place -= np.repeat(ends - counts, counts)
        return np.repeat(first, counts) + place, place, counts

    def take(self, index: np.ndarray) -> tuple[Taken, np.ndarray]:
        """Structures ``index`` (S,), and their check words (S, 2) as computed from what was read."""
        atoms, place, counts = self.atoms_of(index)
        rows, numbers = self.rows.take(atoms, axis=0), self.numbers.take(atoms)
        part = Arrays(
            rows,
            numbers,
            self.lattices.take(index, axis=0),
            self.totals.take(index, axis=0),
            self.codes.take(index, axis=0),
            np.concatenate([[0], counts.cumsum()]),
            np.zeros((0, 2), np.uint64),
        )
        words = check_words(part, place) if len(self.words) else part.words
        return part.opened(), words

    def opened(self) -> Taken:
        """All of these structures, as a batch reads them."""
        shape = (len(self), 3, 3)
        return Taken(
            counts=np.diff(self.bounds),
            numbers=self.numbers.astype(np.int64),
            positions=np.ascontiguousarray(self.rows[:, :3]),
            forces=np.ascontiguousarray(self.rows[:, 3:]),
            cell=np.ascontiguousarray(self.lattices[:, :9]).reshape(shape),
            stress=np.ascontiguousarray(self.lattices[:, 9:]).reshape(shape),
            pbc=(self.codes[:, FLAGS, None] & np.array(PBC)) > 0,
            energy=self.totals[:, ENERGY].copy(),
            charge=np.nan_to_num(self.totals[:, CHARGE], nan=NEUTRAL),
            spin=np.nan_to_num(self.totals[:, SPIN], nan=SINGLET),
        )


def joined(parts: Sequence[Taken]) -> Taken:
    """One after the other."""
    return parts[0] if len(parts) == 1 else Taken(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def reordered(taken: Taken, order: np.ndarray) -> Taken:
    """Structures in another order: the k-th is what was ``order[k]``."""
    ends = taken.counts.cumsum()
    counts = taken.counts[order]
    atoms = np.repeat((ends - taken.counts)[order], counts) + np.arange(ends[-1])
    atoms -= np.repeat(counts.cumsum() - counts, counts)
    atomic = {"numbers", "positions", "forces"}
    return Taken(*(getattr(taken, n)[atoms if n in atomic else order] for n in Taken._fields))


def check_words(arrays: Arrays, place: np.ndarray) -> np.ndarray:
    """Two check words of each structure, (F, 2): of its geometry, and of its labels.

    Each is the sum over the 64-bit words x_i of the data, times odd weights that are all different, modulo 2^64: a
    change of any single word always changes it. ``place`` (N,) numbers the atoms within their structures.
    """
    bits = np.ascontiguousarray(arrays.rows).view(np.uint64)  # (N, 6)
    weights = _weights(place)  # (N, 8)
    geometry = np.einsum("ij,ij->i", bits[:, :3], weights[:, :3])
    geometry += arrays.numbers.astype(np.uint64) * weights[:, 3]
    labels = np.einsum("ij,ij->i", bits[:, 3:], weights[:, 4:7])
    first = arrays.bounds[:-1]
    words = np.empty((len(arrays), 2), dtype=np.uint64)
    if len(arrays) == 0:
        return words
    np.add.reduceat(geometry, first, out=words[:, 0])
    np.add.reduceat(labels, first, out=words[:, 1])
    scalars = _weights(np.arange(4)).ravel() ^ np.uint64(0x5555555555555554)  # (32,)  others than those of atoms
    lattices = np.ascontiguousarray(arrays.lattices).view(np.uint64)
    codes = arrays.codes.astype(np.uint64)
    geometry_code = codes[:, FLAGS] & np.uint64(sum(PBC))
    words[:, 0] += (lattices[:, :9] * scalars[:9]).sum(axis=1) + geometry_code * scalars[9]
    words[:, 1] += (lattices[:, 9:] * scalars[10:19]).sum(axis=1)
    words[:, 1] += (np.ascontiguousarray(arrays.totals).view(np.uint64) * scalars[19:22]).sum(axis=1)
    words[:, 1] += (codes * scalars[22:26]).sum(axis=1)
    return words


def _weights(place: np.ndarray) -> np.ndarray:
    """Odd 64-bit numbers, eight for each place: (n, 8)."""
    steps = (2 * np.arange(_WIDTH, dtype=np.uint64) + np.uint64(1)) * np.uint64(_ODD)
    return place.astype(np.uint64)[:, None] * np.uint64(2 * _WIDTH * _ODD % 2**64) + steps


def arrays_of(structures: Sequence[Structure], names: dict[str, int] | None = None) -> Arrays:
    """Structures in memory as flat arrays; ``names`` numbers their config types, and takes up new ones."""
    names = {} if names is None else names
    counts = np.array([len(s.atoms) for s in structures], dtype=np.int64)
    rows = np.empty((int(counts.sum()), 6))
    lattices, totals = np.empty((len(structures), 18)), np.empty((len(structures), 3))
    codes = np.zeros((len(structures), 4), dtype=np.int32)
    numbers = np.empty(len(rows), dtype=np.uint8)
    end = 0
    for k, s in enumerate(structures):
        start, end = end, end + len(s.atoms)
        rows[start:end, :3], rows[start:end, 3:] = s.atoms.positions, s.forces
        numbers[start:end] = s.atoms.numbers
        lattices[k, :9], lattices[k, 9:] = np.asarray(s.atoms.cell).ravel(), np.ravel(s.stress)
        charge, spin = given_charge_and_spin(s.atoms)
        totals[k] = s.energy, np.nan if charge is None else charge, np.nan if spin is None else spin
        codes[k, FLAGS] = _flags(s)
        codes[k, CONFIG_TYPE] = names.setdefault(s.config_type, len(names))
    bounds = np.concatenate([[0], counts.cumsum()]).astype(np.int64)
    return Arrays(rows, numbers, lattices, totals, codes, bounds, np.zeros((0, 2), np.uint64))


def _flags(structure: Structure) -> int:
    atoms = structure.atoms
    flags = sum(bit for bit, periodic in zip(PBC, atoms.pbc, strict=True) if periodic)
    flags |= ISOLATED * structure.isolated | MASSES * ("masses" in atoms.arrays) | MOMENTA * ("momenta" in atoms.arrays)
    for label in LABELS:
        finite = np.isfinite(getattr(structure, label))
        flags |= HAS[label] * bool(finite.all()) | SOME[label] * bool(finite.any())
    return int(flags)


def stacked(parts: Sequence[Arrays]) -> Arrays:
    """Arrays one after the other."""
    ends = np.cumsum([0] + [int(p.bounds[-1]) for p in parts])
    bounds = [p.bounds[:-1] + e for p, e in zip(parts, ends[:-1], strict=True)]
    joint = {f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Arrays) if f.name != "bounds"}
    return Arrays(**joint, bounds=np.concatenate([*bounds, ends[-1:]]))
