"""The authors' AllScAIP for ``speed.py``, where fairchem-core is installed: size sm (NeNo), conservative, 5 Å.

The network searches its own neighbours: that is part of a call.
"""

from __future__ import annotations

import argparse

import ase
import numpy as np
import torch
from fairchem.core.datasets.atomic_data import AtomicData, atomicdata_list_to_batch
from fairchem.core.models.allscaip import AllScAIP as code  # noqa: N813 (a module)
from speed_worker import Call, System, largest, serve


class Fairchem(System):
    """With random weights."""

    packages = ("fairchem-core", "torch")
    tasks = ("forces", "training")

    def __init__(self, _: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.backbone = code.AllScAIPBackbone(
            regress_forces=True, direct_forces=False, hidden_size=512, num_layers=6, use_compile=False,
            use_padding=False, use_node_path=True, max_num_elements=119, max_atoms=20000, max_batch_size=8,
            max_radius=5.0, knn_k=30, atten_name="math", atten_num_heads=8, use_freq_mask=False, use_sincx_mask=False,
        )  # fmt: skip
        self.head = code.AllScAIPGradientEnergyForceStressHead(self.backbone, wrap_property=False)

    def prepare(self, atoms: ase.Atoms, elements: list[int], task: str) -> Call:
        atoms, training = atoms.copy(), task == "training"
        atoms.info |= {"charge": 0, "spin": 1}
        if not atoms.pbc.any():
            atoms.set_cell(np.eye(3) * 300.0)
        made = AtomicData.from_ase(atoms, r_edges=False, r_data_keys=["charge", "spin"], task_name="omol")
        for part in (self.backbone, self.head):
            part.train(training).requires_grad_(training)

        def call() -> float:
            batch = atomicdata_list_to_batch([made.clone()])
            self.backbone.zero_grad(set_to_none=True)
            self.head.zero_grad(set_to_none=True)
            found = self.head(batch, self.backbone(batch))
            if training:
                found["forces"].square().mean().backward()
            return largest(found["forces"])

        return call


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve({"fairchem-allscaip-sm-eager": Fairchem})
