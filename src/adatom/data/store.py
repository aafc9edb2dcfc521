"""A store: structures of any number in flat files that are mapped into memory, checked as they are read.

See ``docs/data.md`` for the format. ``adatom data pack`` writes it (:mod:`adatom.data.pack`).
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import ase
import numpy as np
from ase.constraints import dict2constraint

from adatom.data.arrays import (
    CHARGE,
    ENERGY,
    FRAME,
    KIND,
    MASSES,
    MOMENTA,
    PBC,
    SPIN,
    Arrays,
    Taken,
)
from adatom.data.structure import Found, Structure
from adatom.errors import StoreError

FORMAT, VERSION = "adatom store", 1
INDEX, JOURNAL = "index.json", "journal.jsonl"
# file -> type of its entries and shape of one row; bounds have one row more than there are structures
FILES: Final[dict[str, tuple[str, tuple[int, ...]]]] = {
    "rows": ("<f8", (6,)),
    "numbers": ("|u1", ()),
    "lattices": ("<f8", (18,)),
    "totals": ("<f8", (3,)),
    "codes": ("<i4", (4,)),
    "bounds": ("<i8", ()),
    "words": ("<u8", (2,)),
    "notes": ("|u1", ()),
    "note_bounds": ("<i8", ()),
}
ATOMIC: Final = ("rows", "numbers")
AGAIN: Final = "copy the store again, or pack it anew from its files with  adatom data pack"


def file_of(folder: Path, name: str) -> Path:
    """Where one of the arrays lies."""
    return folder / f"{name}.{FILES[name][0].strip('<|')}"


def row_bytes(name: str) -> int:
    """Size of one row."""
    kind, shape = FILES[name]
    return int(np.dtype(kind).itemsize * np.prod(shape, dtype=int))


def is_store(path: Path) -> bool:
    """Whether this folder is a store, whole or not."""
    return path.is_dir() and ((path / INDEX).exists() or (path / JOURNAL).exists())


def digest_of(values: Mapping[str, Any]) -> str:
    """SHA-256 of plain values, of their JSON text with sorted keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class Store(Sequence[Structure]):
    """The structures of a store, made when asked for.

    ``arrays`` holds all of them flat. Opening reads the index and maps the files: no structure is touched.

    Raises
    ------
    StoreError
        No whole store in this folder, one of another format version, an index that was altered, a file of the wrong
        size. What is read later is compared with its check words; an error names file, shard and frames.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.about = read_index(self.folder)
        self.shards: list[dict[str, Any]] = self.about["shards"]
        mapped = {name: self._map(name) for name in FILES}
        self._notes, self._note_bounds = mapped.pop("notes"), mapped.pop("note_bounds")
        self.arrays = Arrays(**mapped)
        self._check_bounds()
        self.config_types: list[str] = self.about["config_types"]
        self.kinds: list[dict[str, Any]] = self.about["kinds"]
        self.found = [Found.of(values) for values in self.about["found"]]
        self.fingerprint = str(self.about["fingerprint"])

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.folder,)  # another process maps the files for itself

    def __len__(self) -> int:
        return int(self.about["frames"])

    def __getitem__(self, k: Any) -> Any:
        if isinstance(k, slice):
            return [self[i] for i in range(*k.indices(len(self)))]
        if not -len(self) <= k < len(self):
            raise IndexError(k)
        return self._structure(int(k) % len(self))

    def __iter__(self) -> Iterator[Structure]:
        return (self._structure(k) for k in range(len(self)))

    def take(self, index: np.ndarray) -> Taken:
        """Structures as arrays, in the order of ``index`` (S,), compared with their check words."""
        taken, words = self.arrays.take(index)
        wrong = (words != self.arrays.words[index]).any(axis=1)
        if wrong.any():
            self._altered(int(index[np.flatnonzero(wrong)[0]]))
        return taken

    def names(self, k: int) -> str:
        """Name of a structure: file and frame."""
        code = self.arrays.codes[k]
        return f"{self.kinds[code[KIND]]['file']}:{code[FRAME]}"

    def tags(self, k: int) -> dict[str, str]:
        """The plain values that stood beside the atoms."""
        note, _ = self._note(k)
        return dict(zip(self.kinds[self.arrays.codes[k, KIND]]["tags"], note["tags"], strict=True))

    def verify(self) -> None:
        """Read everything and compare it with the hashes of the index; StoreError names the first file and shard."""
        for name in FILES:
            for k in range(len(self.shards)):
                if not self._whole(k, name):
                    start, stop = shard_bytes(self.shards, k, name)
                    raise StoreError(
                        "a shard of this store is not what was packed",
                        where=f"{file_of(self.folder, name)}, shard {k} of {len(self.shards)}",
                        wanted=f"bytes {start} to {stop} with sha256 {self.shards[k]['sha256'][name]}",
                        remedy=AGAIN,
                    )

    def _map(self, name: str) -> np.ndarray:
        path, (kind, shape) = file_of(self.folder, name), FILES[name]
        _, size = shard_bytes(self.shards, len(self.shards) - 1, name)
        have = path.stat().st_size if path.exists() else None
        if have != size:
            short = [k for k in range(len(self.shards)) if shard_bytes(self.shards, k, name)[1] > (have or 0)]
            raise StoreError(
                "a file of this store is missing" if have is None else "a file of this store has the wrong size",
                where=f"{path}, shard {short[0]} of {len(self.shards)}" if short else str(path),
                wanted=f"{size} bytes",
                got="no file" if have is None else f"{have} bytes",
                remedy=AGAIN,
            )
        rows = size // row_bytes(name)
        if rows == 0:
            return np.zeros((0, *shape), kind)
        return np.asarray(np.memmap(path, dtype=kind, mode="r", shape=(rows, *shape)))

    def _check_bounds(self) -> None:
        for bounds, last, least in (
            (self.arrays.bounds, len(self.arrays.rows), 1),
            (self._note_bounds, len(self._notes), 8),
        ):
            bad = np.flatnonzero(np.diff(bounds) < least)
            if bounds[0] != 0 or bounds[-1] != last or len(bad):
                self._altered(int(bad[0]) if len(bad) else 0 if bounds[0] != 0 else len(self) - 1)

    def _altered(self, frame: int) -> NoReturn:
        """Find out which file a structure is wrong in, and say so."""
        # the bound before a structure is the last of the structure before it
        shards = sorted({self.shard_of(frame), self.shard_of(max(frame - 1, 0))}, reverse=True)
        wrong = [(k, file) for k in shards for file in FILES if not self._whole(k, file)]
        k, file = wrong[0] if wrong else (shards[0], "words")
        raise StoreError(
            "a structure of this store is not what was packed: its file was altered",
            where=f"{file_of(self.folder, file)}, shard {k} of {len(self.shards)}, structure {frame}",
            wanted="the check word that was written with it",
            remedy=AGAIN,
        )

    def _whole(self, k: int, name: str) -> bool:
        """Whether the bytes of a shard in one of the files are those that were packed."""
        start, stop = shard_bytes(self.shards, k, name)
        with file_of(self.folder, name).open("rb") as stream:
            stream.seek(start)
            told = str(self.shards[k]["sha256"][name])
            return hashlib.sha256(stream.read(stop - start)).hexdigest() == told

    def shard_of(self, frame: int) -> int:
        """Shard of a structure."""
        return int(np.searchsorted(np.cumsum([s["frames"] for s in self.shards]), frame, side="right"))

    def _note(self, k: int) -> tuple[dict[str, Any], memoryview]:
        """What is kept of a structure besides its arrays, and the bytes of its masses and momenta."""
        data = self._notes[self._note_bounds[k] : self._note_bounds[k + 1]].tobytes()
        if zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little"):
            self._altered(k)
        end = 8 + int.from_bytes(data[4:8], "little")
        return json.loads(data[8:end]), memoryview(data)[end:]

    def _structure(self, k: int) -> Structure:
        """One structure, bit for bit as its file gave it."""
        taken = self.take(np.array([k]))
        flags, config_type, kind, _ = (int(c) for c in self.arrays.codes[k])
        totals = self.arrays.totals[k]
        note, rest = self._note(k)
        what = self.kinds[kind]
        atoms = ase.Atoms(taken.numbers, taken.positions, cell=taken.cell[0], pbc=[bool(flags & bit) for bit in PBC])
        if flags & MASSES:
            atoms.set_array("masses", np.frombuffer(rest, "<f8", len(atoms)), float, ())
            rest = rest[8 * len(atoms) :]
        if flags & MOMENTA:
            atoms.set_array("momenta", np.frombuffer(rest, "<f8", 3 * len(atoms)).reshape(-1, 3), float, (3,))
        atoms.set_constraint([dict2constraint(c) for c in note.get("constraints", [])])
        for name, value in (("total_charge", totals[CHARGE]), ("multiplicity", totals[SPIN])):
            if np.isfinite(value):
                atoms.info[name] = float(value)
        return Structure(
            atoms=atoms,
            energy=float(totals[ENERGY]),
            forces=taken.forces,
            stress=taken.stress[0],
            name=self.names(k),
            config_type=self.config_types[config_type],
            tags=dict(zip(what["tags"], note["tags"], strict=True)),
            fields=tuple(what["fields"]),
            keys=dict(what["keys"]),
        )


def shard_bytes(shards: Sequence[Mapping[str, Any]], k: int, name: str) -> tuple[int, int]:
    """First byte of a shard in one of the files, and the byte behind its last; bounds begin with a row of their own."""
    extra = row_bytes(name) if name.endswith("bounds") else 0
    ends = [shards[i]["ends"] for i in (k - 1, k) if i >= 0]
    unit = "atoms" if name in ATOMIC else "notes" if name == "notes" else "frames"
    stop = ends[-1][unit] * row_bytes(name) + extra if shards else extra
    return (ends[0][unit] * row_bytes(name) + extra if len(ends) == 2 else 0), stop


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a store, with its hash and version checked."""
    path = folder / INDEX
    if not path.exists():
        half = (folder / JOURNAL).exists()
        raise StoreError(
            "this store is not finished: packing was interrupted" if half else "there is no store in this folder",
            where=str(folder),
            wanted=f"a folder with {INDEX}",
            got=f"{JOURNAL}, and no {INDEX}" if half else None,
            remedy="run the same  adatom data pack  again: it goes on where it stopped"
            if half
            else "name the folder that  adatom data pack FILES -o FOLDER  has written",
        )
    try:
        index = json.loads(path.read_bytes())
        known = index["format"] == FORMAT
        version = int(index["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            "the index of this store cannot be read", where=str(path), got=str(error), remedy=AGAIN
        ) from error
    if not known or version != VERSION:
        raise StoreError(
            "this store has another format",
            where=str(path),
            wanted=f"{FORMAT}, version {VERSION}",
            got=f"{index['format']}, version {version}",
            remedy="use the version of adatom that packed it, or pack it anew from its files with this one",
        )
    told = index.pop("sha256", None)
    if digest_of(index) != told:
        raise StoreError("the index of this store was altered", where=str(path), wanted=f"sha256 {told}", remedy=AGAIN)
    return dict(index)
