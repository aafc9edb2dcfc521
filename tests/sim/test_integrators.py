from __future__ import annotations

import ase
import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms

from adatom.sim.integrators import CellRescaling, Kinetics, integrator
from adatom.units import BOLTZMANN
from stub_calculators import IdealGas, Springs


def test_temperature_counts_the_motion_that_can_be_heat() -> None:
    atoms = bulk("Cu", cubic=True)
    rng = np.random.default_rng(0)
    for thermostat, freedoms in (("none", 9), ("bussi", 9), ("langevin", 12)):
        kinetics = Kinetics(atoms, thermostat)  # type: ignore[arg-type]
        assert kinetics.freedoms == freedoms
        kinetics.draw(atoms, 300.0, rng)
        heat = kinetics.energy(atoms)
        assert kinetics.temperature(atoms) == pytest.approx(2 * heat / (freedoms * BOLTZMANN), rel=1e-12)


def test_a_crystal_that_flies_as_a_whole_is_cold() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.set_velocities(np.full((4, 3), 0.1))
    assert Kinetics(atoms, "none").temperature(atoms) == pytest.approx(0.0, abs=1e-9)
    assert Kinetics(atoms, "langevin").temperature(atoms) > 1e3


def test_fixed_atoms_and_lone_atoms_are_counted_right() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.set_constraint(FixAtoms([0]))
    assert Kinetics(atoms, "none").freedoms == 9
    assert Kinetics(ase.Atoms("Cu"), "none").freedoms == 3


def test_drawn_velocities_have_no_drift_and_the_temperature_asked_for_where_momentum_is_conserved() -> None:
    atoms, rng = bulk("Cu", cubic=True) * 2, np.random.default_rng(0)
    kinetics = Kinetics(atoms, "none")
    kinetics.draw(atoms, 450.0, rng)
    assert kinetics.temperature(atoms) == pytest.approx(450.0, rel=1e-12)
    np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0.0, atol=1e-12)


@pytest.mark.parametrize("thermostat", ["langevin", "bussi"])
def test_a_thermostat_holds_the_canonical_mean_and_spread(thermostat: str) -> None:
    atoms = ase.Atoms("Cu8", np.arange(24.0).reshape(8, 3))
    atoms.calc = Springs(atoms, k=3.0)
    rng, kinetics = np.random.default_rng(11), Kinetics(atoms, thermostat)  # type: ignore[arg-type]
    kinetics.draw(atoms, 300.0, rng)
    if thermostat == "bussi":
        kinetics.conserving, kinetics.freedoms = False, 24  # springs hold the atoms: momentum is not conserved
    dynamics = integrator(atoms, thermostat, 4.0, 300.0, 0.05, kinetics, rng)  # type: ignore[arg-type]
    temperatures = np.array([kinetics.temperature(atoms) for _ in range(6000) if dynamics.step() is not None])
    blocks = temperatures[500:].reshape(20, -1).mean(axis=1)
    assert abs(blocks.mean() - 300.0) < 3 * blocks.std(ddof=1) / np.sqrt(20)
    assert blocks.std(ddof=1) / np.sqrt(20) < 6.0
    # Var T = 2 T^2 / f
    assert temperatures[500:].std() == pytest.approx(300.0 * np.sqrt(2 / 24), rel=0.1)


def test_bussi_aims_at_the_freedoms_that_are_there() -> None:
    atoms, rng = bulk("Cu", cubic=True), np.random.default_rng(0)
    atoms.calc = IdealGas()
    kinetics = Kinetics(atoms, "bussi")
    kinetics.draw(atoms, 300.0, rng)
    dynamics = integrator(atoms, "bussi", 1.0, 300.0, 0.001, kinetics, rng)
    temperatures = []
    for _ in range(4000):
        dynamics.step()
        temperatures.append(kinetics.temperature(atoms))
    blocks = np.array(temperatures).reshape(20, -1).mean(axis=1)
    assert abs(blocks.mean() - 300.0) < 3 * blocks.std(ddof=1) / np.sqrt(20)  # 3N freedoms would give 400 K
    assert np.std(temperatures) == pytest.approx(300.0 * np.sqrt(2 / 9), rel=0.07)


def test_the_barostat_gives_an_ideal_gas_its_exact_volume_and_fluctuation() -> None:
    count, temperature, pressure = 8, 500.0, 0.01
    heat = BOLTZMANN * temperature
    atoms = ase.Atoms(f"Cu{count}", np.random.default_rng(0).uniform(size=(count, 3)) * 3, cell=[3, 3, 3], pbc=True)
    atoms.set_cell(np.eye(3) * ((count + 1) * heat / pressure) ** (1 / 3), scale_atoms=True)
    atoms.calc = IdealGas()
    rng = np.random.default_rng(2)
    # in units where the interval is one: the volume relaxes in 20 intervals
    barostat = CellRescaling(pressure, temperature, 20.0, 1.0 / pressure, rng)
    kinetics = Kinetics(atoms, "langevin")
    volumes = []
    for _ in range(7000):
        kinetics.draw(atoms, temperature, rng)
        barostat.apply(atoms, 1.0)
        volumes.append(atoms.get_volume())
    mean = (count + 1) * heat / pressure  # p(V) ~ V^N exp(-P V / kT)
    blocks = np.array(volumes[500:6900]).reshape(20, -1).mean(axis=1)
    error = blocks.std(ddof=1) / np.sqrt(20)
    assert error < 0.03 * mean
    assert abs(blocks.mean() - mean) < 3 * error
    assert np.std(volumes[500:]) == pytest.approx(np.sqrt(count + 1) * heat / pressure, rel=0.1)


def test_the_barostat_scales_positions_with_the_cell_and_momenta_against_it() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.calc = IdealGas()
    Kinetics(atoms, "langevin").draw(atoms, 300.0, np.random.default_rng(0))
    fractions, momenta, length = atoms.get_scaled_positions(), atoms.get_momenta(), atoms.cell.lengths()[0]
    CellRescaling(0.1, 300.0, 10.0, 5.0, np.random.default_rng(1)).apply(atoms, 1.0)
    factor = atoms.cell.lengths()[0] / length
    assert abs(factor - 1) > 1e-3
    np.testing.assert_allclose(atoms.get_scaled_positions(), fractions, atol=1e-12)
    np.testing.assert_allclose(atoms.get_momenta(), momenta / factor, atol=1e-12)
