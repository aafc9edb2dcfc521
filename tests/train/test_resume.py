"""Runs that were stopped, finished or killed go on as if nothing had been, or say why they cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from adatom.errors import CheckpointError, ConfigError
from adatom.train import checkpoint
from adatom.train.config import TrainConfig
from adatom.train.loop import Trainer
from train.runs import NETWORK, STILL, configuration, log, run, slices


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return slices(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]) -> Path:
    """A run that went through; tests read it and leave it as it is."""
    return run(configuration(data, limits={"steps": 40}, loss={"late": None}), tmp_path_factory.mktemp("runs"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.adatom")


def metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def test_an_existing_run_is_not_overwritten(finished: Path, data: dict[str, Any]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.iterdir()}
    with pytest.raises(ConfigError, match="nothing is overwritten") as caught:
        run(configuration(data), finished.parent)
    assert caught.value.where == str(finished)
    assert "--resume" in str(caught.value.remedy)
    assert {path: path.stat().st_mtime_ns for path in finished.iterdir()} == before


def test_there_must_be_something_to_resume(data: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no checkpoint to resume from"):
        run(configuration(data), tmp_path, resume=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("after", [1, 3, 11], ids=["before the first step", "in the first epoch", "later"])
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(
    after: int, data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies right after some checkpoint; with limits in steps all that follows is the same, bit by bit."""
    values = configuration(data, checkpoint_minutes=1e-9)
    whole = run(values, tmp_path / "whole")
    written, write_checkpoint = [], checkpoint.write

    def die(*arguments: Any) -> None:
        write_checkpoint(*arguments)
        written.append(arguments)
        if len(written) == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write", die)
    with pytest.raises(KeyboardInterrupt):
        run(values, tmp_path / "parts")
    monkeypatch.undo()
    assert not (tmp_path / "parts" / "run" / "model.adatom").exists()
    resumed = run(values, tmp_path / "parts", resume=True)
    ours, theirs = weights(resumed), weights(whole)
    assert all(torch.equal(t, ours[name]) for name, t in theirs.items())
    keys = ("train", "valid", "test")
    assert [metrics(resumed)[k] for k in keys] == [metrics(whole)[k] for k in keys]
    assert log(resumed, "step")[-1]["lr"] == log(whole, "step")[-1]["lr"]
    assert log(resumed, "valid")[-1]["loss"] == log(whole, "valid")[-1]["loss"]
    assert len(log(resumed, "start")) == (2 if after > 1 else 1)  # the first checkpoint stands before the log


def test_a_run_goes_on_from_the_checkpoint_before_a_broken_one_as_if_it_had_been_whole(
    data: dict[str, Any], tmp_path: Path
) -> None:
    values = configuration(data, limits={"steps": 12}, checkpoint_minutes=1e-9)
    whole = run(values, tmp_path / "whole")
    half = tmp_path / "half"
    run({**values, "limits": {"steps": 12}}, half)
    (half / "run" / "model.adatom").unlink()
    last = half / "run" / checkpoint.CHECKPOINT
    last.write_bytes(last.read_bytes()[:-100])
    assert checkpoint.last(half / "run")[1].state["step"] < 12
    resumed = run(values, half, resume=True)
    theirs = weights(whole)
    assert all(torch.equal(t, theirs[name]) for name, t in weights(resumed).items())
    assert [r["loss"] for r in log(resumed, "step")] == [r["loss"] for r in log(whole, "step")]


def test_a_plateau_is_remembered_when_a_run_goes_on(data: dict[str, Any], tmp_path: Path) -> None:
    plateau = {**STILL, "schedule": "plateau", "plateau_patience": 1, "plateau_factor": 0.25}
    values = configuration(data, optimizer=plateau, batch={"atoms": 1000})
    run({**values, "limits": {"epochs": 3}}, tmp_path)
    folder = run({**values, "limits": {"epochs": 5}}, tmp_path, resume=True)
    rates = [record["lr"] for record in log(folder, "step")]
    assert rates == pytest.approx([1e-30, 1e-30, 1e-30, 0.25e-30, 0.25e-30], abs=0)


