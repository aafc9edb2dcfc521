"""The whole examination: near-duplicates, neighbours, samples, tables that JSON takes, and published sets."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import time
from pathlib import Path

import ase
import numpy as np
import pytest
from ase.build import bulk, molecule
from scipy.spatial.transform import Rotation

from adatom.data.doctor import consistency, examine
from adatom.data.doctor.examine import choose
from adatom.data.doctor.files import examine_files
from adatom.data.doctor.nearby import NEAR, near_duplicates
from adatom.data.doctor.surroundings import half_pairs, polarity
from adatom.data.read import Structure, read
from adatom.neighbors import neighbor_list

SILICON = Path(__file__).parents[2] / "data" / "si_pbe_gpaw"
ALL = os.environ.get("ADATOM_DATA")


def unlabelled(atoms: ase.Atoms, name: str = "a:0") -> Structure:
    return Structure(atoms, np.nan, np.full((len(atoms), 3), np.nan), np.full((3, 3), np.nan), name)


def crowd(kind: str, count: int, seed: int = 0) -> list[Structure]:
    """Structures far from each other."""
    random = np.random.default_rng(seed)
    made = []
    for k in range(count):
        if kind == "molecule":
            atoms = molecule("CH3CH2OH")
        else:
            atoms = bulk("Cu", cubic=True).repeat(2)
            atoms.pbc = (True, True, kind == "crystal")
        atoms.positions += 0.2 * random.normal(size=atoms.positions.shape)
        made.append(unlabelled(atoms, f"a:{k}"))
    return made


@pytest.mark.parametrize("kind", ["molecule", "crystal", "slab"])
@pytest.mark.parametrize(("size", "found"), [(0.9 * NEAR, True), (1.3 * NEAR, False)])
def test_near_duplicates_are_found_up_to_their_distance_however_moved(kind: str, size: float, found: bool) -> None:
    random = np.random.default_rng(1)
    structures = crowd(kind, 40)
    moved = structures[7].atoms.copy()
    step = random.normal(size=moved.positions.shape)
    step -= step.mean(axis=0)
    moved.positions += size * step / np.linalg.norm(step, axis=1).max()
    if kind == "molecule":
        moved.positions = moved.positions @ Rotation.random(random_state=4).as_matrix()
    moved.positions += random.normal(size=3) * (1.0 if kind != "slab" else (1.0, 1.0, 0.0))
    if kind != "molecule":
        moved.wrap()
    structures.append(unlabelled(moved, "a:40"))
    partner = near_duplicates(structures)
    expected = {7: 40, 40: 7} if found else {}
    # turning a molecule back can only lessen the distance of the step that was made
    assert partner == expected or (kind == "molecule" and not found and set(partner) <= {7, 40})


def test_near_duplicates_across_sets_leave_those_within_a_set_alone() -> None:
    structures = crowd("crystal", 10)
    twins = [unlabelled(s.atoms.copy(), f"b:{k}") for k, s in enumerate(structures[:3])]
    for s in twins:
        s.atoms.positions[0, 0] += 0.01
    partner = near_duplicates([*structures, *twins, twins[0]], [0] * 10 + [1, 1, 1, 1])
    assert partner == {0: 10, 1: 11, 2: 12, 10: 0, 11: 1, 12: 2, 13: 0}


def test_strained_cells_are_near_when_the_strain_is_small() -> None:
    start = crowd("crystal", 1)[0]
    for strain, near in ((0.005, True), (0.02, False)):
        atoms = start.atoms.copy()
        atoms.set_cell(atoms.cell * (1.0 + strain), scale_atoms=True)
        assert bool(near_duplicates([start, unlabelled(atoms)])) == near


@pytest.mark.parametrize("pbc", [(True, True, True), (True, True, False), (False, False, False)])
def test_half_pairs_are_half_of_the_neighbours(pbc: tuple[bool, bool, bool]) -> None:
    atoms = crowd("crystal", 1)[0].atoms
    atoms.pbc = pbc
    i, j, d = half_pairs(atoms, 4.5)
    edges, _ = neighbor_list(atoms.positions, np.asarray(atoms.cell), np.asarray(atoms.pbc), 4.5)
    counts = np.bincount(i, minlength=len(atoms)) + np.bincount(j, minlength=len(atoms))
    assert (counts == np.bincount(edges[0], minlength=len(atoms))).all()
    assert d.max() < 4.5


def test_atoms_of_a_perfect_crystal_have_no_polarity_and_rattled_ones_do() -> None:
    perfect = bulk("Si", cubic=True)
    assert polarity(perfect).max() < 1e-12
    perfect.rattle(0.05)
    assert polarity(perfect).min() > 1e-3


def test_the_neighbours_of_copper_are_counted_per_shell() -> None:
    atoms = bulk("Cu", cubic=True, a=3.6)
    table = examine({"train": [unlabelled(atoms)]}, cutoffs=(2.0, 3.0, 4.0)).tables["parts"]["train"]["neighbours"]
    assert [(row["mean"], row["min"], row["max"]) for row in table] == [(0, 0, 0), (12, 12, 12), (18, 18, 18)]
    assert table[0]["lonely_atoms"] == 4


def test_a_sample_is_made_of_blocks_is_always_the_same_and_said() -> None:
    numbers: list[Structure] = [unlabelled(bulk("Cu"), f"a:{k}") for k in range(5000)]
    chosen = choose(numbers, 1000)
    names = [int(s.name[2:]) for s in chosen]
    assert len(names) == 1000
    assert names == [int(s.name[2:]) for s in choose(numbers, 1000)]
    assert (names[0], names[-1]) == (0, 4999)
    assert sum(b - a == 1 for a, b in itertools.pairwise(names)) >= 980
    assert choose(numbers, 5000) is numbers
    silicon = read(SILICON / "train.xyz.xz")[0]
    sampled = {f.kind: f for f in examine({"train": silicon}, sample=200).findings}
    assert "200 of 263 structures" in sampled["sample"].message


def test_an_examination_is_plain_json_with_a_remedy_for_every_finding() -> None:
    files = {"train": [SILICON / "train.xyz.xz"], "test": [SILICON / "test.xyz.xz"]}
    record = examine_files(files).to_dict()
    again = json.loads(json.dumps(record, allow_nan=False))
    assert again["verdict"] == "clean"
    assert all(f["remedy"] and f["where"] and f["message"] for f in again["findings"])
    assert again["parts"]["train"]["elements"][0]["element"] == "Si"
    assert again["files"][1]["labelled"] == {"energy": 56, "forces": 56, "stress": 56}


def test_the_same_data_give_the_same_examination() -> None:
    files = {"train": [SILICON / "train.xyz.xz"]}
    assert examine_files(files).to_dict() == examine_files(files).to_dict()


def test_nothing_at_all_is_an_examination_too() -> None:
    assert examine({"train": []}).findings == ()


def test_thousands_of_frames_take_seconds() -> None:
    silicon = read(SILICON / "train.xyz.xz")[0]
    random = np.random.default_rng(0)
    many = []
    for k in range(2000):
        s = silicon[k % len(silicon)]
        atoms = s.atoms.copy()
        atoms.positions += 0.1 * random.normal(size=atoms.positions.shape)
        many.append(dataclasses.replace(s, atoms=atoms, name=f"a:{k}"))
    begin = time.process_time()
    consistency(many)
    assert time.process_time() - begin < 20.0  # 1.5 s on an idle core


CLEAN = ("md17_ethanol_2000", "cu_poet19", "gst225_200", "tio2_aenet_subset", "water_dimer_mp2", "s66x8_wb97x")


@pytest.mark.skipif(not ALL, reason="ADATOM_DATA names no folder of published sets")
@pytest.mark.parametrize("name", CLEAN)
def test_clean_published_sets_have_no_error(name: str) -> None:
    folder = Path(str(ALL)) / name
    if not folder.is_dir():
        pytest.skip(f"no set {name} there")
    assert not examine_files({"train": sorted(folder.rglob("*.xyz.xz"))}).errors


@pytest.mark.skipif(not ALL, reason="ADATOM_DATA names no folder of published sets")
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ag3_charged", "several charges"),
        ("carbene_spin", "contradicting copies"),
        ("bilayer_graphene_qmc", "shifted energies"),
        ("formate_cu110_subset", "net force"),
        ("ta_snap", "energy of a kind"),
        ("batio3_500", "copies"),
    ],
)
def test_what_is_odd_about_published_sets_is_found(name: str, kind: str) -> None:
    folder = Path(str(ALL)) / name
    if not folder.is_dir():
        pytest.skip(f"no set {name} there")
    assert kind in {f.kind for f in examine_files({"train": sorted(folder.rglob("*.xyz.xz"))}).findings}
