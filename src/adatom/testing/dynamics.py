"""Does a trajectory keep its energy? Asked in the limit of a vanishing time step: 60 steps then tell."""

from __future__ import annotations

import ase
import numpy as np
from ase import units as ase_units

from adatom.testing.bench import Bench, Measured, Outcome, largest
from adatom.units import BOLTZMANN

TEMPERATURE = 300.0  # K
STEPS = 60
CALM, QUENCH = 0.5, 40  # eV/Å, steps: a start near equilibrium, so that the run stays near the temperature asked for


def energy_drift(bench: Bench) -> Measured:
    """Slope of the total energy of an NVE run, extrapolated to a time step of zero. Figure in meV/atom/ps.

    Velocity Verlet at dt and dt/2 from the same start errs by c dt^2: (4 E_(dt/2)(t) - E_dt(t)) / 3 is free of the
    integrator, and what it still drifts is work that the forces do around a closed path.
    """
    start = _start(bench)
    atoms = _quenched(bench, start)
    masses = atoms.get_masses()[:, None]  # (n, 1)  amu
    timestep = float(np.clip(np.sqrt(masses.min() / 28.0), 0.2, 1.0))  # fs: 1 for silicon, 0.2 for hydrogen
    rng = bench.rng()
    velocities = rng.normal(size=(len(atoms), 3)) * np.sqrt(BOLTZMANN * TEMPERATURE / masses)
    velocities -= (masses * velocities).sum(axis=0) / masses.sum()
    coarse, fine = _trajectories(bench, atoms, velocities, (timestep, 0.5 * timestep), 2 * STEPS)
    if not np.isfinite([coarse, fine]).all():
        return Measured(np.nan, f"{len(atoms)} atoms of '{start[0]}': the run flew apart, or energies are no numbers")
    coarse, fine = coarse[: STEPS + 1], fine[::2]
    limit = (4.0 * (fine - fine[0]) - (coarse - coarse[0])) / 3.0  # eV, free of the error of order dt^2
    picoseconds = 1e-3 * timestep * np.arange(len(limit))
    drift = 1e3 * abs(_slope(picoseconds, limit)) / len(atoms)
    return Measured(
        drift,
        f"{len(atoms)} atoms of '{start[0]}', {TEMPERATURE:.0f} K, {1e3 * picoseconds[-1]:.0f} fs in steps of "
        f"{timestep:.2f} and {0.5 * timestep:.2f} fs; oscillation {1e3 * np.ptp(coarse) / len(atoms):.2g} meV/atom",
    )


def _start(bench: Bench) -> tuple[str, ase.Atoms]:
    """The first crystal of a few atoms, else the first cluster."""
    periodic = [(s.name, s.atoms) for s, _ in bench.periodic_samples() if 2 < len(s.atoms) <= 32]
    return (periodic or [(s.name, s.atoms) for s, _ in bench.open_samples()])[0]


def _quenched(bench: Bench, start: tuple[str, ase.Atoms]) -> ase.Atoms:
    """Downhill by at most 0.05 Å a step until forces are calm; a perfect crystal is shaken first, it may be a peak."""
    atoms = start[1].copy()
    atoms.positions += bench.rng().normal(scale=0.03, size=(len(atoms), 3))
    for _ in range(QUENCH):
        (outcome,) = bench.run([atoms], stress=False)
        strongest = largest(outcome.forces)
        if not CALM < strongest < np.inf:
            break
        atoms.positions += outcome.forces * min(0.05 / strongest, 0.05)
    return atoms


def _trajectories(
    bench: Bench, atoms: ase.Atoms, velocities: np.ndarray, timesteps: tuple[float, ...], steps: int
) -> list[np.ndarray]:
    """Total energies (steps + 1,) eV of velocity Verlet runs from one start; the runs share their batches."""
    masses = atoms.get_masses()[:, None]
    runs = [atoms.copy() for _ in timesteps]
    speeds = [velocities.copy() for _ in timesteps]
    outcomes = bench.run(runs, stress=False)
    totals = [[_total(outcome, masses, speed)] for outcome, speed in zip(outcomes, speeds, strict=True)]
    for _ in range(steps):
        for k, timestep in enumerate(timesteps):
            dt = timestep * ase_units.fs
            speeds[k] = speeds[k] + 0.5 * dt * outcomes[k].forces / masses
            runs[k].positions += dt * speeds[k]
        if not all(np.isfinite(run.positions).all() for run in runs):
            return [np.full(steps + 1, np.nan) for _ in timesteps]
        outcomes = bench.run(runs, stress=False)
        for k, timestep in enumerate(timesteps):
            speeds[k] = speeds[k] + 0.5 * timestep * ase_units.fs * outcomes[k].forces / masses
            totals[k].append(_total(outcomes[k], masses, speeds[k]))
    return [np.array(energies) for energies in totals]


def _total(outcome: Outcome, masses: np.ndarray, velocities: np.ndarray) -> float:
    return outcome.energy + 0.5 * float((masses * velocities**2).sum())


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    """Slope of the straight line through the points."""
    centred = x - x.mean()
    return float((centred * (y - y.mean())).sum() / (centred**2).sum())
