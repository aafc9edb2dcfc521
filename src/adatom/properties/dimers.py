"""Dimer curves: two atoms from contact to the cutoff, for every pair of elements that a potential knows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.calculators.calculator import BaseCalculator
from pydantic import Field, PositiveFloat
from scipy.stats import rankdata

from adatom.config import Config
from adatom.elements import covalent_radius, number, symbol
from adatom.errors import ConfigError
from adatom.neighbors import NEUTRAL, SINGLET
from adatom.potential import Potential
from adatom.sim.calculator import Calculator
from adatom.sim.guard import card_of, closest_allowed
from adatom.sim.many import evaluate
from adatom.sim.relax import as_calculator

STILL_FORCE, STILL_ENERGY = 1e-2, 1e-3  # eV/Å, eV: what MLIP Arena takes for zero when it counts changes of sign
ARENA_START = 0.9  # of the covalent radius: where MLIP Arena begins


class DimersConfig(Config):
    """From where to where, how densely, and how deep a hole is one."""

    contact_A: PositiveFloat = 0.2
    reach_A: PositiveFloat | None = None  # None: the cutoff of the potential
    step_A: float = Field(default=0.01, gt=0.0, le=0.1)
    hole_eV: PositiveFloat = 0.05  # minima shallower than this are ripples


@dataclass(frozen=True)
class Smoothness:
    """Figures of a curve as MLIP Arena defines them; a flawless well has tortuosity 1 and one flip of each kind.

    The curve is walked from far to near. ``tortuosity``: total variation of the energy by what one well needs,
    |E(far) - E_min| + E(near) - E_min. ``energy_flips``: changes of sign among energy differences beyond 1 meV;
    ``energy_jump_eV``: the sum of those differences on both sides of each flip. ``force_flips``: changes of sign among
    forces beyond 10 meV/Å; ``force_jump_eV_per_A``: as for energies, of force differences. Spearman coefficients of
    distance with energy inside and outside of the minimum (-1 and 1 at best) and with force inside and outside of its
    minimum (-1 and 1 at best); NaN for parts of fewer than two points. ``conservation_eV_per_A``: mean |F + dE/dr|.

    Source: Chiang et al., MLIP Arena (AI4Mat at ICLR 2025), homonuclear diatomics.
    """

    tortuosity: float
    energy_flips: int
    energy_jump_eV: float
    force_flips: int
    force_jump_eV_per_A: float
    spearman_repulsion_energy: float
    spearman_attraction_energy: float
    spearman_descending_force: float
    spearman_ascending_force: float
    conservation_eV_per_A: float


@dataclass(frozen=True)
class Well:
    """A minimum of a curve; its depth is the barrier to the lower of the two sides."""

    distance_A: float
    energy_eV: float
    depth_eV: float


@dataclass(frozen=True)
class Dimer:
    """Curve of one pair.

    ``energies`` are those above the two atoms apart; ``forces`` push apart where positive. ``well`` is the deepest
    minimum at distances that dynamics are allowed to visit (``inner_A`` on, see ``adatom.sim.guard``), if there is one;
    it may lie above the atoms apart. ``holes`` are minima nearer than that, or a curve that still falls at contact.
    """

    elements: tuple[str, str]
    distances: np.ndarray  # (P,)  Å, ascending
    energies: np.ndarray  # (P,)  eV
    forces: np.ndarray  # (P,)  eV/Å
    inner_A: float
    trained_A: float | None  # shortest distance of the training set
    well: Well | None
    holes: tuple[Well, ...]
    smoothness: Smoothness  # of the whole curve
    arena: Smoothness  # of the part that MLIP Arena looks at, from 0.9 covalent radii on

    @property
    def name(self) -> str:
        """As in ``H-O``."""
        return "-".join(self.elements)

    @property
    def repulsive(self) -> bool:
        """Whether the atoms are pushed apart wherever they are nearer than dynamics allow."""
        return bool((self.forces[self.distances <= self.inner_A] > 0.0).all())

    @property
    def smooth(self) -> bool:
        """Whether the energy falls all the way from contact to the well, or to the inner distance without one."""
        end = self.inner_A if self.well is None else self.well.distance_A
        return bool((np.diff(self.energies[self.distances <= end]) < STILL_ENERGY).all())

    @property
    def sound(self) -> bool:
        """Repulsive, smooth, without holes."""
        return self.repulsive and self.smooth and not self.holes

    def to_record(self) -> dict[str, Any]:
        """Curve and figures as plain values."""
        return {
            "pair": self.name,
            "distance_A": self.distances.tolist(),
            "energy_eV": self.energies.tolist(),
            "force_eV_per_A": self.forces.tolist(),
            "inner_A": self.inner_A,
            "trained_A": self.trained_A,
            "well": None if self.well is None else asdict(self.well),
            "holes": [asdict(hole) for hole in self.holes],
            "repulsive": self.repulsive,
            "smooth": self.smooth,
            "smoothness": _plain(self.smoothness),
            "arena": _plain(self.arena),
        }


@dataclass(frozen=True)
class Dimers:
    """Curves of all pairs, elements in the order of their atomic numbers."""

    curves: tuple[Dimer, ...]
    contact_A: float
    reach_A: float

    @property
    def sound(self) -> bool:
        """Whether every curve is."""
        return all(curve.sound for curve in self.curves)

    def __getitem__(self, pair: str) -> Dimer:
        """The curve of ``"H-O"`` or ``"O-H"``; KeyError names the pairs there are."""
        for curve in self.curves:
            if pair in (curve.name, "-".join(reversed(curve.elements))):
                return curve
        raise KeyError(f"no pair {pair} among {', '.join(curve.name for curve in self.curves)}")

    def to_record(self) -> dict[str, Any]:
        """As the report reads it."""
        return {
            "property": "dimers",
            "contact_A": self.contact_A,
            "reach_A": self.reach_A,
            "sound": self.sound,
            "pairs": [curve.to_record() for curve in self.curves],
        }


def dimers(
    calculator: BaseCalculator | Potential | str | Path,
    *,
    elements: Sequence[str] | None = None,
    contact_A: float = 0.2,
    reach_A: float | None = None,
    step_A: float = 0.01,
    hole_eV: float = 0.05,
    progress: Callable[[str], None] | None = None,
) -> Dimers:
    """Curves of every pair of ``elements``, by default those that the potential knows.

    The other parameters are those of DimersConfig. The atoms are neutral and of multiplicity 1, or as near to that as
    the training data of a potential that asks for charge and multiplicity. ``progress`` is called with each pair.

    Raises
    ------
    ConfigError
        A calculator of another package needs ``elements`` and ``reach_A``; parameters that make no sense.
    UnknownElementError
        An element that the potential does not know.
    SimulationError
        A dimer has no number for its energy: says which, and how far apart.
    """
    config = DimersConfig.parse(
        {"contact_A": contact_A, "reach_A": reach_A, "step_A": step_A, "hole_eV": hole_eV}, where="dimers"
    )
    engine = as_calculator(calculator)
    numbers, reach = _range(engine, elements, config)
    count = max(math.ceil((reach - config.contact_A) / config.step_A), 8)
    distances = np.linspace(config.contact_A, reach, count + 1)
    state = _state(engine)
    alone = {z: evaluate([_atoms([z], [0.0], state)], engine, forces=False)[0].energy for z in numbers}
    curves = []
    for a, b in combinations_with_replacement(numbers, 2):
        if progress is not None:
            progress(f"{symbol(a)}-{symbol(b)}")
        found = evaluate([_atoms([a, b], [0.0, r], state) for r in distances], engine)
        energies = np.array([one.energy for one in found]) - alone[a] - alone[b]
        forces = np.array([0.5 * (one.forces[1, 0] - one.forces[0, 0]) for one in found])
        curves.append(_curve((a, b), distances, energies, forces, card_of(engine), config.hole_eV))
    return Dimers(tuple(curves), config.contact_A, reach)


def smoothness(distances: np.ndarray, energies: np.ndarray, forces: np.ndarray) -> Smoothness:
    """Figures of a curve (P,) of ascending distances in Å, energies in eV and radial forces in eV/Å."""
    r, e, f = (np.asarray(values, dtype=np.float64)[::-1] for values in (distances, energies, forces))
    low, weakest = int(e.argmin()), int(f.argmin())
    force_flips, _ = _flips(np.where(np.abs(f) < STILL_FORCE, 0.0, f))
    _, force_jump = _flips(np.diff(f))
    steps = np.diff(e)
    energy_flips, energy_jump = _flips(np.where(np.abs(steps) < STILL_ENERGY, 0.0, steps))
    needed = abs(e[0] - e.min()) + (e[-1] - e.min())
    return Smoothness(
        float(np.abs(steps).sum() / needed) if needed > 0.0 else 1.0,
        energy_flips,
        energy_jump,
        force_flips,
        force_jump,
        _spearman(r[low:], e[low:]),
        _spearman(r[:low], e[:low]),
        _spearman(r[weakest:], f[weakest:]),
        _spearman(r[:weakest], f[:weakest]),
        float(np.abs(f + np.gradient(e, r)).mean()),
    )


def wells(distances: np.ndarray, energies: np.ndarray) -> list[Well]:
    """Minima of a curve inside its range, with their depths: the climb to the lower of the two sides, up to what
    lies lower still or to the end of the curve.
    """
    found = []
    for k in range(1, len(energies) - 1):
        if energies[k - 1] >= energies[k] < energies[k + 1]:
            sides = (energies[k::-1], energies[k:])
            climbs = [_climb(side) for side in sides]
            r, e = _vertex(distances[k - 1 : k + 2], energies[k - 1 : k + 2])
            found.append(Well(r, e, float(min(climbs))))
    return found


def _curve(
    pair: tuple[int, int],
    distances: np.ndarray,
    energies: np.ndarray,
    forces: np.ndarray,
    card: dict[str, Any],
    hole_eV: float,
) -> Dimer:
    names = (symbol(pair[0]), symbol(pair[1]))
    known = card.get("min_distance_A", {})
    trained = known.get("-".join(names), known.get("-".join(reversed(names))))
    inner = float(closest_allowed(np.array(pair), card)[0, 1])
    minima = [well for well in wells(distances, energies) if well.depth_eV > hole_eV]
    outer = [well for well in minima if well.distance_A >= inner]
    well = min(outer, key=lambda one: one.energy_eV, default=None)
    border = inner if well is None else well.distance_A
    holes = [one for one in minima if one.distance_A < border and one is not well]
    if forces[0] <= 0.0 or energies[0] < energies[1]:  # it falls on, towards contact
        holes.insert(0, Well(float(distances[0]), float(energies[0]), _climb(energies)))
    near = distances >= ARENA_START * float(covalent_radius(np.array(pair)).mean())
    return Dimer(
        names,
        distances,
        energies,
        forces,
        inner,
        None if trained is None else float(trained),
        well,
        tuple(holes),
        smoothness(distances, energies, forces),
        smoothness(distances[near], energies[near], forces[near]),
    )


def _climb(side: np.ndarray) -> float:
    """How far energies rise from the first one before they fall below it."""
    lower = np.flatnonzero(side < side[0])
    return float(side[: lower[0] if lower.size else len(side)].max() - side[0])


def _vertex(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Lowest point of the parabola through three evenly spaced points around a minimum."""
    bend = y[0] - 2.0 * y[1] + y[2]
    move = 0.5 * (y[0] - y[2]) / bend
    return float(x[1] + move * (x[1] - x[0])), float(y[1] - 0.25 * (y[0] - y[2]) * move)


