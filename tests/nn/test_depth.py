"""The floor of energies: nothing changes in the data, nothing falls far below them, and all of it is smooth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adatom.elements import MAX_Z
from adatom.nn.depth import AHEAD, ROOM, Depth

LOWEST = {"O": [(-0.4, 0.2), (-1.0, 0.5)], "H": [(0.1, 0.3), (-0.2, 0.1)]}
BEGIN, BOTTOM = -1.0 - AHEAD * 0.5, -1.0 - (AHEAD + ROOM) * 0.5  # of oxygen in the second layer


def of_oxygen(energies: torch.Tensor, depth: Depth | None = None) -> torch.Tensor:
    return (depth or Depth(LOWEST, 2))(energies, torch.full(energies.shape, 8), 1)


def test_what_the_data_hold_is_left_alone_to_the_last_bit() -> None:
    depth = Depth(LOWEST, 2)
    energies = BEGIN + torch.rand(100, dtype=torch.float64)
    mixed = torch.cat([energies, torch.tensor([-50.0], dtype=torch.float64)])  # so that the rule is at work for all
    assert torch.equal(of_oxygen(mixed, depth)[:100], energies)
    assert of_oxygen(energies, depth) is energies
    assert torch.equal(depth(mixed, torch.full((101,), 14), 1), mixed), "an element that is not in the table"
    assert Depth(None, 2)(mixed, torch.full((101,), 8), 1) is mixed
    of_another_source = torch.full((101,), 8 + MAX_Z + 1)
    assert torch.equal(depth(mixed, of_another_source, 1), of_oxygen(mixed, depth))


def test_no_energy_falls_below_the_bottom_and_none_overtakes_another() -> None:
    energies = torch.linspace(-40.0, 2.0, 2000, dtype=torch.float64)
    held = of_oxygen(energies)
    assert float(held.min()) == pytest.approx(BOTTOM)
    assert bool((held.diff() >= 0).all())
    assert bool((held >= energies).all())
    first = Depth(LOWEST, 2)(torch.tensor([-9.0, -9.0]).double(), torch.tensor([8, 1]), 0)
    np.testing.assert_allclose(first, [-0.4 - 5 * 0.2, 0.1 - 5 * 0.3])


def test_three_derivatives_are_continuous() -> None:
    for border in (BEGIN, BEGIN - 2 * ROOM * 0.5):
        sides = []
        for e in (border - 1e-7, border + 1e-7):
            x = torch.tensor([e], dtype=torch.float64, requires_grad=True)
            value, orders = of_oxygen(x), []
            for _ in range(3):
                (value,) = torch.autograd.grad(value.sum(), x, create_graph=True)
                value = value + 0.0 * x
                orders.append(float(value.detach()))
            sides.append(orders)
        assert sides[0] == pytest.approx(sides[1], abs=1e-5)


def test_slopes_are_those_of_a_difference() -> None:
    x = torch.linspace(-6.0, 0.0, 40, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(of_oxygen, (x,))
    assert torch.autograd.gradgradcheck(of_oxygen, (x,))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_stays_none(bad: float) -> None:
    found = of_oxygen(torch.tensor([bad, -9.0], dtype=torch.float64))
    assert float(found[0]) == bad or (np.isnan(bad) and bool(found[0].isnan()))
    assert float(found[1]) == pytest.approx(BOTTOM, abs=1e-3)
