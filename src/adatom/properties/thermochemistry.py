"""Ideal-gas thermochemistry of a molecule from its vibrations: rigid rotor, harmonic oscillators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ase
import numpy as np
from ase import units
from pydantic import PositiveFloat, PositiveInt

from adatom.config import Config
from adatom.data.pairs import rotations
from adatom.errors import ConfigError, SimulationError
from adatom.neighbors import charge_and_spin
from adatom.properties.vibrations import Vibrations, inertia, rigid_motions
from adatom.units import BOLTZMANN

BAR = 1e5  # Pa
SAME = 0.1  # Å: a rotation that brings every atom as near to one of its kind carries the molecule into itself
WIDE = 0.3  # of the largest triangle with the centre: two atoms that span less do not fix a rotation well


class ThermochemistryConfig(Config):
    """Conditions; ``symmetry_number`` counts the rotations that carry the molecule into itself (water 2, methane 12),
    None: those that ``count_rotations`` finds; ``multiplicity`` the states of its spin, None: as the atoms say, or 1.
    """

    temperature_K: PositiveFloat = 298.15
    pressure_bar: PositiveFloat = 1.0
    symmetry_number: PositiveInt | None = None
    multiplicity: PositiveInt | None = None


@dataclass(frozen=True)
class Thermochemistry:
    """Of one molecule: enthalpy H = E + zero point + heat + kT, entropy S, Gibbs energy G = H - T S."""

    temperature_K: float
    pressure_bar: float
    symmetry_number: int
    multiplicity: int
    energy_eV: float
    zero_point_eV: float
    enthalpy_eV: float
    entropy_eV_per_K: float
    gibbs_eV: float
    heat_capacity_eV_per_K: float  # at constant pressure

    @property
    def entropy_J_per_mol_K(self) -> float:
        """As tables give it."""
        return self.entropy_eV_per_K * float(units.mol / units.J)

    def to_record(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def thermochemistry(
    vibrations: Vibrations,
    *,
    temperature_K: float = 298.15,
    pressure_bar: float = 1.0,
    symmetry_number: int | None = None,
    multiplicity: int | None = None,
) -> Thermochemistry:
    """Enthalpy, entropy and Gibbs energy of an ideal gas of these molecules; parameters as in ThermochemistryConfig.

        S = S_trans + S_rot + S_vib + k ln(multiplicity),   S_trans = k [ln((2 pi m k T / h^2)^(3/2) k T / p) + 5/2]
        S_rot = k [ln(q_rot) + f / 2],   q_rot = sqrt(pi) / sigma prod (8 pi^2 I k T / h^2)^(1/2) over f = 3 axes,
        or 8 pi^2 I k T / (sigma h^2) with f = 2 for a line

    (D. A. McQuarrie, Statistical Mechanics). Soft modes are taken as harmonic as they are: below some 100 cm^-1 that
    overstates S.

    Raises
    ------
    ConfigError
        The structure is no free molecule: periodic, or with atoms that are held.
    SimulationError
        It has imaginary modes, or modes without a frequency: no minimum, and no equilibrium with anything.
    """
    config = ThermochemistryConfig.parse(
        {
            "temperature_K": temperature_K,
            "pressure_bar": pressure_bar,
            "symmetry_number": symmetry_number,
            "multiplicity": multiplicity,
        },
        where="thermochemistry",
    )
    formula = vibrations.atoms.get_chemical_formula()
    if vibrations.shape in ("held", "periodic"):
        raise ConfigError(
            "an ideal gas is made of free molecules",
            where=f"thermochemistry of {formula}",
            wanted="an open structure, no atom of it held",
            got=f"a structure that is {vibrations.shape}",
            remedy="for crystals use adatom phonons",
        )
    if not (vibrations.frequencies_per_cm > 0.0).all():  # parts that do not feel one another have none
        raise SimulationError(
            "a molecule with imaginary modes is at no minimum and has no thermochemistry",
            where=f"thermochemistry of {formula}",
            wanted="real frequencies above zero",
            got=f"{vibrations.imaginary} imaginary: {-vibrations.frequencies_per_cm[0]:.0f}i cm^-1",
            remedy="displace the atoms along that mode, and relax again",
        )
    T, k = config.temperature_K, BOLTZMANN
    sigma = config.symmetry_number or count_rotations(vibrations.atoms)
    spin = config.multiplicity or round(charge_and_spin(vibrations.atoms)[1])
    heat, entropy, capacity = _translation(vibrations, T, config.pressure_bar)
    for part in (_rotation(vibrations, T, sigma), _oscillators(vibrations, T)):
        heat, entropy, capacity = heat + part[0], entropy + part[1], capacity + part[2]
    entropy += k * math.log(spin)
    enthalpy = vibrations.energy_eV + vibrations.zero_point_eV + heat
    return Thermochemistry(
        T,
        config.pressure_bar,
        sigma,
        spin,
        vibrations.energy_eV,
        vibrations.zero_point_eV,
        enthalpy,
        entropy,
        enthalpy - T * entropy,
        capacity,
    )


def temperatures(
    vibrations: Vibrations, at_K: Sequence[float], *, pressure_bar: float = 1.0, symmetry_number: int | None = None,
    multiplicity: int | None = None,
) -> list[Thermochemistry]:  # fmt: skip
    """The same at several temperatures."""
    return [
        thermochemistry(
            vibrations,
            temperature_K=T,
            pressure_bar=pressure_bar,
            symmetry_number=symmetry_number,
            multiplicity=multiplicity,
        )
        for T in at_K
    ]


def count_rotations(atoms: ase.Atoms, tolerance_A: float = SAME) -> int:
    """Symmetry number of a free molecule: the rotations that carry it into itself, the one that does nothing included.

    Every atom must come within ``tolerance_A`` of one of its kind; isotopes are kinds of their own. 1 for an atom.
    """
    masses = atoms.get_masses()
    arms = atoms.positions - masses @ atoms.positions / masses.sum()  # (N, 3)
    kinds = np.unique(np.stack([atoms.numbers, masses.round(2)], axis=1), axis=0, return_inverse=True)[1].ravel()
    shape, _ = rigid_motions(atoms, np.arange(len(atoms)))
    if shape == "atom":
        return 1
    if shape == "line":
        return len({(*range(len(arms)),), *_carried(-arms, arms, kinds, tolerance_A)})
    lengths = np.linalg.norm(arms, axis=1)
    alike = (kinds[:, None] == kinds) & (np.abs(lengths[:, None] - lengths) < tolerance_A)  # (N, N)
    spanned = np.linalg.norm(np.cross(arms[:, None], arms[None]), axis=2)  # (N, N)
    ways = np.where(spanned > WIDE * spanned.max(), np.outer(alike.sum(1), alike.sum(1)), np.inf)
    a, b = np.unravel_index(int(ways.argmin()), ways.shape)  # two atoms that fix a rotation, with the fewest to go to
    inside = arms @ _frame(arms[a], arms[b]).T
    apart = np.linalg.norm(arms[a] - arms[b])
    found: set[tuple[int, ...]] = set()
    for i in np.flatnonzero(alike[a]):
        for j in np.flatnonzero(alike[b]):
            if abs(np.linalg.norm(arms[i] - arms[j]) - apart) < tolerance_A:
                found |= _carried(inside @ _frame(arms[i], arms[j]), arms, kinds, tolerance_A)
    return len(found)


def _frame(along: np.ndarray, beside: np.ndarray) -> np.ndarray:
    """Right-handed unit vectors as rows, the first along one vector, the second in the plane of both."""
    first = along / np.linalg.norm(along)
    second = beside - (beside @ first) * first
    second /= np.linalg.norm(second)
    return np.array([first, second, np.cross(first, second)])


def _carried(turned: np.ndarray, arms: np.ndarray, kinds: np.ndarray, tolerance: float) -> set[tuple[int, ...]]:
    """Where turned atoms (N, 3) have come to, as one tuple; empty unless each came to another one of its kind."""
    apart = np.linalg.norm(turned[:, None] - arms[None], axis=2)  # (N, N)
    images = np.where(kinds[:, None] == kinds, apart, np.inf).argmin(axis=1)
    if np.unique(images).size < len(arms):
        return set()
    # two atoms fix the turn roughly, all of them the best one
    off = turned @ rotations(turned, arms[images]) - arms[images]
    return {tuple(images.tolist())} if np.linalg.norm(off, axis=1).max() < tolerance else set()


def _translation(vibrations: Vibrations, T: float, pressure_bar: float) -> tuple[float, float, float]:
    """Heat (kT of the volume included), entropy and heat capacity at constant pressure."""
    mass = float(vibrations.atoms.get_masses().sum()) * units._amu
    states = (2.0 * math.pi * mass * units._k * T / units._hplanck**2) ** 1.5 * units._k * T / (pressure_bar * BAR)
    return 2.5 * BOLTZMANN * T, BOLTZMANN * (math.log(states) + 2.5), 2.5 * BOLTZMANN


def _rotation(vibrations: Vibrations, T: float, symmetry_number: int) -> tuple[float, float, float]:
    if vibrations.shape == "atom":
        return 0.0, 0.0, 0.0
    masses, positions = vibrations.atoms.get_masses(), vibrations.atoms.positions
    moments = np.linalg.eigvalsh(inertia(masses, positions - masses @ positions / masses.sum()))
    turns = 8.0 * math.pi**2 * units._amu * 1e-20 * moments * units._k * T / units._hplanck**2
    if vibrations.shape == "line":
        states, axes = float(turns[-1]), 2
    else:
        states, axes = math.sqrt(math.pi * float(turns.prod())), 3
    half = 0.5 * axes * BOLTZMANN
    return half * T, BOLTZMANN * math.log(states / symmetry_number) + half, half


def _oscillators(vibrations: Vibrations, T: float) -> tuple[float, float, float]:
    """Beyond the zero point."""
    x = vibrations.frequencies_per_cm * units.invcm / (BOLTZMANN * T)
    n = 1.0 / np.expm1(x)
    heat = BOLTZMANN * T * float((x * n).sum())
    entropy = BOLTZMANN * float((x * n - np.log(-np.expm1(-x))).sum())
    return heat, entropy, BOLTZMANN * float((x * x * n * (n + 1.0)).sum())
