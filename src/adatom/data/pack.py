"""Packing: files of any number of structures into a store, going on where an interrupted run stopped.

Structures are written shard after shard. A line of the journal follows each shard once its bytes are on the disk: what
lies behind the last whole line is cut off by the next run, which so writes the same bytes as an undisturbed one.

Whoever packs holds a lock on the journal. A finished store is overwritten only at the end: the new one is packed into a
folder inside of it, and its files take the place of the old ones once all of them are there.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from ase.io.jsonio import encode

from adatom.data.arrays import FRAME, KIND, Arrays, arrays_of, check_words
from adatom.data.frames import stream_frames
from adatom.data.labels import Keys, check_asked
from adatom.data.reader import Reader, Units, check_geometries, short_names
from adatom.data.store import (
    FILES,
    FORMAT,
    INDEX,
    JOURNAL,
    VERSION,
    Store,
    digest_of,
    file_of,
    is_store,
    row_bytes,
    shard_bytes,
)
from adatom.data.structure import Structure
from adatom.errors import DataError, StoreError

SHARD_FRAMES: Final = 8192
SHARD_ATOMS: Final = 2**20  # a shard is closed at the first of both: about 50 MB at most
NEXT: Final = ".next"  # folder of a store that is to take the place of the one around it
EDGES: Final = "edges-*.i4"
HEAD: Final = 2**20  # bytes at both ends of a file that tell it from others


def pack(
    files: Sequence[Path],
    folder: Path,
    keys: Keys | None = None,
    units: Units | None = None,
    overwrite: bool = False,
    tell: Callable[[int], None] | None = None,
) -> Store:
    """Pack files into a store; goes on where it was interrupted, and returns a finished store as it is.

    With ``overwrite`` it begins anew; a finished store stays whole until the new one is.

    Structures go the way of :func:`adatom.data.read.read`: labels found by name or ``keys``, converted from ``units``,
    checked. ``tell`` is called with the number of structures after each shard.

    Raises
    ------
    DataError
        As for reading; nothing is dropped. What was packed before stays, and the next run goes on from there.
    StoreError
        The folder holds something else, or a store of other files, keys or units; another process packs into it.
    """
    plan = _plan([Path(p) for p in files], keys or Keys(), units or Units())
    folder = Path(folder)
    if (folder / NEXT / INDEX).exists() and not (folder / INDEX).exists():
        with _locked(folder / NEXT):  # an overwriting run was killed at its very end
            _move_in(folder)
    if (folder / INDEX).exists() and not overwrite:
        return _finished(folder, plan)
    ours = is_store(folder) or (folder / NEXT).is_dir()
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not ours)):
        raise StoreError(
            "this folder holds something else, and nothing is overwritten",
            where=str(folder),
            wanted="a new folder, an empty one, or a store that was not finished",
            remedy="give another name",
        )
    place = folder / NEXT if (folder / INDEX).exists() else folder
    with _locked(place) as journal:
        if (folder / INDEX).exists() and not overwrite:  # another process has finished it just now
            (place / JOURNAL).unlink()
            return _finished(folder, plan)
        if overwrite:
            _remove(place)
            journal.truncate(0)
        writer = _Writer(place, journal, plan)
        writer.run([Path(p) for p in files], keys or Keys(), units or Units(), tell or (lambda done: None))
        _write_durably(place / INDEX, json.dumps(writer.index()).encode())
        if place == folder:
            (folder / JOURNAL).unlink()
        else:
            _move_in(folder)
    return Store(folder)


@contextmanager
def _locked(place: Path) -> Iterator[IO[bytes]]:
    """The journal of a folder, which no other process has; StoreError where one does."""
    while True:
        place.mkdir(parents=True, exist_ok=True)
        with (place / JOURNAL).open("a+b") as journal:
            try:
                fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StoreError(
                    "another process packs into this folder", where=str(place), remedy="wait for it, or end it"
                ) from None
            path = place / JOURNAL
            if path.exists() and os.path.samestat(os.fstat(journal.fileno()), path.stat()):
                yield journal
                break
            # else a process that finished just now has removed it
    if place.name == NEXT:
        with suppress(OSError):  # empty once all of it has moved, and no other process has begun in it
            place.rmdir()


def _finished(folder: Path, plan: dict[str, Any]) -> Store:
    """A store that is there already; StoreError where it is of something else."""
    store = Store(folder)
    _same_plan({name: store.about[name] for name in ("files", "keys", "units")}, plan, folder)
    return store


def _move_in(folder: Path) -> None:
    """Put a new store in the place of the old one; goes on where it was killed."""
    new = folder / NEXT
    (folder / INDEX).unlink(missing_ok=True)  # first: nothing is read as one store that is of two
    for name in FILES:
        if file_of(new, name).exists():
            file_of(new, name).replace(file_of(folder, name))
    for path in folder.glob(EDGES):
        path.unlink()
    (new / INDEX).replace(folder / INDEX)
    (new / JOURNAL).unlink()


class _Writer:
    """Appends shards, and keeps in the journal all that the next run needs to go on."""

    def __init__(self, folder: Path, journal: IO[bytes], plan: dict[str, Any]) -> None:
        self.folder, self.journal, self.plan = folder, journal, plan
        self.shards: list[dict[str, Any]] = []
        self.kinds: dict[str, int] = {}
        self.config_types: dict[str, int] = {}
        self.found: list[dict[str, Any]] = []
        self.at, self.state = [0, 0], None  # next file and frame, counts of that file
        self._resume()

    def _resume(self) -> None:
        """Take up what the journal says, and cut off what lies behind it."""
        self.journal.seek(0)
        good, lines = 0, self.journal.read().split(b"\n")
        for k, line in enumerate(lines[:-1]):  # a last line without its end was never finished
            told, _, text = line.partition(b" ")
            if hashlib.sha256(text).hexdigest().encode() != told:
                break
            good += len(line) + 1
            entry = json.loads(text)
            if k == 0:
                _same_plan({name: entry.get(name) for name in self.plan}, self.plan, self.folder)
                continue
            self.shards += [entry["shard"]] if entry["shard"] else []
            for table, names in ((self.kinds, entry["kinds"]), (self.config_types, entry["config_types"])):
                table.update({name: len(table) + i for i, name in enumerate(names)})
            self.at, self.state = entry["at"], entry["state"]
            self.found += entry["found"]
        self.journal.truncate(good)
        if good == 0:
            self._append(self.plan)
        for name in FILES:
            self._cut(name)

    def _cut(self, name: str) -> None:
        path, size = file_of(self.folder, name), shard_bytes(self.shards, len(self.shards) - 1, name)[1]
        have = path.stat().st_size if path.exists() else 0
        if self.shards and have < size:
            raise StoreError(
                "a store that was not finished has lost a part of what was packed",
                where=str(path),
                wanted=f"at least {size} bytes",
                got=f"{have} bytes",
                remedy="begin anew with --overwrite",
            )
        with path.open("ab") as stream:
            stream.truncate(size if self.shards else 0)
            if not self.shards and name.endswith("bounds"):
                stream.write(bytes(row_bytes(name)))

    def run(self, files: list[Path], keys: Keys, units: Units, tell: Callable[[int], None]) -> None:
        """Pack what is left."""
        names = short_names(files)
        batch: list[Structure] = []
        done: list[dict[str, Any]] = []
        atoms = 0
        for number in range(self.at[0], len(files)):
            reader, k = Reader(names[number], keys, units), self.at[1]
            if self.state is not None:
                reader.restore(self.state)
            for frame in stream_frames(files[number], k):
                structure = reader.structure(k, frame)
                k += 1
                batch.append(structure)
                atoms += len(structure.atoms)
                if len(batch) == SHARD_FRAMES or atoms >= SHARD_ATOMS:
                    self._shard(batch, [number, k], reader.state(), done)
                    batch, done, atoms = [], [], 0
                    tell(self.shards[-1]["ends"]["frames"])
            done.append(asdict(reader.found()))
            self.at, self.state = [number + 1, 0], None
        end: list[int] = [len(files), 0]
        if batch:
            self._shard(batch, end, None, done)
        elif done:  # the last file ended with a shard
            self.found += done
            self._append({"shard": None, "at": end, "state": None, "found": done, "kinds": [], "config_types": []})
        check_asked(keys, {name for kind in self.kinds for name in json.loads(kind)["fields"]}, files)

    def _shard(self, batch: list[Structure], at: list[int], state: Any, found: list[dict[str, Any]]) -> None:
        check_geometries(batch)
        before = {"frames": 0, "atoms": 0, "notes": 0} if not self.shards else self.shards[-1]["ends"]
        counted = len(self.kinds), len(self.config_types)
        arrays, notes, note_ends = self._arrays(batch)
        columns = {
            **{name: getattr(arrays, name) for name in FILES if hasattr(arrays, name)},
            "bounds": arrays.bounds[1:] + before["atoms"],
            "notes": np.frombuffer(notes, np.uint8),
            "note_bounds": note_ends + before["notes"],
        }
        ends = {
            "frames": before["frames"] + len(batch),
            "atoms": before["atoms"] + int(arrays.bounds[-1]),
            "notes": before["notes"] + len(notes),
        }
        hashes = {}
        for name, column in columns.items():
            data = np.ascontiguousarray(column, dtype=FILES[name][0]).tobytes()
            with file_of(self.folder, name).open("ab") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            first = bytes(row_bytes(name)) if name.endswith("bounds") and not self.shards else b""
            hashes[name] = hashlib.sha256(first + data).hexdigest()
        shard = {"frames": len(batch), "ends": ends, "sha256": hashes}
        self.shards.append(shard)
        self.found += found
        self._append({
            "shard": shard, "at": at, "state": state, "found": found,
            "kinds": list(self.kinds)[counted[0] :], "config_types": list(self.config_types)[counted[1] :],
        })  # fmt: skip

    def _arrays(self, batch: list[Structure]) -> tuple[Arrays, bytes, np.ndarray]:
        """Arrays of a shard with their check words, and the notes with their ends."""
        arrays = arrays_of(batch, self.config_types)
        notes = []
        for k, s in enumerate(batch):
            file, _, frame = s.name.rpartition(":")
            kind = {"file": file, "fields": list(s.fields), "keys": dict(s.keys), "tags": list(s.tags)}
            arrays.codes[k, KIND] = self.kinds.setdefault(json.dumps(kind), len(self.kinds))
            arrays.codes[k, FRAME] = int(frame)
            notes.append(_note(s))
        words = check_words(arrays, arrays.atoms_of(np.arange(len(batch)))[1])
        return replace(arrays, words=words), b"".join(notes), np.cumsum([len(n) for n in notes], dtype=np.int64)

    def _append(self, entry: dict[str, Any]) -> None:
        text = json.dumps(entry).encode()
        self.journal.write(hashlib.sha256(text).hexdigest().encode() + b" " + text + b"\n")
        self.journal.flush()
        os.fsync(self.journal.fileno())

    def index(self) -> dict[str, Any]:
        """The index of the finished store."""
        content = hashlib.sha256()
        for shard in self.shards:
            for name in ("rows", "numbers", "lattices", "totals", "bounds"):
                content.update(shard["sha256"][name].encode())
        index = {
            **self.plan,
            "frames": self.shards[-1]["ends"]["frames"],
            "atoms": self.shards[-1]["ends"]["atoms"],
            "fingerprint": f"sha256:{content.hexdigest()}",
            "found": self.found,
            "config_types": list(self.config_types),
            "kinds": [json.loads(kind) for kind in self.kinds],
            "shards": self.shards,
        }
        return {**index, "sha256": digest_of(index)}


def _note(structure: Structure) -> bytes:
    """What arrays do not hold of a structure: its checksum, the length of the text, the text, masses and momenta."""
    told: dict[str, Any] = {"tags": list(structure.tags.values())}
    atoms = structure.atoms
    if atoms.constraints:
        told["constraints"] = [json.loads(encode(c.todict())) for c in atoms.constraints]
    text = json.dumps(told, ensure_ascii=False).encode()
    more = b"".join(np.asarray(atoms.arrays[n], "<f8").tobytes() for n in ("masses", "momenta") if n in atoms.arrays)
    data = len(text).to_bytes(4, "little") + text + more
    return zlib.crc32(data).to_bytes(4, "little") + data


def _plan(files: list[Path], keys: Keys, units: Units) -> dict[str, Any]:
    """What decides the bytes of a store."""
    if not files:
        raise DataError("no data files were given", wanted="at least one path", remedy="name the files to pack")
    return {
        "format": FORMAT,
        "version": VERSION,
        "files": [_known(p, short) for p, short in zip(files, short_names(files), strict=True)],
        "keys": keys.model_dump(),
        "units": units.model_dump(),
    }


def _known(path: Path, name: str) -> dict[str, Any]:
    """A file by name, size, and the hash of its two ends."""
    if not path.is_file():
        next(stream_frames(path))  # says what is wrong
    size, sha = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as stream:
        sha.update(stream.read(HEAD))
        stream.seek(max(size - HEAD, 0))
        sha.update(stream.read(HEAD))
    return {"name": name, "bytes": size, "ends_sha256": sha.hexdigest()}


def _same_plan(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    """StoreError with the differences when a store is of other files, keys or units."""
    differ = list(_differences(old, {name: new[name] for name in old}))
    if differ:
        raise StoreError(
            "this store was packed from something else",
            where=str(folder),
            wanted="the same files, keys and units as before",
            got="; ".join(differ[:5]),
            remedy="give another folder, or begin anew with --overwrite",
        )


def _differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in old | new:
            yield from _differences(old.get(name), new.get(name), f"{where}.{name}" if where else name)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for k, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from _differences(a, b, f"{where}[{k}]")
    elif old != new:
        yield (
            f"{where} was {old}, is {new}"
            if not isinstance(old, list)
            else f"{where}: {len(old)} before, {len(new)} now"
        )


def _remove(folder: Path) -> None:
    """Take away a store but for its journal, which is locked, and nothing else that may lie in its folder."""
    for path in (folder / INDEX, *(file_of(folder, name) for name in FILES), *folder.glob(EDGES)):
        path.unlink(missing_ok=True)


def _write_durably(path: Path, data: bytes) -> None:
    """All of a file or nothing, on the disk before its name is."""
    part = path.with_suffix(".part")
    with part.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)
