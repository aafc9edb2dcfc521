"""Reference energies: per element, how well the compositions fix them, and whether free atoms fit the rest."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from adatom.data.doctor.finding import Finding, about, files_of
from adatom.data.read import Structure
from adatom.elements import symbol, symbols
from adatom.errors import DataError
from adatom.statistics import References, fit_references

BOX: Final = 6.0  # Å to the nearest image, beyond which a single atom in a box is as good as free
COHESION: Final = (-15.0, 1.0)  # eV/atom that structures may lie from their free atoms in the median
SAME_ATOM: Final = 0.01  # eV between two energies of one free atom


def references_of(structures: Sequence[Structure]) -> References | None:
    """Free atoms, else least squares; None where the labels do not suffice."""
    isolated = {int(s.atoms.numbers[0]): s.energy for s in structures if s.isolated and np.isfinite(s.energy)}
    try:
        return fit_references([s.atoms.numbers for s in structures], [s.energy for s in structures], isolated)
    except DataError:
        return None


def conditioning(structures: Sequence[Structure]) -> dict[str, Any]:
    """How far the compositions tell elements apart: rank and condition number of the fit, free atoms left out."""
    bound = [s for s in structures if not s.isolated and np.isfinite(s.energy)]
    elements = sorted({int(z) for s in bound for z in np.unique(s.atoms.numbers)})
    if not elements:
        return {"elements": 0, "rank": 0, "condition": None, "compositions": 0}
    shares = np.array([[np.count_nonzero(s.atoms.numbers == z) / len(s.atoms) ** 0.5 for z in elements] for s in bound])
    spread = np.linalg.svd(shares, compute_uv=False)
    rank = int((spread > 1e-8 * spread[0]).sum())
    return {
        "elements": len(elements),
        "rank": rank,
        "condition": float(spread[0] / spread[-1]) if rank == len(elements) else None,
        "compositions": len({s.atoms.get_chemical_formula() for s in bound}),
    }


def check_references(structures: Sequence[Structure], condition: dict[str, Any]) -> list[Finding]:
    """Compositions that leave references open, and what there is to say about free atoms."""
    if not any(np.isfinite(s.energy) for s in structures):
        return []
    present = {int(z) for s in structures if not s.isolated for z in np.unique(s.atoms.numbers)}
    free: dict[int, list[int]] = defaultdict(list)
    for k, s in enumerate(structures):
        if s.isolated and np.isfinite(s.energy):
            free[int(s.atoms.numbers[0])].append(k)
    found = _conditioned(structures, condition, present - set(free))
    if free and (missing := sorted(present - set(free))):
        message = (
            f"free atoms of {', '.join(symbols(sorted(free)))} are there, and none of {', '.join(symbols(missing))}"
        )
        remedy = "their references are fitted; add the free atoms that are missing, at the same level of theory"
        found.append(Finding("isolated atoms", "note", files_of(structures), message, remedy))
    for z, members in free.items():
        values = [structures[k].energy for k in members]
        if max(values) - min(values) > SAME_ATOM:
            message = (
                f"{len(members)} free atoms of {symbol(z)} have energies {min(values):.4f} to {max(values):.4f} eV"
            )
            remedy = "keep one: which counts as the reference is chance (the last one does)"
            found.append(about("isolated atoms", "warning", structures, members, message, remedy))
    return [*found, *_boxed(structures), *_cohesion(structures, free)]


def _conditioned(structures: Sequence[Structure], condition: dict[str, Any], open_elements: set[int]) -> list[Finding]:
    many = condition["elements"]
    names = ", ".join(symbols(sorted(open_elements))[:12])
    remedy = "add free atoms (config_type isolated_atom), give data.references, or bring other compositions"
    if condition["rank"] < many and open_elements:
        message = (
            f"compositions tell apart {condition['rank']} of {many} elements ({names}): reference energies hold on "
            "these compositions only"
        )
        return [Finding("references", "note", files_of(structures), message, remedy)]
    if condition["condition"] is not None and condition["condition"] > 1e3 and open_elements:
        message = f"reference energies of {names} are ill-conditioned ({condition['condition']:.0e})"
        return [Finding("references", "warning", files_of(structures), message, remedy)]
    return []


def _boxed(structures: Sequence[Structure]) -> list[Finding]:
    """Single atoms in a wide periodic box that nothing calls isolated."""
    boxed = []
    for k, s in enumerate(structures):
        if len(s.atoms) == 1 and s.atoms.pbc.any() and not s.isolated:
            heights = 1.0 / np.linalg.norm(np.linalg.pinv(np.asarray(s.atoms.cell)), axis=0)
            if heights[np.asarray(s.atoms.pbc)].min() > BOX:
                boxed.append(k)
    if not boxed:
        return []
    kinds = ", ".join(sorted({symbol(int(structures[k].atoms.numbers[0])) for k in boxed}))
    message = f"{len(boxed)} single atoms ({kinds}) stand in a wide periodic box and do not serve as references"
    remedy = "if they are free atoms, say so: config_type=isolated_atom, or pbc F F F"
    return [about("isolated atoms", "note", structures, boxed, message, remedy)]


def _cohesion(structures: Sequence[Structure], free: dict[int, list[int]]) -> list[Finding]:
    """Whether structures lie below their free atoms by as much as bonds are worth."""
    energy = {z: structures[members[-1]].energy for z, members in free.items()}
    bound = []
    for s in structures:
        if len(s.atoms) > 1 and np.isfinite(s.energy):
            counts = Counter(s.atoms.numbers.tolist())
            if all(z in energy for z in counts):
                bound.append((s.energy - sum(n * energy[z] for z, n in counts.items())) / len(s.atoms))
    if not bound:
        return []
    middle = float(np.median(bound))
    where = files_of([structures[k] for members in free.values() for k in members])
    if COHESION[0] < middle < COHESION[1]:
        message = f"free atoms fit: structures lie {middle:.3g} eV/atom from them in the median"
        return [Finding("isolated atoms", "note", where, message, "nothing to do")]
    message = f"free atoms do not fit: structures lie {middle:.4g} eV/atom from them in the median"
    remedy = (
        "they seem to be of another method, unit or spin state: compute them as the structures were, or leave them out"
    )
    return [Finding("isolated atoms", "warning", where, message, remedy)]


def reference_table(structures: Sequence[Structure], references: References | None) -> list[dict[str, Any]]:
    """One row per element: atoms, structures, forces, reference energy and where it came from."""
    atoms: Counter[int] = Counter()
    holding: Counter[int] = Counter()
    squares: dict[int, float] = defaultdict(float)
    with_forces: Counter[int] = Counter()
    for s in structures:
        numbers, counts = np.unique(s.atoms.numbers, return_counts=True)
        atoms.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
        holding.update(numbers.tolist())
        if len(s.atoms) > 1 and np.isfinite(s.forces).all():
            lengths = (s.forces**2).sum(axis=1)
            for z in numbers.tolist():
                mine = lengths[s.atoms.numbers == z]
                squares[z] += float(mine.sum())
                with_forces[z] += mine.size
    total = max(sum(atoms.values()), 1)
    return [
        {
            "element": symbol(z),
            "atoms": atoms[z],
            "share": atoms[z] / total,
            "structures": holding[z],
            "force_rms_eV_A": float(np.sqrt(squares[z] / (3 * with_forces[z]))) if with_forces[z] else None,
            "reference_eV": references.energies.get(z) if references else None,
            "source": references.source.get(z, "") if references else "",
        }
        for z in sorted(atoms)
    ]


def composition_table(structures: Sequence[Structure], most: int = 12) -> dict[str, Any]:
    """The commonest compositions with their energies, and how many there are."""
    groups: dict[str, list[Structure]] = defaultdict(list)
    for s in structures:
        groups[s.atoms.get_chemical_formula()].append(s)
    rows = []
    for formula, members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))[:most]:
        energies = np.array([s.energy / len(s.atoms) for s in members if np.isfinite(s.energy)])
        rows.append(
            {
                "formula": formula,
                "structures": len(members),
                "atoms": len(members[0].atoms),
                "energy_eV_atom": float(energies.mean()) if energies.size else None,
                "spread_eV_atom": float(np.ptp(energies)) if energies.size else None,
            }
        )
    return {"count": len(groups), "rows": rows}
