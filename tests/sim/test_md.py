from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.constraints import FixAtoms

from adatom.errors import ConfigError, SimulationError, UnknownElementError
from adatom.models import MODELS, read_model
from adatom.models.base import Facts
from adatom.potential import Potential
from adatom.priors.zbl import ZBL, ZBLConfig
from adatom.sim.calculator import StressError
from adatom.sim.md import MDConfig, MDRun, run
from adatom.sim.record import Thermo
from stub_calculators import IdealGas, Springs
from toy import toy_potential

FCC = 3.4535  # Å, close to the toy's own lattice constant


def crystal(size: int = 2) -> ase.Atoms:
    return bulk("Cu", a=FCC, cubic=True) * size


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def quiet(**settings: object) -> MDConfig:
    return MDConfig.parse({"trajectory_every": 0, "log_every": 1} | settings)


def test_energy_error_of_nve_falls_with_the_square_of_the_timestep() -> None:
    def scatter(timestep: float) -> float:
        config = quiet(ensemble="nve", timestep_fs=timestep, steps=round(120 / timestep), temperature_K=600.0)
        totals = np.array([t.total_eV for t in run(crystal(), toy_potential(), config).thermo])
        return float(np.std(totals))

    coarse, middle, fine = scatter(4.0), scatter(2.0), scatter(1.0)
    assert coarse / middle == pytest.approx(4.0, rel=0.25)
    assert middle / fine == pytest.approx(4.0, rel=0.25)


def test_nve_conserves_momentum_and_does_not_drift() -> None:
    done = run(crystal(), toy_potential(), quiet(ensemble="nve", steps=300, temperature_K=500.0))
    np.testing.assert_allclose(done.atoms.get_momenta().sum(axis=0), 0.0, atol=1e-10)
    totals = np.array([t.total_eV for t in done.thermo]) / len(done.atoms)
    assert abs(totals[-100:].mean() - totals[:100].mean()) < 2e-6  # eV per atom in 0.2 ps: 0.01 meV/atom/ps


def test_npt_brings_a_squeezed_crystal_to_its_pressure() -> None:
    squeezed = crystal()
    squeezed.set_cell(squeezed.cell.array * 0.99, scale_atoms=True)
    config = quiet(ensemble="npt", steps=300, temperature_K=50.0, barostat_ps=0.05, timestep_fs=2.0)
    done = run(squeezed, toy_potential(), config)
    pressure = np.array([t.pressure_GPa for t in done.thermo])
    assert pressure[0] > 3.0
    assert abs(pressure[-100:].mean()) < 0.5
    assert done.atoms.get_volume() > squeezed.get_volume() * 1.02


def test_the_files_hold_what_the_report_reads(tmp_path: Path) -> None:
    config = MDConfig(ensemble="nve", steps=25, log_every=10, trajectory_every=10)
    seen: list[tuple[int, Thermo]] = []
    done = run(crystal(), toy_potential(), config, tmp_path / "md", progress=lambda step, t: seen.append((step, t)))
    log = lines(tmp_path / "md" / "nve.jsonl")
    assert [line["kind"] for line in log] == ["start", "step", "step", "step", "step", "end"]
    assert [line["step"] for line in log[1:-1]] == [0, 10, 20, 25]
    start, step, end = log[0], log[2], log[-1]
    assert (start["ensemble"], start["atoms"], start["timestep_fs"], start["temperature_K"]) == ("nve", 32, 1.0, 300.0)
    assert {"time_ps", "temperature_K", "potential_eV", "kinetic_eV", "total_eV", "pressure_GPa"} < set(step)
    assert step["time_ps"] == pytest.approx(0.01)
    assert step["total_eV"] == pytest.approx(step["potential_eV"] + step["kinetic_eV"])  # type: ignore[operator]
    assert end["reason"] == "finished"
    assert end["us_per_atom_step"] == pytest.approx(done.us_per_atom_step)
    assert [s for s, _ in seen] == [0, 10, 20, 25]
    assert tuple(t for _, t in seen) == done.thermo
    frames = ase.io.read(tmp_path / "md" / "nve.xyz", ":")
    assert [f.info["step"] for f in frames] == [0, 10, 20]
    assert frames[1].get_potential_energy() == pytest.approx(step["potential_eV"], abs=1e-6)
    assert frames[2].get_kinetic_energy() > 0
    assert frames[2].get_forces().shape == (32, 3)


def test_the_pressure_of_the_log_is_virial_plus_kinetic() -> None:
    done = run(crystal(), toy_potential(), quiet(ensemble="nve", steps=3))
    atoms, last = done.atoms, done.thermo[-1]
    virial = -atoms.get_stress()[:3].mean()
    kinetic = 2 * atoms.get_kinetic_energy() / (3 * atoms.get_volume())
    assert last.pressure_GPa == pytest.approx((virial + kinetic) * 160.21766, rel=1e-6)


def test_logging_the_pressure_costs_no_second_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    potential, passes = toy_potential(), []
    forward = type(potential).forward
    monkeypatch.setattr(type(potential), "forward", lambda self, *a, **k: passes.append(k) or forward(self, *a, **k))
    run(crystal(1), potential, quiet(ensemble="nve", steps=20, log_every=5))
    assert len(passes) == 21


