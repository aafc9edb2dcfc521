"""What a run must know of its training set before it begins: reference energies, scales, neighbours, closest pairs.

Of large sets a sample is enough: it is drawn the same way each time, and holds every element of the set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from adatom.data.dataset import Dataset
from adatom.data.doctor import Finding
from adatom.data.selection import LARGE, Selection
from adatom.data.structure import Structure
from adatom.elements import number, symbols
from adatom.models.base import Facts
from adatom.potential import Potential
from adatom.statistics import References, Scales, fit_references, scales
from adatom.train.closest import closest_pairs
from adatom.train.config import DataConfig

FEW = 2_000  # structures of a large set whose neighbours are counted
NO_MEANING = "Energies have no meaning beyond a constant for each composition"  # of a model that saw only forces


def representative(structures: Sequence[Structure], most: int = LARGE) -> Selection:
    """At most ``most`` structures drawn at random, and besides all free atoms and the first of every other element."""
    chosen = Selection.of(structures)
    if len(chosen) <= most:
        return chosen
    drawn = np.random.default_rng(0).choice(len(chosen), most, replace=False)
    some = np.union1d(drawn, np.flatnonzero(chosen.isolated))
    missing = set(chosen.elements) - set(chosen.select(some).elements)
    return chosen.select(np.union1d(some, [chosen.first_with(z) for z in sorted(missing)]))


def references_of(structures: Sequence[Structure], config: DataConfig) -> References:
    """Reference energy per element: given by hand, else of isolated atoms, else by least squares.

    Where no structure has an energy there is nothing to fit, and forces do not ask for it: zero then.
    """
    given = {number(name): energy for name, energy in config.references.items()}
    whole = Selection.of(structures)
    if not np.isfinite(whole.energies).any():
        zeros = dict.fromkeys(sorted(whole.elements), 0.0) | given
        return References(zeros, {z: "given" if z in given else "none" for z in zeros})
    some = representative(structures)
    numbers, energies = some.numbers(), some.energies
    free = np.flatnonzero(some.isolated & np.isfinite(energies))
    return fit_references(numbers, energies.tolist(), {int(numbers[k][0]): float(energies[k]) for k in free}, given)


def without_energies(references: Mapping[str, References]) -> list[Finding]:
    """What is to be said of sources of labels none of which is an energy."""
    blind = {
        name: symbols([z for z, source in own.source.items() if source == "none"]) for name, own in references.items()
    }
    return [
        Finding(
            "no energies",
            "warning",
            f"source {name}" if name else "training set",
            f"no structure has an energy: the references of {', '.join(elements)} are zero. {NO_MEANING}",
            "compare energies of structures of one composition only, or add energies",
        )
        for name, elements in blind.items()
        if elements
    ]


def scales_of(structures: Sequence[Structure], references: References) -> Scales:
    """Sizes of the labels."""
    some = representative(structures)
    taken = some.take(np.arange(len(some)))
    return scales(some.numbers(), taken.energy.tolist(), [taken.forces], [taken.stress], references)


def facts(dataset: Dataset) -> Facts:
    """What an architecture may want to know of the training set."""
    some = dataset.sample(FEW)
    charges, spins = (column[np.isfinite(column)] for column in (dataset.chosen.charges, dataset.chosen.spins))
    return Facts(
        tuple(dataset.elements),
        max(float(some.edges.sum() / max(some.atoms.sum(), 1)), 1.0),
        (float(charges.min()), float(charges.max())) if len(charges) else None,
        (float(spins.min()), float(spins.max())) if len(spins) else None,
        closest_pairs(dataset),
    )


def check_structures(potential: Potential, structures: Sequence[Structure], sources: int | np.ndarray = 0) -> None:
    """UnknownElementError or ChargeError names the first structure that a potential was not made for.

    ``sources`` are those of the labels, one for all or one of each.

    Structures that differ neither in elements nor in charge and multiplicity from others are as good as those: only
    the first of each kind is looked at.
    """
    whole = Selection.of(structures)
    of = np.broadcast_to(np.asarray(sources), (len(whole),))
    for source in np.unique(of):
        _check_kinds(potential, whole.select(np.flatnonzero(of == source)), int(source))


def _check_kinds(potential: Potential, chosen: Selection, source: int) -> None:
    given = np.nan_to_num(np.stack([chosen.charges, chosen.spins]), nan=1e300)
    first = np.unique(given, axis=1, return_index=True)[1]
    for k in sorted({*first.tolist(), *(chosen.first_with(z) for z in chosen.elements)}):
        structure = chosen[k]
        potential.check_atoms(structure.atoms, structure.name, source)
