"""Structures of several sources as one sequence that makes them when asked for, with their data as arrays.

What must look at every structure of a large set asks here, for a column of numbers, and makes no objects.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Final, Generic, TypeVar, overload

import numpy as np

from adatom.data.arrays import (
    CHARGE,
    CONFIG_TYPE,
    ENERGY,
    FLAGS,
    HAS,
    ISOLATED,
    PBC,
    SOME,
    SPIN,
    Arrays,
    Taken,
    arrays_of,
    check_words,
    joined,
    reordered,
)
from adatom.data.store import Store
from adatom.data.structure import Structure

T = TypeVar("T")
LARGE: Final = 20_000  # structures beyond which checks look at a sample


class Held(Sequence[Structure]):
    """Structures in memory, with the arrays that a store would have of them."""

    def __init__(self, structures: Sequence[Structure]) -> None:
        self.structures = list(structures)
        numbered: dict[str, int] = {}
        self.arrays = arrays_of(self.structures, numbered)
        self.config_types = list(numbered)

    def __len__(self) -> int:
        return len(self.structures)

    def __getitem__(self, k: Any) -> Any:
        return self.structures[k]

    def take(self, index: np.ndarray) -> Taken:
        """Structures as arrays, in the order of ``index`` (S,)."""
        return self.arrays.take(index)[0]

    def names(self, k: int) -> str:
        """Name of a structure."""
        return self.structures[k].name

    def tags(self, k: int) -> dict[str, str]:
        """The plain values that stood beside the atoms."""
        return dict(self.structures[k].tags)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over geometry and labels, in order."""
        return digest(self.structures)


def digest(structures: Sequence[Structure]) -> str:
    """SHA-256 over geometry and labels of structures, in order."""
    sha = hashlib.sha256()
    for s in structures:
        for array in (s.atoms.numbers, s.atoms.positions, np.asarray(s.atoms.cell), s.atoms.pbc, s.forces, s.stress):
            sha.update(np.ascontiguousarray(array, dtype=np.float64).tobytes())
        sha.update(np.float64(s.energy).tobytes())
        state = [s.atoms.info.get(key) for key in ("total_charge", "multiplicity")]
        if state != [None, None]:
            sha.update(repr([None if value is None else float(value) for value in state]).encode())
    return f"sha256:{sha.hexdigest()}"


class Lazy(Sequence[T], Generic[T]):
    """A sequence whose entries are made when asked for."""

    def __init__(self, length: int, entry: Callable[[int], T]) -> None:
        self._length, self._entry = length, entry

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, k: Any) -> Any:
        if isinstance(k, slice):
            return [self._entry(i) for i in range(*k.indices(self._length))]
        if not -self._length <= k < self._length:
            raise IndexError(k)
        return self._entry(int(k) % self._length)


