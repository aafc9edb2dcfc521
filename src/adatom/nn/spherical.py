"""Real spherical harmonics and the couplings between them, for any degree.

Harmonics are component normalised, sum_m Y_lm(n)^2 = 2l + 1, ordered m = -l .. l, so that Y_1 = sqrt(3) (y, z, x).
A set of harmonics up to l_max is one axis of length L2 = (l_max + 1)^2, degree after degree.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from adatom.nn.exact import Exact


def degrees(l_max: int) -> list[int]:
    """Degree of each of the L2 components: [0, 1, 1, 1, 2, ...]."""
    return [degree for degree in range(l_max + 1) for _ in range(2 * degree + 1)]


def reference_harmonics(directions: np.ndarray, l_max: int) -> np.ndarray:
    """Real harmonics of unit vectors (n, 3) in float64, (n, L2): the definition that everything here is built from.

    Y_lm = N_lm d^|m|P_l(z)/dz^|m| * {Re (x+iy)^m for m >= 0, Im (x+iy)^|m| for m < 0},
    N_lm^2 = (2l+1) (2 - delta_m0) (l-|m|)! / (l+|m|)!.
    """
    x, y, z = directions.T
    rows = []
    for degree in range(l_max + 1):
        legendre = np.polynomial.legendre.Legendre.basis(degree)
        for m in range(-degree, degree + 1):
            k = abs(m)
            squared = (2 * degree + 1) * (1 if m == 0 else 2) * math.factorial(degree - k) / math.factorial(degree + k)
            azimuthal = (x + 1j * y) ** k
            slope = legendre.deriv(k)(z) if k else legendre(z)
            rows.append(math.sqrt(squared) * slope * (azimuthal.imag if m < 0 else azimuthal.real))
    return np.stack(rows, axis=1)


@cache
def coupling(l1: int, l2: int, l3: int) -> np.ndarray:
    """Coupling tensor (2 l1 + 1, 2 l2 + 1, 2 l3 + 1) of the parity-even path l1 x l2 -> l3 (l1 + l2 + l3 even).

    Proportional to the integral of Y_l1 Y_l2 Y_l3 over the sphere, done exactly by quadrature, and normalised so that
    the squares sum to 2 l3 + 1: two inputs of unit variance give an output of unit variance.
    """
    order = (l1 + l2 + l3) // 2 + 1
    heights, weights = np.polynomial.legendre.leggauss(order)
    angles = 2 * np.pi * np.arange(2 * order) / (2 * order)
    rings = np.sqrt(1 - heights**2)
    points = np.stack(
        [np.outer(rings, np.cos(angles)), np.outer(rings, np.sin(angles)), np.outer(heights, np.ones_like(angles))], -1
    ).reshape(-1, 3)
    y = reference_harmonics(points, max(l1, l2, l3))
    a, b, c = (y[:, degree**2 : (degree + 1) ** 2] for degree in (l1, l2, l3))
    integral = np.einsum("p,pa,pb,pc->abc", np.repeat(weights, 2 * order), a, b, c)
    integral[np.abs(integral) < 1e-12 * np.abs(integral).max()] = 0.0
    return np.asarray(integral * math.sqrt((2 * l3 + 1) / (integral**2).sum()))


def coupling_paths(l_max: int, l_out: int) -> list[tuple[int, int, int]]:
    """Parity-even paths (l1, l2, l3) with l1, l2 <= l_max and l3 <= l_out, sorted by l3."""
    return [
        (l1, l2, l3)
        for l3 in range(l_out + 1)
        for l1 in range(l_max + 1)
        for l2 in range(l_max + 1)
        if abs(l1 - l2) <= l3 <= l1 + l2 and (l1 + l2 + l3) % 2 == 0
    ]


def harmonics(x: Tensor, y: Tensor, z: Tensor, l_max: int) -> list[Tensor]:
    """Harmonics of unit vectors given by their components, one tensor of the same shape each, L2 of them.

    Re and Im of (x + iy)^m by their recursion, the m-th derivatives of Legendre polynomials in z by theirs, as in
    ``reference_harmonics``. Products and sums along memory only: made for the compiler.
    """
    cosines, sines = [torch.ones_like(x)], [torch.zeros_like(x)]
    for _ in range(l_max):
        c, s = cosines[-1], sines[-1]
        cosines.append(x * c - y * s)
        sines.append(y * c + x * s)
    slopes: dict[tuple[int, int], Tensor | float] = {}  # d^m P_l / dz^m
    for m in range(l_max + 1):
        slopes[m, m] = float(math.prod(range(1, 2 * m, 2)))
        for degree in range(m + 1, l_max + 1):
            before = slopes[degree - 2, m] if degree - 2 >= m else 0.0
            slopes[degree, m] = (2 * degree - 1) / (degree - m) * z * slopes[degree - 1, m] - (degree + m - 1) / (
                degree - m
            ) * before
    found = []
    for degree in range(l_max + 1):
        for m in range(-degree, degree + 1):
            factor = slopes[degree, abs(m)] * _size(degree, abs(m))
            found.append(factor * (sines[-m] if m < 0 else cosines[m]))
    return found


def _size(degree: int, m: int) -> float:
    """N_lm of ``reference_harmonics``."""
    squared = (2 * degree + 1) * (1 if m == 0 else 2) * math.factorial(degree - m) / math.factorial(degree + m)
    return math.sqrt(squared)


class SphericalHarmonics(nn.Module):
    """Y_lm of unit vectors (..., 3) -> (..., L2), by recursion.

    Y_l is the coupling of Y_1 with Y_(l-1), one matrix product each.
    """

    def __init__(self, l_max: int) -> None:
        super().__init__()
        self.l_max = l_max
        self.steps = nn.ModuleList()
        probe = np.array([[0.36, 0.48, 0.8]])
        y = reference_harmonics(probe, l_max)[0]
        for degree in range(2, l_max + 1):
            step = coupling(1, degree - 1, degree)
            raw = np.einsum("a,b,abc->c", y[1:4], y[(degree - 1) ** 2 : degree**2], step)
            size = math.sqrt((2 * degree + 1) / (raw @ raw))
            self.steps.append(Exact(size * step.reshape(-1, 2 * degree + 1)))

    def forward(self, unit: Tensor) -> Tensor:
        """Harmonics of unit vectors; derivatives of any order."""
        parts = [torch.ones_like(unit[..., :1])]
        if self.l_max > 0:
            first = math.sqrt(3.0) * torch.stack([unit[..., 1], unit[..., 2], unit[..., 0]], dim=-1)
            parts.append(first)
            for step in self.steps:
                product = (first.unsqueeze(-1) * parts[-1].unsqueeze(-2)).flatten(-2)
                parts.append(product @ step(unit.dtype))
        return torch.cat(parts, dim=-1)