def _flips(values: np.ndarray) -> tuple[int, float]:
    """Changes of sign among the values that are not zero, and the sum of the sizes on both sides of each."""
    kept = values[values != 0.0]
    flip = np.diff(np.sign(kept)) != 0.0
    return int(flip.sum()), float(np.abs(kept[:-1][flip]).sum() + np.abs(kept[1:][flip]).sum())


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation of ranks; NaN where there is nothing to correlate."""
    a, b = (rankdata(values) - (len(values) + 1) / 2 for values in (x, y))
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / size if size > 0.0 else math.nan


def _range(engine: BaseCalculator, elements: Sequence[str] | None, config: DimersConfig) -> tuple[list[int], float]:
    """Atomic numbers in order, and how far apart the atoms go."""
    numbers = sorted({number(name, "dimers, --elements") for name in elements}) if elements else []
    reach = config.reach_A
    if isinstance(engine, Calculator):
        numbers = numbers or sorted(engine.potential.elements)
        reach = reach or engine.potential.cutoff
    if reach is not None and reach <= config.contact_A:
        raise ConfigError(
            "the curves would begin where they end",
            where="dimers, --contact (contact_A)",
            wanted=f"less than {reach:g} Å, " + ("the cutoff" if config.reach_A is None else "reach_A"),
            got=f"{config.contact_A:g} Å",
            remedy="leave it out: by default curves begin at 0.2 Å",
        )
    if not numbers or reach is None:
        raise ConfigError(
            "which dimers, and how far apart?",
            where="dimers",
            wanted="elements and reach_A, for a calculator that does not say them itself",
            got=f"elements {list(elements or [])}, reach_A {reach}",
            remedy="give elements=['H', 'O'], reach_A=6.0",
        )
    return numbers, float(reach)


def _state(engine: BaseCalculator) -> dict[str, float]:
    """Charge and multiplicity for ``atoms.info``: neutral and 1, or as near to that as a potential was trained."""
    if not isinstance(engine, Calculator):
        return {}
    network, config = engine.potential.network, engine.potential.network.config
    charges = (NEUTRAL, NEUTRAL) if config.charges is None else config.charges
    spins = (SINGLET, SINGLET) if config.spins is None else config.spins
    said = {}
    if network.embeds_charge:
        said["total_charge"] = min(max(NEUTRAL, charges[0]), charges[1])
    if network.embeds_spin:
        said["multiplicity"] = min(max(SINGLET, spins[0]), spins[1])
    return said


def _atoms(numbers: list[int], places: list[float], state: dict[str, float]) -> ase.Atoms:
    return ase.Atoms(numbers, [[x, 0.0, 0.0] for x in places], info=dict(state))


def _plain(figures: Smoothness) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in asdict(figures).items()}
