"""The one training loop: CPU, one GPU or many, every architecture."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adatom.compile import Compiler
from adatom.data.dataset import Dataset, Plan, batches
from adatom.data.loader import load
from adatom.errors import CheckpointError, TrainingError
from adatom.potential import Potential
from adatom.train import checkpoint
from adatom.train.config import TrainConfig
from adatom.train.evaluate import measure
from adatom.train.finetune import learning_rates, set_factors
from adatom.train.forgetting import Probe
from adatom.train.interrupt import Stopped, StopRequests, stop_requests
from adatom.train.log import LOG, Log
from adatom.train.loss import Weights, counted
from adatom.train.optimize import RunningAverage, Schedule, make_optimizer
from adatom.train.parallel import Team
from adatom.train.progress import Progress
from adatom.train.stages import Stage, stages_of, swapped
from adatom.train.state import Clock, State, Tally, progress_of
from adatom.train.step import Backward, Gradients, Part
from adatom.train.trouble import blame

LOG_STEPS = 20  # between two step records: a number of steps, not of seconds, so that a resumed run logs the same
SHOW_SECONDS = 0.5  # least time between two updates of the display
WORTH_COMPILING = 150.0  # s of eager training, roughly: compiling takes a minute or two, steps a half or a third then
SECONDS_PER_ATOM, LEAST_SECONDS = 4e-4, 0.01  # of one eager step, roughly; a fixed figure: a resumed run must agree
LIMIT, STALE = "limit reached", "no improvement in"  # why a stage is over
NAMED = 8  # structures in a message


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
        team: Team,
        identity: dict[str, Any],
    ) -> None:
        self.config, self.run, self.team = config, run, team
        self.identity = identity  # what must be the same when the run goes on
        self.probe: Probe | None = None  # of what was known before
        self.train_set, self.valid_set = train_set, valid_set
        self.stages = stages_of(config)
        self.state = State()
        self.log = Log(run / LOG, silent=not team.first)
        self._stop = StopRequests()
        self._saved = time.monotonic()  # when the last checkpoint was written
        self._shown = 0.0  # when the display was last told of a step
        self._take(potential)

    def _take(self, potential: Potential) -> None:
        """Optimiser, schedule and averages of a stage, all anew, for its potential."""
        potential.to(self.team.device)
        self.potential, stage = potential, self.stage
        potential.runner = Compiler(0.0, training=True) if self._compiles() else None
        self.optimizer = make_optimizer(stage.optimizer, potential)
        if self.config.finetune is not None:
            set_factors(self.optimizer, potential, learning_rates(potential, self.config.finetune.layer_decay))
        self.backward = Backward(potential, self.train_set, stage.loss, self.team)
        self.backward.most = self.state.most
        self.average = RunningAverage(potential.parameters(), stage.optimizer.ema)
        self.best: list[Tensor] = [t.clone() for t in self.average.average]
        self._drop_anchor()
        self.schedule = Schedule(stage.optimizer)
        self.weights = stage.loss.weights(0.0)

    @property
    def stage(self) -> Stage:
        """The stage in hand."""
        return self.stages[self.state.stage]

    def resume(self) -> str:
        """Go on from the last whole checkpoint of this run folder; what is to be said of the choice.

        What the log says of later steps is cut off: they are taken again.

        Raises
        ------
        CheckpointError
            None is whole, or it is of other data or settings; lists the differences.
        """
        path, saved, remark = checkpoint.last(self.run)
        self.team.wait()  # all have read the same
        if self.team.first and remark:
            checkpoint.reinstate(self.run)
        checkpoint.same_run(saved.state.pop("run", {}), self.identity, path)
        self.state = State.restored(saved.state)
        if self.state.stage > 0:
            self._take(swapped(self.potential, self.stage.model))
        checkpoint.scatter(saved, self.potential.network, self._averages(), self.optimizer)
        self.schedule.restore(self.state.schedule)
        self.backward.most = self.state.most
        if self.team.first:
            self.log.cut(self.state.log_bytes)
        return remark

    def fit(self, display: Progress) -> str:
        """Train until a limit is reached; returns which one."""
        clock = Clock(self.config.limits, self.state.seconds)
        self._saved, begun = time.monotonic(), time.process_time()
        with stop_requests(self.config.seconds_at_most) as self._stop:
            if self.config.finetune is not None and self.state.step == 0:
                self._validate(display)  # what the old model says of the new data
                self._look_back(display)
            while True:
                self._compile(display)
                reason = self._fit_stage(clock, display)
                if self.config.keep_best and self.valid_set is not None:
                    self.average.average = self.best
                self.average.write(self.average.average)
                self._check_end()
                if self.state.stage + 1 == len(self.stages):
                    break
                self._next_stage(reason)
        self.potential.runner = None
        spent = self.team.gather([time.process_time() - begun])
        self.log.add({
            "kind": "end", "seconds": self.state.seconds, "reason": reason, "best_step": self.state.best_step,
            "cpu_seconds": float(spent.sum()),  # of this session, all processes together
        })  # fmt: skip
        return reason

    def _check_end(self) -> None:
        """TrainingError when the weights that a stage leaves give no number: no model is made of them."""
        graph, _ = self.train_set.batch([0])
        self.potential.eval()
        energy = self.potential.eager(graph.to(self.team.device), forces=False).energy
        if not bool(torch.isfinite(energy).all()):
            raise TrainingError(
                "the weights at the end of training give no number",
                where=f"step {self.state.step}, structure {self.train_set.names[0]}",
                wanted="a finite energy",
                got=str(float(energy)),
                remedy="lower optimizer.lr or optimizer.clip, and see 'not finite' in log.jsonl",
            )

    def _compiles(self) -> bool:
        """Whether steps are compiled: decided by configuration and data alone, so that a resumed run does the same."""
        if self.config.compile != "auto" or self.config.detect:
            return self.config.compile == "on" and not self.config.detect
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
        indices = batches(self.train_set, self.config.batch, self.config.seed, 0)[0]
        graph, _ = self.train_set.batch(next(iter(self.backward.pieces(indices)), indices[:1]))
        self.potential.train()
        weights = self.stage.loss.weights(1.0)
        self.potential(graph.to(self.team.device), forces=True, stress=weights.stress > 0)
        self.log.add({"kind": "compile", "seconds": runner.seconds, "dropped": runner.dropped})
        if not runner.dropped:
            display.say(f"compiled in {runner.seconds:.0f} s; energies, forces and gradients agree with float64")

    def _fit_stage(self, clock: Clock, display: Progress) -> str:
        """Epochs until this stage is over; returns why."""
        reason = self._ended()
        while not reason:
            reason = self._epoch(clock, display)
            if self.state.epoch % self.config.validate_every == 0 or reason:
                self._validate(display)
                reason = self._look_back(display) or reason or self._stale()
            self.state.ended = reason
            if reason or self._overdue():
                self.save(display)
        return reason

    def _stale(self) -> str:
        """Why to stop for want of improvement, or nothing."""
        patience = self.config.patience
        out = patience is not None and self.state.stale >= patience
        return f"{STALE} {patience} validations" if out else ""

    def _ended(self) -> str:
        """Why the stage was over when the checkpoint was written, if that still holds: its limit may have been raised.

        What comes after the last step, validation and checkpoint, is not done twice.
        """
        ended = self.state.ended
        if ended == LIMIT:
            over = self._spent(self.state.epoch + self.state.batch / len(self._plan()))[1] >= 1.0
            return ended if over else ""
        if ended.startswith(STALE):
            return self._stale()
        return ended  # what was forgotten stays so

    def _next_stage(self, reason: str) -> None:
        """Swap the network for that of the next stage; it starts with the weights this one leaves."""
        before, state = self.stage.name, self.state
        spent, _ = self._spent(state.epoch + state.batch / len(self._plan()))
        self.state = State(
            step=state.step, epoch=state.epoch, batch=state.batch, seconds=state.seconds,
            stage=state.stage + 1, stage_step=state.step, stage_start=spent, best_step=state.step,
            most=state.most, trouble=state.trouble,
        )  # fmt: skip
        self._take(swapped(self.potential, self.stage.model))
        self.state.trouble.changed()
        self.log.add({
            "kind": "stage", "stage": self.stage.name, "after": before, "reason": reason, "step": state.step,
            "epoch": state.epoch, "seconds": state.seconds,
        })  # fmt: skip
        self.save()

    def save(self, display: Progress | None = None) -> None:
        """Write a checkpoint; the one before is kept beside it.

        A disk that is full in the middle of a run is said to ``display``, and the run goes on; without one it is a
        CheckpointError.
        """
        self._saved = time.monotonic()
        if not self.team.first:
            return
        self.state.schedule = self.schedule.state()
        self.state.log_bytes = self.log.size()
        state = asdict(self.state) | {"run": self.identity}
        try:
            parts = checkpoint.gather(self.potential.network, self._averages(), self.optimizer, state)
            checkpoint.write(parts, self.run / checkpoint.CHECKPOINT)
        except CheckpointError as error:
            if display is None:
                raise
            display.say(f"warning: {error.problem} ({error.got}); the run goes on, and it is tried again later")

    def _averages(self) -> dict[str, list[Tensor]]:
        averages = {"average": self.average.average, "best": self.best, "anchor": self.anchor, "held": self.held}
        return averages | (self.probe.weights(self.average.average) if self.probe is not None else {})

    def _drop_anchor(self) -> None:
        """Keep weights and their average to go back to."""
        self.anchor: list[Tensor] = [p.detach().clone() for p in self.average.live]
        self.held: list[Tensor] = [t.clone() for t in self.average.average]

    def _go_back(self) -> None:
        """To the weights last kept; the optimiser forgets."""
        self.average.write(self.anchor)
        self.average.average = [t.clone() for t in self.held]
        self.optimizer.state.clear()

    def _overdue(self) -> bool:
        return time.monotonic() - self._saved > 60 * self.config.checkpoint_minutes

    def _plan(self) -> Plan:
        """Batches of this epoch, of all processes together."""
        return batches(self.train_set, self.config.batch, self.config.seed, self.state.epoch)

    def _spent(self, epochs: float) -> tuple[float, float]:
        """Fractions of the limits, and of what they leave to this stage, that are used up."""
        whole = progress_of(self.config.limits, self.state, epochs)
        start, end = self.state.stage_start, self.stage.end
        return whole, 1.0 if whole >= end else max(whole - start, 0.0) / max(end - start, 1e-12)

    def _epoch(self, clock: Clock, display: Progress) -> str:
        """One pass over the training set; the reason to stop, or nothing."""
        state, plan = self.state, self._plan()
        self.potential.train()
        begin = clock.seconds()
        rest = (piece for indices in plan[state.batch :] for piece in self.backward.pieces(indices))
        prepared = load(self.train_set, rest, self.config.workers)
        while state.batch < len(plan):
            indices = plan[state.batch]
            mine = [(piece, next(prepared)) for piece in self.backward.pieces(indices)]
            labels = sum((counted(label) for _, (_, label) in mine), torch.zeros(3, dtype=torch.float64))
            counts, stop = self._agree(clock, labels.tolist(), display)
            whole, fraction = self._spent(state.epoch + state.batch / len(plan))
            if stop or fraction >= 1.0:
                if stop:
                    self._leave(stop, display)
                self._tell(clock.seconds() - begin)
                return LIMIT
            step = state.step - max(state.stage_step, state.trouble.warm_step)
            lr = self.schedule.lr(step, fraction) * state.trouble.rate
            weights = self._weights(fraction)
            found = self.backward(mine, weights, counts, self.stage.optimizer.clip)
            self._update(found, lr, indices, mine, weights, display)
            state.step, state.batch = state.step + 1, state.batch + 1
            if state.step % LOG_STEPS == 0 or state.batch == len(plan):
                self._tell(clock.seconds() - begin)
                begin = clock.seconds()
            self._show(display, found.loss, lr, whole)
            if state.batch < len(plan) and self._overdue():  # an epoch of a large set can last for hours
                self.save(display)
        _, stop = self._agree(clock, [0.0, 0.0, 0.0], display)  # before a validation that may be long
        if stop:
            self._leave(stop, display)
        state.epoch, state.batch = state.epoch + 1, 0
        return LIMIT if self._spent(state.epoch)[1] >= 1.0 else ""

    def _agree(self, clock: Clock, counts: list[float], display: Progress) -> tuple[Tensor, str]:
        """Before a step all processes learn of the labels of the whole batch, the time, the memory, and a wish to stop.

        The counts of all processes together, (3,), and the wish.
        """
        wish, state = self._stop.reason(), self.state
        rows = self.team.gather([*counts, clock.seconds(), self.backward.most or 0, WISHES.index(wish)])
        state.seconds = float(rows[0, 3])  # clocks differ, decisions must not
        limits = [int(most) for most in rows[:, 4].tolist() if most > 0]
        most = min(limits, default=None)  # type: ignore[type-var]
        if most != state.most:
            self.log.add({"kind": "memory", "step": state.step, "epoch": state.epoch, "atoms_at_once": most})
            display.say(f"warning: memory ran out; batches are computed in parts of at most {most} atoms from here on")
        self.backward.most = state.most = most
        return rows[:, :3].sum(dim=0), WISHES[int(rows[:, 5].max())]

    def _leave(self, reason: str, display: Progress) -> None:
        """Save and stop."""
        self.save()
        raise Stopped(reason)

    def _weights(self, fraction: float) -> Weights:
        """Weights of the loss; where they change, losses cannot be compared with those before."""
        weights = self.stage.loss.weights(fraction)
        if weights != self.weights:
            self.state.trouble.changed()
        self.weights = weights
        return weights

    def _update(
        self, found: Gradients, lr: float, indices: list[int], mine: list[Part], weights: Weights, display: Progress
    ) -> None:
        """One step of the optimiser, or what is done instead when there is no number to step by."""
        state, trouble = self.state, self.state.trouble
        if not found.finite:
            self._strike(found, indices, mine, weights, display)
            return
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_factor", 1.0)
        self.optimizer.step()
        self.average.update(state.step - state.stage_step)
        trouble.passed()
        if trouble.anchors(state.step + 1):
            self._drop_anchor()
        if trouble.spike(found.loss, found.norm):
            self.log.add({
                "kind": "spike", "step": state.step, "epoch": state.epoch, "loss": found.loss,
                "gradient_norm": found.norm, "structures": self._names(indices), **self._named(),
            })  # fmt: skip
        tally = state.tally
        tally.loss, tally.norm, tally.lr = tally.loss + found.loss, max(tally.norm, found.norm), lr
        tally.steps, tally.structures = tally.steps + 1, tally.structures + len(indices)

    def _strike(
        self, found: Gradients, indices: list[int], mine: list[Part], weights: Weights, display: Progress
    ) -> None:
        """Name who is to blame for a loss or gradient that is no number; skip the step, go back, or give up."""
        bad = self.backward.bad(indices, mine, weights)
        reason = "no structure by itself: the sum over the batch overflows"
        if bad:
            reason = blame(self.potential, lambda: self.backward.alone(bad[0], weights)) if self.team.first else ""
        names = self._names(bad or indices)
        answer = self.state.trouble.struck([self.train_set.names[k] for k in bad], self.state.step)
        self.log.add({
            "kind": "not finite", "step": self.state.step, "epoch": self.state.epoch, "loss": found.loss,
            "gradient_norm": found.norm, "structures": names, "reason": reason, "answer": answer, **self._named(),
        })  # fmt: skip
        self.optimizer.zero_grad()
        if answer == "stop" or self.config.detect:
            raise self._diverged(names, reason, found)
        said = f"step {self.state.step} was not taken, its loss or gradient is no number: {', '.join(names)} ({reason})"
        if answer == "roll back":
            self._go_back()
            said += f"; back to the weights of before, the learning rate times {self.state.trouble.rate:g} from here on"
        display.say(f"warning: {said}")

    def _names(self, indices: list[int]) -> list[str]:
        names = [self.train_set.names[k] for k in indices[:NAMED]]
        return [*names, f"and {len(indices) - NAMED} more"] if len(indices) > NAMED else names

    def _tell(self, seconds: float) -> None:
        """Log the steps since the last record, if there were any."""
        tally, state = self.state.tally, self.state
        if tally.steps == 0:
            return
        self.log.add({
            "kind": "step", "step": state.step, "epoch": state.epoch, "lr": tally.lr, "loss": tally.loss / tally.steps,
            "gradient_norm": tally.norm, "seconds": state.seconds,
            "structures_per_s": tally.structures / max(seconds, 1e-9), **self._named(),
        })  # fmt: skip
        self._rate = tally.structures / max(seconds, 1e-9)
        state.tally = Tally()

    _rate: float = 0.0  # structures per second, of the last record

    def _show(self, display: Progress, loss: float, lr: float, fraction: float) -> None:
        """Tell the display of a step, now and then."""
        if time.monotonic() - self._shown < SHOW_SECONDS:
            return
        self._shown = time.monotonic()
        record = {"step": self.state.step, "loss": loss, "lr": lr, "structures_per_s": self._rate, **self._named()}
        display.step(record, fraction)

    def _validate(self, display: Progress) -> None:
        """Errors of the averaged weights on the validation set; keeps the best weights."""
        state = self.state
        if self.valid_set is None:
            return
        weights = self.stage.loss.weights(1.0)
        with self.average.applied():
            measured = measure(
                self.potential, self.valid_set, self.config.batch, self.team.device,
                loss=self.stage.loss, weights=weights, share=(self.team.rank, self.team.size),
            )  # fmt: skip
        measured = measured.of_all(self.team.sum)
        value = measured.loss(weights)  # the same in all processes: it decides on best weights, learning rate and end
        self.schedule.observe(value)
        if value < state.best_loss:
            state.best_loss, state.best_step, state.stale = value, state.step, 0
            self.best = [t.clone() for t in self.average.average]
        else:
            state.stale += 1
        record = {
            "kind": "valid", "step": state.step, "epoch": state.epoch, "seconds": state.seconds, "loss": value,
            **measured.errors(), **self._named(),
        }  # fmt: skip
        self.log.add(record)
        display.valid(record)

    def _look_back(self, display: Progress) -> str:
        """Measure what was forgotten; the reason to stop when it is too much, the last good weights kept."""
        if self.probe is None:
            return ""
        with self.average.applied():
            record = self.probe.look(self.potential)
        self.log.add({"kind": "forgetting", "step": self.state.step, "epoch": self.state.epoch, **record})
        ratio = float(self.team.gather([record["ratio"] or 0.0])[0, 0])  # of the first process: all must agree
        kept, said = self.probe.judge(self.average.average, ratio)
        self.average.average = kept
        if said:
            self.best = kept
            display.say(f"stopped: {said}; the last weights within the bound are kept")
        return said

    def _named(self) -> dict[str, str]:
        """What a record says of the stage it belongs to, where there are several."""
        return {"stage": self.stage.name} if len(self.stages) > 1 else {}

    def _diverged(self, names: list[str], reason: str, found: Gradients) -> TrainingError:
        tried = self.state.trouble.rollbacks
        return TrainingError(
            "training diverged: the loss or its gradient is no longer a finite number",
            where=f"epoch {self.state.epoch}, step {self.state.step}, structures {', '.join(names)}",
            wanted="a finite loss and gradient",
            got=f"loss {found.loss:g}, norm of the gradient {found.norm:g}: {reason}"
            + (f"; the weights went back {tried} times" if tried else ""),
            remedy="look at these structures; lower optimizer.lr or optimizer.clip; the last checkpoint is in place",
        )


WISHES = ("", "max_time", "SIGUSR1", "SIGTERM", "Ctrl-C")  # to stop; the strongest last
