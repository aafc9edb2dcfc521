"""Reaction paths: the nudged elastic band with a climbing image, every image of a step in one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ase
import ase.io
import numpy as np
from ase.build import minimize_rotation_and_translation
from ase.calculators.calculator import BaseCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.geometry import find_mic
from pydantic import Field, PositiveFloat, PositiveInt
from scipy.interpolate import CubicHermiteSpline
from scipy.optimize import linear_sum_assignment

from adatom.config import Config
from adatom.elements import symbol
from adatom.errors import ConfigError, GeometryError, SimulationError
from adatom.potential import Potential
from adatom.properties.band import Band, Rest, by_distances, settle, straight
from adatom.sim.many import evaluate
from adatom.sim.relax import as_calculator, relax

SAME = 0.05  # Å: ends whose atoms differ by less are one state
SHUFFLED = 0.1  # of the way: so much shorter in another order of the atoms, and the order is wrong
CLIMB_BELOW = 0.5  # eV/Å: a band this near to rest has found its saddle roughly
DIP = 0.02  # eV: a minimum on the way deeper than this is another state


class NEBConfig(Config):
    """The band, and when it is done.

    ``images`` between the ends. Converged means: no pull on an atom of any image above ``fmax`` (eV/Å), the climbing
    image included. With ``relax_ends`` both ends are brought to rest first (below ``end_fmax``), else they must be.
    ``any_order`` lets an atom end where, by all appearances, another one of its kind belongs.
    """

    images: int = Field(default=7, ge=1)
    climb: bool = True
    interpolation: Literal["idpp", "linear"] = "idpp"
    spring_eV_per_A2: PositiveFloat = 1.0
    fmax: PositiveFloat = 0.05
    steps: PositiveInt = 500
    relax_ends: bool = True
    end_fmax: PositiveFloat = 0.02
    any_order: bool = False


class BandStep(NamedTuple):
    """One step of the band: number, height of the highest image above the first (eV), largest pull (eV/Å)."""

    step: int
    height_eV: float
    fmax: float


@dataclass(frozen=True)
class ReactionPath:
    """A path of P images, ends included. Only if ``converged`` is its highest point a saddle, its height a barrier.

    ``distances_A`` along the path in the space of all atoms; ``energies_eV`` above the first image; ``slopes_eV_per_A``
    dE/ds from the forces. ``curve_*`` is the cubic through energies and slopes.
    """

    images: tuple[ase.Atoms, ...]
    energy_eV: float  # of the first image
    distances_A: np.ndarray  # (P,)
    energies_eV: np.ndarray  # (P,)
    slopes_eV_per_A: np.ndarray  # (P,)
    curve_distances_A: np.ndarray
    curve_energies_eV: np.ndarray
    converged: bool
    steps: int
    fmax: float  # eV/Å, largest pull left
    climbing: int | None  # the image that climbed
    wanted: NEBConfig

    @property
    def highest(self) -> int:
        """The highest image."""
        return int(self.energies_eV.argmax())

    @property
    def saddle(self) -> ase.Atoms:
        """The highest image, a copy."""
        return self.images[self.highest].copy()

    @property
    def barrier_forward_eV(self) -> float | None:
        """From the first to the highest; None while not converged."""
        return self._height - float(self.energies_eV[0]) if self.converged else None

    @property
    def barrier_backward_eV(self) -> float | None:
        """From the last to the highest; None while not converged."""
        return self._height - float(self.energies_eV[-1]) if self.converged else None

    @property
    def reaction_energy_eV(self) -> float:
        """Last less first."""
        return float(self.energies_eV[-1] - self.energies_eV[0])

    @property
    def _height(self) -> float:
        """Of the climbing image; without one of the curve between the images."""
        return float(self.energies_eV.max() if self.climbing is not None else self.curve_energies_eV.max())

    @property
    def intermediates(self) -> tuple[int, ...]:
        """Inner images at the bottom of a dip: other minima, and the path is better sought in parts."""
        e = self.energies_eV
        return tuple(
            k
            for k in range(1, len(e) - 1)
            if e[k] < min(e[k - 1], e[k + 1]) and min(e[:k].max(), e[k + 1 :].max()) - e[k] > DIP
        )

    def require_converged(self) -> ReactionPath:
        """This path if it has converged, SimulationError otherwise."""
        if self.converged:
            return self
        raise SimulationError(
            "the band has not come to rest: its height is no barrier",
            where=f"path of {self.images[0].get_chemical_formula()} after {self.steps} steps",
            wanted=f"pulls below {self.wanted.fmax:g} eV/Å",
            got=f"{self.fmax:.3g} eV/Å",
            remedy="allow more steps, accept a larger fmax, or look at the images: the path may pass other minima",
        )

    def write(self, path: str | Path) -> None:
        """All images with energies and forces into a file that ASE writes."""
        ase.io.write(path, list(self.images))

    def to_record(self) -> dict[str, Any]:
        """As the report reads it."""
        return {
            "property": "neb",
            "converged": self.converged,
            "barrier_forward_eV": self.barrier_forward_eV,
            "barrier_backward_eV": self.barrier_backward_eV,
            "reaction_energy_eV": self.reaction_energy_eV,
            "energy_eV": self.energy_eV,
            "distance_A": self.distances_A.tolist(),
            "path_energy_eV": self.energies_eV.tolist(),
            "slope_eV_per_A": self.slopes_eV_per_A.tolist(),
            "curve_distance_A": self.curve_distances_A.tolist(),
            "curve_energy_eV": self.curve_energies_eV.tolist(),
            "intermediates": list(self.intermediates),
            "climbing": self.climbing,
            "steps": self.steps,
            "fmax_eV_per_A": self.fmax,
            "wanted_fmax_eV_per_A": self.wanted.fmax,
        }


def neb(
    first: ase.Atoms,
    last: ase.Atoms,
    calculator: BaseCalculator | Potential | str | Path,
    *,
    images: int = 7,
    climb: bool = True,
    interpolation: Literal["idpp", "linear"] = "idpp",
    spring_eV_per_A2: float = 1.0,
    fmax: float = 0.05,
    steps: int = 500,
    relax_ends: bool = True,
    end_fmax: float = 0.02,
    any_order: bool = False,
    progress: Callable[[BandStep], None] | None = None,
) -> ReactionPath:
    """Path of least energy between two minima; the parameters are those of NEBConfig.

    The same atom has the same number in both structures. Periodic structures share a cell; an atom goes the shortest
    way through its walls. Open ones are turned and shifted onto one another first. Atoms held by FixAtoms stay.

    Raises
    ------
    GeometryError
        Other atoms, another cell or another order of atoms at the other end; both ends are one state.
    SimulationError
        An end is not at rest, or does not come to it; the potential gives no number.
    """
    config = NEBConfig.parse(
        {
            "images": images,
            "climb": climb,
            "interpolation": interpolation,
            "spring_eV_per_A2": spring_eV_per_A2,
            "fmax": fmax,
            "steps": steps,
            "relax_ends": relax_ends,
            "end_fmax": end_fmax,
            "any_order": any_order,
        },
        where="neb",
    )
    engine = as_calculator(calculator)
    held = _same_atoms(first, last)
    ends = [_at_rest(end, engine, config, name) for end, name in ((first, "first"), (last, "last"))]
    ends[1].positions = _unwrapped(ends[0], ends[1], held, config)
    start = straight(ends[0].positions, ends[1].positions, config.images)
    if config.interpolation == "idpp":
        start = by_distances(start, ends[0].cell.array, ends[0].pbc, held)

    def surface(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = evaluate([_placed(ends[0], image) for image in positions], engine)
        forces = np.array([one.forces for one in found])
        forces[:, held] = 0.0
        return np.array([one.energy for one in found]), forces

    def said(step: int, band: Band, largest: float) -> None:
        if progress is not None:
            progress(BandStep(step, float(band.energies.max() - band.energies[0]), largest))

    rest = settle(
        start,
        surface,
        spring=config.spring_eV_per_A2,
        fmax=config.fmax,
        steps=config.steps,
        climb_below=max(CLIMB_BELOW, config.fmax) if config.climb else 0.0,
        progress=said,
    )
    return _path(ends[0], rest, config)


def _path(like: ase.Atoms, rest: Rest, config: NEBConfig) -> ReactionPath:
    band = rest.band
    distances, energies = band.distances(), band.energies - band.energies[0]
    slopes = -(band.forces * band.tangents()).sum((1, 2))
    at = np.linspace(0.0, distances[-1], 20 * (len(distances) - 1) + 1)
    curve = CubicHermiteSpline(distances, energies, slopes)(at)
    images = []
    for positions, energy, forces in zip(band.positions, band.energies, band.forces, strict=True):
        image = _placed(like, positions)
        image.calc = SinglePointCalculator(image, energy=float(energy), forces=forces)
        images.append(image)
    return ReactionPath(
        tuple(images),
        float(band.energies[0]),
        distances,
        energies,
        slopes,
        at,
        curve,
        rest.largest <= config.fmax,
        rest.steps,
        rest.largest,
        rest.climbing,
        config,
    )


def _placed(like: ase.Atoms, positions: np.ndarray) -> ase.Atoms:
    moved = like.copy()
    moved.positions = positions
    return moved


def _same_atoms(first: ase.Atoms, last: ase.Atoms) -> np.ndarray:
    """Which atoms are held (N,); GeometryError unless both ends are the same atoms in the same cell."""
    if len(first) != len(last) or not np.array_equal(first.numbers, last.numbers):
        same = sorted(first.numbers) == sorted(last.numbers)
        place = next((k for k, (a, b) in enumerate(zip(first.numbers, last.numbers, strict=False)) if a != b), None)
        got = f"{first.get_chemical_formula()} and {last.get_chemical_formula()}"
        if place is not None:
            got += f"; atom {place} is {symbol(first.numbers[place])} and {symbol(last.numbers[place])}"
        raise GeometryError(
            "the ends of a path list their atoms in different order" if same else "the ends of a path are other atoms",
            where="neb",
            wanted="the same atom under the same number at both ends",
            got=got,
            remedy="sort the atoms of one end as those of the other",
        )
    if not np.array_equal(first.pbc, last.pbc) or (first.pbc.any() and not np.allclose(first.cell, last.cell)):
        raise GeometryError(
            "the ends of a path stand in different cells",
            where="neb",
            wanted="one cell and one periodicity",
            got=f"{first.cell.cellpar().round(4).tolist()} and {last.cell.cellpar().round(4).tolist()}",
            remedy="relax both ends in one cell",
        )
    held = np.zeros(len(first), dtype=bool)
    for constraint in [*first.constraints, *last.constraints]:
        if not isinstance(constraint, FixAtoms):
            raise ConfigError(
                "a band knows atoms that are held as a whole, and no other constraints",
                where="neb",
                wanted="FixAtoms",
                got=type(constraint).__name__,
                remedy="take the constraint away, or hold the atoms",
            )
        held[constraint.get_indices()] = True
    return held


def _at_rest(atoms: ase.Atoms, engine: BaseCalculator, config: NEBConfig, name: str) -> ase.Atoms:
    """An end at rest, free of its calculator."""
    if config.relax_ends:
        return relax(atoms, engine, fmax=config.end_fmax).require_converged().atoms.copy()
    free = np.ones(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        free[constraint.get_indices()] = False
    forces = evaluate([atoms], engine)[0].forces[free]
    largest = float(np.linalg.norm(forces, axis=1).max(initial=0.0))
    if largest > config.end_fmax:
        raise SimulationError(
            f"the {name} end of the path is not at rest",
            where=f"neb of {atoms.get_chemical_formula()}",
            wanted=f"forces below {config.end_fmax:g} eV/Å",
            got=f"{largest:.3g} eV/Å",
            remedy="let the ends be relaxed (relax_ends), or accept a larger end_fmax",
        )
    return atoms.copy()


def _unwrapped(first: ase.Atoms, last: ase.Atoms, held: np.ndarray, config: NEBConfig) -> np.ndarray:
    """Positions of the last end (N, 3) as the first one's atoms reach them by the shortest way; GeometryError when
    nothing moves, or when the atoms are plainly numbered in another order.
    """
    if not first.pbc.any() and not held.any() and len(first) > 1:
        last = last.copy()
        minimize_rotation_and_translation(first, last)
    ways = find_mic(last.positions - first.positions, first.cell, first.pbc)[0]
    if float(np.linalg.norm(ways, axis=1).max()) < SAME:
        raise GeometryError(
            "both ends of the path are one state" + (", once relaxed" if config.relax_ends else ""),
            where=f"neb of {first.get_chemical_formula()}",
            wanted="two minima",
            got=f"atoms that move by {float(np.linalg.norm(ways, axis=1).max()):.3f} Å at most",
            remedy="start from structures that lie safely on either side of the barrier",
        )
    if not config.any_order:
        _require_order(first, last, ways)
    reached: np.ndarray = first.positions + ways
    return reached


def _require_order(first: ase.Atoms, last: ase.Atoms, ways: np.ndarray) -> None:
    """GeometryError when the way is far shorter with atoms of a kind exchanged."""
    total = float(np.square(ways).sum())
    best, swapped = 0.0, []
    for number in np.unique(first.numbers):
        own = np.flatnonzero(first.numbers == number)
        vectors = last.positions[own][None] - first.positions[own][:, None]
        flat = find_mic(vectors.reshape(-1, 3), first.cell, first.pbc)[0]
        costs = np.square(flat).sum(1).reshape(len(own), len(own))
        rows, columns = linear_sum_assignment(costs)
        best += float(costs[rows, columns].sum())
        swapped += [(int(own[a]), int(own[b])) for a, b in zip(rows, columns, strict=True) if a != b]
    if swapped and best < SHUFFLED * total:
        a, b = swapped[0]
        raise GeometryError(
            "the ends of the path seem to number their atoms in different order",
            where=f"neb of {first.get_chemical_formula()}",
            wanted="the same atom under the same number at both ends",
            got=f"{len(swapped)} atoms end where others of their kind belong, atom {a} where {b} is in the last end; "
            f"sorted, the way would be {np.sqrt(best):.2f} instead of {np.sqrt(total):.2f} Å",
            remedy="sort the atoms of one end as those of the other; any_order=True where they do change places",
        )
