"""SevenNet for ``speed.py``, where sevenn is installed: its default network, and that of the published SevenNet-0."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import ase
import sevenn._keys as KEY
import torch
from sevenn._const import DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG
from sevenn.atom_graph_data import AtomGraphData
from sevenn.model_build import build_E3_equivariant_model
from sevenn.train.dataload import unlabeled_atoms_to_graph
from speed_worker import Call, System, largest, serve

SETTINGS: dict[str, dict[str, Any]] = {
    "sevenn-l1": {},  # 32 channels, lmax 1, 3 layers
    "sevenn-0": {
        KEY.NODE_FEATURE_MULTIPLICITY: 128, KEY.LMAX: 2, KEY.NUM_CONVOLUTION: 5, KEY.IS_PARITY: False,
        KEY.SELF_CONNECTION_TYPE: "linear",
        KEY.IRREPS_MANUAL: ["128x0e", *4 * ["128x0e+64x1e+32x2e"], "128x0e"],
        KEY.CUTOFF_FUNCTION: {"cutoff_function_name": "XPLOR", "cutoff_on": 4.5},
    },
}  # fmt: skip


class Sevenn(System):
    """One size."""

    packages = ("sevenn", "e3nn", "torch")

    def __init__(self, name: str, _: argparse.Namespace) -> None:
        self.name = name
        self.known: dict[tuple[int, ...], Any] = {}

    def model(self, elements: list[int], neighbours: float) -> Any:
        """With random weights, one for each set of elements."""
        key = tuple(elements)
        if key not in self.known:
            torch.manual_seed(0)
            config = copy.deepcopy(DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG) | SETTINGS[self.name]
            config |= {
                KEY.CUTOFF: 5.0, KEY.NUM_SPECIES: len(elements), KEY.TYPE_MAP: {z: k for k, z in enumerate(elements)},
                KEY.CONV_DENOMINATOR: neighbours**0.5, KEY.SHIFT: 0.0, KEY.SCALE: 1.0,
            }  # fmt: skip
            model = build_E3_equivariant_model(config)
            model.set_is_batch_data(False)
            self.known[key] = model
        return self.known[key]

    def prepare(self, atoms: ase.Atoms, elements: list[int], task: str) -> Call:
        graph = AtomGraphData.from_numpy_dict(unlabeled_atoms_to_graph(atoms, 5.0))
        training = task == "training"
        model = self.model(elements, graph[KEY.EDGE_IDX].shape[1] / len(atoms))
        model.train(training).requires_grad_(training)

        def call() -> float:
            model.zero_grad(set_to_none=True)
            found = model(graph.clone())
            if training:
                found[KEY.PRED_FORCE].square().mean().backward()
            return largest(found[KEY.PRED_FORCE])

        return call


if __name__ == "__main__":
    torch.set_num_threads(1)
    systems: dict[str, Callable[[argparse.Namespace], System]] = {
        name + "-eager": partial(Sevenn, name) for name in SETTINGS
    }
    serve(systems)
