"""One system of the speed benchmark in a process of its own: it does what it is told, call by call.

Its standard input brings one JSON object a line; it answers each with a line of ``@`` and one JSON object:
``{"do": "prepare", "structure": "water192", "task": "forces"}`` makes everything ready and calls it, uncounted;
``{"do": "run"}`` calls once and says what it cost; ``{"do": "drop"}`` forgets. Needs NumPy and ASE only.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import os
import platform
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ase.io

SLOW = 10.0  # s; two calls to warm up are enough
Call = Callable[[], float]  # one pass; the largest force, so that nobody times nothing


class System(ABC):
    """A network with random weights and the way to call it."""

    packages: tuple[str, ...]  # whose versions are recorded
    tasks: tuple[str, ...] = ("forces", "stress", "training")

    @abstractmethod
    def prepare(self, atoms: ase.Atoms, elements: list[int], task: str) -> Call:
        """What is timed: on a graph that stands, unless a system offers no such way."""

    def clock(self, call: Call) -> tuple[float, float]:
        """Seconds of one call, and what it gave."""
        begin = time.process_time()
        force = call()
        return time.process_time() - begin, force

    def peak(self) -> float:
        """Most memory since the last reset: the resident set."""
        return _status("VmHWM")

    def held(self) -> float:
        """Memory in use, MiB."""
        return _status("VmRSS")

    def reset_peak(self) -> None:
        """Forget the peak so far."""
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def serve(systems: dict[str, Callable[[argparse.Namespace], System]]) -> None:
    """Do what standard input says until it ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--system", choices=sorted(systems), required=True)
    parser.add_argument("--structures", type=Path, required=True, help="a folder with NAME.xyz and elements.json")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)  # what libraries print must not be taken for an answer
        system = systems[options.system](options)
        versions = {name: version(name) for name in system.packages} | {"python": platform.python_version()}
        answers.write(f"@{json.dumps({'ready': versions})}\n")
        worker = Worker(system, options.structures)
        for line in sys.stdin:
            try:
                answer = worker.answer(json.loads(line))
            except Exception as error:
                traceback.print_exc()
                answer = {
                    "error": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
                }
            answers.write(f"@{json.dumps(answer)}\n")


class Worker:
    """Answers one request after another."""

    def __init__(self, system: System, folder: Path) -> None:
        self.system, self.folder = system, folder
        self.elements: dict[str, list[int]] = json.loads((folder / "elements.json").read_text())
        self.call: Call | None = None

    def answer(self, wanted: dict[str, str]) -> dict[str, Any]:
        """Prepare, run or drop."""
        if wanted["do"] == "drop":
            self.call = None
            return {"dropped": True}
        if wanted["do"] == "prepare":
            return self.prepare(wanted["structure"], wanted["task"])
        assert self.call is not None, "prepare comes first"
        seconds, _ = self.system.clock(self.call)
        return {"seconds": seconds, "peak_MiB": self.system.peak()}

    def prepare(self, structure: str, task: str) -> dict[str, Any]:
        """Everything up to the first call that counts."""
        self.call = None
        if task not in self.system.tasks:
            return {"error": f"offers no {task}"}
        gc.collect()
        self.system.reset_peak()
        held = self.system.held()
        atoms = ase.io.read(self.folder / f"{structure}.xyz")
        begin = time.process_time()
        self.call = self.system.prepare(atoms, self.elements[structure], task)
        _, force = self.system.clock(self.call)
        before = time.process_time() - begin
        seconds, force = self.system.clock(self.call)  # the first may have compiled: it says nothing
        if seconds < SLOW:
            seconds, force = self.system.clock(self.call)
        if not math.isfinite(force) or force == 0.0:
            self.call = None
            return {"error": f"the largest force is {force}"}
        self.system.reset_peak()
        return {"seconds": seconds, "seconds_to_the_first": before, "held_MiB": held, "largest_force": force}


def largest(forces: Any) -> float:
    """Largest component of forces, a tensor."""
    return float(forces.detach().abs().max())


def _status(name: str) -> float:
    """A figure of this process in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024.0
