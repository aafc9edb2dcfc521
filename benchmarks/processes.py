"""What sharing a training run among processes costs: CPU time of two processes beside that of one, the same batches.

    OMP_NUM_THREADS=1 python benchmarks/processes.py --data DIR

DIR holds the data sets, one folder each. Trains a fixed number of steps on water (192 atoms a structure) with one
process and with two, in turn, and compares the CPU time of all processes together, start-up left out; 1 is ideal.
Writes ``benchmarks/results/processes.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from accuracy import commit
from sets import write_set

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "processes.json"
BATCHES = {384: 24, 1536: 8}  # atoms of a batch of all processes: steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--architecture", default="nemp")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    record: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"), "commit": commit(), "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start",
        "set": "water", "architecture": options.architecture, "rounds": options.rounds, "rows": [],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_set("water", options.data, folder / "set")
        for atoms, steps in BATCHES.items():
            seconds: dict[int, list[float]] = {1: [], 2: []}
            for turn in range(options.rounds):
                for processes in seconds:
                    name = f"{atoms}_{turn}_{processes}"
                    seconds[processes].append(train(options.architecture, folder, name, atoms, steps, processes))
            least = {processes: min(values) / steps for processes, values in seconds.items()}
            row = {
                "atoms": atoms, "structures": atoms // 192, "steps": steps, "cpu_seconds_per_step": least,
                "efficiency": least[1] / least[2],
            }  # fmt: skip
            print(row, flush=True)
            record["rows"].append(row)
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")


def train(architecture: str, folder: Path, name: str, atoms: int, steps: int, processes: int) -> float:
    """CPU seconds of all processes while they train."""
    config = {
        "name": name, "model": {"architecture": architecture}, "compile": False, "threads": 1,
        "data": {"train": [str(folder / "set" / "train.xyz")], "split": {"valid": 0}},
        "loss": {"stress": 0.0, "late": None}, "batch": {"atoms": atoms}, "limits": {"steps": steps},
        "devices": processes, "accelerator": "cpu",
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [Path(sys.executable).with_name("adatom"), "train", path, "--folder", folder]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    records = map(json.loads, (folder / name / "log.jsonl").read_text().splitlines())
    return next(float(r["cpu_seconds"]) for r in records if r["kind"] == "end")


if __name__ == "__main__":
    main()
