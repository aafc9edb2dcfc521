"""A band of images between two states: tangents, springs, and how it comes to rest (nudged elastic band).

K inner images and two ends that stay; N atoms. Positions are unwrapped: neighbouring images differ by how atoms move,
and by nothing that a periodic boundary adds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ase.geometry import find_mic

Surface = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # positions (K, N, 3) -> energies (K,), forces

# FIRE (Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006)) with the published factors
FIRST_STEP, LONGEST_STEP, FARTHEST = 0.1, 1.0, 0.2  # ASE's unit of time, Å a step
WAIT, GROW, SHRINK, MIX, MIX_DOWN = 5, 1.1, 0.5, 0.1, 0.99


class Band(NamedTuple):
    """A band with what a surface says of it, ends included: P = K + 2 images."""

    positions: np.ndarray  # (P, N, 3)  Å
    energies: np.ndarray  # (P,)  eV
    forces: np.ndarray  # (P, N, 3)  eV/Å, of the surface

    def tangents(self) -> np.ndarray:
        """Unit tangents (P, N, 3): towards the neighbour that lies higher, at extrema a mean weighted by energy.

        Henkelman, Jónsson, J. Chem. Phys. 113, 9978 (2000), equations 8 to 11. At the ends the way to the next image.
        """
        steps = np.diff(self.positions, axis=0)  # (P - 1, N, 3)
        found = np.concatenate([steps[:1], steps[1:], steps[-1:]])
        for k in range(1, len(self.energies) - 1):
            found[k] = _tangent(self.energies[k - 1 : k + 2], steps[k - 1], steps[k])
        sizes = np.linalg.norm(found.reshape(len(found), -1), axis=1)
        unit: np.ndarray = found / np.maximum(sizes, 1e-12)[:, None, None]
        return unit

    def distances(self) -> np.ndarray:
        """Length of the path up to each image, (P,) Å in the space of all atoms."""
        steps = np.diff(self.positions, axis=0).reshape(len(self.positions) - 1, -1)
        lengths: np.ndarray = np.concatenate([[0.0], np.linalg.norm(steps, axis=1).cumsum()])
        return lengths

    def highest(self) -> int:
        """The highest of the inner images."""
        return 1 + int(self.energies[1:-1].argmax())

    def pulls(self, spring: float, climbing: int | None) -> np.ndarray:
        """What moves the inner images, (K, N, 3) eV/Å.

        The force across the path and the springs along it; of the climbing image the force with its part along the path
        turned around (Henkelman, Uberuaga, Jónsson, J. Chem. Phys. 113, 9901 (2000)).
        """
        tangents = self.tangents()
        lengths = np.diff(self.distances())
        found = np.zeros_like(self.positions)
        for k in range(1, len(self.energies) - 1):
            along = float((self.forces[k] * tangents[k]).sum())
            push = -2.0 * along if k == climbing else spring * (lengths[k] - lengths[k - 1]) - along
            found[k] = self.forces[k] + push * tangents[k]
        return found[1:-1]


class Rest(NamedTuple):
    """Where a band came to."""

    band: Band
    largest: float  # eV/Å, the largest pull on an atom of an inner image
    steps: int
    climbing: int | None


def settle(
    start: np.ndarray,
    surface: Surface,
    *,
    spring: float,
    fmax: float,
    steps: int,
    climb_below: float = 0.0,
    progress: Callable[[int, Band, float], None] | None = None,
) -> Rest:
    """Move a band (P, N, 3) until no pull on an atom exceeds ``fmax``, by FIRE on all images together.

    Once the pulls are below ``climb_below`` the highest image climbs, if it lies above both ends.
    """
    positions = start.copy()
    motion = _Fire(positions[1:-1].shape)
    climbing: int | None = None
    for step in range(steps + 1):
        energies, forces = surface(positions)
        band = Band(positions.copy(), energies, forces)
        pulls = band.pulls(spring, climbing)
        largest = float(np.linalg.norm(pulls, axis=2).max())
        if largest <= max(climb_below, fmax) and climb_below > 0.0:
            highest = band.highest()
            if highest != climbing and energies[highest] > max(energies[0], energies[-1]):
                climbing = highest
                pulls = band.pulls(spring, climbing)
                largest = float(np.linalg.norm(pulls, axis=2).max())
                motion.rest()
        if progress is not None:
            progress(step, band, largest)
        if largest <= fmax or step == steps:
            break
        positions[1:-1] += motion.move(pulls)
    return Rest(band, largest, step, climbing)


class _Fire:
    """Inertia that is forgotten as soon as it goes uphill; all images of a band are one body."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.velocity = np.zeros(shape)
        self.rest()

    def rest(self) -> None:
        self.velocity[:] = 0.0
        self.step, self.mix, self.downhill = FIRST_STEP, MIX, 0

    def move(self, pulls: np.ndarray) -> np.ndarray:
        """The next step of the positions."""
        power = float((pulls * self.velocity).sum())
        if power > 0.0:
            share = np.linalg.norm(self.velocity) / np.linalg.norm(pulls)
            self.velocity = (1.0 - self.mix) * self.velocity + self.mix * share * pulls
            if self.downhill >= WAIT:
                self.step, self.mix = min(self.step * GROW, LONGEST_STEP), self.mix * MIX_DOWN
            self.downhill += 1
        elif power < 0.0:
            self.velocity[:] = 0.0
            self.step, self.mix, self.downhill = self.step * SHRINK, MIX, 0
        self.velocity += self.step * pulls
        way = self.step * self.velocity
        longest = float(np.linalg.norm(way, axis=-1).max())
        limited: np.ndarray = way if longest <= FARTHEST else way * (FARTHEST / longest)
        return limited


