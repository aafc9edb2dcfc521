"""Labels by themselves: are they there, are they numbers, are they real, how finely were they written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from adatom.config import nearest
from adatom.data.doctor.finding import Finding, Severity, about, by_file, count, file_of, files_of, listed, most_common
from adatom.data.doctor.surroundings import polarity
from adatom.data.read import LABELS, Structure

COARSE: Final = 1e-4  # eV/atom, resolution of energies that begins to matter
POLAR: Final = 0.02  # an atom with such surroundings has a force, whatever the symmetry


def has(structure: Structure, label: str) -> bool:
    """Whether a label is there and complete."""
    return bool(np.isfinite(getattr(structure, label)).all())


def _asked(structure: Structure, label: str) -> bool:
    """Whether a structure could carry a label that says something."""
    if label == "stress":
        return bool(structure.atoms.pbc.all()) and not structure.isolated
    return label == "energy" or len(structure.atoms) > 1


def coverage(structures: Sequence[Structure]) -> list[dict[str, Any]]:
    """For each file: frames, atoms, how many frames carry each label, and under which fields."""
    rows = []
    for file, members in by_file(structures).items():
        own = [structures[k] for k in members]
        row: dict[str, Any] = {"file": file, "frames": len(own), "atoms": sum(len(s.atoms) for s in own)}
        row |= {"isolated": sum(s.isolated for s in own), "keys": {}, "labelled": {}}
        for label in LABELS:
            row["labelled"][label] = sum(has(s, label) and (label != "forces" or "forces" in s.keys) for s in own)
            row["keys"][label] = dict(Counter(s.keys[label] for s in own if label in s.keys))
        rows.append(row)
    return rows


def check_coverage(structures: Sequence[Structure]) -> list[Finding]:
    """Labels that are missing or no numbers in some frames, in whole files, or in all of them."""
    found: list[Finding] = []
    for label in LABELS:
        asked = [k for k, s in enumerate(structures) if _asked(s, label)]
        lacking = [k for k in asked if not has(structures[k], label)]
        if not lacking or (label == "stress" and len(lacking) == len(asked)):
            continue
        if len(lacking) == len(asked):
            found += _nowhere(structures, lacking, label)
            continue
        files = by_file([structures[k] for k in asked])
        short = by_file([structures[k] for k in lacking])
        whole = [file for file in short if len(short[file]) == len(files[file])]
        partly = [k for k in lacking if file_of(structures[k]) not in whole]
        if partly:
            found.append(_partly(structures, asked, partly, label))
        if whole:
            message = f"no structure of {listed(whole)} has {label}, and those of other files have"
            remedy = f"leave these files out, or train without {label} (loss weight 0)"
            found.append(Finding(f"missing {label}", "warning", ", ".join(whole), message, remedy))
    return found


def _nowhere(structures: Sequence[Structure], lacking: list[int], label: str) -> list[Finding]:
    """Not one structure has the label: nothing to train on without energies, energies alone without forces."""
    first = structures[lacking[0]]
    fields = ", ".join(first.fields) or "none at all"
    near = nearest(label, list(first.fields))
    option = f"--{label} {near or 'NAME'}, or keys: {{{label}: {near or 'NAME'}}}"
    broken = [k for k in lacking if label in structures[k].keys]
    message = f"no structure has {label}" + (" that is a number" if broken else f"; the fields are {fields}")
    severity: Severity = "error" if label == "energy" else "note"
    remedy = f"name the field ({option})" + ("" if label == "energy" else ", or train on energies alone")
    return [about(f"missing {label}", severity, structures, lacking, message, remedy)]


def _partly(structures: Sequence[Structure], asked: list[int], lacking: list[int], label: str) -> Finding:
    """Some frames of a file have the label and others do not: a slip of the key, a NaN, a failed calculation."""
    first = structures[lacking[0]]
    usual = most_common(structures[k].keys[label] for k in asked if label in structures[k].keys)
    spare = [name for name in first.fields if name not in structures[_first_with(structures, asked, label)].fields]
    near = nearest(usual, spare)
    message = f"{len(lacking)} of {len(asked)} structures lack {label}"
    remedy = f"label or remove them; training with {label} would refuse them"
    if label in first.keys:
        values = np.asarray(getattr(first, label))
        message += f": {first.keys[label]!r} of {first.name} holds {int(np.isnan(values).sum())} values that are NaN"
        remedy = f"remove or label these frames; training with {label} would refuse them"
    elif near:
        message += f": {first.name} has no field {usual!r}, but one named {near!r}"
        remedy = f"rename {near!r} to {usual!r} in these frames"
    else:
        message += f": {first.name} has no field {usual!r}, only {', '.join(first.fields) or 'none at all'}"
    severity: Severity = "warning" if label == "stress" and label not in first.keys and not near else "error"
    return about(f"missing {label}", severity, structures, lacking, message, remedy)


def _first_with(structures: Sequence[Structure], asked: list[int], label: str) -> int:
    return next(k for k in asked if has(structures[k], label))


def check_zeros(structures: Sequence[Structure]) -> list[Finding]:
    """Labels that are exactly zero where nothing makes them so: placeholders, not measurements."""
    found: list[Finding] = []
    bound = [k for k, s in enumerate(structures) if len(s.atoms) > 1]
    for label in LABELS:
        known = [k for k in bound if has(structures[k], label)]
        empty = [k for k in known if not np.any(getattr(structures[k], label))]
        if not empty:
            continue
        are = "are" if label == "forces" else "is"
        remedy = "placeholders, it seems: name the right field under keys, or remove them"
        if len(known) >= 5 and len(empty) > 0.9 * len(known):
            message = f"{label} {are} exactly zero in {len(empty)} of {len(known)} structures"
            found.append(Finding(f"empty {label}", "error", files_of(structures), message, remedy))
            continue
        if label == "forces":
            empty = [k for k in empty if polarity(structures[k].atoms).max() > POLAR]
        if label == "energy" and len(empty) == 1:  # the zero of a relative scale
            continue
        if label == "stress":
            empty = [k for k in empty if np.any(structures[k].forces != 0.0)]
        if empty:
            reason = " although their surroundings are lopsided" if label == "forces" else ""
            message = (
                f"{label} {are} exactly zero in {len(empty)} of {len(known)} structures{reason}, and not in the others"
            )
            found.append(about(f"empty {label}", "error", structures, empty, message, remedy))
    return [*found, *_fixed(structures, bound)]


def _fixed(structures: Sequence[Structure], bound: list[int]) -> list[Finding]:
    """Single atoms with zeroed forces: constraints that were written into the labels."""
    held: dict[int, int] = {}
    for k in bound:
        s = structures[k]
        still = ~s.forces.any(axis=1)
        if still.any() and not still.all() and np.isfinite(s.forces).all():
            atoms = int((polarity(s.atoms)[still] > POLAR).sum())
            if atoms:
                held[k] = atoms
    if len(held) < 2:
        return []
    message = (
        f"{sum(held.values()):,} atoms in {count(len(held), 'structure')} have a force of exactly zero although their "
        "surroundings are lopsided"
    )
    remedy = "fixed atoms, it seems: use the forces before constraints (ASE: get_forces(apply_constraint=False))"
    return [about("fixed atoms", "warning", structures, list(held), message, remedy)]


def check_constants(structures: Sequence[Structure]) -> list[Finding]:
    """One energy, or one set of forces, that stands beside many different structures."""
    found: list[Finding] = []
    known = [k for k, s in enumerate(structures) if len(s.atoms) > 1 and np.isfinite(s.energy) and s.energy != 0.0]
    energies = Counter((structures[k].energy, len(structures[k].atoms)) for k in known)
    if len(known) >= 10:
        (value, _), times = energies.most_common(1)[0]
        same = [k for k in known if structures[k].energy == value]
        different = {structures[k].atoms.positions.tobytes() for k in same}
        if times > 0.3 * len(known) and len(different) > 0.8 * len(same):
            message = f"{times} of {len(known)} structures have the same energy, {value:.6g} eV"
            remedy = "check which field serves as energy, and how the file was made"
            found.append(about("constant energy", "error", structures, same, message, remedy))
    forces: dict[bytes, list[int]] = {}
    for k, s in enumerate(structures):
        if len(s.atoms) > 2 and np.isfinite(s.forces).all() and (np.abs(s.forces) > 1e-3).sum() > 6:
            forces.setdefault(s.forces.tobytes(), []).append(k)
    repeated = [
        k
        for members in forces.values()
        if len(members) > 1
        for k in members[1:]
        if not _same_shape(structures[members[0]], structures[k])
    ]
    if len(repeated) >= 3:
        message = f"{len(repeated)} structures carry exactly the forces of another, different one"
        remedy = "labels were copied to the wrong frames: make the file anew"
        found.append(about("repeated forces", "error", structures, repeated, message, remedy))
    return found


def _same_shape(a: Structure, b: Structure) -> bool:
    """Whether two structures differ by a translation at most."""
    first, second = a.atoms.get_positions(wrap=False), b.atoms.get_positions(wrap=False)
    if first.shape != second.shape:
        return False
    shift = second - first
    fractional = (
        (shift - shift[0]) @ np.linalg.pinv(np.asarray(a.atoms.cell)) if a.atoms.pbc.any() else shift - shift[0]
    )
    return bool(np.abs(fractional - np.round(fractional) * a.atoms.pbc.any()).max() < 1e-4)


def check_resolution(structures: Sequence[Structure]) -> list[Finding]:
    """Energies written with too few digits: large totals in single precision, or rounded."""
    known = [s for s in structures if len(s.atoms) > 1 and np.isfinite(s.energy) and s.energy != 0.0]
    if len(known) < 10:
        return []
    energies = np.array([s.energy for s in known])
    atoms = np.array([len(s.atoms) for s in known])
    single = energies.astype(np.float32)
    if (single == energies).all() or _digits(energies) <= 7:
        step, how = float(np.median(np.spacing(np.abs(single)) / atoms)), "single precision"
    else:
        decimals = next((d for d in range(7) if np.abs(energies - np.round(energies, d)).max() < 1e-9), 7)
        step, how = float(np.median(10.0**-decimals / atoms)), f"{decimals} decimals"
    if step < COARSE:
        return []
    message = f"energies are written in {how}: steps of {1e3 * step:.2g} meV/atom"
    remedy = "write them in full (double precision), or as differences to reference energies"
    severity: Severity = "warning" if step > 1e-3 else "note"
    return [Finding("coarse energy", severity, files_of(structures), message, remedy)]


def _digits(values: np.ndarray) -> int:
    """Significant digits that the values need at most, up to 12."""
    return next((d for d in range(5, 12) if all(float(f"{v:.{d - 1}e}") == v for v in values[:200].tolist())), 12)
