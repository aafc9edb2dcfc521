"""Energies that nothing in their structures explains: failed calculations, another functional, another zero."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

from adatom.data.doctor.finding import Finding, Severity, about, count, file_of
from adatom.data.doctor.surroundings import half_pairs
from adatom.data.read import Structure
from adatom.elements import covalent_radius
from adatom.statistics import fit_references

CUTOFF: Final = 5.0  # Å
LARGEST: Final = 2e6  # eV; all electrons of the heaviest atoms have half of it
CENTRES: Final = np.array([0.55, 0.7, 0.85, 1.0, 1.15, 1.35, 1.6, 1.9, 2.2, 2.6])  # distance over the sum of the radii
MOST_PAIRS: Final = 10  # pairs of elements that get a potential of their own
FEWEST: Final = 40  # structures


def check_energies(structures: Sequence[Structure]) -> list[Finding]:
    """Energies per atom far from all others once the composition is accounted for."""
    labelled = [k for k, s in enumerate(structures) if np.isfinite(s.energy) and not s.isolated]
    beyond = [k for k in labelled if abs(structures[k].energy) > LARGEST * len(structures[k].atoms)]
    if beyond:
        message = f"{len(beyond)} energies are larger than any atom's: beyond {LARGEST:g} eV/atom"
        return [about("wild energies", "error", structures, beyond, message, "remove or repair these structures")]
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
    strained = sum(_extreme(structures[k]) for k in odd)
    severity: Severity = "note" if strained >= 0.8 * len(odd) else "warning"
    if severity == "note":
        remedy = "squeezed, torn or dissociated structures, it seems: fine where they are wanted; let the loss be Huber"
    return [about("wild energies", severity, structures, odd, message, remedy)]


def _extreme(structure: Structure) -> bool:
    """Whether the structure itself is far from usual: atoms close together or far apart, strong forces or stress."""
    i, j, d = half_pairs(structure.atoms, CUTOFF)
    if d.size == 0:
        return True
    radii = covalent_radius(structure.atoms.numbers)
    scaled = d / (radii[i] + radii[j])
    nearest = np.full(len(structure.atoms), np.inf)
    np.minimum.at(nearest, i, scaled)
    np.minimum.at(nearest, j, scaled)
    pull = float(np.abs(structure.forces).max(initial=0.0)) if np.isfinite(structure.forces).all() else 0.0
    press = float(np.abs(structure.stress).max()) if np.isfinite(structure.stress).all() else 0.0
    return bool(scaled.min() < 0.75 or nearest.max() > 1.25 or len(structure.atoms) == 2 or pull > 15.0 or press > 0.1)


class PairPotential:
    """A pair potential fitted on the fly: what it cannot explain by far, in the midst of the rest, is suspicious.

    E/n = sum_Z x_Z e_Z + 1/n sum_{pairs} sum_k c_k exp(-(r/(R_i + R_j) - s_k)^2 / 2 w_k^2) f(r),

    linear in e and c; one set of c for each pair of elements while these are few, one for all of them else.
    """

    def __init__(self, elements: Sequence[int]) -> None:
        self.elements = sorted(elements)
        pairs = [(a, b) for i, a in enumerate(self.elements) for b in self.elements[i:]]
        apart = len(pairs) <= MOST_PAIRS
        self.kind = {pair: k if apart else 0 for k, pair in enumerate(pairs)}
        self.kinds = len(pairs) if apart else 1
        self.lookup = np.zeros((200, 200), dtype=np.int64)
        for (a, b), k in self.kind.items():
            self.lookup[a, b] = self.lookup[b, a] = k
        self.widths = np.gradient(CENTRES)
        self.rows: list[np.ndarray] = []
        self.index: list[int] = []

    def add(self, k: int, structure: Structure, i: np.ndarray, j: np.ndarray, d: np.ndarray) -> None:
        """Take in structure number k with its pairs."""
        numbers = structure.atoms.numbers
        near = d < CUTOFF
        i, j, d = i[near], j[near], d[near]
        radii = covalent_radius(numbers)
        scaled = d / (radii[i] + radii[j])
        basis = np.exp(-0.5 * ((scaled[:, None] - CENTRES) / self.widths) ** 2)
        basis *= (0.5 * (1.0 + np.cos(np.pi * d / CUTOFF)))[:, None]
        pair = np.zeros((self.kinds, len(CENTRES)))
        np.add.at(pair, self.lookup[numbers[i], numbers[j]], basis)
        shares = [np.count_nonzero(numbers == z) / len(numbers) for z in self.elements]
        self.rows.append(np.concatenate([shares, pair.ravel() / len(numbers)]))
        self.index.append(k)

    def findings(self, structures: Sequence[Structure]) -> list[Finding]:
        """Single energies that stand apart: far beyond the tail of the others, in the midst of what was fitted."""
        if len(self.index) < max(FEWEST, 3 * (self.rows[0].size if self.rows else 0)):
            return []
        energies = np.array([structures[k].energy / len(structures[k].atoms) for k in self.index])
        fit = _Fit(np.array(self.rows), energies, len(self.elements))
        size = np.abs(fit.residual)
        spread = 1.48 * float(np.median(size))
        bound = max(15.0 * spread, 4.0 * float(np.quantile(size, 0.98)), 0.05)
        odd = np.flatnonzero((fit.leverage < 0.3) & (size > bound) & self._ordinary(structures))
        if not odd.size:
            return []
        which = [k for k in (self.index[n] for n in odd) if not _extreme(structures[k])]
        if not which:
            return []
        message = (
            f"{count(len(which), 'energy', 'energies')} up to {size[odd].max():.2g} eV/atom from what a pair potential "
            f"expects (usual: {spread:.2g}), and with ordinary forces"
        )
        remedy = "look for another functional, another electronic state, or failed calculations among them"
        return [about("unexplained energies", "warning", structures, which, message, remedy)]

    def _ordinary(self, structures: Sequence[Structure]) -> np.ndarray:
        """Structures that nothing tears at: what lies far out has large forces or stress, and other energies too."""
        chosen = [structures[k] for k in self.index]
        pull = np.array([float(np.abs(s.forces).max()) for s in chosen])
        press = np.array([float(np.abs(s.stress).max()) for s in chosen])
        calm = np.ones(len(chosen), dtype=bool)
        for size in (pull, press):
            known = np.isfinite(size)
            if known.any():
                calm &= ~known | (size <= 2.0 * float(np.median(size[known])))
        return calm

    def shifts(self, structures: Sequence[Structure]) -> list[Finding]:
        """Files whose energies stand apart as a whole: another functional or another zero."""
        files = Counter(file_of(structures[k]) for k in self.index)
        if not 1 < len(files) <= 20 or len(self.index) < max(FEWEST, 3 * (self.rows[0].size + len(files))):
            return []
        energies = np.array([structures[k].energy / len(structures[k].atoms) for k in self.index])
        design = np.array(self.rows)
        found = []
        main = files.most_common(1)[0][0]
        for file, members in files.items():
            if file == main or members < 5:
                continue
            inside = np.array([file_of(structures[k]) == file for k in self.index])
            if not self._elements_elsewhere(design, inside):
                continue
            fit = _Fit(design[~inside], energies[~inside], len(self.elements))
            rest, leverage = fit.predict(design[inside], energies[inside])
            near = leverage < 2.0 * float(np.quantile(fit.leverage, 0.98))  # elsewhere it extrapolates
            if near.sum() < max(5, 0.5 * members):
                continue
            spread = 1.48 * float(np.median(np.abs(rest[near] - np.median(rest[near]))))
            shift = float(np.median(rest[near]))
            if abs(shift) > max(10.0 * spread, 0.2):
                message = f"energies of {file} lie {shift:.3g} ± {spread:.1g} eV/atom from those of the other files"
                remedy = (
                    "another functional, pseudopotential or zero of energy? fit references per source, or leave one out"
                )
                found.append(Finding("shifted energies", "warning", file, message, remedy))
        return found

    def _elements_elsewhere(self, design: np.ndarray, inside: np.ndarray) -> bool:
        """Whether the compositions of some structures lie in the span of the others, and their pairs in their range."""
        shares = design[:, : len(self.elements)]
        base = shares[~inside]
        fitted = np.linalg.lstsq(base.T, shares[inside].T, rcond=1e-8)[0]
        return bool(np.abs(base.T @ fitted - shares[inside].T).max() < 1e-6)


class _Fit:
    """Ridge regression with Huber weights, energies counted from least-squares references of the elements."""

    def __init__(self, design: np.ndarray, target: np.ndarray, elements: int) -> None:
        self.elements = elements
        self.references = np.linalg.lstsq(design[:, :elements], target, rcond=1e-8)[0]
        self.middle, self.scale = design.mean(axis=0), design.std(axis=0) + 1e-9
        matrix, rest = self._matrix(design), self._rest(design, target)
        weight = np.ones(len(design))
        ridge = np.full(matrix.shape[1], 1e-4 * len(design))
        ridge[-1] = 0.0
        for _ in range(15):
            self.inverse = np.linalg.pinv((matrix * weight[:, None]).T @ matrix + np.diag(ridge))
            self.factors = self.inverse @ ((matrix * weight[:, None]).T @ rest)
            self.residual = rest - matrix @ self.factors
            size = max(1.48 * float(np.median(np.abs(self.residual))), 1e-9)
            weight = 1.0 / np.maximum(np.abs(self.residual) / size, 1.0)
        self.leverage = self._leverage(matrix)

    def predict(self, design: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residuals of other structures, and how far out they lie."""
        matrix = self._matrix(design)
        return np.asarray(self._rest(design, target) - matrix @ self.factors), self._leverage(matrix)

    def _matrix(self, design: np.ndarray) -> np.ndarray:
        return np.concatenate([(design - self.middle) / self.scale, np.ones((len(design), 1))], axis=1)

    def _rest(self, design: np.ndarray, target: np.ndarray) -> np.ndarray:
        return np.asarray(target - design[:, : self.elements] @ self.references)

    def _leverage(self, matrix: np.ndarray) -> np.ndarray:
        return np.asarray(np.einsum("ij,jk,ik->i", matrix, self.inverse, matrix))
