"""Many structures relaxed at once end where each ends alone, and whoever does not get there is named."""

from __future__ import annotations

import json
from pathlib import Path

import ase
import numpy as np
import pytest
from ase.build import bulk, fcc111
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms, FixBondLength

from adatom.errors import CheckpointError, ConfigError, SimulationError, UnknownElementError
from adatom.sim.calculator import Calculator, StressError
from adatom.sim.relax import relax
from adatom.sim.relax_many import RelaxManyStep, relax_many
from toy import toy_potential


def crystals() -> list[ase.Atoms]:
    given = [bulk("Cu", a=3.6, cubic=True), bulk("Cu", a=3.5) * (1, 2, 2), bulk("Cu", a=3.5)]
    rng = np.random.default_rng(2)
    for atoms in given:
        atoms.rattle(0.1, rng=rng)
    given[0].set_cell(given[0].cell.array @ [[1.0, 0.03, 0.0], [0.0, 1.02, 0.0], [0.0, -0.02, 0.99]], scale_atoms=True)
    return given


def slab() -> ase.Atoms:
    atoms = fcc111("Cu", (1, 1, 3), vacuum=6.0)
    atoms.rattle(0.05, seed=1)
    atoms.set_constraint(FixAtoms([0]))
    return atoms


@pytest.mark.parametrize("room", [1, 8, 512])  # each alone, swapped in and out, all together
def test_each_structure_ends_where_it_ends_alone(room: int) -> None:
    given = [*crystals(), slab(), ase.Atoms("Cu2", [[0, 0, 0], [0, 0, 2.4]])]
    found = relax_many(given, toy_potential(), fmax=1e-3, atoms_per_batch=room).require_converged()
    for start, one in zip(given, found.results, strict=True):
        alone = relax(start, toy_potential(), fmax=1e-3)
        assert one.energy == pytest.approx(alone.energy, abs=1e-5)
        assert one.fmax <= 1e-3
        assert one.steps <= alone.steps + 5
        end = one.atoms.copy()
        end.calc = Calculator(toy_potential())
        assert end.get_potential_energy() == pytest.approx(one.energy, abs=1e-9)
        np.testing.assert_allclose(end.get_forces(), one.atoms.get_forces(), atol=1e-9)
        np.testing.assert_array_equal(one.atoms.cell.array, start.cell.array)
    np.testing.assert_array_equal(found.results[3].atoms.positions[0], given[3].positions[0])
    assert found.results[3].atoms.constraints


@pytest.mark.parametrize("pressure", [0.0, 10.0])
def test_cells_relax_to_the_pressure_that_was_asked_for(pressure: float) -> None:
    given = crystals()
    found = relax_many(given, toy_potential(), fmax=1e-3, smax_GPa=0.01, cell=True, pressure_GPa=pressure)
    for start, one in zip(given, found.require_converged().results, strict=True):
        alone = relax(start, toy_potential(), fmax=1e-3, smax_GPa=0.01, cell=True, pressure_GPa=pressure)
        assert one.energy == pytest.approx(alone.energy, abs=1e-4)
        assert one.atoms.get_volume() == pytest.approx(alone.atoms.get_volume(), rel=1e-4)
        np.testing.assert_allclose(one.atoms.get_stress(), alone.atoms.get_stress(), atol=2e-4)


def test_who_has_not_converged_is_never_reported_as_a_minimum() -> None:
    found = relax_many(crystals()[:2], toy_potential(), steps=2)
    assert not found.converged
    assert [one.steps for one in found.results] == [2, 2]
    assert all("steps ran out" in one.ending and one.fmax > 0.01 for one in found.results)
    with pytest.raises(SimulationError, match="2 of 2 structures have not converged"):
        found.require_converged()
    record = json.loads(json.dumps(found.to_record()))
    assert [one["converged"] for one in record["structures"]] == [False] * 2


def test_one_that_fails_does_not_stop_the_others() -> None:
    potential = toy_potential()
    potential.references[29] = float("nan")
    bad = [bulk("Si"), ase.Atoms("Si2", [[0, 0, 0], [0, 0, 0]]), bulk("Si", cubic=True)]
    found = relax_many([bad[0], bad[1], bad[2]], potential, fmax=0.05)
    assert [one.converged for one in found.results] == [True, False, True]
    assert "no number" in found.results[1].ending or "closer" in found.results[1].ending


def test_a_run_that_was_stopped_goes_on_where_it_stood(tmp_path: Path) -> None:
    given, path = crystals() * 2, tmp_path / "relaxed.part"

    def stop(step: RelaxManyStep) -> None:
        if step.ended >= 2:
            raise KeyboardInterrupt

    whole = relax_many(given, toy_potential(), atoms_per_batch=8)
    with pytest.raises(KeyboardInterrupt):
        relax_many(given, toy_potential(), atoms_per_batch=8, record=path, progress=stop)
    with path.open("a") as file:
        file.write('{"kind": "structure", "num')  # a line cut short by a kill
    with pytest.raises(ConfigError, match="unfinished run"):
        relax_many(given, toy_potential(), record=path)
    with pytest.raises(CheckpointError, match="another settings"):
        relax_many(given, toy_potential(), record=path, fmax=0.1, restart=True)
    with pytest.raises(CheckpointError, match="another structures"):
        relax_many(given[1:], toy_potential(), record=path, restart=True)
    again = relax_many(given, toy_potential(), atoms_per_batch=8, record=path, restart=True)
    assert again.earlier >= 2
    assert again.evaluations < whole.evaluations
    for one, other in zip(again.results, whole.results, strict=True):
        assert one.converged
        np.testing.assert_allclose(one.atoms.positions, other.atoms.positions, atol=1e-8)
        np.testing.assert_allclose(one.atoms.get_forces(), other.atoms.get_forces(), atol=1e-8)
    with pytest.raises(CheckpointError, match="no run to continue"):
        relax_many(given, toy_potential(), record=tmp_path / "none", restart=True)


def test_what_cannot_be_relaxed_is_said_before_anything_is_computed() -> None:
    held = bulk("Cu", cubic=True)
    held.set_constraint(FixAtoms([0]))
    with pytest.raises(ConfigError, match="held in a cell"):
        relax_many([bulk("Cu"), held], toy_potential(), cell=True)
    with pytest.raises(StressError):
        relax_many([bulk("Cu"), fcc111("Cu", (1, 1, 3), vacuum=6.0)], toy_potential(), cell=True)
    molecule = ase.Atoms("Cu2", [[0, 0, 0], [0, 0, 2.4]])
    molecule.set_constraint(FixBondLength(0, 1))
    with pytest.raises(ConfigError, match="FixBondLength"):
        relax_many([bulk("Cu"), molecule], toy_potential())
    with pytest.raises(UnknownElementError, match="structure 1, He"):
        relax_many([bulk("Cu"), ase.Atoms("He")], toy_potential())
    with pytest.raises(ConfigError, match="no atoms"):
        relax_many([ase.Atoms()], toy_potential())
    with pytest.raises(ConfigError, match="LennardJones"):
        relax_many([bulk("Cu")], LennardJones())  # type: ignore[arg-type]
    assert relax_many([], toy_potential()).results == ()
