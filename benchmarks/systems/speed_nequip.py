"""NequIP and Allegro for ``speed.py``, where nequip and nequip-allegro are installed.

``compiled``: inference by ``nequip-compile --mode aotinductor --target ase``, training by ``compile_mode: compile``,
which takes batches of two and more: two copies of the structure, the time of one.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ase
import torch
from ase.data import chemical_symbols
from nequip.data import AtomicDataDict, from_ase
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
from nequip.model import NequIPGNNModel
from nequip.scripts._compile_utils import COMPILE_TARGET_DICT
from nequip.utils.aot import aot_export_model
from nequip.utils.global_state import set_global_state
from speed_worker import Call, System, largest, serve

NEQUIP: dict[str, Any] = {"parity": True, "num_features": 32, "radial_mlp_depth": 2, "radial_mlp_width": 64}
TRAINED: dict[str, Any] = {"parity": True, "radial_mlp_depth": 1, "radial_mlp_width": 128}  # of the accuracy table
SETTINGS: dict[str, dict[str, Any]] = {
    "nequip-l1": NEQUIP | {"l_max": 1, "num_layers": 3},
    "nequip-l2": NEQUIP | {"l_max": 2, "num_layers": 4},
    "nequip-l1-2x32": TRAINED | {"l_max": 1, "num_layers": 2, "num_features": 32, "type_embed_num_features": 32},
    "nequip-l2-3x16": TRAINED | {"l_max": 2, "num_layers": 3, "num_features": 16, "type_embed_num_features": 32},
    # as in the tutorial that comes with it
    "allegro": {
        "l_max": 1, "parity": True, "num_layers": 2, "num_scalar_features": 64, "num_tensor_features": 32,
        "radial_chemical_embed": {
            "_target_": "allegro.nn.TwoBodyBesselScalarEmbed", "num_bessels": 8,
            "bessel_trainable": False, "polynomial_cutoff_p": 6,
        },
    },
}  # fmt: skip


class Nequip(System):
    """One size and code."""

    def __init__(self, name: str, code: str, _: argparse.Namespace) -> None:
        self.packages = ("nequip", "nequip-allegro", "torch") if name == "allegro" else ("nequip", "e3nn", "torch")
        self.name, self.code, self.copies = name, code, 1
        self.known: dict[tuple[Any, ...], Any] = {}

    def model(self, names: list[str], neighbours: float, mode: str) -> torch.nn.Module:
        """With random weights, one for each set of elements."""
        key = (*names, mode)
        if key not in self.known:
            build: Any = NequIPGNNModel
            if self.name == "allegro":
                from allegro.model import AllegroModel

                build = AllegroModel
            self.known[key] = build(
                seed=1, model_dtype="float32", type_names=names, r_max=5.0, avg_num_neighbors=neighbours,
                compile_mode=mode, **SETTINGS[self.name],
            )  # fmt: skip
        made: torch.nn.Module = self.known[key]
        return made

    def exported(self, names: list[str], neighbours: float, values: Any) -> Any:
        """What ``nequip-compile`` makes of it."""
        key = (*names, "exported")
        if key not in self.known:
            target = COMPILE_TARGET_DICT["ase"]
            # minutes of work: kept for the next run
            folder = Path(tempfile.gettempdir()) / f"adatom_speed_{version('nequip')}_{torch.__version__}"
            folder.mkdir(exist_ok=True)
            path = folder / f"{self.name}_{'_'.join(names)}.nequip.pt2"
            if not path.exists():
                self.export(names, neighbours, values, path)
            runner = torch._inductor.aoti_load_package(str(path))
            self.known[key] = (runner, target["input"], target["output"])
        return self.known[key]

    def export(self, names: list[str], neighbours: float, values: Any, path: Path) -> None:
        """Write the compiled network; under its name only once it is whole."""
        target = COMPILE_TARGET_DICT["ase"]
        sizes = {k: torch.export.dynamic_shapes.Dim(f"num_{k}s", min=2) for k in ("graph", "node", "edge")}
        unfinished = str(path.with_name(f"unfinished_{path.name}"))
        aot_export_model(
            model=self.model(names, neighbours, "eager").eval(), device="cpu", input_fields=target["input"],
            output_fields=target["output"], data=target["data_settings"](dict(values)),
            batch_map=target["batch_map_settings"](sizes), output_path=unfinished,
        )  # fmt: skip
        Path(unfinished).rename(path)

    def prepare(self, atoms: ase.Atoms, elements: list[int], task: str) -> Call:
        names, training = [chemical_symbols[z] for z in elements], task == "training"
        values = from_ase(atoms)
        for transform in (
            ChemicalSpeciesToAtomTypeMapper(model_type_names=names),
            NeighborListTransform(r_max=5.0),
        ):
            values = transform(values)
        neighbours = values["edge_index"].shape[1] / len(atoms)
        self.copies = 1
        if self.code == "compiled" and not training:
            if not atoms.pbc.any():
                values["cell"] = torch.eye(3, dtype=values["pos"].dtype).unsqueeze(0) * 1000.0
                values["edge_cell_shift"] = values["pos"].new_zeros((values["edge_index"].shape[1], 3))
            runner, fields, results = self.exported(names, neighbours, values)
            place = results.index("forces")
            inputs = [values[k] for k in fields]

            def infer() -> float:
                with torch.inference_mode():
                    return largest(runner(inputs)[place])

            return infer
        if self.code == "compiled":
            self.copies = 2
            values = AtomicDataDict.batched_from_list([values, values])
        model = self.model(names, neighbours, "compile" if self.code == "compiled" else "eager")
        model.train(training).requires_grad_(training)

        def call() -> float:
            fresh = {k: v.detach().clone() if torch.is_tensor(v) else v for k, v in values.items()}
            model.zero_grad(set_to_none=True)
            found = model(fresh)
            if training:
                found["forces"].square().mean().backward()
            return largest(found["forces"])

        return call

    def clock(self, call: Call) -> tuple[float, float]:
        seconds, force = super().clock(call)
        return seconds / self.copies, force


if __name__ == "__main__":
    torch.set_num_threads(1)
    set_global_state()
    systems: dict[str, Callable[[argparse.Namespace], System]] = {
        f"{name}-{code}": partial(Nequip, name, code) for name in SETTINGS for code in ("eager", "compiled")
    }
    serve(systems)
