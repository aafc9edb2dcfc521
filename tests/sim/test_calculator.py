from __future__ import annotations

from pathlib import Path

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress

from adatom.errors import ConfigError, GeometryError, UnknownElementError
from adatom.graph import Graph, Results
from adatom.model_file import save
from adatom.models import MODELS
from adatom.neighbors import graph_from_atoms
from adatom.potential import Potential
from adatom.sim.calculator import Calculator, StressError
from toy import REFERENCES, Toy, toy_potential


@pytest.fixture
def crystal() -> ase.Atoms:
    atoms = ase.Atoms(
        "CuSiOCu", [[0, 0, 0], [2.3, 0.1, 0], [0.2, 2.0, 0.4], [1.9, 2.4, 2.2]], cell=[4, 4.2, 4.4], pbc=True
    )
    atoms.set_cell(atoms.cell.array @ [[1, 0.1, 0], [0.05, 1, 0.02], [0, -0.08, 1]], scale_atoms=True)
    atoms.calc = Calculator(toy_potential())
    return atoms


def count_passes(calculator: Calculator, monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, bool]]:
    """Records (forces, stress) of every pass through the potential."""
    passes: list[tuple[bool, bool]] = []
    inner = calculator.potential.forward

    def forward(graph: Graph, forces: bool = True, stress: bool = False) -> Results:
        passes.append((forces, stress))
        return inner(graph, forces, stress)

    monkeypatch.setattr(calculator.potential, "forward", forward)
    return passes


def test_a_walk_with_the_skin_gives_what_a_fresh_list_gives(crystal: ase.Atoms) -> None:
    potential, rng = toy_potential(), np.random.default_rng(5)
    for step in range(40):
        crystal.positions += rng.normal(scale=0.04, size=(4, 3))
        if step % 7 == 3:
            crystal.set_cell(crystal.cell.array @ (np.eye(3) + rng.normal(scale=0.01, size=(3, 3))), scale_atoms=True)
        if step % 9 == 5:
            crystal.positions[step % 4] += crystal.cell.array[step % 3]  # leaves the box
        fresh = potential(graph_from_atoms(crystal, potential.cutoff), stress=True)
        assert crystal.get_potential_energy() == pytest.approx(float(fresh.energy), abs=1e-12 * 1e3)
        np.testing.assert_allclose(crystal.get_forces(), fresh.forces, rtol=0, atol=1e-12)
        np.testing.assert_allclose(crystal.get_stress(voigt=False), fresh.stress[0], rtol=0, atol=1e-12)
    assert crystal.calc.neighbors.builds < 30


def test_forces_and_stress_are_the_derivatives_of_the_energy_in_the_order_of_ase(crystal: ase.Atoms) -> None:
    np.testing.assert_allclose(crystal.get_forces(), calculate_numerical_forces(crystal, eps=1e-4), atol=1e-6)
    np.testing.assert_allclose(crystal.get_stress(), calculate_numerical_stress(crystal, eps=1e-5), atol=1e-7)
    assert np.abs(np.diff(crystal.get_stress())).min() > 1e-4  # six different figures: their order was tested


def test_free_energy_and_atomic_energies_add_up(crystal: ase.Atoms) -> None:
    energy = crystal.get_potential_energy()
    assert crystal.get_potential_energy(force_consistent=True) == energy
    energies = crystal.get_potential_energies()
    assert energies.shape == (4,)
    assert energies.sum() == pytest.approx(energy, abs=1e-10)
    assert crystal.calc.name == "adatom"


