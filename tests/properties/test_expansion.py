"""Thermal expansion: F(V, T) of copper of the toy."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase.build import bulk

from adatom.errors import ConfigError, SimulationError
from adatom.properties.expansion import Expansion, expansion
from adatom.report.properties import section_of
from adatom.report.record import Record
from adatom.units import BOLTZMANN, EV_PER_A3_IN_GPA
from toy import toy_potential

CUTOFF = 3.6  # Å: supercells of 32 atoms, and quick


@pytest.fixture(scope="module")
def copper() -> Expansion:
    return expansion(
        bulk("Cu", a=3.5), toy_potential(CUTOFF), points=6, stretch=0.06, length_A=6.5, mesh_spacing=0.4,
        temperature_max_K=360.0, temperature_step_K=20.0,
    )  # fmt: skip


def test_a_crystal_of_pairs_expands_and_softens(copper: Expansion) -> None:
    assert copper.volume_A3[0] > copper.fit.V0_A3_per_atom  # zero-point motion
    assert np.all(np.diff(copper.volume_A3) > -1e-9)
    assert np.all(np.diff(copper.B_GPa[1:]) < 1e-6)
    assert 2e-5 < copper.at(300.0)["alpha_per_K"] < 2e-4
    assert np.isnan(copper.at(400.0)["volume_A3"])
    a = copper.lattice_constant_A
    np.testing.assert_allclose(a**3 / 4, copper.volume_A3, rtol=1e-9)  # four atoms in the conventional cell


def test_heat_capacities_and_expansion_are_linked_as_thermodynamics_has_it(copper: Expansion) -> None:
    alpha, B, V, T = copper.alpha_per_K, copper.B_GPa / EV_PER_A3_IN_GPA, copper.volume_A3, copper.temperatures
    np.testing.assert_allclose(copper.Cp_kB - copper.Cv_kB, alpha**2 * B * V * T / BOLTZMANN, atol=1e-12)
    slope = np.gradient(V, T)
    np.testing.assert_allclose(alpha[5:-1], (slope / V)[5:-1], rtol=1e-3)
    warm = T > 200.0
    assert np.ptp(copper.gruneisen[warm]) < 0.3 * copper.gruneisen[warm].mean()  # nearly a constant


def test_the_record_is_plain_json_and_makes_a_section(copper: Expansion) -> None:
    record = json.loads(json.dumps(copper.to_record(), allow_nan=False))
    section = section_of(Record(record, "expansion.json"))
    assert [figure.title for figure in section.figures] == [
        "Volume", "Coefficient of expansion", "Bulk modulus", "Heat capacity",
    ]  # fmt: skip
    assert section.tables[0].rows[1][1] == f"{copper.at(300.0)['lattice_constant_A']:.4f}"
    assert [row[0] for row in section.tables[0].rows] == ["0", "300"]


def test_imaginary_modes_spoil_it_and_it_says_so() -> None:
    with pytest.raises(SimulationError, match="imaginary modes spoil") as caught:
        expansion(
            bulk("Cu", "sc", a=2.3), toy_potential(CUTOFF), points=5, repeats=(3, 3, 3), mesh_spacing=0.6
        )  # fmt: skip
    assert caught.value.got is not None
    assert caught.value.got.startswith("0 of 5")


def test_a_volume_that_leaves_the_range_ends_the_curve_with_a_word() -> None:
    found = expansion(
        bulk("Cu", a=3.5), toy_potential(CUTOFF), points=5, stretch=0.02, length_A=6.5, mesh_spacing=0.6,
        temperature_max_K=1500.0, temperature_step_K=50.0,
    )  # fmt: skip
    assert found.temperatures[-1] < 1500.0
    assert "leaves the range" in found.warnings[-1]


def test_settings_that_make_no_sense_are_named() -> None:
    with pytest.raises(ConfigError, match="points"):
        expansion(bulk("Cu"), toy_potential(), points=3)
