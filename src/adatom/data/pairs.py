"""Pairs of structures that lie close to each other, and the work that leads from one to the other."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from adatom.data.read import Structure

NEAREST = 3  # neighbours of each structure
ALL_PAIRS = 1500  # structures of one composition that are all compared with one another
MOST = 400  # pairs kept of each sort: closest first
REACH = 0.6  # Å, largest distance of a pair
STRAIN_IN_A = 5.0  # Å of displacement that count as much as a strain of 1


class Pairs(NamedTuple):
    """P pairs of structures with the same atoms in the same order.

    Energies in eV. The works are trapezoids over both ends of the straight line from the first to the second structure,

        W_F = -1/2 (F_1 + F_2) . dR ,    W_S = 1/2 (V_1 sigma_1 : eps_1 + V_2 sigma_2 : eps_2) ,

    with dR the displacement at constant cell and eps the strain from one cell to the other: dE = W_F + W_S + O(d^3).
    """

    first: np.ndarray  # (P,)  index of a structure
    second: np.ndarray  # (P,)
    energy: np.ndarray  # (P,)  E_2 - E_1
    force_work: np.ndarray  # (P,)  W_F
    stress_work: np.ndarray  # (P,)  W_S, 0 where the cells are equal
    distance: np.ndarray  # (P,)  Å, largest displacement of an atom, strain included
    atoms: np.ndarray  # (P,)
    volume: np.ndarray  # (P,)  Å^3, NaN where open
    likeness: np.ndarray  # (P,)  F_1 . F_2 / |F_1| |F_2| over all atoms, NaN where there are no forces
    force: np.ndarray  # (P,)  eV/Å, rms length of the forces


def close_pairs(structures: Sequence[Structure]) -> Pairs:
    """The closest pairs of a data set among structures with energy and forces; O(n log n) in the number of structures.

    Pairs of different cells are taken only where both have a stress.
    """
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for k, s in enumerate(structures):
        if len(s.atoms) > 1 and np.isfinite(s.energy) and np.isfinite(s.forces).all():
            charge, spin = s.atoms.info.get("total_charge", 0.0), s.atoms.info.get("multiplicity", 1.0)
            groups[s.atoms.numbers.tobytes(), tuple(s.atoms.pbc), charge, spin].append(k)
    rows: list[tuple[float, ...]] = []
    for members in groups.values():
        if len(members) > 1:
            rows += _group_pairs(structures, members)
    table = np.array(rows, dtype=np.float64).reshape(-1, 10)
    # duplicates say nothing about slopes
    table = table[(table[:, 5] < REACH) & (table[:, 5] > 1e-4)]
    strained = table[:, 4] != 0.0
    table = np.concatenate([_closest(table[strained]), _closest(table[~strained])])
    columns = table.T
    return Pairs(columns[0].astype(int), columns[1].astype(int), *columns[2:])


def _closest(table: np.ndarray) -> np.ndarray:
    return np.asarray(table[np.argsort(table[:, 5], kind="stable")[:MOST]])


def _group_pairs(structures: Sequence[Structure], members: list[int]) -> list[tuple[float, ...]]:
    """Rows of Pairs for structures of equal composition and order of atoms."""
    pbc = np.asarray(structures[members[0]].atoms.pbc, dtype=bool)
    cells = np.stack([np.where(pbc[:, None], np.asarray(structures[k].atoms.cell), 0.0) for k in members])
    boxes = np.stack([box_of(cell, pbc) for cell in cells])  # (m, 3, 3)
    fractional = np.stack([structures[k].atoms.positions for k in members]) @ np.linalg.inv(boxes)  # (m, n, 3)
    # periodic coordinates counted from atom 0, each as near as possible to the first structure's; then centred
    fractional -= fractional[:, :1].copy()
    fractional -= np.where(pbc, np.round(fractional - fractional[:1]), 0.0)
    fractional -= fractional.mean(axis=1, keepdims=True)
    points = np.concatenate(
        [
            (fractional @ boxes.mean(axis=0)).reshape(len(members), -1),
            STRAIN_IN_A * cells.reshape(len(members), -1) / max(np.abs(cells).max(), 1.0),
        ],
        axis=1,
    )
    turned = [structures[k].forces for k in members]
    if not pbc.any():
        fractional, turns = turned_to_first(fractional)
        turned = [f @ r for f, r in zip(turned, turns, strict=True)]
        points = fractional.reshape(len(members), -1)
    rows = []
    for a, b in _neighbours(points):
        ends = structures[members[a]], structures[members[b]]
        row = _row(*ends, (turned[a], turned[b]), (fractional[a], fractional[b]), boxes[a], boxes[b], pbc)
        if row is not None:
            rows.append((float(members[a]), float(members[b]), *row))
    return rows


def turned_to_first(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Open systems, centred (m, n, 3), turned onto the first of them, and the rotations: new = old @ rotation."""
    turns = rotations(positions, positions[0])
    return positions @ turns, turns


