"""What an atom's neighbours look like from where it stands: envelope, radial functions, harmonics, slot by slot.

Neighbours are the last axis, so that sums over them are matrix products of whole rows and everything before them runs
along memory.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from adatom.nn.radial import bessel_rows, envelope
from adatom.nn.spherical import harmonics


class Surroundings(NamedTuple):
    """Geometry of one batch as every layer sees it; envelope and radial functions are zero in empty slots."""

    filled: Tensor  # (N, 1, M)  1 where a slot holds a neighbour
    fade: Tensor  # (N, 1, M)  envelope
    radial: Tensor  # (N, B, M)  enveloped Bessel functions
    harmonics: Tensor  # (N, L2, M)


class Geometry(nn.Module):
    """Surroundings from the vectors to the neighbours.

        fade = f(r),   radial_n = sqrt(r_c) f(r) b_n(r),   harmonics = Y_lm(r / |r|)

    with the envelope f and the Bessel functions b_n of ``nn.radial``; the factor makes the radial functions of order
    one at 1 Å, and less beyond. Beyond the cutoff both are exactly zero, with all derivatives that are used.

    Parameters
    ----------
    cutoff
        r_c, Å.
    l_max
        Degree of the harmonics.
    count
        Number of radial functions, B.
    """

    def __init__(self, cutoff: float, l_max: int, count: int) -> None:
        super().__init__()
        self.cutoff, self.l_max, self.count = cutoff, l_max, count

    def forward(self, vectors: Tensor, filled: Tensor) -> Surroundings:
        """From vectors (N, M, 3) in Å; what stands in empty slots does not matter."""
        x, y, z = vectors.unbind(2)  # (N, M)
        r = torch.where(filled.squeeze(1) > 0, x * x + y * y + z * z, 1.0).sqrt()
        inverse = 1 / r
        fade = envelope(r, self.cutoff).unsqueeze(1) * filled  # (N, 1, M)
        radial = bessel_rows(r, self.cutoff, self.count) * (self.cutoff**0.5 * fade)
        directions = torch.stack(harmonics(x * inverse, y * inverse, z * inverse, self.l_max), dim=1)
        return Surroundings(filled, fade, radial, directions)
