"""Units of the house (Å, eV, e, fs, amu; stress eV/Å^3, tension positive) and the factors that lead to them."""

from __future__ import annotations

from typing import Final

from ase import units as ase_units

EV_PER_A3_IN_GPA: Final[float] = float(1.0 / ase_units.GPa)  # 160.2 GPa
BOLTZMANN: Final[float] = float(ase_units.kB)  # eV/K
COULOMB: Final[float] = 14.399645478  # eV Å: e^2 / (4 pi epsilon_0), CODATA 2018

ENERGY: Final[dict[str, float]] = {
    "eV": 1.0,
    "meV": 1e-3,
    "Hartree": float(ase_units.Hartree),
    "Ry": float(ase_units.Rydberg),
    "kcal/mol": float(ase_units.kcal / ase_units.mol),
    "kJ/mol": float(ase_units.kJ / ase_units.mol),
}
LENGTH: Final[dict[str, float]] = {"Å": 1.0, "A": 1.0, "Angstrom": 1.0, "Bohr": float(ase_units.Bohr), "nm": 10.0}
PRESSURE: Final[dict[str, float]] = {
    "GPa": float(ase_units.GPa),
    "kbar": float(0.1 * ase_units.GPa),
    "kB": float(0.1 * ase_units.GPa),
    "bar": float(1e-4 * ase_units.GPa),
}


def energy_factor(unit: str) -> float:
    """Factor from ``unit`` to eV; KeyError when the unit is unknown."""
    return ENERGY[unit]


def force_factor(unit: str) -> float:
    """Factor from ``unit``, written energy/length as in ``"Hartree/Bohr"`` or ``"kcal/mol/Å"``, to eV/Å."""
    energy, _, length = unit.rpartition("/")
    return ENERGY[energy] / LENGTH[length]


def stress_factor(unit: str) -> float:
    """Factor from ``unit`` to eV/Å^3; a leading minus (``"-kbar"``, as VASP prints) turns compression into tension."""
    sign, name = (-1.0, unit[1:]) if unit.startswith("-") else (1.0, unit)
    if name in PRESSURE:
        return sign * PRESSURE[name]
    energy, _, volume = name.rpartition("/")
    return sign * ENERGY[energy] / LENGTH[volume.removesuffix("^3")] ** 3
