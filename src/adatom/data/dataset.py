"""Structures as graphs in memory, and batches of them filled to a budget of atoms and edges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field

from adatom.config import Config
from adatom.data.read import Structure
from adatom.errors import DataError
from adatom.graph import Graph, Results, collate
from adatom.neighbors import graph_from_atoms

OPEN_BATCHES = 16  # batches filled side by side: enough to fill well, few enough to keep the shuffle


class Budget(Config):
    """What a batch may hold: structures are added until the next one would not fit."""

    atoms: int = Field(default=32, ge=1)
    edges: int | None = Field(default=None, ge=1)


class Dataset:
    """Structures of one set as graphs with their labels: float64 geometry, all edges within ``cutoff`` (Å).

    Parameters
    ----------
    structures
        At least one.
    cutoff
        Reach of the edges, Å.
    source
        Origin of the labels, written into the graphs; one for all, or one of each structure.

    Raises
    ------
    DataError
        There are no structures.
    """

    def __init__(self, structures: Sequence[Structure], cutoff: float, source: int | Sequence[int] = 0) -> None:
        if not structures:
            raise DataError(
                "the data set is empty", wanted="at least one structure", remedy="check the data files and the split"
            )
        self.structures = list(structures)
        self.cutoff = cutoff
        self.sources = np.broadcast_to(np.asarray(source, dtype=np.int64), (len(self.structures),))
        self.graphs = [_graph(s, cutoff, int(k)) for s, k in zip(self.structures, self.sources, strict=True)]
        self.labels = [_results(s) for s in self.structures]
        self.names = [s.name for s in self.structures]
        self.config_types = [s.config_type for s in self.structures]
        self.atoms = np.array([g.numbers.shape[0] for g in self.graphs])  # (structures,)
        self.edges = np.array([g.edges.shape[1] for g in self.graphs])  # (structures,)

    def __len__(self) -> int:
        return len(self.structures)

    @property
    def elements(self) -> list[int]:
        """Atomic numbers that occur, in order."""
        return sorted({int(z) for s in self.structures for z in s.atoms.numbers})

    def batch(self, indices: Sequence[int]) -> tuple[Graph, Results]:
        """The structures named, in the order named, as one graph with its labels."""
        if not indices:
            raise DataError("a batch is empty", wanted="at least one index")
        labels = [self.labels[k] for k in indices]
        return (
            collate([self.graphs[k] for k in indices]),
            Results(
                torch.cat([r.energy for r in labels]),
                torch.cat([r.forces for r in labels]),
                torch.cat([r.stress for r in labels]),
            ),
        )


def _graph(structure: Structure, cutoff: float, source: int) -> Graph:
    graph = graph_from_atoms(structure.atoms, cutoff)
    return graph.replace(source=torch.full_like(graph.source, source))


def _results(structure: Structure) -> Results:
    return Results(
        torch.tensor([structure.energy], dtype=torch.float64),
        torch.from_numpy(np.ascontiguousarray(structure.forces, dtype=np.float64)),
        torch.from_numpy(np.ascontiguousarray(structure.stress, dtype=np.float64)).reshape(1, 3, 3),
    )


def batches(dataset: Dataset, budget: Budget, seed: int = 0, epoch: int = 0, shuffle: bool = True) -> list[list[int]]:
    """Indices of the structures of each batch of an epoch: every structure once, the same for the same (seed, epoch).

    Shuffled: structures are drawn at random and put into the fullest of some open batches that still takes them. In
    order: a batch is closed when the next structure would not fit. A structure beyond the budget makes a batch of
    its own.
    """
    sizes, limit = dataset.atoms[:, None], np.array([budget.atoms])
    if budget.edges is not None:
        sizes, limit = np.stack([dataset.atoms, dataset.edges], axis=1), np.array([budget.atoms, budget.edges])
    if not shuffle:
        return _pack(range(len(dataset)), sizes, limit, 1)
    random = np.random.default_rng([seed, epoch])
    filled = _pack(random.permutation(len(dataset)).tolist(), sizes, limit, OPEN_BATCHES)
    return [filled[k] for k in random.permutation(len(filled))]


def _pack(order: Sequence[int], sizes: np.ndarray, limit: np.ndarray, most: int) -> list[list[int]]:
    """Best fit with at most ``most`` open batches; the fullest is closed to open a new one."""
    closed: list[list[int]] = []
    members: list[list[int]] = []
    room = np.zeros((0, limit.shape[0]))
    for k in order:
        left = room - sizes[k]  # (open, limits)
        fits = (left >= 0).all(axis=1)
        if fits.any():
            best = int(np.where(fits, (left / limit).min(axis=1), np.inf).argmin())
            members[best].append(k)
            room[best] = left[best]
            continue
        if len(members) == most:
            fullest = int((room / limit).min(axis=1).argmin())
            closed.append(members.pop(fullest))
            room = np.delete(room, fullest, axis=0)
        members.append([k])
        room = np.concatenate([room, [limit - sizes[k]]])
    return closed + members
