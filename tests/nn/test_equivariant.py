"""Operators on features commute with rotations and inversion; zero stays zero where that is promised."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from adatom.nn.equivariant import DegreeLinear, Gate, Linear, Readout, add_degrees, bounded
from rotations import inverted, turned

ATOMS, CHANNELS = 7, 6


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def features(l_max: int, seed: int = 0, channels: int = CHANNELS) -> Tensor:
    """Random features (N, L2, C) in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(ATOMS, (l_max + 1) ** 2, channels, generator=generator, dtype=torch.float64)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


both = pytest.mark.parametrize("move", [turned, inverted])


@both
@pytest.mark.parametrize("l_max", [0, 1, 2, 3])
def test_linear_maps_of_each_degree_commute(l_max: int, move: Callable[[Tensor], Tensor]) -> None:
    layer, x = DegreeLinear(l_max, CHANNELS, 5).double(), features(l_max)
    assert layer(x).shape == (ATOMS, (l_max + 1) ** 2, 5)
    close(layer(move(x)), move(layer(x)))


@both
@pytest.mark.parametrize("l_max", [0, 1, 2, 3])
def test_gates_commute(l_max: int, move: Callable[[Tensor], Tensor]) -> None:
    layer, x = Gate(l_max, CHANNELS).double(), features(l_max)
    assert layer(x).shape == x.shape
    close(layer(move(x)), move(layer(x)))


def test_a_gate_of_zero_is_zero() -> None:
    layer = Gate(2, CHANNELS).double()
    torch.nn.init.normal_(layer.gate.bias)
    assert torch.equal(layer(torch.zeros(3, 9, CHANNELS, dtype=torch.float64)), torch.zeros(3, 9, CHANNELS).double())


def test_a_gate_lets_scalars_decide_over_higher_degrees() -> None:
    layer, x = Gate(2, CHANNELS).double(), features(2)
    other = x.clone()
    other[:, 0] += 1.0
    assert not torch.allclose(layer(other)[:, 1:], layer(x)[:, 1:])
    ratio = layer(x)[:, 1:4] / x[:, 1:4]  # one factor per degree and channel
    close(ratio, ratio[:, :1].expand_as(ratio))


def test_outputs_of_random_maps_have_the_size_of_their_inputs() -> None:
    """Unit variance in, about unit variance out: signals neither die nor grow with the width."""
    torch.manual_seed(1)
    wide = torch.randn(200, 9, 64, dtype=torch.float64)
    assert 0.5 < DegreeLinear(2, 64, 64).double()(wide).detach().std().item() < 2.0
    assert 0.5 < Linear(64, 64).double()(wide).detach().std().item() < 2.0


def test_operators_can_be_differentiated_twice() -> None:
    x = features(2, channels=2)[:2].requires_grad_()
    for function in (Gate(2, 2).double(), bounded):
        assert torch.autograd.gradcheck(function, (x,))
        assert torch.autograd.gradgradcheck(function, (x,))


@both
def test_bounding_commutes_keeps_small_features_and_holds_large_ones(move: Callable[[Tensor], Tensor]) -> None:
    x = features(2)
    close(bounded(move(x)), move(bounded(x)))
    torch.testing.assert_close(bounded(1e-6 * x), 1e-6 * x, rtol=1e-11, atol=0)
    size = bounded(1e6 * x).square().mean((1, 2))
    torch.testing.assert_close(size, torch.ones_like(size), rtol=1e-11, atol=0)
    assert bounded(torch.zeros_like(x)).abs().max() == 0


def test_features_of_different_degree_add_where_both_are() -> None:
    low, high = features(1, 1), features(2, 2)
    total = add_degrees(low, high)
    assert torch.equal(total, add_degrees(high, low))
    close(total[:, :4], low + high[:, :4])
    assert torch.equal(total[:, 4:], high[:, 4:])
    assert torch.equal(add_degrees(low, low), 2 * low)


def test_a_readout_is_a_number_for_each_atom() -> None:
    assert Readout(CHANNELS, 8).double()(features(0)[:, 0]).shape == (ATOMS,)
