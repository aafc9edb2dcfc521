from __future__ import annotations

import json

import numpy as np
import pytest
from ase import units

from adatom.errors import DataError
from adatom.properties.trajectory import Trajectory
from adatom.properties.velocities import PER_CM_IN_THZ, velocities
from adatom.units import BOLTZMANN


def oscillators(
    THz: float, interval_ps: float, frames: int, given: bool, atoms: int = 12, number: int = 1, mass: float = 1.0
) -> Trajectory:
    """Harmonic oscillators of one frequency and random phases."""
    phase = np.random.default_rng(0).uniform(0, 2 * np.pi, size=(atoms, 3))
    angle = 2 * np.pi * THz * interval_ps * np.arange(frames)[:, None, None] + phase
    speed = -2 * np.pi * THz * 0.05 * np.sin(angle)
    return Trajectory(
        np.full(atoms, number), np.full(atoms, mass), interval_ps, 0.05 * np.cos(angle), speed if given else None,
        1000.0, True,
    )  # fmt: skip


@pytest.mark.parametrize("given", [True, False])
def test_a_harmonic_oscillator_is_one_line_at_its_frequency(given: bool) -> None:
    found = velocities(oscillators(20.0, 0.002, 4000, given), lag_ps=2.0)
    one = found.species["H"]
    np.testing.assert_allclose(one.correlation, np.cos(2 * np.pi * 20.0 * found.lag_ps), atol=0.02)
    peak = found.frequency_THz[one.dos_per_THz.argmax()]
    assert peak == pytest.approx(20.0, abs=0.3)
    assert np.trapezoid(one.dos_per_THz, found.frequency_THz) == pytest.approx(1.0, abs=1e-6)
    near = np.abs(found.frequency_THz - 20.0) < 1.5
    assert np.trapezoid(one.dos_per_THz[near], found.frequency_THz[near]) > 0.97
    assert found.source == ("momenta" if given else "differences")


def test_a_sharp_line_is_as_wide_as_it_says() -> None:
    found = velocities(oscillators(20.0, 0.002, 4000, True), lag_ps=1.0)
    fine = np.interp(np.linspace(17, 23, 6001), found.frequency_THz, found.species["H"].dos_per_THz)
    width = (fine > 0.5 * fine.max()).sum() * 1e-3
    assert width == pytest.approx(found.resolution_THz, rel=0.2)


def test_differences_between_frames_weigh_fast_and_slow_motion_as_velocities_do() -> None:
    """Displacements damp what is fast; two oscillators of equal energy must come out equal."""
    slow, fast = (oscillators(f, 0.004, 6000, True) for f in (15.0, 90.0))
    scale = 15.0 / 90.0  # equal speed
    both = Trajectory(
        np.full(24, 1), np.ones(24), 0.004, np.concatenate([slow.positions, scale * fast.positions], axis=1),
        None, 1000.0, True,
    )  # fmt: skip
    found = velocities(both, lag_ps=2.0)
    dos, nu = found.species["H"].dos_per_THz, found.frequency_THz
    share = [np.trapezoid(dos[np.abs(nu - f) < 2], nu[np.abs(nu - f) < 2]) for f in (15.0, 90.0)]
    assert share[0] == pytest.approx(0.5, abs=0.02)
    assert share[1] == pytest.approx(0.5, abs=0.02)


def test_motion_too_fast_for_the_frames_is_noticed_where_momenta_tell() -> None:
    fine = velocities(oscillators(100.0, 0.002, 4000, True), lag_ps=1.0)
    coarse = velocities(oscillators(100.0, 0.008, 4000, True), lag_ps=1.0)  # half the frame rate: 62.5 THz
    assert fine.resolved
    assert not coarse.resolved
    assert coarse.folded is not None
    assert coarse.folded > 0.5
    assert coarse.highest_THz == pytest.approx(62.5)
    assert velocities(oscillators(100.0, 0.008, 4000, False), lag_ps=1.0).folded is None


