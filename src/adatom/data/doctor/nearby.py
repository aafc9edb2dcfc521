"""Near-duplicates: structures of which no atom lies more than a small distance from where it is in another one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Final

import numpy as np

from adatom.data.pairs import STRAIN_IN_A, box_of, displacement, rotations, strain_of, turned_to_first
from adatom.data.read import Structure

NEAR: Final = 0.05  # Å, largest displacement of an atom
TRIED: Final = 6  # neighbours of a structure that are looked at closely
BLOCK: Final = 512


def near_duplicates(structures: Sequence[Structure], sides: Sequence[int] | None = None) -> dict[int, int]:
    """For each structure that has a near-duplicate the index of one: of the other side, where ``sides`` are given.

    Compared are structures of equal atoms in equal order, at their best offset and, open systems, orientation; the
    distance is the largest displacement of an atom at constant cell plus 5 Å times the strain. Candidates come from
    distances that are never larger than 2 sqrt(n) times that, sorted along the direction of their widest spread:
    O(n log n + n w) for n structures, w of which lie close to a structure along it.
    """
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for k, s in enumerate(structures):
        if len(s.atoms) > 1:
            info = s.atoms.info
            key = (s.atoms.numbers.tobytes(), s.atoms.pbc.tobytes())
            groups[(*key, info.get("total_charge", 0.0), info.get("multiplicity", 1.0))].append(k)
    side = np.zeros(len(structures), dtype=int) if sides is None else np.asarray(sides)
    partner: dict[int, int] = {}
    for members in groups.values():
        if len(members) > 1 and (sides is None or len(set(side[members].tolist())) > 1):
            near = _Group(structures, members).near(None if sides is None else side[members])
            partner |= {members[a]: members[b] for a, b in near.items()}
    return partner


class _Group:
    """Structures of equal atoms, in coordinates that can be compared.

    Periodic coordinates u, counted from atom 0, enter as the chord h/(2 pi) exp(2 pi i u) with the height h of the cell
    along them: the same wherever a border of the cell is drawn, and never longer than the way itself.
    """

    def __init__(self, structures: Sequence[Structure], members: Sequence[int]) -> None:
        self.pbc = np.asarray(structures[members[0]].atoms.pbc, dtype=bool)
        cells = np.stack([np.where(self.pbc[:, None], np.asarray(structures[k].atoms.cell), 0.0) for k in members])
        self.boxes = np.stack([box_of(cell, self.pbc) for cell in cells])  # (m, 3, 3)
        inverse = np.linalg.inv(self.boxes)
        fractional = np.stack([structures[k].atoms.positions for k in members]) @ inverse  # (m, n, 3)
        if not self.pbc.any():
            fractional, _ = turned_to_first(fractional - fractional.mean(axis=1, keepdims=True))
        self.fractional = fractional
        heights = 1.0 / np.linalg.norm(inverse, axis=1).mean(axis=0)  # (3,)  Å
        anchored = fractional - (fractional[:, :1] if self.pbc.any() else 0.0)
        parts = [anchored[:, :, ~self.pbc]]
        for wave in (np.cos, np.sin):
            parts.append(wave(2.0 * np.pi * anchored[:, :, self.pbc]) * heights[self.pbc] / (2.0 * np.pi))
        count, atoms = fractional.shape[:2]
        self.points = np.concatenate([p.reshape(count, -1) for p in parts], axis=1)
        self.points -= self.points.mean(axis=0)
        self.reach = (2.0 if self.pbc.any() else 1.0) * NEAR * np.sqrt(atoms * max(int(self.pbc.sum()), 1))

    def near(self, side: np.ndarray | None) -> dict[int, int]:
        """Partner of each member that has one."""
        line = self.points @ _widest(self.points)
        order = np.argsort(line, kind="stable")
        points, line = self.points[order], line[order]
        squares = (points**2).sum(axis=1)
        partner: dict[int, int] = {}
        for start in range(0, len(order), BLOCK):
            stop = min(start + BLOCK, len(order))
            low = int(np.searchsorted(line, line[start] - self.reach))
            high = int(np.searchsorted(line, line[stop - 1] + self.reach, side="right"))
            apart = squares[start:stop, None] + squares[low:high] - 2.0 * points[start:stop] @ points[low:high].T
            apart[np.arange(stop - start), np.arange(start, stop) - low] = np.inf
            if side is not None:
                apart[side[order[start:stop], None] == side[order[None, low:high]]] = np.inf
            for row in np.flatnonzero((apart < self.reach**2).any(axis=1)):
                a = int(order[start + row])
                if a in partner:
                    continue
                close = np.flatnonzero(apart[row] < self.reach**2)
                for column in close[np.argsort(apart[row, close], kind="stable")[:TRIED]]:
                    b = int(order[low + column])
                    if self.distance(a, b) <= NEAR:
                        partner[a] = b
                        partner.setdefault(b, a)
                        break
        return partner

    def distance(self, a: int, b: int) -> float:
        """Largest displacement of an atom at best offset and orientation, Å, strain included."""
        first, second = self.fractional[a], self.fractional[b]
        if not self.pbc.any():
            return float(np.linalg.norm(second @ rotations(second, first) - first, axis=1).max())
        shift = displacement(first, second, self.pbc)
        strain = float(np.abs(strain_of(self.boxes[a], self.boxes[b] - self.boxes[a])).max())
        return float(np.linalg.norm(shift @ self.boxes[a], axis=1).max()) + STRAIN_IN_A * strain


def _widest(points: np.ndarray) -> np.ndarray:
    """Unit vector of the widest spread, from some hundreds of the points."""
    some = points[:: max(len(points) // 300, 1)]
    return np.asarray(np.linalg.svd(some - some.mean(axis=0), full_matrices=False)[2][0])