class Selection(Sequence[Structure]):
    """Some structures of one or more sources, in any order.

    Parameters
    ----------
    parts
        Sources: stores, and structures in memory.
    index
        Which of them, counted through all parts, (n,); by default all.
    """

    def __init__(self, parts: Sequence[Store | Held], index: np.ndarray | None = None) -> None:
        self.parts = tuple(parts)
        self.starts = np.cumsum([0] + [len(p) for p in self.parts])
        self.which = np.arange(self.starts[-1]) if index is None else np.asarray(index, dtype=np.int64)

    @classmethod
    def of(cls, structures: Sequence[Structure]) -> Selection:
        """Any structures as a selection; one that is one already is left as it is."""
        if isinstance(structures, Selection):
            return structures
        return cls([structures if isinstance(structures, Store) else Held(structures)])

    def __len__(self) -> int:
        return len(self.which)

    @overload
    def __getitem__(self, k: int) -> Structure: ...
    @overload
    def __getitem__(self, k: slice) -> Selection: ...
    def __getitem__(self, k: int | slice) -> Structure | Selection:
        if isinstance(k, slice):
            return self.select(np.arange(len(self))[k])
        part, place = self._place(int(self.which[k]))
        structure: Structure = part[place]
        return structure

    def __iter__(self) -> Iterator[Structure]:
        return (self[k] for k in range(len(self)))

    def __add__(self, other: Sequence[Structure]) -> Selection:
        theirs = Selection.of(other)
        fresh = [p for p in theirs.parts if not any(p is q for q in self.parts)]
        parts = [*self.parts, *fresh]
        joint = Selection(parts)
        offset = np.array([next(joint.starts[i] for i, q in enumerate(parts) if q is p) for p in theirs.parts])
        part = np.searchsorted(theirs.starts, theirs.which, side="right") - 1
        moved = theirs.which - theirs.starts[part] + offset[part] if len(theirs) else theirs.which
        return joint.select(np.concatenate([self.which, moved]))

    def select(self, which: np.ndarray | Sequence[int]) -> Selection:
        """The ``which``-th of these, in that order."""
        return Selection(self.parts, self.which[np.asarray(which, dtype=np.int64)])

    def take(self, which: np.ndarray | Sequence[int]) -> Taken:
        """The ``which``-th of these as arrays, in that order; StoreError when a store was altered."""
        index = self.which[np.asarray(which, dtype=np.int64)]
        if len(self.parts) == 1:
            return self.parts[0].take(index)
        part = np.searchsorted(self.starts, index, side="right") - 1
        order = np.argsort(part, kind="stable")
        groups = [index[part == k] - self.starts[k] for k in np.unique(part)]
        taken = joined([self.parts[k].take(g) for k, g in zip(np.unique(part), groups, strict=True)])
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return reordered(taken, back)

    def _place(self, k: int) -> tuple[Store | Held, int]:
        part = int(np.searchsorted(self.starts, k, side="right")) - 1
        return self.parts[part], k - int(self.starts[part])

    def _column(self, read: Callable[[Arrays], np.ndarray]) -> np.ndarray:
        """One number of each structure."""
        whole = [read(p.arrays) for p in self.parts]
        column = whole[0] if len(whole) == 1 else np.concatenate(whole)
        return np.asarray(column[self.which])

    @cached_property
    def atoms(self) -> np.ndarray:
        """Number of atoms of each, (n,)."""
        return self._column(lambda a: np.diff(a.bounds))

    @cached_property
    def flags(self) -> np.ndarray:
        """Bits of :mod:`adatom.data.arrays` of each, (n,)."""
        return self._column(lambda a: a.codes[:, FLAGS])

    @property
    def isolated(self) -> np.ndarray:
        """Which are free atoms, (n,)."""
        return (self.flags & ISOLATED) > 0

    @property
    def periodic(self) -> np.ndarray:
        """Which are periodic in three directions, (n,)."""
        return np.asarray((self.flags & sum(PBC)) == sum(PBC))

    def has(self, label: str) -> np.ndarray:
        """Which carry a label, complete, (n,)."""
        return (self.flags & HAS[label]) > 0

    def has_some(self, label: str) -> np.ndarray:
        """Which have at least one finite number of a label, (n,)."""
        return (self.flags & SOME[label]) > 0

    @property
    def energies(self) -> np.ndarray:
        """Energies in eV, NaN where not labelled, (n,)."""
        return self._column(lambda a: a.totals[:, ENERGY])

    @property
    def charges(self) -> np.ndarray:
        """Total charges in e, NaN where the file does not say, (n,)."""
        return self._column(lambda a: a.totals[:, CHARGE])

    @property
    def spins(self) -> np.ndarray:
        """Multiplicities, NaN where the file does not say, (n,)."""
        return self._column(lambda a: a.totals[:, SPIN])

    @cached_property
    def elements(self) -> dict[int, int]:
        """Atomic numbers that occur, in order, and the number of their atoms."""
        total = np.zeros(256, dtype=np.int64)
        for arrays, which in self._by_part():
            times = np.bincount(which, minlength=len(arrays))
            for many in np.unique(times[times > 0]):
                meant = np.repeat(times == many, np.diff(arrays.bounds))
                total += many * np.bincount(arrays.numbers[meant], minlength=256)
        return {int(z): int(total[z]) for z in np.flatnonzero(total)}

    def numbers(self) -> list[np.ndarray]:
        """Atomic numbers of each structure, (atoms,) each."""
        found: list[np.ndarray] = [np.zeros(0)] * len(self)
        for arrays, which in self._by_part():
            atoms, _, counts = arrays.atoms_of(which)
            parts = np.split(arrays.numbers[atoms].astype(np.int64), counts.cumsum()[:-1])
            for k, part in zip(np.flatnonzero(self._of_part(arrays)), parts, strict=True):
                found[k] = part
        return found

    def first_with(self, element: int) -> int:
        """The first structure that holds an element."""
        first = len(self)
        for arrays, which in self._by_part():
            holds = np.add.reduceat((arrays.numbers == element).astype(np.int64), arrays.bounds[:-1]) > 0
            place = np.flatnonzero(holds[which])
            if len(place):
                rank = np.flatnonzero(self._of_part(arrays))
                first = min(first, int(rank[place[0]]))
        return first

    def _of_part(self, arrays: Arrays) -> np.ndarray:
        part = np.searchsorted(self.starts, self.which, side="right") - 1
        return np.asarray(part == next(k for k, p in enumerate(self.parts) if p.arrays is arrays))

    def _by_part(self) -> Iterator[tuple[Arrays, np.ndarray]]:
        """Arrays of every part, and which of them are meant."""
        for part, start, stop in zip(self.parts, self.starts[:-1], self.starts[1:], strict=True):
            which = self.which[(self.which >= start) & (self.which < stop)] - start
            if len(which):
                yield part.arrays, which

    @property
    def names(self) -> Sequence[str]:
        """Names, made when asked for."""
        return Lazy(len(self), self._name)

    def _name(self, k: int) -> str:
        part, place = self._place(int(self.which[k]))
        return part.names(place)

    @property
    def config_types(self) -> Sequence[str]:
        """Config types, looked up when asked for."""
        return Lazy(len(self), self._config_type)

    def _config_type(self, k: int) -> str:
        part, place = self._place(int(self.which[k]))
        return str(part.config_types[part.arrays.codes[place, CONFIG_TYPE]])

    def config_type_counts(self) -> Counter[str]:
        """How many structures are of each config type."""
        counts: Counter[str] = Counter()
        for part, start, stop in zip(self.parts, self.starts[:-1], self.starts[1:], strict=True):
            which = self.which[(self.which >= start) & (self.which < stop)] - start
            codes, many = np.unique(part.arrays.codes[which, CONFIG_TYPE], return_counts=True)
            for code, n in zip(codes, many, strict=True):
                counts[part.config_types[code]] += int(n)
        return counts

    def groups(self, among: np.ndarray, key: str) -> tuple[np.ndarray, list[str]]:
        """Group of each of the ``among``-th structures by a tag or by config type: numbers (n,) and the names.

        Groups are numbered in order of first appearance; the name is empty where a structure says nothing.
        """
        names: dict[str, int] = {}
        if key != "config_type":
            numbered = [names.setdefault(self._tag(int(k), key), len(names)) for k in among]
            return np.array(numbered, dtype=np.int64), list(names)
        tables = [np.array([names.setdefault(t, len(names)) for t in p.config_types] or [0]) for p in self.parts]
        codes = np.concatenate([t[p.arrays.codes[:, CONFIG_TYPE]] for t, p in zip(tables, self.parts, strict=True)])
        values, first, inverse = np.unique(codes[self.which[among]], return_index=True, return_inverse=True)
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        return rank[inverse], [list(names)[values[k]] for k in order]

    def _tag(self, k: int, key: str) -> str:
        part, place = self._place(int(self.which[k]))
        return part.tags(place).get(key, "")

    def fields(self) -> set[str]:
        """Names of all fields of all frames."""
        found: set[str] = set()
        for part in self.parts:
            if isinstance(part, Store):
                found.update(*(kind["fields"] for kind in part.kinds))
            else:
                found.update(*(s.fields for s in part.structures))
        return found

    def geometry_words(self) -> np.ndarray:
        """A 64-bit word of each geometry, (n,) uint64: structures that are equal bit for bit have equal words."""
        return self._column(lambda a: (a.words if len(a.words) else _words(a))[:, 0])

    def sample(self, most: int = LARGE, seed: int = 0) -> Selection:
        """At most ``most`` of them drawn at random, in order, the same each time; itself when there are no more."""
        if len(self) <= most:
            return self
        return self.select(np.sort(np.random.default_rng(seed).choice(len(self), most, replace=False)))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over what the parts hold, and which of it is meant: says whether two runs saw the same data."""
        if all(isinstance(p, Held) for p in self.parts):
            return digest(self)
        used = [p for p, a, b in zip(self.parts, self.starts[:-1], self.starts[1:], strict=True) if b > a]
        sha = hashlib.sha256()
        for part in used:
            sha.update(part.fingerprint.encode())
        sha.update(self.which.astype("<i8").tobytes())
        return f"sha256:{sha.hexdigest()}"


def _words(arrays: Arrays) -> np.ndarray:
    return check_words(arrays, arrays.atoms_of(np.arange(len(arrays)))[1])


def concatenated(*sets: Sequence[Structure]) -> Sequence[Structure]:
    """One set after the other; a list where all are lists."""
    if not any(isinstance(s, (Selection, Store)) for s in sets):
        return [s for structures in sets for s in structures]
    joint = Selection.of(sets[0])
    for structures in sets[1:]:
        joint = joint + structures
    return joint
