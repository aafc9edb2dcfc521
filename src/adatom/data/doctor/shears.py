"""Shear components of the stress in another order: the energies tell under which one each of them belongs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import permutations
from typing import Final

import numpy as np

from adatom.data.doctor.finding import Finding, file_of
from adatom.data.pairs import Pairs, box_of, strain_of
from adatom.data.read import Structure
from adatom.elements import symbols

NAMES: Final = ("yz", "xz", "xy")
ROWS, COLUMNS = np.array([1, 0, 0]), np.array([2, 2, 1])  # of yz, xz, xy in a tensor
GIVEN: Final = (0, 1, 2)
FEWEST: Final = 6  # pairs that two orders must tell apart
SEEN: Final = (1e-3, 2e-5)  # least shear of a pair; eV/atom, least difference of work between two orders
BETTER: Final = 3.0  # factor between the median residuals
CLOSE: Final = 0.3  # what the better order may leave, as a share of what the two orders differ by
SHARE: Final = 0.8  # of the pairs that the better order must explain better


def check_shears(structures: Sequence[Structure], pairs: Pairs) -> list[Finding]:
    """Whether dE along shears is the work of the shear stress as it is given, or of its components reordered.

    The work of pairs with strain eps, sum over ends of 1/2 V sigma:eps, holds its shear part as the trace of
    M_ij = sum V sigma_i eps_j with i, j of yz, xz, xy; under another order p it is sum_j M_p(j)j. Energies judge in any
    crystal and any frame, where "a shear answers by the same component" holds in cubic axes alone. Each file and
    set of elements is judged by itself, on pairs where the two orders differ.

    A warning, not an error: energies, forces and normal stresses are right, but elasticity would be learnt wrongly.
    """
    groups: dict[tuple[str, tuple[int, ...]], list[int]] = defaultdict(list)
    for k in np.flatnonzero(pairs.stress_work != 0.0):
        s = structures[int(pairs.first[k])]
        if s.atoms.pbc.all():
            groups[file_of(s), tuple(np.unique(s.atoms.numbers).tolist())].append(int(k))
    found = [_order(structures, pairs, np.array(chosen), where) for (where, _), chosen in groups.items()]
    return list(dict.fromkeys(f for f in found if f is not None))


def _order(structures: Sequence[Structure], pairs: Pairs, chosen: np.ndarray, where: str) -> Finding | None:
    """The order that explains the energies of these pairs clearly better than the given one, if any does."""
    works, sizes = zip(*(_works(structures, pairs, k) for k in chosen), strict=True)
    sheared = np.array(sizes) > SEEN[0]
    chosen, table = chosen[sheared], np.array(works)[sheared]  # table: (P, 3, 3)
    left = pairs.energy[chosen] - pairs.force_work[chosen] - pairs.stress_work[chosen]
    best: tuple[float, str, float, float, int] | None = None
    for order in permutations(GIVEN):
        change = table[:, order, GIVEN].sum(axis=1) - np.trace(table, axis1=1, axis2=2)
        told = np.abs(change) > SEEN[1] * pairs.atoms[chosen]
        if order == GIVEN or told.sum() < FEWEST:
            continue
        given, other = np.abs(left[told]), np.abs(left[told] - change[told])
        per_atom = pairs.atoms[chosen][told]
        before, after = float(np.median(given / per_atom)), float(np.median(other / per_atom))
        clear = before > BETTER * after and float(np.mean(other < given)) > SHARE
        if clear and after < CLOSE * float(np.median(np.abs(change[told]) / per_atom)):
            # orders are compared with the given one on different pairs: by what they leave of all that shear
            total = float(np.median(np.abs(left - change) / pairs.atoms[chosen]))
            if best is None or total < best[0]:
                best = total, _told(order), before, after, int(told.sum())
    if best is None:
        return None
    _, name, before, after, count = best
    elements = ", ".join(symbols(sorted(set(structures[int(pairs.first[chosen[0]])].atoms.numbers.tolist()))))
    message = (
        f"{name}: over {count} pairs of sheared structures of {elements} the work of the stress as given misses dE by "
        f"{1e3 * before:.2g} meV/atom in the median, in this order by {1e3 * after:.2g}"
    )
    remedy = "write the stress in the order xx yy zz yz xz xy, or as a 3x3 tensor (VASP prints xx yy zz xy yz zx); "
    remedy += "a model trained on it has wrong elastic constants"
    return Finding("order of the stress", "warning", where, message, remedy)


def _works(structures: Sequence[Structure], pairs: Pairs, k: int) -> tuple[np.ndarray, float]:
    """M of a pair (3, 3), eV, and its largest shear."""
    ends = structures[int(pairs.first[k])], structures[int(pairs.second[k])]
    boxes = [box_of(np.asarray(s.atoms.cell), np.asarray(s.atoms.pbc)) for s in ends]
    table, largest = np.zeros((3, 3)), 0.0
    for s, box in zip(ends, boxes, strict=True):
        shear = strain_of(box, boxes[1] - boxes[0])[ROWS, COLUMNS]
        # twice: a tensor holds each shear component at two places
        table += abs(float(np.linalg.det(box))) * np.outer(s.stress[ROWS, COLUMNS], shear)
        largest = max(largest, float(np.abs(shear).max()))
    return table, largest


def _told(order: tuple[int, ...]) -> str:
    """What stands where, in words."""
    moved = [j for j in GIVEN if order[j] != j]
    if len(moved) == 2:
        return f"stress components {NAMES[moved[0]]} and {NAMES[moved[1]]} are exchanged"
    parts = ", ".join(f"{NAMES[j]} under {NAMES[order[j]]}" for j in GIVEN)
    return f"stress components stand in another order, {parts}"
