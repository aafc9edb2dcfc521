"""What a run cannot do with this machine, these data or this name is refused before anything is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from adatom.errors import ConfigError
from adatom.train.config import TrainConfig
from adatom.train.parallel import accelerator_of
from train.runs import configuration, run, slices


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return slices(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("change", [{"patience": 3}, {"optimizer": {"schedule": "plateau"}}, {"keep": "best"}])
def test_what_goes_by_validations_needs_some(change: dict[str, Any], data: dict[str, Any], tmp_path: Path) -> None:
    values = configuration(data, **change)
    values["data"]["split"] = {"valid": 0}
    with pytest.raises(ConfigError, match="there is no validation set") as caught:
        run(values, tmp_path)
    assert caught.value.where in ("patience", "optimizer.schedule", "keep")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["../../x", "a/b", "/x", "", ".", "..", "a\\b", "a\0"])
def test_a_run_stays_in_its_folder(name: str, data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="a plain one"):
        TrainConfig.parse(configuration(data, name=name))


def machine(monkeypatch: pytest.MonkeyPatch, gpus: int, cores: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)


@pytest.mark.parametrize(
    ("gpus", "asked", "devices", "given"),
    [(0, "auto", 4, "cpu"), (2, "auto", 2, "cuda"), (2, "gpu", 1, "cuda"), (2, "cpu", 4, "cpu")],
)
def test_auto_is_cuda_or_the_processor(
    gpus: int, asked: str, devices: int, given: str, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, gpus, cores=4)
    config = TrainConfig.parse(configuration(data, accelerator=asked, devices=devices))
    assert accelerator_of(config, config.devices) == given


@pytest.mark.parametrize(
    ("gpus", "asked", "devices", "message"),
    [
        (0, "gpu", 1, "no GPU"),
        (0, "auto", 5, "at most 4, the CPU"),
        (2, "cpu", 5, "CPU"),
        (2, "auto", 3, "at most 2, the GPU"),
    ],
)
def test_devices_that_are_not_there_are_refused_before_anything_starts(
    gpus: int,
    asked: str,
    devices: int,
    message: str,
    data: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(monkeypatch, gpus, cores=4)
    with pytest.raises(ConfigError, match=message):
        run(configuration(data, accelerator=asked, devices=devices), tmp_path)
    assert not (tmp_path / "run").exists()
