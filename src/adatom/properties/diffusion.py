"""Mean-square displacements and diffusion coefficients, their errors, and the correction for the size of the box."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import units
from pydantic import Field, NonNegativeFloat, PositiveFloat

from adatom.config import Config
from adatom.errors import ConfigError, DataError
from adatom.properties.trajectory import Trajectory
from adatom.report.figure import plain
from adatom.units import BOLTZMANN

XI = 2.837297  # of a cubic lattice: the self-term of the Oseen tensor
CM2_PER_S = 1e-4  # cm^2/s in one Å^2/ps
SLOPE = 0.1  # by which the exponent of diffusive motion may differ from one
LEFT = 1.0  # Å: atoms that have not gone so far may only have rattled in their places
CHUNK = 64  # atoms transformed together: bounds memory
POINTS = 300  # of a curve in a record
MPAS = 1e-3 * float(units.Pascal) * float(units.second)  # eV/Å^3 times ASE's unit of time, in one mPa s


class DiffusionConfig(Config):
    """How D is read off the mean-square displacement.

    ``fit_ps`` is the window of the fit; by default it ends at half a block and begins where the motion has become
    diffusive, at a tenth of its end at the earliest. With a viscosity (mPa s, of the model, at this temperature) D is
    corrected for the finite size of a cubic box.
    """

    blocks: int = Field(default=5, ge=2)
    fit_ps: tuple[NonNegativeFloat, PositiveFloat] | None = None
    viscosity_mPas: PositiveFloat | None = None
    temperature_K: PositiveFloat | None = None


@dataclass(frozen=True)
class SpeciesDiffusion:
    """Motion of one element; D from the slope, its error from the scatter of blocks.

    Where atoms have not left their places the slope is that of their rattling: there is no D, it and its error are NaN.
    """

    msd_A2: np.ndarray  # (L,)
    msd_error_A2: np.ndarray  # (L,)
    D_A2_per_ps: float
    D_error_A2_per_ps: float
    fit_ps: tuple[float, float]
    exponent: float  # of MSD ~ t^a within the window: 1 where motion is diffusive, 0 where atoms stay
    exponent_error: float
    moved_A: float  # root of the mean-square displacement at the end of the window
    D_corrected_A2_per_ps: float | None  # for an infinite box

    @property
    def diffusive(self) -> bool:
        """Whether atoms have left their places within the window, and the displacement grows in proportion to time."""
        return self.left and abs(self.exponent - 1.0) <= max(SLOPE, 2.0 * self.exponent_error)

    @property
    def left(self) -> bool:
        """Whether atoms have gone farther within the window than they rattle in their places."""
        return self.moved_A >= LEFT

    @property
    def D_cm2_per_s(self) -> float:
        """D in cm^2/s."""
        return CM2_PER_S * self.D_A2_per_ps


@dataclass(frozen=True)
class Diffusion:
    """Mean-square displacements of each element against the time between two looks."""

    lag_ps: np.ndarray  # (L,)
    species: dict[str, SpeciesDiffusion]
    blocks: int
    block_ps: float
    correction_A2_per_ps: float | None  # to be added for an infinite box; None where no viscosity was given

    def to_record(self) -> dict[str, Any]:
        """Plain values as the report reads them."""
        last = len(self.lag_ps) - 1
        keep = np.unique(np.append(0, np.geomspace(1, last, POINTS).round().astype(np.int64)))  # even on a log axis
        return {
            "lag_ps": plain(self.lag_ps[keep]),
            "blocks": self.blocks,
            "block_ps": self.block_ps,
            "correction_A2_per_ps": self.correction_A2_per_ps,
            "species": {
                name: {
                    "msd_A2": plain(one.msd_A2[keep]),
                    "msd_error_A2": plain(one.msd_error_A2[keep]),
                    "D_A2_per_ps": one.D_A2_per_ps if one.left else None,
                    "D_error_A2_per_ps": one.D_error_A2_per_ps if one.left else None,
                    "D_cm2_per_s": one.D_cm2_per_s if one.left else None,
                    "D_error_cm2_per_s": CM2_PER_S * one.D_error_A2_per_ps if one.left else None,
                    "D_corrected_A2_per_ps": one.D_corrected_A2_per_ps,
                    "fit_ps": list(one.fit_ps),
                    "exponent": one.exponent,
                    "exponent_error": one.exponent_error,
                    "moved_A": one.moved_A,
                    "diffusive": one.diffusive,
                    "left": one.left,
                }
                for name, one in self.species.items()
            },
        }


def mean_square_displacement(positions: np.ndarray) -> np.ndarray:
    """MSD in Å^2 at every lag, (T,), averaged over all time origins and over the atoms of positions (T, N, 3).

    MSD(m) = < |r(t + m) - r(t)|^2 >, its cross term a correlation that the fast Fourier transform gives at all lags
    (Calandrini et al., Collection SFN 12, 201 (2011)).
    """
    count, atoms = positions.shape[:2]
    size = 1 << (2 * count - 1).bit_length()
    squares, crossed = np.zeros(count), np.zeros(count)
    for start in range(0, atoms, CHUNK):
        part = positions[:, start : start + CHUNK].reshape(count, -1)
        part = part - part.mean(axis=0)  # small numbers keep their digits
        squares += np.square(part).sum(axis=1)
        spectrum = np.fft.rfft(part, size, axis=0)
        crossed += np.fft.irfft(np.square(np.abs(spectrum)).sum(axis=1), size)[:count]
    edges = np.concatenate([[0.0], np.cumsum(squares)])
    lags = np.arange(count)
    ends = edges[count - lags] + edges[count] - edges[lags]  # sum over origins of |r(t)|^2 + |r(t + m)|^2
    displaced: np.ndarray = np.maximum(ends - 2.0 * crossed, 0.0) / (count - lags) / max(atoms, 1)
    displaced[0] = 0.0  # nothing has moved, whatever rounding says
    return displaced


def diffusion(
    motion: Trajectory,
    *,
    blocks: int = 5,
    fit_ps: tuple[float, float] | None = None,
    viscosity_mPas: float | None = None,
    temperature_K: float | None = None,
) -> Diffusion:
    """Diffusion coefficients by Einstein's relation, MSD = 6 D t + c; the parameters are those of DiffusionConfig.

    The straight line is fitted to the MSD of the whole trajectory; the error is the standard error over blocks of it,
    fitted in the same window. The window leaves out the start, where atoms fly and rattle, and lags beyond half a
    block, of which a block holds few independent samples.

    Finite size (Yeh, Hummer, J. Phys. Chem. B 108, 15873 (2004)): D(inf) = D + xi k T / (6 pi eta L), xi = 2.837297.

    Raises
    ------
    DataError
        The trajectory is too short for its blocks, or the window holds fewer than three points.
    ConfigError
        A viscosity without temperature, or for a box that is no cube.
    """
    values = {
        "blocks": blocks, "fit_ps": fit_ps, "viscosity_mPas": viscosity_mPas, "temperature_K": temperature_K,
    }  # fmt: skip
    config = DiffusionConfig.parse(values, where="diffusion")
    length = motion.frames // config.blocks
    if length < 8:
        raise DataError(
            "the trajectory is too short for its blocks",
            wanted=f"{8 * config.blocks} frames for {config.blocks} blocks",
            got=f"{motion.frames}",
            remedy="run longer, write frames more often, or take fewer blocks",
        )
    lags = motion.interval_ps * np.arange(length)
    correction = finite_size_correction(motion, config)
    return Diffusion(
        lag_ps=lags,
        species={
            name: _of_species(motion.positions[:, members], lags, config, correction)
            for name, members in motion.species().items()
        },
        blocks=config.blocks,
        block_ps=length * motion.interval_ps,
        correction_A2_per_ps=correction,
    )


def finite_size_correction(motion: Trajectory, config: DiffusionConfig) -> float | None:
    """What an infinite box adds to D, Å^2/ps; None where no viscosity is configured."""
    if config.viscosity_mPas is None:
        return None
    if config.temperature_K is None:
        raise ConfigError(
            "the correction for the size of the box needs a temperature beside the viscosity",
            where="diffusion",
            remedy="give temperature_K too",
        )
    if not motion.cubic:
        raise ConfigError(
            "the correction for the size of the box is known for cubes",
            where="diffusion",
            wanted="a cubic cell",
            remedy="leave the viscosity out",
        )
    side = motion.volume_A3 ** (1.0 / 3.0)
    per_time = XI * BOLTZMANN * config.temperature_K / (6.0 * math.pi * config.viscosity_mPas * MPAS * side)
    return float(per_time * 1e3 * units.fs)  # Å^2 per ASE's time -> per ps


def _of_species(
    positions: np.ndarray, lags: np.ndarray, config: DiffusionConfig, correction: float | None
) -> SpeciesDiffusion:
    length = len(lags)
    whole = mean_square_displacement(positions)[:length]
    parts = np.array(
        [mean_square_displacement(positions[n * length : (n + 1) * length]) for n in range(config.blocks)]
    )  # (blocks, L)
    root = math.sqrt(config.blocks)
    chosen = _window(lags, whole) if config.fit_ps is None else _given(lags, config.fit_ps)
    exponents = [_exponent(lags[chosen], part[chosen]) for part in parts]
    moved = math.sqrt(float(whole[chosen][-1]))
    stayed = moved < LEFT
    value = math.nan if stayed else _slope(lags[chosen], whole[chosen]) / 6.0
    slopes = [math.nan if stayed else _slope(lags[chosen], part[chosen]) / 6.0 for part in parts]
    return SpeciesDiffusion(
        msd_A2=whole,
        msd_error_A2=parts.std(axis=0, ddof=1) / root,
        D_A2_per_ps=value,
        D_error_A2_per_ps=float(np.std(slopes, ddof=1)) / root,
        fit_ps=(float(lags[chosen][0]), float(lags[chosen][-1])),
        exponent=_exponent(lags[chosen], whole[chosen]),
        exponent_error=float(np.std(exponents, ddof=1)) / root,
        moved_A=moved,
        D_corrected_A2_per_ps=None if correction is None or stayed else value + correction,
    )


def _window(lags: np.ndarray, msd: np.ndarray) -> slice:
    """From where the rest of the window is diffusive, a tenth of its end at the earliest, to half a block."""
    end = max(len(lags) // 2, 4)
    first = max(end // 10, 1)
    latest = max(end // 2, first)
    candidates = np.unique(np.geomspace(first, latest, 25).round().astype(np.int64))
    for begin in candidates:
        if abs(_exponent(lags[begin : end + 1], msd[begin : end + 1]) - 1.0) <= SLOPE:
            return slice(int(begin), end + 1)
    return slice(int(latest), end + 1)


def _given(lags: np.ndarray, window: tuple[float, float]) -> slice:
    begin, end = np.searchsorted(lags, [window[0] - 1e-9, window[1] + 1e-9])
    begin = max(int(begin), 1)  # nothing has moved at lag zero
    if window[1] > lags[-1] + 1e-9 or end - begin < 3:
        raise DataError(
            "the window of the fit does not lie within the lags of a block",
            where="diffusion, fit_ps",
            wanted=f"three lags at least, between {lags[1]:g} and {lags[-1]:g} ps",
            got=f"{window[0]:g} to {window[1]:g} ps",
            remedy="choose another window, run longer, or take fewer blocks",
        )
    return slice(begin, int(end))


def _slope(lags: np.ndarray, msd: np.ndarray) -> float:
    """Least squares, Å^2/ps."""
    t = lags - lags.mean()
    return float(t @ (msd - msd.mean()) / (t @ t))


def _exponent(lags: np.ndarray, msd: np.ndarray) -> float:
    """a of MSD ~ t^a, every factor of time counted alike; 0 where nothing moves."""
    picked = np.unique(np.geomspace(1, len(lags), 20).round().astype(np.int64)) - 1
    x, y = lags[picked], msd[picked]
    if len(x) < 2 or not (y > 0.0).all():
        return 0.0
    u = np.log(x) - np.log(x).mean()
    return float(u @ (np.log(y) - np.log(y).mean()) / (u @ u))
