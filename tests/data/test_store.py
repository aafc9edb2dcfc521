"""A store gives back what was packed, and speaks up when it is not that any more."""

from __future__ import annotations

import itertools
import json
import pickle
from collections import Counter
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from adatom.data import pack as packing
from adatom.data.dataset import Dataset
from adatom.data.labels import Keys
from adatom.data.pack import pack
from adatom.data.read import Units, fingerprint, read, require
from adatom.data.selection import Selection, concatenated
from adatom.data.split import Split, check_leaks, split
from adatom.data.store import FILES, Store, digest_of, file_of
from adatom.data.structure import Structure
from adatom.errors import DataError, GeometryError, LabelError, LeakError, StoreError
from adatom.graph import collate
from adatom.neighbors import graph_from_atoms
from data.packed import assert_same, flip, odd_structures, write

CUTOFF = 4.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files, and a store of both in shards of 16."""
    place = tmp_path_factory.mktemp("packed")
    files = [write(place / "a.traj", odd_structures(60, 1)), write(place / "b.xyz", odd_structures(45, 2))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "SHARD_FRAMES", 16)
        pack(files, place / "store")
    return place


@pytest.fixture(scope="module")
def structures(folder: Path) -> list[Structure]:
    """What the two files hold."""
    return list(read([folder / "a.traj", folder / "b.xyz"])[0])


@pytest.fixture
def broken(folder: Path, tmp_path: Path) -> Path:
    """A copy of the store to break."""
    for path in (folder / "store").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_a_store_gives_back_every_structure_bit_for_bit(folder: Path, structures: list[Structure]) -> None:
    store = Store(folder / "store")
    assert len(store) == len(structures) == 105
    assert len(store.shards) == 7
    for ours, theirs in zip(store, structures, strict=True):
        assert_same(ours, theirs)
    assert store.found == read([folder / "a.traj", folder / "b.xyz"])[1]
    assert any(s.atoms.constraints for s in structures)
    assert any("momenta" in s.atoms.arrays for s in structures)


def test_reading_a_store_is_lazy_and_knows_what_the_files_held(folder: Path, structures: list[Structure]) -> None:
    read_lazily, found = read(folder / "store")
    assert isinstance(read_lazily, Selection)
    assert found == read([folder / "a.traj", folder / "b.xyz"])[1]
    assert list(read_lazily.names) == [s.name for s in structures]
    assert list(read_lazily.config_types) == [s.config_type for s in structures]
    assert read_lazily.config_type_counts() == Counter(s.config_type for s in structures)
    assert read_lazily.elements == dict(sorted(Counter(z for s in structures for z in s.atoms.numbers).items()))
    assert read_lazily.isolated.tolist() == [s.isolated for s in structures]
    for label in ("energy", "forces", "stress"):
        assert read_lazily.has(label).tolist() == [s.has(label) for s in structures]
    for z in read_lazily.elements:
        assert read_lazily.first_with(z) == next(k for k, s in enumerate(structures) if z in s.atoms.numbers)
    assert all((a == s.atoms.numbers).all() for a, s in zip(read_lazily.numbers(), structures, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_any_permutation_and_any_batch_of_a_store_is_that_of_the_list(folder, structures, seed) -> None:
    random = np.random.default_rng(seed)
    ours, theirs = Dataset(read(folder / "store")[0], CUTOFF), Dataset(structures, CUTOFF)
    order = random.permutation(len(ours))
    cuts = [0, 1, 2, 40, len(order)]
    for start, stop in itertools.pairwise(cuts):
        indices = order[start:stop]
        graph, label = ours.batch(indices)
        wanted, wanted_label = theirs.batch(indices.tolist())
        each = collate([graph_from_atoms(structures[k].atoms, CUTOFF) for k in indices])
        for field in fields(graph):
            value = getattr(graph, field.name)
            assert value.dtype == getattr(each, field.name).dtype
            assert torch.equal(value, getattr(wanted, field.name)), field.name
            assert torch.equal(value, getattr(each, field.name)), field.name
        for a, b in zip(label, wanted_label, strict=True):
            assert torch.equal(a.isnan(), b.isnan())
            assert torch.equal(a.nan_to_num(), b.nan_to_num())


def test_batches_of_one_and_graphs_of_every_structure_are_those_of_its_atoms(folder, structures) -> None:
    ours = Dataset(read(folder / "store")[0], CUTOFF, source=3)
    for k, structure in enumerate(structures):
        alone = graph_from_atoms(structure.atoms, CUTOFF)
        for _ in range(2):  # found, then remembered
            graph = ours.graph(k)
            assert all(
                torch.equal(getattr(graph, f.name), getattr(alone, f.name)) for f in fields(graph) if f.name != "source"
            )
            assert graph.source.tolist() == [3]
        assert ours.label(k).energy.isnan().item() == np.isnan(structure.energy)
    assert ours.edges.tolist() == Dataset(structures, CUTOFF).edges.tolist()


def test_numbers_of_edges_are_kept_beside_the_store_and_not_believed_when_altered(broken: Path, monkeypatch) -> None:
    counts = Dataset(Store(broken), CUTOFF).edges
    kept = next(broken.glob("edges-*.i4"))
    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "_count", lambda self: pytest.fail("counted again"))
        assert (Dataset(Store(broken), CUTOFF).edges == counts).all()
    flip(kept, 17)
    assert (Dataset(Store(broken), CUTOFF).edges == counts).all()
    kept.unlink()
    kept.mkdir()  # nothing can be written there
    assert (Dataset(Store(broken), CUTOFF).edges == counts).all()


def test_two_stores_and_a_file_are_one_sequence(folder, structures, tmp_path: Path) -> None:
    pack([folder / "b.xyz"], tmp_path / "b")
    mixed, found = read([tmp_path / "b", folder / "store", folder / "a.traj"])
    wanted = [*structures[60:], *structures, *structures[:60]]
    assert len(mixed) == len(wanted) == 210
    assert [f.file for f in found] == ["b.xyz", "a.traj", "b.xyz", "a.traj"]
    for k in np.random.default_rng(0).permutation(210)[:60]:
        assert_same(mixed[int(k)], wanted[k])
    order = np.random.default_rng(1).permutation(210)[:50]
    graph, label = Dataset(mixed, CUTOFF).batch(order)
    other, other_label = Dataset(wanted, CUTOFF).batch(order)
    assert all(torch.equal(getattr(graph, f.name), getattr(other, f.name)) for f in fields(graph))
    assert torch.equal(label.forces.nan_to_num(), other_label.forces.nan_to_num())
    joint = concatenated(read(tmp_path / "b")[0], structures[:3])
    assert [s.name for s in joint] == [s.name for s in [*structures[60:], *structures[:3]]]
    assert concatenated(structures[:1], structures[5:7]) == [structures[0], *structures[5:7]]


@pytest.mark.parametrize(
    "config",
    [
        Split(valid=0.2, test=0.1, seed=3),
        Split(valid=5, test=0),
        Split(method="group", group="system", valid=0.2, test=20),
    ],
)
def test_splitting_a_store_is_splitting_the_list(folder, structures, config) -> None:
    lazily, eagerly = split(read(folder / "store")[0], config), split(structures, config)
    for ours, theirs in zip(lazily, eagerly, strict=True):
        assert isinstance(ours, Selection)
        assert isinstance(theirs, list)
        assert list(ours.names) == [s.name for s in theirs]


def test_groups_by_config_type_split_alike(folder, structures) -> None:
    named = np.array([k for k, s in enumerate(structures) if s.config_type])
    ours = Selection.of(read(folder / "store")[0]).select(named)
    theirs = [structures[k] for k in named]
    config = Split(method="group", valid=0.3, seed=1)
    for a, b in zip(split(ours, config), split(theirs, config), strict=True):
        assert [s.name for s in a] == [s.name for s in b]
    with pytest.raises(DataError, match="no field 'config_type' to group by"):
        split(read(folder / "store")[0], config)


def test_missing_labels_of_a_store_are_named_as_those_of_a_list(folder, structures) -> None:
    for label in ("energy", "forces", "stress"):
        told = []
        for data in (read(folder / "store")[0], structures):
            with pytest.raises(LabelError) as caught:
                require(data, {label})
            told.append(str(caught.value))
        assert told[0] == told[1]


def test_the_fingerprint_tells_stores_and_selections_apart(folder, tmp_path: Path, monkeypatch) -> None:
    store = read(folder / "store")[0]
    pack([folder / "a.traj", folder / "b.xyz"], tmp_path / "again")
    pack([folder / "b.xyz"], tmp_path / "b")
    assert fingerprint(store) == fingerprint(read(folder / "store")[0])
    prints = {fingerprint(s) for s in (store, read(tmp_path / "b")[0], split(store)[0], split(store)[1], store[1:])}
    assert len(prints) == 5
    assert fingerprint(read(folder / "b.xyz")[0]).startswith("sha256:")


def test_a_leak_between_large_sets_is_found_bit_for_bit(folder, structures, monkeypatch) -> None:
    monkeypatch.setattr("adatom.data.split.LARGE", 50)
    store = Selection.of(read(folder / "store")[0])
    free = np.flatnonzero(~store.isolated)
    train, test = store.select(free[:60]), store.select(free[60:])
    remarks = check_leaks(train, test)
    assert "bit for bit" in remarks[0]
    with pytest.raises(LeakError, match="1 of 2 test structures") as caught:
        check_leaks(train, store.select(free[[70, 12]]))
    assert store.names[int(free[12])] in str(caught.value)
    with pytest.raises(LeakError, match="1 of 1 test structures"):
        check_leaks(train, [structures[free[12]]])  # a store against a file


@pytest.mark.parametrize("name", [n for n in FILES if n != "words"])
@pytest.mark.parametrize("share", [0.0, 0.37, 0.5, 0.81, 0.999])
def test_a_flipped_bit_is_an_error_that_names_the_shard(broken: Path, name: str, share: float) -> None:
    path = file_of(broken, name)
    at = int(share * path.stat().st_size)
    flip(path, at)
    with pytest.raises(StoreError, match="altered") as caught:
        list(Store(broken))
    assert path.name in str(caught.value)
    assert "shard" in str(caught.value)
    if "bounds" not in name:  # they are looked at when a store is opened
        with pytest.raises(StoreError, match=rf"{path.name}, shard \d of 7"):
            Store(broken).verify()


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_anywhere_in_what_batches_read_is_found_by_reading_batches(broken: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    path = file_of(broken, str(random.choice(["rows", "numbers", "lattices", "totals", "codes", "words"])))
    flip(path, int(random.integers(path.stat().st_size)))
    with pytest.raises(StoreError, match=r"shard \d of 7, structure \d+"):
        Dataset(Store(broken), 0.0).batch(random.permutation(105))


def test_a_whole_store_verifies(folder: Path) -> None:
    Store(folder / "store").verify()


@pytest.mark.parametrize("name", list(FILES))
def test_a_truncated_or_missing_file_is_named_with_its_shard(broken: Path, name: str) -> None:
    path = file_of(broken, name)
    size = path.stat().st_size
    with path.open("r+b") as stream:
        stream.truncate(size - 3)
    with pytest.raises(StoreError, match=f"{path.name}, shard 6 of 7") as caught:
        Store(broken)
    assert f"{size} bytes" in str(caught.value)
    path.unlink()
    with pytest.raises(StoreError, match="a file of this store is missing"):
        Store(broken)


def test_an_altered_index_another_version_and_another_format_are_errors_with_a_way_out(broken: Path) -> None:
    path = broken / "index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps({**index, "frames": 104}))
    with pytest.raises(StoreError, match="the index of this store was altered"):
        Store(broken)
    path.write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        Store(broken)
    for change, got in (({"version": 2}, "adatom store, version 2"), ({"format": "other"}, "other, version 1")):
        other = {k: v for k, v in {**index, **change}.items() if k != "sha256"}
        path.write_text(json.dumps({**other, "sha256": digest_of(other)}))
        with pytest.raises(StoreError, match=got) as caught:
            read(broken)
        assert "pack it anew" in str(caught.value)


def test_folders_without_a_store_are_errors(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match="this is a folder, and it holds no store"):
        read(tmp_path)
    with pytest.raises(StoreError, match="there is no store in this folder"):
        Store(tmp_path)
    with pytest.raises(DataError, match="no such data file"):
        read(tmp_path / "none")


def test_keys_and_units_given_too_late_are_errors(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="units are given that this store was not packed with"):
        read(folder / "store", units=Units(energy="Hartree"))
    with pytest.raises(StoreError, match="keys are given"):
        read(folder / "store", keys=Keys(energy="energy"))
    pack([folder / "b.xyz"], tmp_path / "b", keys=Keys(config_type="system"), units=Units(energy="meV"))
    structures, _ = read(tmp_path / "b", keys=Keys(config_type="system"), units=Units(energy="meV"))
    assert structures[0].config_type == "s0"
    plain = read(folder / "b.xyz")[0]
    k = next(k for k, s in enumerate(plain) if np.isfinite(s.energy))
    assert structures[k].energy == plain[k].energy * 1e-3


def test_what_no_neighbour_list_can_be_made_of_is_named(structures: list[Structure]) -> None:
    k = next(k for k, s in enumerate(structures) if s.atoms.pbc.all())
    atoms = structures[k].atoms.copy()
    bad = Structure(atoms, 0.0, structures[k].forces, structures[k].stress, "bad:7")
    atoms.positions[0, 0] = np.nan
    with pytest.raises(GeometryError, match="bad:7"):
        Dataset([structures[0], bad], CUTOFF).batch([0, 1])
    atoms.positions[0, 0] = 0.0
    atoms.cell[0] = atoms.cell[1]
    with pytest.raises(GeometryError, match="bad:7, cell"):
        Dataset([structures[0], bad], CUTOFF).batch([0, 1])


def test_a_store_can_be_sent_to_another_process(folder: Path, structures: list[Structure]) -> None:
    sent = pickle.loads(pickle.dumps(Dataset(read(folder / "store")[0], CUTOFF)))
    assert sent.names[3] == structures[3].name
    assert torch.equal(sent.batch([5])[0].positions, torch.from_numpy(structures[5].atoms.positions))
