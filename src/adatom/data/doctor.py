"""What is wrong with a data set: labels that contradict each other, copies, contacts, wild and empty labels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from adatom.data.fingerprint import copies
from adatom.data.pairs import Pairs, Slopes, close_pairs, slopes
from adatom.data.read import LABELS, Structure
from adatom.elements import covalent_radius
from adatom.neighbors import neighbor_list
from adatom.statistics import fit_references
from adatom.units import ENERGY, LENGTH, PRESSURE

Severity = Literal["error", "warning", "note"]

FEWEST_PAIRS: Final = 8
GOOD: Final = (0.75, 4.0 / 3.0)  # slopes that trapezoids over real data show
BAD: Final = (0.6, 5.0 / 3.0)
MATCH: Final = 0.08  # relative distance of a slope to the factor of a known mistake
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


@dataclass(frozen=True)
class Finding:
    """One thing to know about a data set; ``error``: training on it would learn nonsense."""

    kind: str
    severity: Severity
    where: str
    message: str
    remedy: str = ""


def consistency(structures: Sequence[Structure], used: Collection[str] = LABELS) -> list[Finding]:
    """All findings on a data set, errors first.

    Energies against forces and stress (see :class:`adatom.data.pairs.Pairs`): the slopes of dE over the work along
    pairs of near-identical structures tell wrong signs and units; copies with different labels; atoms closer than half
    the sum of their covalent radii; forces that do not sum to zero; wild forces and energies; labels that are zero
    throughout. What is wrong with labels outside of ``used``, which the loss leaves alone, is a warning at most.
    """
    pairs = close_pairs(structures)
    found = [
        *_slopes(structures, pairs),
        *_copies(structures),
        *_contacts(structures),
        *_forces(structures),
        *_energies(structures),
        *_zeros(structures),
    ]
    found = [_mild(finding) if _idle(finding, used) else finding for finding in found]
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted(found, key=lambda finding: order[finding.severity])


def unseen(structures: Sequence[Structure], seen: Collection[str]) -> list[Finding]:
    """What is wrong with charges and multiplicities, given what a network sees of them.

    Several of them in the data of a network that sees none look like contradicting labels to it: a warning. Structures
    that say nothing beside others that do are an error, if the network sees it: nobody knows what they are.

    Parameters
    ----------
    seen
        Of ``"charge"`` and ``"spin"``.
    """
    found = []
    usual = {"charge": ("total charge", "total_charge", 0.0), "spin": ("multiplicity", "multiplicity", 1.0)}
    for name, (what, key, default) in usual.items():
        silent = [k for k, s in enumerate(structures) if key not in s.atoms.info]
        values = sorted({float(s.atoms.info.get(key, default)) for s in structures})
        told = ", ".join(f"{value:g}" for value in values[:8])
        if len(values) > 1 and name not in seen:
            message = f"the data hold structures of {what} {told}, and this model does not see it"
            remedy = f"choose a model that does (adatom models), or train on one {what} alone"
            found.append(Finding(f"unseen {name}", "warning", _files(structures), message, remedy))
        if name in seen and 0 < len(silent) < len(structures):
            message = f"{len(silent)} structures do not give their {what}, and others do"
            remedy = f"give {key} in every structure, {default:g} where it is that"
            found.append(Finding(f"missing {name}", "error", _list(structures, silent), message, remedy))
    return found


def _idle(finding: Finding, used: Collection[str]) -> bool:
    """Whether a finding speaks of a label that is not used."""
    return any(label in finding.kind for label in LABELS if label not in used)


def _mild(finding: Finding) -> Finding:
    return replace(finding, severity="warning") if finding.severity == "error" else finding


def _slopes(structures: Sequence[Structure], pairs: Pairs) -> list[Finding]:
    """Energy against force and stress along close pairs."""
    where = _files(structures)
    if len(pairs.first) < FEWEST_PAIRS:
        message = f"energies and forces could not be compared: {len(pairs.first)} pairs of structures lie close enough"
        return [Finding("energy and forces", "note", where, message)]
    fit = slopes(pairs)
    if fit.unexplained > UNEXPLAINED:
        return [_unexplained(pairs, fit, where)]
    return [*_force_slope(pairs, fit, where), *_stress_slope(pairs, fit, where), *_outliers(structures, pairs, fit)]


def _unexplained(pairs: Pairs, fit: Slopes, where: str) -> Finding:
    closest = np.sort(pairs.distance)[: len(pairs.distance) // 2 + 1].max()
    tight = len(pairs.distance) >= 20 and closest < 0.2
    message = (
        "energies of near-identical structures differ by more than their forces explain: "
        f"{100 * fit.unexplained:.0f} % remain over {len(pairs.distance)} pairs, half of them within {closest:.2f} Å"
    )
    if not tight:
        return Finding("energy and forces", "note", where, f"{message}; too far apart to judge")
    remedy = "look for labels that jump between electronic or magnetic states, or that belong to other structures"
    return Finding("energy and forces", "warning", where, message, remedy)


def _force_slope(pairs: Pairs, fit: Slopes, where: str) -> list[Finding]:
    kind = "energy and forces"
    if not fit.force_error < 0.1 * max(abs(fit.force), 1e-12):
        return [Finding(kind, "note", where, "no pair of structures has a force along its displacement to compare")]
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
        return Finding(kind, "note", where, f"{message}; too far apart to judge")
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
    return f"it looks as if {', or '.join(guesses)}: declare the units of the file, or convert it"


def _outliers(structures: Sequence[Structure], pairs: Pairs, fit: Slopes) -> list[Finding]:
    """Structures whose labels fit none of their neighbours while the others fit each other."""
    total = Counter([*pairs.first.tolist(), *pairs.second.tolist()])
    bad = Counter([*pairs.first[fit.outliers].tolist(), *pairs.second[fit.outliers].tolist()])
    odd = sorted(k for k, n in bad.items() if n >= 2 and 2 * n > total[k])
    if not odd:
        return []
    message = f"{len(odd)} structures have labels that fit none of their near neighbours"
    remedy = "look for failed or differently converged calculations among them"
    return [Finding("odd structures", "warning", _list(structures, odd), message, remedy)]


def _copies(structures: Sequence[Structure]) -> list[Finding]:
    """The same structure twice: harmless when labelled alike, a contradiction when not."""
    bound = [k for k, s in enumerate(structures) if not s.isolated]
    some = [structures[k] for k in bound]
    pairs = [(bound[i], bound[j]) for i, j in copies(some, some) if i < j]
    different = [
        (i, j) for i, j in pairs if abs(structures[i].energy - structures[j].energy) > 2e-3 * len(structures[i].atoms)
    ]
    found = []
    if different:
        worst = max(abs(structures[i].energy - structures[j].energy) / len(structures[i].atoms) for i, j in different)
        names = "; ".join(f"{structures[i].name} and {structures[j].name}" for i, j in different[:5])
        message = f"{len(different)} pairs of equal structures have different energies, by up to {worst:.3g} eV/atom"
        remedy = "keep one of each, or name the charge and multiplicity that tell them apart under keys"
        found.append(Finding("contradicting copies", "warning", names, message, remedy))
    if len(pairs) > len(different):
        later = sorted({j for pair in pairs if pair not in set(different) for j in pair[1:]})
        message = f"{len(later)} structures repeat another one"
        found.append(Finding("copies", "note", _list(structures, later), message, "harmless; they count double"))
    return found


def _contacts(structures: Sequence[Structure]) -> list[Finding]:
    """Atoms closer than half the sum of their covalent radii."""
    close, least = [], np.inf
    for k, structure in enumerate(structures):
        atoms = structure.atoms
        edges, shifts = neighbor_list(atoms.positions, np.asarray(atoms.cell), np.asarray(atoms.pbc), 1.7)
        if edges.shape[1] == 0:
            continue
        vectors = atoms.positions[edges[1]] + shifts @ np.asarray(atoms.cell) - atoms.positions[edges[0]]
        radii = covalent_radius(atoms.numbers)
        ratio = float((np.linalg.norm(vectors, axis=1) / (radii[edges[0]] + radii[edges[1]])).min())
        if ratio < 0.5:
            close.append(k)
            least = min(least, ratio)
    if not close:
        return []
    message = f"{len(close)} structures hold atoms closer than half the sum of their radii (least: {least:.2f} of it)"
    remedy = "fine for dimer curves; otherwise failed calculations to remove"
    return [Finding("close contacts", "warning", _list(structures, close), message, remedy)]


def _forces(structures: Sequence[Structure]) -> list[Finding]:
    """Forces that do not sum to zero, and forces beyond any use."""
    labelled = [k for k, s in enumerate(structures) if len(s.atoms) > 1 and np.isfinite(s.forces).all()]
    net = {k: float(np.linalg.norm(structures[k].forces.mean(axis=0))) for k in labelled}
    largest = {k: float(np.abs(structures[k].forces).max()) for k in labelled}
    found = []
    pushed = [k for k in labelled if net[k] > 0.05]
    if pushed:
        message = f"forces do not sum to zero in {len(pushed)} structures: up to {max(net.values()):.3g} eV/Å per atom"
        remedy = "check for fixed atoms with zeroed forces, external fields, or rows out of order"
        found.append(Finding("net force", "warning", _list(structures, pushed), message, remedy))
    wild = [k for k in labelled if largest[k] > 100.0]
    if wild:
        message = f"{len(wild)} structures have forces above 100 eV/Å, up to {max(largest.values()):.3g}"
        remedy = "check the unit; remove failed calculations, or let the loss be L1 or Huber"
        found.append(Finding("large forces", "warning", _list(structures, wild), message, remedy))
    return found


def _energies(structures: Sequence[Structure]) -> list[Finding]:
    """Energies per atom far from all others once the composition is accounted for."""
    labelled = [k for k, s in enumerate(structures) if np.isfinite(s.energy) and not s.isolated]
    if len(labelled) < 10:
        return []
    numbers = [structures[k].atoms.numbers for k in labelled]
    references = fit_references(numbers, [structures[k].energy for k in labelled])
    rest = np.array(
        [(structures[k].energy - references.total(n)) / len(n) for k, n in zip(labelled, numbers, strict=True)]
    )
    rest -= np.median(rest)
    spread = float(np.median(np.abs(rest)))
    odd = [labelled[i] for i in np.flatnonzero(np.abs(rest) > max(30.0 * spread, 3.0))]
    if not odd:
        return []
    message = f"{len(odd)} energies lie up to {np.abs(rest).max():.3g} eV/atom from the rest (usual: {spread:.2g})"
    remedy = "check for failed calculations, and for energies of another method among them"
    return [Finding("wild energies", "warning", _list(structures, odd), message, remedy)]


def _zeros(structures: Sequence[Structure]) -> list[Finding]:
    """Labels that are exactly zero nearly everywhere: placeholders, not measurements."""
    found = []
    bound = [s for s in structures if len(s.atoms) > 1]
    for label in ("energy", "forces", "stress"):
        values = [np.asarray(getattr(s, label)) for s in bound if np.isfinite(getattr(s, label)).all()]
        empty = sum(not v.any() for v in values)
        if len(values) >= 5 and empty > 0.9 * len(values):
            message = f"{label} is exactly zero in {empty} of {len(values)} structures"
            remedy = "placeholders, it seems: name the right field under keys, or remove them"
            found.append(Finding(f"empty {label}", "error", _files(structures), message, remedy))
    return found


def _files(structures: Sequence[Structure]) -> str:
    return ", ".join(dict.fromkeys(s.name.rpartition(":")[0] for s in structures))


def _list(structures: Sequence[Structure], indices: Sequence[int]) -> str:
    names = [structures[k].name for k in indices[:5]]
    return ", ".join(names) + (f", and {len(indices) - 5} more" if len(indices) > 5 else "")
