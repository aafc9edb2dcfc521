"""Blocks of a pre-norm transformer with one learnable gain per residual: (..., C) -> (..., C)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu


class MultiHead(nn.Module):
    """Norm, projections and gain of a multi-head attention; the attention itself stands in ``nn.attention``."""

    def __init__(self, width: int, heads: int, gain: float) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.RMSNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.gain = nn.Parameter(torch.tensor(gain))

    def projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (..., H, D) of (..., C)."""
        x = self.norm(x)
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)) for layer in (self.q, self.k, self.v))
        return q, k, v

    def joined(self, seen: Tensor) -> Tensor:
        """What is added to the features: (..., H, D) -> (..., C)."""
        mixed: Tensor = self.gain * self.out(seen.flatten(-2))
        return mixed


class FeedForward(nn.Module):
    """x + gain W' GELU(W RMSNorm(x)), twice as wide inside."""

    def __init__(self, width: int, gain: float) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.RMSNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, x: Tensor) -> Tensor:
        """Add to the features."""
        added: Tensor = x + self.gain * self.down(gelu(self.up(self.norm(x))))
        return added


class NormHead(nn.Module):
    """W' GELU(W RMSNorm(x)), twice as wide inside: (..., C) -> (..., outputs)."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.RMSNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, outputs)
        for layer in (self.up, self.down):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Read out."""
        output: Tensor = self.down(gelu(self.up(self.norm(x))))
        return output
