"""Ideal-gas thermochemistry of a molecule from its vibrations: rigid rotor, harmonic oscillators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import units
from pydantic import PositiveFloat, PositiveInt

from adatom.config import Config
from adatom.errors import ConfigError, SimulationError
from adatom.properties.vibrations import Vibrations, inertia
from adatom.units import BOLTZMANN

BAR = 1e5  # Pa


class ThermochemistryConfig(Config):
    """Conditions; ``symmetry_number`` counts the rotations that carry the molecule into itself (water 2, methane 12),
    ``multiplicity`` the states of its spin.
    """

    temperature_K: PositiveFloat = 298.15
    pressure_bar: PositiveFloat = 1.0
    symmetry_number: PositiveInt = 1
    multiplicity: PositiveInt = 1


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
    symmetry_number: int = 1,
    multiplicity: int = 1,
) -> Thermochemistry:
    """Enthalpy, entropy and Gibbs energy of an ideal gas of these molecules.

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
        It has imaginary modes: no minimum, and no equilibrium with anything.
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
    if vibrations.imaginary:
        raise SimulationError(
            "a molecule with imaginary modes is at no minimum and has no thermochemistry",
            where=f"thermochemistry of {formula}",
            wanted="real frequencies",
            got=f"{vibrations.imaginary} imaginary: {-vibrations.frequencies_per_cm[0]:.0f}i cm^-1",
            remedy="displace the atoms along that mode, and relax again",
        )
    T, k = config.temperature_K, BOLTZMANN
    heat, entropy, capacity = _translation(vibrations, T, config.pressure_bar)
    for part in (_rotation(vibrations, T, config.symmetry_number), _oscillators(vibrations, T)):
        heat, entropy, capacity = heat + part[0], entropy + part[1], capacity + part[2]
    entropy += k * math.log(config.multiplicity)
    enthalpy = vibrations.energy_eV + vibrations.zero_point_eV + heat
    return Thermochemistry(
        T,
        config.pressure_bar,
        config.symmetry_number,
        config.multiplicity,
        vibrations.energy_eV,
        vibrations.zero_point_eV,
        enthalpy,
        entropy,
        enthalpy - T * entropy,
        capacity,
    )


def temperatures(
    vibrations: Vibrations, at_K: Sequence[float], *, pressure_bar: float = 1.0, symmetry_number: int = 1,
    multiplicity: int = 1,
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
