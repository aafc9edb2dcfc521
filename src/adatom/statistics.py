"""Reference energies per element, and the scales of what is left for a network to learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from adatom.elements import symbol, symbols
from adatom.errors import DataError

Source = Literal["isolated atom", "least squares", "given", "model", "none"]  # none: zero, for want of any energy


@dataclass(frozen=True)
class References:
    """Energy per element in eV, where each came from, and what there is to say about the fit."""

    energies: dict[int, float]  # atomic number -> eV
    source: dict[int, Source]
    remarks: tuple[str, ...] = ()

    def total(self, numbers: np.ndarray) -> float:
        """Sum of the references of a structure's atoms, eV."""
        return float(sum(self.energies[int(z)] for z in numbers))


class Scales(NamedTuple):
    """Sizes of the labels; NaN where there are none."""

    energy: float  # eV/atom, rms of the energy per atom after references
    forces: float  # eV/Å, rms of a force component
    stress: float  # eV/Å^3, rms of a stress component


def fit_references(
    numbers: Sequence[np.ndarray],
    energies: Sequence[float] | np.ndarray,
    isolated: Mapping[int, float] | None = None,
    given: Mapping[int, float] | None = None,
) -> References:
    r"""Reference energy of every element.

    A value ``given`` goes first, then the energy of the ``isolated`` atom; the elements E that are left are fitted
    by least squares,

    .. math:: \min_{e} \sum_s (E_s - \sum_{Z known} n_{sZ} e_Z - \sum_{Z \in E} n_{sZ} e_Z)^2 / n_s ,

    each structure weighted by one over its number of atoms n_s. Where compositions do not tell elements apart (all
    water: only 2 H + O is known), the solution of smallest norm is taken, which is as good on such compositions as
    any other, and a remark says so. The mean energy per atom over all elements is never used.

    Parameters
    ----------
    numbers
        Atomic numbers of each structure, (n_s,) each.
    energies
        Total energy of each structure in eV; NaN where not labelled.
    isolated
        Energy of free atoms by atomic number, eV.
    given
        Values set by hand, eV; they win.

    Raises
    ------
    DataError
        No element at all, or elements that no labelled structure holds.
    """
    present = sorted({int(z) for n in numbers for z in n})
    known: dict[int, float] = {**(isolated or {}), **(given or {})}
    source: dict[int, Source] = dict.fromkeys(isolated or {}, "isolated atom")
    source.update(dict.fromkeys(given or {}, "given"))
    if not present:
        raise DataError("no atoms to find reference energies for", wanted="at least one structure")
    _check_finite(known)
    wanted = [z for z in present if z not in known]
    remarks: tuple[str, ...] = ()
    if wanted:
        fitted, remarks = _least_squares(numbers, np.asarray(energies, dtype=np.float64), known, wanted)
        known.update(fitted)
        source.update(dict.fromkeys(wanted, "least squares"))
    order = sorted(set(present) | set(given or {}))
    return References({z: float(known[z]) for z in order}, {z: source[z] for z in order}, remarks)


def shift_references(
    old: Mapping[int, float],
    numbers: Sequence[np.ndarray],
    residuals: Sequence[float] | np.ndarray,
    given: Mapping[int, float] | None = None,
) -> References:
    r"""References moved so that a trained potential fits other labels as well as it can without being trained.

    .. math:: e_Z \leftarrow e_Z + d_Z, \quad \min_d \sum_s (R_s - \sum_Z n_{sZ} d_Z)^2 / n_s,
        \quad R_s = E_s - E_s^{potential}

    Where compositions do not tell elements apart, the change of smallest norm is taken. Elements that no structure
    holds keep what they have; new ones begin at zero.

    Parameters
    ----------
    old
        References of the potential, eV by atomic number.
    numbers
        Atomic numbers of each structure, (n_s,) each.
    residuals
        Labelled energy of each structure minus the one that the potential gives with the old references, and zero for
        elements that it does not know, eV; NaN where not labelled.
    given
        Values set by hand, eV; they win.

    Raises
    ------
    DataError
        An element that is new, and that no labelled structure holds.
    """
    known = [k for k, residual in enumerate(residuals) if np.isfinite(residual)]
    present = {int(z) for k in known for z in numbers[k]}
    absent = sorted({int(z) for n in numbers for z in n} - present - set(old) - set(given or {}))
    if absent:
        raise _unlabelled(absent)
    if not present:
        energies = {**old, **(given or {})}
        return References(energies, {z: "given" if z in (given or {}) else "model" for z in energies})
    fixed = {z: energy - old.get(z, 0.0) for z, energy in (given or {}).items() if z in present}
    moved = fit_references([numbers[k] for k in known], [residuals[k] for k in known], given=fixed)
    energies = dict(old) | {z: old.get(z, 0.0) + change for z, change in moved.energies.items()} | dict(given or {})
    source: dict[int, Source] = dict.fromkeys(old, "model")
    source.update(moved.source)
    source.update(dict.fromkeys(given or {}, "given"))
    order = sorted(energies)
    return References({z: float(energies[z]) for z in order}, {z: source[z] for z in order}, moved.remarks)


