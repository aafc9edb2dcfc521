"""Small structures of every kind of boundary that a potential must treat alike: what the checks are made on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import ase
import numpy as np
from ase.build import bulk
from ase.data import reference_states

from adatom.elements import covalent_radius, symbol

LARGEST = 100  # atoms of a given structure that the checks accept: every one is evaluated some hundred times
GIVEN = 4  # structures of the user that are taken in


@dataclass(frozen=True)
class Sample:
    """One structure and the name a check calls it by."""

    name: str
    atoms: ase.Atoms


@dataclass(frozen=True)
class Spacing:
    """Sensible distances between elements in Å: the sum of the covalent radii, no less than in the training data."""

    known: dict[str, float]

    @classmethod
    def of(cls, card: dict[str, Any]) -> Spacing:
        """From the card of a model file (``min_distance_A``: ``{"H-O": 0.9}``)."""
        known = card.get("min_distance_A", {})
        return cls({str(pair): float(distance) for pair, distance in known.items()})

    def between(self, a: int, b: int) -> float:
        """Distance of a bond between two atomic numbers, Å."""
        shortest = max(self.known.get(f"{symbol(x)}-{symbol(y)}", 0.0) for x, y in ((a, b), (b, a)))
        return max(1.05 * shortest, float(covalent_radius(a) + covalent_radius(b)))


def generate(elements: Sequence[int], spacing: Spacing, seed: int = 0) -> list[Sample]:
    """Clusters, a crystal, a thin triclinic cell, a slab, dimers, a chain and a lone atom; up to three elements."""
    rng = np.random.default_rng(seed)
    chosen = sorted(int(z) for z in rng.choice(list(elements), size=min(3, len(elements)), replace=False))
    samples = [
        Sample("cluster of 11", cluster(_fill(chosen, 11, rng), spacing, rng)),
        Sample("cluster of 5", cluster(_fill(chosen, 5, rng), spacing, rng)),
        Sample("crystal", crystal(chosen, spacing, rng)),
        Sample("thin triclinic cell", thin_cell(chosen, spacing, rng)),
        Sample("slab", slab(chosen, spacing, rng)),
    ]
    samples += [
        Sample(f"dimer {symbol(a)}{symbol(b)}", dimer(a, b, 1.1 * spacing.between(a, b)))
        for a, b in combinations_with_replacement(chosen, 2)
    ]
    samples.append(Sample("chain", chain(chosen, spacing, rng)))
    samples.append(Sample("lone atom", ase.Atoms(numbers=[chosen[-1]], positions=[[0.3, -0.2, 0.1]])))
    return samples


def take(structures: Sequence[ase.Atoms]) -> list[Sample]:
    """The user's structures that are small enough, evenly spread over the list, without calculators and labels."""
    small = [(k, atoms) for k, atoms in enumerate(structures) if 0 < len(atoms) <= LARGEST]
    places = {round(place) for place in np.linspace(0, len(small) - 1, GIVEN)} if small else set()
    return [
        Sample(f"structure {k} {atoms.get_chemical_formula()}", _bare(atoms))
        for k, atoms in map(small.__getitem__, sorted(places))
    ]


def cluster(numbers: Sequence[int], spacing: Spacing, rng: np.random.Generator) -> ase.Atoms:
    """A heap: each atom touches one placed before, at 1.0 to 1.25 spacings, and is no closer than 0.95 to another."""
    positions = np.zeros((1, 3))
    for z in numbers[1:]:
        bonds = np.array([spacing.between(z, other) for other in numbers[: len(positions)]])
        while True:
            anchor = rng.integers(len(positions))
            step = bonds[anchor] * rng.uniform(1.0, 1.25) * random_direction(rng)
            place = positions[anchor] + step
            near = np.linalg.norm(positions - place, axis=1) >= 0.95 * bonds
            if near.all() and np.linalg.norm(place - positions.mean(0)) < 1.3 * bonds.max() * len(numbers) ** (1 / 3):
                positions = np.vstack([positions, place])
                break
    return ase.Atoms(numbers=list(numbers), positions=positions)


