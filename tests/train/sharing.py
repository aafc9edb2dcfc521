"""One run by one process and by several: a program of its own, for it forks.

    python tests/train/sharing.py --folder /tmp/shared

Prints, as JSON, the largest difference of logs and weights between runs in float64 of one process and of others.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from train.killing import losses, session
from train.runs import configuration, slices

# seven structures of eight atoms, two a batch: the last batch of every epoch leaves one process without any
LONG: dict[str, Any] = {
    "precision": "float64",
    "batch": {"atoms": 16},
    "limits": {"epochs": 8},
    "checkpoint_minutes": 5e-4,
}
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "two": (2, {}),
    "three": (3, {}),
    "stages": (2, {"schedule": "direct-then-conservative"}),
    "plateau": (
        2,
        {"optimizer": {"schedule": "plateau", "plateau_patience": 1, "ema": 0.9, "lr": 2e-3}, "keep": "best"},
    ),
    "one large batch": (2, {"batch": {"atoms": 1000}}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--cases", default=",".join(CASES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.cpu_count = lambda: 4  # three processes on two cores are slow, and as right as on three
    options.folder.mkdir(parents=True, exist_ok=True)
    data, draw = slices(options.folder, 11, 2), random.Random(0)
    found = {}
    for case in options.cases.split(","):
        processes, changes = CASES[case]
        values = configuration(data, **{**LONG, **changes})
        folder = options.folder / case.replace(" ", "_")
        session(values, folder / "one", None, draw)
        session({**values, "devices": processes}, folder / "many", None, draw)
        found[case] = difference(folder / "one" / "run", folder / "many" / "run")
        if case == "two":  # begun by two, ended by one, and the other way round
            for first, then in ((2, 1), (1, 2)):
                turned = folder / f"from {first} to {then}"
                log = turned / "run" / "log.jsonl"
                if not session(
                    {**values, "devices": first},
                    turned,
                    None,
                    draw,
                    lambda log=log: log.exists() and "valid" in log.read_text(),
                ):
                    sys.exit(f"{turned}: ended before it was killed")
                session({**values, "devices": then}, turned, None, draw)
                taken = [json.loads(line).get("processes") for line in log.open()]
                if not {first, then} <= set(taken):
                    sys.exit(f"{turned}: nothing was handed over")
                found[turned.name] = difference(folder / "one" / "run", turned / "run")
    print(json.dumps(found))


def difference(one: Path, other: Path) -> float:
    """Largest difference of any figure of the logs, relative where it is above 1, and of any weight."""
    left, right = losses(one), losses(other)
    if [record.keys() for record in left] != [record.keys() for record in right]:
        return float("inf")
    figures = [
        abs(a[key] - b[key]) / max(1.0, abs(a[key]))
        for a, b in zip(left, right, strict=True)
        for key in a
        if isinstance(a[key], (int, float))
    ]
    ours, theirs = load_file(one / "model.adatom"), load_file(other / "model.adatom")
    return max(*figures, *(float((ours[name] - tensor).abs().max()) for name, tensor in theirs.items()))


if __name__ == "__main__":
    main()
