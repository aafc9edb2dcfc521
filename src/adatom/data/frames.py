"""Frames of a structure file, whatever its format: the atoms and every field that stood beside them."""

from __future__ import annotations

import bz2
import copy
import gzip
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import ase
import ase.db.core
import ase.io
import numpy as np
from ase.io.extxyz import key_val_str_to_dict, read_xyz

from adatom.config import nearest
from adatom.errors import DataError

OPENERS: Final[dict[str, Callable[..., IO[str]]]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
BROKEN: Final = (EOFError, OSError, lzma.LZMAError, zlib.error, UnicodeDecodeError)

TENSOR: Final = re.compile(r"\b(?P<name>stress|virial)\s*=\s*[\"'{[](?P<numbers>[^\"'}\]]*)[\"'}\]]")


class Frame(NamedTuple):
    """One record of a file."""

    atoms: ase.Atoms  # numbers, positions, cell, pbc; masses, momenta and constraints where the file has them
    fields: dict[str, Any]  # info, per-atom arrays, database columns and calculator results by name


def read_frames(path: Path) -> list[Frame]:
    """All records of a file in order.

    Extended XYZ (``.xyz``, ``.extxyz``, also ``.gz``, ``.xz``, ``.bz2``) is cut into frames here, so that an early end
    or a bad row is an error that names frame and line, and blank lines between frames are passed over: ASE's own reader
    drops what follows a blank line without a word. ASE databases are read with their key-value pairs and data.
    Everything else goes through ``ase.io.read``.

    Raises
    ------
    DataError
        No such file, an unreadable, truncated or empty one.
    """
    if not path.is_file():
        near = nearest(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else None
        raise DataError(
            "no such data file",
            where=str(path),
            remedy=f"did you mean '{near}'?" if near else "check the path",
        )
    names = path.suffixes[-2:]
    kind = names[0] if len(names) == 2 and names[1] in OPENERS else path.suffix
    if kind in (".xyz", ".extxyz"):
        frames = list(_xyz_frames(_text(path), path))
    elif kind == ".db":
        frames = _guarded(path, _database)
    else:
        frames = _guarded(path, lambda p: [_frame(a) for a in ase.io.read(str(p), index=":")])
    if not frames:
        raise DataError(
            "this file holds no structure", where=str(path), wanted="at least one frame", remedy="check the file"
        )
    for k, frame in enumerate(frames):
        if len(frame.atoms) == 0 or (frame.atoms.numbers < 1).any():
            raise DataError(
                "a structure without atoms, or with atoms of no element",
                where=f"{path}, frame {k}",
                wanted="at least one atom, each with a chemical symbol",
                got=str(frame.atoms.symbols) or "no atoms",
                remedy="remove or repair this frame",
            )
    return frames


def _text(path: Path) -> str:
    """Whole text of a file, decompressed by its suffix."""
    opener = OPENERS.get(path.suffix)
    try:
        if opener is None:
            return path.read_text(encoding="utf-8")
        with opener(path, "rt", encoding="utf-8") as stream:
            return str(stream.read())
    except BROKEN as error:
        raise DataError(
            "this file cannot be read to its end",
            where=str(path),
            wanted="a whole text file" if opener is None else f"a whole {path.suffix} file of text",
            got=f"{type(error).__name__}: {error}",
            remedy="the file is truncated or damaged: copy or download it again",
        ) from error


def _xyz_frames(text: str, path: Path) -> Iterator[Frame]:
    """Cut extended XYZ into frames and parse each of them."""
    lines = text.splitlines()
    at, frame = 0, 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        where = f"{path}, frame {frame}, line {at + 1}"
        count = lines[at].strip()
        if not count.isdigit():
            raise DataError(
                "a frame does not begin with its number of atoms",
                where=where,
                wanted="a whole number",
                got=repr(count[:60]),
                remedy="the frame before has more or fewer rows than it says: repair the file",
            )
        end = at + 2 + int(count)
        rows = lines[at:end]
        if end > len(lines) or (end == len(lines) and not text.endswith("\n") and _cut_short(rows[2:])):
            raise DataError(
                "the file ends in the middle of a frame",
                where=where,
                wanted=f"{count} rows of atoms, the last one as long as the others",
                got=f"{max(len(rows) - 2, 0)} rows, the last {rows[-1][:80]!r}",
                remedy="the file is truncated: copy it again or cut its last frame (a whole file ends with a newline)",
            )
        try:
            atoms = next(read_xyz(StringIO("\n".join(rows) + "\n"), 0, _comment))
        except Exception as error:  # ASE raises whatever its converters raise; it becomes one typed error
            raise DataError(
                "this frame is not extended XYZ",
                where=where,
                got=f"{type(error).__name__}: {error}",
                remedy="compare the Properties of the comment line with the columns of the rows",
            ) from error
        yield _frame(atoms)
        at, frame = end, frame + 1


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


def _database(path: Path) -> list[Frame]:
    with ase.db.core.connect(str(path), type="db", serial=True) as database:  # type: ignore[no-untyped-call]
        return [_frame(row.toatoms(add_additional_information=True)) for row in database.select()]


def _guarded(path: Path, read: Callable[[Path], list[Frame]]) -> list[Frame]:
    """Run a reader of ASE and turn whatever it raises into one typed error."""
    try:
        frames = read(path)
    except Exception as error:  # any of ASE's hundred formats, each with its own exceptions
        raise DataError(
            "ASE cannot read this file",
            where=str(path),
            got=f"{type(error).__name__}: {error}",
            remedy="the file is truncated or damaged, or of a format that ASE does not know; extended XYZ always works",
        ) from error
    return frames


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