def test_a_step_that_asks_for_energy_forces_and_stress_is_one_pass(
    crystal: ase.Atoms, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = count_passes(crystal.calc, monkeypatch)
    for _ in range(4):
        crystal.positions[0, 0] += 0.01
        crystal.get_potential_energy(), crystal.get_forces(), crystal.get_stress()
    # the first geometry cannot know that stress will be asked
    assert passes == [(True, False), (True, True), (True, True), (True, True), (True, True)]


def test_stress_is_left_out_again_when_nobody_asks(crystal: ase.Atoms, monkeypatch: pytest.MonkeyPatch) -> None:
    crystal.get_stress()
    passes = count_passes(crystal.calc, monkeypatch)
    for _ in range(3):
        crystal.positions[0, 0] += 0.01
        crystal.get_forces()
    crystal.calc.expect("stress")
    crystal.positions[0, 0] += 0.01
    crystal.get_forces(), crystal.get_stress()
    assert passes == [(True, True), (True, False), (True, False), (True, True)]


def test_nothing_is_computed_twice_for_one_geometry(crystal: ase.Atoms, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = count_passes(crystal.calc, monkeypatch)
    for _ in range(3):
        crystal.get_forces(), crystal.get_potential_energy()
    assert len(passes) == 1


def test_results_of_another_geometry_are_not_kept(crystal: ase.Atoms) -> None:
    crystal.calc.calculate(crystal, ["energy", "stress", "energies"])
    crystal.positions[0] += 0.1
    crystal.calc.calculate(crystal, ["energy"])
    assert set(crystal.calc.results) == {"energy", "free_energy"}


def test_another_total_charge_asks_for_another_calculation(crystal: ase.Atoms) -> None:
    crystal.get_potential_energy()
    assert not crystal.calc.calculation_required(crystal, ["energy"])
    crystal.info["charge"] = 1
    assert crystal.calc.calculation_required(crystal, ["energy"])
    crystal.get_potential_energy()
    assert not crystal.calc.calculation_required(crystal, ["energy"])
    crystal.info["spin"] = 2
    assert crystal.calc.calculation_required(crystal, ["energy"])


def test_an_unknown_element_is_named_before_anything_is_computed(
    crystal: ase.Atoms, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = count_passes(crystal.calc, monkeypatch)
    crystal.get_potential_energy()
    crystal.numbers[1] = 79
    with pytest.raises(UnknownElementError, match="does not know Au"):
        crystal.get_forces()
    assert len(passes) == 1
    assert crystal.calc.neighbors.builds == 1


def test_a_lone_atom_has_its_reference_energy_and_no_force() -> None:
    atoms = ase.Atoms("O", calculator=Calculator(toy_potential()))
    assert atoms.get_potential_energy() == REFERENCES[8]
    assert np.array_equal(atoms.get_forces(), np.zeros((1, 3)))


def test_no_atoms_have_no_energy() -> None:
    atoms = ase.Atoms(cell=[3, 3, 3], pbc=True, calculator=Calculator(toy_potential()))
    assert atoms.get_potential_energy() == 0.0
    assert atoms.get_forces().shape == (0, 3)
    assert np.array_equal(atoms.get_stress(), np.zeros(6))
    assert atoms.get_potential_energies().shape == (0,)


@pytest.mark.parametrize("pbc", [False, (True, True, False)])
def test_stress_of_a_system_without_volume_is_refused_in_words(pbc: object) -> None:
    atoms = molecule("H2O", cell=[6, 6, 6], pbc=pbc)
    atoms.calc = Calculator(toy_potential())
    atoms.calc.expect("stress")
    atoms.get_forces()
    with pytest.raises(StressError, match="not periodic in three directions") as caught:
        atoms.get_stress()
    assert isinstance(caught.value, PropertyNotImplementedError)
    assert caught.value.remedy is not None


def test_the_potential_of_the_user_is_left_as_it_is() -> None:
    potential = toy_potential().train()
    atoms = bulk("Cu")
    atoms.calc = Calculator(potential, dtype=torch.float32)
    atoms.get_forces()
    assert potential.training
    assert potential.dtype == torch.float64
    assert all(p.requires_grad for p in potential.parameters())
    assert not any(p.requires_grad for p in atoms.calc.potential.parameters())


def test_a_network_in_single_precision_still_gives_double_precision_sums(crystal: ase.Atoms) -> None:
    energy, forces = crystal.get_potential_energy(), crystal.get_forces()
    crystal.calc = Calculator(toy_potential(), dtype=torch.float32)
    assert crystal.calc.potential.dtype == torch.float32
    assert crystal.get_forces().dtype == np.float64
    np.testing.assert_allclose(crystal.get_forces(), forces, atol=1e-4)
    assert crystal.get_potential_energy() == pytest.approx(energy, abs=1e-5)
    assert crystal.get_potential_energy() != energy


def test_a_model_file_makes_a_calculator(tmp_path: Path, crystal: ase.Atoms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "toy", Toy)
    path = save(toy_potential(), tmp_path / "toy.adatom")
    energy = crystal.get_potential_energy()
    for name in (path, str(path)):
        crystal.calc = Calculator(name)
        assert crystal.get_potential_energy() == pytest.approx(energy, abs=1e-10)


def test_positions_that_are_no_numbers_are_refused(crystal: ase.Atoms) -> None:
    crystal.get_forces()
    crystal.positions[3, 0] = np.inf
    with pytest.raises(GeometryError, match="atom 3"):
        crystal.get_forces()


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="device 'gpu'"):
        Calculator(toy_potential(), device="gpu")
    with pytest.raises(ConfigError, match="skin"):
        Calculator(toy_potential(), skin=-0.1)


class NoStressHead(Toy):
    """Direct forces, and no head for the stress."""

    def forward(self, graph: Graph):  # type: ignore[no-untyped-def]
        return super().forward(graph)._replace(forces=torch.ones_like(graph.positions))


def test_a_model_without_a_stress_head_says_so() -> None:
    potential = Potential(NoStressHead().double(), REFERENCES, derivatives="direct")
    atoms = bulk("Cu")
    atoms.calc = Calculator(potential)
    assert np.array_equal(atoms.get_forces(), np.ones((1, 3)))
    with pytest.raises(StressError, match="gives no stress"):
        atoms.get_stress()
