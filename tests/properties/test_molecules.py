from __future__ import annotations

import ase
import numpy as np
import pytest
from ase.build import bulk, molecule

from adatom.errors import DataError
from adatom.properties.molecules import integrity, kinds, molecules


def box(*parts: ase.Atoms, side: float = 12.0) -> ase.Atoms:
    rng = np.random.default_rng(0)
    atoms = ase.Atoms(cell=np.eye(3) * side, pbc=True)
    for number, part in enumerate(parts):
        one = part.copy()
        one.rotate(float(rng.uniform(0, 360)), rng.normal(size=3))
        one.translate(np.array([number % 3, number // 3 % 3, number // 9]) * 4.0 - one.positions.mean(axis=0))
        atoms += one
    return atoms


def test_molecules_are_found_across_the_boundaries_and_made_whole() -> None:
    water = molecule("H2O")
    atoms = box(*[water] * 9)
    atoms.wrap()  # several lie across a face now
    found = molecules(atoms)
    assert kinds(found) == ["H2O"]
    assert len(found.members) == 9
    for number in range(9):
        one = found.one(atoms, number)
        assert not one.pbc.any()
        assert sorted(one.get_all_distances()[np.triu_indices(3, 1)]) == pytest.approx(
            sorted(water.get_all_distances()[np.triu_indices(3, 1)])
        )


def test_an_order_of_atoms_that_mixes_molecules_does_not_matter() -> None:
    atoms = box(*[molecule("CH3OH")] * 5)
    shuffled = atoms[np.random.default_rng(1).permutation(len(atoms))]
    found = molecules(shuffled)
    assert found.formulas == ("CH4O",) * 5
    assert sorted(np.concatenate(found.members).tolist()) == list(range(len(atoms)))


def test_several_kinds_are_told_apart_the_most_frequent_first() -> None:
    atoms = box(molecule("H2O"), molecule("CH4"), molecule("CH4"), ase.Atoms("Ar"))
    assert kinds(molecules(atoms))[0] == "CH4"
    assert set(kinds(molecules(atoms))) == {"CH4", "H2O", "Ar"}


def test_a_crystal_is_a_network_without_molecules() -> None:
    with pytest.raises(DataError, match="network"):
        molecules(bulk("Si", cubic=True))


def test_torn_molecules_are_counted_and_those_that_mend_too() -> None:
    start = box(*[molecule("H2O")] * 4)
    start.wrap()
    found = molecules(start)
    torn = start.copy()
    oxygen, hydrogen = found.members[2][0], found.members[2][1]
    way = found.positions[hydrogen] - found.positions[oxygen]
    torn.positions[hydrogen] += 0.9 * way
    more = torn.copy()
    other = found.members[0]
    more.positions[other[1]] += 0.9 * (found.positions[other[1]] - found.positions[other[0]])
    seen = integrity([start, torn, more, torn], found)
    assert (seen.torn_at_most, seen.torn_at_end, seen.torn_ever, seen.frames) == (2, 1, 2, 4)
    assert not seen.whole
    assert integrity([start], found).whole
    with pytest.raises(DataError, match="no frames"):
        integrity([], found)
