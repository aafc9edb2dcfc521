"""Dimer curves: figures as MLIP Arena defines them, holes found, sound curves told from unsound ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms

from adatom.errors import ConfigError, UnknownElementError
from adatom.properties.dimers import Dimers, dimers, smoothness, wells
from adatom.report.card.dimers import section
from adatom.report.picture import write_figure
from adatom.report.record import Record
from adatom.sim.calculator import Calculator
from pairs import Function, PairCalculator
from toy import toy_potential


def morse(r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A well 2 eV deep at 1.2 Å."""
    fall = np.exp(-2.0 * (r - 1.2))
    return 2.0 * ((1 - fall) ** 2 - 1), 8.0 * (1 - fall) * fall


def with_hole(depth: float, place: float = 0.5) -> Function:
    """The same with a dent."""

    def pair(r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        energy, slope = morse(r)
        dent = depth * np.exp(-(((r - place) / 0.08) ** 2))
        return energy - dent, slope + dent * 2 * (r - place) / 0.08**2

    return pair


def of(pair: Function) -> Dimers:
    return dimers(PairCalculator(pair), elements=["C"], reach_A=6.0, step_A=0.02)


def test_a_flawless_well_has_the_figures_of_one() -> None:
    curve = of(morse)["C-C"]
    for figures in (curve.smoothness, curve.arena):
        assert figures.tortuosity == pytest.approx(1.0, abs=1e-3)  # the end of the tail is not quite zero
        assert (figures.energy_flips, figures.force_flips) == (1, 1)
        assert figures.spearman_repulsion_energy == pytest.approx(-1.0)
        assert figures.spearman_attraction_energy == pytest.approx(1.0)
        assert figures.spearman_descending_force == pytest.approx(-1.0)
        assert figures.conservation_eV_per_A < 0.1  # of points 0.02 Å apart
    assert curve.well is not None
    assert curve.well.distance_A == pytest.approx(1.2, abs=1e-3)
    assert curve.well.energy_eV == pytest.approx(-2.0, abs=1e-4)
    assert curve.repulsive
    assert curve.smooth
    assert not curve.holes


def test_the_figures_of_a_rough_curve_are_those_counted_by_hand() -> None:
    r = np.linspace(1.0, 2.0, 6)
    e = np.array([3.0, 1.0, 2.0, -1.0, -0.5, 0.0])  # seen from far: falls 0.5 and 0.5, climbs 3, falls 1, climbs 2
    f = np.array([5.0, -2.0, 3.0, 1.0, -1.0, 0.001])
    figures = smoothness(r, e, f)
    assert figures.tortuosity == pytest.approx((0.5 + 0.5 + 3 + 1 + 2) / (1.0 + 4.0))
    assert figures.energy_flips == 3  # at 1.6, 1.4 and 1.2 Å
    assert figures.energy_jump_eV == pytest.approx((0.5 + 3) + (3 + 1) + (1 + 2))
    assert figures.force_flips == 3  # the last force is none
    assert figures.force_jump_eV_per_A == pytest.approx((1.001 + 2) + (2 + 5) * 0 + (2 + 5) + (5 + 7))


@pytest.mark.parametrize(("depth", "count"), [(0.0, 0), (0.01, 0), (20.0, 1), (40.0, 1)])
def test_a_hole_is_found_where_it_is(depth: float, count: int) -> None:
    curve = of(with_hole(depth))["C-C"]
    assert len(curve.holes) == count
    assert curve.smooth == (count == 0)
    if count:
        assert curve.holes[0].distance_A == pytest.approx(0.5, abs=0.05)
        assert curve.holes[0].depth_eV > 1.0
        assert not curve.repulsive
        assert not of(with_hole(depth)).sound


def test_a_curve_that_falls_inward_at_contact_is_a_hole() -> None:
    def coulomb(r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return -1.0 / r, 1.0 / r**2

    curve = of(coulomb)["C-C"]
    assert curve.holes[0].distance_A == pytest.approx(0.2)
    assert not curve.repulsive


def test_the_depth_of_a_well_is_the_climb_to_its_lower_side() -> None:
    x = np.linspace(0.0, 4.0 * np.pi - 0.2, 400)
    found = wells(x, -np.cos(x) + 0.05 * x)  # the minima at 0 and 4 pi are ends
    assert [round(well.distance_A, 1) for well in found] == [6.2]
    left, right = np.pi + 0.05, 3 * np.pi + 0.05  # the tops on both sides
    top = min(-np.cos(left) + 0.05 * left, -np.cos(right) + 0.05 * right)
    assert found[0].depth_eV == pytest.approx(top - found[0].energy_eV, abs=2e-3)


def test_curves_of_a_potential_are_its_energies_less_those_of_the_atoms() -> None:
    potential = toy_potential()
    found = dimers(potential, elements=["O", "H"], step_A=0.1)
    assert [curve.name for curve in found.curves] == ["H-H", "H-O", "O-O"]
    assert found.reach_A == potential.cutoff
    curve, engine = found["O-H"], Calculator(potential)
    assert curve.trained_A == 0.6
    assert curve.inner_A == pytest.approx(0.85 * 0.6)
    for k in (3, 20):
        pair = Atoms("HO", [[0, 0, 0], [0, curve.distances[k], 0]])
        lone = [Atoms(name, calculator=engine).get_potential_energy() for name in "HO"]
        pair.calc = engine
        assert curve.energies[k] == pytest.approx(pair.get_potential_energy() - sum(lone), abs=1e-9)
        assert curve.forces[k] == pytest.approx(pair.get_forces()[1, 1], abs=1e-9)
    with pytest.raises(KeyError, match="H-H, H-O, O-O"):
        found["C-C"]


def test_what_cannot_be_computed_is_refused() -> None:
    with pytest.raises(ConfigError, match="which dimers"):
        dimers(PairCalculator(morse), elements=["C"])
    with pytest.raises(ConfigError, match="no element"):
        dimers(toy_potential(), elements=["Xx"])
    with pytest.raises(UnknownElementError, match="He"):
        dimers(toy_potential(), elements=["He"])
    with pytest.raises(ConfigError, match="step_A"):
        dimers(toy_potential(), step_A=-1.0)


def test_a_page_names_what_is_wrong_and_draws_the_curves(tmp_path) -> None:
    record = json.loads(json.dumps(of(with_hole(20.0)).to_record()))
    shown = section(Record(record, "dimers.json"))
    assert shown.facts[0] == ("Sound pairs", "0 of 1")
    assert "a hole at 0.5" in shown.warnings[0]
    assert [figure.name for figure in shown.figures] == ["dimers", "dimer-walls"]
    assert write_figure(shown, tmp_path / "dimers.png").stat().st_size > 10_000
    assert section(Record(of(morse).to_record(), "x")).warnings == ()
