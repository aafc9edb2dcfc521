"""Figures from series in time: energy drift, correlation times, and means with an honest error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from adatom.errors import DataError
from adatom.sim.record import Thermo

OUTLAST = 5.0  # correlation times in a block: its mean then knows little of the next one's
MIN_BLOCKS, MAX_BLOCKS = 4, 20
FEWEST = 2 * MIN_BLOCKS  # values of a mean with an error
LONG = 50.0  # correlation times in a series that is long enough to know them


@dataclass(frozen=True)
class Drift:
    """Slope of the total energy, and its scatter about the line."""

    meV_per_atom_per_ps: float
    error_meV_per_atom_per_ps: float  # standard error of the slope, points taken as independent
    rms_meV_per_atom: float


@dataclass(frozen=True)
class Mean:
    """Average of a correlated series, and its standard error from block averages."""

    value: float
    error: float
    blocks: int


@dataclass(frozen=True)
class Average:
    """Mean of a correlated series with its standard error, and what the error rests on."""

    value: float
    error: float
    spread: float  # standard deviation of the values
    correlation_ps: float  # integrated autocorrelation time
    block_ps: float
    blocks: int
    independent: float  # how many independent values the series is worth
    sufficient: bool  # whether the series is so much longer than its correlation that the error can be trusted
    drift: float  # second half minus first half, in units of the error of that difference

    def to_record(self) -> dict[str, Any]:
        """The figures by name."""
        return asdict(self)


def energy_drift(thermo: Sequence[Thermo], atoms: int, skip_ps: float = 0.0) -> Drift:
    """Drift of the total energy of ``atoms`` atoms by a linear fit, leaving out the first ``skip_ps``.

    DataError with fewer than three points.
    """
    kept = [t for t in thermo if t.time_ps - thermo[0].time_ps >= skip_ps]
    times = np.array([t.time_ps for t in kept])
    energies = 1e3 * np.array([t.total_eV for t in kept]) / atoms  # meV/atom
    return fit_drift(times, energies)


def fit_drift(times_ps: np.ndarray, meV_per_atom: np.ndarray) -> Drift:
    """Drift by a linear fit to energies in meV/atom; DataError with fewer than three points."""
    if len(times_ps) < 3:
        raise DataError(
            "a drift needs three points in time at least",
            got=f"{len(times_ps)}",
            remedy="log more often, or run longer",
        )
    t = times_ps - times_ps.mean()
    e = meV_per_atom - meV_per_atom.mean()
    slope = float(t @ e / (t @ t))
    rest = e - slope * t
    variance = float(rest @ rest) / (len(t) - 2)
    return Drift(slope, math.sqrt(variance / float(t @ t)), math.sqrt(float(np.mean(rest**2))))


def block_mean(values: Sequence[float] | np.ndarray, blocks: int = 10) -> Mean:
    """Mean and standard error of the mean from ``blocks`` consecutive blocks, which must outlast the correlation.

    DataError with fewer values than blocks.
    """
    series = np.asarray(values, dtype=np.float64)
    if blocks < 2 or len(series) < blocks:
        raise DataError(
            "too few values for a block average",
            wanted=f"{max(blocks, 2)} values in 2 blocks at least",
            got=f"{len(series)} values, {blocks} blocks",
            remedy="log more often, run longer, or take fewer blocks",
        )
    parts = np.array([part.mean() for part in np.array_split(series, blocks)])
    return Mean(float(series.mean()), float(parts.std(ddof=1) / math.sqrt(blocks)), blocks)


def correlation_time(values: Sequence[float] | np.ndarray) -> float:
    """Integrated autocorrelation time in steps of the series, 1/2 for independent values.

    tau = 1/2 + sum_k rho(k), summed to the first k >= 5 tau, where noise would take over (Sokal, in: Functional
    Integration, NATO ASI 361, 131 (1997)). The series then is worth n / (2 tau) independent values.
    """
    series = np.asarray(values, dtype=np.float64)
    away = series - series.mean()
    count = len(away)
    if count < 2 or not away.any():
        return 0.5
    transform = np.fft.rfft(away, 2 * count)
    rho = np.fft.irfft(np.abs(transform) ** 2)[:count]
    running = np.cumsum(rho / rho[0]) - 0.5
    enough = np.flatnonzero(np.arange(count) >= 5.0 * running)
    return max(float(running[enough[0]] if enough.size else running[-1]), 0.5)


def average(values: Sequence[float] | np.ndarray, interval_ps: float) -> Average:
    """Mean of values ``interval_ps`` apart; its error from blocks that outlast the correlation found in them.

    There are as many blocks (20 at most, four at least) as blocks of five correlation times go into the series. A
    series shorter than fifty correlation times knows its own correlation badly: its error is called insufficient. The
    error is the larger of that of the blocks and sigma sqrt(2 tau / n). DataError with fewer than eight values.
    """
    series = np.asarray(values, dtype=np.float64)
    count = len(series)
    if count < FEWEST:
        raise DataError(
            "too few values for a mean with an error",
            wanted=f"{FEWEST} at least",
            got=f"{count}",
            remedy="log more often, or run longer",
        )
    tau = correlation_time(series)
    possible = int(count / (OUTLAST * tau))
    blocks = min(max(possible, MIN_BLOCKS), MAX_BLOCKS, count // 2)
    spread = float(series.std(ddof=1))
    error = max(block_mean(series, blocks).error, spread * math.sqrt(2.0 * tau / count))
    change = float(series[count // 2 :].mean() - series[: count // 2].mean())
    return Average(
        value=float(series.mean()),
        error=error,
        spread=spread,
        correlation_ps=tau * interval_ps,
        block_ps=count / blocks * interval_ps,
        blocks=blocks,
        independent=count / (2.0 * tau),
        sufficient=count >= LONG * tau,
        drift=change / (2.0 * error) if error > 0.0 else 0.0,
    )
