from __future__ import annotations

from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from ase import units

from adatom.errors import DataError
from adatom.properties.trajectory import read_frames_of, trajectory
from adatom.sim.md import MDConfig, run
from toy import toy_potential


def at(positions: np.ndarray, time_ps: float, cell: object = 5.0, pbc: bool = True, symbols: str = "Cu") -> ase.Atoms:
    atoms = ase.Atoms(f"{symbols}{len(positions)}", positions, cell=np.eye(3) * cell if pbc else None, pbc=pbc)
    atoms.info["time_ps"] = time_ps
    return atoms


def test_wrapped_atoms_are_followed_across_the_boundaries_of_a_slanted_cell() -> None:
    rng = np.random.default_rng(0)
    cell = np.array([[6.0, 0, 0], [2.0, 5.0, 0], [-1.0, 1.5, 7.0]])
    walk = np.cumsum(rng.normal(scale=0.4, size=(300, 8, 3)), axis=0)
    walk -= walk.mean(axis=1, keepdims=True)  # equal masses: no drift
    frames = []
    for n, positions in enumerate(walk):
        atoms = ase.Atoms("Cu8", positions, cell=cell, pbc=True)
        atoms.wrap()
        atoms.info["time_ps"] = 0.01 * n
        frames.append(atoms)
    motion = trajectory(frames)
    assert motion.interval_ps == pytest.approx(0.01)
    np.testing.assert_allclose(motion.positions - motion.positions[0], walk - walk[0], atol=1e-9)


def test_a_cell_that_breathes_moves_nothing() -> None:
    """An unwrapped atom far out would be carried along with the cell, however still it stands inside."""
    fractions = np.array([[0.5, 0.5, 0.5], [20.5, 0.5, 0.5]])  # the second has crossed the boundary often
    frames = []
    for n in range(50):
        atoms = ase.Atoms("Cu2", cell=np.eye(3) * (10.0 + 0.05 * np.sin(n)), pbc=True)
        atoms.set_scaled_positions(fractions)
        atoms.positions = fractions @ atoms.cell.array
        atoms.info["time_ps"] = 1.0 * n
        frames.append(atoms)
    moved = trajectory(frames).positions
    assert np.abs(moved - moved[0]).max() < 1e-9


def test_the_motion_of_the_centre_of_mass_is_taken_out_of_positions_and_velocities() -> None:
    velocity = np.array([0.02, -0.01, 0.03])  # ASE's unit
    frames = []
    for n in range(20):
        atoms = ase.Atoms("OH", [[0, 0, 0], [0, 0, 1.0]] + n * velocity * 10.0, cell=np.eye(3) * 9.0, pbc=True)
        atoms.set_velocities([velocity, velocity])
        atoms.info["time_ps"] = n * 10.0 / units.fs * 1e-3
        frames.append(atoms)
    motion = trajectory(frames)
    assert motion.velocities is not None
    assert np.abs(motion.velocities).max() < 1e-9
    assert np.abs(motion.positions - motion.positions[0]).max() < 1e-9


def test_velocities_are_those_that_move_the_atoms(tmp_path: Path) -> None:
    """Units: Å/ps, in a trajectory as adatom md writes it."""
    crystal = ase.build.bulk("Cu", a=3.45, cubic=True)
    config = MDConfig(ensemble="nve", steps=40, timestep_fs=0.5, trajectory_every=1, log_every=20, seed=3)
    run(crystal, toy_potential(), config, tmp_path)
    motion = trajectory(read_frames_of(tmp_path / "nve.xyz"))
    assert motion.frames == 41
    assert motion.velocities is not None
    central = (motion.positions[2:] - motion.positions[:-2]) / (2 * motion.interval_ps)
    np.testing.assert_allclose(motion.velocities[1:-1], central, atol=5e-3 * np.abs(central).max())


def test_the_start_can_be_skipped_and_the_interval_given(tmp_path: Path) -> None:
    frames = [at(np.zeros((1, 3)) + 0.1 * n, 0.5 * n) for n in range(10)]
    ase.io.write(tmp_path / "with.xyz", frames)
    kept = read_frames_of(tmp_path / "with.xyz", skip_ps=2.0)
    assert [a.info["time_ps"] for a in kept] == pytest.approx([2.0, 2.5, 3.0, 3.5, 4.0, 4.5])
    for atoms in frames:
        del atoms.info["time_ps"]
    ase.io.write(tmp_path / "without.xyz", frames)
    with pytest.raises(DataError, match="--interval"):
        read_frames_of(tmp_path / "without.xyz", skip_ps=1.0)
    assert trajectory(read_frames_of(tmp_path / "without.xyz", interval_fs=20.0)).interval_ps == pytest.approx(0.02)
    with pytest.raises(DataError, match="leave --interval out"):
        read_frames_of(tmp_path / "with.xyz", interval_fs=20.0)
    with pytest.raises(DataError, match="skip less"):
        read_frames_of(tmp_path / "with.xyz", skip_ps=99.0)


def test_what_cannot_be_followed_is_refused_with_the_frame() -> None:
    still = np.array([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
    with pytest.raises(DataError, match="three frames"):
        trajectory([at(still, 0.0), at(still, 1.0)])
    with pytest.raises(DataError, match="frame 2"):
        trajectory([at(still, 0.0), at(still, 1.0), at(still + np.array([[2.4, 0, 0], [0, 0, 0]]), 2.0)])
    with pytest.raises(DataError, match="evenly"):
        trajectory([at(still, t) for t in (0.0, 1.0, 1.5, 2.5)])
    with pytest.raises(DataError, match="same atoms"):
        trajectory([at(still, 0.0), at(still, 1.0, symbols="Si"), at(still, 2.0)])
    timeless = at(still, 0.0)
    del timeless.info["time_ps"]
    with pytest.raises(DataError, match="frame 1"):
        trajectory([at(still, 0.0), timeless, at(still, 2.0)])


def test_a_last_frame_out_of_step_is_left_out() -> None:
    still = np.array([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
    assert trajectory([at(still, t) for t in (0.0, 1.0, 2.0, 2.3)]).frames == 3
