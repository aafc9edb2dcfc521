"""Runs of many structures at once are the runs of each alone."""

from __future__ import annotations

import json
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from ase.build import bulk, fcc111
from ase.constraints import FixAtoms

from adatom.errors import CheckpointError, ConfigError, SimulationError
from adatom.potential import Potential
from adatom.sim import md
from adatom.sim.md import MDConfig, run
from adatom.sim.md_many import ManyMDStep, run_many
from toy import Toy, ToyConfig, toy_potential


def structures() -> list[ase.Atoms]:
    given = [bulk("Cu", cubic=True), fcc111("Cu", (1, 1, 3), vacuum=6.0), ase.Atoms("Cu2", [[0, 0, 0], [0, 0, 2.3]])]
    given[1].set_constraint(FixAtoms([0]))
    given[1].info = {}  # what fcc111 says of sites is not for files
    return given


@pytest.mark.parametrize(
    "settings",
    [
        {"ensemble": "nve"},
        {"ensemble": "nvt"},
        {"ensemble": "nvt", "thermostat": "bussi"},
        {"ensemble": "nvt", "final_temperature_K": 900.0},
    ],
)
def test_each_run_is_the_run_of_its_structure_alone(settings: dict[str, object]) -> None:
    config = MDConfig.parse({"steps": 12, "log_every": 4, "compile": "off", "seed": 5} | settings)
    found = run_many(structures(), toy_potential(), config).require_finished()
    for k, (start, one) in enumerate(zip(structures(), found.replicas, strict=True)):
        alone = run(start, toy_potential(), config.model_copy(update={"seed": 5 + k}))
        np.testing.assert_allclose(one.atoms.get_positions(), alone.atoms.get_positions(), atol=1e-9)
        np.testing.assert_allclose(one.atoms.get_momenta(), alone.atoms.get_momenta(), atol=1e-8)
        for ours, theirs in zip(one.thermo, alone.thermo, strict=True):
            assert ours.step == theirs.step
            assert ours.temperature_K == pytest.approx(theirs.temperature_K, abs=1e-6)
            assert ours.total_eV == pytest.approx(theirs.total_eV, abs=1e-8)
            assert ours.pressure_GPa == pytest.approx(theirs.pressure_GPa, abs=1e-7, nan_ok=True)


def test_energy_is_conserved_in_every_structure() -> None:
    config = MDConfig(ensemble="nve", steps=200, timestep_fs=1.0, log_every=20, compile="off")
    found = run_many(structures(), toy_potential(), config)
    for one in found.require_finished().replicas:
        totals = [line.total_eV for line in one.thermo]
        assert np.ptp(totals) < 2e-3 * len(one.atoms)
        assert np.ptp([line.potential_eV for line in one.thermo]) > 5.0 * np.ptp(totals)


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    config = MDConfig(ensemble="nvt", steps=20, log_every=5, trajectory_every=5, compile="off")

    def stop(step: ManyMDStep) -> None:
        if step.structure_steps >= 30:
            raise KeyboardInterrupt

    whole = run_many(structures(), toy_potential(), config, tmp_path / "whole")
    for room in (4, 512):  # one after the other, and together
        folder = tmp_path / str(room)
        with pytest.raises(KeyboardInterrupt):
            run_many(structures(), toy_potential(), config, folder, atoms_per_batch=room, progress=stop)
        with pytest.raises(ConfigError, match="exists already"):
            run_many(structures(), toy_potential(), config, folder)
        again = run_many(structures(), toy_potential(), config, folder, restart=True)
        for one, other in zip(again.replicas, whole.replicas, strict=True):
            np.testing.assert_allclose(one.atoms.get_positions(), other.atoms.get_positions(), atol=1e-9)
            assert one.files is not None
            assert other.files is not None
            assert len(ase.io.read(one.files.trajectory, ":")) == len(ase.io.read(other.files.trajectory, ":")) == 5
            steps = [json.loads(line).get("step") for line in one.files.log.read_text().splitlines()]
            assert [step for step in steps if step is not None] == [0, 5, 10, 15, 20]
    hotter = config.model_copy(update={"temperature_K": 500.0})
    with pytest.raises(CheckpointError, match="other settings"):
        run_many(structures(), toy_potential(), hotter, tmp_path / "whole", restart=True)


def test_one_that_leaves_physical_ground_stops_alone_and_says_why(tmp_path: Path) -> None:
    close = ase.Atoms("Cu2", [[0, 0, 0], [0, 0, 1.7]])  # flies apart, hotter than anything
    config = MDConfig(ensemble="nve", steps=30, temperature_K=10.0, max_temperature_K=1000.0, compile="off")
    found = run_many([bulk("Cu", cubic=True), close], toy_potential(), config, tmp_path)
    assert [one.finished for one in found.replicas] == [True, False]
    assert found.replicas[1].steps < 30
    assert "temperature ran away" in found.replicas[1].ending
    assert "temperature ran away" in (tmp_path / "nve-1.jsonl").read_text().splitlines()[-1]
    with pytest.raises(SimulationError, match="1 of 2 runs were stopped"):
        found.require_finished()


def test_constant_pressure_is_refused_not_ignored() -> None:
    with pytest.raises(ConfigError, match="fixed cells"):
        run_many([bulk("Cu")], toy_potential(), MDConfig(ensemble="npt"))
    with pytest.raises(ConfigError, match="no atoms"):
        run_many([], toy_potential())


def test_a_longer_restart_keeps_the_code_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_many(structures(), toy_potential(), MDConfig(steps=4), tmp_path, "run")
    monkeypatch.setattr(md, "WORTH_COMPILING", 0.0)  # as if the rest were worth it
    done = run_many(structures(), toy_potential(), MDConfig(steps=8), tmp_path, "run", restart=True)
    assert [one.steps for one in done.replicas] == [8, 8, 8]


def test_a_start_without_a_number_is_on_record(tmp_path: Path) -> None:
    endless = Potential(Toy(ToyConfig()), {29: float("inf")})
    done = run_many(structures()[:1], endless, MDConfig(steps=4, compile="off"), tmp_path, "run")
    assert not done.replicas[0].finished
    lines = [json.loads(line) for line in (tmp_path / "run-0.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["start", "end"]
    assert "no number" in lines[-1]["reason"]
    assert not (tmp_path / "run-0.restart.npz").exists()