def test_the_atoms_of_the_user_are_not_moved() -> None:
    atoms = crystal(1)
    before = atoms.get_positions()
    done = run(atoms, toy_potential(), quiet(steps=3))
    assert np.array_equal(atoms.positions, before)
    assert not np.any(atoms.get_momenta())
    assert np.any(done.atoms.positions != before)


def test_one_seed_is_one_run_and_another_seed_another() -> None:
    def final(seed: int) -> np.ndarray:
        return np.asarray(run(crystal(1), toy_potential(), quiet(steps=20, seed=seed)).atoms.positions)

    assert np.array_equal(final(3), final(3))
    assert not np.array_equal(final(3), final(4))


def test_velocities_of_the_user_are_kept_unless_others_are_asked_for() -> None:
    atoms = crystal(1)
    atoms.set_velocities(np.random.default_rng(0).normal(scale=0.01, size=(4, 3)))
    kept = run(atoms, toy_potential(), quiet(ensemble="nve", steps=0))
    assert np.array_equal(kept.atoms.get_momenta(), atoms.get_momenta())
    drawn = run(atoms, toy_potential(), quiet(ensemble="nve", steps=0, initial_temperature_K=700.0))
    assert drawn.thermo[0].temperature_K == pytest.approx(700.0)


def test_an_open_system_has_no_pressure_in_its_log(tmp_path: Path) -> None:
    run(ase.Atoms("Cu3", [[0, 0, 0], [2.4, 0, 0], [1.2, 2.1, 0]]), toy_potential(), quiet(steps=2), tmp_path)
    assert [line["pressure_GPa"] for line in lines(tmp_path / "nvt.jsonl")[1:-1]] == [None, None, None]


# --- leaving physical ground


def stopped(tmp_path: Path, atoms: ase.Atoms, calculator: object, config: MDConfig) -> SimulationError:
    """The error of a run that must stop; its log must say why in the last line, and keep the lines before it."""
    with pytest.raises(SimulationError) as caught:
        run(atoms, calculator, config, tmp_path)  # type: ignore[arg-type]
    log = lines(tmp_path / f"{config.ensemble}.jsonl")
    assert log[-1]["kind"] == "end"
    assert caught.value.problem in str(log[-1]["reason"])
    assert str(caught.value.where) in str(log[-1]["reason"])
    assert [line["kind"] for line in log[:3]] == ["start", "step", "step"]
    assert caught.value.remedy is not None
    return caught.value


def test_atoms_closer_than_the_trained_minimum_stop_the_run(tmp_path: Path) -> None:
    atoms = ase.Atoms("OHCu", [[0, 0, 0], [1.6, 0, 0], [0, 0, 9]])
    atoms.set_velocities([[0.4, 0, 0], [-6.0, 0, 0], [0, 0, 0]])  # Å per ASE time unit: about 0.6 Å/fs
    config = quiet(ensemble="nve", timestep_fs=0.1, steps=200, max_temperature_K=1e9)
    error = stopped(tmp_path, atoms, toy_potential(), config)
    assert "closer than anything" in error.problem
    assert "atoms 0 (O) and 1 (H)" in str(error.where)
    assert error.wanted == "at least 0.510 Å"  # 0.85 of the 0.6 Å in the card
    step = int(str(error.where).split()[1].rstrip(","))
    frames = ase.io.read(tmp_path / "nve.xyz", ":")
    assert [f.info["step"] for f in frames] == [step]  # the frame that shows it
    assert frames[0].get_distance(0, 1) < 0.51


def test_a_hard_collision_ends_at_the_wall_of_a_model_that_has_one_and_is_told_of(tmp_path: Path) -> None:
    closest = {"H-H": 1.2}
    torch.manual_seed(3)
    config = read_model({"architecture": "nemp", "cutoff": 4.0}).completed(Facts((1,), 2.0, None, None, closest))
    network = MODELS["nemp"](config).double()
    walled = Potential(network, {1: 0.0}, 0.1, (ZBL(ZBLConfig(closest=closest)),), card={"min_distance_A": closest})
    atoms = ase.Atoms("HH", [[0, 0, 0], [1.5, 0, 0]])
    atoms.set_velocities([[0.7, 0, 0], [-0.7, 0, 0]])  # half an eV
    config = quiet(ensemble="nve", timestep_fs=0.1, steps=250)
    done = run(atoms, walled, config, tmp_path, "wall")
    assert done.nearest is not None
    assert done.nearest.distance_A < 0.85 * 1.2
    assert done.atoms.get_distance(0, 1) > 1.5, "they flew apart again"
    assert lines(tmp_path / "wall.jsonl")[-1]["nearest"] == json.loads(json.dumps(asdict(done.nearest)))
    with pytest.raises(SimulationError, match=r"at least 1\.020 Å"):
        run(atoms, walled, config.model_copy(update={"min_distance_margin": 0.85}), tmp_path, "margin")
    without = Potential(network, {1: 0.0}, 0.1, (), card={"min_distance_A": closest})
    with pytest.raises(SimulationError, match=r"at least 1\.020 Å"):
        run(atoms, without, config, tmp_path, "nothing")


