"""Splits keep every structure once, and no test structure is trained on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import ase
import numpy as np
import pytest
from ase.build import bulk, fcc111, molecule

from adatom.data.fingerprint import copies
from adatom.data.read import Structure, read
from adatom.data.split import Split, check_leaks, split
from adatom.errors import DataError, LeakError

SILICON = Path(__file__).parents[2] / "data" / "si_pbe_gpaw"


@pytest.fixture(scope="module")
def silicon() -> tuple[list[Structure], list[Structure]]:
    return read(SILICON / "train.xyz.xz")[0], read(SILICON / "test.xyz.xz")[0]


def bare(atoms: ase.Atoms, name: str = "a.xyz:0", energy: float = 0.0) -> Structure:
    return Structure(atoms, energy, np.zeros((len(atoms), 3)), np.full((3, 3), np.nan), name)


def changed(structure: Structure, atoms: ase.Atoms) -> Structure:
    return dataclasses.replace(structure, atoms=atoms, name=f"copy of {structure.name}")


def test_a_random_split_holds_every_structure_once(silicon: tuple[list[Structure], list[Structure]]) -> None:
    structures = silicon[0]
    train, valid, test = split(structures, Split(valid=0.1, test=20))
    assert (len(train), len(valid), len(test)) == (263 - 26 - 20, 26, 20)
    assert sorted(s.name for s in [*train, *valid, *test]) == sorted(s.name for s in structures)


def test_the_seed_decides_the_split(silicon: tuple[list[Structure], list[Structure]]) -> None:
    one, again, other = (split(silicon[0], Split(seed=seed))[1] for seed in (1, 1, 2))
    assert [s.name for s in one] == [s.name for s in again]
    assert [s.name for s in one] != [s.name for s in other]


def test_a_group_split_keeps_groups_whole(silicon: tuple[list[Structure], list[Structure]]) -> None:
    parts = split(silicon[0], Split(method="group", valid=0.1, test=0.1, group="config_type"))
    types = [{s.config_type for s in part} for part in parts]
    assert all(types)
    assert not (types[0] & types[1] | types[0] & types[2] | types[1] & types[2])
    assert sum(map(len, parts)) == 263


def test_a_missing_group_field_offers_the_nearest(silicon: tuple[list[Structure], list[Structure]]) -> None:
    with pytest.raises(DataError, match=r"no field 'frames'[\s\S]*did you mean 'frame'"):
        split(silicon[0], Split(method="group", group="frames"))


def test_free_atoms_stay_in_training() -> None:
    structures = [bare(ase.Atoms("Si"), "a:0"), *(bare(bulk("Si", a=5.4 + 0.01 * k), f"a:{k + 1}") for k in range(9))]
    train, valid, test = split(structures, Split(valid=4, test=4))
    assert "a:0" in [s.name for s in train]
    assert (len(train), len(valid), len(test)) == (2, 4, 4)


@pytest.mark.parametrize("values", [{"valid": 1.0}, {"valid": -0.1}, {"valid": 1.5}, {"test": -3}])
def test_a_share_that_is_none_is_an_error(values: dict[str, float]) -> None:
    with pytest.raises(DataError, match="is no share of the data"):
        split([bare(bulk("Si"))] * 5, Split(**values))  # type: ignore[arg-type]


def test_a_split_that_leaves_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(DataError, match="leaves nothing to train on"):
        split([bare(bulk("Si"))] * 5, Split(valid=3, test=2))
    with pytest.raises(DataError, match="nothing to split"):
        split([])


def test_the_shipped_test_set_does_not_leak(silicon: tuple[list[Structure], list[Structure]]) -> None:
    check_leaks(*silicon)


def test_a_test_structure_in_training_is_named(silicon: tuple[list[Structure], list[Structure]]) -> None:
    train, test = silicon
    with pytest.raises(LeakError, match=r"1 of 57 test[\s\S]*train\.xyz\.xz:7 = train\.xyz\.xz:7"):
        check_leaks(train, [*test, train[7]])


@pytest.mark.parametrize("change", ["noise", "wrapped", "lattice", "shifted", "permuted", "rotated", "all"])
def test_a_disguised_copy_is_found_and_nothing_else(
    silicon: tuple[list[Structure], list[Structure]], change: str
) -> None:
    train = silicon[0]
    random = np.random.default_rng(3)
    disguised = []
    for structure in train:
        atoms = structure.atoms.copy()
        if change in ("noise", "all"):
            atoms.positions += random.uniform(-1e-6, 1e-6, atoms.positions.shape)
        if change in ("lattice", "all"):
            atoms.positions += random.integers(-2, 3, atoms.positions.shape) @ np.asarray(atoms.cell)
        if change in ("shifted", "all"):
            atoms.positions += random.normal(size=3)
        if change in ("wrapped", "all"):
            atoms.wrap()
        if change in ("permuted", "all"):
            atoms = atoms[random.permutation(len(atoms))]
        if change in ("rotated", "all"):
            atoms.rotate(random.uniform(0, 180), random.normal(size=3), rotate_cell=True)
        disguised.append(changed(structure, atoms))
    assert copies(train, disguised) == [(k, k) for k in range(len(train))]
    with pytest.raises(LeakError, match="263 of 263"):
        check_leaks(train, disguised)


def test_molecules_and_slabs_in_disguise_are_found() -> None:
    random = np.random.default_rng(4)
    slab = fcc111("Cu", (2, 2, 3), vacuum=None, periodic=False)
    slab.pbc = (True, True, False)
    systems = [molecule("CH3CH2OH"), molecule("H2O"), slab]
    for atoms in systems:
        copy = atoms[random.permutation(len(atoms))]
        copy.positions += random.normal(size=3) + random.uniform(-1e-6, 1e-6, copy.positions.shape)
        copy.wrap()
        if not copy.pbc.any():
            copy.rotate(40, (1, 2, 3))
        moved = atoms.copy()
        moved.positions[0] += (0.02, 0.01, 0.0)
        train = [bare(a, f"t:{k}") for k, a in enumerate(systems)]
        with pytest.raises(LeakError, match="1 of 2"):
            check_leaks(train, [bare(copy), bare(moved)])
        check_leaks(train, [bare(moved)])


def test_neighbours_are_no_copies() -> None:
    train = [bare(bulk("Si", a=5.43), "t:0"), bare(bulk("NaCl", "rocksalt", a=5.64), "t:1")]
    swapped = bulk("NaCl", "rocksalt", a=5.64)
    swapped.numbers[:] = swapped.numbers[::-1]
    strained = bulk("Si", a=5.4303)
    charged = bulk("Si", a=5.43)
    charged.info["total_charge"] = 1.0
    check_leaks(train, [bare(strained), bare(charged)])
    with pytest.raises(LeakError):  # rocksalt with exchanged elements is rocksalt, shifted
        check_leaks(train, [bare(swapped)])


def test_dimers_far_apart_are_told_apart_and_free_atoms_are_no_leak() -> None:
    train = [bare(ase.Atoms("Ar2", [(0, 0, 0), (0, 0, d)]), f"t:{d}") for d in (8.0, 9.0, 10.0)]
    check_leaks(
        [*train, bare(ase.Atoms("Ar"))], [bare(ase.Atoms("Ar2", [(0, 0, 0), (0, 0, 9.5)])), bare(ase.Atoms("Ar"))]
    )
    with pytest.raises(LeakError, match=r"t:9\.0"):
        check_leaks(train, [bare(ase.Atoms("Ar2", [(0, 9.0, 0), (0, 0, 0)]))])


def test_a_rigid_part_far_from_the_rest_is_seen_to_move() -> None:
    box = {"cell": (30.0, 30.0, 30.0), "pbc": True}
    near = ase.Atoms("N2Ar", [(0, 0, 0), (0, 0, 1.1), (0, 0, 12.0)], **box)
    far = ase.Atoms("N2Ar", [(0, 0, 0), (0, 0, 1.1), (0, 0, 12.1)], **box)
    check_leaks([bare(near)], [bare(far)])


def test_copies_stay_together_so_that_a_random_split_leaks_nothing(
    silicon: tuple[list[Structure], list[Structure]],
) -> None:
    structures = silicon[0][:60]
    random = np.random.default_rng(0)
    for k in random.integers(0, 60, 40):  # some twice and more often, wrapped and shifted
        atoms = structures[k].atoms.copy()
        atoms.positions += random.normal(size=3)
        atoms.wrap()
        structures = [*structures, changed(structures[k], atoms)]
    for seed in range(5):
        train, valid, test = split(structures, Split(valid=0.2, test=0.2, seed=seed))
        assert len(train) + len(valid) + len(test) == 100
        assert len(test) >= 20
        assert check_leaks([*train, *valid], test) == []
        assert check_leaks(train, valid) == []
