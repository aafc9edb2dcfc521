"""Conversion factors against numbers from the literature (CODATA 2018, SI)."""

from __future__ import annotations

import pytest

from adatom import units

CODATA = 3e-8  # the tables of ASE are of 2014: they differ in the eighth digit


@pytest.mark.parametrize(
    ("unit", "electronvolts"),
    [("eV", 1.0), ("meV", 1e-3), ("Hartree", 27.211386245988), ("Ry", 13.605693122994), ("kcal/mol", 0.0433641042),
     ("kJ/mol", 0.01036426966)],
)  # fmt: skip
def test_energies(unit: str, electronvolts: float) -> None:
    assert units.energy_factor(unit) == pytest.approx(electronvolts, rel=CODATA)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("eV/Å", 1.0), ("eV/A", 1.0), ("Hartree/Bohr", 51.422067476), ("Ry/Bohr", 25.711033738),
     ("kcal/mol/Å", 0.0433641042), ("kJ/mol/nm", 0.001036426966), ("meV/Angstrom", 1e-3)],
)  # fmt: skip
def test_forces(unit: str, factor: float) -> None:
    assert units.force_factor(unit) == pytest.approx(factor, rel=2 * CODATA)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("eV/Å^3", 1.0), ("GPa", 1 / 160.21766208), ("kbar", 0.1 / 160.21766208), ("kB", 0.1 / 160.21766208),
     ("bar", 1e-4 / 160.21766208), ("Hartree/Bohr^3", 29421.015697 / 160.21766208)],
)  # fmt: skip
def test_stress_and_its_sign(unit: str, factor: float) -> None:
    assert units.stress_factor(unit) == pytest.approx(factor, rel=1e-7)
    assert units.stress_factor("-" + unit) == pytest.approx(-factor, rel=1e-7)


@pytest.mark.parametrize("convert", [units.energy_factor, units.force_factor, units.stress_factor])
@pytest.mark.parametrize("unit", ["furlong", "eV/furlong", "", "-"])
def test_an_unknown_unit_is_no_factor(convert, unit: str) -> None:
    with pytest.raises(KeyError):
        convert(unit)


def test_constants() -> None:
    assert pytest.approx(8.617333262e-5, rel=1e-6) == units.BOLTZMANN
    assert pytest.approx(160.21766208, rel=CODATA) == units.EV_PER_A3_IN_GPA
    assert pytest.approx(27.211386245988 * 0.529177210903, rel=1e-9) == units.COULOMB