def test_the_margin_of_the_trained_minimum_can_be_set(tmp_path: Path) -> None:
    atoms = ase.Atoms("OH", [[0, 0, 0], [0.97, 0, 0]])
    with pytest.raises(SimulationError, match=r"at least 1\.200 Å"):
        run(atoms, toy_potential(), quiet(steps=5, min_distance_margin=2.0), tmp_path)
    assert list(tmp_path.iterdir()) == []  # said before anything is written


def test_pairs_without_a_trained_minimum_may_come_to_half_their_covalent_radii(tmp_path: Path) -> None:
    close = ase.Atoms("CuO", [[0, 0, 0], [0.98, 0, 0]])  # radii 1.32 + 0.66
    with pytest.raises(SimulationError, match=r"at least 0\.990 Å"):
        run(close, toy_potential(), quiet(steps=5), tmp_path)


def test_a_runaway_temperature_stops_the_run(tmp_path: Path) -> None:
    atoms = crystal(1)
    error = stopped(tmp_path, atoms, Springs(atoms, k=-8.0), quiet(ensemble="nve", timestep_fs=2.0, steps=500))
    assert error.problem == "the temperature ran away"
    assert "fastest atom" in str(error.where)
    assert error.wanted == "at most 2300 K"


def test_the_limit_of_the_temperature_can_be_set_and_a_hot_start_is_no_runaway(tmp_path: Path) -> None:
    atoms = crystal(1)
    config = quiet(ensemble="nve", steps=500, timestep_fs=2.0, max_temperature_K=900.0)
    assert stopped(tmp_path, atoms, Springs(atoms, k=-8.0), config).wanted == "at most 900 K"
    hot = run(atoms, Springs(atoms, k=1.0), quiet(ensemble="nve", steps=20, initial_temperature_K=4000.0))
    assert hot.steps == 20


def test_figures_that_are_no_numbers_stop_the_run(tmp_path: Path) -> None:
    error = stopped(tmp_path, crystal(1), IdealGas(broken_after=8), quiet(ensemble="nve", steps=50))
    assert error.problem == "the potential gave no number"
    assert error.where == "step 8, atoms 3"
    assert len(lines(tmp_path / "nve.jsonl")) == 1 + 8 + 1  # steps 0 to 7


def test_a_cell_that_blows_up_stops_the_run(tmp_path: Path) -> None:
    config = quiet(ensemble="npt", steps=2000, pressure_GPa=-5.0, barostat_ps=0.02, temperature_K=300.0)
    error = stopped(tmp_path, crystal(1), IdealGas(), config)
    assert error.problem == "the cell blew up"
    assert error.wanted == "between 0.5 and 2 times the volume at the start"


# --- input that cannot be run


def test_a_run_that_exists_is_not_overwritten_unless_asked(tmp_path: Path) -> None:
    config = quiet(ensemble="nve", steps=3)
    run(crystal(1), toy_potential(), config, tmp_path)
    before = (tmp_path / "nve.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="exists already") as caught:
        run(crystal(1), toy_potential(), config, tmp_path)
    assert "nve.jsonl" in str(caught.value.where)
    assert (tmp_path / "nve.jsonl").read_bytes() == before
    run(crystal(1), toy_potential(), config, tmp_path, name="second")
    replaced = run(crystal(1), toy_potential(), quiet(ensemble="nve", steps=1), tmp_path, overwrite=True)
    assert isinstance(replaced, MDRun)
    assert len(lines(tmp_path / "nve.jsonl")) == 4


def test_an_unknown_element_is_named_before_an_old_run_is_removed(tmp_path: Path) -> None:
    run(crystal(1), toy_potential(), quiet(steps=1), tmp_path)
    with pytest.raises(UnknownElementError, match="Au"):
        run(bulk("Au"), toy_potential(), quiet(steps=1), tmp_path, overwrite=True)
    assert lines(tmp_path / "nvt.jsonl")[-1]["reason"] == "finished"


def test_npt_needs_a_volume_and_no_constraints() -> None:
    with pytest.raises(StressError, match="not periodic"):
        run(ase.Atoms("Cu2", [[0, 0, 0], [2.4, 0, 0]]), toy_potential(), quiet(ensemble="npt"))
    fixed = crystal(1)
    fixed.set_constraint(FixAtoms([0]))
    with pytest.raises(ConfigError, match="constraints"):
        run(fixed, toy_potential(), quiet(ensemble="npt"))
    nvt = run(fixed, toy_potential(), quiet(steps=5))
    assert np.array_equal(nvt.atoms.positions[0], fixed.positions[0])


def test_settings_that_make_no_sense_are_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'timestep_fs'"):
        MDConfig.parse({"timestep": 1.0})
    with pytest.raises(ConfigError, match="0 K"):
        MDConfig.parse({"thermostat": "bussi", "temperature_K": 0.0})
    with pytest.raises(ConfigError, match="no atoms"):
        run(ase.Atoms(), toy_potential())
