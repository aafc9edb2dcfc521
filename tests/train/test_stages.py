"""Two stages in one run: a direct head first, the gradient after it, and no difference when a run is interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import adatom
from adatom.errors import ConfigError
from adatom.graph import collate
from adatom.models import MODELS, read_model
from adatom.neighbors import graph_from_atoms
from adatom.potential import Potential
from adatom.report.learning import learning_figures
from adatom.report.load import load_run
from adatom.train import checkpoint
from adatom.train.config import TrainConfig
from adatom.train.loop import Trainer
from adatom.train.stages import stages_of, swapped
from adatom.train.step import Gradients
from narrow import NARROW
from toy import Toy
from train.runs import NETWORK, configuration, frames, log, run, slices

STEPS, BORDER = 12, 8  # the first stage takes 0.6 of the steps: it ends as soon as that much is spent
TWO = {"schedule": "direct-then-conservative", "limits": {"steps": STEPS}, "validate_every": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return slices(tmp_path_factory.mktemp("data"), 12, 2)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]) -> Path:
    """Two stages, undisturbed."""
    return run(configuration(data, **TWO), tmp_path_factory.mktemp("runs"))


def config(data: dict[str, Any], **changes: Any) -> TrainConfig:
    return TrainConfig.parse(configuration(data, **{**TWO, **changes}))


# --- settings ---------------------------------------------------------------------------------------------------------


def test_one_stage_is_the_run_as_it_is_written(data: dict[str, Any]) -> None:
    single = config(data, schedule="single")
    (stage,) = stages_of(single)
    assert (stage.name, stage.model, stage.loss, stage.optimizer, stage.end) == (
        "", single.model, single.loss, single.optimizer, 1.0,
    )  # fmt: skip


def test_the_second_stage_is_gentler_and_has_the_late_weights(data: dict[str, Any]) -> None:
    two = config(data, optimizer={"lr": 4e-3, "warmup_steps": 7})
    direct, conservative = stages_of(two)
    assert (direct.name, direct.end, direct.model.derivatives) == ("direct", 0.6, "direct")
    assert (conservative.name, conservative.end, conservative.model) == ("conservative", 1.0, two.model)
    assert (direct.optimizer.lr, conservative.optimizer.lr) == (4e-3, 2e-3)
    assert direct.optimizer.warmup_steps == conservative.optimizer.warmup_steps == 7
    assert direct.loss.late is None
    assert conservative.loss == two.loss


def test_every_setting_of_a_stage_can_be_given(data: dict[str, Any]) -> None:
    own = {"lr": 0.5, "final_lr": 0.2, "warmup_steps": 0, "loss": {"kind": "l1", "energy": 3.0, "late": None}}
    direct, conservative = stages_of(config(data, stages={"share": 0.8, "direct": own, "conservative": {"lr": 0.1}}))
    assert (direct.end, direct.optimizer.lr, direct.optimizer.final_lr) == (0.8, 0.5, 0.2)
    assert (direct.optimizer.warmup_steps, direct.loss.kind, direct.loss.energy) == (0, "l1", 3.0)
    assert (conservative.optimizer.lr, conservative.loss.kind) == (0.1, "huber")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schedule": "direct-then-conserve"}, "did you mean 'direct-then-conservative'"),
        ({"stages": {"share": 1.0}}, "stages.share"),
        ({"stages": {"shares": 0.5}}, r"'stages\.shares': did you mean 'share'"),
        ({"schedule": "single", "stages": {"share": 0.5}}, "stages are those of schedule: direct-then-conservative"),
        ({"model": {**NETWORK, "derivatives": "direct"}}, r"leave model\.derivatives out"),
        ({"model": {**NETWORK, "form": "paper"}}, "mlanet of the form paper has no gradient forces"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], said: str, data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=said):
        config(data, **changes)


def test_an_architecture_without_heads_is_refused_before_it_is_trained(
    data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "toy", Toy)
    with pytest.raises(ConfigError, match="Toy has no direct head"):
        run(configuration(data, **TWO, model={"architecture": "toy"}), tmp_path)


# --- the swap ---------------------------------------------------------------------------------------------------------


def test_the_swap_keeps_every_weight_reference_scale_and_prior() -> None:
    torch.manual_seed(0)
    model = read_model({**NETWORK, "derivatives": "direct"})
    before = Potential(MODELS["mlanet"](model).double(), {14: -5.4}, 0.3, derivatives="direct", card={"a": 1}).eval()
    after = swapped(before, model.with_derivatives("gradient")).eval()
    assert (after.derivatives, after.network.claims.conservative, after.card) == ("gradient", True, {"a": 1})
    kept = before.network.state_dict()
    assert all(torch.equal(kept[name], t) for name, t in after.network.state_dict().items())
    graph = collate([graph_from_atoms(atoms, 4.0) for atoms in frames("train")[:2]])
    with torch.no_grad():
        torch.testing.assert_close(after(graph).energy, before(graph).energy, rtol=1e-12, atol=0)


def test_a_weight_that_was_never_trained_is_refused() -> None:
    small = read_model(NETWORK)
    potential = Potential(MODELS["mlanet"](small), {14: -5.4})
    with pytest.raises(ConfigError, match=r"none for body\.") as caught:
        swapped(potential, read_model({**NETWORK, "layers": 2}))
    assert caught.value.where == "schedule"


# --- a run ------------------------------------------------------------------------------------------------------------


def test_the_log_names_the_stage_of_every_record(finished: Path) -> None:
    steps, valid, (border,) = log(finished, "step"), log(finished, "valid"), log(finished, "stage")
    assert (border["stage"], border["after"], border["step"]) == ("conservative", "direct", BORDER)
    for record in [*steps, *valid]:
        assert record["stage"] == ("direct" if record["step"] <= BORDER else "conservative")
    assert {record["stage"] for record in valid} == {"direct", "conservative"}
    assert log(finished, "start")[0]["schedule"] == "direct-then-conservative"
    assert (valid[-1]["step"], len(log(finished, "end"))) == (STEPS, 1)


def test_the_model_that_is_left_is_conservative(finished: Path) -> None:
    card = adatom.info(finished / "model.adatom")
    assert (card["derivatives"], card["claims"]["conservative"]) == ("gradient", True)
    assert card["training"]["schedule"] == "direct-then-conservative"
    assert not [name for name in load_file(finished / "model.adatom") if "direct" in name]
    saved = json.loads((finished / "metrics.json").read_text())
    last = log(finished, "valid")[-1]
    assert saved["valid"]["forces_rmse_meV_per_A"] == pytest.approx(last["forces_rmse_meV_per_A"], rel=1e-5)


@pytest.mark.parametrize("architecture", sorted(MODELS))
def test_every_default_form_trains_in_two_stages(architecture: str, data: dict[str, Any], tmp_path: Path) -> None:
    model = {"architecture": architecture, "cutoff": 4.0, **NARROW[architecture]["default"]}
    folder = run(configuration(data, **{**TWO, "limits": {"steps": 3}}, model=model), tmp_path)
    assert [record["stage"] for record in log(folder, "valid")] == ["direct", "conservative"]
    potential = adatom.load(folder / "model.adatom")
    assert (potential.derivatives, potential.network.claims.conservative) == ("gradient", True)
    assert json.loads((folder / "metrics.json").read_text())["test"]["stress_rmse_GPa"] > 0


def test_the_second_stage_warms_up_anew_to_half_the_rate(data: dict[str, Any], tmp_path: Path) -> None:
    rates: list[tuple[int, float]] = []
    update = Trainer._update

    def watched(self: Trainer, found: Gradients, lr: float, *others: Any) -> None:
        rates.append((self.state.stage, lr))
        update(self, found, lr, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_update", watched)
        run(configuration(data, **TWO, optimizer={"lr": 8e-3, "warmup_steps": 2, "final_lr": 1.0}), tmp_path)
    assert [stage for stage, _ in rates] == [0] * BORDER + [1] * (STEPS - BORDER)
    wanted = [4e-3] + [8e-3] * (BORDER - 1) + [2e-3] + [4e-3] * (STEPS - BORDER - 1)
    assert [lr for _, lr in rates] == pytest.approx(wanted)


def test_the_report_shows_the_border(finished: Path) -> None:
    history = load_run(finished).history
    assert history is not None
    assert history.borders == ((float(BORDER), "conservative"),)
    for figure in learning_figures(history):
        assert [shape["x0"] for shape in figure.layout["shapes"]] == [BORDER]
        assert figure.layout["annotations"][0]["text"] == "conservative"
    best = min(r["energy_rmse_meV_per_atom"] for r in log(finished, "valid") if r["stage"] == "conservative")
    energy = next(f for f in learning_figures(history) if f.name == "learning-energy")
    assert energy.note.split()[-2] == f"{best:.3g}"


def test_patience_ends_a_stage_and_not_the_run(data: dict[str, Any], tmp_path: Path) -> None:
    still = {"lr": 1e-30, "warmup_steps": 0}
    changes = {**TWO, "validate_every": 1, "patience": 1, "limits": {"epochs": 20}, "optimizer": still}
    folder = run(configuration(data, **changes), tmp_path)
    (border,) = log(folder, "stage")
    assert border["reason"] == "no improvement in 1 validations"
    assert log(folder, "end")[0]["reason"] == "no improvement in 1 validations"
    assert border["epoch"] == 2
    assert log(folder, "end")[0]["best_step"] > border["step"]


def test_a_run_that_is_over_before_its_second_stage_ends_there(data: dict[str, Any], tmp_path: Path) -> None:
    folder = run(configuration(data, **{**TWO, "limits": {"steps": 1}}), tmp_path)
    assert [record["step"] for record in log(folder, "step")] == [1]
    assert [(record["stage"], record["step"]) for record in log(folder, "valid")] == [
        ("direct", 1), ("conservative", 1),
    ]  # fmt: skip
    assert adatom.info(folder / "model.adatom")["derivatives"] == "gradient"


# --- going on ---------------------------------------------------------------------------------------------------------


def swaps(written: list[checkpoint.Checkpoint]) -> bool:
    """The last checkpoint is the first of the second stage."""
    return [saved.state["stage"] for saved in written[-2:]] == [0, 1]


@pytest.mark.parametrize(
    "moment",
    [
        lambda written: len(written) == 3,
        lambda written: len(written) > 1 and written[-1].state["step"] == BORDER and not written[-1].state["stage"],
        swaps,
        lambda written: written[-1].state["step"] == BORDER + 2,
    ],
    ids=["in the first stage", "before the border", "behind the border", "in the second stage"],
)
@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(
    moment: Any, keep: str, data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = configuration(data, **TWO, keep=keep, checkpoint_minutes=1e-9)
    whole = run(values, tmp_path / "whole")
    written: list[checkpoint.Checkpoint] = []
    write_checkpoint = checkpoint.write

    def die(parts: checkpoint.Checkpoint, path: Path) -> None:
        write_checkpoint(parts, path)
        written.append(parts)
        if moment(written):
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write", die)
    with pytest.raises(KeyboardInterrupt):
        run(values, tmp_path / "parts")
    monkeypatch.undo()
    resumed = run(values, tmp_path / "parts", resume=True)
    ours, theirs = (load_file(folder / "model.adatom") for folder in (resumed, whole))
    assert set(ours) == set(theirs)
    assert all(torch.equal(t, ours[name]) for name, t in theirs.items())
    assert log(resumed, "step")[-1]["lr"] == log(whole, "step")[-1]["lr"]
    assert log(resumed, "valid")[-1]["loss"] == log(whole, "valid")[-1]["loss"]
    assert load_run(resumed).history.borders == load_run(whole).history.borders  # type: ignore[union-attr]


def test_a_finished_run_of_two_stages_goes_on_in_the_second(data: dict[str, Any], tmp_path: Path) -> None:
    folder = run(configuration(data, **TWO), tmp_path)
    again = run(configuration(data, **{**TWO, "limits": {"steps": STEPS + 3}}), tmp_path, resume=True)
    assert again == folder
    assert log(again, "step")[-1]["step"] == STEPS + 3
    assert log(again, "step")[-1]["stage"] == "conservative"
    assert len(log(again, "stage")) == 1


def test_a_run_does_not_go_on_with_other_stages(finished: Path, data: dict[str, Any]) -> None:
    changed = configuration(data, **TWO, stages={"share": 0.7})
    with pytest.raises(adatom.AdatomError, match=r"begun with another stages\.share"):
        run(changed, finished.parent, resume=True)
