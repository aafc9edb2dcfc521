"""What stands around atoms: neighbours per cutoff, shortest distances, contacts, cells that do not fit their atoms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import ase
import numpy as np
import vesin

from adatom.data.doctor.finding import Finding, about, count, file_of
from adatom.data.read import Structure
from adatom.elements import covalent_radius, symbol
from adatom.neighbors import complete_cell, neighbor_list

SHORT: Final = 1.7  # Å
TOUCH: Final = 0.5  # of the sum of the covalent radii
BINS: Final = np.arange(0.0, 6.001, 0.05)  # Å, of the histogram of distances


def half_pairs(atoms: ase.Atoms, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every pair closer than ``cutoff`` once: atoms i and j (P,), distances (P,) in Å; not sorted."""
    positions, pbc = np.ascontiguousarray(atoms.positions, dtype=np.float64), np.asarray(atoms.pbc, dtype=bool)
    box = complete_cell(positions, np.asarray(atoms.cell, dtype=np.float64), pbc, cutoff)
    folds = np.where(pbc, np.floor(positions @ np.linalg.inv(box)), 0.0)
    found = vesin.NeighborList(cutoff=cutoff, full_list=False, sorted=False).compute(
        points=positions - folds @ box, box=box, periodic=pbc, quantities="ijd", copy=True
    )
    return found[0].astype(np.int64), found[1].astype(np.int64), np.asarray(found[2], dtype=np.float64)


def polarity(atoms: ase.Atoms, cutoff: float = 4.0) -> np.ndarray:
    """|sum_j f(r_ij) r_ij / r_ij| of every atom (n,), f = (1 - r/r_c)^2: zero where symmetry forbids a force."""
    edges, shifts = neighbor_list(atoms.positions, np.asarray(atoms.cell), np.asarray(atoms.pbc), cutoff)
    vectors = atoms.positions[edges[1]] + shifts @ np.asarray(atoms.cell) - atoms.positions[edges[0]]
    r = np.linalg.norm(vectors, axis=1)
    pulls = ((1.0 - r / cutoff) ** 2 / r)[:, None] * vectors
    total = np.stack([np.bincount(edges[0], pulls[:, c], minlength=len(atoms)) for c in range(3)], axis=1)
    return np.asarray(np.linalg.norm(total, axis=1))


class Neighbourhood:
    """Counts over many structures: neighbours of every atom per cutoff, distances by pair of elements."""

    def __init__(self, cutoffs: Sequence[float]) -> None:
        self.cutoffs = sorted(cutoffs)
        self.counts: dict[float, list[np.ndarray]] = {c: [] for c in self.cutoffs}
        self.lonely: dict[float, dict[str, int]] = {c: {} for c in self.cutoffs}
        self.closest: dict[tuple[int, int], tuple[float, str]] = {}
        self.nearest: dict[int, list[np.ndarray]] = defaultdict(list)  # element -> distance to the nearest atom
        self.histogram = np.zeros(len(BINS) - 1)
        self.structures, self.atoms = 0, 0

    def add(self, structure: Structure, i: np.ndarray, j: np.ndarray, d: np.ndarray) -> None:
        """Take in one structure with its pairs up to the largest cutoff, free atoms left out."""
        atoms = structure.atoms
        n = len(atoms)
        self.structures += 1
        self.atoms += n
        self.histogram += np.histogram(d, BINS)[0]
        for cutoff in self.cutoffs:
            near = d < cutoff
            counts = np.bincount(i[near], minlength=n) + np.bincount(j[near], minlength=n)
            self.counts[cutoff].append(counts)
            if lone := int((counts == 0).sum()):
                self.lonely[cutoff][structure.name] = lone
        least = np.full(n, np.inf)
        np.minimum.at(least, i, d)
        np.minimum.at(least, j, d)
        for z in np.unique(atoms.numbers):
            own = least[atoms.numbers == z]
            self.nearest[int(z)].append(own[np.isfinite(own)])
        low, high = np.minimum(atoms.numbers[i], atoms.numbers[j]), np.maximum(atoms.numbers[i], atoms.numbers[j])
        code = low.astype(np.int64) * 200 + high
        order = np.lexsort((d, code))
        firsts = order[np.flatnonzero(np.diff(code[order], prepend=-1))]
        for k in firsts:
            pair = int(low[k]), int(high[k])
            if pair not in self.closest or d[k] < self.closest[pair][0]:
                self.closest[pair] = float(d[k]), structure.name

    def table(self) -> list[dict[str, Any]]:
        """One row per cutoff."""
        rows = []
        for cutoff in self.cutoffs:
            if not self.counts[cutoff]:
                continue
            counts = np.concatenate(self.counts[cutoff])
            rows.append(
                {
                    "cutoff_A": cutoff,
                    "mean": float(counts.mean()),
                    "min": int(counts.min()),
                    "median": float(np.median(counts)),
                    "max": int(counts.max()),
                    "atoms": int(counts.size),
                    "lonely_atoms": sum(self.lonely[cutoff].values()),
                    "lonely_structures": len(self.lonely[cutoff]),
                    "edges_per_structure": float(counts.sum() / max(self.structures, 1)),
                }
            )
        return rows

    def closest_table(self) -> list[dict[str, Any]]:
        """Shortest distance of each pair of elements, those first that come closest for their radii."""
        rows = []
        for (a, b), (distance, name) in self.closest.items():
            ratio = distance / float(covalent_radius(a) + covalent_radius(b))
            rows.append({"pair": f"{symbol(a)}-{symbol(b)}", "distance_A": distance, "of_radii": ratio, "where": name})
        return sorted(rows, key=lambda row: row["of_radii"])

    def distances(self) -> dict[str, list[float]]:
        """Histogram of the distances up to 6 Å: left edges and counts."""
        return {"left_A": [round(float(x), 3) for x in BINS[:-1]], "pairs": self.histogram.tolist()}

    def nearest_of(self, z: int) -> tuple[float, float] | None:
        """Least and median distance to the nearest atom of the atoms of an element, Å; None where they stand alone."""
        known = [x for x in self.nearest.get(z, []) if x.size]
        values = np.concatenate(known) if known else np.zeros(0)
        return (float(values.min()), float(np.median(values))) if values.size else None

    def findings(self, structures: Sequence[Structure]) -> list[Finding]:
        """Atoms without neighbours at the smallest cutoff."""
        cutoff = self.cutoffs[0]
        alone = set(self.lonely[cutoff])
        if not alone:
            return []
        which = [k for k, s in enumerate(structures) if s.name in alone]
        atoms = sum(self.lonely[cutoff].values())
        message = (
            f"{count(atoms, 'atom')} in {count(len(which), 'structure')} without any neighbour within {cutoff:g} Å"
        )
        wider = [c for c in self.cutoffs if not self.lonely[c]]
        remedy = (
            f"a cutoff of {wider[0]:g} Å reaches all of them" if wider else "fine for dissociation curves and gases"
        )
        return [about("lonely atoms", "note", structures, which, message, remedy)]


