"""Structures as batches: taken from arrays, with their neighbours, kept in memory where they are few."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from adatom.data.arrays import Taken
from adatom.data.assemble import Edges, assemble, find_edges
from adatom.data.batches import Budget, Plan, batches
from adatom.data.selection import Selection
from adatom.data.store import Store
from adatom.data.structure import Structure
from adatom.errors import DataError
from adatom.graph import Graph, Results
from adatom.neighbors import check_cell

__all__ = ["Budget", "Dataset", "Plan", "batches"]

KEPT_BYTES: Final = 2**30  # memory that neighbour lists may take before they are made anew each time
CHUNK: Final = 256  # structures whose edges are counted at once


class Dataset:
    """Structures of one set, their graphs and labels: float64 geometry, all edges within ``cutoff`` (Å).

    Nothing is made before it is asked for, and nothing here looks at every structure as an object.

    Parameters
    ----------
    structures
        At least one; of a store, or in memory.
    cutoff
        Reach of the edges, Å; 0 for none.
    source
        Origin of the labels, written into the graphs; one for all, or one of each structure.

    Raises
    ------
    DataError
        There are no structures.
    """

    def __init__(
        self, structures: Sequence[Structure], cutoff: float, source: int | Sequence[int] | np.ndarray = 0
    ) -> None:
        if not len(structures):
            raise DataError(
                "the data set is empty", wanted="at least one structure", remedy="check the data files and the split"
            )
        self.chosen = Selection.of(structures)
        self.structures: Sequence[Structure] = structures
        self.cutoff = cutoff
        self.sources = np.broadcast_to(np.asarray(source, dtype=np.int64), (len(structures),))
        self.atoms = self.chosen.atoms  # (structures,)
        self.names = self.chosen.names
        self.config_types = self.chosen.config_types
        self._kept: dict[int, tuple[np.ndarray, ...]] = {}
        self._room = KEPT_BYTES

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def elements(self) -> list[int]:
        """Atomic numbers that occur, in order."""
        return list(self.chosen.elements)

    @cached_property
    def edges(self) -> np.ndarray:
        """Edges of each structure, (structures,); a store remembers them for the next time."""
        whole = _whole_store(self.chosen)
        if whole is None:
            return self._count()
        known = _Counted(whole, self.cutoff)
        counts = known.read()
        if counts is None:
            counts = Dataset(whole, self.cutoff)._count()
            known.write(counts)
        return counts[self.chosen.which]

    def graph(self, k: int) -> Graph:
        """Graph of one structure."""
        return self.batch([k])[0]

    def label(self, k: int) -> Results:
        """Labels of one structure."""
        return self.batch([k])[1]

    def batch(self, indices: Sequence[int] | np.ndarray) -> tuple[Graph, Results]:
        """The structures named, in the order named, as one graph with its labels.

        Raises
        ------
        DataError
            No index at all; a store that was altered.
        GeometryError
            Positions that are not finite, a periodic cell without volume; names the structure.
        """
        if not len(indices):
            raise DataError("a batch is empty", wanted="at least one index")
        index = np.asarray(indices, dtype=np.int64)
        taken = self.chosen.take(index)
        return assemble(taken, self._edges(index, taken), self.sources[index])

    def sample(self, most: int) -> Dataset:
        """At most ``most`` of the structures, drawn the same way each time; itself when there are no more."""
        if len(self) <= most:
            return self
        drawn = np.sort(np.random.default_rng(0).choice(len(self), most, replace=False))
        return Dataset(self.chosen.select(drawn), self.cutoff, self.sources[drawn])

    def _count(self) -> np.ndarray:
        parts = []
        for start in range(0, len(self), CHUNK):
            index = np.arange(start, min(start + CHUNK, len(self)))
            parts.append(self._edges(index, self.chosen.take(index)).counts)
        return np.concatenate(parts)

    def _edges(self, index: np.ndarray, taken: Taken) -> Edges:
        """Edges of a batch, from memory where they are kept."""
        if self.cutoff <= 0:
            return find_edges(taken, 0.0)
        kept = [self._kept.get(int(k)) for k in index]
        if any(k is None for k in kept):
            self._check(index, taken)
            edges = find_edges(taken, self.cutoff)
            self._keep(index, taken, edges)
            return edges
        whole = [k for k in kept if k is not None]
        counts = np.array([k[0].shape[1] for k in whole])
        atom, edge = (np.repeat(c.cumsum() - c, counts) for c in (taken.counts, counts))
        return Edges(
            np.concatenate([k[0] for k in whole], axis=1) + atom,
            np.concatenate([k[1] for k in whole]).astype(np.float64),
            np.concatenate([k[2] for k in whole]) + edge,
            counts,
        )

    def _keep(self, index: np.ndarray, taken: Taken, edges: Edges) -> None:
        """Remember the edges of each structure as long as there is room, in as few bytes as they need."""
        if self._room <= 0 or (edges.reverse == len(edges.reverse)).any() or np.abs(edges.shifts).max(initial=0) > 127:
            return
        atoms, stops = taken.counts.cumsum() - taken.counts, edges.counts.cumsum()
        for k, atom, start, stop in zip(index, atoms, stops - edges.counts, stops, strict=True):
            one = (
                (edges.ends[:, start:stop] - atom).astype(np.int32),
                edges.shifts[start:stop].astype(np.int8),
                (edges.reverse[start:stop] - start).astype(np.int32),
            )
            self._kept[int(k)] = one
            self._room -= sum(a.nbytes for a in one) + 500

    def _check(self, index: np.ndarray, taken: Taken) -> None:
        """GeometryError for what no neighbour list can be made of; names the structure."""
        periodic = np.where(taken.pbc[:, :, None], taken.cell, 0.0)
        gram = periodic @ periodic.transpose(0, 2, 1) + np.eye(3) * ~taken.pbc[:, :, None]
        flat = ~(np.linalg.det(gram) >= 1e-6 ** taken.pbc.sum(axis=1))
        if not flat.any() and np.isfinite(taken.positions).all() and np.isfinite(taken.cell).all():
            return
        for k in index:
            check_cell(self.structures[int(k)].atoms, self.names[int(k)])


def _whole_store(chosen: Selection) -> Store | None:
    """The store that most of these structures are of, if they are of one: its edges are worth counting for good."""
    store = chosen.parts[0]
    if len(chosen.parts) == 1 and isinstance(store, Store) and 2 * len(chosen) >= len(store):
        return store
    return None


class _Counted:
    """Edge counts of a store within one cutoff, in a file beside its arrays: counts, then their SHA-256."""

    def __init__(self, store: Store, cutoff: float) -> None:
        self.path: Path = store.folder / f"edges-{cutoff:.6f}.i4"
        self.salt, self.length = store.fingerprint.encode(), len(store)

    def read(self) -> np.ndarray | None:
        """The counts; None where there are none, or of other data."""
        try:
            data = self.path.read_bytes()
        except OSError:
            return None
        good = len(data) == 4 * self.length + 32 and self._digest(data[:-32]) == data[-32:]
        return np.frombuffer(data[:-32], "<i4").astype(np.int64) if good else None

    def write(self, counts: np.ndarray) -> None:
        """Keep the counts, where the folder can be written to."""
        data = counts.astype("<i4").tobytes()
        part = self.path.with_suffix(f".{hashlib.sha256(data).hexdigest()[:8]}.part")
        try:
            part.write_bytes(data + self._digest(data))
            part.replace(self.path)
        except OSError:
            return

    def _digest(self, data: bytes) -> bytes:
        return hashlib.sha256(self.salt + data).digest()
