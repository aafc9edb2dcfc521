"""Ctrl-C: the step in hand is finished, a checkpoint written, and the run goes on later as if nothing had been."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from adatom import model_file
from adatom.errors import ConfigError
from adatom.train import checkpoint
from adatom.train.config import TrainConfig
from adatom.train.interrupt import REQUEUE, Stopped, StopRequests, duration, stop_requests
from adatom.train.loop import Trainer
from test_cli import call
from train.runs import configuration, log, run, slices

TWO = {"schedule": "direct-then-conservative", "limits": {"steps": 9}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return slices(tmp_path_factory.mktemp("data"), 12, 2)


def press(monkeypatch: pytest.MonkeyPatch, at: int, number: signal.Signals = signal.SIGINT) -> None:
    """Ctrl-C, or another signal, in the middle of a step."""
    update = Trainer._update

    def pressed(self: Trainer, *arguments: Any) -> None:
        if self.state.step == at:
            signal.raise_signal(number)
        update(self, *arguments)

    monkeypatch.setattr(Trainer, "_update", pressed)


@pytest.mark.parametrize("at", [0, 2, 6], ids=["first step", "last of an epoch", "second stage"])
def test_a_run_that_was_stopped_goes_on_bit_by_bit(
    at: int, data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = configuration(data, **TWO)
    whole = run(values, tmp_path / "whole")
    press(monkeypatch, at)
    with pytest.raises(Stopped):
        run(values, tmp_path / "parts")
    monkeypatch.undo()
    saved = checkpoint.read(tmp_path / "parts" / "run" / checkpoint.CHECKPOINT)
    assert saved.state["step"] == at + 1
    resumed = run(values, tmp_path / "parts", resume=True)
    theirs = load_file(whole / "model.adatom")
    assert all(torch.equal(t, theirs[name]) for name, t in load_file(resumed / "model.adatom").items())
    assert log(resumed, "step")[-1]["step"] == 9


def test_the_command_says_how_to_go_on(
    data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(yaml.safe_dump(configuration(data, limits={"steps": 6})))
    press(monkeypatch, 3)
    assert call("train", "config.yaml") == 130
    said = capsys.readouterr()
    assert "Ctrl-C: stopped at step 4; all of it is kept: go on with --resume" in said.out
    assert "Traceback" not in said.out + said.err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert call("train", "config.yaml", "--resume") == 0
    assert Path("runs/run/model.adatom").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_batch_system_that_ends_a_job_is_told_to_start_it_again(
    number: signal.Signals,
    data: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(yaml.safe_dump(configuration(data, **TWO)))
    assert call("train", "config.yaml", "--folder", "alone") == 0
    press(monkeypatch, 3, number)
    assert call("train", "config.yaml", "--resume-or-start") == REQUEUE == 99
    assert f"{number.name}: stopped at step 4" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert call("train", "config.yaml", "--resume-or-start") == 0
    theirs = load_file("alone/run/model.adatom")
    assert all(torch.equal(t, theirs[name]) for name, t in load_file("runs/run/model.adatom").items())


def test_a_limit_of_time_saves_and_says_to_start_again(
    data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(yaml.safe_dump(configuration(data, limits={"steps": 1000000})))
    for session in range(2):
        assert call("train", "config.yaml", "--resume-or-start", "--max-time", "1s") == REQUEUE
        assert "max_time: stopped at step" in capsys.readouterr().out
        assert len(log(Path("runs/run"), "start")) == session + 1
    steps = [record["step"] for record in log(Path("runs/run"), "step")]
    assert steps == sorted(set(steps)), "the second session went on where the first one ended"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90m", 5400), ("1.5h", 5400), ("2d", 172800), ("45s", 45), ("10", 600), ("3:50:00", 13800), ("5:30", 330),
     ("1-12:00:00", 129600), ("1-12:00", 129600)],
)  # fmt: skip
def test_times_are_written_as_people_and_batch_systems_do(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "3 hours", "-5m", "0", "1:2:3:4", "12:5"])
def test_what_is_no_time_is_refused(text: str, data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="max_time"):
        TrainConfig.parse(configuration(data, max_time=text))


def test_a_time_that_yaml_reads_to_the_base_of_sixty_is_meant_as_written(data: dict[str, Any]) -> None:
    values = configuration(data) | yaml.safe_load("max_time: 23:50:00")
    assert TrainConfig.parse(values).seconds_at_most == 23 * 3600 + 50 * 60


def test_a_second_one_does_not_wait() -> None:
    def twice(asked: StopRequests) -> None:
        assert not asked.reason()
        signal.raise_signal(signal.SIGINT)
        assert asked.reason() == "Ctrl-C"
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stop_requests() as asked:
        twice(asked)
    assert signal.getsignal(signal.SIGINT) is before


def test_elsewhere_than_in_the_main_thread_signals_are_left_alone() -> None:
    said: list[str] = []

    def inside() -> None:
        with stop_requests() as asked:
            said.append(asked.reason())

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert said == [""]


def test_the_configuration_in_the_run_folder_is_whole_or_not_there(
    data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up while it is written."""
    write = model_file.write_atomically

    def fill(path: Path, content: bytes) -> Path:
        if Path(path).name == "config.yaml":
            monkeypatch.setattr(os, "fsync", no_space)
        return write(path, content)

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_file, "write_atomically", fill)
    with pytest.raises(checkpoint.CheckpointError, match="No space left on device"):
        run(configuration(data, limits={"steps": 1}), tmp_path)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [checkpoint.CHECKPOINT]
