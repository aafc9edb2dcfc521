"""Energy-volume curve and equation of state: lattice constant, bulk modulus and its pressure derivative."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.calculators.calculator import BaseCalculator
from pydantic import Field, PositiveFloat

from adatom.config import Config
from adatom.errors import DataError
from adatom.potential import Potential
from adatom.properties.crystal import conventional_cell
from adatom.sim.calculator import require_volume
from adatom.sim.relax import as_calculator, relax
from adatom.units import EV_PER_A3_IN_GPA


class EOSConfig(Config):
    """Which volumes, and whether the atoms rest.

    ``points`` volumes from ``1 - span`` to ``1 + span`` times that of the structure given, evenly spaced. With
    ``relax_atoms`` the atoms of each volume come to rest (forces below ``fmax``, eV/Å); the shape of the cell stays.
    """

    points: int = Field(default=11, ge=5)
    span: float = Field(default=0.08, gt=0.0, lt=0.5)
    relax_atoms: bool = True
    fmax: PositiveFloat = 0.005


@dataclass(frozen=True)
class EOSFit:
    """Third-order Birch-Murnaghan equation of state of one atom's share."""

    V0_A3_per_atom: float
    E0_eV_per_atom: float
    B0_GPa: float
    B0_prime: float
    rms_meV_per_atom: float  # of the points about the curve
    range_A3_per_atom: tuple[float, float]  # of the points fitted
    lattice_constant_A: float | None = None  # a of the conventional cell, where the kind of crystal is known

    def energy(self, volumes: np.ndarray) -> np.ndarray:
        """Energy per atom in eV at volumes per atom in Å^3: the Birch-Murnaghan curve.

        E(V) = E0 + 9 V0 B0 / 16 [ (x - 1)^3 B0' + (x - 1)^2 (6 - 4 x) ],  x = (V0 / V)^(2/3)
        """
        x = (self.V0_A3_per_atom / np.asarray(volumes, dtype=np.float64)) ** (2.0 / 3.0)
        scale = 9.0 * self.V0_A3_per_atom * self.B0_GPa / EV_PER_A3_IN_GPA / 16.0
        curve: np.ndarray = self.E0_eV_per_atom + scale * ((x - 1) ** 3 * self.B0_prime + (x - 1) ** 2 * (6 - 4 * x))
        return curve

    def to_record(self) -> dict[str, Any]:
        """The figures by name, as the report reads them."""
        return asdict(self)


@dataclass(frozen=True)
class EOSCurve:
    """Points and fit; a, b, c (Å) of the conventional cell at V0, which keeps the shape of the input."""

    volumes: np.ndarray  # (P,)  Å^3/atom, ascending
    energies: np.ndarray  # (P,)  eV/atom
    fit: EOSFit
    lattice_constants: tuple[float, float, float]

    def to_record(self) -> dict[str, Any]:
        """Points and fit as plain values, as the report reads them."""
        return {
            "property": "eos",
            "volume_A3_per_atom": self.volumes.tolist(),
            "energy_eV_per_atom": self.energies.tolist(),
            "fit": self.fit.to_record(),
        }


def fit_birch_murnaghan(volumes: Sequence[float] | np.ndarray, energies: Sequence[float] | np.ndarray) -> EOSFit:
    """Least squares of E(V), per atom in Å^3 and eV.

    The third-order Birch-Murnaghan energy is a cubic polynomial in V^(-2/3): the fit is linear and has one answer,
    whatever the start. DataError with fewer than five volumes, or when the points have no minimum between them.
    """
    v, e = np.asarray(volumes, dtype=np.float64), np.asarray(energies, dtype=np.float64)
    if v.shape != e.shape or np.unique(v).size < 5 or not (np.isfinite(v).all() and np.isfinite(e).all()):
        raise DataError(
            "an equation of state needs finite energies at five different volumes at least",
            got=f"{np.unique(v).size} volumes, {np.size(e)} energies, {np.count_nonzero(~np.isfinite(e))} not finite",
            remedy="give more points",
        )
    middle = float(np.median(v))
    x = (middle / v) ** (2.0 / 3.0)  # near 1: well-conditioned powers of x - 1
    polynomial = np.polynomial.Polynomial.fit(x, e, 3, domain=[x.min(), x.max()])
    x0 = _minimum(polynomial, float(x.min()), float(x.max()))
    # with y = x / x0 = (V0 / V)^(2/3): E = E0 + 9 V0 B0 / 16 [2 (y - 1)^2 + (B0' - 4) (y - 1)^3]
    second = float(polynomial.deriv(2)(x0)) * x0**2
    third = float(polynomial.deriv(3)(x0)) * x0**3
    v0 = middle / x0**1.5
    rms = float(np.sqrt(np.mean((polynomial(x) - e) ** 2)))
    return EOSFit(
        V0_A3_per_atom=v0,
        E0_eV_per_atom=float(polynomial(x0)),
        B0_GPa=4.0 * second / (9.0 * v0) * EV_PER_A3_IN_GPA,
        B0_prime=4.0 + 2.0 * third / (3.0 * second),
        rms_meV_per_atom=1e3 * rms,
        range_A3_per_atom=(float(v.min()), float(v.max())),
    )


