"""Accuracy for a given time of one core: train one system on one data set, and write down errors against time.

    python benchmarks/accuracy.py --data DIR --system mlanet --set rmd17_ethanol --minutes 5
    python benchmarks/accuracy.py --data DIR --system mace --python ENV/bin/python --set rmd17_ethanol --minutes 5

DIR holds the data sets, one folder each (extended XYZ, xz). Every system reads the same three files, with the same
cutoff (5 Å), in float32, on one thread, in a process of its own; its clock is the CPU time of that process from its
very start (imports, reading, compiling and validating included) to its last step. Peers live in environments of their
own (``benchmarks/systems/README.md``). Test errors of all are computed by one function from stored predictions. A
record is added to ``benchmarks/results/accuracy.json``, or to ``--results``. Compare only what ran on one machine.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import outcome
from sets import SETS, write_set

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "accuracy.json"
OURS = ("mlanet", "nemp", "allscaip")
PEERS = ("mace", "nequip")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--system", choices=OURS + PEERS, required=True)
    parser.add_argument("--set", choices=sorted(SETS), required=True)
    parser.add_argument("--minutes", type=float, default=5.0, help="of CPU time")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environment of a peer")
    parser.add_argument("--change", default="{}", help="entries that depart from the recipe, as YAML")
    parser.add_argument("--note", default="", help="a word on this run, kept with its record")
    parser.add_argument("--runs", type=Path, help="keep what the training leaves in a folder of its own here")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        name = f"{options.system}_{options.set}_{options.minutes:g}min_{time.strftime('%H%M%S')}"
        out = (options.runs or Path(scratch)).absolute() / name
        out.mkdir(parents=True)
        record = measure(options, Path(scratch) / "set", out)
        (out / "record.json").write_text(json.dumps(record, indent=1) + "\n")
    append(options.results, record)
    print(json.dumps(record["test"], indent=1))


def measure(options: argparse.Namespace, folder: Path, out: Path) -> dict[str, Any]:
    """Train in a process of its own; the record of the run."""
    counts = write_set(options.set, options.data, folder)
    script = HERE / "systems" / ("ours.py" if options.system in OURS else f"with_{options.system}.py")
    command = [options.python, script, "--set", folder, "--minutes", options.minutes, "--out", out]
    command += ["--change", options.change] + (["--system", options.system] if options.system in OURS else [])
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    load = os.getloadavg()[0]
    start = time.monotonic()
    with (out / "output.txt").open("w") as output:
        subprocess.run([str(c) for c in command], env=os.environ | one, stdout=output, stderr=output, check=True)
    facts = json.loads((out / "outcome.json").read_text())
    frames = outcome.read_part(folder, "test")
    return {
        "set": options.set, "system": options.system, "minutes": options.minutes, "note": options.note,
        "date": time.strftime("%Y-%m-%d %H:%M"), "structures": counts, "cutoff_A": 5.0, "precision": "float32",
        "command": "python benchmarks/accuracy.py --data DIR" + "".join(
            f" --{name} {value}" for name, value in (
                ("system", options.system), ("set", options.set), ("minutes", f"{options.minutes:g}"),
                ("change", f"'{options.change}'" if options.change != "{}" else ""),
            ) if value
        ),
        "commit": commit(), "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f} at the start",
        "wall_seconds": time.monotonic() - start, **facts,
        "test": outcome.errors(frames, dict(np.load(out / "predictions.npz"))),
    }  # fmt: skip


def commit() -> str:
    """Of the sources that ran, with a + where they are not what was committed."""
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout.strip()


def append(path: Path, record: dict[str, Any]) -> None:
    """Add a record to a file of records; runs side by side wait for each other."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        text = file.read()
        known = json.loads(text) if text else []
        file.truncate(0)
        file.write(json.dumps([*known, record], indent=1) + "\n")


if __name__ == "__main__":
    main()
