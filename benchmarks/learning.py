"""Speed of learning: what an optimiser, a loss or a batch size is worth for equal CPU time.

    python benchmarks/learning.py --data DIR --set rmd17_aspirin --model mlanet --runs before:4 now:2 now:1

A run is a variant (``VARIANTS``) and its minutes of CPU time. Times of one machine swing with what else it does, so
minutes are turned into steps once: blocks of steps of all variants are timed in turn, the least time of each counts,
and a run of so many minutes gets as many steps. Uncompiled code on one thread. Each run adds its record to
``benchmarks/results/learning.json``, or to ``--results``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import append, commit
from rich.console import Console
from sets import SETS, write_set
from systems.ours import merge, recipe

import adatom
from adatom.data.dataset import Dataset, batches
from adatom.train.config import TrainConfig
from adatom.train.loss import loss
from adatom.train.optimize import RunningAverage, make_optimizer
from adatom.train.run import facts, make_potential, read_sets, references_of

RESULTS = Path(__file__).resolve().parent / "results" / "learning.json"
# what departs from the recipe; "before" is the default until 2026-11-20
VARIANTS: dict[str, dict[str, Any]] = {
    "now": {},
    "before": {"optimizer": {"name": "adamw"}},
}
STEPS, BLOCKS = 25, 7  # of the timing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", choices=sorted(SETS), required=True)
    parser.add_argument("--model", choices=("mlanet", "nemp", "allscaip"), default="mlanet")
    parser.add_argument("--runs", nargs="+", required=True, metavar="VARIANT:MINUTES")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = [(name, float(minutes)) for name, _, minutes in (run.partition(":") for run in options.runs)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "set"
        counts = write_set(options.set, options.data, folder)
        stress = counts["train"] > 0 and "stress" in (folder / "train.xyz").read_text()[:1000]
        configs = {name: config_of(options, name, folder, stress) for name, _ in runs}
        paces = pace(configs)
        for name, minutes in runs:
            steps = round(60e3 * minutes / paces[name])
            limits = {"limits": {"steps": steps, "epochs": None}, "validate_every": 1_000_000, "compile": "off"}
            values = merge(configs[name].model_dump(mode="json"), limits | {"name": f"{name}_{minutes:g}"})
            load = os.getloadavg()[0]
            run = adatom.train(TrainConfig.parse(values), Path(scratch) / "runs", console=Console(quiet=True))
            metrics = json.loads((run / "metrics.json").read_text())
            record = {
                "set": options.set, "model": options.model, "variant": name, "change": VARIANTS[name],
                "minutes": minutes, "steps": steps, "ms_per_step": round(paces[name], 2), "seed": options.seed,
                "cpu_seconds": round(metrics["train_seconds"], 1),
                "test": metrics["test"], "train": metrics["train"], "date": time.strftime("%Y-%m-%d %H:%M"),
                "commit": commit(), "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f}",
            }  # fmt: skip
            append(options.results, record)
            print(name, minutes, steps, f"{paces[name]:.1f} ms", json.dumps(metrics["test"]), flush=True)


def config_of(options: argparse.Namespace, variant: str, folder: Path, stress: bool) -> TrainConfig:
    """The recipe of size S with this set, and what the variant changes."""
    values = recipe(options.model, folder, stress, VARIANTS[variant])
    return TrainConfig.parse(merge(values, {"seed": options.seed, "limits": {"epochs": 1, "clock": "cpu"}}))


def pace(configs: dict[str, TrainConfig]) -> dict[str, float]:
    """CPU milliseconds of a training step of each variant: the least of blocks of steps, taken in turn."""
    blocks = {name: Blocks(config) for name, config in configs.items()}
    times = {name: [block.milliseconds() for _ in range(1)] for name, block in blocks.items()}  # warms up
    times = {name: [] for name in times}
    for _ in range(BLOCKS):
        for name, block in blocks.items():
            times[name].append(block.milliseconds())
    return {name: float(np.min(values)) for name, values in times.items()}


class Blocks:
    """Training steps like those of the loop, a block at a time, always on the same batches."""

    def __init__(self, config: TrainConfig) -> None:
        sets = read_sets(config.data, {"energy", "forces"}, Console(quiet=True))
        self.data = Dataset(sets.train, config.model.cutoff)
        resolved = config.model_copy(update={"model": config.model.completed(facts(self.data))})
        torch.manual_seed(config.seed)
        self.potential = make_potential(resolved, self.data, references_of(sets.train, config.data)).train()
        self.config, self.weights = config, config.loss.weights(0.0)
        self.optimizer = make_optimizer(config.optimizer, self.potential)
        self.average = RunningAverage(self.potential.parameters(), config.optimizer.ema)
        for group in self.optimizer.param_groups:
            group["lr"] = 1e-3
        self.plan = batches(self.data, config.batch, 0, 0)[:STEPS]
        self.plan = (self.plan * STEPS)[:STEPS]

    def milliseconds(self) -> float:
        """CPU time of a step."""
        start = time.process_time()
        for step, indices in enumerate(self.plan):
            graph, label = self.data.batch(indices)
            self.optimizer.zero_grad()
            predicted = self.potential(graph, forces=True, stress=self.weights.stress > 0)
            loss(self.config.loss, self.weights, graph, predicted, label).backward()
            torch.nn.utils.clip_grad_norm_(self.potential.parameters(), self.config.optimizer.clip)
            self.optimizer.step()
            self.average.update(step)
        return 1e3 * (time.process_time() - start) / len(self.plan)


if __name__ == "__main__":
    main()
