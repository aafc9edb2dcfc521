"""Vacancies of crystals of the toy."""

from __future__ import annotations

import json

import ase
import pytest
from ase.build import bulk

from adatom.errors import ConfigError
from adatom.properties.defects import Vacancies, vacancies
from adatom.report.properties import section_of
from adatom.report.record import Record
from adatom.sim.calculator import Calculator, StressError
from toy import REFERENCES, toy_potential

CUTOFF = 4.0
ALLOY = ase.Atoms(
    "Cu3Si", scaled_positions=[[0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5], [0, 0, 0]], cell=[3.45] * 3, pbc=True
)


@pytest.fixture(scope="module")
def copper() -> Vacancies:
    return vacancies(bulk("Cu", a=3.5), toy_potential(CUTOFF, bend=0.0), length_A=8.0)


def test_among_pairs_a_rigid_vacancy_costs_the_cohesive_energy(copper: Vacancies) -> None:
    (site,) = copper.sites
    crystal = bulk("Cu", a=copper.supercell.atoms.cell.lengths()[0] / copper.supercell.repeats[0])
    crystal.calc = Calculator(toy_potential(CUTOFF, bend=0.0))
    cohesive = REFERENCES[29] - crystal.get_potential_energy()
    assert site.unrelaxed_eV == pytest.approx(cohesive, rel=1e-6)
    assert site.relaxed_eV is not None
    assert 0.5 * cohesive < site.relaxed_eV < site.unrelaxed_eV
    assert (site.element, site.multiplicity, site.converged) == ("Cu", 4, True)
    assert 0.01 < site.farthest_A < 0.5
    assert copper.reference == "energy per atom of the same crystal"


def test_the_record_is_plain_json_and_makes_a_section(copper: Vacancies) -> None:
    record = json.loads(json.dumps(copper.to_record(), allow_nan=False))
    section = section_of(Record(record, "vacancy.json"))
    assert section.facts[0][1].startswith(f"{copper.sites[0].relaxed_eV:.3f}")
    assert "108 atoms" in section.subtitle
    assert len(section.figures) == 1


def test_a_molecule_is_refused_for_its_volume_before_it_is_asked_for_potentials() -> None:
    with pytest.raises(StressError):
        vacancies(ase.Atoms("CuSi", [[0.0, 0.0, 0.0], [2.2, 0.0, 0.0]]), toy_potential(CUTOFF))


def test_a_compound_needs_chemical_potentials() -> None:
    with pytest.raises(ConfigError, match="chemical potential") as caught:
        vacancies(ALLOY, toy_potential(CUTOFF))
    assert caught.value.got == "none for Cu, Si"
    assert "--mu Cu=" in str(caught.value.remedy)
    with pytest.raises(ConfigError, match="chemical potential"):
        vacancies(ALLOY, toy_potential(CUTOFF), potentials={"Cu": -198.0})


def test_every_kind_of_site_is_asked_and_what_comes_to_no_rest_gives_no_energy() -> None:
    given = {"Cu": -198.5, "Si": -164.0}
    found = vacancies(
        ALLOY, toy_potential(CUTOFF), potentials=given, repeats=(2, 2, 2), steps=12, fmax=1e-6, smax_GPa=1
    )
    assert sorted((site.element, site.multiplicity) for site in found.sites) == [("Cu", 3), ("Si", 1)]
    assert found.reference == "chemical potentials that were given"
    for site in found.sites:
        assert site.potential_eV == given[site.element]
        assert not site.converged
        assert site.relaxed_eV is None
    assert "did not come to rest in 12 steps" in found.warnings[-1]
    section = section_of(Record(json.loads(json.dumps(found.to_record())), "vacancy"))
    assert section.tables[0].rows[0][2] == "–"


def test_a_supercell_in_which_a_vacancy_feels_its_image_is_refused() -> None:
    with pytest.raises(ConfigError, match="too small"):
        vacancies(bulk("Cu", a=3.5), toy_potential(CUTOFF), repeats=(1, 1, 1))
