"""ASE databases and LMDB files of ASE rows are read row by row, and packed."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import ase
import ase.db
import numpy as np
import pytest
from ase.db.row import AtomsRow

from adatom.data import databases
from adatom.data.pack import pack
from adatom.data.read import read
from adatom.data.store import Store
from adatom.errors import DataError
from data.packed import assert_same, odd_structures

lmdb = pytest.importorskip("lmdb")


def plain(value: Any) -> Any:
    """Arrays as lists, as fairchem writes them."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def write_lmdb(path: Path, frames: list[ase.Atoms], skip: tuple[int, ...] = (), deleted: tuple[int, ...] = ()) -> Path:
    """Rows as fairchem's ASE-LMDB holds them; ``skip`` leaves out ids, ``deleted`` says so."""
    with (
        lmdb.open(str(path), subdir=False, map_size=2**27) as environment,
        environment.begin(write=True) as transaction,
    ):

        def put(key: str, value: Any) -> None:
            transaction.put(key.encode(), zlib.compress(json.dumps(plain(value)).encode()))

        for k, atoms in enumerate(frames, 1):
            row = AtomsRow(atoms)
            values = {n: row[n] for n in row.__dict__ if n[0] != "_" and n not in row._keys and n != "id"}
            values["cell"] = np.asarray(values["cell"])
            pairs = {n: v for n, v in atoms.info.items() if n in ("config_type", "system")}
            values |= {"key_value_pairs": pairs, "data": {"charge": atoms.info.get("total_charge", 0), "spin": 1}}
            values["constraints"] = [c.todict() for c in atoms.constraints]
            if k not in skip:
                put(str(k), values)
        put("nextid", len(frames) + 1)
        if deleted:
            put("deleted_ids", list(deleted))
        put("metadata", {})
    return path


def test_rows_of_an_lmdb_file_are_structures_in_the_order_of_their_ids(tmp_path: Path) -> None:
    frames = odd_structures(25, 5)
    structures, found = read(write_lmdb(tmp_path / "a.aselmdb", frames))
    assert found[0].frames == 25
    for structure, atoms in zip(structures, frames, strict=True):
        assert structure.atoms.numbers.tolist() == atoms.numbers.tolist()
        assert structure.atoms.positions.tobytes() == atoms.positions.tobytes()
        assert structure.atoms.pbc.tolist() == atoms.pbc.tolist()
        assert structure.config_type == atoms.info.get("config_type", "")
        assert structure.tags["system"] == atoms.info["system"]
        assert structure.atoms.info["total_charge"] == atoms.info.get("total_charge", 0)
        results = atoms.calc.results if atoms.calc else {}
        assert np.array_equal(structure.energy, results.get("energy", np.nan), equal_nan=True)
        if "forces" in results:
            assert structure.forces.tobytes() == results["forces"].tobytes()
        assert len(structure.atoms.constraints) == len(atoms.constraints)


def test_deleted_rows_are_passed_over_and_lost_ones_are_an_error(tmp_path: Path) -> None:
    frames = odd_structures(12, 6)
    structures, _ = read(write_lmdb(tmp_path / "a.lmdb", frames, skip=(3, 7), deleted=(3, 7)))
    assert len(structures) == 10
    assert structures[2].name == "a.lmdb:2"
    with pytest.raises(DataError, match="2 rows of this database are missing") as caught:
        read(write_lmdb(tmp_path / "b.lmdb", frames, skip=(3, 7)))
    assert "no row 3, 7" in str(caught.value)


def test_a_damaged_row_and_a_damaged_file_are_errors_that_name_them(tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "a.aselmdb", odd_structures(4, 7))
    with (
        lmdb.open(str(path), subdir=False, map_size=2**27) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.put(b"3", b"no zlib at all")
    with pytest.raises(DataError, match="frame 2, id 3"):
        read(path)
    (tmp_path / "b.aselmdb").write_bytes(b"nothing of the sort" * 1000)
    with pytest.raises(DataError, match="no LMDB database"):
        read(tmp_path / "b.aselmdb")
    (tmp_path / "b.aselmdb-lock").unlink(missing_ok=True)


def test_databases_are_packed_as_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "PAGE", 7)
    frames = odd_structures(30, 8)
    rows = write_lmdb(tmp_path / "a.aselmdb", frames)
    with ase.db.connect(str(tmp_path / "b.db")) as database:
        for atoms in frames:
            database.write(atoms, system=atoms.info["system"], data={"spin": 2})
        del database[5]
    store = pack([rows, tmp_path / "b.db"], tmp_path / "store")
    wanted, found = read([rows, tmp_path / "b.db"])
    assert store.found == found
    assert len(store) == 59
    for ours, theirs in zip(store, wanted, strict=True):
        assert_same(ours, theirs)
    later = list(databases.database_rows(tmp_path / "b.db", 11))
    assert [row.id for row in later] == [13, *range(14, 31)]
    assert len(list(databases.lmdb_rows(rows, 28))) == 2
    assert len(Store(tmp_path / "store")) == 59
