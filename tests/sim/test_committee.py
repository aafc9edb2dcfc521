"""A committee says what its members say on average, and how far they are apart."""

from __future__ import annotations

from pathlib import Path

import ase
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.fd import calculate_numerical_forces

from adatom.errors import ConfigError, SimulationError, UnknownElementError
from adatom.model_file import save
from adatom.models import MODELS
from adatom.neighbors import neighbor_list
from adatom.potential import Potential
from adatom.sim import skin
from adatom.sim.calculator import Calculator, StressError
from adatom.sim.committee import Committee
from adatom.sim.md import MDConfig, run
from toy import Toy, ToyConfig, toy_potential

BENDS = (0.05, 0.1, 0.2)


def potentials() -> list[Potential]:
    return [toy_potential(bend=bend) for bend in BENDS]


def crystal() -> ase.Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=2)
    return atoms


def test_results_are_means_and_spreads_of_the_members() -> None:
    atoms = crystal()
    atoms.calc = Committee(potentials())
    atoms.get_stress(), atoms.get_forces(), atoms.get_potential_energies()
    single = []
    for potential in potentials():
        one = crystal()
        one.calc = Calculator(potential)
        single.append((one.get_potential_energy(), one.get_forces(), one.get_stress(), one.get_potential_energies()))
    results = atoms.calc.results
    for name, values in zip(("energy", "forces", "stress", "energies"), zip(*single, strict=True), strict=True):
        np.testing.assert_allclose(results[name], np.mean(values, axis=0), atol=1e-10)
        if name != "energies":
            np.testing.assert_allclose(results[f"{name}_std"], np.std(values, axis=0, ddof=1), atol=1e-10)
            assert np.max(results[f"{name}_std"]) > 1e-4
    assert results["forces_std"].shape == (4, 3)
    np.testing.assert_array_equal(atoms.calc.get_property("forces_std", atoms), results["forces_std"])


def test_mean_forces_are_the_derivative_of_the_mean_energy() -> None:
    atoms = crystal()
    atoms.calc = Committee(potentials())
    np.testing.assert_allclose(atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-4), atol=1e-6)


def test_members_that_agree_have_no_spread() -> None:
    atoms = crystal()
    atoms.calc = Committee([toy_potential(), toy_potential()])
    atoms.get_forces()
    assert atoms.calc.results["energy_std"] == 0.0
    assert not atoms.calc.results["forces_std"].any()


def test_spreads_belong_to_the_geometry_of_the_moment() -> None:
    atoms = crystal()
    atoms.calc = Committee(potentials())
    atoms.get_stress()
    before = atoms.calc.results["energy_std"]
    atoms.rattle(0.1, seed=5)
    atoms.get_potential_energy()
    assert atoms.calc.results["energy_std"] != before
    assert "stress" not in atoms.calc.results


def test_members_of_one_cutoff_share_a_neighbour_list(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[float] = []

    def counted(
        positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float
    ) -> tuple[np.ndarray, np.ndarray]:
        built.append(cutoff)
        return neighbor_list(positions, cell, pbc, cutoff)

    monkeypatch.setattr(skin, "neighbor_list", counted)
    atoms = crystal()
    atoms.calc = Committee([*potentials(), toy_potential(cutoff=4.0)])
    for _ in range(3):
        atoms.positions += 0.01
        atoms.get_forces()
    np.testing.assert_allclose(sorted(built), [4.5, 5.5], atol=1e-3)


def test_molecular_dynamics_runs_on_the_mean() -> None:
    result = run(crystal(), Committee(potentials()), MDConfig(ensemble="nve", steps=20, temperature_K=300, log_every=5))
    totals = [line.total_eV for line in result.thermo]
    assert np.ptp(totals) < 0.02 * result.thermo[0].kinetic_eV
    assert result.atoms.calc.results["energy_std"] > 0


def test_files_make_a_committee(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "toy", Toy)
    paths = [save(p, tmp_path / f"{number}.adatom") for number, p in enumerate(potentials())]
    atoms, other = crystal(), crystal()
    atoms.calc, other.calc = Committee(paths), Committee(potentials())
    assert atoms.get_potential_energy() == pytest.approx(other.get_potential_energy(), abs=1e-9)


def test_errors_are_those_of_the_members_and_one_alone_is_refused() -> None:
    for wrong in ([toy_potential()], [], toy_potential(), "model.adatom"):
        with pytest.raises(ConfigError, match="no committee"):
            Committee(wrong)  # type: ignore[arg-type]
    atoms = molecule("H2O")
    atoms.calc = Committee([toy_potential(), Potential(Toy(ToyConfig()), {1: -13.6})])
    with pytest.raises(UnknownElementError, match="does not know O"):
        atoms.get_forces()
    atoms.calc = Committee(potentials())
    with pytest.raises(StressError):
        atoms.get_stress()


def test_dynamics_of_a_committee_stop_where_any_member_leaves_its_data() -> None:
    members = potentials()
    members[0].card |= {"min_distance_A": {"Cu-Cu": 1.5}}
    members[1].card |= {"min_distance_A": {"Cu-Cu": 2.9}}
    with pytest.raises(SimulationError, match=r"at least 2\.465 Å"):
        run(crystal(), Committee(members), MDConfig(ensemble="nve", steps=5))
