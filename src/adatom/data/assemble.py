"""Structures as arrays become the graph of a batch: neighbours of all of them, and the padded tables, made at once.

The graph is the one that `adatom.neighbors.graph_from_atoms` and `adatom.graph.collate` make, field for field, but for
the rounding of what stands at the cutoff itself. S structures, n atoms, E edges.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import torch

from adatom.data.arrays import Taken
from adatom.graph import Graph, Results
from adatom.neighbors import neighbor_list

BRUTE: Final = 128  # atoms up to which trying all pairs of an open structure is faster than a cell list


class Edges(NamedTuple):
    """Edges of one structure or of several, sorted by centre, atoms counted through."""

    ends: np.ndarray  # (2, E)  centre and neighbour
    shifts: np.ndarray  # (E, 3)
    reverse: np.ndarray  # (E,)  the opposite edge
    counts: np.ndarray  # (S,)  edges of each structure


def find_edges(taken: Taken, cutoff: float) -> Edges:
    """All directed pairs closer than ``cutoff`` (Å) within each structure."""
    sizes = taken.counts
    if cutoff <= 0:
        empty = np.zeros((2, 0), dtype=np.int64)
        return Edges(empty, np.zeros((0, 3)), empty[0], np.zeros_like(sizes))
    brute = ~taken.pbc.any(axis=1) & (sizes <= BRUTE)
    first = sizes.cumsum() - sizes
    if brute.all():
        ends, counts = _all_pairs(taken.positions, sizes, cutoff)
        return Edges(ends, np.zeros((ends.shape[1], 3)), _reverse(ends, None), counts)
    parts = []
    for k in range(len(sizes)):
        atoms = slice(first[k], first[k] + sizes[k])
        if brute[k]:
            ends, _ = _all_pairs(taken.positions[atoms], sizes[k : k + 1], cutoff)
            parts.append((ends, np.zeros((ends.shape[1], 3))))
        else:
            cell = np.where(taken.pbc[k, :, None], taken.cell[k], 0.0)
            parts.append(neighbor_list(taken.positions[atoms], cell, taken.pbc[k], cutoff))
    ends = np.concatenate([e + f for (e, _), f in zip(parts, first, strict=True)], axis=1)
    shifts = np.concatenate([s for _, s in parts])
    return Edges(ends, shifts, _reverse(ends, shifts), np.array([e.shape[1] for e, _ in parts]))


def _all_pairs(positions: np.ndarray, sizes: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of open structures one after the other, sorted, and how many each has."""
    mates = np.repeat(sizes, sizes)  # (n,)  atoms of the structure of each atom
    first = np.repeat(sizes.cumsum() - sizes, sizes)
    stop = mates.cumsum()
    centre = np.repeat(np.arange(len(mates)), mates)  # (pairs,)
    other = np.arange(stop[-1]) + np.repeat(first - (stop - mates), mates)
    squares = np.zeros(len(centre))
    for axis in range(3):
        x = positions[:, axis]
        squares += (x.take(other) - x.take(centre)) ** 2
    near = np.flatnonzero((squares < cutoff**2) & (centre != other))
    ends = np.stack([centre.take(near), other.take(near)])
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return ends, np.bincount(owner.take(ends[0]), minlength=len(sizes))


def _reverse(ends: np.ndarray, shifts: np.ndarray | None) -> np.ndarray:
    """Index of the opposite edge of each, E where there is none; edges are sorted by centre, neighbour and shift."""
    count = ends.shape[1]
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    atoms = int(ends.max()) + 1
    keys, wanted = ends[0] * atoms + ends[1], ends[1] * atoms + ends[0]
    if shifts is not None:
        whole = np.rint(shifts).astype(np.int64)
        reach = int(np.abs(whole).max())
        radix = 2 * reach + 1
        for axis in range(3):
            keys = keys * radix + whole[:, axis] + reach
            wanted = wanted * radix - whole[:, axis] + reach
    place = np.minimum(np.searchsorted(keys, wanted), count - 1)
    return np.asarray(np.where(keys.take(place) == wanted, place, count))


def assemble(taken: Taken, edges: Edges, sources: np.ndarray | int = 0) -> tuple[Graph, Results]:
    """The graph of these structures, float64, and their labels, which are of one source or of one each."""
    n, e = len(taken.numbers), edges.ends.shape[1]
    structures = len(taken.counts)
    owner = np.repeat(np.arange(structures), taken.counts)
    slots, column = _table(edges.ends[0], n, e)
    neighbours, back = np.zeros_like(slots), np.zeros_like(slots)
    known = np.flatnonzero(edges.reverse < e)
    neighbours[edges.ends[0], column] = edges.ends[1]
    back[edges.ends[0].take(known), column.take(known)] = column.take(edges.reverse.take(known))
    arrays = {
        "numbers": taken.numbers,
        "positions": taken.positions,
        "owner": owner,
        "edges": edges.ends,
        "shifts": edges.shifts,
        "cell": np.where(taken.pbc[:, :, None], taken.cell, 0.0),
        "pbc": taken.pbc,
        "charge": taken.charge,
        "spin": taken.spin,
        "source": np.full(structures, sources, dtype=np.int64),
        "slots": slots,
        "neighbours": neighbours,
        "back": back,
        "table": _table(owner, structures, n)[0],
        "reverse": edges.reverse,
    }
    labels = Results(*(torch.from_numpy(a) for a in (taken.energy, taken.forces, taken.stress)))
    return Graph(**{name: torch.from_numpy(array) for name, array in arrays.items()}), labels


def _table(rows: np.ndarray, count: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Table (count, widest) of the entries of each row, padded, and the column of each entry; ``rows`` is sorted."""
    many = np.bincount(rows, minlength=count)
    column = np.arange(len(rows)) - np.repeat(many.cumsum() - many, many)
    table = np.full((count, max(int(many.max(initial=0)), 1)), pad, dtype=np.int64)
    table[rows, column] = np.arange(len(rows))
    return table, column
