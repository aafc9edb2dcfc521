"""Velocity autocorrelation and what its Fourier transform shows: the vibrational density of states."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from ase import units
from pydantic import PositiveFloat

from adatom.config import Config
from adatom.errors import DataError
from adatom.properties.trajectory import Trajectory
from adatom.report.figure import plain, thin
from adatom.units import BOLTZMANN

PER_CM_IN_THZ = 33.35640952  # cm^-1 in one THz
LONGEST = 2.0  # ps of correlation by default: peaks 0.5 THz wide
FOLDED = 0.05  # of the kinetic energy may lie beyond what the frames resolve
POINTS = 600  # of a curve in a record
CHUNK = 64  # atoms transformed together: bounds memory


class VelocitiesConfig(Config):
    """How far the correlation is followed: the longer, the finer and the noisier the spectrum.

    By default 2 ps, or a quarter of the trajectory where that is shorter.
    """

    lag_ps: PositiveFloat | None = None


@dataclass(frozen=True)
class SpeciesVelocities:
    """One element, or all atoms together, each by its kinetic energy."""

    correlation: np.ndarray  # (L,)  1 at lag zero
    dos_per_THz: np.ndarray  # (F,)  its integral is 1
    temperature_K: float | None  # from momenta


@dataclass(frozen=True)
class Velocities:
    """Velocity autocorrelation functions and vibrational densities of states."""

    lag_ps: np.ndarray  # (L,)
    frequency_THz: np.ndarray  # (F,)  up to half of the frame rate
    species: dict[str, SpeciesVelocities]
    total: SpeciesVelocities
    source: Literal["momenta", "differences"]  # of the velocities
    resolution_THz: float  # full width at half maximum of a sharp line
    folded: float | None  # share of kinetic energy beyond half of the frame rate; None where it cannot be known

    @property
    def highest_THz(self) -> float:
        """Half of the frame rate: what is faster appears at a lower frequency, where it does not belong."""
        return float(self.frequency_THz[-1])

    @property
    def resolved(self) -> bool:
        """Whether the frames are close enough in time for all motions, as far as that can be known."""
        return self.folded is None or self.folded <= FOLDED

    def to_record(self) -> dict[str, Any]:
        """Plain values as the report reads them."""
        lags, keep = thin(len(self.lag_ps), POINTS), thin(len(self.frequency_THz), 2 * POINTS)

        def curves(one: SpeciesVelocities) -> dict[str, Any]:
            return {
                "vacf": plain(one.correlation[lags]),
                "dos_per_THz": plain(one.dos_per_THz[keep]),
                "temperature_K": one.temperature_K,
            }

        return {
            "lag_ps": plain(self.lag_ps[lags]),
            "frequency_THz": plain(self.frequency_THz[keep]),
            "frequency_per_cm": plain(PER_CM_IN_THZ * self.frequency_THz[keep]),
            "species": {name: curves(one) for name, one in self.species.items()},
            "total": curves(self.total),
            "source": self.source,
            "resolution_THz": self.resolution_THz,
            "highest_THz": self.highest_THz,
            "folded": self.folded,
            "resolved": self.resolved,
        }


def velocities(motion: Trajectory, *, lag_ps: float | None = None) -> Velocities:
    """Velocity autocorrelation C(t) and density of states g(nu) of each element; the parameters of VelocitiesConfig.

    C(t) = < v(0) v(t) > / < v^2 >,    g(nu) = 4 int_0^lag w(t) C(t) cos(2 pi nu t) dt,    int_0^nyquist g dnu = 1

    w is Hann's window (half a cosine from 1 to 0), so that peaks have no ripples beside them. The total weighs atoms by
    their kinetic energy, as equipartition does modes: 3N times it counts modes per THz of classical atoms. Velocities
    are the momenta of the frames; without, displacements between frames, whose damping by (sin(x) / x)^2, x = pi nu dt,
    is divided out. Where frames hold both, the displacements tell how much motion is too fast for them.

    DataError when the trajectory is too short.
    """
    config = VelocitiesConfig.parse({"lag_ps": lag_ps}, where="velocities")
    dt = motion.interval_ps
    wanted = config.lag_ps or min(LONGEST, 0.25 * motion.duration_ps)
    lags = round(wanted / dt) + 1
    if lags < 8 or lags > motion.frames // 2:
        raise DataError(
            "the trajectory is too short for this correlation of velocities",
            wanted=f"{max(2 * lags, 32)} frames",
            got=f"{motion.frames} frames, a correlation of {wanted:g} ps = {lags} frames",
            remedy="run longer, write frames more often, or take another lag_ps",
        )
    differences = np.diff(motion.positions, axis=0) / dt
    given = motion.velocities
    series = differences if given is None else given
    frequency = np.fft.rfftfreq(2 * (lags - 1), dt)
    damping = np.sinc(frequency * dt) ** 2
    found, sums = {}, np.zeros(lags)
    for name, members in motion.species().items():
        # by kinetic energy within an element too: isotopes move at frequencies of their own
        products = correlation(series[:, members] * np.sqrt(motion.masses[members])[:, None], lags)
        sums += products
        heat = None if given is None else _temperature(motion.masses[members], given[:, members])
        found[name] = _spectrum(products, dt, heat, damping if given is None else None)
    heat = None if given is None else _temperature(motion.masses, given)
    total = _spectrum(sums, dt, heat, damping if given is None else None)
    folded = None
    if given is not None:
        seen = float(np.einsum("n,tnc->", motion.masses, np.square(differences)) / len(differences))
        real = float(np.einsum("n,tnc->", motion.masses, np.square(given)) / len(given))
        # of motion slower than half the frame rate, displacements would hold this share of the kinetic energy
        expected = float(np.trapezoid(total.dos_per_THz * damping, frequency))
        folded = max(expected - seen / real, 0.0) if real > 0.0 else 0.0
    return Velocities(
        lag_ps=dt * np.arange(lags),
        frequency_THz=frequency,
        species=found,
        total=total,
        source="differences" if given is None else "momenta",
        resolution_THz=1.0 / ((lags - 1) * dt),
        folded=folded,
    )


def correlation(series: np.ndarray, lags: int) -> np.ndarray:
    """< sum_i v_i(t) v_i(t + m) > over time origins t for the first lags m, (L,); series (T, n, 3)."""
    count, atoms = series.shape[:2]
    size = 1 << (count + lags - 1).bit_length()
    sums = np.zeros(lags)
    for start in range(0, atoms, CHUNK):
        spectrum = np.fft.rfft(series[:, start : start + CHUNK].reshape(count, -1), size, axis=0)
        sums += np.fft.irfft(np.square(np.abs(spectrum)).sum(axis=1), size)[:lags]
    averaged: np.ndarray = sums / (count - np.arange(lags))
    return averaged


def _spectrum(
    products: np.ndarray, dt: float, temperature: float | None, damping: np.ndarray | None
) -> SpeciesVelocities:
    """Normalised correlation and its transform; with ``damping`` that of displacements divided out."""
    if not products[0] > 0.0:  # nothing moves
        zeros = np.zeros(len(products))
        return SpeciesVelocities(zeros, zeros, temperature)
    normal = products / products[0]
    window = 0.5 * (1.0 + np.cos(math.pi * np.arange(len(normal)) / (len(normal) - 1)))
    half = window * normal
    even = np.concatenate([half, half[-2:0:-1]])  # C(-t) = C(t): the transform is real
    dos = 2.0 * dt * np.fft.rfft(even).real
    if damping is not None:
        dos = dos / damping
        dos = dos / np.trapezoid(dos, dx=1.0 / (dt * len(even)))
    return SpeciesVelocities(normal, dos, temperature)


def _temperature(masses: np.ndarray, given: np.ndarray) -> float:
    """K of velocities (T, n, 3) in Å/ps: sum m v^2 = 3 n k T."""
    energy = float(np.einsum("n,tnc->", masses, np.square(given)) / len(given)) / (1e3 * units.fs) ** 2  # eV
    return float(energy / (3.0 * len(masses) * BOLTZMANN))
