"""Train one of this package's architectures within a budget of CPU time; started by ``accuracy.py``."""

from __future__ import annotations

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import outcome
from rich.console import Console

import adatom
from adatom.config import read_yaml
from adatom.data.dataset import Dataset
from adatom.train.run import train
from adatom.train.sets import read_sets

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--system", required=True, help="name of the architecture, and of its recipe")
    parser.add_argument("--set", type=Path, required=True, dest="folder", help="with train.xyz, valid.xyz, test.xyz")
    parser.add_argument("--minutes", type=float, required=True, help="of CPU time, the start of the process included")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--change", default="{}", help="further entries of the configuration, as YAML")
    options = parser.parse_args()
    frames = outcome.read_part(options.folder, "test")
    change = yaml.safe_load(options.change)
    values = recipe(options.system, options.folder, outcome.has_stress(frames), change)
    prepare(adatom.TrainConfig.parse(values | {"limits": {"epochs": 1}}))
    # the loop counts from its first step: what comes before it is done once here to be timed, and not counted again
    before = outcome.cpu_seconds()
    values["limits"] = {"minutes": options.minutes - before / 60, "clock": "cpu"}
    run = train(adatom.TrainConfig.parse(values), options.out)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    card = adatom.info(run / "model.adatom")
    stored = np.load(run / "predictions.npz")
    predicted = {name: stored[name] for name in ("energy", "forces")}
    predicted["stress"] = stored["stress"].reshape(-1, 9)[:, [0, 4, 8, 5, 2, 1]]  # xx yy zz yz xz xy
    trained = max(record.get("seconds", 0.0) for record in log)
    facts = {
        "versions": {name: version(name) for name in ("adatom", "torch")},
        "parameters": card["parameters"],
        "steps": max(record.get("step", 0) for record in log),
        "epochs": max(record.get("epoch", 0) for record in log),
        "settings": {"model": card["config"], "change": change},
        "cpu_seconds": before + trained,
        "cpu_seconds_before_training": before,
        "curve": [point(record, before) for record in log if record["kind"] == "valid"],
    }
    outcome.write(options.out, facts, predicted)


def recipe(system: str, folder: Path, stress: bool, change: dict[str, Any]) -> dict[str, Any]:
    """The shipped recipe of size S with the files of this set."""
    values = read_yaml(CONFIGS / f"{system}_S.yaml")
    values |= {
        "name": "run",
        "data": {part: [str(folder / f"{part}.xyz")] for part in ("train", "valid", "test")},
        "threads": 1,
        "accelerator": "cpu",
    }
    if not stress:
        values = merge(values, {"loss": {"stress": 0.0, "late": {"stress": 0.0}}})
    return merge(values, change)


def prepare(config: adatom.TrainConfig) -> None:
    """What training does before its first step, to learn how long it takes."""
    sets = read_sets(config.data, config.loss.needed(), Console(quiet=True))
    Dataset(sets.train, config.model.cutoff)
    Dataset(sets.valid, config.model.cutoff)


def point(record: dict[str, Any], before: float) -> dict[str, float]:
    """One point of the curve of errors against time."""
    figures = {
        name: value for name, value in record.items() if ("_rmse_" in name or "_mae_" in name) and value is not None
    }
    return {"cpu_seconds": before + record["seconds"], "step": record["step"], **figures}


def merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Nested entries of ``change`` over those of ``base``."""
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


if __name__ == "__main__":
    main()
