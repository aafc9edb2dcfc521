"""Copies of the log for other programs; their packages are extras, and tests that need them are skipped without."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from adatom.errors import ConfigError
from adatom.train import loggers
from adatom.train.log import LOG
from adatom.train.loggers import curves, make_loggers
from train.runs import configuration, run, slices

RECORDS = [
    {"kind": "start", "device": "cpu", "parameters": 12},
    {"kind": "step", "step": 1, "epoch": 0, "loss": 2.5, "lr": 0.01},
    {"kind": "step", "step": 2, "epoch": 0, "loss": 1.5, "lr": 0.02},
    {"kind": "valid", "step": 2, "epoch": 1, "loss": math.nan, "forces_rmse_meV_per_A": 80.25, "stage": "direct"},
]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_curves_are_the_finite_numbers_of_records_that_have_a_step() -> None:
    assert curves(RECORDS[0]) == {}
    assert curves(RECORDS[1]) == {"step/epoch": 0.0, "step/loss": 2.5, "step/lr": 0.01}
    assert curves(RECORDS[3]) == {"valid/epoch": 1.0, "valid/forces_rmse_meV_per_A": 80.25}


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=rf"pip install 'adatom\[{name}\]'"):
        make_loggers([name], tmp_path, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("default")
def test_tensorboard_reads_back_what_was_logged(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (logger,) = make_loggers(["tensorboard"], tmp_path, {"name": "x", "optimizer": {"lr": 0.1}})
    for record in RECORDS:
        logger.log(record)
    logger.close()
    found = scalars(tmp_path / "tensorboard")
    assert found["step/loss"] == [(1, 2.5), (2, 1.5)]
    assert found["valid/forces_rmse_meV_per_A"] == [(2, 80.25)]


@pytest.mark.filterwarnings("default")
def test_tensorboard_hides_the_steps_that_a_resumed_run_takes_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for start, values in ((0, {1: 5.0, 2: 4.0, 3: 3.0}), (1, {2: 4.5, 3: 3.5})):
        (logger,) = make_loggers(["tensorboard"], tmp_path, {}, step=start)
        for step, value in values.items():
            logger.log({"kind": "step", "step": step, "loss": value})
        logger.close()
    assert scalars(tmp_path / "tensorboard")["step/loss"] == [(1, 5.0), (2, 4.5), (3, 3.5)]


@pytest.mark.filterwarnings("default")
def test_a_run_draws_what_its_log_holds(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    folder = run(configuration(slices(tmp_path), loggers=["tensorboard"]), tmp_path)
    logged = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    found = scalars(folder / "tensorboard")
    wanted = [(r["step"], pytest.approx(r["loss"])) for r in logged if r["kind"] == "valid"]
    assert wanted
    assert found["valid/loss"] == wanted


def test_a_run_with_a_logger_that_is_not_installed_is_refused_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda package: None)
    with pytest.raises(ConfigError, match="wandb"):
        run(configuration(slices(tmp_path), loggers=["wandb"]), tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def quiet_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return


@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("quiet_wandb")
def test_weights_and_biases_writes_a_run_without_a_network(tmp_path: Path) -> None:
    run = tmp_path / "silicon"
    run.mkdir()
    (logger,) = make_loggers(["wandb"], run, {"seed": 3})
    for record in RECORDS:
        logger.log(record)
    logger.close()
    (kept,) = (run / "wandb").glob("offline-run-*/run-silicon.wandb")
    content = kept.read_bytes()
    assert b"valid/forces_rmse_meV_per_A" in content
    assert b"80.25" in content
