"""Small training runs on slices of the silicon set, for tests."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import ase
import ase.io
from rich.console import Console

from adatom.train.config import TrainConfig
from adatom.train.run import train

DATA = Path(__file__).parents[2] / "data" / "si_pbe_gpaw"
# a network as small as it gets: what is tested is the run around it
NETWORK: dict[str, Any] = {"cutoff": 4.0, "l_max": 1, "channels": 8, "layers": 1, "heads": 2, "radial": 4, "readout": 8}

STILL = {"lr": 1e-30, "warmup_steps": 0}  # steps too small for float32: the weights stay as they are


@cache
def frames(part: str) -> list[ase.Atoms]:
    """All frames of "train" or "test"; copies are for the taking, the list is shared."""
    return list(ase.io.read(DATA / f"{part}.xyz.xz", ":", format="extxyz"))


def write(path: Path, structures: list[ase.Atoms]) -> Path:
    ase.io.write(path, structures, format="extxyz")
    return path


def slices(folder: Path, train_frames: int = 24, test_frames: int = 6) -> dict[str, list[str]]:
    """Files of a few frames, evenly drawn from the set: the ``data`` entries of a configuration."""
    parts = {}
    for part, count in (("train", train_frames), ("test", test_frames)):
        whole = frames(part)
        chosen = whole[:: len(whole) // count][:count]
        parts[part] = [str(write(folder / f"{part}.xyz", chosen))]
    return parts


def configuration(data: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Plain values of a configuration: some twenty steps on a slice."""
    return {
        "name": "run",
        "data": {**data, "split": {"valid": 4, "seed": 1}},
        "model": NETWORK,
        "optimizer": {"warmup_steps": 4, "ema": 0.9},
        "limits": {"steps": 18},
        "threads": 1,
        "accelerator": "cpu",
        **changes,
    }


def run(values: dict[str, Any], folder: Path, resume: bool = False) -> Path:
    """Train, and keep quiet about it."""
    return train(TrainConfig.parse(values), folder, resume, Console(file=io.StringIO(), width=120))


def log(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Records of one kind."""
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]
