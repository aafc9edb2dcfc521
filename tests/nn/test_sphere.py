"""Products on the sphere: rules that integrate exactly, products that are couplings and commute with rotations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from adatom.nn.sphere import OCTAHEDRAL, SphereProduct, quadrature
from adatom.nn.spherical import coupling, reference_harmonics
from rotations import inverted, turned

CHANNELS, WIDTH, ATOMS = 5, 3, 4


def features(l_max: int, seed: int = 0) -> Tensor:
    return torch.randn(ATOMS, (l_max + 1) ** 2, CHANNELS, generator=torch.Generator().manual_seed(seed)).double()


def product(l_max: int, l_out: int, order: int) -> SphereProduct:
    torch.manual_seed(3)
    return SphereProduct(l_max, l_out, CHANNELS, WIDTH, order).double()


@pytest.mark.parametrize("degree", range(1, 17))
def test_a_rule_integrates_products_of_harmonics_up_to_its_degree_exactly(degree: int) -> None:
    points, weights = quadrature(degree)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1.0, atol=1e-15)
    assert weights.sum() == pytest.approx(1.0, abs=1e-14)
    average = weights @ reference_harmonics(points, degree)
    np.testing.assert_allclose(average, [1.0] + [0.0] * (average.size - 1), atol=1e-13)


@pytest.mark.parametrize("degree", OCTAHEDRAL)
def test_an_octahedral_rule_is_not_exact_one_even_degree_further(degree: int) -> None:
    points, weights = quadrature(degree)
    beyond = weights @ reference_harmonics(points, degree + 1)
    assert np.abs(beyond[(degree + 1) ** 2 :]).max() > 1e-3


@pytest.mark.parametrize(("degree", "points"), [(3, 6), (5, 14), (7, 26), (9, 38), (11, 50)])
def test_octahedral_rules_have_as_few_points_as_published(degree: int, points: int) -> None:
    assert len(quadrature(degree)[0]) == points


@pytest.mark.parametrize("move", [turned, inverted])
@pytest.mark.parametrize(
    ("l_max", "l_out", "order"), [(1, 0, 2), (2, 1, 3), (3, 1, 3), (3, 3, 2), (4, 2, 3), (2, 2, 4)]
)
def test_products_commute(l_max: int, l_out: int, order: int, move: Callable[[Tensor], Tensor]) -> None:
    layer, x = product(l_max, l_out, order), features(l_max)
    wanted = move(layer(x))
    torch.testing.assert_close(layer(move(x)), wanted, rtol=0, atol=1e-12 * float(wanted.detach().abs().max()))


def test_the_product_of_two_fields_is_the_sum_of_all_parity_even_couplings() -> None:
    l_max, l_out = 2, 3
    layer, x = product(l_max, l_out, 2), features(l_max)
    first, second = layer.mix(x).split(WIDTH, dim=2)
    wanted = torch.zeros(ATOMS, (l_out + 1) ** 2, WIDTH, dtype=torch.float64)
    for l1 in range(l_max + 1):
        for l2 in range(l_max + 1):
            for l3 in range(abs(l1 - l2), min(l1 + l2, l_out) + 1):
                if (l1 + l2 + l3) % 2:
                    continue
                # the integral of Y_l1 Y_l2 Y_l3 is the coupling times this reduced element (Gaunt)
                tensor = coupling(l1, l2, l3)
                points, weights = quadrature(l1 + l2 + l3)
                y = reference_harmonics(points, 3)
                a, b, c = (y[:, d**2 : (d + 1) ** 2] for d in (l1, l2, l3))
                gaunt = np.einsum("p,pa,pb,pc->abc", weights, a, b, c)
                size = (gaunt * tensor).sum() / (tensor**2).sum()
                np.testing.assert_allclose(gaunt, size * tensor, atol=1e-13)
                part = torch.einsum(
                    "nac,nbc,abm->nmc",
                    first[:, l1**2 : (l1 + 1) ** 2],
                    second[:, l2**2 : (l2 + 1) ** 2],
                    torch.from_numpy(size * tensor),
                )
                wanted[:, l3**2 : (l3 + 1) ** 2] += part
    factor = (2 * l_max + 1) / (l_max + 1) ** 2
    torch.testing.assert_close(layer(x), factor * wanted, rtol=0, atol=1e-12)


def test_orders_stand_side_by_side_and_zero_stays_zero() -> None:
    layer, x = product(2, 1, 4), features(2)
    assert layer(x).shape == (ATOMS, 4, 3 * WIDTH)
    assert layer(torch.zeros_like(x)).abs().max() == 0
    doubled = layer(2 * x) / layer(x)
    for k, power in enumerate((4.0, 8.0, 16.0)):
        torch.testing.assert_close(
            doubled[:, :, k * WIDTH : (k + 1) * WIDTH], torch.full((ATOMS, 4, WIDTH), power).double()
        )


def test_fields_of_unit_features_have_unit_variance() -> None:
    torch.manual_seed(0)
    layer = SphereProduct(3, 1, 64, 64)
    mixed = layer.mix(torch.randn(500, 16, 64)).transpose(0, 1)
    fields = layer.spread(torch.float32) @ mixed.reshape(16, -1)
    assert 0.9 < float(fields.detach().std()) < 1.1


def test_a_product_has_first_and_second_derivatives() -> None:
    layer = product(2, 1, 3)
    x = features(2)[:2].requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,))
    assert torch.autograd.gradgradcheck(layer, (x,))


def test_constants_stay_exact_after_a_cast() -> None:
    layer = SphereProduct(3, 1, CHANNELS, WIDTH).float().double()
    points, _ = quadrature(10)
    wanted = torch.from_numpy(reference_harmonics(points, 3) / 4)
    torch.testing.assert_close(layer.spread(torch.float64), wanted, rtol=0, atol=1e-15)
