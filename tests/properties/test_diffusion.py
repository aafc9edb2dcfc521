from __future__ import annotations

import json
import math

import numpy as np
import pytest
from ase import units

from adatom.errors import ConfigError, DataError
from adatom.properties.diffusion import diffusion, mean_square_displacement
from adatom.properties.trajectory import Trajectory


def motion(positions: np.ndarray, interval_ps: float = 0.1, side: float = 10.0, numbers: object = 29) -> Trajectory:
    count = positions.shape[1]
    return Trajectory(
        numbers=np.broadcast_to(np.asarray(numbers), (count,)).copy(),
        masses=np.ones(count),
        interval_ps=interval_ps,
        positions=positions,
        velocities=None,
        volume_A3=side**3,
        cubic=True,
    )


def random_walk(D: float, frames: int, atoms: int, seed: int, interval_ps: float = 0.1) -> np.ndarray:
    steps = np.random.default_rng(seed).normal(scale=math.sqrt(2 * D * interval_ps), size=(frames, atoms, 3))
    return np.cumsum(steps, axis=0)


def test_the_fast_transform_gives_the_plain_average_over_origins() -> None:
    positions = random_walk(0.3, 40, 70, seed=0) + 1e4  # far from the origin: digits are kept
    plain = [np.square(positions[m:] - positions[: 40 - m]).sum(axis=2).mean() for m in range(40)]
    np.testing.assert_allclose(mean_square_displacement(positions), plain, atol=1e-8)


def test_a_random_walk_has_its_diffusion_coefficient_within_errors_that_can_be_trusted() -> None:
    D, off = 0.23, []
    for seed in range(40):
        one = diffusion(motion(random_walk(D, 600, 30, seed))).species["Cu"]
        assert one.diffusive
        off.append((one.D_A2_per_ps - D) / one.D_error_A2_per_ps)
    assert abs(np.mean(off)) < 0.6  # no bias
    # five blocks: Student's t with four degrees of freedom, 88 % within two errors
    assert 0.7 < np.mean(np.abs(off) < 2.0) < 0.99


def test_the_error_falls_with_the_root_of_the_atoms() -> None:
    few = np.mean([diffusion(motion(random_walk(1, 400, 5, s))).species["Cu"].D_error_A2_per_ps for s in range(12)])
    many = np.mean([diffusion(motion(random_walk(1, 400, 80, s))).species["Cu"].D_error_A2_per_ps for s in range(12)])
    assert few / many == pytest.approx(4.0, rel=0.35)


def test_units_are_those_of_the_names() -> None:
    one = diffusion(motion(random_walk(0.23, 300, 40, seed=1))).species["Cu"]
    assert one.D_cm2_per_s == pytest.approx(1e-4 * one.D_A2_per_ps)
    assert one.D_cm2_per_s == pytest.approx(2.3e-5, rel=0.3)


def test_the_window_leaves_out_the_ballistic_start_and_the_noisy_end() -> None:
    """Langevin particles: MSD = 6 D (t - tau (1 - exp(-t / tau))), far from a line below a few tau."""
    D, tau, dt = 0.5, 0.5, 0.02
    rng = np.random.default_rng(2)
    keep = math.exp(-dt / tau)
    v = rng.normal(scale=math.sqrt(D / tau), size=(100, 3))
    path = np.zeros((8000, 100, 3))
    for n in range(1, len(path)):
        kick = rng.normal(scale=math.sqrt(D / tau * (1 - keep**2)), size=v.shape)
        path[n] = path[n - 1] + 0.5 * dt * v
        v = keep * v + kick
        path[n] += 0.5 * dt * v
    found = diffusion(motion(path, dt))
    one = found.species["Cu"]
    exact = 6 * D * (found.lag_ps - tau * (1 - np.exp(-found.lag_ps / tau)))
    np.testing.assert_allclose(one.msd_A2[1:200], exact[1:200], rtol=0.06)
    assert one.fit_ps[0] > 2 * tau
    assert one.fit_ps[1] == pytest.approx(found.block_ps / 2, rel=0.02)
    assert abs(one.D_A2_per_ps - D) < 4 * one.D_error_A2_per_ps
    assert one.diffusive


def test_a_crystal_does_not_diffuse_and_has_no_coefficient() -> None:
    rattling = np.random.default_rng(3).normal(scale=0.1, size=(500, 20, 3))
    found = diffusion(motion(rattling, side=12.0), viscosity_mPas=0.9, temperature_K=300.0)
    one = found.species["Cu"]
    assert not one.diffusive
    assert abs(one.exponent) < 0.1
    assert np.isnan([one.D_A2_per_ps, one.D_error_A2_per_ps]).all()
    record = found.to_record()["species"]["Cu"]
    assert {record[key] for key in record if key.startswith("D_")} == {None}
    assert record["left"] is False


def test_each_element_has_its_own() -> None:
    slow, fast = random_walk(0.1, 500, 60, 4), random_walk(0.9, 500, 60, 5)
    found = diffusion(motion(np.concatenate([slow, fast], axis=1), numbers=[8] * 60 + [1] * 60))
    assert found.species["O"].D_A2_per_ps == pytest.approx(0.1, rel=0.25)
    assert found.species["H"].D_A2_per_ps == pytest.approx(0.9, rel=0.25)


def test_the_correction_for_the_size_of_the_box_is_that_of_yeh_and_hummer() -> None:
    found = diffusion(motion(random_walk(0.2, 200, 10, 6), side=12.4447), viscosity_mPas=0.896, temperature_K=298.15)
    boltzmann, length, viscosity = 1.380649e-23, 12.4447e-10, 0.896e-3  # in SI
    expected = 2.837297 * boltzmann * 298.15 / (6 * math.pi * viscosity * length)  # m^2/s
    assert found.correction_A2_per_ps == pytest.approx(1e8 * expected, rel=1e-4)
    one = found.species["Cu"]
    assert one.D_corrected_A2_per_ps == pytest.approx(one.D_A2_per_ps + found.correction_A2_per_ps)


def test_bad_wishes_are_refused_with_a_way_out() -> None:
    walk = motion(random_walk(0.2, 200, 10, 7))
    with pytest.raises(DataError, match="too short"):
        diffusion(motion(random_walk(0.2, 30, 10, 7)))
    with pytest.raises(ConfigError, match="temperature"):
        diffusion(walk, viscosity_mPas=0.9)
    with pytest.raises(DataError, match="window"):
        diffusion(walk, fit_ps=(1.0, 50.0))
    with pytest.raises(ConfigError, match="blocks"):
        diffusion(walk, blocks=1)
    slanted = Trajectory(walk.numbers, walk.masses, 0.1, walk.positions, None, 1000.0, cubic=False)
    with pytest.raises(ConfigError, match="cube"):
        diffusion(slanted, viscosity_mPas=0.9, temperature_K=300.0)


def test_a_given_window_is_kept() -> None:
    one = diffusion(motion(random_walk(0.2, 500, 10, 8)), fit_ps=(1.0, 4.0)).species["Cu"]
    assert one.fit_ps == pytest.approx((1.0, 4.0))


def test_it_is_written_as_plain_numbers() -> None:
    record = json.loads(json.dumps(diffusion(motion(random_walk(0.2, 4000, 4, 9))).to_record()))
    one = record["species"]["Cu"]
    assert len(record["lag_ps"]) == len(one["msd_A2"]) == len(one["msd_error_A2"]) <= 301
    assert one["D_cm2_per_s"] == pytest.approx(1e-4 * one["D_A2_per_ps"])
    assert units.fs > 0
