"""Errors of a test set: overall, per element, per kind of structure, and the structures that are worst."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adatom.elements import symbol
from adatom.report.load import Predictions
from adatom.units import EV_PER_A3_IN_GPA


@dataclass(frozen=True)
class Errors:
    """Size of a set of residuals: root mean square, mean absolute and largest, in the unit of the residuals."""

    count: int
    rmse: float
    mae: float
    largest: float


@dataclass(frozen=True)
class Residuals:
    """Prediction minus label. Energy (S,) meV/atom, forces (N, 3) meV/Å, stress (S, 3, 3) GPa; NaN = not labelled."""

    energy: np.ndarray
    forces: np.ndarray
    stress: np.ndarray


@dataclass(frozen=True)
class TypeRow:
    """Errors of the structures of one ``config_type``; ``""`` where the file has none."""

    name: str
    structures: int
    energy: Errors | None
    forces: Errors | None
    stress: Errors | None


@dataclass(frozen=True)
class ElementRow:
    """Force errors on the atoms of one element; ``label_rms`` is the size of their forces, meV/Å."""

    symbol: str
    atoms: int
    forces: Errors | None
    label_rms: float | None


@dataclass(frozen=True)
class Offender:
    """One structure and how far off it is; ``atom`` (from 0) carries the largest force error."""

    name: str
    config_type: str
    n_atoms: int
    energy: float | None  # signed, meV/atom
    forces: Errors | None
    atom: str
    stress: Errors | None
    worst_in: tuple[str, ...]


def residuals(predictions: Predictions) -> Residuals:
    """Prediction minus label in the units people quote."""
    p = predictions
    return Residuals(
        energy=1e3 * (p.energy - p.energy_ref) / np.maximum(p.n_atoms, 1),
        forces=1e3 * (p.forces - p.forces_ref),
        stress=EV_PER_A3_IN_GPA * (p.stress - p.stress_ref),
    )


def errors(values: np.ndarray) -> Errors | None:
    """RMSE, MAE and largest of the labelled entries; None when there are none."""
    known = values[np.isfinite(values)]
    if known.size == 0:
        return None
    return Errors(
        int(known.size), float(np.sqrt(np.mean(known**2))), float(np.mean(np.abs(known))), float(np.abs(known).max())
    )


def overall(predictions: Predictions) -> TypeRow:
    """Errors of the whole set."""
    r = residuals(predictions)
    return TypeRow("all", predictions.n_atoms.shape[0], errors(r.energy), errors(r.forces), errors(r.stress))


def by_config_type(predictions: Predictions) -> list[TypeRow]:
    """One row per kind of structure, the largest force error first."""
    r, owner = residuals(predictions), predictions.owner
    rows = []
    for name in np.unique(predictions.config_types):
        chosen = predictions.config_types == name
        rows.append(
            TypeRow(
                str(name),
                int(chosen.sum()),
                errors(r.energy[chosen]),
                errors(r.forces[chosen[owner]]),
                errors(r.stress[chosen]),
            )
        )
    return sorted(rows, key=lambda row: -(row.forces.rmse if row.forces else 0.0))


def by_element(predictions: Predictions) -> list[ElementRow]:
    """One row per element, by atomic number."""
    r = residuals(predictions)
    rows = []
    for z in np.unique(predictions.numbers):
        chosen = predictions.numbers == z
        label = errors(1e3 * predictions.forces_ref[chosen])
        rows.append(
            ElementRow(symbol(int(z)), int(chosen.sum()), errors(r.forces[chosen]), label.rmse if label else None)
        )
    return rows


def worst(predictions: Predictions, per_quantity: int = 5) -> list[Offender]:
    """The structures with the largest errors in energy, forces or stress, the largest force error first."""
    r, owner = residuals(predictions), predictions.owner
    S = predictions.n_atoms.shape[0]
    scores = {
        "energy": np.abs(r.energy),
        "forces": _rms_per_structure(r.forces, owner, S),
        "stress": np.sqrt(np.mean(r.stress**2, axis=(1, 2))),
    }
    found: dict[int, list[str]] = {}
    for quantity, score in scores.items():
        ranked = np.argsort(-np.nan_to_num(score, nan=-1.0), kind="stable")[:per_quantity]
        for index in ranked[np.isfinite(score[ranked])]:
            found.setdefault(int(index), []).append(quantity)
    rows = [_offender(predictions, r, owner, index, tuple(why)) for index, why in found.items()]
    return sorted(rows, key=lambda row: -(row.forces.rmse if row.forces else 0.0))


def _rms_per_structure(values: np.ndarray, owner: np.ndarray, S: int) -> np.ndarray:
    """Root mean square of (N, 3) per structure, (S,); NaN where nothing is labelled."""
    known = np.isfinite(values)
    squares = np.bincount(owner, (np.where(known, values, 0.0) ** 2).sum(axis=1), minlength=S)
    counts = np.bincount(owner, known.sum(axis=1), minlength=S)
    return np.asarray(np.sqrt(np.divide(squares, counts, out=np.full(S, np.nan), where=counts > 0)))


def _offender(p: Predictions, r: Residuals, owner: np.ndarray, index: int, why: tuple[str, ...]) -> Offender:
    atoms = np.flatnonzero(owner == index)
    sizes = np.linalg.norm(r.forces[atoms], axis=1)  # (n,)  one length per atom, not per component
    atom = ""
    if np.isfinite(sizes).any():
        k = int(np.nanargmax(sizes))
        atom = f"{symbol(int(p.numbers[atoms[k]]))} {k}"
    energy = float(r.energy[index])
    return Offender(
        name=str(p.names[index]),
        config_type=str(p.config_types[index]),
        n_atoms=int(p.n_atoms[index]),
        energy=energy if np.isfinite(energy) else None,
        forces=errors(r.forces[atoms]),
        atom=atom,
        stress=errors(r.stress[index]),
        worst_in=why,
    )
