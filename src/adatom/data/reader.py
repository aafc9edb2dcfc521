"""One frame of a file becomes one structure: labels found, converted and checked, and what served them counted."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import field_validator

from adatom import units
from adatom.config import Config, nearest
from adatom.data.frames import Frame
from adatom.data.labels import Keys, choose, number, same, tensor, vectors
from adatom.data.structure import LABELS, Found, Structure
from adatom.errors import GeometryError
from adatom.neighbors import check_geometry


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


FACTORS: Final[dict[str, Callable[[str], float]]] = {
    "energy": units.energy_factor,
    "forces": units.force_factor,
    "stress": units.stress_factor,
}


class Reader:
    """Turns the frames of one file into structures and counts what served."""

    def __init__(self, file: str, keys: Keys, units: Units) -> None:
        self.file, self.keys = file, keys
        self.factors = {label: FACTORS[label](getattr(units, label)) for label in LABELS}
        self.served: dict[str, Counter[str]] = {label: Counter() for label in LABELS}
        self.remarks: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()  # frames, atoms, isolated, and frames with each complete label

    def state(self) -> dict[str, Any]:
        """The counts so far as plain values; ``restore`` takes them up."""
        served = {label: dict(counter) for label, counter in self.served.items()}
        return {"served": served, "remarks": dict(self.remarks), "counts": dict(self.counts)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on counting from ``state``."""
        self.served = {label: Counter(counts) for label, counts in state["served"].items()}
        self.remarks, self.counts = Counter(state["remarks"]), Counter(state["counts"])

    def structure(self, k: int, frame: Frame) -> Structure:
        """The ``k``-th frame of the file; LabelError when a label is none."""
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
            else number(fields[energy_key], field_of(name, energy_key)) * self.factors["energy"],
            forces=np.full((len(atoms), 3), np.nan)
            if forces_key is None
            else vectors(fields[forces_key], len(atoms), field_of(name, forces_key)) * self.factors["forces"],
            stress=self._stress(frame, name, used),
            name=name,
            config_type="" if config_type is None else str(fields[config_type.key]),
            tags={n: str(v) for n, v in fields.items() if isinstance(v, (str, int, float, bool, np.generic))},
            fields=tuple(fields),
            keys=used,
        )
        if structure.isolated and np.isnan(structure.forces).any():
            structure.forces[:] = 0.0  # by symmetry
        self.counts.update(frames=1, atoms=len(atoms), isolated=int(structure.isolated))
        self.counts.update({label: int(structure.has(label)) for label in LABELS})
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
                value = number(frame.fields[choice.key], field_of(name, choice.key))
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
        value = tensor(frame.fields[choice.key], field_of(name, choice.key))
        volume = abs(np.linalg.det(np.asarray(frame.atoms.cell)))
        if stress is not None:
            value = value * self.factors["stress"]
        elif volume > 0:  # without volume the geometry check will speak
            value = -value * self.factors["energy"] / volume
        for rival in choice.rivals:
            if not same(value, tensor(frame.fields[rival], field_of(name, rival))):
                self.remarks[f"stress: '{choice.key}' was taken, '{rival}' holds other values"] += 1
        if np.abs(value - value.T).max() > 1e-2 * np.abs(value).max() + 1e-5:
            self.remarks["stress: not symmetric, its symmetric part is taken"] += 1
        return np.asarray(0.5 * (value + value.T))

    def found(self) -> Found:
        """What the file held, as far as it was read."""
        remarks, counts = Counter(self.remarks), self.counts
        for label, counter in self.served.items():
            if len(counter) > 1:
                remarks[f"{label}: more than one field serves: {', '.join(counter)}"] = counts["frames"]
        return Found(
            file=self.file,
            frames=counts["frames"],
            atoms=counts["atoms"],
            isolated=counts["isolated"],
            keys={label: dict(counter) for label, counter in self.served.items()},
            labelled={label: counts[label] for label in LABELS},
            remarks=tuple(f"{text} ({n} frames)" for text, n in remarks.items()),
        )


def field_of(name: str, key: str) -> str:
    """Where a field of a frame stands, for errors."""
    file, _, frame = name.rpartition(":")
    return f"{file}, frame {frame}, field '{key}'"


def check_geometries(structures: Sequence[Structure]) -> None:
    """The first impossible geometry is raised, with the list of all others of the file."""
    bad: list[tuple[Structure, GeometryError]] = []
    for structure in structures:
        try:
            check_geometry(structure.atoms, where=field_of(structure.name, "positions").rpartition(", field")[0])
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


def short_names(files: Sequence[Path]) -> list[str]:
    """File names, with their paths where two files are called alike."""
    counts = Counter(p.name for p in files)
    return [p.name if counts[p.name] == 1 else str(p) for p in files]