def _check_finite(known: Mapping[int, float]) -> None:
    bad = [z for z, energy in known.items() if not np.isfinite(energy)]
    if bad:
        raise DataError(
            f"the reference energy of {', '.join(symbols(bad))} is not a number",
            wanted="finite energies in eV",
            remedy="give the value, or leave the element out so that it is fitted",
        )


def _least_squares(
    numbers: Sequence[np.ndarray], energies: np.ndarray, known: Mapping[int, float], wanted: list[int]
) -> tuple[dict[int, float], tuple[str, ...]]:
    """References of the elements ``wanted``, and remarks on what the compositions leave open."""
    use = [s for s in range(len(numbers)) if np.isfinite(energies[s])]
    count = np.array([[np.count_nonzero(numbers[s] == z) for z in wanted] for s in use], dtype=np.float64)
    count = count.reshape(len(use), len(wanted))
    absent = [z for z, column in zip(wanted, count.T, strict=True) if not column.any()]
    if absent:
        raise _unlabelled(absent)
    rest = np.array([energies[s] - sum(known.get(int(z), 0.0) for z in numbers[s]) for s in use])
    weight = 1.0 / np.sqrt([len(numbers[s]) for s in use])
    fitted, _, rank, spread = np.linalg.lstsq(count * weight[:, None], rest * weight, rcond=1e-8)  # of minimum norm
    remarks: tuple[str, ...] = ()
    if rank < len(wanted):
        remarks = (
            f"the compositions tell apart {rank} of {len(wanted)} elements ({', '.join(symbols(wanted))}): references "
            "hold on these compositions only; add free atoms or other compositions to fix each of them",
        )
    elif len(wanted) > 1 and spread[0] > 1e3 * spread[-1]:
        remarks = (
            f"references of {', '.join(symbols(wanted))} are ill-conditioned ({spread[0] / spread[-1]:.0e}): "
            "compositions hardly differ",
        )
    return {z: float(e) for z, e in zip(wanted, fitted, strict=True)}, remarks


def _unlabelled(absent: Sequence[int]) -> DataError:
    return DataError(
        f"no labelled structure holds {', '.join(symbols(absent))}: its reference energy cannot be fitted",
        wanted="an energy for each element",
        remedy="add labelled structures or free atoms of these elements, or give their references",
    )


def scales(
    numbers: Sequence[np.ndarray],
    energies: Sequence[float] | np.ndarray,
    forces: Sequence[np.ndarray],
    stresses: Sequence[np.ndarray],
    references: References,
) -> Scales:
    """Rms of energies per atom after references (eV/atom), of force components (eV/Å) and stress components (eV/Å^3).

    NaN labels are left out; a label that no structure carries has the scale NaN.
    """
    unknown = sorted({int(z) for n in numbers for z in n} - set(references.energies))
    if unknown:
        raise DataError(
            f"no reference energy for {', '.join(symbol(z) for z in unknown)}",
            wanted="a reference for each element",
            remedy="fit the references on structures that hold these elements",
        )
    rest = [(e - references.total(n)) / len(n) for n, e in zip(numbers, energies, strict=True)]
    return Scales(_rms([np.array(rest)]), _rms(forces), _rms(stresses))


def _rms(parts: Sequence[np.ndarray]) -> float:
    values = np.concatenate([np.asarray(p, dtype=np.float64).ravel() for p in parts]) if len(parts) else np.zeros(0)
    values = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(values**2))) if values.size else float("nan")