def energy_volume(
    atoms: ase.Atoms,
    calculator: BaseCalculator | Potential | str | Path,
    *,
    points: int = 11,
    span: float = 0.08,
    relax_atoms: bool = True,
    fmax: float = 0.005,
    progress: Callable[[int, float, float], None] | None = None,
) -> EOSCurve:
    """Energies at isotropically scaled volumes, and their fit; the parameters are those of EOSConfig.

    ``progress`` is called with the number of the point, its volume and its energy (per atom). StressError without a
    volume, SimulationError when the atoms of a volume do not come to rest, DataError when the curve has no minimum.
    """
    config = EOSConfig.parse({"points": points, "span": span, "relax_atoms": relax_atoms, "fmax": fmax}, where="eos")
    require_volume(atoms)
    engine = as_calculator(calculator)
    volumes, energies, states = [], [], []
    for point, ratio in enumerate(np.linspace(1.0 - config.span, 1.0 + config.span, config.points)):
        scaled = atoms.copy()
        scaled.set_cell(np.asarray(atoms.cell) * ratio ** (1.0 / 3.0), scale_atoms=True)
        volumes.append(float(scaled.get_volume()) / len(atoms))
        energy, state = _energy(scaled, engine, config)
        energies.append(energy / len(atoms))
        states.append(state)
        if progress is not None:
            progress(point, volumes[-1], energies[-1])
    # the kind of crystal is that of the atoms at rest near V0: a distorted input has another symmetry
    return curve_from_points(volumes, energies, states[int(np.argmin(energies))])


def curve_from_points(
    volumes: Sequence[float] | np.ndarray,
    energies: Sequence[float] | np.ndarray,
    atoms: ase.Atoms,
    span: float | None = None,
) -> EOSCurve:
    """Curve of energies per atom (eV) at volumes per atom (Å^3) from anywhere; ``atoms`` gives the kind of crystal.

    With ``span`` only points within this fraction of the volume of the lowest one are fitted: two curves are compared
    fairly over the same range.
    """
    order = np.argsort(volumes)
    v, e = np.asarray(volumes, dtype=np.float64)[order], np.asarray(energies, dtype=np.float64)[order]
    near = np.abs(v / v[e.argmin()] - 1.0) <= (np.inf if span is None else span)
    fit = fit_birch_murnaghan(v[near], e[near])
    a, b, c = lattice_constants(atoms, fit.V0_A3_per_atom)
    return EOSCurve(v, e, replace(fit, lattice_constant_A=a), (a, b, c))


def lattice_constants(atoms: ase.Atoms, volume_per_atom: float) -> tuple[float, float, float]:
    """a, b, c in Å of the conventional cell of this crystal, scaled to a volume per atom (Å^3).

    GeometryError where there is no crystal.
    """
    crystal = conventional_cell(atoms)
    a, b, c = crystal.cell.lengths() * (volume_per_atom * len(crystal) / float(crystal.get_volume())) ** (1.0 / 3.0)
    return float(a), float(b), float(c)


def _energy(atoms: ase.Atoms, calculator: BaseCalculator, config: EOSConfig) -> tuple[float, ase.Atoms]:
    """Energy in eV and the atoms it belongs to, at rest if so configured."""
    if config.relax_atoms:
        relaxed = relax(atoms, calculator, fmax=config.fmax).require_converged()
        return relaxed.energy, relaxed.atoms
    atoms.calc = calculator
    return float(atoms.get_potential_energy()), atoms


def _minimum(polynomial: np.polynomial.Polynomial, low: float, high: float) -> float:
    """Where a cubic has its minimum; DataError unless that lies within [low, high]."""
    slope = polynomial.deriv()
    roots = slope.roots()
    real = roots[np.abs(roots.imag) < 1e-9].real
    minima = [float(r) for r in real if low <= r <= high and slope.deriv()(r) > 0.0]
    if not minima:
        raise DataError(
            "the energies have no minimum between the smallest and the largest volume",
            wanted="a curve that rises at both ends",
            remedy="relax the cell first, or take a wider range of volumes",
        )
    return minima[0]
