"""CHGNet for ``speed.py``, where chgnet is installed: as published, with its own cutoffs (6 Å, angles within 3 Å).

It knows crystals only: molecules stand in a box of 15 Å more than they need.
"""

from __future__ import annotations

import argparse

import ase
import torch
from chgnet.model import CHGNet
from pymatgen.io.ase import AseAtomsAdaptor
from speed_worker import Call, System, largest, serve


class Chgnet(System):
    """With random weights."""

    packages = ("chgnet", "torch")

    def __init__(self, _: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.model = CHGNet(composition_model=None)

    def prepare(self, atoms: ase.Atoms, elements: list[int], task: str) -> Call:
        atoms, training = atoms.copy(), task == "training"
        if not atoms.pbc.all():
            atoms.center(vacuum=7.5)
            atoms.pbc = True
        graph = self.model.graph_converter(AseAtomsAdaptor.get_structure(ase.Atoms(atoms)))
        self.model.train(training).requires_grad_(training)

        def call() -> float:
            self.model.zero_grad(set_to_none=True)
            found = self.model([graph], task="efs" if task == "stress" else "ef")
            if training:
                found["f"][0].square().mean().backward()
            return largest(found["f"][0])

        return call


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve({"chgnet-eager": Chgnet})