def crystal(elements: Sequence[int], spacing: Spacing, rng: np.random.Generator) -> ase.Atoms:
    """The element's own lattice where it is cubic, rock salt of random occupation otherwise; rattled by 0.06 Å."""
    known = reference_states[elements[0]] if len(elements) == 1 else None
    if known is not None and known["symmetry"] in ("fcc", "bcc", "diamond"):
        atoms = bulk(symbol(elements[0]), cubic=True)
    else:
        atoms = bulk("NaCl", "rocksalt", a=2.0, cubic=True)
        atoms.numbers = _fill(elements, len(atoms), rng)
        length = max(spacing.between(a, b) for a in elements for b in elements)
        atoms.set_cell(1.15 * length * np.asarray(atoms.cell), scale_atoms=True)
    atoms.positions += rng.normal(scale=0.06, size=(len(atoms), 3))
    return atoms


def thin_cell(elements: Sequence[int], spacing: Spacing, rng: np.random.Generator) -> ase.Atoms:
    """Two atoms in a sheared cell shorter than common cutoffs: atoms neighbour their own images."""
    numbers = _fill(elements, 2, rng)
    length = max(spacing.between(a, b) for a in elements for b in elements)
    cell = length * np.array([[1.50, 0.0, 0.0], [0.50, 1.45, 0.0], [-0.45, 0.40, 1.55]])  # room as in a solid
    fractional = np.array([[0.02, 0.07, -0.05], [0.46, 0.55, 0.52]])
    return ase.Atoms(numbers=numbers, positions=fractional @ cell, cell=cell, pbc=True)


def slab(elements: Sequence[int], spacing: Spacing, rng: np.random.Generator) -> ase.Atoms:
    """Four buckled atoms and one on top, periodic in two directions."""
    numbers = _fill(elements, 5, rng)
    length = 1.15 * max(spacing.between(a, b) for a in elements for b in elements)
    flat = length * np.array([[0, 0, 0], [1, 0, 0.1], [0, 1, 0.15], [1, 1, -0.1], [0.5, 0.5, 0.8]])
    positions = flat + rng.normal(scale=0.05, size=(5, 3))
    return ase.Atoms(numbers=numbers, positions=positions, cell=[2 * length, 2 * length, 0], pbc=[True, True, False])


def chain(elements: Sequence[int], spacing: Spacing, rng: np.random.Generator) -> ase.Atoms:
    """Three atoms in zigzag, periodic in one oblique direction."""
    numbers = _fill(elements, 3, rng)
    length = 1.1 * max(spacing.between(a, b) for a in elements for b in elements)
    along, aside = np.array([0.8, 0.6, 0.0]), np.array([-0.6, 0.8, 0.0])
    positions = length * np.array([k * along + (k % 2) * 0.4 * aside for k in range(3)])
    positions += rng.normal(scale=0.05, size=(3, 3))
    return ase.Atoms(
        numbers=numbers, positions=positions, cell=[3 * length * along, 0 * along, 0 * along], pbc=[1, 0, 0]
    )


def dimer(a: int, b: int, distance: float) -> ase.Atoms:
    """Two atoms on an oblique line."""
    direction = np.array([0.6, -0.48, 0.64])
    return ase.Atoms(numbers=[a, b], positions=[[0.0, 0.0, 0.0], distance * direction])


def random_direction(rng: np.random.Generator) -> np.ndarray:
    """Unit vector, uniform on the sphere, (3,)."""
    vector = rng.normal(size=3)
    return np.asarray(vector / np.linalg.norm(vector))


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Proper rotation, uniform, (3, 3)."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return np.asarray(q * np.linalg.det(q))


def _fill(elements: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
    """``count`` atomic numbers in random order that hold every element as often as possible."""
    return [int(z) for z in rng.permutation(np.resize(np.asarray(elements), count))]


def _bare(atoms: ase.Atoms) -> ase.Atoms:
    charges = {k: v for k, v in atoms.info.items() if k in ("total_charge", "charge", "multiplicity", "spin")}
    return ase.Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=charges)
