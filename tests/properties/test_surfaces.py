"""Surfaces of crystals of the toy."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase.build import bulk, surface

from adatom.errors import ConfigError
from adatom.properties.surfaces import J_PER_M2, Surfaces, distinct_planes, slabs, surfaces
from adatom.report.properties import section_of
from adatom.report.record import Record
from adatom.sim.calculator import Calculator
from adatom.sim.symmetry import space_group
from toy import toy_potential

CUTOFF = 4.0
PLANES = [(1, 0, 0), (1, 1, 1), (2, 1, 0)]


@pytest.fixture(scope="module")
def copper() -> Surfaces:
    return surfaces(bulk("Cu", a=3.5), toy_potential(CUTOFF), indices=PLANES, thickness_A=9.0)


def test_rigid_surfaces_have_the_energies_of_slabs_made_otherwise(copper: Surfaces) -> None:
    a = copper.cuts[0].area_A2 ** 0.5 * np.sqrt(2.0)
    crystal = bulk("Cu", a=a, cubic=True)
    crystal.calc = Calculator(toy_potential(CUTOFF))
    for plane, cut in zip(PLANES, copper.cuts, strict=True):
        slab = surface(crystal, plane, 6, vacuum=8.0)
        slab.pbc = True
        slab.calc = crystal.calc
        excess = slab.get_potential_energy() - len(slab) / 4 * crystal.get_potential_energy()
        area = np.linalg.norm(np.cross(slab.cell[0], slab.cell[1]))
        assert cut.miller == plane
        assert cut.unrelaxed_J_per_m2 == pytest.approx(J_PER_M2 * excess / (2 * area), rel=1e-6)


def test_atoms_gain_by_moving_and_close_packed_planes_cost_least(copper: Surfaces) -> None:
    best = copper.best()
    for cut in copper.cuts:
        assert cut.converged
        assert cut.relaxed_J_per_m2 is not None
        assert 0.0 < cut.relaxed_J_per_m2 < cut.unrelaxed_J_per_m2
        assert cut.alike
        assert cut.atoms == cut.layers
    assert best[1, 1, 1].relaxed_J_per_m2 < best[2, 1, 0].relaxed_J_per_m2
    assert pytest.approx(16.0217663) == J_PER_M2


def test_a_plane_of_diamond_is_cut_where_it_can_be() -> None:
    crystal = bulk("Si", cubic=True)
    cuts = slabs(crystal, (1, 1, 1), 12.0, 15.0)
    gaps = []
    for cut in cuts:
        assert len(cut.slab) == 2 * cut.layers
        heights = np.sort(cut.slab.positions[:, 2])
        gaps.append(float(heights[1] - heights[0]))
        near = cut.slab.get_all_distances(mic=True)[np.triu_indices(len(cut.slab), 1)]
        assert near.min() == pytest.approx(5.43 * np.sqrt(3) / 4, rel=1e-6)
        assert cut.slab.cell[2, 2] == pytest.approx(cut.layers * 5.43 / np.sqrt(3) + 15.0)
    # between double layers one bond an atom is cut, within them three
    assert sorted(np.round(gaps, 3)) == [0.784, 2.351]


def test_planes_that_a_rotation_joins_are_one() -> None:
    cubic = space_group(bulk("Cu", cubic=True))
    assert distinct_planes(cubic, 1) == ((1, 0, 0), (1, 1, 0), (1, 1, 1))
    assert len(distinct_planes(cubic, 2)) == 6
    hexagonal = distinct_planes(space_group(bulk("Cu", "hcp", a=2.6, c=4.3)), 1)
    assert {(1, 0, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1)} <= set(hexagonal)
    assert (0, 1, 0) not in hexagonal


def test_the_record_is_plain_json_and_makes_a_section(copper: Surfaces) -> None:
    record = json.loads(json.dumps(copper.to_record(), allow_nan=False))
    section = section_of(Record(record, "surface.json"))
    assert section.facts[0] == ("γ (1 0 0)", f"{copper.cuts[0].relaxed_J_per_m2:.3f}\u202fJ/m²")
    assert len(section.tables[0].rows) == 3


def test_a_slab_that_comes_to_no_rest_gives_no_energy() -> None:
    found = surfaces(
        bulk("Cu", a=3.47), toy_potential(CUTOFF), indices=[(1, 0, 0)], thickness_A=8.0, steps=4, fmax=1e-7, smax_GPa=1
    )
    assert found.cuts[0].relaxed_J_per_m2 is None
    assert "did not come to rest in 4 steps" in found.warnings[-1]
    assert found.best()[1, 0, 0] is found.cuts[0]


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"indices": [(0, 0, 0)]}, "no plane"),
        ({"vacuum_A": 3.0}, "feel one another"),
        ({"thickness_A": 3.0}, "feel one another"),
        ({"max_index": 0}, "max_index"),
    ],
)
def test_what_cannot_be_cut_is_named(wrong: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        surfaces(bulk("Cu", a=3.47), toy_potential(CUTOFF), **wrong)  # type: ignore[arg-type]
