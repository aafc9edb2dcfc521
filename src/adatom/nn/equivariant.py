"""Operators on features of several degrees, laid out (N, L2, C): atoms, harmonics, channels.

All of them commute with rotations and inversion: channels mix within a degree, and only scalars (the first harmonic)
pass through nonlinearities. Degrees mix on the sphere (`nn/sphere.py`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from adatom.nn.spherical import degrees


class Linear(nn.Module):
    """y = gain x W / sqrt(C_in) + b with weights of unit variance.

    The factor stands outside the weights, here and in all operators below: one learning rate then moves every weight by
    the same fraction of its size, whatever the width.
    """

    def __init__(self, channels_in: int, channels_out: int, bias: bool = False, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels_in, channels_out))
        self.bias = nn.Parameter(torch.zeros(channels_out)) if bias else None
        self.scale = gain / math.sqrt(channels_in)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the last axis."""
        y = x @ (self.weight * self.scale)
        return y if self.bias is None else y + self.bias


class DegreeLinear(nn.Module):
    """y_lm = gain x_lm W_l / sqrt(C_in): (N, L2, C_in) -> (N, L2, C_out); no bias, weights of unit variance."""

    def __init__(self, l_max: int, channels_in: int, channels_out: int, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(l_max + 1, channels_in, channels_out))
        self.scale = gain / math.sqrt(channels_in)
        self.register_buffer("degree", torch.tensor(degrees(l_max)), persistent=False)

    degree: Tensor  # (L2,)

    def forward(self, x: Tensor) -> Tensor:
        """Mix channels."""
        weight = (self.weight * self.scale).index_select(0, self.degree)  # (L2, C_in, C_out)
        return torch.bmm(x.transpose(0, 1), weight).transpose(0, 1)


class Readout(nn.Module):
    """Energy from scalars, one hidden layer: (N, C) -> (N,)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.hidden, self.out = Linear(channels, width, bias=True), Linear(width, 1)

    def forward(self, scalars: Tensor) -> Tensor:
        """W silu(W' x + b)."""
        energy: Tensor = self.out(silu(self.hidden(scalars)))
        return energy.flatten()


def add_degrees(x: Tensor, y: Tensor) -> Tensor:
    """Sum of features of different highest degree, (N, L2, C) and (N, L2', C); the missing degrees are zero."""
    if x.shape[1] == y.shape[1]:
        return x + y
    small, large = sorted((x, y), key=lambda t: t.shape[1])
    shared = small.shape[1]
    return torch.cat([large[:, :shared] + small, large[:, shared:]], dim=1)


def bounded(x: Tensor) -> Tensor:
    """x / sqrt(1 + <x^2>) with the mean over harmonics and channels of an atom, (N, L2, C): small features stay.

    Large ones are brought to size one: powers of them cannot overflow. The one under the root keeps what fades fading.
    """
    return x * torch.rsqrt(1 + x.square().mean((1, 2), keepdim=True))


class Gate(nn.Module):
    """SiLU on scalars, a sigmoid of the scalars times every higher degree: (N, L2, C) -> (N, L2, C).

    Zero stays zero.
    """

    def __init__(self, l_max: int, channels: int) -> None:
        super().__init__()
        self.l_max, self.channels = l_max, channels
        self.gate = Linear(channels, l_max * channels, bias=True) if l_max else None
        self.register_buffer("degree", torch.tensor(degrees(l_max)[1:], dtype=torch.int64) - 1, persistent=False)

    degree: Tensor  # (L2 - 1,)

    def forward(self, x: Tensor) -> Tensor:
        """Gate the features."""
        scalars = x[:, 0]
        activated = (SILU_GAIN * silu(scalars)).unsqueeze(1)
        if self.gate is None:
            return activated
        gates = torch.sigmoid(self.gate(scalars)).view(-1, self.l_max, self.channels).index_select(1, self.degree)
        return torch.cat([activated, x[:, 1:] * gates], dim=1)


SILU_GAIN = 1.679  # 1 / rms of SiLU of a unit normal