def rotations(moving: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Proper rotations (..., 3, 3) that bring centred points (..., n, 3) closest to others (Kabsch): moving @ R."""
    left, _, right = np.linalg.svd(np.swapaxes(moving, -1, -2) @ fixed)
    flip = np.ones((*left.shape[:-1],))
    flip[..., 2] = np.sign(np.linalg.det(left @ right))
    return np.asarray((left * flip[..., None, :]) @ right)


def box_of(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """The cell with unit vectors, normal to the periodic ones, along open directions."""
    box = cell.copy()
    if not pbc.any():
        return np.eye(3)
    if not pbc.all():
        basis = np.linalg.svd(cell)[2]
        box[~pbc] = basis[3 - int((~pbc).sum()) :]
    return box


def strain_of(box: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Strain eps (3, 3), symmetric, of a box (rows are vectors) that changes by so much: box -> box (1 + eps)."""
    gradient = np.linalg.inv(box) @ change
    strain: np.ndarray = 0.5 * (gradient + gradient.T)
    return strain


def _neighbours(points: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (a < b) of near points: the nearest of each, or of many points those near along some directions."""
    count = len(points)
    if count <= ALL_PAIRS:
        norm = (points**2).sum(axis=1)
        squares = norm[:, None] + norm - 2.0 * points @ points.T
        np.fill_diagonal(squares, np.inf)
        nearest = np.argsort(squares, axis=1)[:, : min(NEAREST, count - 1)]  # (m, k)
        return sorted({(min(a, int(b)), max(a, int(b))) for a in range(count) for b in nearest[a]})
    directions = np.random.default_rng(0).normal(size=(points.shape[1], 6))
    orders = [np.arange(count), *np.argsort(points @ directions, axis=0).T]
    ends = np.concatenate([np.stack([o[:-step], o[step:]], axis=1) for o in orders for step in range(1, 9)])
    ends = np.unique(np.sort(ends, axis=1), axis=0)
    steps = range(0, len(ends), 4096)
    lengths = np.concatenate([np.linalg.norm(np.diff(points[ends[k : k + 4096]], axis=1)[:, 0], axis=1) for k in steps])
    kept = ends[np.argsort(lengths, kind="stable")[: NEAREST * count]]
    return [(int(a), int(b)) for a, b in kept]


def _row(
    a: Structure,
    b: Structure,
    forces: tuple[np.ndarray, np.ndarray],
    fractional: tuple[np.ndarray, np.ndarray],
    box_a: np.ndarray,
    box_b: np.ndarray,
    pbc: np.ndarray,
) -> tuple[float, ...] | None:
    """Energy difference, works, distance, atoms, volume and likeness of a pair; None where the stress is missing."""
    shift, second = displacement(*fractional, pbc), forces[1]
    if not pbc.any():
        turn = rotations(fractional[1], fractional[0])
        shift, second = fractional[1] @ turn - fractional[0], second @ turn
    strained = pbc.any() and np.abs(box_b - box_a).max() > 1e-6
    if strained and not (np.isfinite(a.stress).all() and np.isfinite(b.stress).all()):
        return None
    ends = ((forces[0], a.stress, box_a), (second, b.stress, box_b))
    force_work = -0.5 * sum(float((f * (shift @ box)).sum()) for f, _, box in ends)
    stress_work, strain = 0.0, 0.0
    if strained:
        for _, stress, box in ends:
            eps = strain_of(box, box_b - box_a)
            strain = max(strain, float(np.abs(eps).max()))
            stress_work += 0.5 * abs(float(np.linalg.det(box))) * float((stress * eps).sum())
    distance = float(np.linalg.norm(shift @ box_a, axis=1).max()) + STRAIN_IN_A * strain
    volume = abs(float(np.linalg.det(box_a))) if pbc.all() else np.nan
    size = float(np.linalg.norm(forces[0])), float(np.linalg.norm(second))
    likeness = float((forces[0] * second).sum()) / (size[0] * size[1]) if min(size) > 0.0 else np.nan
    rms = math.sqrt(size[0] * size[1] / len(a.atoms))
    return b.energy - a.energy, force_work, stress_work, distance, float(len(a.atoms)), volume, likeness, rms


def displacement(a: np.ndarray, b: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Shortest way of each atom from one structure to another at their best offset, fractional (n, 3)."""
    shift = b - a
    shift = shift - shift[0]
    shift = shift - np.where(pbc, np.round(shift), 0.0)
    return np.asarray(shift - shift.mean(axis=0))


class Slopes(NamedTuple):
    """Least-squares factors of dE = a W_F + b W_S: both are 1 where energies, forces and stress belong together."""

    force: float  # a
    force_error: float  # infinite where no pair has a force work
    stress: float  # b
    stress_error: float
    unexplained: float  # median |dE - a W_F - b W_S| over median |dE|, close pairs counting most
    outliers: np.ndarray  # (P,)  bool, pairs far beyond what their distance explains
    stress_pairs: int


def slopes(pairs: Pairs) -> Slopes:
    """Robust fit (Huber) with weights 1 / (d^3 + d_0^3), since the trapezoid errs as the cube of the distance d.

    The weights depend on geometry alone, so that wrong units of any label only rescale the factors.
    """
    works = np.stack([pairs.force_work, pairs.stress_work], axis=1)  # (P, 2)
    weight = 1.0 / (pairs.distance**3 + 0.02**3)
    weight /= weight.max()
    used = np.abs(works).max(axis=0) > 0.0
    factor, error = np.zeros(2), np.full(2, np.inf)
    design = works[:, used]
    if used.any():
        factor[used], error[used] = _huber(design, pairs.energy, weight)
    residual = np.abs(pairs.energy - works @ factor)
    scale = max(float(np.median(residual * weight)), 1e-12)
    size = max(float(np.median(np.abs(pairs.energy) * weight)), 1e-12)
    explained = np.abs(works * factor).sum(axis=1)
    return Slopes(
        force=float(factor[0]),
        force_error=float(error[0]),
        stress=float(factor[1]),
        stress_error=float(error[1]),
        unexplained=scale / size,
        outliers=(residual * weight > 30.0 * scale) & (residual > 0.3 * explained + 2e-3 * pairs.atoms),
        stress_pairs=int(np.count_nonzero(pairs.stress_work)),
    )


def _huber(design: np.ndarray, target: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factors and their errors (two sandwich standard deviations: pairs share structures)."""
    scaled = weight
    for _ in range(50):
        factor = np.linalg.lstsq(design * scaled[:, None], target * scaled, rcond=None)[0]
        residual = np.abs(target - design @ factor) * weight
        scale = max(float(np.median(residual)), 1e-9 * float(np.median(np.abs(target) * weight)), 1e-300)
        scaled = weight / np.sqrt(np.maximum(residual / scale, 1.0))
    inverse = np.linalg.pinv((design * scaled[:, None]).T @ (design * scaled[:, None]))
    scores = design * (scaled**2 * (target - design @ factor))[:, None]
    variance = np.diag(inverse @ (scores.T @ scores) @ inverse)
    return factor, 2.0 * np.sqrt(variance)
