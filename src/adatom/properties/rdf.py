"""Radial distribution functions, correct in periodic cells at any distance, beyond half the box too."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ase
import numpy as np

from adatom.elements import symbol
from adatom.errors import DataError
from adatom.neighbors import neighbor_list
from adatom.properties.trajectory import require_periodic, require_same_atoms

OPEN = "g(r) needs an average density, and a system that is not periodic in three directions has none"


@dataclass(frozen=True)
class RDF:
    """g(r) per pair of elements, averaged over frames: 1 where the density around an atom is the average one."""

    r: np.ndarray  # (B,)  Å, middle of each shell
    g: dict[str, np.ndarray]  # "H-O": (B,)
    coordination: dict[str, np.ndarray]  # "H-O": (B,)  neighbours O of an H up to the end of the shell
    frames: int

    def to_record(self) -> dict[str, Any]:
        """Plain values as the report reads them."""
        return {"r_A": self.r.tolist(), "g": {pair: values.tolist() for pair, values in self.g.items()}}


def rdf(frames: Iterable[ase.Atoms], r_max: float = 8.0, width: float = 0.05) -> RDF:
    """Radial distribution functions of the frames of a simulation.

    g_ab(r) = < n_ab(r) V / (N_a N_b v(r)) >, with n_ab the ordered pairs (a at the centre, b in the shell; periodic
    images counted, an atom's own too), v the exact volume of the shell, and V, N those of each frame: cells may change.

    Parameters
    ----------
    frames
        Structures periodic in three directions, of the same atoms.
    r_max, width
        Range and width of the shells, Å.

    Raises
    ------
    DataError
        There are no frames, or they are not of the same atoms.
    GeometryError
        A frame has no volume.
    """
    edges = np.linspace(0.0, r_max, max(round(r_max / width), 1) + 1)
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    first: ase.Atoms | None = None
    count = 0
    sums: dict[tuple[int, int], np.ndarray] = {}
    neighbours: dict[tuple[int, int], np.ndarray] = {}
    for atoms in frames:
        require_same_atoms(atoms, first or atoms, f"frame {count}")
        require_periodic(atoms, OPEN, f"frame {count}")
        first = first or atoms
        totals = {int(z): int(n) for z, n in zip(*np.unique(atoms.numbers, return_counts=True), strict=True)}
        counts = _pair_counts(atoms, list(totals), edges)
        volume = float(atoms.get_volume())
        for (a, b), histogram in counts.items():
            density = histogram / totals[a] / shells / (totals[b] / volume)
            sums[a, b] = sums.get((a, b), 0.0) + density
            neighbours[a, b] = neighbours.get((a, b), 0.0) + histogram.cumsum() / totals[a]
        count += 1
    if count == 0:
        raise DataError("there are no frames to average over", wanted="one at least", remedy="check the trajectory")
    names = {pair: f"{symbol(pair[0])}-{symbol(pair[1])}" for pair in sums}
    return RDF(
        r=0.5 * (edges[1:] + edges[:-1]),
        g={names[pair]: values / count for pair, values in sums.items()},
        coordination={names[pair]: values / count for pair, values in neighbours.items()},
        frames=count,
    )


@dataclass(frozen=True)
class Likeness:
    """How far g(r) of one pair is like that of a reference, and how far two halves of the reference are alike."""

    overlap: float  # 1 - int |g - g_ref| dr / int (g + g_ref) dr: 1 where they are the same
    noise: float  # the same of the halves of the reference frames: what cannot be told apart from 1; NaN for one frame
    mean_difference: float  # of |g - g_ref|, over the shells
    peak: tuple[float, float]  # first peak: place (Å) and height
    reference_peak: tuple[float, float]

    def to_record(self) -> dict[str, Any]:
        """The figures by name; NaN becomes None."""
        record = asdict(self) | {"peak": list(self.peak), "reference_peak": list(self.reference_peak)}
        return record | {"noise": self.noise if np.isfinite(self.noise) else None}


def compare(found: RDF, reference: Sequence[ase.Atoms]) -> tuple[RDF, dict[str, Likeness]]:
    """g(r) of reference frames over the same shells, and for each pair that both know how much they are alike.

    DataError where they share no pair of elements.
    """
    width = float(found.r[1] - found.r[0]) if len(found.r) > 1 else 2.0 * float(found.r[0])
    r_max = float(found.r[-1]) + 0.5 * width
    theirs = rdf(reference, r_max, width)
    halves = [rdf(part, r_max, width) for part in (reference[::2], reference[1::2]) if part]
    shared = [pair for pair in found.g if pair in theirs.g]
    if not shared:
        raise DataError(
            "reference and trajectory share no pair of elements",
            wanted=", ".join(found.g),
            got=", ".join(theirs.g),
            remedy="give reference frames of the same substance",
        )
    likeness = {}
    for pair in shared:
        mine, other = found.g[pair], theirs.g[pair]
        likeness[pair] = Likeness(
            overlap=_overlap(mine, other),
            noise=_overlap(halves[0].g[pair], halves[1].g[pair]) if len(halves) == 2 else float("nan"),
            mean_difference=float(np.abs(mine - other).mean()),
            peak=first_peak(found.r, mine),
            reference_peak=first_peak(found.r, other),
        )
    return theirs, likeness


def first_peak(r: np.ndarray, g: np.ndarray) -> tuple[float, float]:
    """Place (Å) and height of the first peak of g(r): the highest shell before it falls below half of that again."""
    best = 0
    for shell, height in enumerate(g):
        if height > g[best]:
            best = shell
        elif g[best] > 1.0 and height < 0.5 * g[best]:
            break
    return float(r[best]), float(g[best])


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    whole = float((one + other).sum())
    return 1.0 - float(np.abs(one - other).sum()) / whole if whole > 0.0 else 1.0


def _pair_counts(atoms: ase.Atoms, species: list[int], edges: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    """Histogram of ordered pair distances for each pair of elements a <= b, (B,)."""
    pairs, shifts = neighbor_list(atoms.get_positions(), np.asarray(atoms.cell), atoms.pbc, float(edges[-1]))
    vectors = atoms.positions[pairs[1]] + shifts @ np.asarray(atoms.cell) - atoms.positions[pairs[0]]
    lengths = np.linalg.norm(vectors, axis=1)
    shell = np.minimum((lengths / edges[-1] * (len(edges) - 1)).astype(np.int64), len(edges) - 2)
    centre, other = atoms.numbers[pairs[0]], atoms.numbers[pairs[1]]
    return {
        (a, b): np.bincount(shell[(centre == a) & (other == b)], minlength=len(edges) - 1).astype(np.float64)
        for a, b in itertools.combinations_with_replacement(species, 2)
    }
