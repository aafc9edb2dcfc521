"""The soft nearest-neighbour graph: which edges an atom attends to, and how strongly, as a smooth function.

A hard choice of the k nearest jumps as two neighbours change places, and a hard radius knows nothing of density. Here
an edge fades by the largest of three numbers: its rank among the neighbours of its centre, its rank among those of its
neighbour, and its length (R. Liu, MinDScAIP, arXiv:2602.04861). N atoms, E edges, M neighbours of an atom (padded).

Everything comes from the neighbour list of the graph, so time and memory are of order N.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from adatom.nn.attention import TILE, recomputed
from adatom.nn.radial import envelope
from adatom.nn.slots import Slots, pad_edges
from adatom.nn.spherical import degrees

RANK_WIDTH = 0.2  # Å: neighbours closer in distance than a few times this share their ranks
BUMP_REACH = 4.0  # the bump is 0 or 1 beyond this many widths
MAXIMUM_WIDTH = 0.1  # of the soft maximum, in envelope units
MORE = 20  # candidates beyond k among which the published form ranks


def bump(x: Tensor) -> Tensor:
    """Smooth step: sigmoid(x / (1 - (x/4)^2)) for |x| < 4, then 0 or 1; all derivatives are continuous.

    From |x| = 3.99 on the sigmoid is 0 or 1 in double precision.
    """
    y = x.clamp(-0.9975 * BUMP_REACH, 0.9975 * BUMP_REACH)
    return torch.sigmoid(y / (1 - y * y * (1 / BUMP_REACH**2)))


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
    atoms, width = r.shape
    size = max(1, TILE // width**2)
    if atoms <= size:
        return _part_of_ranks(r, weight)
    parts = [(r[a : a + size], weight[a : a + size]) for a in range(0, atoms, size)]
    return torch.cat([recomputed(_part_of_ranks, *part) for part in parts])


def _part_of_ranks(r: Tensor, weight: Tensor) -> Tensor:
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
    # ranks above 4 k are out anyway: bounded, the exponentials need no shift
    outward = torch.exp(ranks.clamp(max=4.0 * k) * (1 / (k * MAXIMUM_WIDTH)))
    own = outward.flatten().index_select(0, slots.place)  # (E,)
    total = own + own.index_select(0, reverse) + torch.exp(r * (1 / (cutoff * MAXIMUM_WIDTH)))
    return MAXIMUM_WIDTH * torch.log(total)


def distances_in_slots(r: Tensor, slots: Slots) -> Tensor:
    """Distances (E,) as (N, M), infinite in empty slots."""
    padded = pad_edges(r.unsqueeze(1), slots).squeeze(2)
    return torch.where(slots.filled.squeeze(1) > 0, padded, torch.inf)


def log_weight(env: Tensor) -> Tensor:
    """b(env) = -env^2 / (1 - env^2), the logarithm of an edge's weight: 0 at env = 0, falling without end up to 1."""
    square = env * env
    return square / (square - 1)


def bond_orders(harmonics: Tensor, weights: Tensor) -> Tensor:
    """Steinhardt's bond orders, as published: (N, M, L2) and (N, M) -> (N, l_max + 1).

    q_l^2 = sum_m ( mean_j Y_lm(j) )^2 / (2 l + 1), not below 1e-6; the mean is weighted.
    """
    mean = torch.bmm(weights.unsqueeze(1), harmonics).squeeze(1) / weights.sum(1, keepdim=True)  # (N, L2)
    degree = torch.tensor(degrees(math.isqrt(harmonics.shape[2]) - 1), device=harmonics.device)
    power = mean.square() / (2 * degree + 1)
    total = power.new_zeros(power.shape[0], int(degree[-1]) + 1).index_add(1, degree, power)
    return total.clamp(min=1e-6).sqrt()


def flip_edges(values: Tensor, slots: Slots) -> Tensor:
    """Values of the edges (i, j) in the slots of i as values of (j, i): (N, M, F) -> (N, M, F), zero in empty slots.

    What the slots of atom j hold afterwards belongs to the edges that point at j. Flipping twice changes nothing.
    """
    flipped: Tensor = _Flip.apply(values.flatten(0, 1), slots.opposite, slots.filled.view(-1, 1))
    return flipped.view(values.shape)


def with_self(padded: Tensor) -> Tensor:
    """(N, M, F) -> (N, 1 + M, F), zero for the atom itself."""
    return torch.nn.functional.pad(padded, (0, 0, 1, 0))


def slot_bias(bias: Tensor, slots: Slots) -> Tensor:
    """Logarithms of the weights (N, M, 1) with the atom itself, (N, 1 + M): 0 there, minus infinity in empty slots."""
    filled = slots.filled.squeeze(1) > 0
    return torch.nn.functional.pad(torch.where(filled, bias.flatten(1), -torch.inf), (1, 0))


def flip_slots(h: Tensor, slots: Slots) -> Tensor:
    """Slots of the edges from an atom as slots of the edges to it; slot 0 stays."""
    return torch.cat([h[:, :1], flip_edges(h[:, 1:], slots)], dim=1)


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
