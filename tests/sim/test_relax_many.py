"""Many structures relaxed at once end where each ends alone, and a run that was stopped goes on."""

from __future__ import annotations

from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms, FixBondLength
from typer.testing import CliRunner

from adatom import model_file
from adatom.cli import app
from adatom.errors import CheckpointError, ConfigError, SimulationError, UnknownElementError
from adatom.models.nemp import NEMP, NEMPConfig
from adatom.potential import Potential
from adatom.sim.relax import relax
from adatom.sim.relax_many import RelaxManyStep, relax_many
from toy import toy_potential


def structures() -> list[ase.Atoms]:
    """Crystals of one and of several atoms, a slab, a cluster, one atom alone; all displaced."""
    slab = bulk("Cu", cubic=True) * (1, 1, 2)
    slab.center(vacuum=6.0, axis=2)
    slab.pbc = (True, True, False)
    cluster = ase.Atoms("Cu4", 0.92 * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]))
    given = [bulk("Cu", cubic=True), slab, cluster, bulk("Cu"), ase.Atoms("Cu")]
    rng = np.random.default_rng(3)
    for atoms in given:
        atoms.rattle(0.08, rng=rng)
    return given


@pytest.mark.parametrize("atoms_per_batch", [1, 12, 512])
def test_each_ends_where_it_ends_alone_whatever_goes_along(atoms_per_batch: int) -> None:
    potential, given = toy_potential(), structures()
    found = relax_many(given, potential, fmax=1e-3, atoms_per_batch=atoms_per_batch)
    assert found.converged
    for atoms, one in zip(given, found.results, strict=True):
        alone = relax(atoms, potential, fmax=1e-3).require_converged()
        assert one.energy == pytest.approx(alone.energy, abs=2e-5 * len(atoms))
        assert one.fmax <= 1e-3
        assert one.atoms.get_potential_energy() == pytest.approx(one.energy)


def test_cells_relax_too_under_pressure() -> None:
    potential = toy_potential()
    given = [bulk("Cu", cubic=True, a=a) for a in (3.5, 3.6, 3.7)]
    found = relax_many(given, potential, fmax=1e-3, smax_GPa=0.01, cell=True, pressure_GPa=2.0)
    alone = relax(given[0], potential, fmax=1e-3, smax_GPa=0.01, cell=True, pressure_GPa=2.0).require_converged()
    for one in found.require_converged().results:
        assert one.atoms.get_volume() == pytest.approx(alone.atoms.get_volume(), rel=2e-3)


def test_what_does_not_converge_is_never_a_minimum_and_spoils_no_other() -> None:
    given = structures()
    found = relax_many([given[3], given[1]], toy_potential(), fmax=1e-3, steps=1)
    assert [one.converged for one in found.results] == [one.fmax <= 1e-3 for one in found.results]
    assert not found.results[1].converged
    with pytest.raises(SimulationError, match="have not converged"):
        found.require_converged()


def test_held_atoms_stay_and_other_constraints_are_refused() -> None:
    atoms = structures()[2]
    atoms.set_constraint(FixAtoms([0, 2]))
    moved = relax_many([atoms], toy_potential(), fmax=1e-2).results[0].atoms
    np.testing.assert_array_equal(moved.positions[[0, 2]], atoms.positions[[0, 2]])
    assert not np.array_equal(moved.positions[1], atoms.positions[1])
    atoms.set_constraint(FixBondLength(0, 1))
    with pytest.raises(ConfigError):
        relax_many([atoms], toy_potential())
    with pytest.raises(UnknownElementError):
        relax_many([bulk("Cu"), bulk("Au")], toy_potential())


def test_a_run_that_was_stopped_goes_on_with_what_is_left(tmp_path: Path) -> None:
    given, record = structures(), tmp_path / "ended.jsonl"

    def stop(step: RelaxManyStep) -> None:
        if step.ended >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        relax_many(given, toy_potential(), fmax=1e-3, atoms_per_batch=16, record=record, progress=stop)
    with pytest.raises(CheckpointError, match="another one"):
        relax_many(given, toy_potential(), fmax=1e-2, record=record, restart=True)
    found = relax_many(given, toy_potential(), fmax=1e-3, atoms_per_batch=16, record=record, restart=True)
    assert found.earlier >= 2
    whole = relax_many(given, toy_potential(), fmax=1e-3, atoms_per_batch=16)
    for one, other in zip(found.results, whole.results, strict=True):
        assert one.energy == pytest.approx(other.energy, abs=1e-6)


def test_the_verb_writes_all_in_their_order(tmp_path: Path) -> None:
    network = NEMP(NEMPConfig(size="S", cutoff=4.0, mean_neighbours=12.0))
    model = model_file.save(Potential(network, {29: 0.0}).eval(), tmp_path / "m.adatom")
    given = [bulk("Cu", cubic=True), bulk("Cu"), bulk("Cu") * (1, 1, 2)]
    for atoms in given:
        atoms.rattle(0.02, seed=1)
    ase.io.write(tmp_path / "many.xyz", given)
    arguments = ["relax", str(model), str(tmp_path / "many.xyz"), "--all", "--out", str(tmp_path / "out.xyz")]
    result = CliRunner().invoke(app, [*arguments, "--fmax", "0.1"])
    frames = ase.io.read(tmp_path / "out.xyz", ":")
    assert [len(atoms) for atoms in frames] == [4, 1, 2]
    assert all("converged" in atoms.info for atoms in frames)
    assert (result.exit_code == 0) == all(bool(atoms.info["converged"]) for atoms in frames)
    assert "structures/s" in result.output
    assert not list(tmp_path.glob("*.part.jsonl"))
    refused = CliRunner().invoke(app, [*arguments, "--symmetry", "--overwrite"])
    assert isinstance(refused.exception, ConfigError)
