"""Which field of a frame is which label: found by name in a documented order, or as the user says.

Order of search, upper and lower case alike; the first name that a frame holds serves it:

- energy: ref_energy, dft_energy, energy_dft, qm_energy, free_energy (the one that forces are derivatives of), energy,
  total_energy, tot_energy, etot, e_tot; then any ``*_energy`` or ``energy_*``
- forces: ref_forces, dft_forces, forces_dft, qm_forces, forces, force; then any ``*_force(s)`` or ``force(s)_*``
- stress: ref_stress, dft_stress, stress; then any ``*_stress`` or ``stress_*``
- virial: ref_virial(s), dft_virial(s), virial(s); then any ``*_virial(s)`` or ``virial(s)_*``; it is used where there
  is no stress: stress = -virial / volume

Results of a calculator (``free_energy``, ``energy``, ``forces``, ``stress``) are fields like others. The open forms
leave out names that speak of something else: formation, interaction, kinetic, per atom, sigma, predicted, ...
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from adatom.config import Config, nearest
from adatom.errors import LabelError

NAMES: Final[dict[str, tuple[str, ...]]] = {
    "energy": (
        *("ref_energy", "dft_energy", "energy_dft", "qm_energy", "free_energy", "energy"),
        *("total_energy", "tot_energy", "etot", "e_tot"),
    ),
    "forces": ("ref_forces", "dft_forces", "forces_dft", "qm_forces", "forces", "force"),
    "stress": ("ref_stress", "dft_stress", "stress"),
    "virial": ("ref_virial", "ref_virials", "dft_virial", "dft_virials", "virial", "virials"),
    "charge": ("total_charge", "charge"),
    "spin": ("multiplicity", "spin_multiplicity", "spin"),
    "config_type": ("config_type",),
}
OPEN_FORMS: Final[dict[str, frozenset[str]]] = {
    "energy": frozenset({"energy"}),
    "forces": frozenset({"forces", "force"}),
    "stress": frozenset({"stress"}),
    "virial": frozenset({"virial", "virials"}),
    "charge": frozenset(),
    "spin": frozenset(),
    "config_type": frozenset(),
}
OTHER_THINGS: Final = frozenset(
    """
    adsorption ads atom atoms atomic atomization atomisation band binding bond cohesive conduction
    constraint convex correction cutoff d3 delta dispersion elastic electronic embedding error ewald
    excitation fermi formation gap hartree homo hull interaction internal kinetic local lumo mace mag
    magnetic mean nuclear per point pred predicted prediction reaction reference relative rms sigma spin
    std strain surface threshold tolerance tol uncertainty valence var weight weights xc zero zpe
    """.split()  # noqa: SIM905
)
VOIGT: Final = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])  # xx yy zz yz xz xy, the order of ASE


class Keys(Config):
    """Names of the fields that hold the labels; None: found by name (see the module's table).

    ``virial`` is used where there is no stress: stress = -virial / V.
    """

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None
    virial: str | None = None
    charge: str | None = None
    spin: str | None = None
    config_type: str | None = None


class Choice(NamedTuple):
    """The field that serves a label, and the fields that could have."""

    key: str
    rivals: tuple[str, ...]


def choose(fields: Mapping[str, Any], label: str, asked: str | None, where: str) -> Choice | None:
    """The field of a frame that serves ``label``, or None; a name that the user asked for has no rivals.

    Raises
    ------
    LabelError
        Several fields of the open form and none of the listed names: there is no telling which is meant.
    """
    if asked is not None:
        return Choice(asked, ()) if asked in fields else None
    lowered: dict[str, str] = {}
    for name in fields:
        lowered.setdefault(name.lower(), name)
    listed = [lowered[name] for name in NAMES[label] if name in lowered]
    if listed:
        return Choice(listed[0], tuple(listed[1:]))
    open_forms = sorted(name for name in fields if _is_open_form(name, label))
    if not open_forms:
        return None
    if len(open_forms) > 1 and any(not same(fields[open_forms[0]], fields[name]) for name in open_forms[1:]):
        raise LabelError(
            f"several fields could be the {label}",
            where=where,
            wanted="one",
            got=", ".join(open_forms),
            remedy=f"say which, as in  keys: {{{label}: {open_forms[0]}}}",
        )
    return Choice(open_forms[0], ())


def _is_open_form(name: str, label: str) -> bool:
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    ends = {words[0], words[-1]} if words else set()
    return bool(ends & OPEN_FORMS[label]) and not OTHER_THINGS & set(words)


def same(a: object, b: object, tolerance: float = 1e-6) -> bool:
    """Whether two fields hold the same numbers, 3x3 and Voigt forms apart."""
    left, right = _numbers(a), _numbers(b)
    if left is None or right is None or left.shape != right.shape:
        return False
    return bool(np.allclose(left, right, rtol=tolerance, atol=tolerance, equal_nan=True))


def _numbers(value: object) -> np.ndarray | None:
    """Value as float64, None when it is none; the words that stand for a missing value are NaN."""
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "none", "null", "nan")):
        return np.array(np.nan)
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None


def number(value: object, where: str) -> float:
    """One number; LabelError when the field holds something else."""
    array = _finite_or_nan(value, where, "one number")
    if array.size != 1:
        raise _wrong_shape(where, "one number per structure", array)
    return float(array.reshape(()))


def vectors(value: object, atoms: int, where: str) -> np.ndarray:
    """One vector per atom, (n, 3)."""
    array = _finite_or_nan(value, where, f"{atoms} rows of 3 numbers")
    if array.ndim == 0 and np.isnan(array):
        return np.full((atoms, 3), np.nan)
    if array.shape != (atoms, 3):
        raise _wrong_shape(where, f"shape ({atoms}, 3): one vector per atom", array)
    return array


def tensor(value: object, where: str) -> np.ndarray:
    """A 3x3 matrix from 3x3, 9 numbers row by row, or 6 in ASE's order xx yy zz yz xz xy."""
    array = _finite_or_nan(value, where, "3x3, 9 or 6 numbers")
    if array.ndim == 0 and np.isnan(array):
        return np.full((3, 3), np.nan)
    if array.shape in ((9,), (3, 3)):
        return array.reshape(3, 3)
    if array.shape == (6,):
        return np.asarray(array[VOIGT])
    raise _wrong_shape(where, "shape (3, 3), (9,) or (6,)", array)


def _finite_or_nan(value: object, where: str, wanted: str) -> np.ndarray:
    array = _numbers(value)
    if array is None or np.isinf(array).any():
        raise LabelError(
            "a label is no finite number",
            where=where,
            wanted=wanted,
            got=repr(value)[:80] if array is None else "an infinite value",
            remedy="repair the field, or name another one under keys",
        )
    return array


def _wrong_shape(where: str, wanted: str, array: np.ndarray) -> LabelError:
    return LabelError(
        "a label has the wrong shape",
        where=where,
        wanted=wanted,
        got=f"shape {array.shape}",
        remedy="repair the field, or name another one under keys",
    )


def unknown_key(asked: str, label: str, known: list[str], where: str) -> LabelError:
    """The error for a key that the user named and no frame holds."""
    near = nearest(asked, known)
    return LabelError(
        f"no frame has the field '{asked}' that keys.{label} asks for",
        where=where,
        wanted=f"a field named '{asked}'",
        got=f"fields {', '.join(known)}" if known else "frames without any field",
        remedy=f"did you mean '{near}'?" if near else "name one of the fields above, or drop the key to search by name",
    )


def check_asked(keys: Keys, fields: Collection[str], files: Sequence[Path]) -> None:
    """A key that the user named and that no frame of any file has is a mistake, not a missing label."""
    for label, asked in keys.model_dump().items():
        if asked is not None and asked not in fields:
            raise unknown_key(asked, label, sorted(fields), ", ".join(map(str, files)))
