"""Forces and virials straight from features: a head where derivatives of the energy are too dear, or come later."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from adatom.nn.equivariant import SILU_GAIN, DegreeLinear, Linear
from adatom.nn.exact import Exact
from adatom.nn.spherical import coupling

MOST = 2  # degree of what forces and virials are made of


class DirectHead(nn.Module):
    """Force and virial of each atom from its features of degree 0, 1 and 2, gated by its scalars.

        z_l = W'_l [ SiLU(U_l s) * W_l x_l ],   F = z_1,   virial = z_0 1 + z_2 (a traceless symmetric matrix)

    Equivariant, and zero where x is zero: an atom without neighbours feels nothing. The force is no derivative of
    anything. Features of degree 0 only come from x too, so that a pressure also fades with the neighbours.

    Parameters
    ----------
    l_max
        Highest degree of the features, at least 1. Without degree 2 the virial is a pressure alone.
    channels_in
        Channels of the features.
    channels
        Channels of the scalars, and of what lies between.
    """

    def __init__(self, l_max: int, channels_in: int, channels: int) -> None:
        super().__init__()
        self.used, self.channels = min(l_max, MOST), channels
        self.size = (self.used + 1) ** 2
        self.mix = DegreeLinear(self.used, channels_in, channels)
        self.gates = Linear(channels, (self.used + 1) * channels, bias=True)
        self.out = DegreeLinear(self.used, channels, 1)
        # Y_2 components to a matrix; harmonics are ordered (y, z, x), Cartesian axes (x, y, z)
        self.traceless = Exact(coupling(1, 1, 2)[[2, 0, 1]][:, [2, 0, 1]].reshape(9, 5).T)  # (5, 9)

    def forward(self, features: Tensor, scalars: Tensor) -> tuple[Tensor, Tensor]:
        """Forces (N, 3) and virials (N, 3, 3) from features (N, L2, C_in) and scalars (N, C)."""
        gates = SILU_GAIN * silu(self.gates(scalars)).view(-1, self.used + 1, self.channels)
        mixed = self.mix(features[:, : self.size]) * gates.index_select(1, self.mix.degree)
        z = self.out(mixed).flatten(1)  # (N, L2)
        forces = torch.cat([z[:, 3:4], z[:, 1:3]], dim=1)
        virials = z[:, 0].view(-1, 1, 1) * torch.eye(3, dtype=z.dtype, device=z.device)
        if self.used == 2:
            virials = virials + (z[:, 4:9] @ self.traceless(z.dtype)).view(-1, 3, 3)
        return forces, virials


class DirectHeads(nn.ModuleList):
    """One ``DirectHead`` per layer of a network; what they say is added up."""

    def __init__(self, layers: int, l_max: int, channels_in: int, channels: int) -> None:
        super().__init__(DirectHead(l_max, channels_in, channels) for _ in range(layers))

    def forward(self, seen: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Forces (N, 3) and virials (N, 3, 3) from features (N, L2, C_in) and scalars (N, C) of every layer."""
        said = [head(features, scalars) for head, (features, scalars) in zip(self, seen, strict=True)]
        forces, virials = (torch.stack(parts).sum(0) for parts in zip(*said, strict=True))
        return forces, virials
