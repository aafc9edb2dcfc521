"""The one training loop: CPU, one GPU or many, every architecture."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from adatom.compile import Compiler
from adatom.data.dataset import Dataset, batches
from adatom.errors import TrainingError
from adatom.graph import Graph, Results
from adatom.potential import Potential
from adatom.train import checkpoint
from adatom.train.config import Limits, TrainConfig
from adatom.train.evaluate import predict
from adatom.train.finetune import learning_rates, set_factors
from adatom.train.forgetting import Probe
from adatom.train.interrupt import stop_requests
from adatom.train.loss import loss
from adatom.train.optimize import RunningAverage, Schedule, make_optimizer
from adatom.train.progress import Progress
from adatom.train.stages import Stage, stages_of, swapped

LOG = "log.jsonl"
SHOW_SECONDS = 0.5  # least time between two step records
WORTH_COMPILING = 300.0  # s of eager training, roughly: compiling takes one or two minutes
SECONDS_PER_ATOM, LEAST_SECONDS = 4e-4, 0.01  # of one eager step, roughly; a fixed figure: a resumed run must agree


class Stopped(KeyboardInterrupt):
    """Ctrl-C, after the step in hand was finished and a checkpoint was written."""


@dataclass
class State:
    """Where a run stands; all of it goes into a checkpoint."""

    step: int = 0
    epoch: int = 0
    batch: int = 0  # next batch of this epoch
    seconds: float = 0.0  # of training, by the clock of the limits
    best_loss: float = math.inf
    best_step: int = 0
    stale: int = 0  # validations since the best
    stage: int = 0  # which of the stages
    stage_step: int = 0  # first step of this stage
    stage_start: float = 0.0  # fraction of the limits that was spent before this stage
    schedule: dict[str, float] = field(default_factory=dict)


@dataclass
class Tally:
    """Steps since the last record of the log."""

    start: float  # seconds
    loss: float = 0.0  # summed over steps
    steps: int = 0
    structures: int = 0
    lr: float = 0.0  # of the last step


class Clock:
    """Seconds spent, of this and of resumed sessions, wall or CPU time."""

    def __init__(self, limits: Limits, spent: float) -> None:
        self.read: Callable[[], float] = time.process_time if limits.clock == "cpu" else time.monotonic
        self.start = self.read() - spent

    def seconds(self) -> float:
        """Training time so far."""
        return self.read() - self.start


def progress_of(limits: Limits, state: State, epochs: float) -> float:
    """Largest fraction of any limit that is used up."""
    spent = [(limits.epochs, epochs), (limits.steps, state.step), (limits.minutes, state.seconds / 60)]
    return max(used / limit for limit, used in spent if limit is not None)


class Trainer:
    """Fits a potential to a training set, stage after stage; ``run`` receives log and checkpoints.

    ``potential`` is that of the stage in hand, to begin with the first. After ``fit`` it is that of the last one and
    carries the averaged weights: the last ones, or those of the lowest validation loss, as ``config.keep_best`` says.
    """

    def __init__(
        self,
        config: TrainConfig,
        potential: Potential,
        train_set: Dataset,
        valid_set: Dataset | None,
        run: Path,
        fabric: Fabric,
        identity: dict[str, Any],
    ) -> None:
        self.config, self.run, self.fabric = config, run, fabric
        self.identity = identity  # what must be the same when the run goes on
        self.probe: Probe | None = None  # of what was known before
        self.train_set, self.valid_set = train_set, valid_set
        self.stages = stages_of(config)
        self.state = State()
        self._take(potential)

    def _take(self, potential: Potential) -> None:
        """Optimiser, schedule and averages of a stage, all anew, for its potential."""
        self.potential, stage = potential, self.stage
        potential.runner = Compiler(0.0, training=True) if self._compiles() else None
        optimizer = make_optimizer(stage.optimizer, (p for p in potential.parameters() if p.requires_grad))
        if self.config.finetune is not None:
            set_factors(optimizer, potential, learning_rates(potential, self.config.finetune.layer_decay))
        self.module, self.optimizer = self.fabric.setup(potential, optimizer)
        self.average = RunningAverage(potential.parameters(), stage.optimizer.ema)
        self.best: list[Tensor] = [t.clone() for t in self.average.average]
        self.schedule = Schedule(stage.optimizer)

    @property
    def stage(self) -> Stage:
        """The stage in hand."""
        return self.stages[self.state.stage]

    def resume(self) -> None:
        """Go on from the checkpoint of this run folder; CheckpointError when it is of other data or settings."""
        path = self.run / checkpoint.CHECKPOINT
        saved = checkpoint.read(path)
        checkpoint.same_run(saved.state.pop("run", {}), self.identity, path)
        self.state = State(**saved.state)
        if self.state.stage > 0:
            self._take(swapped(self.potential, self.stage.model))
        checkpoint.scatter(saved, self.potential.network, self._averages(), self.optimizer.optimizer)
        self.schedule.restore(self.state.schedule)

    def fit(self, display: Progress) -> str:
        """Train until a limit is reached; returns which one."""
        clock = Clock(self.config.limits, self.state.seconds)
        self._saved = time.monotonic()
        with stop_requests() as self._stop_asked:
            if self.config.finetune is not None and self.state.step == 0:
                self._validate(display)  # what the old model says of the new data
                self._look_back(display)
            while True:
                self._compile(display)
                reason = self._fit_stage(clock, display)
                if self.config.keep_best and self.valid_set is not None:
                    self.average.average = self.best
                self.average.write(self.average.average)
                if self.state.stage + 1 == len(self.stages):
                    break
                self._next_stage(reason)
        self.potential.runner = None
        self.log({"kind": "end", "seconds": self.state.seconds, "reason": reason, "best_step": self.state.best_step})
        return reason

    def _compiles(self) -> bool:
        """Whether steps are compiled: decided by configuration and data alone, so that a resumed run does the same."""
        if self.config.compile != "auto":
            return self.config.compile == "on"
        plan, limits = batches(self.train_set, self.config.batch, self.config.seed, 0), self.config.limits
        atoms = float(self.train_set.atoms.sum()) / max(len(plan), 1)
        step = max(LEAST_SECONDS, SECONDS_PER_ATOM * atoms)
        ends = [limits.steps and limits.steps * step, limits.epochs and limits.epochs * len(plan) * step]
        ends.append(limits.minutes and 60 * limits.minutes)
        return min(end for end in ends if end is not None) > WORTH_COMPILING

    def _compile(self, display: Progress) -> None:
        """Make the program of this stage before its first step, from the same batch in a new run and a resumed one."""
        runner = self.potential.runner
        if not isinstance(runner, Compiler):
            return
        display.say("compiling the training step ...")
        graph, _ = self.train_set.batch(batches(self.train_set, self.config.batch, self.config.seed, 0)[0])
        self.module.train()
        weights = self.stage.loss.weights(1.0)
        self.potential(graph.to(self.fabric.device), forces=True, stress=weights.stress > 0)
        self.optimizer.zero_grad()
        self.log({"kind": "compile", "seconds": runner.seconds, "dropped": runner.dropped})
        if not runner.dropped:
            display.say(f"compiled in {runner.seconds:.0f} s; energies, forces and gradients agree with float64")

    def _fit_stage(self, clock: Clock, display: Progress) -> str:
        """Epochs until this stage is over; returns why."""
        reason = ""
        while not reason:
            reason = self._epoch(clock, display)
            if self.state.epoch % self.config.validate_every == 0 or reason:
                self._validate(display)
                patience = self.config.patience
                if not reason and patience is not None and self.state.stale >= patience:
                    reason = f"no improvement in {patience} validations"
                reason = self._look_back(display) or reason
            if reason or self._overdue():
                self.save()
        return reason

    def _next_stage(self, reason: str) -> None:
        """Swap the network for that of the next stage; it starts with the weights this one leaves."""
        before, state = self.stage.name, self.state
        spent, _ = self._spent(state.epoch + state.batch / len(self._plan()))
        self.state = State(
            step=state.step, epoch=state.epoch, batch=state.batch, seconds=state.seconds,
            stage=state.stage + 1, stage_step=state.step, stage_start=spent, best_step=state.step,
        )  # fmt: skip
        self._take(swapped(self.potential, self.stage.model))
        self.log({
            "kind": "stage", "stage": self.stage.name, "after": before, "reason": reason, "step": state.step,
            "epoch": state.epoch, "seconds": state.seconds,
        })  # fmt: skip
        self.save()

    def save(self) -> None:
        """Write a checkpoint."""
        self._saved = time.monotonic()
        if self.fabric.is_global_zero:
            self.state.schedule = self.schedule.state()
            state = asdict(self.state) | {"run": self.identity}
            parts = checkpoint.gather(self.potential.network, self._averages(), self.optimizer.optimizer, state)
            checkpoint.write(parts, self.run / checkpoint.CHECKPOINT)

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to the log."""
        if self.fabric.is_global_zero:
            with checkpoint.disk(self.run / LOG), (self.run / LOG).open("a") as file:
                file.write(json.dumps({k: _finite(v) for k, v in record.items()}) + "\n")

    def _averages(self) -> dict[str, list[Tensor]]:
        kept = {"kept": self.probe.kept} if self.probe is not None and self.probe.kept else {}
        return {"average": self.average.average, "best": self.best, **kept}

    _stop_asked: Callable[[], bool] = staticmethod(lambda: False)
    _saved: float = 0.0  # when the last checkpoint was written, or training began

    def _overdue(self) -> bool:
        return time.monotonic() - self._saved > 60 * self.config.checkpoint_minutes

    def _plan(self) -> list[list[int]]:
        """Batches of this epoch for this process."""
        plan = batches(self.train_set, self.config.batch, self.config.seed, self.state.epoch)
        return _share(plan, self.fabric.global_rank, self.fabric.world_size)

    def _spent(self, epochs: float) -> tuple[float, float]:
        """Fractions of the limits, and of what they leave to this stage, that are used up."""
        whole = self._agreed(progress_of(self.config.limits, self.state, epochs))
        start, end = self.state.stage_start, self.stage.end
        return whole, 1.0 if whole >= end else max(whole - start, 0.0) / max(end - start, 1e-12)

    def _epoch(self, clock: Clock, display: Progress) -> str:
        """One pass over the training set; the reason to stop, or nothing."""
        state, plan = self.state, self._plan()
        self.module.train()
        tally = Tally(clock.seconds())
        while state.batch < len(plan):
            state.seconds = clock.seconds()
            whole, fraction = self._spent(state.epoch + state.batch / len(plan))
            if fraction >= 1.0:
                self._tell(tally, clock, whole, display)
                return "limit reached"
            tally.lr = self.schedule.lr(state.step - state.stage_step, fraction)
            tally.loss += self._step(plan[state.batch], tally.lr, fraction)
            tally.steps, tally.structures = tally.steps + 1, tally.structures + len(plan[state.batch])
            state.step, state.batch = state.step + 1, state.batch + 1
            if clock.seconds() - tally.start > SHOW_SECONDS or state.batch == len(plan):
                self._tell(tally, clock, whole, display)
                tally = Tally(clock.seconds())
            if state.batch < len(plan) and self._overdue():  # an epoch of a large set can last for hours
                self.save()
            if self._any(self._stop_asked()):
                state.seconds = clock.seconds()
                self.save()
                raise Stopped
        state.epoch, state.batch = state.epoch + 1, 0
        state.seconds = clock.seconds()
        return "limit reached" if self._spent(state.epoch)[1] >= 1.0 else ""

    def _tell(self, tally: Tally, clock: Clock, fraction: float, display: Progress) -> None:
        """Log and show the steps since the last record, if there were any."""
        if tally.steps == 0:
            return
        now = clock.seconds()
        record = {
            "kind": "step", "step": self.state.step, "epoch": self.state.epoch, "lr": tally.lr,
            "loss": tally.loss / tally.steps, "seconds": now,
            "structures_per_s": tally.structures * self.fabric.world_size / max(now - tally.start, 1e-9),
            **self._named(),
        }  # fmt: skip
        self.log(record)
        display.step(record, fraction)

    def _step(self, indices: list[int], lr: float, fraction: float) -> float:
        """One update; the loss."""
        stage = self.stage
        graph, label = self.train_set.batch(indices)
        graph, label = graph.to(self.fabric.device), Results(*(t.to(self.fabric.device) for t in label))
        weights = stage.loss.weights(fraction)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_factor", 1.0)
        self.optimizer.zero_grad()
        predicted = self.module(graph, forces=weights.forces > 0, stress=weights.stress > 0)
        value = loss(stage.loss, weights, graph, predicted, label)
        if self._any(not torch.isfinite(value.detach())):
            raise self._diverged(indices, float(value.detach()))
        self.fabric.backward(value)
        norm = self.fabric.clip_gradients(
            self.module, self.optimizer, max_norm=stage.optimizer.clip, error_if_nonfinite=False
        )
        if self._any(norm is not None and not torch.isfinite(norm)):
            raise self._diverged(indices, math.nan if norm is None else float(norm))
        self.optimizer.step()
        self.average.update(self.state.step - self.state.stage_step)
        return float(value.detach())

    def _validate(self, display: Progress) -> None:
        """Errors of the averaged weights on the validation set; keeps the best weights."""
        state = self.state
        if self.valid_set is None:
            return
        with self.average.applied():
            predictions = predict(self.potential, self.valid_set, self.config.batch, self.fabric.device)
            graph = _whole(self.valid_set)
            weights = self.stage.loss.weights(1.0)
            value = float(loss(self.stage.loss, weights, graph, predictions.predicted, predictions.label))
        value = self._agreed(value)  # it decides on the best weights, the learning rate and the end
        self.schedule.observe(value)
        if value < state.best_loss:
            state.best_loss, state.best_step, state.stale = value, state.step, 0
            self.best = [t.clone() for t in self.average.average]
        else:
            state.stale += 1
        record = {
            "kind": "valid", "step": state.step, "epoch": state.epoch, "seconds": state.seconds, "loss": value,
            **predictions.errors(), **self._named(),
        }  # fmt: skip
        self.log(record)
        display.valid(record)

    def _look_back(self, display: Progress) -> str:
        """Measure what was forgotten; the reason to stop when it is more than there may be, with the weights before."""
        probe = self.probe
        if probe is None:
            return ""
        with self.average.applied():
            record = probe.look(self.potential)
        self.log({"kind": "forgetting", "step": self.state.step, "epoch": self.state.epoch, **record})
        if not self._any(probe.passed()):
            probe.kept = [t.clone() for t in self.average.average]
            return ""
        probe.stopped = True
        self.average.average = self.best = probe.kept
        said = f"errors on the probe have grown {record['ratio']:.2f} times, beyond {probe.config.bound:g}"
        display.say(f"stopped: {said}; the last weights within the bound are kept")
        return said

    def _named(self) -> dict[str, str]:
        """What a record says of the stage it belongs to, where there are several."""
        return {"stage": self.stage.name} if len(self.stages) > 1 else {}

    def _agreed(self, here: float) -> float:
        """The number of the first process: clocks and last digits differ, decisions must not."""
        return here if self.fabric.world_size == 1 else self.fabric.broadcast(here)

    def _any(self, here: bool) -> bool:
        """True when any process says so: one that leaves alone would have the others wait for ever."""
        if self.fabric.world_size == 1:
            return here
        votes = self.fabric.all_reduce(torch.tensor(float(here), device=self.fabric.device), reduce_op="sum")
        return float(votes) > 0  # type: ignore[arg-type]

    def _diverged(self, indices: list[int], value: float) -> TrainingError:
        names = ", ".join(self.train_set.names[i] for i in indices[:8])
        return TrainingError(
            "training diverged: the loss or its gradient is no longer a finite number",
            where=f"epoch {self.state.epoch}, step {self.state.step}, structures {names}",
            wanted="a finite loss",
            got=f"{value} in process {self.fabric.global_rank} of {self.fabric.world_size}",
            remedy="lower optimizer.lr or optimizer.clip, look at these structures; the last checkpoint is in place",
        )


def _share(plan: list[list[int]], rank: int, world: int) -> list[list[int]]:
    """The batches of one process.

    The first ones come twice where the count does not divide, so that all take equal steps.
    """
    if world == 1:
        return plan
    even = plan + plan[: -len(plan) % world]
    return even[rank::world]


def _whole(dataset: Dataset) -> Graph:
    """Just enough of a graph over all structures for the loss: who owns which atom."""
    counts = torch.tensor([g.numbers.shape[0] for g in dataset.graphs])
    first = dataset.graphs[0]
    return first.replace(
        owner=torch.repeat_interleave(torch.arange(len(counts)), counts), cell=first.cell.new_zeros(len(counts), 3, 3)
    )


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
