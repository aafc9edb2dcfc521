"""Pairs of atoms of one structure farther apart than the neighbour list reaches, over all periodic images.

S structures, T query atoms and K atoms of a structure (padded), I images. Distances come tile by tile and are not kept.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SELF = 1e-8  # Å^2, below which an atom meets itself
ROUNDING = 1e-6  # of squares of distances over the square of the reach, in structures up to a millimetre long
FAR = 1e3  # where those are put that are not there, in units of the reach


class Images(NamedTuple):
    """Lattice translations that may bring two folded atoms within a distance of each other."""

    counts: Tensor  # (I, 3)  in cells
    valid: Tensor  # (S, I)  1 where a translation is one of this structure


@torch.no_grad()
def images_within(cell: Tensor, pbc: Tensor, reach: float, beyond: int = 1) -> Images:
    """Translations that bring two atoms of the folded cell closer than ``reach`` (Å).

    Their number along an axis is reach / height, rounded down, plus ``beyond``: folded atoms are less than a cell
    apart.
    """
    heights = torch.linalg.pinv(cell).norm(dim=1)  # (S, 3) inverse heights, 0 along open directions
    most = torch.where(pbc, (reach * heights).floor() + beyond, 0.0)  # (S, 3)
    axes = [torch.arange(-n, n + 1, device=cell.device) for n in most.amax(0).to(torch.int64).tolist()]
    counts = torch.cartesian_prod(*axes).to(cell.dtype)  # (I, 3)
    valid = (counts.abs().unsqueeze(0) <= most.unsqueeze(1)).all(2)
    return Images(counts, valid.to(cell.dtype))


def folded(positions: Tensor, cell: Tensor, owner: Tensor) -> Tensor:
    """Positions moved into the cell along its periodic directions, (N, 3); differentiable in positions and cell."""
    own = cell.index_select(0, owner)  # (N, 3, 3)
    with torch.no_grad():
        inverse = torch.linalg.pinv(cell).index_select(0, owner)
        turns = torch.floor((positions.unsqueeze(1) @ inverse).squeeze(1))
    return positions - (turns.unsqueeze(1) @ own).squeeze(1)


def nearest_distance(queries: Tensor, keys: Tensor, cell: Tensor, images: Images) -> Tensor:
    """Distance to the nearest image, (S, T, 3) and (S, K, 3) -> (S, T, K); 0 from an atom to itself."""
    with torch.no_grad():
        square = _squares(queries, keys, cell, images)
        which = torch.where(images.valid.view(-1, 1, 1, images.valid.shape[1]) > 0, square, torch.inf).argmin(3)
    shift = _translations(cell, images)  # (S, I, 3)
    rows = which.flatten(1).unsqueeze(2).expand(-1, -1, 3)
    chosen = shift.gather(1, rows).view(*which.shape, 3)
    square = (keys.unsqueeze(1) + chosen - queries.unsqueeze(2)).square().sum(3)
    apart = square > 1e-12
    return torch.where(apart, torch.where(apart, square, 1.0).sqrt(), 0.0)


def closeness(here: Tensor, there: Tensor, reach: float) -> Tensor:
    """1 - (r / reach)^2, negative beyond reach: (S, T, 3) and (S, K, 3) -> (S, T, K).

    One matrix product: 1 - (a - b)^2 = 2 a b + (1 - a^2) - b^2, seen from the first of those here.
    """
    first = here[:, :1].detach()
    a, b = (here - first) / reach, (there - first) / reach
    one = torch.ones_like(a[:, :, :1])
    left = torch.cat([2 * a, 1 - a.square().sum(2, keepdim=True), -one], dim=2)
    right = torch.cat([b, torch.ones_like(b[:, :, :1]), b.square().sum(2, keepdim=True)], dim=2)
    return torch.bmm(left, right.transpose(1, 2))


def fading_sum(queries: Tensor, keys: Tensor, present: Tensor, cell: Tensor, images: Images, reach: float) -> Tensor:
    """W_ij = sum over images of (1 - (r_ij / reach)^2)^3 within ``reach``, the atom itself left out: (S, T, K).

    Atoms farther apart have exactly zero, and n cells have the same sums as one: what is built on W is extensive.
    ``present`` (S, K) is 0 for padding among the keys.
    """
    S, T, K, many = queries.shape[0], queries.shape[1], keys.shape[1], images.counts.shape[0]
    with torch.no_grad():
        some = images.valid.unsqueeze(1) * present.unsqueeze(2)  # (S, K, I)
        moved = keys.unsqueeze(2) + _translations(cell, images).unsqueeze(1)  # (S, K, I, 3)
        moved = moved + (1 - some).to(moved.dtype).unsqueeze(3) * (FAR * reach)
        near = closeness(queries, moved.flatten(1, 2), reach) > -ROUNDING  # (S, T, K * I)
        s, i, jt = near.nonzero().unbind(1)
        j, t = jt // many, jt % many
    here = queries.flatten(0, 1).index_select(0, s * T + i)
    there = keys.flatten(0, 1).index_select(0, s * K + j)
    shift = _translations(cell, images).flatten(0, 1).index_select(0, s * many + t)
    x = (there + shift - here).square().sum(1) * (1 / (reach * reach))
    weight = torch.where((x < 1) & (x > SELF / reach**2), 1 - x, 0.0) ** 3
    return weight.new_zeros(S * T * K).index_add(0, (s * T + i) * K + j, weight).view(S, T, K)


def sinc(x: Tensor) -> Tensor:
    """sin(x) / x, with derivatives of any order at 0."""
    apart = x.abs() > 1e-4
    safe = torch.where(apart, x, 1.0)
    return torch.where(apart, safe.sin() / safe, 1 - x * x / 6)


def _translations(cell: Tensor, images: Images) -> Tensor:
    """(S, I, 3) in Å."""
    return images.counts.to(cell.dtype) @ cell


def _squares(queries: Tensor, keys: Tensor, cell: Tensor, images: Images) -> Tensor:
    """(S, T, K, I)."""
    moved = keys.unsqueeze(2) + _translations(cell, images).unsqueeze(1)  # (S, K, I, 3)
    return (moved.unsqueeze(1) - queries.view(*queries.shape[:2], 1, 1, 3)).square().sum(4)
