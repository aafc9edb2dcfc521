"""Speed of learning: what an optimiser, a loss or a batch size is worth for equal CPU time.

    python benchmarks/learning.py --data DIR --set rmd17_aspirin --model mlanet --runs before:4 now:2 now:1

A run is a variant (``VARIANTS``) and its minutes of CPU time. Times of a shared machine swing with what else it does,
so minutes are turned into steps first: blocks of uncompiled steps of all variants are timed in turn on one thread, the
least time of each counts, and a run of so many minutes gets as many steps. The steps themselves are those of the
training loop (batches, loss, clipping, optimiser, schedule, averaged weights), compiled, which only saves time. Each
run adds its record to ``benchmarks/results/learning.json``, or to ``--results``.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch
from accuracy import append, commit
from sets import SETS
from systems.ours import merge

from adatom.compile import Compiler
from adatom.data.dataset import Dataset, batches
from adatom.data.read import Structure
from adatom.models import MODELS
from adatom.train.config import TrainConfig
from adatom.train.defaults import data_facts, loss_settings
from adatom.train.evaluate import predict
from adatom.train.knowledge import facts, references_of
from adatom.train.loss import loss
from adatom.train.optimize import RunningAverage, Schedule, make_optimizer
from adatom.train.run import make_potential

RESULTS = Path(__file__).resolve().parent / "results" / "learning.json"
# entries of the configuration; "before" is the default until 2026-11-20
VARIANTS: dict[str, dict[str, Any]] = {
    "now": {},
    "before": {"optimizer": {"name": "adamw"}, "batch": {"atoms": 32}},
    "adamw": {"optimizer": {"name": "adamw"}},
    "muon, batches of 32": {"batch": {"atoms": 32}},
    "energies 3": {"loss": {"energy": 3.0}},
    "energies 100": {"loss": {"energy": 100.0}},
    "late energies 1000": {"loss": {"late": {"energy": 1000.0}}},
    "late from half": {"loss": {"late": {"start": 0.5}}},
    "nothing late": {"loss": {"late": None}},
}
STEPS, BLOCKS = 15, 6  # of the timing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", choices=sorted(SETS), required=True)
    parser.add_argument("--model", choices=sorted(MODELS), default="mlanet")
    parser.add_argument("--runs", nargs="+", required=True, metavar="VARIANT:MINUTES")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, _, test = SETS[options.set](options.data)
    bench = Bench(options.model, train, test)
    runs = [(name, float(minutes)) for name, _, minutes in (run.partition(":") for run in options.runs)]
    paces = bench.paces({name: VARIANTS[name] for name, _ in runs})
    for seed in options.seeds:
        for name, minutes in runs:
            record = {
                "set": options.set, "model": options.model, "variant": name, "change": VARIANTS[name],
                "minutes": minutes, "ms_per_step": round(paces[name], 2), "seed": seed,
                **bench.train(VARIANTS[name], round(60e3 * minutes / paces[name]), seed),
                "date": time.strftime("%Y-%m-%d %H:%M"), "commit": commit(),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
            }  # fmt: skip
            append(options.results, record)
            shown = {key: record[key] for key in ("variant", "minutes", "seed", "steps", "ms_per_step")}
            print(options.set, options.model, shown, record["test"], flush=True)


class Bench:
    """One network on one set: paces of variants, and training for a number of steps."""

    def __init__(self, model: str, train: list[Structure], test: list[Structure], compiled: bool = True) -> None:
        known = data_facts(train)
        self.base = {
            "data": {"train": ["-"]},
            "model": {"architecture": model, "size": "S", "cutoff": 5.0},
            "loss": loss_settings(known),
        }
        config = TrainConfig.parse(self.base)
        self.train_set, self.test_set = Dataset(train, config.model.cutoff), Dataset(test, config.model.cutoff)
        config = config.model_copy(update={"model": config.model.completed(facts(self.train_set))})
        torch.manual_seed(0)
        self.potential = make_potential(config, self.train_set, {"": references_of(train, config.data)})
        self.compiler = Compiler(0.0, training=True) if compiled and known.labelled["forces"] > 0 else None

    def paces(self, variants: dict[str, dict[str, Any]]) -> dict[str, float]:
        """CPU milliseconds of an uncompiled step of each variant: the least of blocks of steps, taken in turn."""
        self.potential.runner = None
        blocks = {name: self._steps(TrainConfig.parse(merge(self.base, change))) for name, change in variants.items()}
        best = dict.fromkeys(variants, float("inf"))
        for turn in range(BLOCKS + 1):
            for name, step in blocks.items():
                start = time.process_time()
                for number in range(STEPS):
                    step(number, 0.0)
                if turn > 0:  # the first one warms up
                    best[name] = min(best[name], 1e3 * (time.process_time() - start) / STEPS)
        return best

    def train(self, change: dict[str, Any], steps: int, seed: int) -> dict[str, Any]:
        """Train from fresh weights; steps, CPU seconds and errors on the test set."""
        config = TrainConfig.parse(merge(self.base, change | {"seed": seed}))
        torch.manual_seed(seed)
        network = type(self.potential.network)(self.potential.network.config)
        self.potential.network.load_state_dict(network.state_dict())
        self.potential.runner = self.compiler
        step, start = self._steps(config), time.process_time()
        for number in range(steps):
            step(number, number / steps)
        seconds = time.process_time() - start
        step.average.write(step.average.average)
        errors = predict(self.potential, self.test_set, config.batch).errors()
        epochs = step.epoch
        return {"steps": steps, "epochs": epochs, "cpu_seconds": round(seconds, 1), "test": errors}

    def _steps(self, config: TrainConfig) -> Steps:
        return Steps(config, self.potential.train(), self.train_set)


class Steps:
    """Steps of training as the loop takes them; called with the number of the step and the fraction of the run."""

    def __init__(self, config: TrainConfig, potential: Any, data: Dataset) -> None:
        self.config, self.potential, self.data = config, potential, data
        self.optimizer = make_optimizer(config.optimizer, potential)
        self.average = RunningAverage(potential.parameters(), config.optimizer.ema)
        self.schedule, self.epoch, self.plan = Schedule(config.optimizer), 0, []

    plan: list[list[int]]

    def __call__(self, number: int, progress: float) -> None:
        """One update."""
        config = self.config
        if not self.plan:
            self.plan = batches(self.data, config.batch, config.seed, self.epoch)[::-1]
            self.epoch += 1
        graph, label = self.data.batch(self.plan.pop())
        weights = config.loss.weights(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.lr(number, progress) * group.get("lr_factor", 1.0)
        self.optimizer.zero_grad()
        predicted = self.potential(graph, forces=weights.forces > 0, stress=weights.stress > 0)
        loss(config.loss, weights, graph, predicted, label).backward()
        torch.nn.utils.clip_grad_norm_(self.potential.parameters(), config.optimizer.clip)
        self.optimizer.step()
        self.average.update(number)


if __name__ == "__main__":
    main()
