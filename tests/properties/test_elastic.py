"""Elastic constants against energies, symmetry and closed forms; fcc and hcp copper of the toy."""

from __future__ import annotations

import json

import ase
import numpy as np
import pytest
from ase.build import bulk
from scipy.spatial.transform import Rotation

from adatom.errors import ConfigError, SimulationError
from adatom.properties.elastic import Elastic, elastic, moduli, sphere, strained, turned, young_modulus
from adatom.properties.eos import energy_volume
from adatom.report.properties import section_of
from adatom.report.record import Record
from adatom.sim.calculator import Calculator, StressError
from adatom.sim.relax import relax
from adatom.units import EV_PER_A3_IN_GPA
from toy import toy_potential

HCP = bulk("Cu", "hcp", a=2.46, c=4.03)


@pytest.fixture(scope="module")
def fcc() -> Elastic:
    return elastic(bulk("Cu", a=3.47), toy_potential(), smax_GPa=1e-3)


@pytest.fixture(scope="module")
def hcp() -> Elastic:
    return elastic(HCP, toy_potential(), fmax=1e-4, smax_GPa=1e-3)


def bent(atoms: ase.Atoms, direction: list[float], rest: bool, h: float = 2e-3) -> float:
    """e C e of an engineering strain e from energies, GPa; with atoms at rest if so asked."""
    energies = []
    for size in (-h, 0.0, h):
        copy = strained(atoms, size * np.array(direction))
        copy.calc = Calculator(toy_potential())
        energies.append(relax(copy, copy.calc, fmax=1e-5).energy if rest else copy.get_potential_energy())
    second = (energies[0] - 2.0 * energies[1] + energies[2]) / h**2
    return float(second / atoms.get_volume() * EV_PER_A3_IN_GPA)


def test_cubic_constants_are_the_curvatures_of_the_energy(fcc: Elastic) -> None:
    assert fcc.system == "cubic"
    C = fcc.constants
    assert bent(fcc.atoms, [1, 0, 0, 0, 0, 0], rest=False) == pytest.approx(C["C11"], rel=2e-3)
    assert bent(fcc.atoms, [0, 0, 0, 1, 0, 0], rest=False) == pytest.approx(C["C44"], rel=2e-3)
    assert bent(fcc.atoms, [1, -1, 0, 0, 0, 0], rest=False) == pytest.approx(2 * (C["C11"] - C["C12"]), rel=2e-3)


def test_hexagonal_constants_are_those_of_atoms_at_rest(hcp: Elastic) -> None:
    C, clamped = hcp.stiffness_GPa, hcp.clamped_GPa
    assert hcp.system == "hexagonal"
    assert clamped[0, 0] - C[0, 0] > 10.0  # an inner displacement gives way
    pure_shear = [1, -1, 0, 0, 0, 0]
    assert bent(hcp.atoms, pure_shear, rest=True) == pytest.approx(2 * (C[0, 0] - C[0, 1]), rel=5e-3)
    assert bent(hcp.atoms, pure_shear, rest=False) == pytest.approx(2 * (clamped[0, 0] - clamped[0, 1]), rel=5e-3)
    assert C[5, 5] == pytest.approx((C[0, 0] - C[0, 1]) / 2, rel=1e-9)  # isotropic about the axis
    assert hcp.fit.symmetry_GPa < 0.1


def test_among_pairs_cauchy_holds() -> None:
    found = elastic(bulk("Cu", a=3.47), toy_potential(bend=0.0), smax_GPa=1e-3)
    assert found.constants["C12"] == pytest.approx(found.constants["C44"], rel=2e-3)


def test_the_bulk_modulus_is_that_of_the_energy_volume_curve(fcc: Elastic) -> None:
    assert fcc.moduli is not None
    curve = energy_volume(fcc.atoms, toy_potential(), span=0.03, relax_atoms=False)
    assert fcc.moduli.K_GPa == pytest.approx(curve.fit.B0_GPa, rel=5e-3)


