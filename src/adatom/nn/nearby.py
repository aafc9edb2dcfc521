"""Atoms and images within a distance of one another, in blocks: time and memory linear in the number of atoms.

Atoms of a structure are halved along its longest side, and the halves again, until ``BLOCK`` of them stand close
together. All images within reach of a block are found from columns of a grid; between the atoms of a block and these
images, everything is a small dense matrix.

S structures, N atoms, G blocks of T atoms each, P images (padded).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from adatom.nn.images import FAR, closeness, images_within

BLOCK = 32  # atoms, about: fewer see fewer images that are out of reach, more make larger matrices
TILE = 2**17  # pairs held at once


class Tile(NamedTuple):
    """Blocks of one structure that are treated at once."""

    atoms: Tensor  # (G, T)  some atom may stand twice
    near: Tensor  # (G, P)  atom of each image, any in empty columns
    counts: Tensor  # (G, P, 3)  lattice translation of each image, in cells
    filled: Tensor  # (G, P)  bool
    own: Tensor  # (G, P)  atom that stands there itself, -1 for images
    structure: int


class Nearby(NamedTuple):
    """Every pair closer than ``reach`` of a batch, and others."""

    tiles: list[Tile]
    place: Tensor  # (N,)  where each atom stands among the atoms of all tiles
    positions: Tensor  # (N, 3)  Å
    cell: Tensor  # (S, 3, 3)
    reach: float  # Å


def nearby(positions: Tensor, cell: Tensor, pbc: Tensor, table: Tensor, reach: float) -> Nearby:
    """All pairs within ``reach`` (Å), images included, of folded positions (N, 3) and structures (S, K)."""
    tiles = []
    atoms = positions.shape[0]
    for structure, row in enumerate(table):
        members = row[row < atoms]
        tiles += _tiles(positions.detach(), members, cell.detach(), pbc, structure, reach)
    shown = torch.cat([tile.atoms.flatten() for tile in tiles])
    place = torch.empty(atoms, dtype=torch.int64, device=positions.device)
    place[shown.flip(0)] = torch.arange(shown.shape[0] - 1, -1, -1, device=positions.device)
    return Nearby(tiles, place, positions, cell, reach)


def ends(near: Nearby) -> list[tuple[Tensor, Tensor]]:
    """Positions of atoms (G, T, 3) and images (G, P, 3) of every tile, differentiable in positions and cell."""
    here = gathered(near.positions, [tile.atoms for tile in near.tiles])
    there = gathered(near.positions, [tile.near for tile in near.tiles])
    return [
        (a, b + tile.counts @ near.cell[tile.structure] + (~tile.filled).to(b.dtype).unsqueeze(2) * (FAR * near.reach))
        for a, b, tile in zip(here, there, near.tiles, strict=True)
    ]


def gathered(values: Tensor, index: list[Tensor]) -> list[Tensor]:
    """Rows of values (N, F) at several tables of atoms: one gather, so that one pass collects what flows back."""
    rows = values.index_select(0, torch.cat([i.flatten() for i in index]))
    parts = rows.split([i.numel() for i in index])
    return [part.view(*i.shape, values.shape[1]) for part, i in zip(parts, index, strict=True)]


def fading(here: Tensor, there: Tensor, same: Tensor, reach: float, dtype: torch.dtype) -> Tensor:
    """(1 - (r / reach)^2)^3 within reach, 0 beyond and where it is the same atom: (G, T, 3), (G, P, 3) -> (G, T, P)."""
    y = closeness(here, there, reach)
    y = torch.where((y > 0) & ~same, y, 0.0).to(dtype)
    return y * y * y


@torch.no_grad()
def _tiles(positions: Tensor, members: Tensor, cell: Tensor, pbc: Tensor, structure: int, reach: float) -> list[Tile]:
    """Tiles of one structure."""
    x = positions.index_select(0, members)
    number, counts = _images(x, cell[structure : structure + 1], pbc[structure : structure + 1], reach)
    places = torch.cat([x, x.index_select(0, number) + counts @ cell[structure]])
    x, places = _closed_up(places, reach).split([x.shape[0], number.shape[0]])
    order = _blocks(x)  # (B, T)
    block, image = _within(x[order].amin(1) - reach, x[order].amax(1) + reach, places, reach)
    many = torch.bincount(block, minlength=order.shape[0])
    first = many.cumsum(0) - many
    found = members.index_select(0, number.index_select(0, image))
    counts = counts.index_select(0, image)
    tiles = []
    at, sizes = 0, many.tolist()
    while at < len(sizes):
        group = max(1, TILE // (order.shape[1] * max(sizes[at], 1)))
        rows = slice(at, at + group)
        column = torch.arange(max(1, *sizes[rows]), device=x.device)
        filled = column < many[rows].unsqueeze(1)
        index = torch.where(filled, first[rows].unsqueeze(1) + column, 0)
        near, steps = found[index], counts[index]
        own = torch.where((steps == 0).all(2), near, -1)
        tiles.append(Tile(members[order[rows]], near, steps, filled, own, structure))
        at += group
    return tiles


def _images(x: Tensor, cell: Tensor, pbc: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """Atoms and translations (in cells) of all images within reach of the cell: (I,) and (I, 3)."""
    images = images_within(cell, pbc, reach)
    inverse = torch.linalg.pinv(cell[0])
    margin = torch.where(pbc[0], reach * inverse.norm(dim=0), torch.inf)
    fraction = (x @ inverse).unsqueeze(1) + images.counts  # (n, I, 3)
    number, which = ((fraction >= -margin) & (fraction <= 1 + margin)).all(2).nonzero().unbind(1)
    return number, images.counts.index_select(0, which)


def _closed_up(places: Tensor, reach: float) -> Tensor:
    """The same places (I, 3) without long gaps along x, y and z: distances up to reach stay as they are."""
    sorted_, order = places.sort(dim=0)
    surplus = (sorted_.diff(dim=0, prepend=sorted_[:1]) - (reach + 1.0)).clamp(min=0).cumsum(0)
    return torch.empty_like(places).scatter_(0, order, sorted_ - surplus)


def _blocks(x: Tensor) -> Tensor:
    """Atoms (n, 3) in blocks of equal size (B, T), close together; some stand twice to fill them."""
    blocks = 1
    while x.shape[0] / blocks > 1.4 * BLOCK:
        blocks *= 2
    missing = -x.shape[0] % blocks
    again = torch.arange(missing, device=x.device) * x.shape[0] // max(missing, 1)
    order = torch.cat([torch.arange(x.shape[0], device=x.device), again]).unsqueeze(0)
    while order.shape[0] < blocks:
        here = x[order]  # (b, m, 3)
        longest = (here.amax(1) - here.amin(1)).argmax(1)
        along = here.gather(2, longest.view(-1, 1, 1).expand(-1, here.shape[1], 1)).squeeze(2)
        order = order.gather(1, along.argsort(dim=1, stable=True)).view(2 * order.shape[0], -1)
    return order


def _within(low: Tensor, high: Tensor, places: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """Block and point of all points (I, 3) within reach of boxes, which are given widened by it, (B, 3).

    Points are sorted into columns along z; in each column that a box touches, they stand in one row.
    """
    start, width = places.amin(0), reach / 2
    size = ((places.amax(0) - start) / width).floor().to(torch.int64) + 1  # (3,)
    span = float(places[:, 2].amax() - start[2]) + 1.0
    x, y = ((places[:, :2] - start[:2]) / width).floor().to(torch.int64).unbind(1)
    keys, order = ((x * size[1] + y) * span + (places[:, 2] - start[2])).sort(stable=True)
    left = ((low - start) / width).floor().to(torch.int64)
    steps = torch.arange(int(((high - low)[:, :2] / width).amax()) + 2, device=places.device)
    step = torch.cartesian_prod(steps, steps)  # (C, 2)
    column = left[:, :2].unsqueeze(1) + step  # (B, C, 2)
    there = ((column >= 0) & (column < size[:2])).all(2)
    begin = ((column[..., 0] * size[1] + column[..., 1]) * span).to(keys.dtype)
    first = torch.searchsorted(keys, begin + (low[:, 2:] - start[2]).clamp(0, span - 0.5))
    last = torch.searchsorted(keys, begin + (high[:, 2:] - start[2]).clamp(0, span - 0.5), right=True)
    lengths = torch.where(there, (last - first).clamp(min=0), 0).flatten()
    flat = torch.arange(lengths.shape[0], device=places.device).repeat_interleave(lengths)
    within = torch.arange(flat.shape[0], device=places.device) - (lengths.cumsum(0) - lengths).index_select(0, flat)
    point = order.index_select(0, first.flatten().index_select(0, flat) + within)
    block = flat // step.shape[0]
    box = torch.stack([low + reach, high - reach]).index_select(1, block)
    chosen = places.index_select(0, point)
    outside = torch.maximum(box[0] - chosen, chosen - box[1]).clamp(min=0)
    near = (outside.square().sum(1) < reach * reach).nonzero().flatten()
    return block.index_select(0, near), point.index_select(0, near)
