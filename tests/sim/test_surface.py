from __future__ import annotations

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

import adatom.sim.skin
from adatom.errors import UnknownElementError
from adatom.models import MODELS
from adatom.sim.calculator import Calculator
from adatom.sim.skin import SkinList
from adatom.sim.surface import CalculatorSurface, PotentialSurface, surface
from adatom.testing.untrained import untrained
from stub_calculators import IdealGas
from toy import toy_potential

SMOOTH = [(word, derivatives) for word in MODELS for derivatives in ("gradient", "direct")]


def shaken(atoms: ase.Atoms) -> ase.Atoms:
    atoms.rattle(0.1, seed=5)
    return atoms


def liquid() -> ase.Atoms:
    return shaken(bulk("Si", cubic=True) * 2)


@pytest.mark.parametrize(("word", "derivatives"), SMOOTH)
def test_edges_beyond_the_cutoff_are_nothing_to_networks_that_claim_to_be_smooth(
    word: str, derivatives: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    potential = untrained(word, derivatives=derivatives)
    potential.network.double()
    assert potential.network.claims.smooth
    atoms = shaken(bulk("Si", cubic=True))
    atoms.info |= {"total_charge": 1, "multiplicity": 1}
    atoms.calc = Calculator(potential)
    positions = torch.tensor(atoms.positions)
    cut = surface(atoms)(positions, atoms.cell.array, True)
    monkeypatch.setattr(adatom.sim.skin, "CUT_SHARE", 1.0)
    whole = surface(atoms)
    assert isinstance(whole, PotentialSurface)
    assert whole._list.at(positions, atoms.cell.array).edges.shape[1] > atoms.calc.neighbors.graph(atoms).edges.shape[1]
    for ours, theirs in zip(whole(positions, atoms.cell.array, True), cut, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10, equal_nan=True)


def test_a_list_stays_whole_only_where_cutting_would_not_pay() -> None:
    near, far = SkinList(5.0, 0.5, loose=True), SkinList(5.0, 0.5, loose=True)
    small, large = molecule("CH3CH2OH"), liquid()
    assert near.graph(small).edges.shape[1] == 72
    small.positions[3] += 0.1
    assert near.graph(small).edges is near._wide.edges  # type: ignore[union-attr]
    assert far.graph(large).edges.shape[1] == SkinList(5.0).graph(large).edges.shape[1]
    assert far.graph(large).edges.shape[1] < far._wide.edges.shape[1]  # type: ignore[union-attr]


def test_a_list_made_again_where_it_was_made_is_the_same_list() -> None:
    atoms, rng = liquid(), np.random.default_rng(0)
    first, second = (SkinList(5.0, 0.6, loose=True) for _ in range(2))
    first.graph(atoms)
    atoms.positions += rng.uniform(-0.12, 0.12, size=atoms.positions.shape)
    atoms.set_cell(atoms.cell.array * 1.001, scale_atoms=True)
    graph = first.graph(atoms)
    assert first.builds == 1
    second.meet(atoms)
    second.restore(first.origin)
    again = second.graph(atoms)
    assert second.builds == 1
    assert all(torch.equal(getattr(graph, name), getattr(again, name)) for name in ("edges", "shifts", "slots"))


def test_the_forces_of_a_potential_are_those_of_its_calculator() -> None:
    atoms, rng = bulk("Cu", a=3.5, cubic=True), np.random.default_rng(1)
    atoms.calc = Calculator(toy_potential())
    direct = surface(atoms)
    for step in range(20):
        atoms.positions += rng.normal(scale=0.03, size=(4, 3))
        if step % 5 == 4:
            atoms.set_cell(atoms.cell.array * (1 + rng.normal(scale=0.01)), scale_atoms=True)
        found = direct(torch.tensor(atoms.positions), atoms.cell.array, True)
        assert float(found.energy) == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(found.forces, atoms.get_forces(), atol=1e-10)
        np.testing.assert_allclose(found.stress[0], atoms.get_stress(voigt=False), atol=1e-10)


def test_a_calculator_of_ase_is_asked_as_it_is() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.calc = IdealGas()
    found = surface(atoms)
    assert isinstance(found, CalculatorSurface)
    assert torch.equal(found(torch.tensor(atoms.positions), atoms.cell.array, False).forces, torch.zeros(4, 3).double())


def test_elements_are_asked_for_before_anything_moves() -> None:
    atoms = bulk("Au")
    atoms.calc = Calculator(toy_potential())
    with pytest.raises(UnknownElementError, match="Au"):
        surface(atoms)
