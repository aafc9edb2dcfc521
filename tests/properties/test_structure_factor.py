from __future__ import annotations

import json

import ase
import numpy as np
import pytest
from ase.build import bulk
from scipy.special import jv

from adatom.errors import DataError, GeometryError
from adatom.properties.rdf import rdf
from adatom.properties.structure_factor import allowed, density_waves, structure_factor

A = 3.6


def test_a_perfect_fcc_crystal_scatters_into_its_bragg_peaks_alone() -> None:
    crystal = bulk("Cu", a=A, cubic=True) * (3, 3, 3)
    crystal.positions += [11.0, -3.0, 0.4]  # where it lies does not matter
    h = allowed(np.asarray(crystal.cell), 6.0)
    intensity = np.abs(density_waves(crystal, h).sum(axis=1)) ** 2 / len(crystal)
    whole = h / 3  # in reciprocal vectors of the cubic cell: all even or all odd
    parity = np.mod(whole, 2)
    bragg = np.all(np.isclose(whole, whole.round()), axis=1) & np.all(np.isclose(parity, parity[:, :1]), axis=1)
    np.testing.assert_allclose(intensity[bragg], len(crystal), rtol=1e-9)
    assert intensity[~bragg].max() < 1e-9
    found = structure_factor([crystal], q_max=6.0, width=0.02, vectors=None)
    first = found.q[found.total > 1.0][:2]
    np.testing.assert_allclose(first, 2 * np.pi / A * np.array([np.sqrt(3), 2.0]), atol=0.011)


def test_the_shells_hold_each_wave_vector_once() -> None:
    cell = bulk("Cu", a=A).cell.array * 3
    h = allowed(cell, 5.0)
    assert len({tuple(v) for v in h} | {tuple(-v) for v in h}) == 2 * len(h)
    volume = abs(np.linalg.det(cell))
    assert 2 * len(h) + 1 == pytest.approx(4 / 3 * np.pi * 5.0**3 * volume / (2 * np.pi) ** 3, rel=0.05)


def test_an_ideal_gas_has_one_everywhere_and_unlike_atoms_know_nothing_of_one_another() -> None:
    rng = np.random.default_rng(0)
    cell = np.array([[9.0, 0, 0], [2.0, 8.0, 0], [-1.0, 1.0, 10.0]])
    frames = [ase.Atoms("O20H40", rng.uniform(size=(60, 3)) @ cell, cell=cell, pbc=True) for _ in range(200)]
    found = structure_factor(frames, q_max=4.0, width=0.5)
    assert np.abs(found.total - 1.0).max() < 0.1
    for pair, far in (("H-H", 1.0), ("H-O", 0.0), ("O-O", 1.0)):
        assert np.abs(found.ashcroft_langreth[pair] - far).max() < 0.1
        assert np.abs(found.faber_ziman[pair] - 1.0).max() < 0.25


def test_a_density_wave_shows_as_the_bessel_functions_of_its_depth() -> None:
    side, count, depth = 40.0, 400, 1.5
    x = (np.arange(count) + 0.5) * side / count
    k = 2 * np.pi * 3 / side
    positions = np.stack([x + depth * np.sin(k * x), np.zeros(count), np.zeros(count)], axis=1)
    atoms = ase.Atoms(f"Cu{count}", positions, cell=np.eye(3) * side, pbc=True)
    h = np.array([[3, 0, 0], [6, 0, 0], [4, 0, 0]])
    intensity = np.abs(density_waves(atoms, h).sum(axis=1)) ** 2 / count
    np.testing.assert_allclose(intensity[0], count * jv(1, k * depth) ** 2, rtol=1e-6)
    np.testing.assert_allclose(intensity[1], count * jv(2, 2 * k * depth) ** 2, rtol=1e-6)
    assert intensity[2] < 1e-9


def test_the_partials_sum_up_to_the_total() -> None:
    salt = bulk("NaCl", "rocksalt", a=5.6, cubic=True) * 2
    salt.rattle(0.2, seed=1)
    found = structure_factor([salt], q_max=5.0)
    share = 0.5
    summed = sum(
        (1.0 if a == b else 2.0) * share * found.ashcroft_langreth[f"{a}-{b}"]
        for a, b in (("Na", "Na"), ("Na", "Cl"), ("Cl", "Cl"))
    )
    np.testing.assert_allclose(found.total, summed, atol=1e-9)


def test_it_is_the_transform_of_g_of_r() -> None:
    """Hard to fake: a liquid-like glass, S(q) from wave vectors beside S(q) from the shells of g(r)."""
    frames = []
    for seed in range(30):
        atoms = bulk("Cu", a=4.0, cubic=True) * 3
        atoms.rattle(0.45, seed=seed)
        frames.append(atoms)
    found = structure_factor(frames, q_max=4.0, width=0.25, vectors=None)
    g = rdf(frames, r_max=14.0, width=0.02)
    r, density = g.r, len(frames[0]) / frames[0].get_volume()
    fade = np.sinc(r / 14.0)  # Lorch: ends without a step
    kernel = np.sinc(np.outer(found.q, r) / np.pi)
    transformed = 1.0 + 4 * np.pi * density * (kernel * (r**2 * (g.g["Cu-Cu"] - 1.0) * fade)).sum(axis=1) * 0.02
    picked = (found.q > 1.0) & (np.abs(found.q - 2.8) > 0.35) & (np.abs(found.q - 3.1) > 0.35)  # no Bragg peak near
    np.testing.assert_allclose(found.total[picked], transformed[picked], atol=0.15)


def test_few_wave_vectors_of_a_shell_stand_for_all() -> None:
    rng = np.random.default_rng(1)
    frames = [ase.Atoms("Cu50", rng.uniform(size=(50, 3)) * 12, cell=np.eye(3) * 12, pbc=True) for _ in range(20)]
    some = structure_factor(frames, q_max=6.0, width=0.5, vectors=40)
    every = structure_factor(frames, q_max=6.0, width=0.5, vectors=None)
    assert some.vectors.sum() < 0.4 * every.vectors.sum()
    assert np.abs(some.total - every.total)[some.q > 2.0].max() < 0.15


def test_a_cell_that_changes_keeps_its_peaks_at_their_own_place() -> None:
    crystals = [bulk("Cu", a=a, cubic=True) * 2 for a in (3.5, 3.7)]
    found = structure_factor(crystals, q_max=4.0, width=0.01, vectors=None)
    peaks = found.q[found.total > 5.0]
    for a in (3.5, 3.7):
        assert np.abs(peaks - 2 * np.pi / a * np.sqrt(3)).min() < 0.01


def test_it_is_written_as_plain_numbers() -> None:
    record = json.loads(json.dumps(structure_factor([bulk("Cu", a=A, cubic=True)], q_max=5.0).to_record()))
    assert set(record) == {"q_per_A", "total", "faber_ziman", "ashcroft_langreth", "frames"}
    assert len(record["q_per_A"]) == len(record["total"]) == len(record["faber_ziman"]["Cu-Cu"]) > 3


def test_what_has_no_wave_vectors_is_refused() -> None:
    with pytest.raises(DataError, match="no frames"):
        structure_factor([])
    with pytest.raises(DataError, match="frame 1"):
        structure_factor([bulk("Cu"), bulk("Si")])
    with pytest.raises(GeometryError, match="wave vector"):
        structure_factor([ase.Atoms("Cu2", [[0, 0, 0], [2.4, 0, 0]])])
    with pytest.raises(GeometryError, match="larger cell"):
        structure_factor([bulk("Cu", a=A)], q_max=0.5)