def test_a_turned_crystal_has_turned_constants_and_the_same_conventional_ones(fcc: Elastic) -> None:
    turn = Rotation.from_euler("xyz", [0.3, 0.5, 0.7]).as_matrix()
    atoms = bulk("Cu", a=3.47, cubic=True)
    atoms.set_cell(atoms.cell.array @ turn.T, scale_atoms=True)
    found = elastic(atoms, toy_potential(), smax_GPa=1e-3)
    np.testing.assert_allclose(found.conventional_GPa, fcc.conventional_GPa, atol=0.05)
    np.testing.assert_allclose(found.stiffness_GPa, turned(fcc.stiffness_GPa, turn), atol=0.05)
    assert np.abs(found.stiffness_GPa - fcc.stiffness_GPa).max() > 10.0
    np.testing.assert_allclose(np.sort(found.eigenvalues_GPa), np.sort(fcc.eigenvalues_GPa), atol=0.05)


def test_an_unstable_crystal_has_no_moduli_and_says_so() -> None:
    found = elastic(bulk("Cu", "sc", a=2.32), toy_potential())
    assert not found.stable
    assert found.moduli is None
    assert found.constants["C44"] < 0.0
    assert "unstable" in found.warnings[0]
    section = section_of(Record(found.to_record(), "elastic"))
    assert ("Stable (Born)", "no") in section.facts
    assert section.figures == ()


def test_an_isotropic_solid_has_the_moduli_of_the_textbook() -> None:
    K, G = 100.0, 40.0
    stiffness = np.diag([2 * G] * 3 + [G] * 3)
    stiffness[:3, :3] += K - 2 * G / 3
    found = moduli(stiffness, density_g_per_cm3=8.0, atoms_per_A3=0.085)
    assert (found.K_GPa, found.G_GPa) == (pytest.approx(K), pytest.approx(G))
    assert found.anisotropy == pytest.approx(0.0, abs=1e-12)
    young = 9 * K * G / (3 * K + G)
    np.testing.assert_allclose(young_modulus(stiffness, sphere(50)), young)
    assert (found.E_GPa, found.young_min_GPa) == (pytest.approx(young), pytest.approx(young))
    assert found.nu == pytest.approx(young / (2 * G) - 1)
    assert found.v_trans_km_per_s == pytest.approx(np.sqrt(40e9 / 8e3) / 1e3)


def test_aluminium_has_the_debye_temperature_of_its_constants() -> None:
    # C11, C12, C44 at 0 K (Kamm and Alers 1964) give 428 K; 2.733 g/cm^3
    stiffness = np.diag([114.3] * 3 + [31.6] * 3) + 0.0
    stiffness[:3, :3] += 61.9 * (1 - np.eye(3))
    assert moduli(stiffness, 2.733, 2.733 / 26.98 * 0.60221).debye_K == pytest.approx(428, rel=0.02)


def test_the_record_is_plain_json_and_makes_a_section(hcp: Elastic) -> None:
    record = json.loads(json.dumps(hcp.to_record(), allow_nan=False))
    section = section_of(Record(record, "elastic.json"))
    assert dict(section.facts)["C33"].startswith(f"{hcp.constants['C33']:.1f}")
    assert section.tables[0].rows[2][3] == f"{hcp.conventional_GPa[2, 2]:.1f}"
    assert {trace["name"] for trace in section.figures[0].data} == {"x to y", "x to z", "y to z"}


def test_what_cannot_be_strained_is_refused() -> None:
    with pytest.raises(StressError):
        elastic(ase.Atoms("Cu2", [[0, 0, 0], [2.5, 0, 0]]), toy_potential())
    with pytest.raises(ConfigError, match="points"):
        elastic(bulk("Cu"), toy_potential(), points=3)
    with pytest.raises(SimulationError, match="not converged"):
        elastic(bulk("Cu", a=3.6), toy_potential(), steps=1)