def test_the_total_counts_modes_and_elements_keep_their_own() -> None:
    light = oscillators(60.0, 0.002, 4000, True, atoms=20, number=1, mass=1.0)
    heavy = oscillators(10.0, 0.002, 4000, True, atoms=10, number=8, mass=16.0)
    factor = 60.0 / 10.0 / np.sqrt(16.0)  # equipartition: equal m v^2
    both = Trajectory(
        np.concatenate([light.numbers, heavy.numbers]), np.concatenate([light.masses, heavy.masses]), 0.002,
        np.concatenate([light.positions, factor * heavy.positions], axis=1),
        np.concatenate([light.velocities, factor * heavy.velocities], axis=1), 1000.0, True,
    )  # fmt: skip
    found = velocities(both, lag_ps=2.0)
    nu = found.frequency_THz
    assert nu[found.species["H"].dos_per_THz.argmax()] == pytest.approx(60.0, abs=0.3)
    assert nu[found.species["O"].dos_per_THz.argmax()] == pytest.approx(10.0, abs=0.3)
    low = nu < 30.0
    assert np.trapezoid(found.total.dos_per_THz[low], nu[low]) == pytest.approx(1 / 3, abs=0.02)  # 10 of 30 atoms


def test_free_atoms_keep_their_velocity_and_have_its_temperature() -> None:
    rng = np.random.default_rng(1)
    spread = np.sqrt(BOLTZMANN * 300.0 / 28.0) * 1e3 * units.fs  # Å/ps
    v = rng.normal(scale=spread, size=(400, 3))
    times = 0.01 * np.arange(200)
    free = Trajectory(
        np.full(400, 14), np.full(400, 28.0), 0.01, times[:, None, None] * v, np.broadcast_to(v, (200, 400, 3)),
        float("nan"), False,
    )  # fmt: skip
    found = velocities(free, lag_ps=0.5)
    np.testing.assert_allclose(found.species["Si"].correlation, 1.0, atol=1e-9)
    assert found.species["Si"].temperature_K == pytest.approx(300.0, rel=0.08)
    assert found.species["Si"].dos_per_THz.argmax() == 0


def test_frequencies_are_written_in_both_units() -> None:
    record = json.loads(json.dumps(velocities(oscillators(20.0, 0.002, 2000, True)).to_record()))
    assert record["frequency_per_cm"][-1] == pytest.approx(PER_CM_IN_THZ * record["highest_THz"], rel=1e-4)
    assert record["species"]["H"]["dos_per_THz"]
    assert pytest.approx(1e12 / 299792458.0 / 100.0) == PER_CM_IN_THZ


def test_a_trajectory_too_short_is_refused() -> None:
    with pytest.raises(DataError, match="too short"):
        velocities(oscillators(20.0, 0.002, 20, True))
    with pytest.raises(DataError, match="lag_ps"):
        velocities(oscillators(20.0, 0.002, 400, True), lag_ps=0.5)


def test_isotopes_count_by_their_own_kinetic_energy() -> None:
    """H at 90 THz and D at 60, of one element: three modes of each atom, whatever its mass."""
    light, heavy = oscillators(90.0, 0.002, 4000, True), oscillators(60.0, 0.002, 4000, True, mass=2.0)
    assert light.velocities is not None
    assert heavy.velocities is not None
    hot = np.sqrt(np.square(light.velocities).sum() / (2.0 * np.square(heavy.velocities).sum()))  # equipartition
    mixed = Trajectory(
        np.full(24, 1), np.append(light.masses, heavy.masses), 0.002,
        np.concatenate([light.positions, hot * heavy.positions], axis=1),
        np.concatenate([light.velocities, hot * heavy.velocities], axis=1), 1000.0, True,
    )  # fmt: skip
    found = velocities(mixed, lag_ps=2.0)
    for spectrum in (found.species["H"], found.total):
        near = np.abs(found.frequency_THz - 60.0) < 5.0
        assert np.trapezoid(spectrum.dos_per_THz[near], found.frequency_THz[near]) == pytest.approx(0.5, abs=0.01)
