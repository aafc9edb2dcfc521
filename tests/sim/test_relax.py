from __future__ import annotations

import ase
import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms

from adatom.errors import ConfigError, SimulationError
from adatom.neighbors import graph_from_atoms
from adatom.sim.calculator import Calculator, StressError
from adatom.sim.relax import RelaxStep, relax
from adatom.units import EV_PER_A3_IN_GPA
from stub_calculators import IdealGas, Springs
from toy import toy_potential


def energy_of_fcc(a: float) -> float:
    """Energy of one copper atom at lattice constant ``a``, straight from the potential."""
    potential = toy_potential()
    return float(potential(graph_from_atoms(bulk("Cu", a=a), potential.cutoff), forces=False).energy)


def lattice_constant_of_fcc() -> float:
    """Where the energy of fcc is lowest, by bisection of its central difference."""
    low, high = 3.2, 3.8
    for _ in range(40):
        middle = 0.5 * (low + high)
        rising = energy_of_fcc(middle + 1e-4) > energy_of_fcc(middle - 1e-4)
        low, high = (low, middle) if rising else (middle, high)
    return 0.5 * (low + high)


def rattled() -> ase.Atoms:
    atoms = bulk("Cu", a=3.6, cubic=True)
    atoms.rattle(0.1, seed=4)
    atoms.set_cell(atoms.cell.array @ [[1.0, 0.03, 0.0], [0.0, 1.02, 0.0], [0.0, -0.02, 0.99]], scale_atoms=True)
    return atoms


@pytest.mark.parametrize("optimizer", ["lbfgs", "fire"])
def test_a_distorted_crystal_finds_the_minimum_of_the_potential(optimizer: str) -> None:
    result = relax(rattled(), toy_potential(), fmax=1e-4, smax_GPa=1e-3, cell=True, optimizer=optimizer)
    assert result.converged
    assert result.require_converged() is result
    a = lattice_constant_of_fcc()
    np.testing.assert_allclose(result.atoms.cell.lengths(), a, atol=2e-4)
    np.testing.assert_allclose(result.atoms.cell.angles(), 90.0, atol=0.01)
    assert result.energy == pytest.approx(4 * energy_of_fcc(a), abs=1e-5)
    assert result.fmax <= 1e-4
    assert result.smax_GPa <= 1e-3


def test_the_atoms_of_the_user_are_not_moved_and_the_result_carries_its_figures() -> None:
    atoms = rattled()
    before = atoms.get_positions()
    result = relax(atoms, Calculator(toy_potential()), fmax=0.05)
    assert np.array_equal(atoms.positions, before)
    assert atoms.calc is None
    assert result.atoms.get_potential_energy() == result.energy
    assert np.linalg.norm(result.atoms.get_forces(), axis=1).max() == pytest.approx(result.fmax)
    assert np.array_equal(result.atoms.cell.array, atoms.cell.array)


def test_under_pressure_the_cell_carries_that_pressure() -> None:
    result = relax(bulk("Cu", a=3.5), toy_potential(), cell=True, pressure_GPa=5.0, smax_GPa=0.01)
    stress = result.atoms.get_stress() * EV_PER_A3_IN_GPA
    np.testing.assert_allclose(stress, [-5, -5, -5, 0, 0, 0], atol=0.01)
    assert result.converged


def test_small_forces_do_not_pass_for_a_minimum_while_the_cell_is_under_stress() -> None:
    crystal = bulk("Cu", a=3.5)  # by symmetry no force at any volume
    assert relax(crystal, toy_potential(), fmax=0.5).converged
    strained = relax(crystal, toy_potential(), fmax=0.5, cell=True, steps=0)
    assert not strained.converged
    assert strained.smax_GPa > 1.0


def test_what_has_not_converged_is_not_called_converged() -> None:
    result = relax(rattled(), toy_potential(), fmax=1e-4, steps=2)
    assert not result.converged
    assert result.steps == 2
    with pytest.raises(SimulationError, match="has not converged") as caught:
        result.require_converged()
    assert caught.value.wanted == "forces below 0.0001 eV/Å"
    assert caught.value.remedy is not None


def test_progress_sees_every_step_and_energy_falls() -> None:
    seen: list[RelaxStep] = []
    result = relax(rattled(), toy_potential(), progress=seen.append)
    assert tuple(seen) == result.history
    assert [s.step for s in seen] == list(range(result.steps + 1))
    assert seen[-1].energy < seen[0].energy


def test_fixed_atoms_stay() -> None:
    atoms = rattled()
    atoms.set_constraint(FixAtoms([0]))
    result = relax(atoms, toy_potential())
    assert np.array_equal(result.atoms.positions[0], atoms.positions[0])
    assert not np.allclose(result.atoms.positions[1], atoms.positions[1])


def test_a_cell_without_volume_cannot_be_relaxed() -> None:
    with pytest.raises(StressError, match="not periodic in three directions"):
        relax(ase.Atoms("Cu2", [[0, 0, 0], [2.5, 0, 0]]), toy_potential(), cell=True)


def test_a_potential_that_gives_no_number_stops_the_relaxation_with_its_step() -> None:
    with pytest.raises(SimulationError, match="no number") as caught:
        relax(rattled(), IdealGas(broken_after=0))
    assert caught.value.where == "step 0, atoms 3"


def test_atoms_that_fall_onto_one_another_are_no_result() -> None:
    atoms = ase.Atoms("Cu2", [[0, 0, 0], [2.5, 0, 0]])
    springs = Springs(atoms, k=1.0)
    springs.home[1] = [0.5, 0, 0]
    with pytest.raises(SimulationError, match="closer than anything"):
        relax(atoms, springs)


@pytest.mark.parametrize("wrong", [{"optimizer": "newton"}, {"fmax": 0.0}, {"steps": -1}])
def test_settings_that_make_no_sense_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        relax(rattled(), toy_potential(), **wrong)  # type: ignore[arg-type]
