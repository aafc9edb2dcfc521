"""Relax positions, and the cell if asked, to the nearest minimum of energy (or of enthalpy under pressure)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import ase
import numpy as np
import torch
from ase.calculators.calculator import BaseCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE, LBFGS
from pydantic import NonNegativeInt, PositiveFloat, model_validator

from adatom.config import Config
from adatom.errors import ConfigError, GeometryError, SimulationError
from adatom.potential import Potential
from adatom.sim.calculator import Calculator, require_volume
from adatom.sim.guard import Guard, card_of
from adatom.sim.symmetry import KeepSymmetry, space_group, symmetrised
from adatom.units import EV_PER_A3_IN_GPA

CONVERGED, EXHAUSTED = "converged", "not converged: steps ran out"


class RelaxConfig(Config):
    """How to relax, and when it is done.

    Converged means: no force on an atom above ``fmax`` (eV/Å), and with ``cell`` no component of stress + pressure
    above ``smax_GPa``. With ``symmetry`` the crystal keeps the space group that it has at the start (within 0.01 Å; it
    is made exact first), its cell too: forces and stress are averaged over the operations of the group.
    """

    fmax: PositiveFloat = 0.01
    smax_GPa: PositiveFloat = 0.05
    steps: NonNegativeInt = 500
    cell: bool = False
    symmetry: bool = False
    pressure_GPa: float = 0.0
    optimizer: Literal["fire", "lbfgs"] = "lbfgs"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.pressure_GPa != 0.0 and not self.cell:
            raise ValueError("a pressure moves nothing in a fixed cell: relax the cell too, cell=True or --cell")
        return self


@dataclass(frozen=True)
class RelaxStep:
    """One geometry on the way: energy (eV), largest force (eV/Å), largest stress left (GPa, 0 in a fixed cell)."""

    step: int
    energy: float
    fmax: float
    smax_GPa: float


@dataclass(frozen=True)
class Relaxation:
    """Where a relaxation ended; only if ``converged`` that is a minimum. ``atoms`` carry their energy and forces.

    With ``symmetry`` it is a minimum among the structures of that symmetry alone. Space groups, as in
    ``"Fd-3m (227)"``, within 0.01 Å; None where there is no crystal.
    """

    atoms: ase.Atoms
    converged: bool
    steps: int
    energy: float  # eV
    fmax: float  # eV/Å
    smax_GPa: float
    history: tuple[RelaxStep, ...]
    wanted: RelaxConfig
    space_group_before: str | None = None
    space_group_after: str | None = None

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        return CONVERGED if self.converged else EXHAUSTED

    def to_record(self) -> dict[str, Any]:
        """Way and end as plain values, as the report reads them."""
        return {
            "property": "relaxation",
            "converged": self.converged,
            "steps": self.steps,
            "energy_eV": self.energy,
            "fmax_eV_per_A": self.fmax,
            "smax_GPa": self.smax_GPa if self.wanted.cell else None,
            "space_group_before": self.space_group_before,
            "space_group_after": self.space_group_after,
            "cell_A": self.atoms.cell.tolist() if self.atoms.cell.rank == 3 else None,
            "settings": self.wanted.model_dump(),
            "history": {
                "energy_eV": [step.energy for step in self.history],
                "fmax_eV_per_A": [step.fmax for step in self.history],
                "smax_GPa": [step.smax_GPa for step in self.history],
            },
        }

    def require_converged(self) -> Relaxation:
        """This result if it has converged, SimulationError otherwise."""
        if self.converged:
            return self
        cell = f", stress below {self.wanted.smax_GPa:g} GPa" if self.wanted.cell else ""
        raise SimulationError(
            "the relaxation has not converged",
            where=f"{self.atoms.get_chemical_formula()} after {self.steps} steps",
            wanted=f"forces below {self.wanted.fmax:g} eV/Å{cell}",
            got=f"{self.fmax:.3g} eV/Å" + (f", {self.smax_GPa:.3g} GPa" if self.wanted.cell else ""),
            remedy="allow more steps, try the other optimizer (fire, lbfgs), or accept a larger fmax",
        )


def relax(
    atoms: ase.Atoms,
    calculator: BaseCalculator | Potential | str | Path,
    *,
    fmax: float = 0.01,
    steps: int = 500,
    cell: bool = False,
    symmetry: bool = False,
    optimizer: Literal["fire", "lbfgs"] = "lbfgs",
    pressure_GPa: float = 0.0,
    smax_GPa: float = 0.05,
    progress: Callable[[RelaxStep], None] | None = None,
) -> Relaxation:
    """Relax a copy of ``atoms``; the parameters are those of RelaxConfig, constraints on atoms are kept.

    ConfigError for parameters that make no sense; StressError when the cell of a system without volume is to relax, or
    its symmetry to stay; SimulationError when the potential gives no number or the atoms fall onto one another.
    """
    config = RelaxConfig.parse(
        {
            "fmax": fmax,
            "steps": steps,
            "cell": cell,
            "symmetry": symmetry,
            "optimizer": optimizer,
            "pressure_GPa": pressure_GPa,
            "smax_GPa": smax_GPa,
        },
        where="relax",
    )
    system = _symmetric(atoms) if config.symmetry else atoms.copy()
    system.calc = as_calculator(calculator)
    if config.cell:
        require_volume(system)
    before = crystal_symmetry(system)
    guard = Guard(system, card_of(system.calc))
    history: list[RelaxStep] = []
    with warnings.catch_warnings():
        # of the strain that ASE's filter takes the logarithm of: good to 1e-13, and scipy says so
        warnings.filterwarnings("ignore", "logm result may be inaccurate", RuntimeWarning)
        for _ in _path(system, config):
            history.append(_measure(system, config, len(history)))
            guard.check_numbers(history[-1].step, history[-1].energy, system.get_forces())
            if progress is not None:
                progress(history[-1])
            if _is_minimum(history[-1], config):
                break
    last = history[-1]
    guard.check_distances(last.step, torch.from_numpy(system.get_positions()), system.cell.array)
    end = _with_results(system)
    if config.symmetry:
        end.set_constraint()
    return Relaxation(
        end,
        _is_minimum(last, config),
        last.step,
        last.energy,
        last.fmax,
        last.smax_GPa,
        tuple(history),
        config,
        before,
        crystal_symmetry(end),
    )


def crystal_symmetry(atoms: ase.Atoms) -> str | None:
    """Space group as in ``"Fd-3m (227)"``; None where nothing repeats in three directions, or no group is found."""
    if not atoms.pbc.all():
        return None
    try:
        return str(space_group(atoms))
    except GeometryError:  # no crystal: an answer, not a failure
        return None


def as_calculator(potential: BaseCalculator | Potential | str | Path) -> BaseCalculator:
    """A calculator as it is; a potential or a model file as a calculator on the CPU."""
    return Calculator(potential) if isinstance(potential, (Potential, str, Path)) else potential


def _symmetric(atoms: ase.Atoms) -> ase.Atoms:
    """A copy with exactly the symmetry that it nearly has, which a constraint keeps from here on."""
    if atoms.constraints:
        raise ConfigError(
            "atoms cannot be fixed and symmetry be kept at the same time",
            where=f"relax, {atoms.get_chemical_formula()}",
            wanted="a structure without constraints",
            got=", ".join(type(constraint).__name__ for constraint in atoms.constraints),
            remedy="take the constraints off, or relax without symmetry",
        )
    group = space_group(atoms)
    system = symmetrised(atoms, group)
    system.set_constraint(KeepSymmetry(group, system.cell.array))
    return system


def _path(system: ase.Atoms, config: RelaxConfig) -> Any:
    """Iterator over the geometries of the optimiser, the first one included; its own criterion never ends it."""
    pressure = config.pressure_GPa / EV_PER_A3_IN_GPA
    target = FrechetCellFilter(system, scalar_pressure=pressure) if config.cell else system
    optimizer = (FIRE if config.optimizer == "fire" else LBFGS)(target, logfile=None)
    return optimizer.irun(fmax=0.0, steps=config.steps)


def _measure(system: ase.Atoms, config: RelaxConfig, step: int) -> RelaxStep:
    forces = system.get_forces()
    deviation = np.zeros(6)
    if config.cell:
        pressure = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]) * config.pressure_GPa
        deviation = system.get_stress() * EV_PER_A3_IN_GPA + pressure
    fmax = float(np.sqrt(np.square(forces).sum(axis=1).max(initial=0.0)))
    return RelaxStep(step, float(system.get_potential_energy()), fmax, float(np.abs(deviation).max()))


def _is_minimum(step: RelaxStep, config: RelaxConfig) -> bool:
    return step.fmax <= config.fmax and step.smax_GPa <= config.smax_GPa


def _with_results(system: ase.Atoms) -> ase.Atoms:
    """The atoms with energy, forces and stress fixed to them, free of the calculator."""
    frozen = system.copy()
    results = {
        name: system.calc.results[name] for name in ("energy", "forces", "stress") if name in system.calc.results
    }
    frozen.calc = SinglePointCalculator(frozen, **results)
    return frozen
