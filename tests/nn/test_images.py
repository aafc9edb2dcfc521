"""Pairs over periodic images: against sums over all of them, and the same for every description of a crystal."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from adatom.nn.images import fading_sum, folded, images_within, nearest_distance, sinc

CELLS = {
    "crystal": (np.array([[4.1, 0.2, 0.0], [0.5, 3.8, 0.3], [-0.2, 0.1, 5.0]]), [True, True, True]),
    "thin": (np.array([[2.4, 0.0, 0.0], [1.1, 2.1, 0.0], [0.3, -0.6, 2.2]]), [True, True, True]),
    "slab": (np.array([[3.9, 0.4, 0.0], [0.0, 4.2, 0.0], [0.0, 0.0, 0.0]]), [True, True, False]),
    "wire": (np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.2, 0.1, 3.0]]), [False, False, True]),
    "molecule": (np.zeros((3, 3)), [False, False, False]),
}
REACH = 7.0


def setting(name: str) -> tuple[Tensor, Tensor, Tensor]:
    cell, pbc = CELLS[name]
    positions = np.random.default_rng(0).uniform(-2, 4, size=(4, 3))
    return torch.from_numpy(positions), torch.from_numpy(cell).unsqueeze(0), torch.tensor([pbc])


def distances(positions: Tensor, cell: Tensor, pbc: Tensor, most: int = 9) -> np.ndarray:
    """Distances over far more images than needed, (N, N, images)."""
    ranges = [range(-most, most + 1) if periodic else range(1) for periodic in pbc[0].tolist()]
    shifts = np.array(list(itertools.product(*ranges))) @ cell[0].numpy()
    x = positions.numpy()
    return np.linalg.norm(x[None, :, None] + shifts - x[:, None, None], axis=-1)


def found(positions: Tensor, cell: Tensor, pbc: Tensor) -> Tensor:
    images = images_within(cell, pbc, REACH)
    places = folded(positions, cell, torch.zeros(len(positions), dtype=torch.int64)).unsqueeze(0)
    return fading_sum(places, places, torch.ones(1, len(positions)), cell, images, REACH)[0]


@pytest.mark.parametrize("name", CELLS)
def test_weights_are_summed_over_all_images_within_reach(name: str) -> None:
    positions, cell, pbc = setting(name)
    r = distances(positions, cell, pbc)
    weights = np.where((r < REACH) & (r > 1e-9), (1 - (r / REACH) ** 2) ** 3, 0.0).sum(-1)
    np.testing.assert_allclose(found(positions, cell, pbc).numpy(), weights, rtol=0, atol=1e-12)
    assert weights.max() > 0.05


@pytest.mark.parametrize("name", CELLS)
def test_the_nearest_image_is_found(name: str) -> None:
    positions, cell, pbc = setting(name)
    places = folded(positions, cell, torch.zeros(4, dtype=torch.int64)).unsqueeze(0)
    images = images_within(cell, pbc, REACH)
    nearest = nearest_distance(places, places, cell, images)[0]
    np.testing.assert_allclose(nearest.numpy(), distances(positions, cell, pbc).min(-1), rtol=0, atol=1e-12)


def test_atoms_are_folded_along_periodic_directions_only() -> None:
    positions, cell, pbc = setting("slab")
    places = folded(positions, cell, torch.zeros(4, dtype=torch.int64))
    fractions = (places @ torch.linalg.pinv(cell[0]))[:, :2]
    assert fractions.min() >= -1e-12
    assert fractions.max() < 1 + 1e-12
    torch.testing.assert_close(places[:, 2], positions[:, 2])
    assert pbc.tolist() == [[True, True, False]]


def test_structures_of_a_batch_keep_their_own_images_and_padding_counts_for_nothing() -> None:
    settings = [setting(name) for name in CELLS]
    cell, pbc = torch.cat([c for _, c, _ in settings]), torch.cat([p for _, _, p in settings])
    owner = torch.arange(len(CELLS)).repeat_interleave(4)
    images = images_within(cell, pbc, REACH)
    places = folded(torch.cat([x for x, _, _ in settings]), cell, owner).view(len(CELLS), 4, 3)
    present = torch.ones(len(CELLS), 4)
    present[1, 3] = 0
    together = fading_sum(places, places, present, cell, images, REACH)
    for k, (own, name) in enumerate(zip(settings, CELLS, strict=True)):
        alone = found(*own)
        expected = torch.cat([alone[:, :3], torch.zeros(4, 1)], 1) if name == "thin" else alone
        torch.testing.assert_close(together[k], expected, rtol=0, atol=1e-12)


def test_weights_follow_positions_and_cell() -> None:
    positions, cell, pbc = setting("crystal")
    images, owner = images_within(cell, pbc, REACH), torch.zeros(4, dtype=torch.int64)

    def total(x: Tensor, c: Tensor) -> Tensor:
        places = folded(x, c, owner).unsqueeze(0)
        return fading_sum(places, places, torch.ones(1, 4), c, images, REACH)

    inputs = (positions.requires_grad_(), cell.requires_grad_())
    assert torch.autograd.gradcheck(total, inputs)
    assert torch.autograd.gradgradcheck(total, inputs)


def test_sinc_is_smooth_at_zero() -> None:
    x = torch.tensor([0.0, 1e-9, 1e-5, 1e-4, 2e-4, 0.3, 7.0], dtype=torch.float64, requires_grad=True)
    value = sinc(x)
    np.testing.assert_allclose(value.detach().numpy(), np.sinc(x.detach().numpy() / np.pi), rtol=0, atol=1e-15)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), x)
    assert second.isfinite().all()
    np.testing.assert_allclose(second[:5].numpy(), -1 / 3, rtol=0, atol=1e-6)
