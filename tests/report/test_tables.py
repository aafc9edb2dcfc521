"""Errors against sums done by hand."""

from __future__ import annotations

import numpy as np
import pytest

from adatom.report.load import Predictions
from adatom.report.tables import by_config_type, by_element, errors, overall, residuals, worst
from adatom.units import EV_PER_A3_IN_GPA


def small() -> Predictions:
    """Two structures: water, 3 atoms, and a hydrogen molecule whose stress and last force are not labelled."""
    forces = np.zeros((5, 3))
    forces[0, 0], forces[3, 1], forces[4, 2] = 0.3, 0.1, 9.0
    label = np.zeros((5, 3))
    label[4] = np.nan
    label[0, 1] = 0.5
    forces[0, 1] = 0.5
    stress_ref = np.zeros((2, 3, 3))
    stress_ref[1] = np.nan
    return Predictions(
        split="test",
        names=np.array(["a:0", "b:7"]),
        config_types=np.array(["wet", ""]),
        n_atoms=np.array([3, 2]),
        numbers=np.array([8, 1, 1, 1, 1]),
        energy_ref=np.array([-10.0, -4.0]),
        energy=np.array([-10.3, -3.9]),
        forces_ref=label,
        forces=forces,
        stress_ref=stress_ref,
        stress=np.full((2, 3, 3), 0.01),
    )


def test_residuals_are_in_the_units_people_quote() -> None:
    r = residuals(small())
    np.testing.assert_allclose(r.energy, [-100.0, 50.0])
    assert r.forces[0, 0] == pytest.approx(300.0)
    assert r.stress[0, 0, 0] == pytest.approx(0.01 * EV_PER_A3_IN_GPA)


def test_errors_are_of_the_labelled_entries_alone() -> None:
    found = errors(np.array([3.0, -4.0, np.nan]))
    assert found is not None
    assert (found.count, found.mae, found.largest) == (2, 3.5, 4.0)
    assert found.rmse == pytest.approx(np.sqrt(12.5))
    assert errors(np.array([np.nan])) is None


def test_overall_counts_components_not_atoms() -> None:
    row = overall(small())
    assert row.forces is not None
    assert row.forces.count == 12
    assert row.forces.rmse == pytest.approx(np.sqrt((300.0**2 + 100.0**2) / 12))
    assert row.stress is not None
    assert row.stress.count == 9


def test_kinds_are_told_apart_and_the_worst_comes_first() -> None:
    first, second = by_config_type(small())
    assert (first.name, first.structures, second.name, second.structures) == ("wet", 1, "", 1)
    assert first.forces is not None
    assert second.forces is not None
    assert first.forces.rmse == pytest.approx(100.0)  # 300 over 9 components
    assert second.forces.count == 3
    assert second.stress is None


def test_elements_are_told_apart() -> None:
    hydrogen, oxygen = by_element(small())
    assert (hydrogen.symbol, hydrogen.atoms, oxygen.symbol, oxygen.atoms) == ("H", 4, "O", 1)
    assert oxygen.forces is not None
    assert oxygen.forces.mae == pytest.approx(100.0)
    assert oxygen.label_rms == pytest.approx(500 / np.sqrt(3))
    assert hydrogen.forces is not None
    assert hydrogen.forces.largest == pytest.approx(100.0)


def test_the_worst_structures_name_the_atom_and_say_why_they_are_there() -> None:
    first, second = worst(small(), per_quantity=1)[0], worst(small())[1]
    assert (first.name, first.atom, first.worst_in) == ("a:0", "O 0", ("energy", "forces", "stress"))
    assert first.energy == pytest.approx(-100.0)
    assert (second.name, second.atom, second.worst_in) == ("b:7", "H 0", ("energy", "forces"))
    assert second.stress is None
