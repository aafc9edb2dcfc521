"""Sums over neighbours of what they send, radial functions and harmonics: the edge work of local networks.

Shapes: N atoms, M neighbours (padded), K senders, B radial functions, L2 harmonics.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adatom.nn import kernels

if kernels.PRESENT:
    from adatom.nn.kernels import moments as fused

# what the compiler must not look into before it differentiates, as in ``nn.slots``
DIFFERENTIATED = (fused.moments,) if kernels.PRESENT else ()


def moments(sent: Tensor, radial: Tensor, harmonics: Tensor) -> Tensor:
    """out_lkb = sum_m sent_km radial_bm harmonics_lm: (N, K, M), (N, B, M), (N, L2, M) -> (N, L2, K B).

    In float32 on a card a kernel that keeps the products out of memory; ``plain`` elsewhere. Float64 is what float32 is
    compared with before it is used compiled: it goes the plain way.
    """
    if kernels.PRESENT and sent.is_cuda and sent.dtype == torch.float32:
        found: Tensor = fused.moments(sent, radial, harmonics)
        return found
    return plain(sent, radial, harmonics)


def plain(sent: Tensor, radial: Tensor, harmonics: Tensor) -> Tensor:
    """The same in PyTorch: one product of matrices per atom."""
    spread = (sent.unsqueeze(2) * radial.unsqueeze(1)).flatten(1, 2)  # (N, K B, M)
    return torch.bmm(harmonics, spread.transpose(1, 2))
