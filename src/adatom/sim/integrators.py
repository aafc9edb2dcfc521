"""Steps of molecular dynamics: ASE's integrators with this package's conventions, and a barostat without memory."""

from __future__ import annotations

import math
from typing import Literal

import ase
import numpy as np
from ase import units
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.verlet import VelocityVerlet

from adatom.units import BOLTZMANN

Thermostat = Literal["none", "langevin", "bussi"]


class Kinetics:
    """Temperature of atoms whose total momentum may be conserved: that motion carries no heat and is not counted.

    T = 2 K / (f k). Where total momentum is conserved, K leaves out the motion of the centre of mass and f = 3N - 3;
    where it is not (Langevin, constraints, a single atom), K is all of the kinetic energy and f = 3N - constraints.
    """

    def __init__(self, atoms: ase.Atoms, thermostat: Thermostat) -> None:
        free = int(atoms.get_number_of_degrees_of_freedom())
        self.conserving = thermostat != "langevin" and not atoms.constraints and len(atoms) > 1
        self.freedoms = free - 3 if self.conserving else free
        self._masses = atoms.get_masses()[:, None]  # (N, 1)

    def energy(self, atoms: ase.Atoms) -> float:
        """Kinetic energy in eV, the motion of the whole included."""
        return float(0.5 * (np.square(atoms.get_momenta()) / self._masses).sum())

    def temperature(self, atoms: ase.Atoms) -> float:
        """Kinetic temperature in K; 0 where nothing can move."""
        heat = self.energy(atoms)
        if self.conserving:
            heat -= float(0.5 * np.square(atoms.get_momenta().sum(axis=0)).sum() / self._masses.sum())
        return 2.0 * heat / (max(self.freedoms, 1) * BOLTZMANN)

    def draw(self, atoms: ase.Atoms, temperature: float, rng: np.random.Generator) -> None:
        """Maxwell-Boltzmann momenta; where momentum is conserved without drift and at exactly this temperature."""
        width = np.sqrt(self._masses * BOLTZMANN * temperature)
        atoms.set_momenta(width * rng.standard_normal((len(atoms), 3)))
        if self.conserving:
            self.stop_drift(atoms)
            now = self.temperature(atoms)
            if now > 0.0:
                atoms.set_momenta(atoms.get_momenta() * math.sqrt(temperature / now))

    def stop_drift(self, atoms: ase.Atoms) -> None:
        """Take the velocity of the centre of mass from every atom."""
        drift = atoms.get_momenta().sum(axis=0) / self._masses.sum()
        atoms.set_momenta(atoms.get_momenta() - self._masses * drift)


def integrator(
    atoms: ase.Atoms,
    thermostat: Thermostat,
    timestep_fs: float,
    temperature: float,
    thermostat_ps: float,
    kinetics: Kinetics,
    rng: np.random.Generator,
) -> MolecularDynamics:
    """Velocity Verlet, Langevin, or velocity Verlet with Bussi's stochastic velocity rescaling.

    All of their state is in positions, momenta and ``rng``. ``thermostat_ps`` is the time in which the thermostat acts:
    1 / friction, or the relaxation time of the kinetic energy.
    """
    timestep, time = timestep_fs * units.fs, thermostat_ps * 1000.0 * units.fs
    if thermostat == "langevin":
        return Langevin(atoms, timestep, temperature_K=temperature, friction=1.0 / time, fixcm=False, rng=rng)
    if thermostat == "none":
        return VelocityVerlet(atoms, timestep)
    dynamics = Bussi(atoms, timestep, temperature_K=temperature, taut=time, rng=rng)
    # ASE counts 3N degrees of freedom; the centre of mass is at rest here and has none
    dynamics.ndof = kinetics.freedoms
    dynamics.target_kinetic_energy = 0.5 * kinetics.freedoms * BOLTZMANN * temperature
    return dynamics


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
        self, pressure: float, temperature: float, time: float, compressibility: float, rng: np.random.Generator
    ) -> None:
        self.pressure, self.heat = pressure, BOLTZMANN * temperature
        self.rate = compressibility / time
        self._rng = rng

    def apply(self, atoms: ase.Atoms, interval: float) -> None:
        """Rescale cell, positions and momenta as befits a time ``interval`` (ASE's unit)."""
        volume = atoms.get_volume()
        stress = atoms.get_stress(include_ideal_gas=True)
        drift = self.rate * interval * (-stress[:3].mean() - self.pressure)
        noise = math.sqrt(2.0 * self.heat * self.rate * interval / volume) * self._rng.standard_normal()
        factor = math.exp((drift + noise) / 3.0)
        atoms.set_cell(np.asarray(atoms.cell) * factor)
        atoms.set_positions(atoms.get_positions() * factor)
        atoms.set_momenta(atoms.get_momenta() / factor)
