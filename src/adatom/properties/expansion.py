"""Thermal expansion in the quasi-harmonic approximation: phonons at several volumes, F(V, T) at its minimum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.calculators.calculator import BaseCalculator
from pydantic import Field, PositiveFloat

from adatom.config import Config
from adatom.errors import DataError, SimulationError
from adatom.potential import Potential
from adatom.properties.crystal import Supercell, at_rest, conventional_cell, supercell
from adatom.properties.eos import EOSFit, fit_birch_murnaghan
from adatom.properties.phonons import (
    Thermal,
    force_constants,
    imaginary,
    modes,
    planned,
    require_phonopy,
    thermal,
)
from adatom.sim.many import evaluate
from adatom.sim.relax import as_calculator
from adatom.sim.settle import settle
from adatom.sim.symmetry import space_group
from adatom.units import BOLTZMANN, EV_PER_A3_IN_GPA

LEAST = 5  # volumes, for an equation of state


class ExpansionConfig(Config):
    """Volumes and temperatures; the others are those of PhononsConfig.

    ``points`` volumes from ``1 - compress`` to ``1 + stretch`` times that of the crystal at rest.
    """

    points: int = Field(default=9, ge=LEAST, le=41)
    compress: float = Field(default=0.04, gt=0.0, lt=0.3)
    stretch: float = Field(default=0.08, gt=0.0, lt=0.5)
    temperature_max_K: float = Field(default=1000.0, gt=0.0)
    temperature_step_K: float = Field(default=10.0, gt=0.0)
    length_A: PositiveFloat | None = None
    repeats: tuple[int, int, int] | None = None
    displacement_A: float = Field(default=0.01, gt=0.0, le=0.2)
    mesh_spacing: float = Field(default=0.15, ge=0.01, le=1.0)
    imaginary_THz: float = Field(default=0.05, gt=0.0)
    fmax: PositiveFloat = 0.001
    smax_GPa: PositiveFloat = 0.02
    steps: int = Field(default=500, ge=1)


@dataclass(frozen=True)
class Expansion:
    """What becomes of a crystal at zero pressure as it warms; the shape of its cell stays.

    ``temperatures`` end where the volume would leave the range computed. Volumes with imaginary modes are in
    ``left_out``, not in the fits.
    """

    temperatures: np.ndarray  # (T,)  K
    volume_A3: np.ndarray  # (T,)  per atom
    alpha_per_K: np.ndarray  # (T,)  volumetric, dV/dT / V: three times the linear one of a cubic crystal
    B_GPa: np.ndarray  # (T,)  isothermal bulk modulus
    Cv_kB: np.ndarray  # (T,)  per atom, at the volume of the temperature
    Cp_kB: np.ndarray  # (T,)  per atom, Cv + alpha^2 B V T
    gruneisen: np.ndarray  # (T,)  alpha B V / Cv; NaN at 0 K
    lattice_constant_A: np.ndarray  # (T,)  a of the conventional cell
    volumes_A3: np.ndarray  # (V,)  per atom, computed
    energies_eV: np.ndarray  # (V,)  per atom, at rest
    fit: EOSFit  # of the energies at rest
    left_out: np.ndarray  # (V,)  True where modes are imaginary
    space_group: str
    supercell: Supercell
    warnings: tuple[str, ...]

    def at(self, temperature: float) -> dict[str, float]:
        """Figures at a temperature in K, between the points; NaN beyond the last."""
        curves = {
            "volume_A3": self.volume_A3, "alpha_per_K": self.alpha_per_K, "B_GPa": self.B_GPa, "Cv_kB": self.Cv_kB,
            "Cp_kB": self.Cp_kB, "gruneisen": self.gruneisen, "lattice_constant_A": self.lattice_constant_A,
        }  # fmt: skip
        if temperature > self.temperatures[-1]:
            return dict.fromkeys(curves, float("nan"))
        return {name: float(np.interp(temperature, self.temperatures, curve)) for name, curve in curves.items()}

    def to_record(self) -> dict[str, Any]:
        """As the report reads it."""
        known = np.where(np.isfinite(self.gruneisen), self.gruneisen, 0.0)
        return {
            "property": "expansion",
            "space_group": self.space_group,
            "supercell": self.supercell.to_record(),
            "temperature_K": self.temperatures.tolist(),
            "volume_A3_per_atom": self.volume_A3.tolist(),
            "alpha_per_K": self.alpha_per_K.tolist(),
            "B_GPa": self.B_GPa.tolist(),
            "Cv_kB_per_atom": self.Cv_kB.tolist(),
            "Cp_kB_per_atom": self.Cp_kB.tolist(),
            "gruneisen": [g if k else None for g, k in zip(known.tolist(), np.isfinite(self.gruneisen), strict=True)],
            "lattice_constant_A": self.lattice_constant_A.tolist(),
            "static": {
                "volume_A3_per_atom": self.volumes_A3.tolist(),
                "energy_eV_per_atom": self.energies_eV.tolist(),
                "left_out": self.left_out.tolist(),
                "fit": self.fit.to_record(),
            },
            "warnings": list(self.warnings),
        }


def expansion(
    atoms: ase.Atoms,
    calculator: BaseCalculator | Potential | str | Path,
    *,
    points: int = 9,
    compress: float = 0.04,
    stretch: float = 0.08,
    temperature_max_K: float = 1000.0,
    temperature_step_K: float = 10.0,
    length_A: float | None = None,
    repeats: tuple[int, int, int] | None = None,
    displacement_A: float = 0.01,
    mesh_spacing: float = 0.15,
    imaginary_THz: float = 0.05,
    fmax: float = 0.001,
    smax_GPa: float = 0.02,
    steps: int = 500,
    progress: Callable[[str], None] | None = None,
) -> Expansion:
    """Thermal expansion from F(V, T) = E(V) + F_vib(V, T); the parameters are those of ExpansionConfig.

    The crystal comes to rest, then its atoms at every volume (the cell is only scaled); the displaced supercells of all
    volumes are one batch. At every temperature the minimum and the curvature of F are those of a third-order
    Birch-Murnaghan curve.

    Raises
    ------
    ConfigError, StressError, GeometryError
        As ``phonons``.
    SimulationError
        The crystal does not come to rest, or fewer than five volumes are free of imaginary modes.
    DataError
        No volume of the range is at equilibrium even at 0 K.
    """
    config = ExpansionConfig.parse(
        {
            "points": points, "compress": compress, "stretch": stretch, "temperature_max_K": temperature_max_K,
            "temperature_step_K": temperature_step_K, "length_A": length_A, "repeats": repeats,
            "displacement_A": displacement_A, "mesh_spacing": mesh_spacing, "imaginary_THz": imaginary_THz,
            "fmax": fmax, "smax_GPa": smax_GPa, "steps": steps,
        },
        where="expansion",
    )  # fmt: skip
    require_phonopy()
    say = progress or (lambda _: None)
    engine = as_calculator(calculator)
    say("relaxing the crystal")
    rest = conventional_cell(at_rest(atoms, engine, config.fmax, config.smax_GPa, config.steps).atoms)
    ratios = np.linspace(1.0 - config.compress, 1.0 + config.stretch, config.points)
    chosen = supercell(_scaled(rest, ratios[0]), engine, config.length_A, config.repeats)
    say(f"atoms at rest at {config.points} volumes")
    settled = settle([_scaled(rest, ratio) for ratio in ratios], engine, fmax=config.fmax, steps=config.steps)
    for one in settled:
        one.require_converged("crystal at another volume", config.fmax)
    plans = [planned(one.atoms, engine, None, chosen.repeats, config.displacement_A) for one in settled]
    structures = [structure for plan in plans for structure in plan.structures]
    say(f"{len(structures)} supercells of {len(chosen.atoms)} atoms")
    found = iter(evaluate(structures, engine))
    temperatures = np.arange(0.0, config.temperature_max_K + 1e-6, config.temperature_step_K)
    vibrations, shares = [], []
    for plan in plans:
        force_constants(plan, [next(found) for _ in plan.structures])
        frequencies = modes(plan.phonopy, config.mesh_spacing)
        vibrations.append(thermal(frequencies, temperatures, config.imaginary_THz))
        shares.append(imaginary(frequencies, config.imaginary_THz))
    volumes = np.array([float(one.atoms.get_volume()) / len(one.atoms) for one in settled])
    energies = np.array([one.evaluation.energy / len(one.atoms) for one in settled])
    return _expansion(rest, chosen, volumes, energies, vibrations, np.array(shares))


def _expansion(
    rest: ase.Atoms,
    chosen: Supercell,
    volumes: np.ndarray,
    energies: np.ndarray,
    vibrations: list[Thermal],
    shares: np.ndarray,
) -> Expansion:
    """The curves, from energies at rest and vibrations at each volume."""
    good = shares == 0.0
    warnings = list(chosen.warnings)
    if not good.all():
        bad = ", ".join(f"{v:.2f}" for v in volumes[~good])
        warnings.append(f"imaginary modes at {np.count_nonzero(~good)} volumes ({bad} Å³/atom): left out of the fits")
    if np.count_nonzero(good) < LEAST:
        raise SimulationError(
            "imaginary modes spoil the quasi-harmonic approximation",
            where=f"{rest.get_chemical_formula()}, volumes of {volumes[0]:.2f} to {volumes[-1]:.2f} Å³/atom",
            wanted=f"at least {LEAST} volumes without imaginary modes",
            got=f"{np.count_nonzero(good)} of {len(volumes)}; up to {shares.max():.1%} of the modes are imaginary",
            remedy="look at the phonons of the crystal at rest, take less stretch, or a larger supercell",
        )
    temperatures = vibrations[0].temperatures
    free = energies + np.array([v.free_energy_eV for v in vibrations]).T  # (T, V)
    fits: list[EOSFit] = []
    for curve in free:
        try:
            fits.append(fit_birch_murnaghan(volumes[good], curve[good]))
        except DataError:
            if not fits:
                raise
            break  # the minimum has left the range: said below
    kept = temperatures[: len(fits)]
    if len(fits) < len(temperatures):
        warnings.append(f"beyond {kept[-1]:g} K the volume leaves the range computed: take more stretch")
    volume, bulk = np.array([f.V0_A3_per_atom for f in fits]), np.array([f.B0_GPa for f in fits])
    heats = np.array([v.heat_capacity_kB for v in vibrations]).T[: len(fits)]  # (T, V)
    Cv = np.array([np.polyval(np.polyfit(volumes[good], h[good], 2), v) for h, v in zip(heats, volume, strict=True)])
    alpha = np.gradient(volume, kept, edge_order=2 if len(kept) > 2 else 1) / volume if len(kept) > 1 else 0.0 * volume
    alpha[0] = 0.0 if kept[0] == 0.0 else alpha[0]
    stiff = alpha * bulk / EV_PER_A3_IN_GPA * volume / BOLTZMANN  # alpha B V, in kB
    a = float(np.linalg.norm(rest.cell.array[0])) / (float(rest.get_volume()) / len(rest)) ** (1.0 / 3.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        gruneisen = np.where(Cv > 1e-3, stiff / Cv, np.nan)
    return Expansion(
        kept,
        volume,
        alpha,
        bulk,
        Cv,
        Cv + alpha * stiff * kept,
        gruneisen,
        a * volume ** (1.0 / 3.0),
        volumes,
        energies,
        fit_birch_murnaghan(volumes, energies),
        ~good,
        str(space_group(rest)),
        chosen,
        tuple(warnings),
    )


def _scaled(atoms: ase.Atoms, ratio: float) -> ase.Atoms:
    copy = atoms.copy()
    copy.set_cell(atoms.cell.array * ratio ** (1.0 / 3.0), scale_atoms=True)
    return copy
