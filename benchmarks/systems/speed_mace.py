"""MACE for ``speed.py``, where mace-torch is installed: two layers, lmax 3, correlation 3, 5 Å.

``compiled`` is the compiled mode of its calculator: the network it makes, on the batch that it pads.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import ase
import numpy as np
import torch
from mace import data, modules  # before e3nn: it sets how the constants of e3nn are loaded
from mace.calculators import MACECalculator
from mace.tools import AtomicNumberTable, torch_geometric
from speed_worker import Call, System, largest, serve

from e3nn import o3  # isort: skip

HIDDEN = {"32x0e": "32x0e", "64x0e": "64x0e", "128x0e": "128x0e", "128x0e+128x1o": "128x0e + 128x1o"}


def network(hidden: str, elements: list[int], mean_neighbours: float) -> torch.nn.Module:
    """With random weights."""
    torch.manual_seed(0)
    return modules.ScaleShiftMACE(
        r_max=5.0, num_bessel=8, num_polynomial_cutoff=5, max_ell=3, num_interactions=2, correlation=3,
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
        num_elements=len(elements), atomic_numbers=elements, atomic_energies=np.zeros((1, len(elements))),
        hidden_irreps=o3.Irreps(hidden), MLP_irreps=o3.Irreps("16x0e"), gate=torch.nn.functional.silu,
        radial_MLP=[64, 64, 64], radial_type="bessel", avg_num_neighbors=mean_neighbours,
        atomic_inter_scale=1.0, atomic_inter_shift=0.0, heads=["Default"],
    )  # fmt: skip


def batch_of(atoms: ase.Atoms, elements: list[int]) -> Any:
    """The graph as MACE makes it."""
    config = data.config_from_atoms(atoms)
    graph = data.AtomicData.from_config(config, z_table=AtomicNumberTable(elements), cutoff=5.0, heads=["Default"])
    return next(iter(torch_geometric.dataloader.DataLoader([graph], batch_size=1)))


class Mace(System):
    """One size, eager."""

    packages = ("mace-torch", "e3nn", "torch")

    def __init__(self, hidden: str, _: argparse.Namespace) -> None:
        self.hidden = hidden
        self.known: dict[tuple[int, ...], Any] = {}

    def prepare(self, atoms: ase.Atoms, elements: list[int], task: str) -> Call:
        batch, key = batch_of(atoms, elements), tuple(elements)
        if key not in self.known:
            self.known[key] = network(self.hidden, elements, batch.edge_index.shape[1] / len(atoms))
        model, training, values = self.known[key], task == "training", batch.to_dict()
        model.train(training).requires_grad_(training)

        def call() -> float:
            fresh = {k: v.detach().clone() if torch.is_tensor(v) else v for k, v in values.items()}
            model.zero_grad(set_to_none=True)
            found = model(fresh, training=training, compute_force=True, compute_stress=task == "stress")
            if training:
                found["forces"].square().mean().backward()
            return largest(found["forces"])

        return call


class Compiled(System):
    """One size, by the compiled mode of the calculator."""

    packages = ("mace-torch", "e3nn", "torch")

    def __init__(self, hidden: str, _: argparse.Namespace) -> None:
        self.hidden = hidden
        self.known: dict[tuple[int, ...], Any] = {}

    def prepare(self, atoms: ase.Atoms, elements: list[int], task: str) -> Call:
        key, training = tuple(elements), task == "training"
        if key not in self.known:
            mean = batch_of(atoms, elements).edge_index.shape[1] / len(atoms)
            self.known[key] = MACECalculator(
                models=[network(self.hidden, elements, mean)], device="cpu", default_dtype="float32",
                compile_mode="default",
            )  # fmt: skip
        calculator = self.known[key]
        calculator._padding_initialized, calculator.pad_num_atoms, calculator.pad_num_edges = False, 0, 0
        base, model = calculator._atoms_to_batch(atoms), calculator.models[0]
        model.requires_grad_(training)

        def call() -> float:
            fresh = calculator._clone_batch(base).to_dict()
            model.zero_grad(set_to_none=True)
            found = model(fresh, compute_stress=task == "stress", training=True)
            if training:
                found["forces"][: len(atoms)].square().mean().backward()
            return largest(found["forces"][: len(atoms)])

        return call


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    systems: dict[str, Callable[[argparse.Namespace], System]] = {}
    for name, hidden in HIDDEN.items():
        systems |= {f"mace-{name}-eager": partial(Mace, hidden), f"mace-{name}-compiled": partial(Compiled, hidden)}
    serve(systems)
