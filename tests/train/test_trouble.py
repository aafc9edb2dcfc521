"""Numbers that are none are named, skipped, rolled back, and end a run with their reason; memory that ends does not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from adatom.data.dataset import Dataset
from adatom.errors import MemoryLimitError, TrainingError
from adatom.graph import Graph, Results
from adatom.train import checkpoint
from adatom.train.loop import Trainer
from adatom.train.step import Backward
from adatom.train.trouble import ROLLBACKS, SETTLED, STRIKES, Trouble, blame
from toy import toy_potential
from train.runs import configuration, log, run, slices


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return slices(tmp_path_factory.mktemp("data"), 14, 2)


def poison(monkeypatch: pytest.MonkeyPatch, bad: int) -> list[str]:
    """One structure of the training set has positions that are no numbers whenever it comes into a batch; its name."""
    names, whole = [], Dataset.batch

    def spoiled(self: Dataset, indices: Any) -> tuple[Graph, Results]:
        graph, label = whole(self, indices)
        if len(self) < 10 or bad not in list(indices):
            return graph, label
        names[:] = [self.names[bad]]
        its = (graph.owner == list(indices).index(bad)).unsqueeze(1)
        return graph.replace(positions=torch.where(its, torch.nan, graph.positions)), label

    monkeypatch.setattr(Dataset, "batch", spoiled)
    return names


def test_a_structure_that_gives_no_number_is_named_and_the_run_ends_well(
    data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = poison(monkeypatch, 3)
    folder = run(configuration(data, limits={"epochs": 4}), tmp_path)
    told = log(folder, "not finite")
    assert [record["structures"] for record in told] == [names] * 4, "once in each epoch, and nobody else"
    assert [record["answer"] for record in told] == ["skip", "skip", "roll back", "skip"]
    assert all(record["reason"].startswith("first in network.") for record in told)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["not_finite"] == {"steps_not_taken_for": {names[0]: 4}, "rollbacks": 1}
    assert math.isfinite(metrics["test"]["forces_rmse_meV_per_A"])


def test_detect_stops_at_the_first_and_names_the_layer(
    data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = poison(monkeypatch, 3)
    with pytest.raises(TrainingError, match="no longer a finite number") as caught:
        run(configuration(data, limits={"epochs": 4}, detect=True), tmp_path)
    assert names[0] in str(caught.value.where)
    assert "first in network." in str(caught.value.got)
    assert len(log(tmp_path / "run", "not finite")) == 1


def test_weights_go_back_to_what_they_were_and_the_rate_is_halved(
    data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights blown up once, in step 7: three steps later the run is where it began, at half the rate."""
    update = Trainer._update
    rates: dict[int, float] = {}
    begun: list[Tensor] = []

    def blown(self: Trainer, found: Any, lr: float, *others: Any) -> None:
        begun[:] = begun or [p.detach().clone() for p in self.potential.parameters()]
        rates[self.state.step] = lr
        update(self, found, lr, *others)
        if self.state.step == 7:
            with torch.no_grad():
                for p in self.potential.parameters():
                    p.mul_(1e30)
        if self.state.step == 7 + STRIKES:
            assert all(torch.equal(p, old) for p, old in zip(self.potential.parameters(), begun, strict=True))
            assert not self.optimizer.state

    monkeypatch.setattr(Trainer, "_update", blown)
    constant = {"warmup_steps": 0, "final_lr": 1.0, "lr": 1e-3}
    folder = run(configuration(data, limits={"steps": 16}, optimizer=constant), tmp_path)
    assert [record["answer"] for record in log(folder, "not finite")] == ["skip"] * (STRIKES - 1) + ["roll back"]
    assert [rates[k] for k in (0, 7, 10, 11, 15)] == pytest.approx([1e-3, 1e-3, 1e-3, 5e-4, 5e-4])
    state = checkpoint.read(folder / checkpoint.CHECKPOINT).state
    assert state["trouble"]["rate"] == 0.5
    assert math.isfinite(json.loads((folder / "metrics.json").read_text())["test"]["forces_rmse_meV_per_A"])


