"""The border: files become structures with labels in Å, eV, eV/Å and eV/Å^3, and what was found is told."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from adatom.config import nearest
from adatom.data.frames import read_frames
from adatom.data.labels import Keys, check_asked
from adatom.data.reader import Reader, Units, check_geometries, field_of, short_names
from adatom.data.selection import Selection, concatenated, digest
from adatom.data.store import Store, is_store
from adatom.data.structure import LABELS, Found, Structure
from adatom.errors import DataError, LabelError, StoreError

__all__ = ["LABELS", "Found", "Keys", "Structure", "Units", "fingerprint", "found_table", "read", "require"]


def read(
    paths: str | Path | Sequence[str | Path], keys: Keys | None = None, units: Units | None = None
) -> tuple[Sequence[Structure], list[Found]]:
    """Structures of one or more files or stores, and what each file held.

    Fields serve labels by name (see :mod:`adatom.data.labels`) or as ``keys`` says, frame by frame. Labels are
    converted to eV, eV/Å and eV/Å^3; a stress is made symmetric, and dropped where the structure is not periodic in
    three directions (it has no volume). A free atom has zero forces by symmetry, labelled or not. Missing labels
    become NaN: see :func:`require`.

    A folder that ``adatom data pack`` wrote is a store: its structures are made when asked for. Files give a list,
    stores, and files beside stores, a :class:`adatom.data.selection.Selection`.

    Raises
    ------
    DataError
        A missing, unreadable, truncated or empty file; a store that cannot be used.
    LabelError
        A label of the wrong shape or kind, or a key that no frame of any file has.
    GeometryError
        A periodic cell without volume, overlapping atoms, positions that are no numbers; names file and frame.
    """
    keys, units = keys or Keys(), units or Units()
    files = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(p) for p in paths]
    if not files:
        raise DataError("no data files were given", wanted="at least one path", remedy="name the files to read")
    names = short_names(files)
    sources: list[Sequence[Structure]] = []
    found: list[Found] = []
    for path, short in zip(files, names, strict=True):
        if is_store(path):
            store = Store(path)
            _check_packed(store, keys, units)
            sources.append(store)
            found += store.found
            continue
        reader = Reader(short, keys, units)
        own = [reader.structure(k, frame) for k, frame in enumerate(read_frames(path))]
        check_geometries(own)
        sources.append(own)
        found.append(reader.found())
    structures = concatenated(*sources)
    fields = structures.fields() if isinstance(structures, Selection) else {n for s in structures for n in s.fields}
    check_asked(keys, fields, files)
    return structures, found


def _check_packed(store: Store, keys: Keys, units: Units) -> None:
    """The labels of a store were chosen and converted when it was packed: other wishes come too late."""
    for name, asked, usual in (("keys", keys.model_dump(), Keys()), ("units", units.model_dump(), Units())):
        if asked not in (usual.model_dump(), store.about[name]):
            raise StoreError(
                f"{name} are given that this store was not packed with",
                where=str(store.folder),
                wanted=f"{name} {store.about[name]}, or none: a store keeps labels in eV, eV/Å and eV/Å^3",
                got=str(asked),
                remedy=f"leave {name} out, or pack the files anew with them",
            )


def require(structures: Sequence[Structure], labels: Collection[str]) -> None:
    """Make sure that every structure carries the labels the loss needs.

    ``labels`` are of "energy", "forces", "stress". A stress is asked only of structures that are periodic in three
    directions, and there must be one. Free atoms need an energy alone.

    Raises
    ------
    DataError
        There are no structures.
    LabelError
        A label is missing or NaN; names file, record and field, what the frame holds, and how many others lack it.
    """
    if not structures:
        raise DataError("the data set is empty", wanted="at least one structure", remedy="check files and split")
    chosen = Selection.of(structures)
    for label in sorted(labels):
        if label not in LABELS:
            raise LabelError(f"there is no label '{label}'", wanted=", ".join(LABELS), got=label)
        asked = chosen.periodic & ~chosen.isolated if label == "stress" else np.ones(len(chosen), dtype=bool)
        if not asked.any():
            raise LabelError(
                "the loss needs stress, and no structure is periodic in three directions",
                where=structures[0].name.rpartition(":")[0],
                wanted="periodic structures with stress",
                remedy="set the stress weight to 0",
            )
        lacking = np.flatnonzero(asked & ~chosen.has(label))
        if len(lacking):
            raise _missing(structures[int(lacking[0])], len(lacking), int(asked.sum()), label)


def _missing(first: Structure, lacking: int, asked: int, label: str) -> LabelError:
    key = first.keys.get(label)
    if key is None:
        got = f"no such field; the frame has {', '.join(first.fields) or 'no fields at all'}"
        near = nearest(label, list(first.fields))
        remedy = f"name the field, as in  keys: {{{label}: {near or 'NAME'}}}, or set the {label} weight to 0"
    else:
        values = np.asarray(getattr(first, label))
        got = f"{int(np.isnan(values).sum())} of {values.size} values are NaN"
        remedy = f"remove or label these frames, or set the {label} weight to 0"
    return LabelError(
        f"the loss needs {label}, and {lacking} of {asked} structures lack it",
        where=field_of(first.name, key or label),
        wanted=f"finite {label} in every frame",
        got=got,
        remedy=remedy,
    )


def found_table(found: Iterable[Found], title: str = "Data") -> Table:
    """What was found, as a table for the terminal; remarks stand below it."""
    table = Table(title=title, caption_justify="left")
    for column in ("file", "frames", "atoms", *LABELS):
        table.add_column(column, justify="right" if column in ("frames", "atoms") else "left")
    remarks = []
    for f in found:
        cells = [f"{f.key(label)} {f.labelled[label]}/{f.frames}" if f.key(label) else "-" for label in LABELS]
        table.add_row(f.file, str(f.frames), str(f.atoms), *cells)
        remarks += [f"{f.file}: {remark}" for remark in f.remarks]
    table.caption = "\n".join(remarks) or None
    return table


def fingerprint(structures: Sequence[Structure]) -> str:
    """SHA-256 over geometry and labels, in order: says whether two runs saw the same data.

    Of structures of a store, over the hashes of its shards and which of its structures are meant.
    """
    if isinstance(structures, (Selection, Store)):
        return Selection.of(structures).fingerprint
    return digest(structures)