def check_contacts(structures: Sequence[Structure]) -> list[Finding]:
    """Atoms closer than half the sum of their covalent radii."""
    close, least = [], np.inf
    for k, structure in enumerate(structures):
        i, j, d = half_pairs(structure.atoms, SHORT)
        if d.size == 0:
            continue
        radii = covalent_radius(structure.atoms.numbers)
        ratio = float((d / (radii[i] + radii[j])).min())
        if ratio < TOUCH:
            close.append(k)
            least = min(least, ratio)
    if not close:
        return []
    message = f"{count(len(close), 'structure')} with atoms closer than half their covalent radii (least: {least:.2f})"
    remedy = "fine for dimer curves; otherwise failed calculations to remove"
    return [about("close contacts", "warning", structures, close, message, remedy)]


def check_cells(structures: Sequence[Structure]) -> list[Finding]:
    """Cells without periodic directions, and frames of one file of which some are periodic and others not."""
    found = []
    open_cells = [
        k
        for k, s in enumerate(structures)
        if not s.atoms.pbc.any() and len(s.atoms) > 3 and abs(np.linalg.det(np.asarray(s.atoms.cell))) > 1.0
    ]
    filled = [k for k in open_cells if _fills(structures[k].atoms)]
    if filled:
        message = f"{len(filled)} structures fill a cell and have no periodic direction (pbc F F F)"
        remedy = 'if they are periodic, write pbc="T T T": open, their surfaces would be real'
        stress = any("stress" in name.lower() or "virial" in name.lower() for name in structures[filled[0]].fields)
        if stress:
            message += "; they carry a stress, which only periodic ones have"
        found.append(about("missing pbc", "error" if stress else "warning", structures, filled, message, remedy))
    kinds: dict[tuple[str, bytes], list[int]] = defaultdict(list)
    for k, s in enumerate(structures):
        if len(s.atoms) > 1:
            kinds[file_of(s), np.sort(s.atoms.numbers).tobytes()].append(k)
    mixed = []
    for members in kinds.values():
        flags = {tuple(structures[k].atoms.pbc) for k in members}
        if len(flags) > 1:
            rare = min(flags, key=lambda f: sum(tuple(structures[k].atoms.pbc) == f for k in members))
            mixed += [k for k in members if tuple(structures[k].atoms.pbc) == rare]
    mixed = [k for k in mixed if k not in set(filled)]
    if mixed:
        flags_told = " ".join("FT"[int(p)] for p in structures[mixed[0]].atoms.pbc)
        message = (
            f"{len(mixed)} structures are periodic in other directions ({flags_told}) than most of their composition"
        )
        remedy = "check pbc and Lattice of these frames"
        found.append(about("mixed pbc", "warning", structures, mixed, message, remedy))
    return found


def _fills(atoms: ase.Atoms) -> bool:
    """Whether the atoms of an open system reach through its cell, and would not overlap if it were periodic."""
    fractional = atoms.positions @ np.linalg.inv(np.asarray(atoms.cell))
    heights = 1.0 / np.linalg.norm(np.linalg.inv(np.asarray(atoms.cell)), axis=0)
    gaps = (1.0 - np.ptp(fractional - np.floor(fractional), axis=0)) * heights
    if (gaps > 3.0).any():
        return False
    periodic = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    i, j, d = half_pairs(periodic, SHORT)
    radii = covalent_radius(atoms.numbers)
    return d.size == 0 or float((d / (radii[i] + radii[j])).min()) > TOUCH
