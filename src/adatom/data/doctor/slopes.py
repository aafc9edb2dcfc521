"""Energies against the work of forces and stress: wrong signs and units are named, odd labels found."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from adatom.data.doctor.finding import Finding, about, count, files_of
from adatom.data.pairs import REACH, Pairs, Slopes, close_pairs, slopes
from adatom.data.read import Structure
from adatom.units import ENERGY, LENGTH, PRESSURE

FEWEST_PAIRS: Final = 8
GOOD: Final = (0.75, 4.0 / 3.0)  # slopes that trapezoids over real data show
BAD: Final = (0.6, 5.0 / 3.0)
MATCH: Final = 0.08  # relative distance of a slope to the factor of a known mistake
_UNIT: Final = re.compile(r"(energies|forces|stress) (?:are|is|in)(?: in)? ([^ ,]*(?:eV|Hartree|Ry|mol|GPa|bar)[^ ,]*)")
UNEXPLAINED: Final = 0.5  # share of the energy differences beyond which slopes mean nothing

_BOHR, _HARTREE = LENGTH["Bohr"], ENERGY["Hartree"]
FORCE_MISTAKES: Final[dict[str, float]] = {
    "forces are in Hartree/Bohr": _HARTREE / _BOHR,
    "forces are in Ry/Bohr": ENERGY["Ry"] / _BOHR,
    "forces are per Bohr, not per Å (atomic units throughout?)": 1.0 / _BOHR,
    "forces are in Hartree/Å": _HARTREE,
    "forces are in kcal/mol/Å": ENERGY["kcal/mol"],
    "forces are in kJ/mol/Å": ENERGY["kJ/mol"],
    "forces are in kJ/mol/nm": ENERGY["kJ/mol"] / LENGTH["nm"],
    "forces are in meV/Å": ENERGY["meV"],
    "energies are in Hartree": 1.0 / _HARTREE,
    "energies are in Ry": 1.0 / ENERGY["Ry"],
    "energies are in kcal/mol": 1.0 / ENERGY["kcal/mol"],
    "energies are in kJ/mol": 1.0 / ENERGY["kJ/mol"],
    "energies are in meV": 1.0 / ENERGY["meV"],
}
STRESS_MISTAKES: Final[dict[str, float]] = {
    "stress is in GPa": PRESSURE["GPa"],
    "stress is in kbar": PRESSURE["kbar"],
    "stress is in bar": PRESSURE["bar"],
    "stress is in Hartree/Bohr^3": _HARTREE / _BOHR**3,
    "stress is in Ry/Bohr^3": ENERGY["Ry"] / _BOHR**3,
    "energies are in Hartree, stress in eV/Å^3": 1.0 / _HARTREE,
    "energies are in Ry, stress in eV/Å^3": 1.0 / ENERGY["Ry"],
    "energies are in kcal/mol, stress in eV/Å^3": 1.0 / ENERGY["kcal/mol"],
    "energies are in kJ/mol, stress in eV/Å^3": 1.0 / ENERGY["kJ/mol"],
}


def check_slopes(structures: Sequence[Structure], pairs: Pairs) -> list[Finding]:
    """Energy against force and stress along close pairs."""
    where = files_of(structures)
    likeness = _likeness(structures, pairs)
    if len(pairs.first) < FEWEST_PAIRS:
        if not any(np.isfinite(s.forces).all() and len(s.atoms) > 1 for s in structures):
            return []
        message = f"energies and forces could not be compared: {len(pairs.first)} pairs of structures lie close enough"
        remedy = f"units and signs are yours to check: pairs within {REACH} Å, as of one trajectory, would test them"
        return [Finding("energy and forces", "note", where, message, remedy)]
    fit = slopes(pairs)
    if fit.unexplained > UNEXPLAINED:
        return likeness or [_unexplained(pairs, fit, where)]
    found = [*_force_slope(pairs, fit, where), *_stress_slope(pairs, fit, where), *_outliers(structures, pairs, fit)]
    return [*likeness, *found]


def _likeness(structures: Sequence[Structure], pairs: Pairs) -> list[Finding]:
    """Forces of structures that hardly differ must be alike; they are not where rows went out of order."""
    near = np.flatnonzero((pairs.distance < 0.05) & (pairs.force > 0.1) & np.isfinite(pairs.likeness))
    if len(near) < FEWEST_PAIRS or not np.median(pairs.likeness[near]) < 0.3:
        return []
    message = (
        f"forces of structures within 0.05 Å of each other have nothing in common: their median overlap is "
        f"{np.median(pairs.likeness[near]):.2f} over {len(near)} pairs (1: equal, 0: unrelated)"
    )
    remedy = "look for rows of forces in another order than those of the atoms, or forces of other frames"
    return [Finding("energy and forces", "error", files_of(structures), message, remedy)]


def slope_table(structures: Sequence[Structure], pairs: Pairs) -> list[dict[str, Any]]:
    """Slopes of the whole set and of each kind of structure (``config_type``) that has pairs enough."""
    rows = [_slope_row("all", pairs)] if len(pairs.first) >= FEWEST_PAIRS else []
    kinds = Counter(s.config_type for s in structures)
    for kind in sorted(kinds) if 1 < len(kinds) <= 60 else ():
        chosen = [s for s in structures if s.config_type == kind]
        own = close_pairs(chosen) if len(chosen) > 3 else None
        if own is not None and len(own.first) >= FEWEST_PAIRS:
            rows.append(_slope_row(kind or "(none)", own))
    return rows


def _unclear(
    structures: Sequence[Structure], rows: Sequence[dict[str, Any]], label: str, whole: dict[str, Any] | None
) -> list[Finding]:
    """Kinds of near-identical structures whose energies follow neither forces nor stress, beside others that do."""
    if whole is None or label == "stress":
        return []
    odd = [r for r in rows if r["unexplained"] > UNEXPLAINED and r["pairs"] >= 20 and r["distance_A"] < 0.1]
    if not odd:
        return []
    told = ", ".join(f"{r['kind']} ({100 * r['unexplained']:.0f} % remain)" for r in odd[:6])
    message = f"energy differences that neither forces nor stress explain, in these kinds of structures: {told}"
    remedy = "are they converged to better than that (k-points, cutoff at changed cells)? else leave them out"
    return [Finding("energy of a kind", "warning", files_of(structures), message, remedy)]


def _slope_row(kind: str, pairs: Pairs) -> dict[str, Any]:
    fit = slopes(pairs)
    sizes = float(np.sqrt(np.mean(pairs.force_work**2))), float(np.sqrt(np.mean(pairs.stress_work**2)))
    energy = float(np.sqrt(np.mean(pairs.energy**2)))
    # works that are next to nothing beside the energies have no slope to speak of
    known = (
        np.isfinite(fit.force_error) and sizes[0] > 1e-3 * energy,
        np.isfinite(fit.stress_error) and sizes[1] > 1e-3 * energy,
    )
    return {
        "kind": kind,
        "pairs": len(pairs.first),
        "distance_A": float(np.median(pairs.distance)),
        "forces_work_eV": sizes[0],
        "stress_work_eV": sizes[1],
        "forces": fit.force if known[0] else None,
        "forces_error": fit.force_error if known[0] else None,
        "stress": fit.stress if known[1] else None,
        "stress_error": fit.stress_error if known[1] else None,
        "stress_pairs": fit.stress_pairs,
        "unexplained": fit.unexplained,
    }


def check_kinds(structures: Sequence[Structure], rows: Sequence[dict[str, Any]]) -> list[Finding]:
    """Kinds of structures whose stress or forces contradict their energies while the set as a whole does not."""
    found = []
    for label in ("forces", "stress"):
        clear = [r for r in rows if r[label] is not None and r[f"{label}_error"] < 0.15 * max(abs(r[label]), 0.5)]
        clear = [r for r in clear if r["unexplained"] < UNEXPLAINED and r[f"{label}_work_eV"] > 1e-3]
        whole = next((r for r in clear if r["kind"] == "all"), None)
        odd = [r for r in clear if r is not whole and not BAD[0] < r[label] < BAD[1]]
        found += _unclear(structures, rows, label, whole)
        if whole is None or not GOOD[0] < whole[label] < GOOD[1] or not odd:
            continue
        told = ", ".join(f"{r['kind']} {_figure(r[label], r[f'{label}_error'])}" for r in odd[:6])
        what = "energy and forces" if label == "forces" else "energy and stress"
        message = f"{label} and energies agree in the whole set, and not in these kinds of structures: {told}"
        remedy = "check how these were computed (cutoff of the basis at changed cells, smearing), or leave them out"
        found.append(Finding(f"{what} of a kind", "warning", files_of(structures), message, remedy))
    return found


def _unexplained(pairs: Pairs, fit: Slopes, where: str) -> Finding:
    closest = np.sort(pairs.distance)[: len(pairs.distance) // 2 + 1].max()
    tight = len(pairs.distance) >= 20 and closest < 0.2
    message = (
        "energies of near-identical structures differ by more than their forces explain: "
        f"{100 * fit.unexplained:.0f} % remain over {len(pairs.distance)} pairs, half of them within {closest:.2f} Å"
    )
    if not tight:
        remedy = "units and signs are yours to check: only closer pairs, as of one trajectory, would test them"
        return Finding("energy and forces", "note", where, f"{message}; too far apart to judge", remedy)
    remedy = "look for labels that jump between electronic or magnetic states, or that belong to other structures"
    return Finding("energy and forces", "warning", where, message, remedy)


def _force_slope(pairs: Pairs, fit: Slopes, where: str) -> list[Finding]:
    kind = "energy and forces"
    if not fit.force_error < 0.1 * max(abs(fit.force), 1e-12):
        message = "no pair of structures has a force along its displacement to compare"
        return [Finding(kind, "note", where, message, "units and signs of the forces are yours to check")]
    figure = f"dE = {_figure(fit.force, fit.force_error)} x (-F dR)"
    figure += f" over {len(pairs.first)} pairs of near-identical structures"
    if GOOD[0] < fit.force < GOOD[1]:
        return [Finding(kind, "note", where, f"energies and forces agree: {figure}")]
    per_atom = slopes(pairs._replace(energy=pairs.energy * pairs.atoms)).force
    tried = {"energies are per atom, not total": per_atom, **_corrected(fit.force, FORCE_MISTAKES)}
    guesses = _guesses(tried, "forces have the opposite sign")
    if not guesses and BAD[0] < fit.force < BAD[1]:
        return [_doubt(kind, fit, where, f"energies and forces agree badly: {figure}")]
    return [Finding(kind, "error", where, f"energies and forces contradict each other: {figure}", _remedy(guesses))]


def _stress_slope(pairs: Pairs, fit: Slopes, where: str) -> list[Finding]:
    kind = "energy and stress"
    if fit.stress_pairs < FEWEST_PAIRS or not fit.stress_error < 0.1 * max(abs(fit.stress), 1e-12):
        return []
    figure = f"dE = {_figure(fit.stress, fit.stress_error)} x (V stress:strain)"
    figure += f" over {fit.stress_pairs} pairs of strained structures"
    if GOOD[0] < fit.stress < GOOD[1]:
        return [Finding(kind, "note", where, f"energies and stress agree: {figure}")]
    virial = -slopes(pairs._replace(stress_work=pairs.stress_work / np.nan_to_num(pairs.volume, nan=1.0))).stress
    tried = {"this is a virial, not a stress": virial, **_corrected(fit.stress, STRESS_MISTAKES)}
    guesses = _guesses(tried, "stress has the opposite sign (compression positive)")
    if np.isfinite(fit.force_error) and abs(fit.stress / fit.force - 1.0) < 2 * MATCH:
        guesses = ["the energies are wrong: forces and stress agree with each other"]
    if not guesses and BAD[0] < fit.stress < BAD[1]:
        return [_doubt(kind, fit, where, f"energies and stress agree badly: {figure}")]
    return [Finding(kind, "error", where, f"energies and stress contradict each other: {figure}", _remedy(guesses))]


def _doubt(kind: str, fit: Slopes, where: str, message: str) -> Finding:
    """A slope that no mistake explains: worth a warning where the pairs are close enough to mean it."""
    if fit.unexplained > 0.25:
        return Finding(kind, "note", where, f"{message}; too far apart to judge", "units and signs are yours to check")
    return Finding(kind, "warning", where, message, "check the units, and the convergence of the calculations")


def _figure(value: float, error: float) -> str:
    error = max(error, 1e-4 * abs(value), 1e-9)
    digits = max(-math.floor(math.log10(error)), 0)
    return f"({value:.{digits}f} ± {error:.{digits}f})"


def _corrected(slope: float, mistakes: dict[str, float]) -> dict[str, float]:
    """The slope that remains when each mistake is undone."""
    return {name: slope / factor for name, factor in {"": 1.0, **mistakes}.items()}


def _guesses(tried: dict[str, float], sign: str) -> list[str]:
    """The mistakes, of sign too, that bring the slope to 1: all that come close, else the nearest."""
    distance = {name: abs(np.log(max(abs(slope), 1e-12))) for name, slope in tried.items()}
    names = sorted(distance, key=lambda name: distance[name])
    near = [n for n in names if distance[n] < MATCH] or [n for n in names[:1] if distance[n] < 3 * MATCH]
    told = []
    for name in near:
        parts = [part for part in (name, sign if tried[name] < 0 else "") if part]
        told += [", and ".join(parts)] if parts else []
    return told


def _remedy(guesses: list[str]) -> str:
    if not guesses:
        return "no usual mistake has this factor: check which fields serve as energy, forces and stress"
    declared = [_declaration(guess) for guess in guesses]
    ways = ", or ".join(dict.fromkeys(way for way in declared if way)) or "convert the file"
    return f"it looks as if {', or '.join(guesses)}: {ways}"


def _declaration(guess: str) -> str:
    """How a user says so, in words of the configuration and of the command alike."""
    labels = {"energies": "energy", "forces": "forces", "stress": "stress"}
    sign = "-" if "compression positive" in guess else ""
    told = [f"{labels[a]}={sign if a == 'stress' else ''}{u}" for a, u in _UNIT.findall(guess)]
    if sign and not any(way.startswith("stress=") for way in told):
        told.append("stress=-eV/Å^3")
    if "virial" in guess:
        return "name the field as virial (--virial NAME, or keys: {virial: NAME})"
    if "opposite sign" in guess and not sign:
        return "turn their sign in the file"
    if "per atom" in guess:
        return "multiply them by the number of atoms"
    return f"declare it (--units {' --units '.join(told)}, or data.units), or convert the file" if told else ""


def _outliers(structures: Sequence[Structure], pairs: Pairs, fit: Slopes) -> list[Finding]:
    """Structures whose labels fit none of their neighbours while the others fit each other."""
    total = Counter([*pairs.first.tolist(), *pairs.second.tolist()])
    bad = Counter([*pairs.first[fit.outliers].tolist(), *pairs.second[fit.outliers].tolist()])
    odd = sorted(k for k, n in bad.items() if n >= 2 and 2 * n > total[k])
    if not odd:
        return []
    message = f"{count(len(odd), 'structure')} with labels that fit none of their near neighbours"
    remedy = "look for failed or differently converged calculations among them"
    return [about("odd structures", "warning", structures, odd, message, remedy)]