def straight(first: np.ndarray, last: np.ndarray, inner: int) -> np.ndarray:
    """Evenly spaced images on the line from first to last, ends included: (inner + 2, N, 3)."""
    shares = np.linspace(0.0, 1.0, inner + 2)[:, None, None]
    line: np.ndarray = (1.0 - shares) * first + shares * last
    return line


def by_distances(band: np.ndarray, cell: np.ndarray, pbc: np.ndarray, held: np.ndarray, steps: int = 200) -> np.ndarray:
    """Images whose distances between atoms change evenly: the image-dependent pair potential.

    S = sum_(i<j) (d_ij - target)^2 / target^4 with targets interpolated between the ends, at rest as a nudged elastic
    band (Smidstrup, Pedersen, Stokbro, Jónsson, J. Chem. Phys. 140, 214106 (2014)). Of periodic pairs the image counts
    that is the nearest half way. Atoms that are held (N,) stay.
    """
    i, j = np.triu_indices(band.shape[1], 1)
    if not i.size:
        return band
    middle = band[len(band) // 2]
    plain = middle[j] - middle[i]
    shifts = find_mic(plain, cell, pbc)[0] - plain  # (pairs, 3)
    ends = [np.linalg.norm(image[j] - image[i] + shifts, axis=1) for image in (band[0], band[-1])]
    shares = np.linspace(0.0, 1.0, len(band))[:, None]
    targets = (1.0 - shares) * ends[0] + shares * ends[1]  # (P, pairs)

    def surface(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        energies, forces = np.zeros(len(positions)), np.zeros_like(positions)
        for k, image in enumerate(positions):
            vectors = image[j] - image[i] + shifts
            lengths = np.maximum(np.linalg.norm(vectors, axis=1), 1e-3)
            gap, weight = lengths - targets[k], targets[k] ** -4.0
            energies[k] = float((weight * gap * gap).sum())
            slopes = (2.0 * weight * gap / lengths)[:, None] * vectors
            np.add.at(forces[k], i, slopes)
            np.add.at(forces[k], j, -slopes)
        forces[:, held] = 0.0
        return energies, forces

    return settle(band, surface, spring=0.1, fmax=0.02, steps=steps).band.positions


def _tangent(energies: np.ndarray, back: np.ndarray, ahead: np.ndarray) -> np.ndarray:
    """Of one image, from the energies of the last, itself and the next, and the ways from the last and to the next."""
    before, here, after = energies.tolist()
    if after > here > before:
        return ahead
    if after < here < before:
        return back
    larger, smaller = max(abs(after - here), abs(before - here)), min(abs(after - here), abs(before - here))
    high, low = (ahead, back) if after > before else (back, ahead)
    if larger == 0.0:
        larger = smaller = 1.0  # a flat stretch
    mean: np.ndarray = larger * high + smaller * low
    return mean
