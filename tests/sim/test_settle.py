from __future__ import annotations

import ase
import numpy as np
import pytest
from ase.build import bulk

from adatom.errors import SimulationError
from adatom.sim.relax import relax
from adatom.sim.settle import settle
from stub_calculators import IdealGas, Springs
from toy import toy_potential


def rattled(seed: int, repeats: int = 1) -> ase.Atoms:
    atoms = bulk("Cu", cubic=True) * (1, 1, repeats)
    atoms.rattle(0.08, seed=seed)
    return atoms


def test_many_at_once_end_where_each_ends_alone() -> None:
    structures = [rattled(0), rattled(1, 2), rattled(2)]
    ends = settle(structures, toy_potential(), fmax=1e-3, stress=True)
    for start, end in zip(structures, ends, strict=True):
        alone = relax(start, toy_potential(), fmax=1e-3)
        assert end.converged
        assert np.linalg.norm(end.evaluation.forces, axis=1).max() <= 1e-3
        assert end.evaluation.energy == pytest.approx(alone.energy, abs=1e-5)
        assert np.isfinite(end.evaluation.stress).all()
        assert np.array_equal(end.atoms.cell.array, start.cell.array)
        assert end.atoms.get_chemical_formula() == start.get_chemical_formula()


def test_a_spring_is_met_in_a_few_steps_whatever_its_strength() -> None:
    for k in (1.0, 5000.0):
        atoms = ase.Atoms("H2", [[0, 0, 0], [5, 0, 0]])
        springs = Springs(atoms, k)
        atoms.rattle(0.3, seed=1)
        (end,) = settle([atoms], springs, fmax=1e-6)
        assert end.converged
        assert end.steps < 15
        np.testing.assert_allclose(end.atoms.positions, springs.home, atol=1e-5)


def test_what_has_not_come_to_rest_is_not_called_converged() -> None:
    seen: list[tuple[int, int]] = []
    here, there = settle(
        [rattled(0), bulk("Cu", cubic=True)], toy_potential(), fmax=1e-4, steps=2,
        progress=lambda step, left: seen.append((step, left)),
    )  # fmt: skip
    assert (here.converged, here.steps) == (False, 2)
    assert (there.converged, there.steps) == (True, 0)
    assert seen == [(0, 1), (1, 1), (2, 1)]
    with pytest.raises(SimulationError, match="not come to rest") as caught:
        here.require_converged("copy", 1e-4)
    assert caught.value.remedy is not None


def test_no_number_and_atoms_on_one_another_are_errors() -> None:
    with pytest.raises(SimulationError, match="no number"):
        settle([rattled(0)], IdealGas(broken_after=0))
    atoms = ase.Atoms("Cu2", [[0, 0, 0], [2.5, 0, 0]])
    springs = Springs(atoms, k=1.0)
    springs.home[1] = [0.5, 0, 0]
    with pytest.raises(SimulationError, match="closer than anything"):
        settle([atoms], springs)
