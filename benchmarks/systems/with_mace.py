"""Train MACE within a budget of CPU time by its own recipe; started by ``accuracy.py`` where mace-torch is installed.

Data, model, loss, AMSGrad, averaged weights and gradient clipping are those of ``mace_run_train`` with the arguments
below. Two things are set from outside, because its schedules count epochs and a budget of minutes knows none: the
learning rate follows a cosine of the CPU time spent, to a hundredth, and the weights of the second stage (energies
count a thousandfold) come into force after three quarters of it. The averaged weights of the last step are evaluated.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import outcome
import torch
import yaml
from mace import tools
from mace.calculators import MACECalculator
from mace.cli import run_train
from mace.modules import WeightedEnergyForcesLoss, WeightedEnergyForcesStressLoss

loop = importlib.import_module("mace.tools.train")  # the package has a function of that name

RECIPE: dict[str, Any] = {
    "model": "MACE", "num_channels": 64, "max_L": 0, "max_ell": 3, "correlation": 3, "num_interactions": 2,
    "r_max": 5.0, "num_radial_basis": 8, "MLP_irreps": "16x0e", "E0s": "average", "scaling": "rms_forces_scaling",
    "energy_weight": 1.0, "forces_weight": 100.0, "stress_weight": 1.0, "batch_size": 5, "valid_batch_size": 10,
    "lr": 0.01, "weight_decay": 5e-7, "ema_decay": 0.99, "clip_grad": 10.0, "max_num_epochs": 100000,
    "eval_interval": 100000, "default_dtype": "float32", "device": "cpu", "seed": 0, "num_workers": 0,
    "energy_key": "REF_energy", "forces_key": "REF_forces", "stress_key": "REF_stress",
}  # fmt: skip
STAGE_TWO = {"start": 0.75, "energy_weight": 1000.0, "forces_weight": 100.0, "stress_weight": 10.0}
FINAL_LR = 0.01  # of the first
POINTS = 12  # validations along the way


class BudgetSpentError(Exception):
    """Time is up."""


class Clocked:
    """Stands in for MACE's step: sets the learning rate and the loss by the clock, validates, stops."""

    def __init__(self, minutes: float, lr: float, late: dict[str, float], stress: bool, batch_size: int) -> None:
        self.step = loop.take_step
        self.budget, self.lr, self.late_start = 60.0 * minutes, lr, late["start"]
        weights = {name: late[name] for name in ("energy_weight", "forces_weight")}
        self.late = (
            WeightedEnergyForcesStressLoss(**weights, stress_weight=late["stress_weight"])
            if stress
            else WeightedEnergyForcesLoss(**weights)
        )
        self.valid_loader: Any = None
        self.steps, self.batch_size, self.structures = 0, batch_size, 0
        self.curve: list[dict[str, float]] = []
        self.started = outcome.cpu_seconds()
        self.model: torch.nn.Module | None = None

    def __call__(self, model: Any, loss_fn: Any, optimizer: Any, ema: Any, output_args: Any, **rest: Any) -> Any:
        if self.model is None:
            self.model, self.ema, self.output_args = model, ema, output_args
            self.started = outcome.cpu_seconds()
        progress = (outcome.cpu_seconds() - self.started) / (self.budget - self.started)
        if progress * POINTS >= len(self.curve) + 1:
            self.validate()
        if progress >= 1.0:
            raise BudgetSpentError
        factor = FINAL_LR + (1 - FINAL_LR) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = self.lr * factor
        self.steps += 1
        chosen = self.late if progress >= self.late_start else loss_fn
        return self.step(model=model, loss_fn=chosen, optimizer=optimizer, ema=ema, output_args=output_args, **rest)

    def validate(self) -> None:
        """Errors of the averaged weights."""
        assert self.model is not None
        with self.ema.average_parameters():
            _, found = loop.evaluate(
                model=self.model, loss_fn=self.late, data_loader=self.valid_loader,
                output_args=self.output_args, device=torch.device("cpu"),
            )  # fmt: skip
        point = {
            "cpu_seconds": outcome.cpu_seconds(), "step": self.steps,
            "forces_rmse_meV_per_A": 1e3 * found["rmse_f"], "forces_mae_meV_per_A": 1e3 * found["mae_f"],
            "energy_rmse_meV_per_atom": 1e3 * found["rmse_e_per_atom"],
            "energy_mae_meV_per_atom": 1e3 * found["mae_e_per_atom"],
        }  # fmt: skip
        self.curve.append({name: float(value) for name, value in point.items()})
        print(json.dumps(self.curve[-1]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", type=Path, required=True, dest="folder")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--change", default="{}", help="entries over those of the recipe, as YAML; stage_two: {...}")
    options = parser.parse_args()
    change = yaml.safe_load(options.change)
    late = STAGE_TWO | change.pop("stage_two", {})
    test = outcome.read_part(options.folder, "test")
    stress = outcome.has_stress(test)
    settings = RECIPE | {"loss": "stress" if stress else "weighted", "compute_stress": stress} | change
    clocked = Clocked(options.minutes, settings["lr"], late, stress, settings["batch_size"])
    train(settings, options.folder, options.out, clocked)
    spent = outcome.cpu_seconds()
    (options.out / "trained").touch()
    model = clocked.model
    assert model is not None
    clocked.ema.copy_to(model.parameters())
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    torch.save(model, options.out / "model.pt")
    calculator = MACECalculator(models=[model], device="cpu", default_dtype="float32")
    facts = {
        "versions": {name: version(name) for name in ("mace-torch", "e3nn", "torch")},
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": clocked.steps,
        "epochs": clocked.steps * settings["batch_size"] // len(outcome.read_part(options.folder, "train")),
        "settings": settings | {"stage_two": late, "final_lr": FINAL_LR},
        "cpu_seconds": spent,
        "cpu_seconds_before_training": clocked.started,
        "curve": clocked.curve,
    }
    outcome.write(options.out, facts, outcome.predict(test, calculator, stress))


def train(settings: dict[str, Any], folder: Path, out: Path, clocked: Clocked) -> None:
    """``mace_run_train`` until the budget is spent."""
    arguments = ["--name", "run", "--work_dir", str(out), "--amsgrad", "--ema"]
    arguments += ["--train_file", str(folder / "train.xyz"), "--valid_file", str(folder / "valid.xyz")]
    for name, value in settings.items():
        arguments += [f"--{name}={value}"]
    whole = loop.train

    def remember(*args: Any, **named: Any) -> Any:
        clocked.valid_loader = next(iter(named["valid_loaders"].values()))
        return whole(*args, **named)

    loop.take_step = clocked
    tools.train = remember
    try:
        run_train.run(tools.build_default_arg_parser().parse_args(arguments))
    except BudgetSpentError:
        print(f"{clocked.steps} steps")


if __name__ == "__main__":
    main()
