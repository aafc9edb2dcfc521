"""Radial functions: cutoff envelope and Bessel basis."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def envelope(r: Tensor, cutoff: float, power: int = 6) -> Tensor:
    """Smooth switch from 1 at r = 0 to 0 at the cutoff, zero beyond; value, slope and curvature vanish there.

    f(x) = 1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2),  x = r / cutoff
    (Gasteiger, Gross, Günnemann, ICLR 2020).
    """
    x = (r / cutoff).clamp(max=1.0)
    p = power
    return 1 - x**p * ((p + 1) * (p + 2) / 2 - p * (p + 2) * x + p * (p + 1) / 2 * x * x)


def bessel(r: Tensor, cutoff: float, count: int) -> Tensor:
    """b_n(r) = sqrt(2/r_c) sin(n pi r / r_c) / r for n = 1 .. count, orthonormal on [0, r_c] with weight r^2.

    (...) -> (..., count).
    """
    n = torch.arange(1, count + 1, dtype=r.dtype, device=r.device)
    return math.sqrt(2 / cutoff) * torch.sin(r.unsqueeze(-1) * (n * (math.pi / cutoff))) / r.unsqueeze(-1)


def bessel_rows(r: Tensor, cutoff: float, count: int) -> Tensor:
    """The same functions before the last axis: (N, M) -> (N, count, M)."""
    n = torch.arange(1, count + 1, dtype=r.dtype, device=r.device).view(-1, 1)
    return torch.sin(r.unsqueeze(1) * (n * (math.pi / cutoff))) * (math.sqrt(2 / cutoff) / r).unsqueeze(1)
