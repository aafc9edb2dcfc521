"""Energy and forces along fine scans through the cutoff: nothing may jump or flare up as a neighbour leaves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import ase
import numpy as np

from adatom.testing.bench import Bench, Measured, Outcome, worst
from adatom.testing.structures import cluster

STEP = 1e-3  # Å
SCAN = 60  # steps on either side of the cutoff
LAST, GONE = 200, 20  # steps inside and outside the cutoff for a pair alone
WAY = 2e-3  # Å, steps of a whole way out: edges may end by rank or weight before the cutoff


def energy_across_cutoff(bench: Bench) -> Measured:
    """Largest jump of the energy as an atom in company crosses the cutoff, in ordinary steps of the scan (0.001 Å)."""
    return _largest_jump(bench, _crossing(bench), of_forces=False)


def force_across_cutoff(bench: Bench) -> Measured:
    """Largest jump of any force component as an atom in company crosses the cutoff, in ordinary steps of the scan."""
    return _largest_jump(bench, _crossing(bench), of_forces=True)


def energy_of_last_neighbour(bench: Bench) -> Measured:
    """Largest jump of the energy as the only neighbour leaves, in ordinary steps of the last 0.2 Å before."""
    return _largest_jump(bench, _leaving(bench), of_forces=False)


def force_of_last_neighbour(bench: Bench) -> Measured:
    """Largest jump of the force as the only neighbour leaves, in ordinary steps of the last 0.2 Å before."""
    return _largest_jump(bench, _leaving(bench), of_forces=True)


def flare_of_last_neighbour(bench: Bench) -> Measured:
    """Largest force of a pair from 0.1 Å inside the cutoff on, relative to its median from 1 Å to 0.1 Å inside.

    An attention that divides by the weights that are left, or a mean over neighbours, keeps a lone neighbour at full
    strength until it is gone: the force then grows without bound. The approach is followed down to 10^-8 Å.
    """
    inner = bench.cutoff - np.linspace(1.0, 0.1, 60)
    outer = bench.cutoff + np.concatenate([-np.logspace(-1, -8, 60), np.logspace(-8, -1, 15)])
    figures = []
    for name, numbers in _pairs(bench):
        outcomes = bench.run(_dimers(numbers, np.concatenate([inner, outer])), stress=False)
        force = np.array([np.linalg.norm(outcome.forces, axis=1).max() for outcome in outcomes])
        ordinary = max(float(np.median(force[: len(inner)])), 1e-6 * bench.scale.force)
        place = outer[int(np.argmax(force[len(inner) :]))] - bench.cutoff
        detail = f"largest for {name} at {place:+.1e} Å from the cutoff; median {ordinary:.2g} eV/Å"
        figures.append(Measured(float(force[len(inner) :].max()) / ordinary, detail))
    return worst(figures)


def jump(values: np.ndarray) -> np.ndarray:
    """Mismatch at the midpoint of every interval between the lines through the two points before and the two after it.

    ``values`` (n, ...) on an even grid of step h -> (n - 3, ...). A step discontinuity shows in full, a smooth curve
    vanishes as h^3, and a kink shows by no more than h/2 times its change of slope: slopes may change, values may not.
    """
    left = values[1:-2] + 0.5 * (values[1:-2] - values[:-3])
    right = values[2:-1] - 0.5 * (values[3:] - values[2:-1])
    return np.asarray(np.abs(left - right))


def _largest_jump(bench: Bench, lines: Sequence[tuple[str, list[Outcome]]], of_forces: bool) -> Measured:
    """Largest jump of the lines in ordinary steps: the median one, or the larger of the two beside the jump.

    A curve that fades falls by orders of magnitude along a scan: its first steps are above the median, and beyond its
    end there are none.
    """
    figures = []
    typical = bench.scale.force if of_forces else bench.scale.energy
    unit = "eV/Å" if of_forces else "eV"
    for name, outcomes in lines:
        values = np.array([o.forces.ravel() if of_forces else [o.energy] for o in outcomes])  # (frames, components)
        steps = np.abs(np.diff(values, axis=0)).max(axis=1)
        ordinary = np.maximum(np.maximum(steps[:-2], steps[2:]), max(float(np.median(steps)), 1e-9 * typical))
        jumps = jump(values).max(axis=1)
        place = int(np.argmax(jumps / ordinary))
        detail = f"largest for {name}: {jumps[place]:.2g} {unit} against {ordinary[place]:.2g} {unit} a step"
        figures.append(Measured(float(jumps[place] / ordinary[place]), detail))
    return worst(figures)


def _pairs(bench: Bench) -> list[tuple[str, tuple[int, int]]]:
    """Dimers among the samples."""
    found = [(s.name, s.atoms.numbers) for s, _ in bench.open_samples() if len(s.atoms) == 2]
    return [(name, (int(numbers[0]), int(numbers[1]))) for name, numbers in found[:3]]


@lru_cache(maxsize=1)  # one bench is measured at a time: energies and forces come from the same scan
def _leaving(bench: Bench) -> list[tuple[str, list[Outcome]]]:
    """Dimers drawn apart through the cutoff, a midpoint of the grid, and the way out to there."""
    scans = {
        "": bench.cutoff + STEP * (np.arange(-LAST, GONE) + 0.5),
        " on its way": np.arange(0.5 * bench.cutoff, bench.cutoff, WAY),
    }
    return [
        (name + way, bench.run(_dimers(numbers, distances), stress=False))
        for way, distances in scans.items()
        for name, numbers in _pairs(bench)
    ]


def _dimers(numbers: tuple[int, int], distances: np.ndarray) -> list[ase.Atoms]:
    direction = np.array([0.6, -0.48, 0.64])
    return [ase.Atoms(numbers=numbers, positions=[np.zeros(3), d * direction]) for d in distances]


@lru_cache(maxsize=1)
def _crossing(bench: Bench) -> list[tuple[str, list[Outcome]]]:
    """An atom bound to one cluster recedes from an atom of another through the cutoff, a midpoint of the grid."""
    rng = bench.rng()
    numbers = next(s.atoms.numbers for s, _ in bench.open_samples() if len(s.atoms) > 2)
    offsets = STEP * (np.arange(-SCAN, SCAN) + 0.5)
    lines = []
    for k in range(2):
        near = cluster([int(z) for z in rng.permutation(numbers)[:5]], bench.spacing, rng)
        far = cluster([int(z) for z in rng.permutation(numbers)[:4]], bench.spacing, rng)
        # the outermost atom of each along x faces the other
        axis = np.array([1.0, 0.0, 0.0])
        a, b = int(near.positions[:, 0].argmax()), int(far.positions[:, 0].argmin())
        far.positions += near.positions[a] + bench.cutoff * axis - far.positions[b]
        whole = near + far
        frames = []
        for offset in offsets:
            frame = whole.copy()
            frame.positions[len(near) + b] += offset * axis
            frames.append(frame)
        lines.append((f"scan {k + 1}", bench.run(frames, stress=False)))
    return [*lines, ("an atom drawn from a cluster", bench.run(_drawn_out(bench, numbers, rng), stress=False))]


def _drawn_out(bench: Bench, numbers: np.ndarray, rng: np.random.Generator) -> list[ase.Atoms]:
    """The outermost atom of a cluster goes its way until no other is in reach."""
    whole = cluster([int(z) for z in rng.permutation(numbers)[:5]], bench.spacing, rng)
    outermost = int(whole.positions[:, 0].argmax())
    frames = []
    for distance in np.arange(0.0, bench.cutoff, WAY):
        frame = whole.copy()
        frame.positions[outermost, 0] += distance
        frames.append(frame)
    return frames
