"""Structures on which a potential can be asked what it thinks, when nobody has its data: for replay, and for probing.

They are made from a few training structures that a model file holds, rattled, strained and scaled; where it holds none,
from prototype crystals, dimers and heaps of its elements.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import ase
import numpy as np
from ase.build import bulk

from adatom.data.read import Structure
from adatom.elements import covalent_radius, number, symbol
from adatom.errors import GeometryError
from adatom.neighbors import check_geometry, given_charge_and_spin, neighbor_list

LARGEST, ATOMS = 64, 640  # of a structure that is kept in a model file; of all of them
CLOSEST = 0.95  # times the shortest distance of a pair in the training data
RATTLE = (0.01, 0.15)  # Å
SCALE, SHEAR = 0.05, 0.02  # of lengths
# lattice constants of prototypes, in bonds
SIMPLE = {"fcc": 2**0.5, "bcc": 2 / 3**0.5, "diamond": 4 / 3**0.5, "sc": 1.0}
DOUBLE = {"rocksalt": 2.0, "zincblende": 4 / 3**0.5, "cesiumchloride": 2 / 3**0.5}
PAIRS, HEAPS = 30, (3, 4, 5, 6, 8)


def kept(structures: Sequence[Structure], most: int, seed: int = 0) -> list[dict[str, Any]]:
    """Some training structures as plain values for a card: of every kind some, all elements, in 640 atoms at most."""
    random = np.random.default_rng(seed)
    order = [int(k) for k in random.permutation(len(structures))]
    rounds: dict[str, int] = {}
    turn = {}
    for k in order:  # first one of every kind and set of elements, then a second one, ...
        kind = f"{structures[k].config_type} {sorted(set(structures[k].atoms.numbers.tolist()))}"
        turn[k] = rounds[kind] = rounds.get(kind, 0) + 1
    chosen: list[dict[str, Any]] = []
    room = ATOMS
    for k in sorted(order, key=lambda k: turn[k]):
        atoms = structures[k].atoms
        if len(chosen) == most:
            break
        if 1 < len(atoms) <= min(LARGEST, room):
            chosen.append(_plain(atoms))
            room -= len(atoms)
    return chosen


def _plain(atoms: ase.Atoms) -> dict[str, Any]:
    charge, spin = given_charge_and_spin(atoms)
    said = {"total_charge": charge, "multiplicity": spin}
    return {
        "numbers": atoms.numbers.tolist(),
        "positions_A": np.round(atoms.positions, 4).tolist(),
        "cell_A": np.round(np.asarray(atoms.cell), 5).tolist(),
        "pbc": atoms.pbc.tolist(),
        **{key: value for key, value in said.items() if value is not None},
    }


def _atoms(plain: Mapping[str, Any]) -> ase.Atoms:
    info = {key: plain[key] for key in ("total_charge", "multiplicity") if key in plain}
    return ase.Atoms(plain["numbers"], plain["positions_A"], cell=plain["cell_A"], pbc=plain["pbc"], info=info)


def generic(
    card: Mapping[str, Any], elements: Sequence[int], atoms: int, seed: int, least: int = 1, periodic: bool = True
) -> list[ase.Atoms]:
    """Structures of some elements, as many as make up a number of atoms, and at least ``least`` of them.

    Parameters
    ----------
    card
        Of the model: ``samples`` are training structures, ``min_distance_A`` shortest distances of pairs.
    seed
        Another seed makes other structures.
    periodic
        Whether prototypes are crystals, where there are no samples.
    """
    random = np.random.default_rng([seed, 5])
    samples = [_atoms(plain) for plain in card.get("samples", ())]
    samples = [a for a in samples if set(a.numbers.tolist()) <= set(elements)] or prototypes(elements, periodic, random)
    spacing = {str(pair): float(d) for pair, d in card.get("min_distance_A", {}).items()}
    made: list[ase.Atoms] = []
    count = 0
    for start in itertools.cycle(samples):
        if count >= atoms and len(made) >= least:
            return made
        found = _shaken(start, spacing, random)
        made.append(found)
        count += len(found)
    raise GeometryError("there are no structures to start from", wanted="at least one element")


def prototypes(elements: Sequence[int], periodic: bool, random: np.random.Generator) -> list[ase.Atoms]:
    """Crystals of each element and of pairs (or none), dimers and heaps, at distances of about a bond."""
    made: list[ase.Atoms] = []
    for z in elements if periodic else ():
        bond = 2 * float(covalent_radius(z))
        made += [bulk(symbol(z), name, a=factor * bond, cubic=True) for name, factor in SIMPLE.items()]
    pairs = list(itertools.islice(itertools.combinations_with_replacement(elements, 2), PAIRS))
    for a, b in pairs:
        bond = float(covalent_radius(a) + covalent_radius(b))
        made.append(ase.Atoms([a, b], [[0, 0, 0], [bond, 0, 0]]))
        if periodic and a != b:
            name = symbol(a) + symbol(b)
            made += [bulk(name, kind, a=factor * bond, cubic=True) for kind, factor in DOUBLE.items()]
    return made + [_heap(random.choice(list(elements), size), random) for size in HEAPS]


def _heap(numbers: np.ndarray, random: np.random.Generator) -> ase.Atoms:
    """Atoms one by one at a bond from one that is there, and no closer to the others."""
    positions = np.zeros((1, 3))
    while len(positions) < len(numbers):
        k = len(positions)
        bonds = np.asarray(covalent_radius(numbers[:k]) + covalent_radius(int(numbers[k])))
        way = random.standard_normal(3)
        at = int(random.integers(k))
        place = positions[at] + 1.05 * bonds[at] * way / np.linalg.norm(way)
        if (np.linalg.norm(positions - place, axis=1) > bonds).all():
            positions = np.vstack([positions, place])
    return ase.Atoms(numbers, positions)


def _shaken(start: ase.Atoms, spacing: Mapping[str, float], random: np.random.Generator) -> ase.Atoms:
    """A copy, scaled, sheared and rattled, milder until nothing is closer than in the training data."""
    milder = 1.0
    for _ in range(8):
        atoms = start.copy()
        if atoms.pbc.any():
            strain = milder * (SHEAR * random.standard_normal((3, 3)) + SCALE * random.standard_normal() * np.eye(3))
            atoms.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + 0.5 * (strain + strain.T)), scale_atoms=True)
        size = milder * np.exp(random.uniform(*np.log(RATTLE)))
        atoms.positions += size * random.standard_normal(atoms.positions.shape)
        if _apart(atoms, spacing):
            return atoms
        milder *= 0.6
    return start.copy()


def _apart(atoms: ase.Atoms, spacing: Mapping[str, float]) -> bool:
    """Whether no pair is closer than the training data have it, where they say."""
    try:
        check_geometry(atoms)
    except GeometryError:
        return False
    if not spacing:
        return True
    positions, cell = atoms.positions, np.asarray(atoms.cell)
    edges, shifts = neighbor_list(positions, cell, np.asarray(atoms.pbc), max(spacing.values()))
    distances = np.linalg.norm(positions[edges[1]] + shifts @ cell - positions[edges[0]], axis=1)
    pairs = np.sort(atoms.numbers[edges], axis=0)
    for pair, shortest in spacing.items():
        a, b = sorted(number(name) for name in pair.split("-"))
        own = distances[(pairs[0] == a) & (pairs[1] == b)]
        if own.size and own.min() < CLOSEST * shortest:
            return False
    return True
