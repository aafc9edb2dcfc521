"""Phonons against frozen displacements, elastic constants and closed forms; copper of the toy."""

from __future__ import annotations

import json
import sys

import ase
import numpy as np
import pytest
from ase import units
from ase.build import bulk

from adatom.errors import ConfigError, SimulationError
from adatom.properties.elastic import elastic
from adatom.properties.phonons import THZ, Modes, Phonons, phonons, thermal
from adatom.report.properties import section_of
from adatom.report.record import Record
from adatom.sim.calculator import Calculator, StressError
from adatom.units import BOLTZMANN
from toy import toy_potential

CUTOFF = 4.0  # Å: supercells of 8 Å are enough, and quick


@pytest.fixture(scope="module")
def fcc() -> Phonons:
    return phonons(bulk("Cu", a=3.5), toy_potential(CUTOFF), length_A=9.0, mesh_spacing=0.2, smax_GPa=1e-3)


@pytest.fixture(scope="module")
def simple_cubic() -> Phonons:
    return phonons(bulk("Cu", "sc", a=2.3), toy_potential(CUTOFF), repeats=(4, 4, 4), mesh_spacing=0.3)


def frozen(a: float, direction: int, h: float = 0.01) -> float:
    """Frequency in THz at X of fcc, where planes move against one another, from energies of two atoms."""
    d = a / np.sqrt(2.0)
    atoms = ase.Atoms("Cu2", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[d, d, a], pbc=True)
    atoms.calc = Calculator(toy_potential(CUTOFF))
    energies = []
    for u in (-h, 0.0, h):
        moved = atoms.copy()
        moved.positions[:, direction] += [u, -u]
        moved.calc = atoms.calc
        energies.append(moved.get_potential_energy())
    spring = (energies[0] - 2 * energies[1] + energies[2]) / h**2 / 2  # two atoms move by u each
    omega = np.sqrt(spring * units._e / 1e-20 / (atoms.get_masses()[0] * units._amu))
    return float(omega / (2 * np.pi) * 1e-12)


def at(found: Phonons, name: str) -> np.ndarray:
    """Frequencies at a special point of the path."""
    return next(part.frequencies[-1] for part in found.segments if part.end == name)


def test_at_the_edge_of_the_zone_they_are_those_of_frozen_planes(fcc: Phonons) -> None:
    a = fcc.atoms.cell.lengths()[0] * np.sqrt(2.0)
    low, low_too, high = at(fcc, "X")
    assert (low, low_too) == (pytest.approx(frozen(a, 0), rel=5e-3), pytest.approx(frozen(a, 1), rel=5e-3))
    assert high == pytest.approx(frozen(a, 2), rel=5e-3)
    transverse, same, _ = at(fcc, "L")
    assert transverse == pytest.approx(same, rel=1e-6)


def test_long_waves_travel_at_the_speeds_of_the_elastic_constants(fcc: Phonons) -> None:
    found = elastic(bulk("Cu", a=3.5), toy_potential(CUTOFF), smax_GPa=1e-3)
    first = fcc.segments[0]
    assert (first.start, first.end) == ("G", "X")
    speeds = 2 * np.pi * first.frequencies[2] / (first.distances[2] - first.distances[0])  # Å/ps = 0.1 km/s
    slow, fast = (np.sqrt(found.constants[name] / found.density_g_per_cm3) * 10 for name in ("C44", "C11"))
    np.testing.assert_allclose(speeds, [slow, slow, fast], rtol=0.02)


def test_nothing_moves_the_whole_crystal_and_every_mode_is_counted(fcc: Phonons) -> None:
    assert fcc.stable
    assert fcc.warnings == ()
    np.testing.assert_allclose(fcc.segments[0].frequencies[0], 0.0, atol=1e-5)
    assert np.trapezoid(fcc.dos_per_atom, fcc.dos_THz) == pytest.approx(3.0, rel=0.02)
    assert fcc.acoustic_eV_per_A2 < 1e-6
    assert 0.0 < fcc.edge < 0.03
    assert (fcc.displacements, len(fcc.supercell.atoms)) == (1, 108)
    assert fcc.supercell.length_A > 9.0


def test_thermal_properties_agree_with_one_another_and_with_dulong_and_petit(fcc: Phonons) -> None:
    warm = fcc.thermal
    slope = np.gradient(warm.free_energy_eV, warm.temperatures)
    np.testing.assert_allclose(-slope[10:-1] / BOLTZMANN, warm.entropy_kB[10:-1], rtol=5e-3)
    heat = warm.temperatures * np.gradient(warm.entropy_kB, warm.temperatures)
    np.testing.assert_allclose(heat[10:-1], warm.heat_capacity_kB[10:-1], rtol=5e-3)
    assert warm.free_energy_eV[0] == pytest.approx(warm.zero_point_eV)
    assert 2.95 < warm.heat_capacity_kB[-1] < 3.0


