"""Frames of a structure file, whatever its format: the atoms and every field that stood beside them."""

from __future__ import annotations

import bz2
import copy
import gzip
import itertools
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import ase
import ase.io
import numpy as np
from ase.io.extxyz import key_val_str_to_dict, read_xyz

from adatom.config import nearest
from adatom.data.databases import database_rows, lmdb_rows
from adatom.errors import AdatomError, DataError

OPENERS: Final[dict[str, Callable[..., IO[str]]]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
BROKEN: Final = (EOFError, OSError, lzma.LZMAError, zlib.error, UnicodeDecodeError)
ALIKE: Final = 0.75  # from here on a name may be the one that is meant: the suffix alone makes half of many

TENSOR: Final = re.compile(r"\b(?P<name>stress|virial)\s*=\s*[\"'{[](?P<numbers>[^\"'}\]]*)[\"'}\]]")


class Frame(NamedTuple):
    """One record of a file."""

    atoms: ase.Atoms  # numbers, positions, cell, pbc; masses, momenta and constraints where the file has them
    fields: dict[str, Any]  # info, per-atom arrays, database columns and calculator results by name


def read_frames(path: Path) -> list[Frame]:
    """All records of a file in order: see `stream_frames`."""
    return list(stream_frames(path))


def stream_frames(path: Path, start: int = 0) -> Iterator[Frame]:
    """The records of a file in order, one at a time, from the ``start``-th on.

    Extended XYZ (``.xyz``, ``.extxyz``, also ``.gz``, ``.xz``, ``.bz2``) is cut into frames here, so that an early end
    or a bad row is an error that names frame and line, and blank lines between frames are passed over: ASE's own reader
    drops what follows a blank line without a word. ASE databases (``.db``) and LMDB (``.aselmdb``, ``.lmdb``) are read
    with their key-value pairs and data. Everything else goes through ``ase.io``.

    Raises
    ------
    DataError
        No such file, an unreadable, truncated or empty one.
    """
    if not path.is_file():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = nearest(path.name, beside, likeness=ALIKE)
        folder = "this is a folder, and it holds no store" if path.is_dir() else None
        raise DataError(
            folder or "no such data file",
            where=str(path),
            remedy="name its files, or pack them:  adatom data pack FILES -o STORE"
            if folder
            else f"did you mean '{near}'?"
            if near
            else "check the path",
        )
    names = path.suffixes[-2:]
    kind = names[0] if len(names) == 2 and names[1] in OPENERS else path.suffix
    if kind in (".xyz", ".extxyz"):
        frames = _xyz_frames(path, start)
    elif kind in (".db", ".aselmdb", ".lmdb"):
        rows = database_rows if kind == ".db" else lmdb_rows
        frames = _guarded(path, (_frame(row.toatoms(add_additional_information=True)) for row in rows(path, start)))
    else:
        frames = _guarded(path, (_frame(atoms) for atoms in ase.io.iread(str(path), index=f"{start}:")))
    k = start
    for frame in frames:
        if len(frame.atoms) == 0 or (frame.atoms.numbers < 1).any():
            raise DataError(
                "a structure without atoms, or with atoms of no element",
                where=f"{path}, frame {k}",
                wanted="at least one atom, each with a chemical symbol",
                got=str(frame.atoms.symbols) or "no atoms",
                remedy="remove or repair this frame",
            )
        yield frame
        k += 1
    if k == 0:
        raise DataError(
            "this file holds no structure", where=str(path), wanted="at least one frame", remedy="check the file"
        )


def _lines(path: Path) -> Iterator[str]:
    """Lines of a text file with their ends, decompressed by its suffix."""
    opener = OPENERS.get(path.suffix)
    try:
        with path.open(encoding="utf-8") if opener is None else opener(path, "rt", encoding="utf-8") as stream:
            yield from stream
    except BROKEN as error:
        raise DataError(
            "this file cannot be read to its end",
            where=str(path),
            wanted="a whole text file" if opener is None else f"a whole {path.suffix} file of text",
            got=f"{type(error).__name__}: {error}",
            remedy="the file is truncated or damaged: copy or download it again",
        ) from error


def _xyz_frames(path: Path, start: int) -> Iterator[Frame]:
    """Cut extended XYZ into frames and parse each of them; those before ``start`` are passed over unread."""
    lines = _lines(path)
    at, frame = 0, 0
    for first in lines:
        at += 1
        if not first.strip():
            continue
        where = f"{path}, frame {frame}, line {at}"
        count = first.strip()
        if not count.isdigit():
            raise DataError(
                "a frame does not begin with its number of atoms",
                where=where,
                wanted="a whole number",
                got=repr(count[:60]),
                remedy="the frame before has more or fewer rows than it says: repair the file",
            )
        rows = [first, *itertools.islice(lines, int(count) + 1)]
        at += len(rows) - 1
        whole = len(rows) == int(count) + 2
        if not whole or (not rows[-1].endswith("\n") and _cut_short(rows[2:])):
            raise DataError(
                "the file ends in the middle of a frame",
                where=where,
                wanted=f"{count} rows of atoms, the last one as long as the others",
                got=f"{max(len(rows) - 2, 0)} rows, the last {rows[-1].rstrip()[:80]!r}",
                remedy="the file is truncated: copy it again or cut its last frame (a whole file ends with a newline)",
            )
        frame += 1
        if frame <= start:
            continue
        try:
            atoms = next(read_xyz(StringIO("".join(rows).rstrip("\n") + "\n"), 0, _comment))
        except Exception as error:  # ASE raises whatever its converters raise; it becomes one typed error
            raise DataError(
                "this frame is not extended XYZ",
                where=where,
                got=f"{type(error).__name__}: {error}",
                remedy="compare the Properties of the comment line with the columns of the rows",
            ) from error
        yield _frame(atoms)


def _comment(line: str) -> dict[str, Any]:
    """Fields of a comment line; ``stress`` and ``virial`` as plain rows of numbers, of which ASE takes nine alone."""
    rows: dict[str, np.ndarray] = {}

    def take(match: re.Match[str]) -> str:
        rows[match["name"]] = np.array(match["numbers"].split(), dtype=np.float64)
        return ""

    fields: dict[str, Any] = key_val_str_to_dict(TENSOR.sub(take, line))
    return {**fields, **rows}


def _cut_short(rows: list[str]) -> bool:
    """Whether the last row, which no newline ends, was cut inside its last number or before."""
    if len(rows) < 2:
        return False
    fields = [row.split() for row in rows]
    decimals = [len(row[-1].partition(".")[2]) if row else 0 for row in fields]
    return len(fields[-1]) < len(fields[-2]) or decimals[-1] < min(decimals[:-1])


def _guarded(path: Path, frames: Iterator[Frame]) -> Iterator[Frame]:
    """Turn whatever a reader of ASE raises into one typed error."""
    try:
        yield from frames
    except AdatomError:
        raise
    except Exception as error:  # any of ASE's hundred formats, each with its own exceptions
        raise DataError(
            "ASE cannot read this file",
            where=str(path),
            got=f"{type(error).__name__}: {error}",
            remedy="the file is truncated or damaged, or of a format that ASE does not know; extended XYZ always works",
        ) from error


def _frame(atoms: ase.Atoms) -> Frame:
    """Part atoms from everything that stood beside them; calculator results win over equal names."""
    info = dict(atoms.info)
    pairs, data = info.pop("key_value_pairs", {}), info.pop("data", {})
    arrays = {name: values for name, values in atoms.arrays.items() if name not in ("numbers", "positions")}
    results = {} if atoms.calc is None else {k: v for k, v in atoms.calc.results.items() if v is not None}
    bare = ase.Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    for name, shape in (("masses", (len(atoms),)), ("momenta", (len(atoms), 3))):  # a simulation starts from them
        values = arrays.get(name)
        if values is not None and values.shape == shape and values.dtype.kind in "fiu" and np.isfinite(values).all():
            bare.set_array(name, values, float, shape[1:])
    bare.set_constraint([copy.deepcopy(constraint) for constraint in atoms.constraints])
    return Frame(bare, {**info, **pairs, **data, **arrays, **results})
