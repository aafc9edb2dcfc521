"""One step of molecular dynamics: what moves, where its forces come from, and the rule that moves it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from adatom.sim.integrators import Integrator
from adatom.sim.motion import Motion
from adatom.sim.skin import Origin
from adatom.sim.surface import Surface


class Whole(NamedTuple):
    """All that the next step depends on, between two steps."""

    phase: Tensor  # (3, N, 3)  positions, momenta, forces
    energy: Tensor  # (1,)  eV
    cell: np.ndarray  # (3, 3)
    origin: Origin
    random: Tensor  # state of the random number generator


class Figures(NamedTuple):
    """What every step is watched by. Neither is a number where a force is none: momenta were kicked with it."""

    potential: float  # eV
    kinetic: float  # eV


class Engine:
    """Steps a ``Motion`` on a ``Surface``. ``energy`` (1,) and ``stress`` (1, 3, 3) are those of the last step.

    Nothing in a step looks at a single atom: apart from the potential it is some twenty operations on whole arrays.
    """

    def __init__(self, motion: Motion, surface: Surface, integrator: Integrator, random: torch.Generator) -> None:
        self.motion, self.surface = motion, surface
        self._integrator, self._random = integrator, random
        self.energy = torch.full((1,), torch.nan, dtype=torch.float64, device=motion.phase.device)
        self.stress = torch.full((1, 3, 3), torch.nan, dtype=torch.float64, device=motion.phase.device)

    def evaluate(self, stress: bool = False) -> None:
        """Energy, forces and, if asked, stress where the atoms stand."""
        motion = self.motion
        found = self.surface(motion.positions, motion.cell, stress)
        motion.forces.copy_(found.forces)
        self.energy = found.energy if motion.rules is None else motion.rules.energy(motion, found.energy)
        self.stress = found.stress

    def step(self, stress: bool = False) -> None:
        """One time step; the pressure can be read after it if ``stress`` was asked for."""
        self._integrator.before()
        self.evaluate(stress)
        self._integrator.after()

    def figures(self) -> Figures:
        """Potential and kinetic energy."""
        return Figures(float(self.energy), float(self.motion.kinetic()))

    def keep(self) -> Whole:
        """Where the run stands now."""
        motion = self.motion
        return Whole(motion.phase.clone(), self.energy, motion.cell, self.surface.origin, self._random.get_state())

    def restore(self, whole: Whole) -> None:
        """Stand where a run stood: the next step is the one that followed, to the last bit."""
        motion = self.motion
        motion.phase.copy_(whole.phase)
        motion.cell, self.energy = whole.cell, whole.energy
        self.surface.restore(whole.origin)
        self._random.set_state(whole.random)
