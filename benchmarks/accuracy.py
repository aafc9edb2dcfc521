"""Accuracy for a given time of one core: train a recipe on public data sets and write down the test errors.

    OMP_NUM_THREADS=1 python benchmarks/accuracy.py --data DIR --set mlearn_si --minutes 15

DIR holds the data sets, one folder each (extended XYZ, xz). The clock is CPU time of the process. Results are added to
``benchmarks/results/accuracy.json``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

import adatom
from adatom.config import read_yaml
from adatom.train.run import train

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "accuracy.json"

# name -> entries of a training configuration; a fixed split gives 950 + 50 structures of rMD17's fold 01
SETS: dict[str, dict[str, Any]] = {
    "si_pbe_gpaw": {
        "data": {"train": ["si_pbe_gpaw/train.xyz.xz"], "test": ["si_pbe_gpaw/test.xyz.xz"], "split": {"valid": 0.05}},
    },
    "mlearn_si": {
        "data": {
            "train": ["mlearn_elements/Si/train.xyz.xz"],
            "test": ["mlearn_elements/Si/test.xyz.xz"],
            "split": {"valid": 0.05},
        },
    },
    **{
        f"rmd17_{molecule}": {
            "data": {
                "train": [f"rmd17/{molecule}/train_01.xyz.xz"],
                "test": [f"rmd17/{molecule}/test_01.xyz.xz"],
                "split": {"valid": 50},
            },
            "loss": {"stress": 0.0, "late": {"stress": 0.0}},
        }
        for molecule in ("ethanol", "aspirin")
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", choices=sorted(SETS), required=True)
    parser.add_argument("--minutes", type=float, default=15.0, help="of CPU time")
    parser.add_argument("--recipe", type=Path, default=HERE.parent / "configs" / "mlanet_S.yaml")
    parser.add_argument("--change", default="{}", help="further entries, as YAML")
    parser.add_argument("--runs", type=Path, help="keep the run folder here")
    options = parser.parse_args()
    values = merge(read_yaml(options.recipe), SETS[options.set])
    for part in ("train", "test"):
        values["data"][part] = [str(options.data / path) for path in SETS[options.set]["data"][part]]
    values |= {
        "name": f"{options.set}_{options.minutes:g}min",
        "limits": {"minutes": options.minutes, "clock": "cpu"},
        "threads": 1,
        "accelerator": "cpu",
    }
    values = merge(values, yaml.safe_load(options.change))
    with tempfile.TemporaryDirectory() as scratch:
        run = train(adatom.TrainConfig.parse(values), options.runs or Path(scratch))
        metrics = json.loads((run / "metrics.json").read_text())
        card = adatom.info(run / "model.adatom")
        steps = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    record = {
        "set": options.set, "date": time.strftime("%Y-%m-%d"), "architecture": card["architecture"],
        "config": card["config"], "change": yaml.safe_load(options.change), "parameters": card["parameters"],
        "cpu_minutes": options.minutes, "steps": max(s.get("step", 0) for s in steps),
        "epochs": max(s.get("epoch", 0) for s in steps), "torch": torch.__version__,
        "test": metrics["test"], "valid": metrics["valid"], "train": metrics["train"],
    }  # fmt: skip
    RESULTS.parent.mkdir(exist_ok=True)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    RESULTS.write_text(json.dumps([*known, record], indent=1) + "\n")
    print(json.dumps(record["test"], indent=1))


def merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Nested entries of ``change`` over those of ``base``."""
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


if __name__ == "__main__":
    main()
