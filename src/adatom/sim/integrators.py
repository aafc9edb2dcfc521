"""Steps of molecular dynamics in a few operations on whole arrays: velocity Verlet, Langevin, Bussi, and a barostat.

=========================  =======================  =========================
equation                   variable                 unit
=========================  =======================  =========================
r, p, F                    Motion.positions, ...    Å, ASE's, eV/Å
dt, tau = 1 / gamma        timestep, time           ASE's unit of time
kT                         heat                     eV
f                          freedoms
c = exp(-dt / tau)         keep
=========================  =======================  =========================
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from ase import units
from torch import Tensor

from adatom.sim.motion import Motion
from adatom.units import BOLTZMANN

Thermostat = Literal["none", "langevin", "bussi"]


class Kinetics:
    """Temperature of atoms whose total momentum may be conserved: that motion carries no heat and is not counted.

    T = 2 K / (f k). Where total momentum is conserved, K leaves out the motion of the centre of mass and f = 3N - 3;
    where it is not (Langevin, constraints, a single atom), K is all of the kinetic energy and f = 3N - constraints.
    """

    def __init__(self, motion: Motion, thermostat: Thermostat) -> None:
        self.conserving = thermostat != "langevin" and motion.free and motion.masses.shape[0] > 1
        self.freedoms = motion.freedoms - 3 if self.conserving else motion.freedoms
        self._motion = motion

    def at_most(self, kinetic: float) -> float:
        """Temperature in K that the kinetic energy (eV) allows, the motion of the whole counted as heat."""
        return 2.0 * kinetic / (max(self.freedoms, 1) * BOLTZMANN)

    def temperature(self) -> float:
        """Kinetic temperature in K; 0 where nothing can move."""
        motion = self._motion
        heat = motion.kinetic()
        if self.conserving:
            heat = heat - 0.5 * motion.momenta.sum(0).square().sum() / motion.masses.sum()
        return self.at_most(float(heat))

    def draw(self, temperature: float, random: torch.Generator) -> None:
        """Maxwell-Boltzmann momenta; where momentum is conserved without drift and at exactly this temperature."""
        motion = self._motion
        motion.momenta.normal_(generator=random).mul_((motion.masses * BOLTZMANN * temperature).sqrt() * motion.mobile)
        if motion.rules is not None:
            motion.rules.project(motion)
        if self.conserving:
            self.stop_drift()
            now = self.temperature()
            if now > 0.0:
                motion.momenta.mul_(math.sqrt(temperature / now))

    def stop_drift(self) -> None:
        """Take the velocity of the centre of mass from every atom."""
        motion = self._motion
        motion.momenta.sub_(motion.masses * (motion.momenta.sum(0) / motion.masses.sum()))


class Integrator(ABC):
    """One step: ``before`` leads to where forces are needed next, ``after`` ends it with those."""

    @abstractmethod
    def before(self) -> None:
        """From the end of the last step to the new positions."""

    @abstractmethod
    def after(self) -> None:
        """From the new forces to the end of the step."""

    @abstractmethod
    def hold(self, temperature: float) -> None:
        """Hold another temperature (K) from here on."""


class VelocityVerlet(Integrator):
    """Half a kick, a drift, half a kick; then, if there is one, the thermostat that rescales velocities."""

    def __init__(self, motion: Motion, timestep: float, rescaling: VelocityRescaling | None = None) -> None:
        self._motion, self._timestep, self._rescaling = motion, timestep, rescaling

    def before(self) -> None:
        """Half a kick and a drift."""
        self._motion.kick(0.5 * self._timestep)
        self._motion.drift(self._timestep)

    def after(self) -> None:
        """Half a kick, and the exchange of heat."""
        self._motion.kick(0.5 * self._timestep)
        if self._rescaling is not None:
            self._rescaling.apply()

    def hold(self, temperature: float) -> None:
        """That of the thermostat, if there is one."""
        if self._rescaling is not None:
            self._rescaling.hold(temperature)


class Langevin(Integrator):
    """Langevin dynamics in the order B A O A B (Leimkuhler, Matthews, Appl. Math. Res. Express 2013, 34).

    Kick, drift, p <- c p + sqrt((1 - c^2) m kT) R, drift, kick. Of the splittings it has the smallest error in what
    depends on positions (none at all for harmonic forces); what is read from momenta errs by dt^2.
    """

    def __init__(self, motion: Motion, timestep: float, heat: float, time: float, random: torch.Generator) -> None:
        self._motion, self._timestep, self._random = motion, timestep, random
        self._keep = math.exp(-timestep / time)
        self._width = self._of(heat)  # (N, 1)
        self._noise = torch.zeros_like(motion.momenta)

    def _of(self, heat: float) -> Tensor:
        """Width of the noise at kT = ``heat`` (eV)."""
        return (self._motion.masses * (heat * (1.0 - self._keep**2))).sqrt() * self._motion.mobile

    def hold(self, temperature: float) -> None:
        """Noise of another temperature."""
        self._width.copy_(self._of(BOLTZMANN * temperature))

    def before(self) -> None:
        """B A O A."""
        motion, half = self._motion, 0.5 * self._timestep
        motion.kick(half)
        motion.drift(half)
        motion.momenta.mul_(self._keep).addcmul_(self._noise.normal_(generator=self._random), self._width)
        if motion.rules is not None:
            motion.rules.project(motion)
        motion.drift(half)

    def after(self) -> None:
        """B."""
        self._motion.kick(0.5 * self._timestep)


class VelocityRescaling:
    """Stochastic velocity rescaling (Bussi, Donadio, Parrinello, J. Chem. Phys. 126, 014101 (2007)).

    K <- K (c + (1 - c) s sum_i R_i^2 + 2 R_1 sqrt(c (1 - c) s)),   s = kT / 2K,   i = 1 ... f

    The same factor for every atom: heat comes and goes, and the dynamics are hardly disturbed.
    """

    def __init__(
        self, motion: Motion, timestep: float, heat: float, time: float, freedoms: int, random: torch.Generator
    ) -> None:
        self._motion, self._random = motion, random
        self._keep = math.exp(-timestep / time)
        self._part = 0.5 * heat * (1.0 - self._keep)  # eV
        self._noise = torch.zeros(max(freedoms, 1), dtype=torch.float64, device=motion.phase.device)

    def hold(self, temperature: float) -> None:
        """Another target (K)."""
        self._part = 0.5 * BOLTZMANN * temperature * (1.0 - self._keep)

    def apply(self) -> None:
        """Rescale all momenta by one random factor."""
        share = self._part / self._motion.kinetic().clamp_(min=torch.finfo(torch.float64).tiny)
        noise = self._noise.normal_(generator=self._random)
        along = 2.0 * noise[0] * (self._keep * share).sqrt_()
        self._motion.momenta.mul_((noise.dot(noise) * share + along + self._keep).sqrt_())


def integrator(
    motion: Motion,
    thermostat: Thermostat,
    timestep_fs: float,
    temperature: float,
    thermostat_ps: float,
    freedoms: int,
    random: torch.Generator,
) -> Integrator:
    """Velocity Verlet, Langevin, or velocity Verlet with Bussi's stochastic velocity rescaling.

    All of their state is in ``motion`` and ``random``. ``thermostat_ps`` is the time in which the thermostat acts:
    1 / friction, or the relaxation time of the kinetic energy.
    """
    timestep, time, heat = timestep_fs * units.fs, thermostat_ps * 1000.0 * units.fs, BOLTZMANN * temperature
    if thermostat == "langevin":
        return Langevin(motion, timestep, heat, time, random)
    if thermostat == "none":
        return VelocityVerlet(motion, timestep)
    return VelocityVerlet(motion, timestep, VelocityRescaling(motion, timestep, heat, time, freedoms, random))


class CellRescaling:
    """Isotropic stochastic cell rescaling (Bernetti, Bussi, J. Chem. Phys. 153, 114107 (2020)): constant pressure.

    d ln V = (beta / tau) (P - P0) dt + sqrt(2 k T beta / (V tau)) dW,   P = 2K / 3V - tr(sigma) / 3

    Positions grow with the cell, momenta shrink with it. It has no inertia: a start far from equilibrium decays instead
    of ringing, and nothing but the random numbers has to be kept for a restart.

    Parameters
    ----------
    pressure
        P0, eV/Å^3.
    temperature
        T, K.
    time
        tau, in ASE's unit of time.
    compressibility
        beta, Å^3/eV: an estimate; the volume relaxes in tau (true compressibility / beta).
    """

    def __init__(
        self, pressure: float, temperature: float, time: float, compressibility: float, random: torch.Generator
    ) -> None:
        self.pressure, self.heat = pressure, BOLTZMANN * temperature
        self.rate = compressibility / time
        self._random = random

    def hold(self, temperature: float) -> None:
        """Volumes of another temperature (K)."""
        self.heat = BOLTZMANN * temperature

    def apply(self, motion: Motion, stress: Tensor, interval: float) -> None:
        """Rescale cell, positions and momenta as befits a time ``interval`` (ASE's unit); stress (1, 3, 3) eV/Å^3."""
        drift = self.rate * interval * (pressure(motion, stress) - self.pressure)
        width = math.sqrt(2.0 * self.heat * self.rate * interval / motion.volume)
        draw = torch.empty(1, dtype=torch.float64, device=motion.phase.device).normal_(generator=self._random)
        motion.rescale(math.exp((drift + width * float(draw)) / 3.0))


def pressure(motion: Motion, stress: Tensor) -> float:
    """Pressure in eV/Å^3: the virial of the forces, stress (1, 3, 3), and the motion of the atoms."""
    return (2.0 * float(motion.kinetic()) / motion.volume - float(stress[0].trace())) / 3.0
