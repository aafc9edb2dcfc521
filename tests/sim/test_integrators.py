from __future__ import annotations

import math
from collections.abc import Iterator

import ase
import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk, molecule
from ase.constraints import FixAtoms, FixBondLengths, Hookean
from ase.md.verlet import VelocityVerlet
from torch import Tensor

from adatom.errors import ConfigError
from adatom.graph import Results
from adatom.sim.calculator import Calculator
from adatom.sim.engine import Engine
from adatom.sim.integrators import CellRescaling, Kinetics, Thermostat, integrator, pressure
from adatom.sim.motion import Motion
from adatom.sim.skin import Origin
from adatom.sim.surface import NOWHERE, Surface, surface
from adatom.units import BOLTZMANN
from toy import toy_potential

TEMPERATURE = 300.0


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Well(Surface):
    """Each atom on a spring of its own to where it stood, k in eV/Å^2: canonical averages are known."""

    def __init__(self, motion: Motion, k: float) -> None:
        self.home, self.k, self.device = motion.positions.clone(), k, torch.device("cpu")

    @property
    def origin(self) -> Origin:
        return NOWHERE

    def __call__(self, positions: Tensor, cell: np.ndarray, stress: bool) -> Results:
        away = positions - self.home
        nothing = torch.full((1, 3, 3), torch.nan, dtype=torch.float64)
        return Results(0.5 * self.k * away.square().sum().view(1), -self.k * away, nothing)

    def restore(self, origin: Origin) -> None:
        pass


def engine(
    atoms: ase.Atoms, thermostat: Thermostat = "none", timestep: float = 1.0, time: float = 0.05, seed: int = 0
) -> tuple[Engine, Kinetics]:
    """Atoms with a calculator, ready to step; ``time`` of the thermostat in ps."""
    motion, random = Motion(atoms), seeded(seed)
    kinetics = Kinetics(motion, thermostat)
    rule = integrator(motion, thermostat, timestep, TEMPERATURE, time, kinetics.freedoms, random)
    ready = Engine(motion, surface(atoms), rule, random)
    ready.evaluate()
    return ready, kinetics


def springs(k: float, thermostat: Thermostat, timestep: float, time: float) -> tuple[Engine, Kinetics]:
    """Eight copper atoms in wells; nothing conserves their momentum."""
    motion, random = Motion(ase.Atoms("Cu8", np.zeros((8, 3)))), seeded(11)
    kinetics = Kinetics(motion, "langevin")
    kinetics.draw(TEMPERATURE, random)
    rule = integrator(motion, thermostat, timestep, TEMPERATURE, time, kinetics.freedoms, random)
    ready = Engine(motion, Well(motion, k), rule, random)
    ready.evaluate()
    return ready, kinetics


def crystal(temperature: float = 500.0) -> ase.Atoms:
    atoms = bulk("Cu", a=3.4535, cubic=True) * 2
    atoms.calc = Calculator(toy_potential())
    motion = Motion(atoms)
    Kinetics(motion, "none").draw(temperature, seeded(3))
    motion.write(atoms)
    return atoms


