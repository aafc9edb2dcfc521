"""Correctness, speed and memory on one card, part after part: ``run_all.sh`` says how.

Every part is a process of its own with a time limit, and writes a line of JSON as soon as it knows something: what
fails or lasts too long is recorded, and takes nothing else along. First come the parts that only check (and compile:
what is compiled is found again afterwards), side by side; then those that measure, alone, the most wanted first.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "gpu.json"
ARCHITECTURES, SIZES = ("nemp", "mlanet", "allscaip"), ("S", "M", "L")
Record = dict[str, Any]


class Part(NamedTuple):
    """One process."""

    name: str  # what ``parts.py`` calls it, and its argument: check nemp S
    limit: float  # s


def checks(quick: bool) -> list[Part]:
    """What runs side by side."""
    parts = [Part("graphs", 150), Part("tests", 150)]
    if quick:
        return [*parts, Part("check nemp S", 60)]
    return parts + [Part(f"check {name} {size}", 200) for size in SIZES for name in ARCHITECTURES]


def measurements(quick: bool) -> list[Part]:
    """What runs alone, the most wanted first."""
    if quick:
        return [
            Part("kernels", 30),
            Part("speed nemp S", 60),
            Part("dynamics nemp S", 40),
            Part("large allscaip S", 40),
        ]
    return [
        Part("kernels", 60),
        Part("speed nemp S", 60),
        Part("speed mlanet S", 60),
        Part("dynamics nemp S", 50),
        Part("large allscaip S", 90),
        Part("speed allscaip S", 40),
        Part("profile nemp S", 30),
        Part("tuning", 60),
        Part("training nemp S", 40),
        Part("training mlanet S", 40),
        Part("dynamics mlanet S", 40),
        *(Part(f"speed {name} {size}", 40) for size in ("M", "L") for name in ARCHITECTURES),
        Part("profile mlanet S", 30),
        Part("training allscaip S", 30),
        *(Part(f"training {name} {size}", 40) for size in ("M", "L") for name in ARCHITECTURES),
    ]


class Run:
    """Parts, and what they have said."""

    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        self.options, self.scratch = options, scratch
        self.end = options.began + options.seconds
        self.records: list[Record] = []
        self.parts: list[Record] = []

    def start(self, part: Part) -> tuple[Part, subprocess.Popen[bytes], float]:
        """Begin a part."""
        command = [sys.executable, str(Path(__file__).with_name("parts.py")), *part.name.split()]
        command += ["--device", self.options.device, "--to", str(self._said(part)), "--scratch", str(self.scratch)]
        command += ["--quick"] if self.options.quick else []
        environment = os.environ | {"ADATOM_CACHE": str(self.scratch / "cache"), "OMP_NUM_THREADS": "1"}
        with self._said(part).with_suffix(".log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=ROOT)
        return part, process, time.time()

    def finish(self, part: Part, process: subprocess.Popen[bytes], began: float) -> None:
        """Wait for a part, no longer than it may last."""
        error = ""
        try:
            code = process.wait(max(1.0, min(began + part.limit, self.end) - time.time()))
            if code:
                error = f"exit status {code}: {self._last_words(part)}"
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            error = f"stopped after {time.time() - began:.0f} s"
        said = self._said(part)
        lines = said.read_text().splitlines() if said.exists() else []
        self.records += [{"part": part.name} | json.loads(line) for line in lines if line.endswith("}")]
        self.parts.append({"part": part.name, "seconds": round(time.time() - began, 1), "error": error})
        print(f"{part.name}: {time.time() - began:.0f} s {error[:200]}", flush=True)
        self.write()

    def side_by_side(self, parts: Iterable[Part], at_once: int) -> None:
        """Some parts at a time."""
        waiting, running = list(parts), []
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(self.start(waiting.pop(0)))
            done = [r for r in running if r[1].poll() is not None or time.time() > min(r[2] + r[0].limit, self.end)]
            for entry in done:
                running.remove(entry)
                self.finish(*entry)
            time.sleep(0.2)

    def alone(self, parts: Iterable[Part]) -> None:
        """One part after the other, while there is time."""
        for part in parts:
            if time.time() > self.end - 5:
                self.parts.append({"part": part.name, "seconds": 0.0, "error": "no time left"})
                continue
            self.finish(*self.start(part))
        self.write()

    def write(self) -> None:
        """All that is known so far."""
        header = {
            "date": time.strftime("%Y-%m-%d"),
            "commit": _output("git", "rev-parse", "HEAD"),
            "changed": bool(_output("git", "status", "--porcelain", "--untracked-files=no")),
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "seconds": round(time.time() - self.options.began, 1),
            "quick": self.options.quick,
            **{name: _version(name) for name in ("torch", "triton", "numpy")},
        }
        found = header | {"parts": self.parts, "results": self.records}
        self.options.to.parent.mkdir(parents=True, exist_ok=True)
        self.options.to.write_text(json.dumps(found, indent=1) + "\n")

    def _said(self, part: Part) -> Path:
        return self.scratch / (part.name.replace(" ", "-") + ".jsonl")

    def _last_words(self, part: Part) -> str:
        text = self._said(part).with_suffix(".log").read_text(errors="replace").strip()
        return text[-1500:]


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def table(run: Run) -> list[str]:
    """The short of it."""
    lines, records = [], run.records
    card = next((r for r in records if "card" in r), {})
    lines.append(f"{card.get('card', run.options.device)}, torch {_version('torch')}, CUDA {card.get('cuda', '-')}")
    for r in records:
        match r.get("what"):
            case "check":
                lines.append(
                    f"  {r['of']:28} {r['which']:34} {'ok' if r['ok'] else 'WRONG'}  {str(r.get('said', ''))[:90]}"
                )
            case "tests":
                lines.append(f"  tests: {r['said']}")
            case "kernel":
                lines.append(
                    f"  {r['kernel']:20} {r['shape']:34} twin {r['twin_us']:9.0f} µs  kernel {r['kernel_us']:9.0f} µs"
                    f"  x {r['twin_us'] / r['kernel_us']:5.2f}"
                )
            case "alone":
                lines.append(f"  {r['kernel']:20} {r['shape']:34} {r['us']:9.0f} µs {r['peak_MiB']:9.0f} MiB")
            case "speed" | "training" | "large":
                lines.append(
                    f"  {r['of']:12} {r['what']:8} {r['system']:8} {r['atoms']:7d} atoms {r['code']:18}"
                    f" {r['us_per_atom']:10.3f} µs/atom {r['peak_MiB']:9.0f} MiB"
                )
            case "dynamics":
                lines.append(
                    f"  {r['of']:12} dynamics {r['atoms']:5d} atoms {r['code']:28} {r['us_per_step']:10.0f} µs/step"
                )
            case "error":
                lines.append(f"  {r['part']}: {r['where']}: {r['error'][:140]}")
    lines += [f"  {p['part']}: {p['error'][-140:]}".replace("\n", " ") for p in run.parts if p["error"]]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small systems, few parts")
    parser.add_argument("--seconds", type=float, default=520.0, help="for everything, setting up included")
    parser.add_argument("--began", type=float, default=time.time(), help="seconds since 1970")
    parser.add_argument("--only", help="parts whose names begin so: speed,check nemp")
    parser.add_argument("--to", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.to = options.to.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(options, Path(scratch))
        wanted = [
            [
                part
                for part in parts
                if part.name == "graphs" or part.name.startswith(tuple((options.only or "").split(",")))
            ]
            for parts in (checks(options.quick), measurements(options.quick))
        ]
        run.side_by_side(wanted[0], 1 if options.quick else max(2, (os.cpu_count() or 2) - 2))
        run.alone(wanted[1])
        print("\n".join(table(run)))
        print(f"{time.time() - options.began:.0f} s in all; everything is in {options.to}")


if __name__ == "__main__":
    main()
