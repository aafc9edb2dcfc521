"""The soft nearest-neighbour graph: which edges an atom attends to, and how strongly, as a smooth function.

A hard choice of the k nearest jumps as two neighbours change places, and a hard radius knows nothing of density. Here
an edge fades by the largest of three numbers: its rank among the neighbours of its centre, its rank among those of its
neighbour, and its length (R. Liu, MinDScAIP, arXiv:2602.04861). N atoms, E edges, M neighbours of an atom (padded).

Everything comes from the neighbour list of the graph, so time and memory are of order N.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adatom.nn.radial import envelope
from adatom.nn.slots import Slots, pad_edges

RANK_WIDTH = 0.2  # Å: neighbours closer in distance than a few times this share their ranks
BUMP_REACH = 4.0  # the bump is 0 or 1 beyond this many widths
MAXIMUM_WIDTH = 0.1  # of the soft maximum, in envelope units
MORE = 20  # candidates beyond k among which the published form ranks


def bump(x: Tensor) -> Tensor:
    """Smooth step: sigmoid(x / (1 - (x/4)^2)) for |x| < 4, then 0 or 1; all derivatives are continuous."""
    inside = x.abs() < BUMP_REACH
    y = torch.where(inside, x, 0.0)
    step = torch.sigmoid(y / (1 - (y * (1 / BUMP_REACH)) ** 2))
    return torch.where(inside, step, (x > 0).to(x.dtype))


def soft_ranks(r: Tensor, k: int) -> Tensor:
    """Rank of each neighbour among those of its centre, as published: (N, M) -> (N, M).

    s_i(j) = sum_j' bump((d_ij - d_ij') / 0.2 Å) over the k + 20 nearest, the atom itself (d = 0) among them and j' = j
    counting one half. Candidates farther down get the rank 2 k, which no envelope keeps. Empty slots hold infinity.
    """
    count = k + MORE - 1  # the atom itself is the first candidate
    if r.shape[1] <= count:
        return _ranks(r, torch.ones_like(r))
    near, order = r.sort(dim=1)
    ranks = _ranks(near[:, :count], torch.ones_like(near[:, :count]))
    return torch.full_like(r, 2.0 * k).scatter(1, order[:, :count], ranks)


def fading_ranks(r: Tensor, cutoff: float) -> Tensor:
    """As ``soft_ranks``, over all neighbours within the cutoff: each counts for less the nearer it is to the cutoff.

    s_i(j) = sum_j' f(d_ij') bump((d_ij - d_ij') / 0.2 Å) with f the envelope of ``nn.radial``: no rank changes as an
    atom crosses the cutoff, and none is left out.
    """
    return _ranks(r, envelope(r, cutoff))


def _ranks(r: Tensor, weight: Tensor) -> Tensor:
    finite = r.clamp(max=1e3)  # an empty slot ranks below all others; infinities would subtract to NaN
    filled = torch.where(r.isfinite(), weight, 0.0)
    scaled = finite * (1 / RANK_WIDTH)
    steps = bump(scaled.unsqueeze(2) - scaled.unsqueeze(1))  # (N, M, M): j after j'
    return bump(scaled) + (steps @ filled.unsqueeze(2)).flatten(1)


def soft_envelope(r: Tensor, ranks: Tensor, slots: Slots, reverse: Tensor, k: int, cutoff: float) -> Tensor:
    """Soft maximum of both ranks and the distance, (E,): symmetric in i and j; edges from 1 on are no neighbours.

    env_ij = 0.1 logsumexp([s_i(j) / k, s_j(i) / k, d_ij / r_c] / 0.1)

    Parameters
    ----------
    r
        Distances (E,), Å.
    ranks
        (N, M), of ``soft_ranks`` or ``fading_ranks``.
    slots, reverse
        Tables of all edges; every edge must have its reverse.
    """
    own = ranks.flatten().index_select(0, slots.place)  # (E,)
    other = own.index_select(0, reverse)
    three = torch.stack([own / k, other / k, r / cutoff])
    return MAXIMUM_WIDTH * torch.logsumexp(three / MAXIMUM_WIDTH, dim=0)


def distances_in_slots(r: Tensor, slots: Slots) -> Tensor:
    """Distances (E,) as (N, M), infinite in empty slots."""
    padded = pad_edges(r.unsqueeze(1), slots).squeeze(2)
    return torch.where(slots.filled.squeeze(1) > 0, padded, torch.inf)


def log_weight(env: Tensor) -> Tensor:
    """b(env) = -env^2 / (1 - env^2), the logarithm of an edge's weight: 0 at env = 0, minus infinity from 1 on."""
    inside = env < 1
    square = torch.where(inside, env, 0.0) ** 2
    return torch.where(inside, -square / (1 - square), -torch.inf)


def flip_edges(values: Tensor, slots: Slots) -> Tensor:
    """Values of the edges (i, j) in the slots of i as values of (j, i): (N, M, F) -> (N, M, F), zero in empty slots.

    What the slots of atom j hold afterwards belongs to the edges that point at j. Flipping twice changes nothing.
    """
    flipped: Tensor = _Flip.apply(values.flatten(0, 1), slots.opposite, slots.filled.view(-1, 1))
    return flipped.view(values.shape)


class _Flip(torch.autograd.Function):
    """(N*M, F) -> (N*M, F); a permutation of the filled slots that is its own inverse, and so its own transpose."""

    @staticmethod
    def forward(values: Tensor, opposite: Tensor, filled: Tensor) -> Tensor:
        return values.index_select(0, opposite) * filled

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        return (_Flip.apply(grad[0], *ctx.saved_tensors), None, None)
