"""How low the energies of atoms are in the training data, by element and layer: where the floor of energies lies."""

from __future__ import annotations

import torch
from torch import Tensor

from adatom.data.dataset import Budget, Dataset, batches
from adatom.data.selection import LARGE
from adatom.elements import MAX_Z, symbol
from adatom.models.grow import with_lowest
from adatom.nn.depth import Depth
from adatom.potential import Potential

LEAST = 0.1  # eV: a spread is no smaller, for a set of a few equal atoms says nothing of how far others may be

Table = dict[str, tuple[tuple[float, float], ...]]


@torch.no_grad()
def lowest_energies(potential: Potential, dataset: Dataset, budget: Budget) -> Table | None:
    """Lowest energy of each element and layer, and its distance from the mean, in the units of the network.

    None where the network has no place for it: forms as published, direct heads.
    """
    depth = next((part for part in potential.network.modules() if isinstance(part, Depth)), None)
    if depth is None or potential.derivatives == "direct":
        return None
    shape = depth.begin.shape
    least, total, count = torch.full(shape, torch.inf), torch.zeros(shape), torch.zeros(shape)
    least, total, count = (t.to(torch.float64) for t in (least, total, count))

    def note(_: object, given: tuple[Tensor, Tensor, int]) -> None:
        energy, z = given[0].cpu().double(), given[1].cpu() % (MAX_Z + 1)
        layer = given[2] if len(given) > 2 else 0
        least[layer].scatter_reduce_(0, z, energy, "amin")
        total[layer].index_add_(0, z, energy)
        count[layer].index_add_(0, z, torch.ones_like(energy))

    some, was_training = dataset.sample(LARGE), potential.training
    potential.eval()
    hook = depth.register_forward_pre_hook(note)
    try:
        for indices in batches(some, budget, seed=0, epoch=0, shuffle=False):
            potential.network(some.batch(indices)[0].to(potential.references.device))
    finally:
        hook.remove()
        potential.train(was_training)
    spread = (total / count - least).clamp(min=LEAST / float(potential.scale))
    return {
        symbol(z): tuple((float(least[k, z]), float(spread[k, z])) for k in range(shape[0]))
        for z in count[0].nonzero().flatten().tolist()
    }


def deepened(potential: Potential, dataset: Dataset, budget: Budget, before: Table | None) -> Potential:
    """The potential with a floor of energies, measured on its training set; elements of ``before`` alone keep theirs.

    In the data it says what it said, to the last bit.
    """
    found = lowest_energies(potential, dataset, budget)
    if found is None:
        return potential
    known = {name: tuple((low, spread) for low, spread in layers) for name, layers in (before or {}).items()}
    table = known | found
    grown = potential.remade(with_lowest(potential.network, table), potential.all_references())
    grown.runner = potential.runner
    return grown
