"""Operators on features commute with rotations and inversion; zero stays zero where that is promised."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from adatom.nn.equivariant import Coupling, DegreeLinear, Gate, Linear
from adatom.nn.spherical import coupling_paths
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
@pytest.mark.parametrize(("l_max", "l_out"), [(1, 1), (2, 2), (2, 0), (3, 3), (3, 1)])
def test_couplings_commute(l_max: int, l_out: int, move: Callable[[Tensor], Tensor]) -> None:
    layer = Coupling(l_max, l_out, CHANNELS).double()
    x, y = features(l_max, 1), features(l_max, 2)
    assert layer(x, y).shape == (ATOMS, (l_out + 1) ** 2, CHANNELS)
    close(layer(move(x), move(y)), move(layer(x, y)))


@both
@pytest.mark.parametrize("l_max", [0, 1, 2, 3])
def test_gates_commute(l_max: int, move: Callable[[Tensor], Tensor]) -> None:
    layer, x = Gate(l_max, CHANNELS).double(), features(l_max)
    assert layer(x).shape == x.shape
    close(layer(move(x)), move(layer(x)))


def test_a_coupling_that_was_cast_to_single_precision_and_back_is_still_exact() -> None:
    """As in verification: a float32 network is checked in float64."""
    layer = Coupling(2, 2, CHANNELS).float().double()
    x, y = features(2, 1), features(2, 2)
    assert layer.float()(x.float(), y.float()).dtype == torch.float32
    layer = layer.double()
    close(layer(turned(x), turned(y)), turned(layer(x, y)))
    assert set(layer.state_dict()) == {"weight"}


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


def test_a_coupling_is_linear_in_each_of_its_inputs() -> None:
    layer = Coupling(2, 2, CHANNELS).double()
    x, y, z = (features(2, seed) for seed in (1, 2, 3))
    close(layer(2.5 * x - y, z), 2.5 * layer(x, z) - layer(y, z))
    close(layer(z, 2.5 * x - y), 2.5 * layer(z, x) - layer(z, y))


def test_a_coupling_works_channel_by_channel() -> None:
    layer = Coupling(2, 2, CHANNELS).double()
    x, y = features(2, 1), features(2, 2)
    before = layer(x, y)
    x[:, :, 3] = 0.0
    after = layer(x, y)
    assert torch.equal(after[:, :, 3], torch.zeros_like(after[:, :, 3]))
    others = [0, 1, 2, 4, 5]
    close(after[:, :, others], before[:, :, others])


def test_two_degrees_couple_along_eleven_paths_each_with_its_own_weight() -> None:
    """Switching on one path after the other gives as many independent maps as there are paths."""
    layer = Coupling(2, 2, 1).double()
    x, y = features(2, 1, channels=1), features(2, 2, channels=1)
    assert layer.weight.shape == (1, len(coupling_paths(2, 2))) == (1, 11)
    maps = []
    for path in range(11):
        with torch.no_grad():
            layer.weight.zero_()
            layer.weight[0, path] = 1.0
        maps.append(layer(x, y).flatten())
    assert torch.linalg.matrix_rank(torch.stack(maps)) == 11


def test_each_path_of_a_coupling_treats_its_inputs_alike() -> None:
    """C(l1, l2, l3) and C(l2, l1, l3) are transposes: with equal weights the inputs can be exchanged."""
    layer = Coupling(2, 2, 3).double()
    torch.nn.init.ones_(layer.weight)
    x, y = features(2, 1, channels=3), features(2, 2, channels=3)
    close(layer(x, y), layer(y, x))


def test_outputs_of_random_maps_have_the_size_of_their_inputs() -> None:
    """Unit variance in, about unit variance out: signals neither die nor grow with the width."""
    torch.manual_seed(1)
    wide = torch.randn(200, 9, 64, dtype=torch.float64)
    for layer in (DegreeLinear(2, 64, 64).double(), lambda x: Coupling(2, 2, 64).double()(x, x.flip(0))):
        assert 0.5 < layer(wide).detach().std().item() < 2.0
    assert 0.5 < Linear(64, 64).double()(wide).detach().std().item() < 2.0


def test_operators_can_be_differentiated_twice() -> None:
    gate, pair = Gate(2, 2).double(), Coupling(2, 1, 2).double()
    x = features(2, channels=2)[:2].requires_grad_()
    for function in (gate, lambda x: pair(x, x)):
        assert torch.autograd.gradcheck(function, (x,))
        assert torch.autograd.gradgradcheck(function, (x,))
