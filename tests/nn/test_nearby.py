"""Blocks of near atoms: every pair within reach once, the attention of all pairs, and no more work per atom in more."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from adatom.nn import nearby
from adatom.nn.attention import FadingAttention, Pairs, nearby_attention, node_attention
from adatom.nn.images import fading_sum, folded, images_within
from nn.test_images import CELLS, distances

ATOMS, REACH = 11, 5.0


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearby, "BLOCK", 3)
    monkeypatch.setattr(nearby, "TILE", 200)


def setting(name: str) -> tuple[Tensor, Tensor, Tensor]:
    cell, pbc = CELLS[name]
    positions = np.random.default_rng(0).uniform(-4, 6, size=(ATOMS, 3))
    return torch.from_numpy(positions), torch.from_numpy(cell).unsqueeze(0), torch.tensor([pbc])


def batch(*names: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Positions, cell, pbc, owner and table; of the second structure there are fewer atoms."""
    parts = [setting(name) for name in names]
    counts = [ATOMS - 4 * (k == 1) for k in range(len(parts))]
    owner = torch.arange(len(parts)).repeat_interleave(torch.tensor(counts))
    table = torch.full((len(parts), ATOMS), sum(counts))
    for k, count in enumerate(counts):
        table[k, :count] = torch.arange(count) + sum(counts[:k])
    positions = torch.cat([x[:count] for (x, _, _), count in zip(parts, counts, strict=True)])
    return positions, torch.cat([c for _, c, _ in parts]), torch.cat([p for _, _, p in parts]), owner, table


@pytest.mark.parametrize("name", CELLS)
def test_every_pair_within_reach_is_found_once(name: str) -> None:
    positions, cell, pbc = setting(name)
    positions = folded(positions, cell, torch.zeros(ATOMS, dtype=torch.int64))
    near = nearby.nearby(positions, cell, pbc, torch.arange(ATOMS).unsqueeze(0), REACH)
    found: set[tuple[int, ...]] = set()
    for tile, (here, there) in zip(near.tiles, nearby.ends(near), strict=True):
        r = (here.unsqueeze(2) - there.unsqueeze(1)).square().sum(3).sqrt()
        for g, a, b in (r < REACH).nonzero().tolist():
            atom = int(tile.atoms[g, a])
            if int(near.place[atom]) != _rank(near, tile, g, a):
                continue  # stands there to fill a block
            pair = (atom, int(tile.near[g, b]), *tile.counts[g, b].to(torch.int64).tolist())
            assert pair not in found
            found.add(pair)
    assert len(found) == (distances(positions, cell, pbc) < REACH).sum()


def _rank(near: nearby.Nearby, tile: nearby.Tile, g: int, a: int) -> int:
    before = 0
    for other in near.tiles:
        if other is tile:
            break
        before += other.atoms.numel()
    return before + g * tile.atoms.shape[1] + a


def slopes(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    value = function(*inputs)
    first = torch.autograd.grad(value.square().sum(), inputs, create_graph=True)
    second = torch.autograd.grad(sum(s.square().sum() for s in first), inputs)
    return [value, *first, *second]


@pytest.mark.parametrize("names", [*((name,) for name in CELLS), tuple(CELLS)])
def test_attention_to_near_atoms_is_attention_to_all_with_its_derivatives(names: tuple[str, ...]) -> None:
    positions, cell, pbc, owner, table = batch(*names)
    random = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, len(positions), 2, 3, generator=random, dtype=torch.float64)
    null = torch.randn(2, generator=random, dtype=torch.float64)

    def all_pairs(q: Tensor, k: Tensor, v: Tensor, null: Tensor, x: Tensor, cell: Tensor) -> Tensor:
        images = images_within(cell.detach(), pbc, REACH)

        def weights(here: Tensor, there: Tensor, present: Tensor, cell: Tensor) -> Tensor:
            return fading_sum(here, there, present, cell, images, REACH).unsqueeze(1)

        pairs = Pairs(weights, folded(x, cell, owner), (cell,))
        return node_attention(q, k, v, table, True, pairs, null, "plain")

    def near_pairs(q: Tensor, k: Tensor, v: Tensor, null: Tensor, x: Tensor, cell: Tensor) -> Tensor:
        return nearby_attention(q, k, v, nearby.nearby(folded(x, cell, owner), cell, pbc, table, REACH), null)

    inputs = tuple(t.requires_grad_() for t in (q, k, v, null, positions, cell))
    for expected, found in zip(slopes(all_pairs, inputs), slopes(near_pairs, inputs), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_attention_to_near_atoms_can_be_differentiated_twice() -> None:
    positions, cell, pbc = setting("crystal")
    q = torch.randn(ATOMS, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    table, owner = torch.arange(ATOMS).unsqueeze(0), torch.zeros(ATOMS, dtype=torch.int64)

    def attend(q: Tensor, x: Tensor, cell: Tensor) -> Tensor:
        near = nearby.nearby(folded(x, cell, owner), cell, pbc, table, REACH)
        return nearby_attention(q, q, q, near, q.new_zeros(1))[:3]

    inputs = tuple(t.requires_grad_() for t in (q, positions, cell))
    assert torch.autograd.gradcheck(attend, inputs)
    assert torch.autograd.gradgradcheck(attend, inputs)


def test_parts_that_are_very_far_apart_do_not_disturb_each_other() -> None:
    """Squares of such distances lose all digits of the near ones."""
    positions, cell, pbc = setting("molecule")
    far = positions + torch.tensor([3e5, 0.0, 0.0], dtype=torch.float64)
    torch.manual_seed(0)
    block, x = FadingAttention(8, 2, 30.0).double(), torch.randn(ATOMS, 8, dtype=torch.float64)

    def added(x: Tensor, places: Tensor) -> Tensor:
        table = torch.arange(len(places)).unsqueeze(0)
        found: Tensor = block(x, table, nearby.nearby(places, cell, pbc, table, REACH))
        return found

    both = added(torch.cat([x, x]), torch.cat([positions, far]))
    torch.testing.assert_close(both[:ATOMS], added(x, positions), rtol=0, atol=1e-5)
    lone = added(x[:2], torch.stack([positions[0], far[0]]))
    assert torch.equal(lone, torch.zeros_like(lone))


def test_more_atoms_are_no_more_work_per_atom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs looked at, in cells of one density."""
    monkeypatch.setattr(nearby, "BLOCK", 32)
    work = []
    for cells in (6, 12, 18):
        atoms, length = cells**3, 3.0 * cells
        positions = torch.rand(atoms, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * length
        cell = (torch.eye(3, dtype=torch.float64) * length).unsqueeze(0)
        table = torch.arange(atoms).unsqueeze(0)
        near = nearby.nearby(positions, cell, torch.ones(1, 3, dtype=torch.bool), table, 6.0)
        work.append(sum(tile.atoms.shape[1] * tile.near.numel() for tile in near.tiles) / atoms)
    assert max(work) < 1.4 * min(work)
    assert max(work) < 0.2 * atoms
