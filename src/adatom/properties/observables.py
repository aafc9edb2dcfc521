"""Figures from the thermo log of a simulation: energy drift, and means with an honest error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adatom.errors import DataError
from adatom.sim.record import Thermo


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
