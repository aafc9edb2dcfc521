"""Many structures evaluated together say what each says alone."""

from __future__ import annotations

import ase
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones

from adatom.errors import SimulationError, UnknownElementError
from adatom.sim import many
from adatom.sim.calculator import Calculator, StressError
from adatom.sim.many import evaluate
from toy import toy_potential


def structures() -> list[ase.Atoms]:
    rng = np.random.default_rng(1)
    cells = [bulk("Si", cubic=True), bulk("Si") * (1, 2, 3), bulk("Si", "sc", a=2.5), ase.Atoms("Si", pbc=False)]
    for atoms in cells:
        atoms.rattle(0.05, rng=rng)
    return cells


def test_a_batch_says_what_each_structure_says_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calculator = Calculator(toy_potential())
    for budget in (1, 9, 512):  # each alone, some together, all together
        monkeypatch.setattr(many, "CACHED", budget)
        for atoms, one in zip(structures(), evaluate(structures(), calculator), strict=True):
            atoms.calc = calculator
            assert one.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
            np.testing.assert_allclose(one.forces, atoms.get_forces(), atol=1e-9)
            assert np.isnan(one.stress).all()


def test_stress_is_asked_of_crystals_alone() -> None:
    calculator = Calculator(toy_potential())
    crystals = structures()[:3]
    for atoms, one in zip(crystals, evaluate(crystals, calculator, stress=True), strict=True):
        atoms.calc = calculator
        np.testing.assert_allclose(one.stress, atoms.get_stress(voigt=False), atol=1e-10)
    with pytest.raises(StressError):
        evaluate(structures(), calculator, stress=True)


def test_a_structure_the_potential_was_not_made_for_is_named() -> None:
    with pytest.raises(UnknownElementError, match="structure 1, He2"):
        evaluate([bulk("Si"), ase.Atoms("He2", [[0, 0, 0], [0, 0, 2]])], Calculator(toy_potential()))


def test_a_structure_without_a_number_is_named_not_passed_on() -> None:
    potential = toy_potential()
    potential.references[14] = float("inf")
    with pytest.raises(SimulationError, match="structure 0, Si2"):
        evaluate([bulk("Si")], Calculator(potential))


def test_calculators_of_others_are_asked_one_by_one() -> None:
    argon = bulk("Ar", cubic=True)
    argon.rattle(0.1, rng=np.random.default_rng(0))
    one = evaluate([argon, argon], LennardJones(sigma=3.4, epsilon=0.01, rc=6.0), stress=True)[1]
    argon.calc = LennardJones(sigma=3.4, epsilon=0.01, rc=6.0)
    np.testing.assert_allclose(one.forces, argon.get_forces())
    np.testing.assert_allclose(one.stress, argon.get_stress(voigt=False))
