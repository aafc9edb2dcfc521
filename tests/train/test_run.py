"""Whole runs on slices of the silicon set: what they leave, how they end when something is wrong."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import adatom
from adatom import model_file
from adatom.data.dataset import Budget, Dataset
from adatom.data.read import read
from adatom.errors import AdatomError, ConfigError, DataError, LabelError, LeakError, TrainingError
from adatom.train import checkpoint
from adatom.train.config import TrainConfig
from adatom.train.evaluate import predict
from train.runs import NETWORK, STILL, configuration, frames, log, run, slices, write


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


# --- what a run leaves ------------------------------------------------------------------------------------------------


def test_the_loss_falls(finished: Path) -> None:
    training = [record["loss"] for record in log(finished, "step")]
    validation = [record["loss"] for record in log(finished, "valid")]
    assert np.mean(training[-2:]) < 0.9 * training[0]
    assert validation[-1] < 0.75 * validation[0]


def test_the_folder_is_complete(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "config.yaml", "data.json", "log.jsonl", "checkpoint.safetensors", "checkpoint.before.safetensors",
        "model.adatom", "card.json",
        "predictions.npz", "valid_predictions.npz", "metrics.json", "report.html",
    }  # fmt: skip


def test_the_log_tells_start_steps_validations_and_end(finished: Path) -> None:
    (start,), (end,) = log(finished, "start"), log(finished, "end")
    assert start["architecture"] == "mlanet"
    assert start["device"] == "cpu"
    assert start["parameters"] == sum(t.numel() for t in weights(finished).values())
    assert end["reason"] == "limit reached"
    steps, valid = log(finished, "step"), log(finished, "valid")
    assert steps[-1]["step"] == valid[-1]["step"] == 40
    assert [record["step"] for record in steps] == sorted({record["step"] for record in steps})
    assert all(record["structures_per_s"] > 0 and record["lr"] > 0 for record in steps)
    assert end["best_step"] == min(valid, key=lambda record: record["loss"])["step"]


def test_metrics_are_the_errors_of_the_model_file(finished: Path, data: dict[str, Any]) -> None:
    structures, _ = read(data["test"])
    potential = adatom.load(finished / "model.adatom")
    again = predict(potential, Dataset(structures, potential.cutoff), Budget())
    saved = metrics(finished)
    assert saved["test"] == pytest.approx(again.errors(), rel=1e-6)
    assert set(saved) == {"train_seconds", "train", "valid", "test"}
    assert adatom.info(finished / "model.adatom")["errors"] == {part: saved[part] for part in ("valid", "test")}
    with np.load(finished / "predictions.npz") as arrays:
        assert arrays["names"].tolist() == [s.name for s in structures]
        np.testing.assert_allclose(arrays["forces"], again.predicted.forces.numpy(), atol=1e-5)
        np.testing.assert_array_equal(arrays["energy_ref"], [s.energy for s in structures])


def test_after_a_cosine_the_model_is_the_last_average(finished: Path) -> None:
    last = log(finished, "valid")[-1]
    assert metrics(finished)["valid"]["forces_rmse_meV_per_A"] == pytest.approx(last["forces_rmse_meV_per_A"], rel=1e-5)


def test_the_data_record_tells_files_splits_elements_and_references(finished: Path) -> None:
    record = json.loads((finished / "data.json").read_text())
    assert record["splits"] == {"train": 20, "valid": 4, "test": 6}
    assert [(f["file"], f["split"], f["frames"]) for f in record["files"]] == [
        ("train.xyz", "train", 24), ("test.xyz", "test", 6),
    ]  # fmt: skip
    assert record["files"][0]["energy_key"] == "REF_energy"
    assert record["files"][0]["labelled"] == {"energy": 24, "forces": 24, "stress": 24}
    assert set(record["elements"]) == {"Si"}
    assert record["references"]["Si"]["source"] == "least squares"
    assert sum(record["config_types"]["train"].values()) == 20


def test_the_card_tells_what_the_model_was_made_of(finished: Path) -> None:
    card = json.loads((finished / "card.json").read_text())
    assert card["elements"] == ["Si"]
    assert card["data"]["files"] == ["test.xyz", "train.xyz"]
    assert card["data"]["fingerprint"] == json.loads((finished / "data.json").read_text())["fingerprint"]
    assert 1.5 < card["min_distance_A"]["Si-Si"] < 2.5
    assert set(card["versions"]) >= {"adatom", "torch", "python"}
    assert card == model_file.info(finished / "model.adatom")


def test_the_resolved_configuration_alone_repeats_the_run(finished: Path, tmp_path: Path) -> None:
    config = TrainConfig.load(finished / "config.yaml")
    assert config.model.mean_neighbours is not None
    assert config.model.channels == NETWORK["channels"]
    again = run(config.model_dump(mode="json"), tmp_path)
    assert all(torch.equal(t, weights(again)[name]) for name, t in weights(finished).items())


def test_a_seed_decides(finished: Path, data: dict[str, Any], tmp_path: Path) -> None:
    other = run(configuration(data, seed=1, limits={"steps": 1}), tmp_path)
    assert any(not torch.equal(t, weights(other)[name]) for name, t in weights(finished).items())


# --- what can be chosen -----------------------------------------------------------------------------------------------


def test_the_published_form_trains_with_direct_heads(data: dict[str, Any], tmp_path: Path) -> None:
    values = configuration(
        data, model={**NETWORK, "form": "paper"}, priors=[], loss={"kind": "l1", "late": None},
        optimizer={"lr": 5e-3, "warmup_steps": 4, "ema": 0.9}, limits={"steps": 40},
    )  # fmt: skip
    folder = run(values, tmp_path)
    validation = [record["loss"] for record in log(folder, "valid")]
    assert min(validation) < 0.8 * validation[0]
    card = adatom.info(folder / "model.adatom")
    assert card["derivatives"] == "direct"
    assert card["claims"]["conservative"] is False
    assert metrics(folder)["test"]["stress_rmse_GPa"] > 0


def test_references_given_by_hand_stand(data: dict[str, Any], tmp_path: Path) -> None:
    folder = run(configuration({**data, "references": {"Si": -4.25}}, limits={"steps": 1}), tmp_path)
    record = json.loads((folder / "data.json").read_text())
    assert record["references"]["Si"] == {"energy_eV": -4.25, "source": "given"}
    assert adatom.info(folder / "model.adatom")["references"] == {"Si": -4.25}


def test_a_validation_file_is_used_as_it_is_and_nothing_is_split_off(data: dict[str, Any], tmp_path: Path) -> None:
    own = write(tmp_path / "own.xyz", frames("train")[5:8])
    train = write(tmp_path / "train.xyz", frames("train")[20:30])
    files = {"train": [str(train)], "valid": [str(own)], "test": data["test"]}
    folder = run(configuration(files, limits={"steps": 1}), tmp_path)
    assert json.loads((folder / "data.json").read_text())["splits"] == {"train": 10, "valid": 3, "test": 6}
    with np.load(folder / "valid_predictions.npz") as arrays:
        assert arrays["names"].tolist() == ["own.xyz:0", "own.xyz:1", "own.xyz:2"]


def test_without_validation_the_last_average_is_the_model(data: dict[str, Any], tmp_path: Path) -> None:
    values = configuration(data, limits={"steps": 3}, precision="float64")
    values["data"]["split"] = {"valid": 0}
    values["data"]["test"] = []
    folder = run(values, tmp_path)
    assert log(folder, "valid") == []
    assert set(metrics(folder)) == {"train_seconds", "train"}
    assert not (folder / "predictions.npz").exists()
    saved = checkpoint.read(folder / checkpoint.CHECKPOINT).tensors
    averages = [saved[f"average.{k}"] for k in range(sum(name.startswith("average.") for name in saved))]
    potential = adatom.load(folder / "model.adatom")
    assert potential.dtype == torch.float64
    assert all(torch.equal(a, p) for a, p in zip(averages, potential.parameters(), strict=True))


def test_training_stops_early_when_validation_no_longer_improves(data: dict[str, Any], tmp_path: Path) -> None:
    folder = run(configuration(data, patience=2, optimizer=STILL, limits={"epochs": 30}), tmp_path)
    assert log(folder, "end")[0]["reason"] == "no improvement in 2 validations"
    assert len(log(folder, "valid")) == 3
    assert log(folder, "end")[0]["best_step"] == log(folder, "valid")[0]["step"]


def test_the_learning_rate_falls_on_a_plateau(data: dict[str, Any], tmp_path: Path) -> None:
    plateau = {**STILL, "schedule": "plateau", "plateau_patience": 1, "plateau_factor": 0.25}
    folder = run(configuration(data, optimizer=plateau, limits={"epochs": 5}, batch={"atoms": 1000}), tmp_path)
    rates = [record["lr"] for record in log(folder, "step")]
    assert rates == pytest.approx([1e-30, 1e-30, 1e-30, 0.25e-30, 0.25e-30], abs=0)


def test_validations_come_as_often_as_asked(data: dict[str, Any], tmp_path: Path) -> None:
    folder = run(configuration(data, validate_every=2, limits={"epochs": 5}, batch={"atoms": 1000}), tmp_path)
    assert [record["epoch"] for record in log(folder, "valid")] == [2, 4, 5]


def test_a_limit_in_minutes_ends_the_run(data: dict[str, Any], tmp_path: Path) -> None:
    folder = run(configuration(data, limits={"minutes": 1e-3, "epochs": 10_000, "clock": "cpu"}), tmp_path)
    assert log(folder, "end")[0]["reason"] == "limit reached"
    assert 0.06 <= metrics(folder)["train_seconds"] < 30


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_weights_of_the_best_validation_can_be_kept(
    keep: str, data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "same_run", lambda *_: None)  # the second part is made to get worse
    run(configuration(data, keep=keep, limits={"steps": 12}, loss={"late": None}), tmp_path)
    wild = {"lr": 0.5, "final_lr": 1.0, "warmup_steps": 0, "ema": 0.0}
    values = configuration(data, keep=keep, limits={"steps": 18}, loss={"late": None}, optimizer=wild)
    folder = run(values, tmp_path, resume=True)
    found = {record["step"]: record for record in log(folder, "valid")}
    best, last = min(found.values(), key=lambda record: record["loss"]), found[18]
    assert best["loss"] < 0.9 * last["loss"], "the test needs a run that got worse"
    wanted = {"best": best, "last": last}[keep]
    assert metrics(folder)["valid"]["forces_rmse_meV_per_A"] == pytest.approx(wanted["forces_rmse_meV_per_A"], rel=1e-5)
    assert log(folder, "end")[-1]["best_step"] == best["step"]


@pytest.mark.slow
def test_two_processes_train_one_model(data: dict[str, Any], tmp_path: Path) -> None:
    """The same command with ``devices=2``: one run folder, one log, one model that lives alone."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(configuration(data, batch={"atoms": 16}, devices=2)))
    command = Path(sys.executable).with_name("adatom")
    if not command.exists():
        pytest.skip("the package is not installed with its command")
    done = subprocess.run(
        [command, "train", "config.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "run"
    assert [record["processes"] for record in log(folder, "start")] == [2]
    assert [record["reason"] for record in log(folder, "end")] == ["limit reached"]
    validation = [record["loss"] for record in log(folder, "valid")]
    assert validation[-1] < validation[0]
    assert math.isfinite(metrics(folder)["test"]["forces_rmse_meV_per_A"])
    assert adatom.load(folder / "model.adatom").elements == [14]


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_diverging_run_stops_and_the_last_checkpoint_stays(
    data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "same_run", lambda *_: None)  # the second part is made to diverge
    folder = run(configuration(data, limits={"steps": 4}), tmp_path)
    before = (folder / checkpoint.CHECKPOINT).read_bytes()
    steep = {"lr": 1e25, "warmup_steps": 0, "clip": 1e30}
    with pytest.raises(TrainingError, match="no longer a finite number") as caught:
        run(configuration(data, limits={"steps": 40}, optimizer=steep), tmp_path, resume=True)
    assert "step" in str(caught.value.where)
    assert "train.xyz:" in str(caught.value.where)
    assert (folder / checkpoint.CHECKPOINT).read_bytes() == before
    again = run(configuration(data, limits={"steps": 6}), tmp_path, resume=True)
    assert math.isfinite(metrics(again)["test"]["forces_rmse_meV_per_A"])


@pytest.mark.parametrize("field", ["REF_forces", "REF_energy", "REF_stress"])
def test_a_label_that_the_loss_needs_is_asked_for_by_file_record_and_field(
    field: str, data: dict[str, Any], tmp_path: Path
) -> None:
    structures = [atoms.copy() for atoms in frames("train")[:6]]
    (structures[2].arrays if field == "REF_forces" else structures[2].info).pop(field)
    incomplete = write(tmp_path / "incomplete.xyz", structures)
    label = field.removeprefix("REF_")
    with pytest.raises(LabelError, match=f"the loss needs {label}, and 1 of") as caught:
        run(configuration({**data, "train": [str(incomplete)]}), tmp_path)
    assert caught.value.where == f"incomplete.xyz, frame 2, field '{label}'"
    assert f"set the {label} weight to 0" in str(caught.value.remedy)
    assert not (tmp_path / "run").exists(), "a run that never began leaves nothing"


def test_a_label_may_be_missing_where_that_is_allowed(data: dict[str, Any], tmp_path: Path) -> None:
    structures = [atoms.copy() for atoms in frames("train")[:6]]
    structures[2].info.pop("REF_stress")
    incomplete = write(tmp_path / "incomplete.xyz", structures)
    values = configuration({**data, "train": [str(incomplete)]}, loss={"allow_missing": ["stress"]})
    folder = run({**values, "limits": {"steps": 2}}, tmp_path)
    record = json.loads((folder / "data.json").read_text())
    assert record["files"][0]["labelled"]["stress"] == 5


def test_a_test_structure_in_the_training_set_is_a_leak(data: dict[str, Any], tmp_path: Path) -> None:
    leaky = write(tmp_path / "leaky.xyz", [*frames("train")[:6], frames("test")[0]])
    with pytest.raises(LeakError, match="1 of 6 test structures stand in the training set") as caught:
        run(configuration({**data, "train": [str(leaky)]}), tmp_path)
    assert caught.value.where == "test.xyz:0 = leaky.xyz:6"


def test_forces_of_the_wrong_sign_stop_a_run_before_it_starts(data: dict[str, Any], tmp_path: Path) -> None:
    structures = [atoms.copy() for atoms in frames("train")]
    for atoms in structures:
        atoms.arrays["REF_forces"] *= -1.0
    wrong = write(tmp_path / "wrong.xyz", structures)
    with pytest.raises(DataError, match="forces"):
        run(configuration({**data, "train": [str(wrong)]}), tmp_path)


def test_an_unknown_entry_names_the_nearest_one(data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'optimizer\.warm_up': did you mean 'warmup_steps'"):
        TrainConfig.parse(configuration(data, optimizer={"warm_up": 1}))
    with pytest.raises(ConfigError, match="did you mean 'limits'"):
        TrainConfig.parse({**configuration(data), "limit": {"steps": 1}})
    with pytest.raises(ConfigError, match="give at least one of epochs, steps and minutes"):
        TrainConfig.parse(configuration(data, limits={}))


def test_a_disk_that_is_full_in_mid_run_leaves_the_last_checkpoint(
    data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, write_checkpoint = [], checkpoint.write

    def fill(parts: checkpoint.Checkpoint, path: Path) -> None:
        if len(written) == 2:
            monkeypatch.setattr(os, "fsync", no_space)
        write_checkpoint(parts, path)
        written.append(parts.state["step"])

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write", fill)
    with pytest.raises(AdatomError, match="No space left on device"):
        run(configuration(data, checkpoint_minutes=1e-9), tmp_path)
    monkeypatch.undo()
    assert checkpoint.read(tmp_path / "run" / checkpoint.CHECKPOINT).state["step"] == written[-1]
    assert [path.name for path in (tmp_path / "run").iterdir() if path.name.endswith(".part")] == []
    assert log(run(configuration(data), tmp_path, resume=True), "step")[-1]["step"] == 18


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("recipe", sorted(ROOT.glob("configs/*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_trains(recipe: Path, tmp_path: Path) -> None:
    """Two steps of it, on a few structures."""
    config = TrainConfig.load(recipe)
    assert all((ROOT / path).exists() for path in (*config.data.train, *config.data.test))
    values = config.model_dump(mode="json") | {"limits": {"steps": 2}, "threads": 1}
    values["data"] |= slices(tmp_path, 8, 1) | {"split": {"valid": 1}}
    folder = run(values, tmp_path)
    assert math.isfinite(metrics(folder)["test"]["forces_rmse_meV_per_A"])
    assert adatom.info(folder / "model.adatom")["config"]["size"] == config.model.size
