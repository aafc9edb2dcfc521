from __future__ import annotations

import ase
import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms

from adatom.errors import ConfigError, GeometryError
from adatom.sim.calculator import Calculator, StressError
from adatom.sim.relax import relax
from adatom.sim.symmetry import KeepSymmetry, space_group, symmetrised
from toy import toy_potential


def nearly(atoms: ase.Atoms, size: float = 1e-3) -> ase.Atoms:
    """The same, off by a little: atoms and cell."""
    rng = np.random.default_rng(3)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.1 * size * rng.normal(size=(3, 3))), scale_atoms=True)
    atoms.positions += size * rng.normal(size=atoms.positions.shape)
    return atoms


@pytest.mark.parametrize(
    ("atoms", "name"),
    [
        (bulk("Si", cubic=True), "Fd-3m (227)"),
        (bulk("Cu", "hcp", a=2.6, c=4.3), "P6_3/mmc (194)"),
        (bulk("Cu", "bcc", a=2.9), "Im-3m (229)"),
        (bulk("NaCl", "rocksalt", a=5.6), "Fm-3m (225)"),
    ],
)
def test_a_crystal_is_known_by_its_space_group(atoms: ase.Atoms, name: str) -> None:
    assert str(space_group(atoms)) == name


def test_what_nearly_has_a_symmetry_gets_it_exactly_and_hardly_moves() -> None:
    atoms = nearly(bulk("Cu", "hcp", a=2.6, c=4.3) * (2, 1, 1))
    group = space_group(atoms)
    exact = symmetrised(atoms, group)
    assert len(space_group(exact, 1e-8).rotations) == len(group.rotations)
    assert len(space_group(atoms, 1e-8).rotations) < len(group.rotations)
    assert np.abs(exact.positions - atoms.positions).max() < 5e-3


def test_forces_and_stress_of_a_symmetric_crystal_are_left_as_they_are() -> None:
    atoms = bulk("Cu", "hcp", a=2.6, c=4.6) * (2, 1, 1)
    atoms.positions[:, 2] += 0.05 * np.sin(2 * np.pi * atoms.get_scaled_positions()[:, 0])
    atoms.calc = Calculator(toy_potential())
    free_forces, free_stress = atoms.get_forces(), atoms.get_stress()
    assert np.abs(free_forces).max() > 0.05
    atoms.set_constraint(KeepSymmetry(space_group(atoms, 1e-6), atoms.cell.array))
    np.testing.assert_allclose(atoms.get_forces(), free_forces, atol=1e-9)
    np.testing.assert_allclose(atoms.get_stress(), free_stress, atol=1e-9)


def test_a_crystal_on_a_saddle_stays_there_only_with_its_symmetry() -> None:
    atoms = bulk("Cu", "sc", a=2.4)
    atoms.set_cell(atoms.cell.array + 0.003 * np.roll(np.eye(3), 1, axis=1), scale_atoms=True)  # a little way to fcc
    kept = relax(atoms, toy_potential(), cell=True, symmetry=True, optimizer="fire")
    free = relax(atoms, toy_potential(), cell=True, optimizer="fire")
    assert (kept.space_group_before, kept.space_group_after) == ("Pm-3m (221)", "Pm-3m (221)")
    assert free.space_group_after == "Fm-3m (225)"
    assert free.energy < kept.energy - 0.1
    assert kept.atoms.constraints == []
    assert kept.to_record()["space_group_after"] == "Pm-3m (221)"


def test_what_a_potential_gets_wrong_by_direction_is_averaged_out() -> None:
    atoms = bulk("Cu", cubic=True)
    keep = KeepSymmetry(space_group(atoms), atoms.cell.array)
    rng = np.random.default_rng(0)
    forces, stress, step, strain = rng.normal(size=(4, 3)), rng.normal(size=6), rng.normal(size=(4, 3)), 0.1
    mean = stress[:3].mean()
    keep.adjust_forces(atoms, forces)
    keep.adjust_stress(atoms, stress)
    np.testing.assert_allclose(forces, 0.0, atol=1e-12)  # no direction is left at the site of an atom
    np.testing.assert_allclose(stress, [mean, mean, mean, 0, 0, 0], atol=1e-12)
    moved = atoms.positions + step
    keep.adjust_positions(atoms, moved)
    np.testing.assert_allclose(moved, atoms.positions, atol=1e-12)
    cell = atoms.cell.array @ (np.eye(3) + strain * rng.normal(size=(3, 3)))
    keep.adjust_cell(atoms, cell)
    np.testing.assert_allclose(cell, cell[0, 0] * np.eye(3), atol=1e-12)


def test_atoms_cannot_be_fixed_while_symmetry_is_kept() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.set_constraint(FixAtoms([0]))
    with pytest.raises(ConfigError, match="same time") as caught:
        relax(atoms, toy_potential(), symmetry=True)
    assert caught.value.got == "FixAtoms"


def test_what_is_no_crystal_has_no_symmetry() -> None:
    with pytest.raises(StressError):
        relax(ase.Atoms("Cu2", [[0, 0, 0], [2.5, 0, 0]]), toy_potential(), symmetry=True)
    with pytest.raises(GeometryError, match="no symmetry"):
        space_group(ase.Atoms("Cu2", [[0, 0, 0], [0, 0, 0]], cell=[3, 3, 3], pbc=True))
    assert relax(ase.Atoms("Cu2", [[0, 0, 0], [2.5, 0, 0]]), toy_potential()).space_group_after is None
