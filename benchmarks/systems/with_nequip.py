"""Train NequIP within a budget of CPU time; started by ``accuracy.py`` in an environment with nequip.

Data module, model, loss, optimiser and averaged weights are those of ``nequip-train`` with the entries below. Set from
outside, because schedules that count epochs know no budget of minutes: the learning rate follows a cosine of the CPU
time spent, to a hundredth. The averaged weights of the last step are evaluated.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import lightning
import numpy as np
import outcome
import torch
import yaml
from hydra.utils import instantiate
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
from nequip.integrations.ase import NequIPCalculator
from nequip.utils.global_state import set_global_state

RECIPE: dict[str, Any] = {
    "model": {
        "_target_": "nequip.model.NequIPGNNModel", "model_dtype": "float32", "seed": 0, "r_max": 5.0,
        "l_max": 1, "parity": True, "num_layers": 3, "num_features": 32, "num_bessels": 8, "polynomial_cutoff_p": 6,
        "radial_mlp_depth": 1, "radial_mlp_width": 128, "type_embed_num_features": 32,
    },
    "batch_size": 5, "lr": 0.01, "ema_decay": 0.99, "energy_weight": 1.0, "forces_weight": 1.0, "stress_weight": 1.0,
}  # fmt: skip
FINAL_LR = 0.01  # of the first
POINTS = 12  # validations along the way


class Clocked(lightning.Callback):  # type: ignore[misc]
    """Sets the learning rate by the clock, validates, stops."""

    def __init__(self, minutes: float, lr: float) -> None:
        self.budget, self.lr = 60.0 * minutes, lr
        self.started = 0.0
        self.loader: Any = None
        self.steps = 0
        self.curve: list[dict[str, float]] = []

    def on_train_start(self, trainer: Any, module: Any) -> None:
        (self.loader,) = trainer.datamodule.val_dataloader()
        self.started = outcome.cpu_seconds()

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> int | None:
        progress = (outcome.cpu_seconds() - self.started) / (self.budget - self.started)
        if progress * POINTS >= len(self.curve) + 1:
            self.validate(module)
        if progress >= 1.0:
            trainer.should_stop = True
            return -1
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = self.lr * (FINAL_LR + (1 - FINAL_LR) * 0.5 * (1 + math.cos(math.pi * progress)))
        self.steps += 1
        return None

    def validate(self, module: Any) -> None:
        """Errors of the averaged weights."""
        module.ema.swap_parameters(module.model)
        energy, forces = [], []
        for batch in self.loader:
            found = module(batch.copy())
            atoms = torch.bincount(batch["batch"])
            difference = (found["total_energy"].detach() - batch["total_energy"]).flatten() / atoms
            energy.append(difference.numpy())
            forces.append((found["forces"].detach() - batch["forces"]).numpy())
        module.ema.swap_parameters(module.model)
        e, f = 1e3 * np.concatenate(energy), 1e3 * np.concatenate(forces)
        point = {
            "cpu_seconds": outcome.cpu_seconds(), "step": self.steps,
            "forces_rmse_meV_per_A": np.sqrt(np.square(f).mean()), "forces_mae_meV_per_A": np.abs(f).mean(),
            "energy_rmse_meV_per_atom": np.sqrt(np.square(e).mean()), "energy_mae_meV_per_atom": np.abs(e).mean(),
        }  # fmt: skip
        self.curve.append({name: float(value) for name, value in point.items()})
        print(json.dumps(self.curve[-1]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", type=Path, required=True, dest="folder")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--change", default="{}", help="entries over those of the recipe, as YAML; model: {...}")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="lightning")
    change = yaml.safe_load(options.change)
    settings = RECIPE | change | {"model": RECIPE["model"] | change.get("model", {})}
    test = outcome.read_part(options.folder, "test")
    stress = outcome.has_stress(test)
    names = sorted({s for f in outcome.read_part(options.folder, "train") for s in f.get_chemical_symbols()})
    set_global_state()
    torch.manual_seed(0)
    transforms = transforms_of(names, settings["model"]["r_max"])
    data = datamodule(options.folder, names, transforms, settings["batch_size"], stress)
    module = training_module(settings, data, names, stress)
    clocked = Clocked(options.minutes, settings["lr"])
    trainer = lightning.Trainer(
        max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0, inference_mode=False,
        callbacks=[clocked],
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    spent = outcome.cpu_seconds()
    (options.out / "trained").touch()
    model = module.evaluation_model["sole_model"].eval()
    torch.save(model.state_dict(), options.out / "model.pt")
    calculator = NequIPCalculator(
        model, device="cpu", transforms=[instantiate(t) for t in transforms_of(names, settings["model"]["r_max"])]
    )
    facts = {
        "versions": {name: version(name) for name in ("nequip", "e3nn", "torch")},
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": clocked.steps,
        "epochs": trainer.current_epoch,
        "settings": settings | {"final_lr": FINAL_LR},
        "cpu_seconds": spent,
        "cpu_seconds_before_training": clocked.started,
        "curve": clocked.curve,
    }
    outcome.write(options.out, facts, outcome.predict(test, calculator, stress))


def transforms_of(names: list[str], cutoff: float) -> list[dict[str, Any]]:
    """What turns atoms into the network's input."""
    home = "nequip.data.transforms."
    return [
        {"_target_": home + ChemicalSpeciesToAtomTypeMapper.__name__, "model_type_names": names},
        {"_target_": home + NeighborListTransform.__name__, "r_max": cutoff},
    ]


