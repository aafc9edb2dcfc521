from __future__ import annotations

import json

import ase
import numpy as np
import pytest
from ase.build import bulk

from adatom.errors import DataError, GeometryError
from adatom.properties.rdf import compare, first_peak, rdf


def test_an_ideal_gas_has_g_of_one_at_every_distance_beyond_half_the_box_too() -> None:
    rng = np.random.default_rng(0)
    cell = np.array([[6.0, 0, 0], [1.5, 5.5, 0], [-1.0, 0.8, 6.5]])  # half the box: less than 3 Å
    frames = [ase.Atoms("Cu20", rng.uniform(size=(20, 3)) @ cell, cell=cell, pbc=True) for _ in range(60)]
    result = rdf(frames, r_max=9.0, width=0.5)
    g = result.g["Cu-Cu"]
    # pairs are independent but for the images: an atom's own ones stand at lattice vectors
    far = result.r > 2.0
    assert np.abs(g[far] - 1.0).max() < 0.08
    assert g[far].mean() == pytest.approx(1.0, abs=0.02)
    assert result.frames == 60


def test_the_shells_of_a_crystal_have_their_neighbours_where_they_stand() -> None:
    result = rdf([bulk("Cu", a=3.6)], r_max=6.0, width=0.02)  # one atom: all neighbours are its images
    coordination = result.coordination["Cu-Cu"]
    expected = {3.6 / np.sqrt(2): 12, 3.6: 18, 3.6 * np.sqrt(1.5): 42, 3.6 * np.sqrt(2): 54}
    for distance, neighbours in expected.items():
        assert coordination[result.r > distance + 0.03][0] == pytest.approx(neighbours)
    peaks = result.r[result.g["Cu-Cu"] > 0]
    assert min(abs(peaks - 3.6 / np.sqrt(2))) < 0.02


def test_a_supercell_has_the_g_of_its_cell() -> None:
    small = rdf([bulk("Si", a=5.43)], r_max=8.0)
    large = rdf([bulk("Si", a=5.43, cubic=True) * 2], r_max=8.0)
    np.testing.assert_allclose(small.coordination["Si-Si"], large.coordination["Si-Si"], atol=1e-9)
    np.testing.assert_allclose(small.g["Si-Si"], large.g["Si-Si"], atol=1e-9)


def test_each_pair_of_elements_has_its_own() -> None:
    salt = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    result = rdf([salt], r_max=5.0, width=0.05)
    assert set(result.g) == {"Na-Na", "Na-Cl", "Cl-Cl"}
    at = int(np.argmax(result.r > 2.8 + 0.05))
    assert result.coordination["Na-Cl"][at] == pytest.approx(6)
    assert result.coordination["Na-Na"][at] == pytest.approx(0)


def test_atoms_outside_the_box_and_cells_that_change_make_no_difference() -> None:
    atoms = bulk("Cu", a=3.6, cubic=True)
    outside = atoms.copy()
    outside.positions += [[30.0, -20.0, 11.0], [0, 0, 0], [-50.0, 1.0, 2.0], [0, 0, 0]]
    outside.positions[[1, 3]] += [3.6 * 4, 0, 0]
    wrapped = outside.copy()
    wrapped.wrap()
    np.testing.assert_allclose(rdf([outside]).g["Cu-Cu"], rdf([wrapped]).g["Cu-Cu"], atol=1e-9)
    larger = bulk("Cu", a=3.8, cubic=True)
    both = rdf([atoms, larger]).g["Cu-Cu"]
    np.testing.assert_allclose(both, 0.5 * (rdf([atoms]).g["Cu-Cu"] + rdf([larger]).g["Cu-Cu"]), atol=1e-12)


def test_it_is_written_as_the_report_reads_it() -> None:
    written = json.loads(json.dumps(rdf([bulk("Si")], r_max=4.0, width=0.1).to_record()))
    assert set(written) == {"r_A", "g"}
    assert len(written["r_A"]) == len(written["g"]["Si-Si"]) == 40
    assert written["r_A"][0] == pytest.approx(0.05)


def test_frames_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(DataError, match="no frames"):
        rdf([])
    with pytest.raises(DataError, match="frame 1"):
        rdf([bulk("Cu"), bulk("Si")])
    with pytest.raises(GeometryError, match="average density"):
        rdf([ase.Atoms("Cu2", [[0, 0, 0], [2.4, 0, 0]])])


def glass(spread: float, seed: int, a: float = 3.6) -> ase.Atoms:
    atoms = bulk("Cu", a=a, cubic=True) * 2
    atoms.rattle(spread, seed=seed)
    return atoms


def test_like_frames_overlap_as_far_as_the_halves_of_the_reference_do_and_unlike_ones_less() -> None:
    reference = [glass(0.15, seed) for seed in range(20)]
    same = rdf([glass(0.15, seed) for seed in range(100, 120)], r_max=6.0)
    found, likeness = compare(same, reference)
    one = likeness["Cu-Cu"]
    np.testing.assert_allclose(found.r, same.r)
    assert one.overlap > 0.95
    assert one.overlap == pytest.approx(one.noise, abs=0.02)
    other = compare(rdf([glass(0.15, seed, a=4.0) for seed in range(20)], r_max=6.0), reference)[1]["Cu-Cu"]
    assert other.overlap < 0.8
    assert other.peak[0] - other.reference_peak[0] == pytest.approx(0.4 / np.sqrt(2), abs=0.12)
    itself = compare(rdf(reference, r_max=6.0), reference)[1]["Cu-Cu"]
    assert itself.overlap == pytest.approx(1.0)
    assert json.loads(json.dumps(compare(same, reference[:1])[1]["Cu-Cu"].to_record()))["noise"] is None


def test_the_first_peak_is_the_highest_shell_before_the_first_gap() -> None:
    r = np.linspace(0.05, 5.95, 60)
    g = 2.0 * np.exp(-(((r - 2.0) / 0.2) ** 2)) + 3.0 * np.exp(-(((r - 4.0) / 0.2) ** 2))
    assert first_peak(r, g)[0] == pytest.approx(2.0, abs=0.06)


def test_a_reference_of_another_substance_is_refused() -> None:
    with pytest.raises(DataError, match="share no pair"):
        compare(rdf([bulk("Cu")]), [bulk("Si")])
