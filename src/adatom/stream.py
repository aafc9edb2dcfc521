"""Energy and forces of a layered network, a few atoms at a time: memory that does not grow with the neighbours.

Differentiating the whole keeps everything that stands on N atoms times M neighbours. Here only rows of atoms are kept
between layers. Forward, chunk after chunk, a layer turns rows into rows; backward, chunk after chunk, it is evaluated
once more and differentiated, and what flows back to neighbours is added to their rows:

    rows_t+1 = layer_t(rows_t, rows_t of neighbours, r),   e = sum_t e_t,   t = 0 .. T - 1
    dE/drows_t and dE/dr  from  dE/drows_t+1,                               t = T - 1 .. 0

That is T - 1 forward passes more than differentiation of the whole. A chunk fits into cache and costs the same in every
system: time is linear in N.

Rows are also all that processes which share a system have to tell one another: see ``Halo``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from adatom.graph import Graph, sum_by_owner
from adatom.models.base import element_rows
from adatom.models.layered import Layered, Rows, Step
from adatom.priors.base import Prior


class Chunk(NamedTuple):
    """n atoms and where their neighbours stand."""

    numbers: Tensor  # (n,)
    species: Tensor  # (n,)  rows in the tables of elements
    others: Tensor  # (n, M)  atomic numbers of the neighbours
    vectors: Tensor  # (n, M, 3)  Å, float64
    filled: Tensor  # (n, M)  bool


class LayerOf(nn.Module):
    """One layer of a network, as a function of rows and vectors and with its derivatives."""

    def __init__(self, body: Layered, number: int) -> None:
        super().__init__()
        self.body, self.number = body, number

    def forward(self, own: Rows, others: Rows, vectors: Tensor, chunk: Chunk) -> Step:
        """What the layer says of the atoms of a chunk, vectors (n, M, 3) in the type of the network."""
        filled = chunk.filled.to(vectors.dtype).unsqueeze(1)
        near = self.body.surroundings(vectors, filled, chunk.numbers, chunk.others)
        return self.body.layer(self.number, own, others, near, chunk.species)


class Slopes(NamedTuple):
    """Energies of the atoms of a chunk and what the total of them, and of ``after``, changes with."""

    energy: Tensor  # (n,)
    own: Rows  # each (n, F)
    others: Rows  # each (n, M, F)
    vectors: Tensor  # (n, M, 3)


def advance(layer: LayerOf, own: Rows, others: Rows, chunk: Chunk) -> Rows:
    """Rows after a layer."""
    rows: Rows = layer(own, others, chunk.vectors.to(own[0].dtype), chunk).rows
    return rows


def descend(layer: LayerOf, own: Rows, others: Rows, chunk: Chunk, after: Rows) -> Slopes:
    """Derivatives by rows and vectors, from those by the rows after the layer (none after the last)."""

    def total(own: Rows, others: Rows, vectors: Tensor) -> tuple[Tensor, Tensor]:
        step = layer(own, others, vectors, chunk)
        energy = step.energy.sum()
        for row, slope in zip(step.rows, after, strict=False):
            energy = energy + (row * slope).sum()
        return energy, step.energy

    derive = torch.func.grad_and_value(total, argnums=(0, 1, 2), has_aux=True)
    slopes, (_, energy) = derive(own, others, chunk.vectors.to(own[0].dtype))
    return Slopes(energy, *slopes)


def push(prior: Prior, chunk: Chunk) -> tuple[Tensor, Tensor]:
    """Energies (n,) of a prior in eV and their derivatives by vectors (n, M, 3)."""

    def total(vectors: Tensor) -> tuple[Tensor, Tensor]:
        energy = prior.pairs(chunk.numbers, chunk.others, vectors, chunk.filled)
        return energy.sum(), energy

    slope, (_, energy) = torch.func.grad_and_value(total, has_aux=True)(chunk.vectors)
    return energy, slope


class Steps(NamedTuple):
    """The three functions that chunks go through; compiled ones fit as well."""

    advance: Callable[[LayerOf, Rows, Rows, Chunk], Rows] = advance
    descend: Callable[[LayerOf, Rows, Rows, Chunk, Rows], Slopes] = descend
    push: Callable[[Prior, Chunk], tuple[Tensor, Tensor]] = push


class Halo(Protocol):
    """Atoms around those of a graph that others compute; they follow the own ones, and have no slots.

    Every process that takes part calls both as often as the others, in the same order.
    """

    def fetch(self, rows: Rows) -> Rows:
        """Rows of own atoms, (n, F) each, with those of the atoms around them behind, (N, F)."""

    def give(self, slopes: Rows) -> Rows:
        """Slopes by all these rows, (N, F) each: those by own ones, (n, F), with what others found added."""


class Streamed(NamedTuple):
    """Energies and derivatives of all atoms; with a halo of own atoms, the energy of others being zero."""

    energy: Tensor  # (N,)  eV, references left out
    slopes: Tensor  # (N, 3)  dE/dr_i, eV/Å; with a halo (n, 3)
    virial: Tensor  # (S, 3, 3)  dE/d(strain), eV
    virials: Tensor  # (N, 3, 3)  the same by the vectors that start at each atom


@torch.no_grad()
def streamed(
    body: Layered,
    scale: Tensor,
    priors: Iterable[Prior],
    graph: Graph,
    size: int,
    steps: Steps | None = None,
    halo: Halo | None = None,
) -> Streamed:
    """Energies of network (times ``scale``) and priors with their derivatives, ``size`` atoms at a time.

    With a ``halo`` the graph's slots (n, M) are those of its first n atoms alone, of which there is one at the least.
    """
    steps, places = steps or Steps(), list(_places(graph, size))
    species = element_rows(graph, body.sources)
    chunks = [_chunk(graph, species, at) for at in places]
    layers = [LayerOf(body, number) for number in range(len(body.layers))]
    known = [body.start(species)]
    for layer in layers[:-1]:
        parts = [steps.advance(layer, *_seen(known[-1], at), chunk) for at, chunk in zip(places, chunks, strict=True)]
        told = tuple(torch.cat(rows) for rows in zip(*parts, strict=True))
        known.append(told if halo is None else halo.fetch(told))
    energy = torch.zeros_like(graph.positions[:, 0])
    pulls = _Pulls(graph)
    after: Rows = ()
    for number, rows in reversed(list(enumerate(known))):
        layer = layers[number]
        before = tuple(torch.zeros_like(row) for row in rows)
        for at, chunk in zip(places, chunks, strict=True):
            slopes = steps.descend(layer, *_seen(rows, at), chunk, tuple(row[at.atoms] for row in after))
            energy[at.atoms] += slopes.energy * scale
            pulls.add(at, chunk.vectors, slopes.vectors.to(energy.dtype) * scale)
            for total, own, others in zip(before, slopes.own, slopes.others, strict=True):
                total[at.atoms] += own
                total.index_add_(0, at.neighbours, others.flatten(0, 1))
        after = before if halo is None or number == 0 else halo.give(before)
    for prior in priors:
        for at, chunk in zip(places, chunks, strict=True):
            said, slope = steps.push(prior, chunk)
            energy[at.atoms] += said
            pulls.add(at, chunk.vectors, slope)
    total = sum_by_owner(pulls.virials, graph.owner, graph.cell.shape[0])
    pulled = pulls.slopes if halo is None else halo.give((pulls.slopes,))[0]
    return Streamed(energy, pulled, total, pulls.virials)


class _Place(NamedTuple):
    """Where a chunk stands: its atoms, its columns, and the neighbours (n*M,) in them."""

    atoms: slice
    width: int
    neighbours: Tensor


def _places(graph: Graph, size: int) -> Iterator[_Place]:
    """Even chunks of at most ``size`` atoms, no wider than the most neighbours that any of them has."""
    count = graph.slots.shape[0]
    size = math.ceil(count / math.ceil(count / size))
    counts = (graph.slots < graph.edges.shape[1]).sum(1)
    for first in range(0, count, size):
        atoms = slice(first, min(first + size, count))
        # a width of one would be a program of its own where steps are compiled
        width = min(max(2, int(counts[atoms].max())), graph.slots.shape[1])
        yield _Place(atoms, width, graph.neighbours[atoms, :width].flatten())


def _chunk(graph: Graph, species: Tensor, at: _Place) -> Chunk:
    slots = graph.slots[at.atoms, : at.width]
    filled = slots < graph.edges.shape[1]
    steps = graph.shifts.index_select(0, torch.where(filled, slots, 0).flatten()).view(*slots.shape, 3)
    cell = graph.cell.index_select(0, graph.owner[at.atoms])
    ends = graph.positions.index_select(0, at.neighbours).view(*slots.shape, 3)
    vectors = ends + torch.bmm(steps, cell) - graph.positions[at.atoms].unsqueeze(1)
    return Chunk(
        graph.numbers[at.atoms],
        species[at.atoms],
        graph.numbers.index_select(0, at.neighbours).view(slots.shape),
        vectors,
        filled,
    )


def _seen(rows: Rows, at: _Place) -> tuple[Rows, Rows]:
    """Rows of the atoms of a chunk and of their neighbours."""
    own = tuple(row[at.atoms] for row in rows)
    others = tuple(row.index_select(0, at.neighbours).view(own[0].shape[0], at.width, -1) for row in rows)
    return own, others


class _Pulls:
    """Derivatives by vectors, gathered on atoms and into virials."""

    def __init__(self, graph: Graph) -> None:
        self.slopes = torch.zeros_like(graph.positions)
        self.virials = graph.positions.new_zeros(graph.positions.shape[0], 3, 3)

    def add(self, at: _Place, vectors: Tensor, slopes: Tensor) -> None:
        """Vectors point from an atom to its neighbour: slopes (n, M, 3) pull on both."""
        self.slopes[at.atoms] -= slopes.sum(1)
        self.slopes.index_add_(0, at.neighbours, slopes.flatten(0, 1))
        self.virials[at.atoms] += vectors.transpose(1, 2) @ slopes
