"""The learning rate along a run, and the running average of the weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from adatom.errors import ConfigError
from adatom.train.optimize import OptimizerConfig, RunningAverage, Schedule, make_optimizer

COSINE = OptimizerConfig(lr=0.1, final_lr=0.02, warmup_steps=10)
PLATEAU = OptimizerConfig(
    lr=0.1, final_lr=0.2, warmup_steps=0, schedule="plateau", plateau_factor=0.5, plateau_patience=2
)


def test_the_learning_rate_warms_up_linearly() -> None:
    schedule = Schedule(COSINE)
    assert [schedule.lr(step, 0.0) for step in (0, 4, 9, 50)] == pytest.approx([0.01, 0.05, 0.1, 0.1])


def test_the_cosine_falls_from_the_full_to_the_final_rate() -> None:
    schedule = Schedule(COSINE)
    along = [schedule.lr(1000, progress) for progress in (0.0, 0.5, 1.0)]
    assert along == pytest.approx([0.1, 0.1 * (0.02 + 0.98 * 0.5), 0.002])
    many = [schedule.lr(1000, k / 20) for k in range(21)]
    assert many == sorted(many, reverse=True)
    assert schedule.lr(1000, 1.3) == pytest.approx(0.002), "a step beyond the limit does not start over"


def test_without_warm_up_the_first_step_is_taken_in_full() -> None:
    assert Schedule(OptimizerConfig(lr=0.1, warmup_steps=0)).lr(0, 0.0) == 0.1


def test_on_a_plateau_the_rate_falls_after_patience_and_not_below_the_final_one() -> None:
    schedule = Schedule(PLATEAU)
    rates = []
    for value in (3.0, 2.0, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5):
        schedule.observe(value)
        rates.append(schedule.lr(0, 0.9))
    wanted = [0.1] * 4 + [0.05] * 3 + [0.025] * 3 + [0.02] * 2
    assert rates == pytest.approx(wanted)


def test_an_improvement_starts_the_patience_anew() -> None:
    schedule = Schedule(PLATEAU)
    for value in (3.0, 3.1, 3.1, 2.9, 3.1, 3.1):
        schedule.observe(value)
    assert schedule.lr(0, 0.0) == pytest.approx(0.1)
    schedule.observe(3.1)
    assert schedule.lr(0, 0.0) == pytest.approx(0.05)


def test_a_loss_that_is_no_number_is_no_improvement() -> None:
    schedule = Schedule(PLATEAU)
    for value in (3.0, math.nan, math.nan, math.nan):
        schedule.observe(value)
    assert schedule.lr(0, 0.0) == pytest.approx(0.05)


def test_a_schedule_goes_on_where_it_stood() -> None:
    one, other = Schedule(PLATEAU), Schedule(PLATEAU)
    for value in (3.0, 3.1, 3.2, 3.3, 3.4):
        one.observe(value)
    other.restore(one.state())
    for schedule in (one, other):
        schedule.observe(3.5)
        schedule.observe(3.6)
    assert one.lr(0, 0.0) == other.lr(0, 0.0) == pytest.approx(0.025)


def test_the_average_follows_the_weights_with_its_decay() -> None:
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    average = RunningAverage([weight], decay=0.9)
    with torch.no_grad():
        weight.fill_(2.0)
    average.update(10_000)
    assert average.average[0].item() == pytest.approx(0.9 * 1.0 + 0.1 * 2.0)


def test_the_average_forgets_the_start_quickly() -> None:
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    average = RunningAverage([weight], decay=0.999)
    with torch.no_grad():
        weight.fill_(2.0)
    average.update(1)
    assert average.average[0].item() == pytest.approx(2.0 - 2 / 11)
    for step in range(2, 60):
        average.update(step)
    assert average.average[0].item() == pytest.approx(2.0, abs=1e-3)


def test_without_decay_the_average_is_the_weight_itself() -> None:
    weight = nn.Parameter(torch.randn(3))
    average = RunningAverage([weight], decay=0.0)
    with torch.no_grad():
        weight.mul_(-1.0)
    average.update(5)
    torch.testing.assert_close(average.average[0], weight.detach())


def test_the_average_stands_in_for_the_weights_and_gives_them_back_even_after_an_error() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    average = RunningAverage([weight], decay=0.9)
    with torch.no_grad():
        weight.fill_(5.0)
    with average.applied():
        assert weight.item() == 1.0
    assert weight.item() == 5.0
    with pytest.raises(RuntimeError, match="inside"), average.applied():
        raise RuntimeError("inside")
    assert weight.item() == 5.0


def test_the_optimiser_holds_every_parameter() -> None:
    network = nn.Linear(3, 2)
    optimizer = make_optimizer(OptimizerConfig(name="adamw", lr=0.3, weight_decay=0.1), network)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [p for group in optimizer.param_groups for p in group["params"]] == list(network.parameters())
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]) == (0.3, 0.1)


@pytest.mark.parametrize(
    "values", [{"lr": 0.0}, {"ema": 1.0}, {"schedule": "linear"}, {"final_lr": 0.0}, {"plateau_factor": 1.0}]
)
def test_impossible_settings_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        OptimizerConfig.parse(values)