def blocks(values: list[float], skip: int = 500, count: int = 20) -> tuple[float, float]:
    """Mean of correlated values, and its error from block averages."""
    kept = np.array(values[skip : skip + (len(values) - skip) // count * count])
    means = kept.reshape(count, -1).mean(axis=1)
    return float(means.mean()), float(means.std(ddof=1) / np.sqrt(count))


def within_three_sigma(values: list[float], wanted: float, worst: float) -> bool:
    """Whether the mean is the one wanted; the error must be below ``worst`` of it, or the test would say nothing."""
    mean, error = blocks(values)
    assert error < worst * wanted
    return abs(mean - wanted) < 3 * error


# --- temperature


def test_temperature_counts_the_motion_that_can_be_heat() -> None:
    for thermostat, freedoms in (("none", 9), ("bussi", 9), ("langevin", 12)):
        motion = Motion(bulk("Cu", cubic=True))
        kinetics = Kinetics(motion, thermostat)  # type: ignore[arg-type]
        assert kinetics.freedoms == freedoms
        kinetics.draw(300.0, seeded(0))
        heat = float(motion.kinetic())
        assert kinetics.temperature() == pytest.approx(2 * heat / (freedoms * BOLTZMANN), rel=1e-12)
        assert kinetics.at_most(heat) == pytest.approx(kinetics.temperature(), rel=1e-12)


def test_a_crystal_that_flies_as_a_whole_is_cold() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.set_velocities(np.full((4, 3), 0.1))
    motion = Motion(atoms)
    assert Kinetics(motion, "none").temperature() == pytest.approx(0.0, abs=1e-9)
    assert Kinetics(motion, "langevin").temperature() > 1e3
    assert Kinetics(motion, "none").at_most(float(motion.kinetic())) > 1e3


def test_fixed_atoms_and_lone_atoms_are_counted_right() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.set_constraint(FixAtoms([0]))
    kinetics = Kinetics(Motion(atoms), "none")
    assert kinetics.freedoms == 9
    assert Kinetics(Motion(ase.Atoms("Cu")), "none").freedoms == 3


def test_drawn_velocities_have_no_drift_and_the_temperature_asked_for_where_momentum_is_conserved() -> None:
    motion = Motion(bulk("Cu", cubic=True) * 2)
    kinetics = Kinetics(motion, "none")
    kinetics.draw(450.0, seeded(0))
    assert kinetics.temperature() == pytest.approx(450.0, rel=1e-12)
    assert motion.momenta.sum(0).abs().max() < 1e-12


def test_drawn_velocities_are_maxwells() -> None:
    motion = Motion(ase.Atoms("Cu2000H2000", np.zeros((4000, 3))))
    Kinetics(motion, "langevin").draw(TEMPERATURE, seeded(1))
    scaled = motion.momenta / (motion.masses * BOLTZMANN * TEMPERATURE).sqrt()  # normal, if all is right
    assert abs(float(scaled.mean())) < 3 / math.sqrt(12000)
    assert abs(float(scaled.square().mean()) - 1) < 3 * math.sqrt(2 / 12000)
    assert abs(float(scaled.pow(4).mean()) - 3) < 3 * math.sqrt(96 / 12000)


def test_an_atom_without_mass_is_named() -> None:
    atoms = molecule("H2O")
    atoms.set_masses([16.0, 0.0, 1.0])
    with pytest.raises(ConfigError, match="atom 1"):
        Motion(atoms)


# --- without a thermostat


def test_velocity_verlet_is_that_of_ase() -> None:
    atoms = crystal()
    ours, _ = engine(atoms)
    theirs = VelocityVerlet(atoms, 1.0 * units.fs)
    for _ in range(20):
        ours.step()
        theirs.step()
    np.testing.assert_allclose(ours.motion.positions, atoms.positions, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.motion.momenta, atoms.get_momenta(), rtol=0, atol=1e-11)


def test_a_run_turned_round_goes_back_to_where_it_began() -> None:
    ours, _ = engine(crystal(), timestep=2.0)
    start = ours.keep().phase.clone()
    for _ in range(100):
        ours.step()
    assert (ours.motion.positions - start[0]).abs().max() > 0.1
    ours.motion.momenta.neg_()
    for _ in range(100):
        ours.step()
    assert (ours.motion.positions - start[0]).abs().max() < 1e-9
    assert (ours.motion.momenta + start[1]).abs().max() < 1e-9


@pytest.mark.parametrize("thermostat", ["none", "bussi"])
def test_total_momentum_is_conserved(thermostat: Thermostat) -> None:
    ours, _ = engine(crystal(), thermostat, timestep=2.0)
    for _ in range(200):
        ours.step()
    assert ours.motion.momenta.sum(0).abs().max() < 1e-11


# --- thermostats


def walk(ours: Engine, steps: int) -> Iterator[Engine]:
    for _ in range(steps):
        ours.step()
        yield ours


def test_langevin_samples_the_canonical_distribution_of_positions_even_in_long_steps() -> None:
    k = 3.0
    period = 2 * math.pi * math.sqrt(63.546 / k) / units.fs
    timestep = 0.12 * period  # w dt = 0.75
    ours, kinetics = springs(k, "langevin", timestep, time=2e-4 * period)
    potential, temperatures = [], []
    for now in walk(ours, 30_000):
        potential.append(float(now.energy))
        temperatures.append(kinetics.temperature())
    heat = BOLTZMANN * TEMPERATURE
    assert within_three_sigma(potential, 12 * heat, worst=0.006)  # f kT / 2 of 24 springs
    assert within_three_sigma([(u - 12 * heat) ** 2 for u in potential], 12 * heat**2, worst=0.03)  # gamma distribution
    # momenta of BAOAB are colder by (w dt / 2)^2 in a harmonic well: known, and of no consequence for positions
    colder = 1 - (0.5 * timestep * units.fs * math.sqrt(k / 63.546)) ** 2
    assert within_three_sigma(temperatures, TEMPERATURE * colder, worst=0.006)


@pytest.mark.parametrize("thermostat", ["langevin", "bussi"])
def test_a_thermostat_holds_mean_and_variance_of_the_kinetic_energy(thermostat: Thermostat) -> None:
    ours, kinetics = springs(3.0, thermostat, timestep=4.0, time=0.02)
    temperatures = [kinetics.temperature() for _ in walk(ours, 30_000)]
    assert within_three_sigma(temperatures, TEMPERATURE, worst=0.006)
    variance = 2 * TEMPERATURE**2 / 24  # Var T = 2 T^2 / f
    assert within_three_sigma([(t - TEMPERATURE) ** 2 for t in temperatures], variance, worst=0.05)


def test_bussi_aims_at_the_freedoms_that_are_there() -> None:
    atoms = bulk("Cu", cubic=True)
    motion, random = Motion(atoms), seeded(0)
    kinetics = Kinetics(motion, "bussi")
    kinetics.draw(TEMPERATURE, random)
    rule = integrator(motion, "bussi", 1.0, TEMPERATURE, 0.001, kinetics.freedoms, random)
    ours = Engine(motion, Well(motion, 0.0), rule, random)
    ours.evaluate()
    temperatures = [kinetics.temperature() for _ in walk(ours, 20_000)]
    assert within_three_sigma(temperatures, TEMPERATURE, worst=0.01)  # 3N freedoms would give 400 K
    variance = 2 * TEMPERATURE**2 / 9
    assert within_three_sigma([(t - TEMPERATURE) ** 2 for t in temperatures], variance, worst=0.05)


def test_bussi_takes_atoms_that_are_all_at_rest() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.calc = Calculator(toy_potential())
    ours, _ = engine(atoms, "bussi")
    for now in walk(ours, 5):
        assert bool(now.motion.phase.isfinite().all())
    assert float(ours.motion.kinetic()) > 0


# --- constraints


@pytest.mark.parametrize("thermostat", ["none", "langevin", "bussi"])
def test_fixed_atoms_stay_and_have_no_heat(thermostat: Thermostat) -> None:
    atoms = crystal()
    atoms.set_constraint(FixAtoms([0, 5]))
    ours, kinetics = engine(atoms, thermostat)
    kinetics.draw(TEMPERATURE, seeded(0))
    for _ in range(10):
        ours.step()
    held, moved = [0, 5], [1, 2, 3]
    assert np.array_equal(ours.motion.positions[held], atoms.positions[held])
    assert not ours.motion.momenta[held].any()
    assert ((ours.motion.positions[moved] - torch.tensor(atoms.positions[moved])).abs() > 1e-4).any(1).all()


@pytest.mark.parametrize("thermostat", ["none", "langevin", "bussi"])
def test_rigid_bonds_stay_as_long_as_they_are(thermostat: Thermostat) -> None:
    atoms = molecule("H2O")
    atoms.calc = Calculator(toy_potential())
    atoms.set_constraint(FixBondLengths([(0, 1), (0, 2)], tolerance=1e-12))
    lengths = [atoms.get_distance(0, 1), atoms.get_distance(0, 2)]
    ours, kinetics = engine(atoms, thermostat)
    assert kinetics.freedoms == 7
    kinetics.draw(TEMPERATURE, seeded(4))
    for _ in range(50):
        ours.step()
    moved = atoms.copy()
    ours.motion.write(moved)
    assert np.abs(moved.positions - atoms.positions).max() > 0.01
    np.testing.assert_allclose([moved.get_distance(0, 1), moved.get_distance(0, 2)], lengths, atol=1e-9)
    bond = moved.positions[1] - moved.positions[0]
    velocities = moved.get_velocities()
    assert abs(bond @ (velocities[1] - velocities[0])) < 1e-9


def test_a_constraint_that_is_a_force_counts_in_forces_and_energy() -> None:
    atoms = molecule("H2O")
    atoms.calc = Calculator(toy_potential())
    plain = atoms.get_potential_energy()
    atoms.set_constraint(Hookean(a1=1, a2=2, rt=1.0, k=5.0))
    ours, _ = engine(atoms)
    assert float(ours.energy) == pytest.approx(atoms.get_potential_energy())
    assert float(ours.energy) > plain
    np.testing.assert_allclose(ours.motion.forces, atoms.get_forces(), atol=1e-12)


# --- pressure


def test_the_barostat_gives_an_ideal_gas_its_exact_volume_and_fluctuation() -> None:
    count, temperature, wanted = 8, 500.0, 0.01
    heat = BOLTZMANN * temperature
    atoms = ase.Atoms(f"Cu{count}", np.random.default_rng(0).uniform(size=(count, 3)) * 3, cell=[3, 3, 3], pbc=True)
    atoms.set_cell(np.eye(3) * ((count + 1) * heat / wanted) ** (1 / 3), scale_atoms=True)
    motion, random = Motion(atoms), seeded(2)
    # in units where the interval is one: the volume relaxes in 20 intervals
    barostat = CellRescaling(wanted, temperature, 20.0, 1.0 / wanted, random)
    kinetics = Kinetics(motion, "langevin")
    volumes = []
    for _ in range(7000):
        kinetics.draw(temperature, random)
        barostat.apply(motion, torch.zeros(1, 3, 3, dtype=torch.float64), 1.0)
        volumes.append(motion.volume)
    assert within_three_sigma(volumes, (count + 1) * heat / wanted, worst=0.03)  # p(V) ~ V^N exp(-P V / kT)
    assert np.std(volumes[500:]) == pytest.approx(np.sqrt(count + 1) * heat / wanted, rel=0.1)


def test_the_barostat_scales_positions_with_the_cell_and_momenta_against_it() -> None:
    atoms = bulk("Cu", cubic=True)
    motion = Motion(atoms)
    Kinetics(motion, "langevin").draw(300.0, seeded(0))
    motion.write(atoms)
    fractions, momenta, length = atoms.get_scaled_positions(), atoms.get_momenta(), atoms.cell.lengths()[0]
    barostat = CellRescaling(0.1, 300.0, 10.0, 5.0, seeded(1))
    barostat.apply(motion, torch.zeros(1, 3, 3, dtype=torch.float64), 1.0)
    motion.write(atoms)
    factor = atoms.cell.lengths()[0] / length
    assert abs(factor - 1) > 1e-3
    np.testing.assert_allclose(atoms.get_scaled_positions(), fractions, atol=1e-12)
    np.testing.assert_allclose(atoms.get_momenta(), momenta / factor, atol=1e-12)


def test_the_pressure_is_that_of_ase() -> None:
    atoms = crystal()
    ours, _ = engine(atoms)
    ours.evaluate(stress=True)
    wanted = -atoms.get_stress(include_ideal_gas=True)[:3].mean()
    assert pressure(ours.motion, ours.stress) == pytest.approx(wanted, rel=1e-10)