def test_a_finished_run_goes_on_when_its_limit_is_raised(data: dict[str, Any], tmp_path: Path) -> None:
    run(configuration(data, limits={"steps": 5}), tmp_path)
    folder = run(configuration(data, limits={"steps": 9}), tmp_path, resume=True)
    assert log(folder, "step")[-1]["step"] == 9
    assert TrainConfig.load(folder / "config.yaml").limits.steps == 9


@pytest.mark.parametrize(
    ("entry", "change"),
    [
        ("data.split.seed", {"data": {"split": {"valid": 4, "seed": 2}}}),
        ("data.split.valid", {"data": {"split": {"valid": 6, "seed": 1}}}),
        ("data.references.Si", {"data": {"references": {"Si": -1.0}}}),
        ("model.channels", {"model": {**NETWORK, "channels": 16}}),
        ("loss.forces", {"loss": {"forces": 3.0}}),
        ("optimizer.ema", {"optimizer": {"warmup_steps": 4, "ema": 0.95}}),
        ("seed", {"seed": 5}),
    ],
)
def test_a_run_goes_on_with_the_settings_it_was_begun_with(
    entry: str, change: dict[str, Any], finished: Path, data: dict[str, Any]
) -> None:
    before = {path: path.read_bytes() for path in finished.iterdir()}
    values = configuration(data, limits={"steps": 41}, loss={"late": None})
    changed = values | change | {"data": values["data"] | change.get("data", {})}
    if "loss" in change:
        changed["loss"] = {"late": None, **change["loss"]}
    with pytest.raises(CheckpointError, match=f"begun with another {entry},") as caught:
        run(changed, finished.parent, resume=True)
    assert str(caught.value.wanted).startswith(f"{entry} = ")
    assert str(caught.value.got).startswith(f"{entry} = ")
    assert "config.yaml" in str(caught.value.remedy)
    assert {path: path.read_bytes() for path in finished.iterdir()} == before, "nothing was touched"


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_run_does_not_go_on_with_other_structures(
    part: str, finished: Path, data: dict[str, Any], tmp_path: Path
) -> None:
    other = slices(tmp_path, 23, 5)
    values = configuration({**data, part: other[part]}, limits={"steps": 41}, loss={"late": None})
    with pytest.raises(CheckpointError, match=f"begun with another data.{part},"):
        run(values, finished.parent, resume=True)


def test_a_run_goes_on_when_its_files_have_moved_and_its_machine_is_another(
    data: dict[str, Any], tmp_path: Path
) -> None:
    run(configuration(data, limits={"steps": 1}), tmp_path)
    moved = slices(tmp_path)
    other = {"limits": {"steps": 2}, "threads": None, "checkpoint_minutes": 1.0, "patience": 7, "validate_every": 2}
    folder = run(configuration(moved, **other), tmp_path, resume=True)
    assert log(folder, "step")[-1]["step"] == 2


def test_a_run_that_dies_in_its_first_step_can_go_on(
    data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_update", die)
    with pytest.raises(KeyboardInterrupt):
        run(configuration(data, limits={"steps": 2}), tmp_path)
    monkeypatch.undo()
    assert checkpoint.read(tmp_path / "run" / checkpoint.CHECKPOINT).state["step"] == 0
    folder = run(configuration(data, limits={"steps": 2}), tmp_path, resume=True)
    assert len(log(folder, "start")) == 2
    assert log(folder, "step")[-1]["step"] == 2


@pytest.mark.parametrize("name", ["config.yaml", "data.json", "log.jsonl", "metrics.json", "predictions.npz"])
def test_a_file_that_cannot_be_written_is_named(name: str, data: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "run" / name).mkdir(parents=True)  # a folder in its place: opening or replacing it fails
    if name == "log.jsonl":
        (tmp_path / "run" / name).rmdir()
        (tmp_path / "run" / name).symlink_to("/nowhere/log.jsonl")
    with pytest.raises(CheckpointError, match="a file of the run could not be written") as caught:
        run(configuration(data, limits={"steps": 1}), tmp_path)
    assert caught.value.where == str(tmp_path / "run" / name)
    assert "--resume" in str(caught.value.remedy)
