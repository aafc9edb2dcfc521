"""The envelope fades smoothly, and the Bessel functions are orthonormal."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adatom.nn.radial import bessel, envelope

CUTOFF = 4.7


def derivatives(r: float, order: int, power: int = 6) -> list[float]:
    """Value and derivatives of the envelope at one distance."""
    x = torch.tensor(r, dtype=torch.float64, requires_grad=True)
    values = [envelope(x, CUTOFF, power)]
    for _ in range(order):
        values.append(torch.autograd.grad(values[-1], x, create_graph=True)[0])
    return [v.item() for v in values]


@pytest.mark.parametrize("power", [4, 6])
def test_value_slope_and_curvature_vanish_at_the_cutoff(power: int) -> None:
    for value in derivatives(CUTOFF * (1 - 1e-9), 2, power):
        assert abs(value) < 1e-6


def test_at_contact_the_envelope_is_one_and_flat() -> None:
    assert derivatives(0.0, 2) == [1.0, 0.0, 0.0]


def test_beyond_the_cutoff_there_is_nothing() -> None:
    for r in (CUTOFF, CUTOFF + 1e-6, 2 * CUTOFF):
        assert derivatives(r, 2)[0] == pytest.approx(0.0, abs=1e-14)
        assert derivatives(r + 1e-9, 2)[1:] == [0.0, 0.0]


def test_the_envelope_falls_from_one_to_zero() -> None:
    values = envelope(torch.linspace(0, CUTOFF, 200, dtype=torch.float64), CUTOFF)
    assert (values.diff() <= 1e-15).all()
    assert values[0] == 1
    assert abs(float(values[-1])) < 1e-14


def test_bessel_functions_are_orthonormal_with_weight_r_squared() -> None:
    nodes, weights = np.polynomial.legendre.leggauss(80)
    r = torch.from_numpy(0.5 * CUTOFF * (nodes + 1))
    b = bessel(r, CUTOFF, 8)
    overlap = torch.einsum("r,ra,rb->ab", torch.from_numpy(0.5 * CUTOFF * weights) * r**2, b, b)
    torch.testing.assert_close(overlap, torch.eye(8, dtype=torch.float64), rtol=0, atol=1e-12)


def test_bessel_functions_vanish_at_the_cutoff_and_keep_shape_and_dtype() -> None:
    r = torch.full((3, 2), CUTOFF)
    b = bessel(r, CUTOFF, 5)
    assert b.shape == (3, 2, 5)
    assert b.dtype == torch.float32
    assert bessel(torch.tensor(CUTOFF, dtype=torch.float64), CUTOFF, 5).abs().max() < 1e-14
