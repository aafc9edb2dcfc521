"""``adatom relax --all`` and ``adatom md --all``: many structures from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms
from typer.testing import CliRunner, Result

from adatom.cli import app
from adatom.errors import CheckpointError, ConfigError, SimulationError
from adatom.model_file import save
from adatom.models import MODELS
from adatom.sim import relax_many as module
from toy import Toy, toy_potential


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with toy.adatom and many.xyz: three crystals of copper, displaced, one with an atom held."""
    monkeypatch.setitem(MODELS, "toy", Toy)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    save(toy_potential(), tmp_path / "toy.adatom")
    given = [bulk("Cu", cubic=True), bulk("Cu"), bulk("Cu") * (1, 1, 3)]
    for atoms in given:
        atoms.rattle(0.05, seed=1)
        atoms.new_array("REF_forces", np.ones((len(atoms), 3)))
    given[2].set_constraint(FixAtoms([0]))
    ase.io.write(tmp_path / "many.xyz", given)
    return tmp_path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_all_are_written_in_their_order_with_how_they_ended(folder: Path) -> None:
    found = call("relax", "toy.adatom", "many.xyz", "--all", "--out", "out.xyz", "--json", "out.json")
    assert found.exit_code == 0, found.output
    assert "3 of 3 converged" in found.output
    assert "structures/s" in found.output
    given, frames = ase.io.read("many.xyz", ":"), ase.io.read("out.xyz", ":")
    assert [len(atoms) for atoms in frames] == [4, 1, 3]
    for atoms in frames:
        assert atoms.info["converged"]
        assert atoms.info["ending"] == "converged"
        assert np.abs(atoms.get_forces()).max() <= 0.01
        assert "REF_forces" not in atoms.arrays, "labels of where it stood before"
    np.testing.assert_allclose(frames[2].positions[0], given[2].positions[0], atol=1e-8)
    record = json.loads(Path("out.json").read_text())
    assert [one["atoms"] for one in record["structures"]] == [4, 1, 3]
    assert record["model"] == "toy.adatom"
    assert not list(folder.glob("*.part.jsonl"))


def test_one_that_does_not_converge_ends_with_an_error_and_all_are_written(folder: Path) -> None:
    found = call("relax", "toy.adatom", "many.xyz", "--all", "--steps", 1)
    assert isinstance(found.exception, SimulationError)
    assert "2 of 3 structures have not converged" in str(found.exception)
    assert [atoms.info["converged"] for atoms in ase.io.read("relaxed.xyz", ":")] == [False, True, False]


def test_a_run_that_was_stopped_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add, ends = module.Ended.add, []

    def stop(self: module.Ended, line: dict[str, object]) -> None:
        add(self, line)
        ends.append(line["number"])
        if len(ends) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(module.Ended, "add", stop)
    stopped = call("relax", "toy.adatom", "many.xyz", "--all")
    assert "go on with --restart" in stopped.output
    assert stopped.exit_code != 0
    assert isinstance(call("relax", "toy.adatom", "many.xyz", "--all").exception, ConfigError)
    again = call("relax", "toy.adatom", "many.xyz", "--all", "--restart")
    assert again.exit_code == 0, again.output
    assert sorted(ends) == [0, 1, 2], "none was done twice"
    assert len(ase.io.read("relaxed.xyz", ":")) == 3
    once_more = call("relax", "toy.adatom", "many.xyz", "--all", "--restart").exception
    assert "this run is finished" in str(once_more)


@pytest.mark.parametrize(
    "arguments",
    [["--symmetry"], ["--optimizer", "fire"], ["--cell"], ["--figure", "way.png"]],  # --cell: an atom is held
)
def test_what_many_at_once_cannot_do_is_refused(folder: Path, arguments: list[str]) -> None:
    found = call("relax", "toy.adatom", "many.xyz", "--all", *arguments)
    assert isinstance(found.exception, ConfigError), found.output
    assert not Path("relaxed.xyz").exists()


def test_dynamics_of_all_leave_files_of_each_and_go_on(folder: Path) -> None:
    command = ["md", "toy.adatom", "many.xyz", "--all", "--ensemble", "nve", "--log-every", "2"]
    found = call(*command, "--steps", 4)
    assert found.exit_code == 0, found.output
    assert "3 of 3 finished" in found.output
    assert {path.name for path in Path("md").glob("*.jsonl")} == {"nve-0.jsonl", "nve-1.jsonl", "nve-2.jsonl"}
    assert isinstance(call(*command, "--steps", 4).exception, ConfigError)
    assert call(*command, "--steps", 6, "--restart").exit_code == 0
    steps = [json.loads(line).get("step") for line in Path("md/nve-2.jsonl").read_text().splitlines()]
    assert [step for step in steps if step is not None] == [0, 2, 4, 6]
    assert isinstance(call(*command, "--folder", "other", "--restart").exception, CheckpointError)
    assert isinstance(call("md", "toy.adatom", "many.xyz", "--all", "--ensemble", "npt").exception, ConfigError)


def test_replicas_of_one_structure_go_ways_of_their_own(folder: Path) -> None:
    command = ["md", "toy.adatom", "many.xyz", "--replicas", 2, "--steps", 3, "--trajectory-every", 3]
    found = call(*command, "--supercell", 2, 1, 1)
    assert found.exit_code == 0, found.output
    ends = [ase.io.read(f"md/nvt-{k}.xyz") for k in range(2)]
    assert [len(atoms) for atoms in ends] == [6, 6]
    assert np.abs(ends[0].positions - ends[1].positions).max() > 1e-3