def test_one_frequency_has_the_heat_capacity_of_einstein() -> None:
    nu, T = 5.0, 250.0
    found = thermal(Modes(np.zeros((1, 3)), np.full((1, 3), nu), np.ones(1), (1, 1, 1)), np.array([T]), 0.05)
    x = THZ * nu / (BOLTZMANN * T)
    assert found.heat_capacity_kB[0] == pytest.approx(3 * x**2 * np.exp(x) / (np.exp(x) - 1) ** 2)
    assert found.zero_point_eV == pytest.approx(1.5 * THZ * nu)
    assert found.entropy_kB[0] == pytest.approx(3 * (x / np.expm1(x) - np.log1p(-np.exp(-x))))
    assert pytest.approx(4.135667696e-3) == THZ


def test_imaginary_modes_are_named_with_place_and_frequency(simple_cubic: Phonons) -> None:
    assert not simple_cubic.stable
    worst = min(part.frequencies.min() for part in simple_cubic.segments)
    assert simple_cubic.softest.frequency_THz <= worst < -1.0
    assert simple_cubic.softest.imaginary_share > 0.05
    assert "imaginary modes" in simple_cubic.warnings[0]
    section = section_of(Record(simple_cubic.to_record(), "phonons"))
    assert any("imaginary" in warning for warning in section.warnings)
    assert dict(section.facts)["Imaginary modes"].startswith(f"{-simple_cubic.softest.frequency_THz:.2f}i THz at ")
    assert any(trace.get("line", {}).get("color") == "@bad" for trace in section.figures[0].data)


def test_the_record_is_plain_json_and_makes_a_section(fcc: Phonons) -> None:
    record = json.loads(json.dumps(fcc.to_record(), allow_nan=False))
    section = section_of(Record(record, "phonons.json"))
    bands = section.figures[0]
    assert bands.layout["xaxis"]["ticktext"][:2] == ["Γ", "X"]
    assert "K|U" in bands.layout["xaxis"]["ticktext"]  # where the path is broken
    assert [trace["line"]["color"] for trace in bands.data] == ["@blue"] * 3 + ["@orange"]  # three bands, the states
    assert dict(section.facts)["Imaginary modes"] == "none"
    assert [row[0] for row in section.tables[0].rows] == ["100", "300", "600", "1\u202f000"]


def test_a_supercell_smaller_than_the_cutoff_is_refused_and_a_narrow_one_noted() -> None:
    with pytest.raises(ConfigError, match="too small") as caught:
        phonons(bulk("Cu", a=3.5), toy_potential(CUTOFF), repeats=(1, 1, 1))
    assert "3.4" in str(caught.value.got)
    narrow = phonons(bulk("Cu", a=3.5), toy_potential(CUTOFF), length_A=6.0, mesh_spacing=0.5)
    assert "less than twice the cutoff of 4 Å" in narrow.warnings[0]


def test_what_is_no_crystal_or_comes_to_no_rest_is_refused() -> None:
    with pytest.raises(StressError):
        phonons(ase.Atoms("Cu2", [[0, 0, 0], [2.5, 0, 0]]), toy_potential())
    with pytest.raises(SimulationError, match="not converged"):
        phonons(bulk("Cu", a=3.7), toy_potential(), steps=1)


def test_without_phonopy_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "phonopy", None)
    with pytest.raises(ConfigError, match="phonons need phonopy") as caught:
        phonons(bulk("Cu"), toy_potential())
    assert caught.value.remedy == "pip install 'adatom[properties]'"


def test_isotopes_of_a_crystal_vibrate_as_their_mass_says(simple_cubic: Phonons) -> None:
    heavy = bulk("Cu", "sc", a=2.3)
    heavy.set_masses([4.0 * heavy.get_masses()[0]])
    slow = phonons(heavy, toy_potential(CUTOFF), repeats=(4, 4, 4), mesh_spacing=0.5)
    for ours, theirs in zip(slow.segments, simple_cubic.segments, strict=True):
        np.testing.assert_allclose(2.0 * ours.frequencies, theirs.frequencies, atol=1e-3)
    light = bulk("Cu", a=3.5)
    light.set_masses([10.0])
    found = elastic(light, toy_potential(CUTOFF))
    assert found.density_g_per_cm3 == pytest.approx(1.66053907 * 10.0 / found.atoms.get_volume(), rel=1e-6)


def test_mixed_isotopes_and_a_charge_have_no_place_in_another_cell() -> None:
    mixed = bulk("Cu", a=3.5, cubic=True)
    mixed.set_masses([63.0, 65.0, 63.0, 63.0])
    with pytest.raises(ConfigError, match="isotopes"):
        elastic(mixed, toy_potential(CUTOFF))
    charged = bulk("Cu", a=3.5)
    charged.info["total_charge"] = 1
    with pytest.raises(ConfigError, match="net charge"):
        phonons(charged, toy_potential(CUTOFF))


def test_thermal_properties_beyond_the_last_temperature_are_no_numbers(fcc: Phonons) -> None:
    assert np.isfinite(fcc.thermal.at(1000.0)).all()
    assert np.isnan(fcc.thermal.at(1001.0)).all()
