"""Invariants of a structure that two copies of it share, however they were wrapped, shifted, turned or numbered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import ase
import numpy as np

from adatom.data.read import Structure

NOISE = 3e-6  # Å; rounding of positions that copies may differ by
WAVES = np.array([h for h in np.ndindex(5, 5, 5) if tuple(np.subtract(h, 2)) > (0, 0, 0)], dtype=np.float64) - np.array(
    [2.0, 2.0, 2.0]
)  # (62, 3)  half of the integers up to 2
REACH = np.array([0.35, 0.61, 0.97, 1.43, 2.11, 3.07])  # 1/Å, wave numbers for open systems


def invariants(atoms: ase.Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (P,) that equal structures share, and by how much rounding may part them (P,).

    Three periodic directions: lengths and angles of the cell and the moduli of the structure factor

        | sum_j w(Z_j) exp(2 pi i h . f_j) |

    over fractional coordinates f and 62 integer vectors h. No periodic direction: the Debye sums

        sum_{j<k} w(Z_j) w(Z_k) sin(q d_jk) / (q d_jk).

    Slabs and wires: the structure factor with fixed wave numbers along the open directions. All with two weights w.
    """
    weights = np.stack([np.ones(len(atoms)), np.sqrt(atoms.numbers / 10.0)])  # (2, n)
    pbc = np.asarray(atoms.pbc, dtype=bool)
    if not pbc.any():
        return _debye(atoms.get_positions(), weights)
    return _structure_factor(atoms.get_positions(), np.asarray(atoms.cell), pbc, weights)


def _debye(positions: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.triu_indices(len(positions), 1)
    distances = np.linalg.norm(positions[first] - positions[second], axis=1)  # (pairs,)
    waves = np.sinc(REACH[:, None] * distances / np.pi)  # (6, pairs)
    pairs = weights[:, first] * weights[:, second]  # (2, pairs)
    values = waves @ pairs.T  # (6, 2)
    # an atom's share of a sum changes by at most 0.44 q per Å and partner
    allowance = NOISE * REACH[:, None] * (pairs.sum(axis=1) + 1.0)
    return values.ravel(), np.maximum(allowance, 1e-9 * np.abs(values)).ravel()


def _structure_factor(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    periodic = cell[pbc]  # (p, 3)
    metric = periodic @ periodic.T
    lengths = np.sqrt(np.diag(metric))
    shape = metric[np.triu_indices(len(periodic))] / lengths.max()
    box = cell.copy()
    if not pbc.all():
        # open directions: unit vectors normal to the periodic ones, so that their coordinates are in Å
        basis = np.linalg.svd(np.where(pbc[:, None], cell, 0.0))[2]
        box[~pbc] = basis[3 - int((~pbc).sum()) :] * 9.7
    inverse = np.linalg.inv(box)
    phases = np.exp(2j * np.pi * (WAVES @ (positions @ inverse).T))  # (62, n)
    values = np.abs(phases @ weights.T)  # (62, 2)
    slopes = 2.0 * np.pi * np.linalg.norm(WAVES @ inverse.T, axis=1)  # (62,)  1/Å
    allowance = NOISE * slopes[:, None] * (weights.sum(axis=1) + 1.0)
    return (
        np.concatenate([shape, values.ravel()]),
        np.concatenate([np.full(shape.shape, 4.0 * NOISE), allowance.ravel()]),
    )


def copies(left: Sequence[Structure], right: Sequence[Structure]) -> list[tuple[int, int]]:
    """Pairs (i, j) with left[i] and right[j] the same structure within rounding; O(n log n) in structures."""
    groups: dict[Hashable, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, structures in enumerate((left, right)):
        for k, structure in enumerate(structures):
            groups[_kind(structure)][side].append(k)
    pairs: list[tuple[int, int]] = []
    for ours, theirs in groups.values():
        if ours and theirs:
            own = [left[i] for i in ours]
            pairs += _matches(own, own if left is right else [right[j] for j in theirs], ours, theirs)
    return sorted(pairs)


def _kind(structure: Structure) -> Hashable:
    """What copies share exactly: composition, periodicity, charge and multiplicity."""
    atoms, info = structure.atoms, structure.atoms.info
    return (
        np.sort(atoms.numbers).tobytes(),
        tuple(sorted(atoms.pbc)),
        info.get("total_charge", 0.0),
        info.get("multiplicity", 1.0),
    )


def _matches(
    left: Sequence[Structure], right: Sequence[Structure], ours: list[int], theirs: list[int]
) -> list[tuple[int, int]]:
    a, allowed = (np.stack(x) for x in zip(*(invariants(s.atoms) for s in left), strict=True))
    b = a if right is left else np.stack([invariants(s.atoms)[0] for s in right])
    # one random direction sorts both sides; only structures close along it are compared in full
    direction = np.random.default_rng(0).normal(size=a.shape[1])
    line, window = b @ direction, np.abs(direction) @ allowed.T
    order = np.argsort(line)
    start = np.searchsorted(line[order], a @ direction - window)
    stop = np.searchsorted(line[order], a @ direction + window)
    pairs = []
    for i, (low, high) in enumerate(zip(start, stop, strict=True)):
        near = order[low:high]
        same = (np.abs(b[near] - a[i]) <= allowed[i]).all(axis=1)
        pairs += [(ours[i], theirs[j]) for j in near[same]]
    return pairs
