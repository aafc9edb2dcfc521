"""Symmetrix-XL for ``speed.py``, where symmetrix-xl and mace-torch are installed: a MACE of random weights, converted.

It is called by its ASE calculator, the only way that it offers from Python. Its list of neighbours has a skin (0.1 Å
here) and stands through the calls: two positions, 0.001 Å apart, take turns.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch
from speed_mace import batch_of, network
from speed_worker import Call, System, serve
from symmetrix import Symmetrix


class Converted(System):
    """A MACE of one size."""

    packages = ("symmetrix-xl", "mace-torch")
    tasks = ("forces", "stress")

    def __init__(self, hidden: str, _: argparse.Namespace) -> None:
        self.hidden = hidden
        self.known: dict[tuple[int, ...], Any] = {}

    def prepare(self, atoms: ase.Atoms, elements: list[int], task: str) -> Call:
        key, atoms = tuple(elements), atoms.copy()
        if not atoms.pbc.any():
            atoms.cell = [100.0] * 3  # it wants a cell, also where nothing is periodic
        if key not in self.known:
            mean = batch_of(atoms, elements).edge_index.shape[1] / len(atoms)
            path = Path(tempfile.mkdtemp()) / "mace.model"
            torch.save(network(self.hidden, elements, mean), path)
            self.known[key] = path
        calculator = Symmetrix(str(self.known[key]), dtype="float32", execution_profile="speed", neighbor_skin=0.1)
        moved, wanted = atoms.copy(), ["energy", "forces"] + (["stress"] if task == "stress" else [])
        moved.positions[:, 0] += 0.001 * np.sin(np.arange(len(atoms)))
        turns = [atoms, moved]

        def call() -> float:
            turns.reverse()
            calculator.calculate(turns[0], wanted)
            return float(np.abs(calculator.results["forces"]).max())

        return call


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    systems: dict[str, Callable[[argparse.Namespace], System]] = {
        "symmetrix-128x0e+128x1o-compiled": partial(Converted, "128x0e + 128x1o")
    }
    serve(systems)
