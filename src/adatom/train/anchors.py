"""Anchors: pairs of atoms alone, of which most data say nothing, held to what is known of them.

A network that has seen crystals alone says anything of two atoms: wells of fifty eV that ripple. Anchors are dimers
from contact to the cutoff whose labels are those of the atoms apart and the repulsion of their cores: the network is
told to add nothing. Isolated pairs are then without bonds; data that hold such pairs teach them, and need no anchors.
"""

from __future__ import annotations

from itertools import combinations_with_replacement, islice

import ase
import numpy as np
import torch

from adatom.data.structure import Structure
from adatom.elements import symbol
from adatom.graph import collate
from adatom.neighbors import NEUTRAL, SINGLET, graph_from_atoms
from adatom.potential import Potential

PAIRS = 64  # of many elements, this many pairs
START = 0.8  # of the shortest distance in the data: nearer, a network with a floor sees no change
UNKNOWN = 1.0  # Å, where pairs begin that the data do not hold


def anchors(potential: Potential, count: int, energies: bool = True) -> list[Structure]:
    """``count`` dimers of each pair of elements, unevenly spaced, with energy and forces but for the network's part.

    Without ``energies`` only the forces are labelled, for data that have none themselves.
    """
    config, known = potential.network.config, potential.card.get("min_distance_A", {})
    state = {
        "total_charge": _within(NEUTRAL, config.charges) if potential.network.embeds_charge else None,
        "multiplicity": _within(SINGLET, config.spins) if potential.network.embeds_spin else None,
    }
    info = {key: value for key, value in state.items() if value is not None}
    random = np.random.default_rng(7)
    made: list[ase.Atoms] = []
    for a, b in islice(combinations_with_replacement(sorted(potential.elements), 2), PAIRS):
        names = symbol(a), symbol(b)
        shortest = known.get("-".join(names), known.get("-".join(reversed(names)), UNKNOWN / START))
        places = START * shortest + (potential.cutoff - START * shortest) * (np.arange(count) + random.random()) / count
        made += [ase.Atoms([a, b], [[0.0, 0.0, 0.0], [x, 0.0, 0.0]], info=info) for x in places]
    return _labelled(potential, made, energies)


def _labelled(potential: Potential, pairs: list[ase.Atoms], energies: bool) -> list[Structure]:
    """With references and priors as labels."""
    if not pairs:
        return []
    graph = collate([graph_from_atoms(atoms, potential.cutoff) for atoms in pairs]).to(potential.references.device)
    positions = graph.positions.detach().requires_grad_()
    with torch.enable_grad():
        moved = graph.replace(positions=positions)
        atomic = torch.stack([torch.zeros_like(positions[:, 0]), *(prior(moved) for prior in potential.priors)]).sum(0)
        (slopes,) = torch.autograd.grad(atomic.sum() + 0.0 * positions.sum(), positions)
    total = (atomic + potential.atomic_references(graph)).detach().view(-1, 2).sum(1).cpu().tolist()
    forces = -slopes.view(-1, 2, 3).cpu().numpy()
    return [
        Structure(atoms, e if energies else np.nan, f, np.full((3, 3), np.nan), f"anchor:{k}", "anchor")
        for k, (atoms, e, f) in enumerate(zip(pairs, total, forces, strict=True))
    ]


def _within(value: float, known: tuple[float, float] | None) -> float:
    return value if known is None else min(max(value, known[0]), known[1])
