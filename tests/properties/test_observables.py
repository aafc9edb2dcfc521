from __future__ import annotations

import math

import numpy as np
import pytest

from adatom.errors import DataError
from adatom.properties.observables import average, block_mean, correlation_time, energy_drift, fit_drift
from adatom.sim.record import Thermo


def line(time_ps: float, total: float) -> Thermo:
    return Thermo(0, time_ps, 300.0, total, 0.0, total, math.nan, math.nan)


def test_the_drift_is_the_slope_of_the_energy_per_atom() -> None:
    thermo = [line(t, -100.0 + 0.02 * t) for t in np.linspace(0, 5, 50)]
    assert energy_drift(thermo, atoms=10).meV_per_atom_per_ps == pytest.approx(2.0)
    assert energy_drift(thermo, atoms=10).rms_meV_per_atom == pytest.approx(0.0, abs=1e-9)


def test_fluctuation_without_drift_is_within_its_error_of_zero() -> None:
    rng = np.random.default_rng(0)
    times = np.linspace(0, 10, 400)
    drift = fit_drift(times, 1e6 + rng.normal(scale=0.5, size=400))
    assert abs(drift.meV_per_atom_per_ps) < 3 * drift.error_meV_per_atom_per_ps
    assert drift.error_meV_per_atom_per_ps == pytest.approx(0.5 / np.sqrt(400 * 100 / 12), rel=0.1)
    assert drift.rms_meV_per_atom == pytest.approx(0.5, rel=0.1)


def test_the_start_can_be_left_out() -> None:
    thermo = [line(t, 5.0 if t < 1 else 0.001 * t) for t in np.linspace(0, 3, 31)]
    assert energy_drift(thermo, atoms=1, skip_ps=1.0).meV_per_atom_per_ps == pytest.approx(1.0)


def test_blocks_give_correlated_values_an_honest_error() -> None:
    rng = np.random.default_rng(1)
    series = np.repeat(rng.normal(size=400), 25)  # 400 independent values, each seen 25 times
    mean = block_mean(series, blocks=20)
    assert mean.value == pytest.approx(series.mean())
    assert mean.error == pytest.approx(1 / np.sqrt(400), rel=0.5)
    assert mean.error > 3 * series.std() / np.sqrt(len(series))


def test_too_few_points_are_refused() -> None:
    with pytest.raises(DataError, match="three points"):
        fit_drift(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    with pytest.raises(DataError, match="block average"):
        block_mean([1.0, 2.0], blocks=5)


def correlated(rng: np.random.Generator, count: int, tau: float) -> np.ndarray:
    """Values that forget exponentially: the integrated time is (1 + c) / (2 (1 - c)), c = exp(-1 / tau)."""
    keep = math.exp(-1.0 / tau)
    noise = rng.normal(size=count)
    series = np.empty(count)
    series[0] = noise[0]
    for n in range(1, count):
        series[n] = keep * series[n - 1] + math.sqrt(1.0 - keep**2) * noise[n]
    return series


def test_the_correlation_time_of_an_autoregressive_series_is_found() -> None:
    for tau in (0.2, 3.0, 12.0):
        keep = math.exp(-1.0 / tau)
        exact = 0.5 * (1.0 + keep) / (1.0 - keep)
        assert correlation_time(correlated(np.random.default_rng(2), 40000, tau)) == pytest.approx(exact, rel=0.12)
    assert correlation_time(np.ones(100)) == 0.5


def test_an_average_lies_within_its_error_as_often_as_it_should() -> None:
    rng = np.random.default_rng(3)
    off = []
    for _ in range(60):
        found = average(correlated(rng, 2000, 8.0), interval_ps=0.01)
        assert found.block_ps > 4.0 * found.correlation_ps
        assert found.sufficient
        off.append(found.value / found.error)
    assert 0.85 < np.mean(np.abs(off) < 2.0) <= 1.0
    assert found.correlation_ps == pytest.approx(0.08, rel=0.5)


def test_a_series_that_is_too_short_or_drifts_says_so() -> None:
    rng = np.random.default_rng(4)
    assert not average(correlated(rng, 100, 20.0), 0.1).sufficient
    rising = np.linspace(0.0, 1.0, 2000) + rng.normal(size=2000)
    still = rng.normal(size=2000)
    assert average(rising, 0.1).drift > 3.0
    assert abs(average(still, 0.1).drift) < 3.0
    with pytest.raises(DataError, match="too few"):
        average([1.0, 2.0, 3.0], 0.1)
