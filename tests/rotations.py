"""One rotation as e3nn turns features by it, and as vectors are turned by it."""

from __future__ import annotations

from functools import cache

import torch
from e3nn import o3
from torch import Tensor

from adatom.nn.spherical import degrees

ANGLES = (0.7, 1.1, -2.3)


@cache
def wigner(degree: int) -> Tensor:
    """Rotation of the components of one degree, (2l + 1, 2l + 1) in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # e3nn makes its generators in the default dtype
    try:
        return o3.wigner_D(degree, *map(torch.tensor, ANGLES))
    finally:
        torch.set_default_dtype(before)


def rotation() -> Tensor:
    """The same rotation of vectors (x, y, z), which e3nn calls (y, z, x)."""
    ours = [2, 0, 1]
    return o3.angles_to_matrix(*(torch.tensor(angle, dtype=torch.float64) for angle in ANGLES))[ours][:, ours]


def turned(x: Tensor) -> Tensor:
    """Features (N, L2, C) of the rotated structure."""
    l_max = round(x.shape[1] ** 0.5) - 1
    return torch.einsum("lk,nkc->nlc", torch.block_diag(*map(wigner, range(l_max + 1))), x)


def inverted(x: Tensor) -> Tensor:
    """Features (N, L2, C) of the inverted structure."""
    signs = [(-1.0) ** degree for degree in degrees(round(x.shape[1] ** 0.5) - 1)]
    return x * torch.tensor(signs, dtype=x.dtype).view(1, -1, 1)
