"""Rows of databases in order: ASE's own, and LMDB files of ASE rows as fairchem's data sets come in."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import ase.db.core
from ase.db.row import AtomsRow
from ase.io.jsonio import object_hook

from adatom.errors import DataError

PAGE: Final = 1000  # rows asked for at once: ASE would bring all of them into memory
RESERVED: Final = (b"nextid", b"metadata", b"deleted_ids")  # keys of an LMDB file that name no row


def database_rows(path: Path, start: int = 0) -> Iterator[AtomsRow]:
    """Rows of an ASE database by ascending id, without the first ``start``."""
    with ase.db.core.connect(str(path), type="db", serial=True) as database:  # type: ignore[no-untyped-call]
        last: int | None = None
        while True:
            ask, skip = ("", start) if last is None else (f"id>{last}", 0)
            rows = list(database.select(ask, sort="id", limit=PAGE, offset=skip))
            yield from rows
            if len(rows) < PAGE:
                return
            last = rows[-1].id


def lmdb_rows(path: Path, start: int = 0) -> Iterator[AtomsRow]:
    """Rows of an LMDB file by ascending id, without the first ``start``.

    The format of fairchem's ``.aselmdb``: key = id in decimal digits, value = zlib-compressed JSON of an ASE row;
    ``nextid``, ``metadata`` and ``deleted_ids`` are no rows.

    Raises
    ------
    DataError
        The package ``lmdb`` is missing, the file is no LMDB, or a row cannot be read; names the row.
    """
    try:
        import lmdb
    except ImportError as error:
        raise DataError(
            "LMDB files need the package lmdb", where=str(path), remedy="pip install 'adatom[lmdb]'"
        ) from error
    try:
        environment = lmdb.open(str(path), subdir=False, readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise DataError(
            "this file is no LMDB database, or a damaged one",
            where=str(path),
            got=str(error),
            remedy="copy or download it again",
        ) from error
    with environment, environment.begin() as transaction:
        ids = sorted(int(key) for key in transaction.cursor().iternext(values=False) if key not in RESERVED)
        _check_count(transaction, ids, path)
        for k, number in enumerate(ids[start:], start):
            try:
                yield AtomsRow(_row(transaction.get(str(number).encode()), number))
            except (zlib.error, ValueError, TypeError, AssertionError) as error:
                raise DataError(
                    "a row of this database cannot be read",
                    where=f"{path}, frame {k}, id {number}",
                    wanted="zlib-compressed JSON of an ASE row",
                    got=f"{type(error).__name__}: {error}",
                    remedy="the file is damaged, or no ASE-LMDB: copy or download it again",
                ) from error


def _row(value: bytes | None, number: int) -> dict[str, Any]:
    """One row as the plain values that ASE makes rows from."""
    row: dict[str, Any] = json.loads(zlib.decompress(value or b""), object_hook=object_hook)
    return {"unique_id": "", "calculator_parameters": {}, **row, "id": number}


def _check_count(transaction: Any, ids: list[int], path: Path) -> None:
    """A file that lost rows says so by the id it would have given next."""
    told = {key: transaction.get(key) for key in (b"nextid", b"deleted_ids")}
    if told[b"nextid"] is None:
        return
    try:
        following = int(json.loads(zlib.decompress(told[b"nextid"])))
        deleted = json.loads(zlib.decompress(told[b"deleted_ids"])) if told[b"deleted_ids"] else []
    except (zlib.error, ValueError, TypeError) as error:
        raise DataError(
            "the counters of this database cannot be read",
            where=str(path),
            got=str(error),
            remedy="the file is damaged: copy or download it again",
        ) from error
    missing = sorted(set(range(1, following)) - set(ids) - set(deleted))
    if missing:
        raise DataError(
            f"{len(missing)} rows of this database are missing",
            where=str(path),
            wanted=f"the ids 1 to {following - 1} but {len(deleted)} deleted ones",
            got=f"no row {', '.join(map(str, missing[:5]))}{', ...' if len(missing) > 5 else ''}",
            remedy="the file is incomplete: copy or download it again",
        )
