"""The floor of energies: no atom falls far below the lowest energy that any of its kind had in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from adatom.elements import MAX_Z, number

ROOM = 4.0  # in spreads: how far below what was seen energies may sink, gently
AHEAD = 1.0  # in spreads below the lowest: there it begins, so that what was not quite seen is left alone

Lowest = Mapping[str, Sequence[tuple[float, float]]]  # {"O": [(lowest, spread), ...]}, a pair for each layer


class Depth(nn.Module):
    """Energies e of atoms from a layer, held where they fall below the lowest of their element in training, e_min.

        e' = e                                          e >= a = e_min - spread
        e' = a - D + 2 D t^4 (5/2 - 3 t + t^2)          t = 1 - (a - e) / 2 D between 0 and 1,   D = 4 spread
        e' = a - D                                      e <= a - 2 D

    with the spread = mean - e_min of the training set. e'(e) has three continuous derivatives. A network may say
    anything of surroundings it was never shown, thirty eV too deep among it, and no repulsion of two cores balances
    that: atoms fall in there and the rest is heated by it. Here each layer is wrong by a bounded energy at most, and
    forces end where it would be wrong by more. In the data nothing changes to the last bit, so it is measured when
    training has ended (``adatom.train.lowest``).

    Parameters
    ----------
    lowest
        e_min and spread for each element and layer, in the units of the network; None: nothing is held.
    layers
        Number of layers with an energy.
    """

    def __init__(self, lowest: Lowest | None, layers: int) -> None:
        super().__init__()
        self.active = bool(lowest)
        begin = torch.full((layers, MAX_Z + 1), -torch.inf, dtype=torch.float64)
        depth = torch.ones_like(begin)
        for name, of_layers in (lowest or {}).items():
            for layer, (least, spread) in enumerate(of_layers):
                begin[layer, number(name)] = least - AHEAD * spread
                depth[layer, number(name)] = ROOM * spread
        self.register_buffer("begin", begin, persistent=False)
        self.register_buffer("depth", depth, persistent=False)

    begin: Tensor  # (T, 119)
    depth: Tensor  # (T, 119)

    def forward(self, energy: Tensor, species: Tensor, layer: int = 0) -> Tensor:
        """Energies (n,) of a layer as they count; ``species`` are rows (n,) in tables of elements, of any source."""
        if not self.active:
            return energy
        z = species % (MAX_Z + 1)
        begin = self.begin[layer].index_select(0, z).to(energy.dtype)
        # one that is no number stays so
        low = (energy.detach() < begin) & energy.detach().isfinite()
        if not torch.compiler.is_compiling() and energy.device.type == "cpu" and not bool(low.any()):
            return energy  # the usual case
        depth = self.depth[layer].index_select(0, z).to(energy.dtype)
        under = torch.where(low, begin - energy, 0.0)
        t = (1 - under / (2 * depth)).clamp(0.0, 1.0)
        held = torch.where(low, begin, 0.0) - depth + 2 * depth * t**4 * (2.5 - 3 * t + t * t)
        return torch.where(low, held, energy)