def datamodule(folder: Path, names: list[str], transforms: list[Any], batch_size: int, stress: bool) -> Any:
    """The three files, with the statistics the model is scaled by."""
    keys = {"REF_energy": "total_energy", "REF_forces": "forces"} | ({"REF_stress": "stress"} if stress else {})
    loader = {"_target_": "torch.utils.data.DataLoader", "batch_size": batch_size}
    return instantiate(
        {
            "_target_": "nequip.data.datamodule.ASEDataModule", "seed": 0,
            "train_file_path": str(folder / "train.xyz"), "val_file_path": str(folder / "valid.xyz"),
            "transforms": transforms, "key_mapping": keys, "include_keys": list(keys),
            "train_dataloader": loader | {"shuffle": True}, "val_dataloader": loader | {"batch_size": 10},
            "stats_manager": {
                "_target_": "nequip.data.CommonDataStatisticsManager", "type_names": names,
                "dataloader_kwargs": {"batch_size": 10},
            },
        },
        _recursive_=False,
    )  # fmt: skip


def training_module(settings: dict[str, Any], data: Any, names: list[str], stress: bool) -> Any:
    """The network with its loss and optimiser."""
    statistics = data.get_statistics(dataset="train")
    weights = {"total_energy": settings["energy_weight"], "forces": settings["forces_weight"]}
    if stress:
        weights["stress"] = settings["stress_weight"]
    kind = "EnergyForceStress" if stress else "EnergyForce"
    return instantiate(
        {
            "_target_": "nequip.train.EMALightningModule", "ema_decay": settings["ema_decay"],
            "loss": {"_target_": f"nequip.train.{kind}Loss", "per_atom_energy": True, "coeffs": weights},
            "val_metrics": {
                "_target_": f"nequip.train.{kind}Metrics",
                "coeffs": {"total_energy_mae": 1.0, "forces_mae": 1.0},
            },
            "optimizer": {"_target_": "torch.optim.Adam", "lr": settings["lr"]},
            "model": settings["model"] | {
                "type_names": names,
                "avg_num_neighbors": statistics["per_type_num_neighbors_mean"],
                "per_type_energy_shifts": statistics["per_atom_energy_mean"],
                "per_type_energy_scales": statistics["per_type_forces_rms"],
            },
        },
        _recursive_=False,
        _convert_="all",
        num_datasets=data.num_datasets,
        info_dict={},
    )  # fmt: skip


if __name__ == "__main__":
    main()
