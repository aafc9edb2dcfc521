"""Edge list <-> padded neighbours, without scattered additions: the backward of a gather is a gather.

N atoms, E edges sorted by centre, M slots per atom. Every edge (i, j) must have its reverse (j, i) in the list; then
what flows back to an atom from the edges that point at it can be collected from its own slots. Sums are done in a fixed
order: results repeat bit by bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Adjacent(NamedTuple):
    """Who stands in which slot."""

    neighbour: Tensor  # (N*M,)  atom in each slot, 0 in empty ones
    opposite: Tensor  # (N*M,)  slot of the reverse edge, any in empty ones
    filled: Tensor  # (N, 1, M)  1 where a slot holds an edge


class Slots(NamedTuple):
    """Index tables of one batch, made by ``index_slots``."""

    edge: Tensor  # (N*M,)  edge in each slot, E in empty ones
    place: Tensor  # (E,)  slot of each edge
    neighbour: Tensor  # (N*M,)  atom in each slot, 0 in empty ones
    opposite: Tensor  # (N*M,)  slot of the reverse edge, 0 in empty ones
    filled: Tensor  # (N, 1, M)  1 where a slot holds an edge


def index_slots(edges: Tensor, slots: Tensor, reverse: Tensor, dtype: torch.dtype) -> Slots:
    """Tables from edges (2, E), slots (N, M) and reverse (E,)."""
    atoms, width = slots.shape
    count = edges.shape[1]
    edge = slots.reshape(-1)
    empty = edge == count
    # edges are sorted by centre, so an edge's column is its rank among the edges of its centre
    first = torch.searchsorted(edges[0].contiguous(), torch.arange(atoms, device=edges.device))
    place = edges[0] * width + torch.arange(count, device=edges.device) - first.index_select(0, edges[0])
    some = edge.masked_fill(empty, 0)
    if count == 0:
        neighbour = opposite = torch.zeros_like(edge)
    else:
        neighbour = edges[1].index_select(0, some).masked_fill(empty, 0)
        opposite = place.index_select(0, reverse.index_select(0, some)).masked_fill(empty, 0)
    return Slots(edge, place, neighbour, opposite, (~empty).to(dtype).view(atoms, 1, width))


def pad_edges(values: Tensor, slots: Slots) -> Tensor:
    """Values of edges (E, F) as neighbours of atoms (N, M, F), zero in empty slots."""
    atoms, _, width = slots.filled.shape
    padded: Tensor = _Pad.apply(values, slots.edge, slots.place)
    return padded.view(atoms, width, values.shape[1])


def gather_neighbours(values: Tensor, slots: Slots | Adjacent) -> Tensor:
    """Values of atoms (N, F) at their neighbours (N, M, F). Empty slots hold some atom's values.

    Weigh them with zero.
    """
    atoms, _, width = slots.filled.shape
    gathered: Tensor = _Gather.apply(values, slots.neighbour, slots.opposite, slots.filled)
    return gathered.view(atoms, width, values.shape[1])


class _Pad(torch.autograd.Function):
    """(E, F) -> (N*M, F); its transpose is ``_Unpad``."""

    @staticmethod
    def forward(values: Tensor, edge: Tensor, place: Tensor) -> Tensor:
        return torch.cat([values, values.new_zeros(1, values.shape[1])]).index_select(0, edge)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        return (_Unpad.apply(grad[0], *ctx.saved_tensors), None, None)


class _Unpad(torch.autograd.Function):
    """(N*M, F) -> (E, F); its transpose is ``_Pad``."""

    @staticmethod
    def forward(values: Tensor, edge: Tensor, place: Tensor) -> Tensor:
        return values.index_select(0, place)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        return (_Pad.apply(grad[0], *ctx.saved_tensors), None, None)


class _Gather(torch.autograd.Function):
    """(N, F) -> (N*M, F): x_i -> x_j; its transpose is ``_Collect``."""

    @staticmethod
    def forward(values: Tensor, neighbour: Tensor, opposite: Tensor, filled: Tensor) -> Tensor:
        return values.index_select(0, neighbour)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        return (_Collect.apply(grad[0], *ctx.saved_tensors), None, None, None)


class _Collect(torch.autograd.Function):
    """(N*M, F) -> (N, F).

    Each atom sums what its neighbours hold about it, read from the reverse edges in its own slots.
    """

    @staticmethod
    def forward(values: Tensor, neighbour: Tensor, opposite: Tensor, filled: Tensor) -> Tensor:
        atoms, _, width = filled.shape
        reversed_ = values.index_select(0, opposite).view(atoms, width, values.shape[1])
        return (reversed_ * filled.transpose(1, 2)).sum(1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        return (_Gather.apply(grad[0], *ctx.saved_tensors), None, None, None)
