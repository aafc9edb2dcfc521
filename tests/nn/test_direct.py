"""A head for forces and virials turns with its features, and is silent where they are zero."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adatom.nn.direct import DirectHead
from rotations import inverted, rotation, turned

ATOMS, CHANNELS_IN, CHANNELS = 5, 6, 4


def head(l_max: int) -> DirectHead:
    torch.manual_seed(0)
    made = DirectHead(l_max, CHANNELS_IN, CHANNELS).double()
    torch.nn.init.normal_(made.gates.bias)
    return made


def inputs(l_max: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(ATOMS, (l_max + 1) ** 2, CHANNELS_IN, generator=generator, dtype=torch.float64)
    return features, torch.randn(ATOMS, CHANNELS, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("l_max", [1, 2, 3])
def test_forces_are_vectors_and_virials_matrices(l_max: int) -> None:
    features, scalars = inputs(l_max)
    forces, virials = head(l_max)(features, scalars)
    assert (forces.shape, virials.shape) == ((ATOMS, 3), (ATOMS, 3, 3))
    matrix = rotation()
    turned_forces, turned_virials = head(l_max)(turned(features), scalars)
    torch.testing.assert_close(turned_forces, forces @ matrix.T, rtol=0, atol=1e-10)
    torch.testing.assert_close(turned_virials, matrix @ virials @ matrix.T, rtol=0, atol=1e-10)
    mirrored_forces, mirrored_virials = head(l_max)(inverted(features), scalars)
    torch.testing.assert_close(mirrored_forces, -forces, rtol=0, atol=1e-12)
    torch.testing.assert_close(mirrored_virials, virials, rtol=0, atol=1e-12)
    torch.testing.assert_close(virials, virials.transpose(1, 2), rtol=0, atol=1e-12)


def test_shear_needs_features_of_degree_two() -> None:
    off = ~torch.eye(3, dtype=torch.bool)
    for l_max, sheared in ((1, False), (2, True)):
        _, virials = head(l_max)(*inputs(l_max))
        assert bool((virials[:, off].abs() > 1e-6).any()) is sheared
        assert virials.diagonal(dim1=1, dim2=2).abs().min() > 1e-6


def test_an_atom_that_sees_nothing_feels_nothing() -> None:
    features, scalars = inputs(2)
    forces, virials = head(2)(torch.zeros_like(features), scalars)
    assert forces.abs().max() == virials.abs().max() == 0.0