def test_the_answers_get_sterner_and_are_forgotten() -> None:
    trouble = Trouble()
    answers = [trouble.struck(["a"], step) for step in range(STRIKES * (ROLLBACKS + 1))]
    assert answers == ([*["skip"] * (STRIKES - 1), "roll back"] * ROLLBACKS) + ["skip"] * (STRIKES - 1) + ["stop"]
    assert trouble.rate == 0.5**ROLLBACKS
    trouble = Trouble()
    for step in range(20):
        assert trouble.struck(["a"], step) == "skip"
        for _ in range(200):
            trouble.passed()
    assert trouble.skipped == {"a": 20}
    assert trouble.told() == "steps were not taken for 1 structures: a (20 times)"
    assert Trouble().told() == ""


def test_a_spike_stands_out_from_what_is_usual_and_a_trend_does_not() -> None:
    random, trouble = np.random.default_rng(0), Trouble()
    for step in range(2000):
        assert not trouble.spike(math.exp(-step / 300) * random.lognormal(0.0, 0.5), random.lognormal(1.0, 0.5))
    assert trouble.spike(1.0, 3.0), "a hundred times the loss"
    assert not trouble.spike(1e-3, 3.0)
    assert trouble.spike(1e-3, 300.0)
    trouble.changed()
    assert not any(trouble.spike(100.0, 3.0) for _ in range(SETTLED)), "other weights of the loss"
    assert trouble.spikes == 2


class Root(nn.Module):
    """Finite, with a derivative that is not, where its argument is zero."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * 0.0).sqrt()


class Overflow(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / (x - x)


@pytest.mark.parametrize(("layer", "said"), [(Overflow(), "first in network.odd (Overflow)"), (Root(), "MulBackward0")])
def test_layer_and_operation_are_named(layer: nn.Module, said: str) -> None:
    potential = toy_potential().train()
    potential.network.add_module("odd", layer)
    parameter = next(p for p in potential.network.parameters() if p.is_floating_point())
    told = blame(potential, lambda: layer(parameter.sum()).sum() + parameter.sum())
    assert said in told
    assert blame(potential, lambda: parameter.sum()) == ""


# --- memory -----------------------------------------------------------------------------------------------------------


def short(monkeypatch: pytest.MonkeyPatch, atoms: int) -> list[int]:
    """A machine that holds so many atoms at once; what was tried."""
    tried, value = [], Backward.value

    def limited(self: Backward, graph: Graph, *others: Any, **named: Any) -> Tensor:
        tried.append(graph.numbers.shape[0])
        if graph.numbers.shape[0] > atoms:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried ..."
            )
        return value(self, graph, *others, **named)

    monkeypatch.setattr(Backward, "value", limited)
    return tried


def test_a_batch_that_does_not_fit_is_cut_and_the_result_is_the_same(
    data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = configuration(data, precision="float64", batch={"atoms": 60}, limits={"steps": 12})
    whole = run(values, tmp_path / "whole")
    tried = short(monkeypatch, 20)
    cut = run(values, tmp_path / "cut")
    assert max(tried) > 40
    assert [record["atoms_at_once"] for record in log(cut, "memory")][-1] <= 20
    assert sum(atoms > 20 for atoms in tried) <= 3, "the lower budget is kept"
    theirs = load_file(whole / "model.adatom")
    far = max(float((t - theirs[name]).abs().max()) for name, t in load_file(cut / "model.adatom").items())
    assert far < 1e-10
    assert [r["loss"] for r in log(cut, "step")] == pytest.approx([r["loss"] for r in log(whole, "step")], rel=1e-10)


def test_a_structure_that_does_not_fit_by_itself_is_named(
    data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short(monkeypatch, 6)
    with pytest.raises(MemoryLimitError, match="one structure alone") as caught:
        run(configuration(data), tmp_path)
    assert "train.xyz:" in str(caught.value.where)


def test_other_errors_are_not_taken_for_want_of_memory(
    data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Backward, "value", broken)
    with pytest.raises(RuntimeError, match="illegal"):
        run(configuration(data), tmp_path)
