"""The border: files become structures with labels in Å, eV, eV/Å and eV/Å^3, and what was found is told."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase
import numpy as np
from pydantic import field_validator
from rich.table import Table

from adatom import units
from adatom.config import Config, nearest
from adatom.data.frames import Frame, read_frames
from adatom.data.labels import Keys, choose, number, same, tensor, unknown_key, vectors
from adatom.errors import DataError, GeometryError, LabelError
from adatom.neighbors import check_geometry

__all__ = ["LABELS", "Found", "Keys", "Structure", "Units", "fingerprint", "found_table", "read", "require"]

LABELS = ("energy", "forces", "stress")


class Units(Config):
    """Units of the labels in the files; a virial is in the unit of energy.

    Energies: eV, meV, Hartree, Ry, kcal/mol, kJ/mol. Forces: energy/length with Å (A, Angstrom), Bohr, nm. Stress:
    energy/length^3, GPa, kbar, bar; a leading minus, as in ``-kbar``, where compression is positive (VASP's OUTCAR).
    """

    energy: str = "eV"
    forces: str = "eV/Å"
    stress: str = "eV/Å^3"

    @field_validator("energy", "forces", "stress")
    @classmethod
    def _known(cls, value: str, info: Any) -> str:
        try:
            FACTORS[info.field_name](value)
        except KeyError:
            known = {
                "energy": [*units.ENERGY],
                "forces": ["eV/Å", "Hartree/Bohr", "Ry/Bohr", "kcal/mol/Å", "kJ/mol/nm"],
                "stress": ["eV/Å^3", "Hartree/Bohr^3", *units.PRESSURE, "-kbar"],
            }[info.field_name]
            near = nearest(value, known)
            hint = f"did you mean '{near}'?" if near else f"known: {', '.join(known)}"
            raise ValueError(f"unknown unit of {info.field_name} '{value}': {hint}") from None
        return value


FACTORS: dict[str, Callable[[str], float]] = {
    "energy": units.energy_factor,
    "forces": units.force_factor,
    "stress": units.stress_factor,
}


@dataclass(frozen=True)
class Structure:
    """Atoms with their labels in eV, eV/Å and eV/Å^3 (tension positive); NaN = not labelled."""

    # masses, momenta and constraints as in the file; info holds total_charge and multiplicity where the file gives them
    atoms: ase.Atoms
    energy: float
    forces: np.ndarray  # (n, 3)
    stress: np.ndarray  # (3, 3)
    name: str  # file and frame counted from 0: "train.xyz.xz:12"
    config_type: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)  # the plain values that stood beside the atoms, for grouping
    fields: tuple[str, ...] = ()  # names of all fields of the frame
    keys: Mapping[str, str] = field(default_factory=dict)  # label -> the field that served it

    @property
    def isolated(self) -> bool:
        """A free atom, the reference of its element: one atom in the open, or in a box and called isolated."""
        alone = len(self.atoms) == 1
        return alone and (not self.atoms.pbc.any() or "isolated" in self.config_type.lower())


@dataclass(frozen=True)
class Found:
    """What one file held."""

    file: str
    frames: int
    atoms: int
    isolated: int  # free atoms among the frames
    keys: Mapping[str, Mapping[str, int]]  # label -> field -> frames it served
    labelled: Mapping[str, int]  # label -> frames that have it, complete
    remarks: tuple[str, ...] = ()

    def key(self, label: str) -> str:
        """The field, or fields, that served a label; empty where none did."""
        return ", ".join(self.keys.get(label, {}))


def read(
    paths: str | Path | Sequence[str | Path], keys: Keys | None = None, units: Units | None = None
) -> tuple[list[Structure], list[Found]]:
    """Structures of one or more files, and what each file held.

    Fields serve labels by name (see :mod:`adatom.data.labels`) or as ``keys`` says, frame by frame. Labels are
    converted to eV, eV/Å and eV/Å^3; a stress is made symmetric, and dropped where the structure is not periodic in
    three directions (it has no volume). A free atom has zero forces by symmetry, labelled or not. Missing labels
    become NaN: see :func:`require`.

    Raises
    ------
    DataError
        A missing, unreadable, truncated or empty file.
    LabelError
        A label of the wrong shape or kind, or a key that no frame of any file has.
    GeometryError
        A periodic cell without volume, overlapping atoms, positions that are no numbers; names file and frame.
    """
    keys, units = keys or Keys(), units or Units()
    files = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(p) for p in paths]
    if not files:
        raise DataError("no data files were given", wanted="at least one path", remedy="name the files to read")
    factors = {label: FACTORS[label](getattr(units, label)) for label in LABELS}
    names = _short_names(files)
    structures: list[Structure] = []
    found: list[Found] = []
    for path, short in zip(files, names, strict=True):
        frames = read_frames(path)
        reader = _Reader(short, keys, factors)
        own = [reader.structure(k, frame) for k, frame in enumerate(frames)]
        _check_geometries(own)
        structures += own
        found.append(reader.found(own))
    _check_asked(keys, structures, files)
    return structures, found


def _short_names(files: list[Path]) -> list[str]:
    """File names, with their paths where two files are called alike."""
    counts = Counter(p.name for p in files)
    return [p.name if counts[p.name] == 1 else str(p) for p in files]


class _Reader:
    """Turns the frames of one file into structures and counts what served."""

    def __init__(self, file: str, keys: Keys, factors: dict[str, float]) -> None:
        self.file, self.keys, self.factors = file, keys, factors
        self.served: dict[str, Counter[str]] = {label: Counter() for label in LABELS}
        self.remarks: Counter[str] = Counter()

    def structure(self, k: int, frame: Frame) -> Structure:
        name = f"{self.file}:{k}"
        atoms, fields = frame.atoms, frame.fields
        used: dict[str, str] = {}
        energy_key = self._take(fields, "energy", name, used)
        forces_key = self._take(fields, "forces", name, used)
        config_type = choose(fields, "config_type", self.keys.config_type, name)
        self._charge_and_spin(frame, name)
        structure = Structure(
            atoms=atoms,
            energy=np.nan
            if energy_key is None
            else number(fields[energy_key], _field(name, energy_key)) * self.factors["energy"],
            forces=np.full((len(atoms), 3), np.nan)
            if forces_key is None
            else vectors(fields[forces_key], len(atoms), _field(name, forces_key)) * self.factors["forces"],
            stress=self._stress(frame, name, used),
            name=name,
            config_type="" if config_type is None else str(fields[config_type.key]),
            tags={n: str(v) for n, v in fields.items() if isinstance(v, (str, int, float, bool, np.generic))},
            fields=tuple(fields),
            keys=used,
        )
        if structure.isolated and np.isnan(structure.forces).any():
            structure.forces[:] = 0.0  # by symmetry
        return structure

    def _take(self, fields: Mapping[str, Any], label: str, name: str, used: dict[str, str]) -> str | None:
        """The field that serves a label; counts it, and remarks on rivals that say otherwise."""
        choice = choose(fields, label, getattr(self.keys, label), name)
        if choice is None:
            return None
        used[label] = choice.key
        self.served[label][choice.key] += 1
        for rival in choice.rivals:
            if not same(fields[choice.key], fields[rival]):
                self.remarks[f"{label}: '{choice.key}' was taken, '{rival}' holds other values"] += 1
        return choice.key

    def _charge_and_spin(self, frame: Frame, name: str) -> None:
        """Total charge and multiplicity go into ``atoms.info``, where graphs look for them."""
        for label, info in (("charge", "total_charge"), ("spin", "multiplicity")):
            choice = choose(frame.fields, label, getattr(self.keys, label), name)
            if choice is not None and np.ndim(frame.fields[choice.key]) == 0:
                value = number(frame.fields[choice.key], _field(name, choice.key))
                if np.isfinite(value):
                    frame.atoms.info[info] = value

    def _stress(self, frame: Frame, name: str, used: dict[str, str]) -> np.ndarray:
        """Stress in eV/Å^3 from the stress field, else from the virial; NaN where there is neither, or no volume."""
        missing = np.full((3, 3), np.nan)
        stress_key, virial_key = self.keys.stress, self.keys.virial
        stress = choose(frame.fields, "stress", stress_key, name) if stress_key or not virial_key else None
        virial = choose(frame.fields, "virial", virial_key, name) if virial_key or not stress_key else None
        choice = stress or virial
        if choice is None:
            return missing
        if not frame.atoms.pbc.all():
            self.remarks["stress: dropped, the structure is not periodic in three directions"] += 1
            return missing
        used["stress"] = choice.key
        self.served["stress"][choice.key] += 1
        value = tensor(frame.fields[choice.key], _field(name, choice.key))
        volume = abs(np.linalg.det(np.asarray(frame.atoms.cell)))
        if stress is not None:
            value = value * self.factors["stress"]
        elif volume > 0:  # without volume the geometry check will speak
            value = -value * self.factors["energy"] / volume
        for rival in choice.rivals:
            if not same(value, tensor(frame.fields[rival], _field(name, rival))):
                self.remarks[f"stress: '{choice.key}' was taken, '{rival}' holds other values"] += 1
        if np.abs(value - value.T).max() > 1e-2 * np.abs(value).max() + 1e-5:
            self.remarks["stress: not symmetric, its symmetric part is taken"] += 1
        return np.asarray(0.5 * (value + value.T))

    def found(self, structures: list[Structure]) -> Found:
        for label, counter in self.served.items():
            if len(counter) > 1:
                self.remarks[f"{label}: more than one field serves: {', '.join(counter)}"] = len(structures)
        return Found(
            file=self.file,
            frames=len(structures),
            atoms=sum(len(s.atoms) for s in structures),
            isolated=sum(s.isolated for s in structures),
            keys={label: dict(counter) for label, counter in self.served.items()},
            labelled={label: sum(_has(s, label) for s in structures) for label in LABELS},
            remarks=tuple(f"{text} ({n} frames)" for text, n in self.remarks.items()),
        )


def _field(name: str, key: str) -> str:
    file, _, frame = name.rpartition(":")
    return f"{file}, frame {frame}, field '{key}'"


def _has(structure: Structure, label: str) -> bool:
    """Whether a label is there and complete."""
    return bool(np.isfinite(getattr(structure, label)).all())


def _check_geometries(structures: list[Structure]) -> None:
    """The first impossible geometry is raised, with the list of all others of the file."""
    bad: list[tuple[Structure, GeometryError]] = []
    for structure in structures:
        try:
            check_geometry(structure.atoms, where=_field(structure.name, "positions").rpartition(", field")[0])
        except GeometryError as error:
            bad.append((structure, error))
    if not bad:
        return
    first = bad[0][1]
    others = ", ".join(s.name.rpartition(":")[2] for s, _ in itertools.islice(bad, 1, 11))
    more = f"; the same file has {len(bad) - 1} more such frames: {others}{', ...' if len(bad) > 11 else ''}"
    raise GeometryError(
        first.problem,
        where=first.where,
        wanted=first.wanted,
        got=f"{first.got or ''}{more if others else ''}" or None,
        remedy=first.remedy,
    ) from first


def _check_asked(keys: Keys, structures: list[Structure], files: list[Path]) -> None:
    """A key that the user named and that no frame has is a mistake, not a missing label."""
    known = sorted({name for s in structures for name in s.fields})
    for label, asked in keys.model_dump().items():
        if asked is not None and asked not in known:
            raise unknown_key(asked, label, known, ", ".join(map(str, files)))


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
    for label in sorted(labels):
        if label not in LABELS:
            raise LabelError(f"there is no label '{label}'", wanted=", ".join(LABELS), got=label)
        asked = [s for s in structures if label != "stress" or (s.atoms.pbc.all() and not s.isolated)]
        lacking = [s for s in asked if not _has(s, label)]
        if not asked:
            raise LabelError(
                "the loss needs stress, and no structure is periodic in three directions",
                where=structures[0].name.rpartition(":")[0],
                wanted="periodic structures with stress",
                remedy="set the stress weight to 0",
            )
        if lacking:
            raise _missing(lacking, len(asked), label)


def _missing(lacking: list[Structure], asked: int, label: str) -> LabelError:
    first = lacking[0]
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
        f"the loss needs {label}, and {len(lacking)} of {asked} structures lack it",
        where=_field(first.name, key or label),
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
    """SHA-256 over geometry and labels, in order: says whether two runs saw the same data."""
    digest = hashlib.sha256()
    for s in structures:
        for array in (s.atoms.numbers, s.atoms.positions, np.asarray(s.atoms.cell), s.atoms.pbc, s.forces, s.stress):
            digest.update(np.ascontiguousarray(array, dtype=np.float64).tobytes())
        digest.update(np.float64(s.energy).tobytes())
    return f"sha256:{digest.hexdigest()}"
