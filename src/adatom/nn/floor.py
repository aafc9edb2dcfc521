"""The floor of distances: a network never sees two atoms nearer than its training data did."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from adatom.elements import MAX_Z, number

WIDTH = 0.2  # of the shortest distance: how gently what is seen comes to rest
TINY = 1e-12  # Å^2: empty slots may hold no way at all


class Floor(nn.Module):
    """Vectors r to neighbours, stretched to the length rho(r) where a pair is nearer than in the data (distance d).

        rho = r                                                  r >= d
        rho = d (1 - w/2) + w d t^4 (5/2 - 3 t + t^2)            t = (r - (1 - w) d) / (w d) between 0 and 1
        rho = d (1 - w/2)                                        r <= (1 - w) d,   w = 0.2

    rho has three continuous derivatives. Beyond the data a network says anything, holes of a hundred eV among it; what
    it sees here ends at 0.9 d, so that nearer its energy no longer changes and what is left is the repulsion of cores
    (``adatom.priors.zbl``). In the data, and wherever a pair is not known, nothing changes to the last bit.

    Parameters
    ----------
    closest
        Shortest distance of each pair of elements in the training data, Å, as in ``{"H-O": 0.9}``; None: no floor.
    """

    def __init__(self, closest: Mapping[str, float] | None) -> None:
        super().__init__()
        self.active = bool(closest)
        self.register_buffer("shortest", pair_table(closest or {}).flatten(), persistent=False)

    shortest: Tensor  # (119 * 119,)  Å, 0 where nothing is known

    def forward(self, vectors: Tensor, own: Tensor, others: Tensor, filled: Tensor | None = None) -> Tensor:
        """What is seen of vectors (..., 3).

        Parameters
        ----------
        own, others
            Atomic numbers (...) of both ends.
        filled
            Which vectors count (...), positive there; None: all.
        """
        if not self.active:
            return vectors
        d = self.shortest.index_select(0, (own * (MAX_Z + 1) + others).flatten()).view(others.shape).to(vectors.dtype)
        square = vectors.square().sum(-1)
        near = square.detach() < d * d
        if filled is not None:
            near = near & (filled > 0)
        if not torch.compiler.is_compiling() and not bool(near.any()):
            return vectors  # the usual case
        r = square.clamp(min=TINY).sqrt()
        d = torch.where(near, d, 1.0)
        t = ((r / d - (1 - WIDTH)) / WIDTH).clamp(0.0, 1.0)
        seen = d * (1 - WIDTH / 2 + WIDTH * t**4 * (2.5 - 3 * t + t * t))
        return vectors * torch.where(near, seen / r, 1.0).unsqueeze(-1)


def pair_table(distances: Mapping[str, float]) -> Tensor:
    """Distances by pair, such as ``{"H-O": 0.9}``, as a symmetric table (119, 119) of atomic numbers; 0 elsewhere."""
    table = torch.zeros(MAX_Z + 1, MAX_Z + 1, dtype=torch.float64)
    for pair, distance in distances.items():
        a, b = (number(name) for name in pair.split("-"))
        table[a, b] = table[b, a] = distance
    return table
