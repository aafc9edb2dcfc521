"""What rounding the factors of matrix products to TF32 or bfloat16 costs in accuracy, measured without such hardware.

    OMP_NUM_THREADS=1 python benchmarks/precision.py --steps 1500

A dispatch mode rounds both factors of every matrix product, forward and backward, to 10 or 7 bits after the leading one
and leaves the sums in float32, as tensor cores do. One network per rounding is trained on the silicon set that comes
with the repository, from the same start, and tested; besides, the network trained in float32 is evaluated with each
rounding and in float64. Writes ``benchmarks/results/precision.json``.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accuracy import commit
from rich.console import Console
from torch.utils._python_dispatch import TorchDispatchMode

import adatom
from adatom.data.dataset import Budget, Dataset
from adatom.data.read import read
from adatom.train.config import TrainConfig
from adatom.train.evaluate import predict
from adatom.train.run import train

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "data" / "si_pbe_gpaw"
RESULTS = HERE / "results" / "precision.json"
BITS = {"float32": 23, "tf32": 10, "bf16": 7}
ATEN = torch.ops.aten
FACTORS = {  # where the factors stand among the arguments
    ATEN.mm.default: (0, 1), ATEN.bmm.default: (0, 1), ATEN.addmm.default: (1, 2), ATEN.baddbmm.default: (1, 2),
}  # fmt: skip


class Rounded(TorchDispatchMode):
    """Inside it the factors of float32 matrix products are rounded to the nearest number of so many bits."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in FACTORS:
            args = list(args)
            for k in FACTORS[func]:
                args[k] = rounded(args[k], self.bits)
        return func(*args, **(kwargs or {}))


def rounded(value: torch.Tensor, bits: int) -> torch.Tensor:
    """To nearest, ties to even, in the bits after the leading one."""
    if value.dtype != torch.float32:
        return value
    drop = 23 - bits
    whole = value.contiguous().view(torch.int32)
    half = (1 << (drop - 1)) - 1 + ((whole >> drop) & 1)
    return ((whole + half) >> drop << drop).view(torch.float32)


def within(rounding: str) -> Any:
    return nullcontext() if rounding == "float32" else Rounded(BITS[rounding])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--architectures", default="nemp,mlanet")
    options = parser.parse_args()
    record: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"), "commit": commit(), "torch": torch.__version__, "steps": options.steps,
        "set": "si_pbe_gpaw", "rows": [],
    }  # fmt: skip
    structures = read(DATA / "test.xyz.xz")[0]
    with tempfile.TemporaryDirectory() as scratch:
        for architecture in options.architectures.split(","):
            models = {}
            for rounding in BITS:
                with within(rounding):
                    models[rounding] = fit(architecture, rounding, options.steps, Path(scratch))
            exact = forces(models["float32"], structures, "float32", torch.float64)
            for rounding in BITS:
                off = forces(models["float32"], structures, rounding, torch.float32) - exact
                row = {
                    "architecture": architecture, "rounding": rounding,
                    "trained_so_forces_rmse_meV_per_A": tested(models[rounding], "forces_rmse_meV_per_A"),
                    "trained_so_energy_rmse_meV_per_atom": tested(models[rounding], "energy_rmse_meV_per_atom"),
                    "evaluated_so_forces_off_meV_per_A": 1e3 * math.sqrt(float((off**2).mean())),
                }  # fmt: skip
                print(row, flush=True)
                record["rows"].append(row)
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")


def fit(architecture: str, rounding: str, steps: int, folder: Path) -> Path:
    """Train; the model file."""
    config = TrainConfig.parse({
        "name": f"{architecture}_{rounding}", "model": {"architecture": architecture}, "compile": False, "threads": 1,
        "data": {"train": [str(DATA / "train.xyz.xz")], "test": [str(DATA / "test.xyz.xz")]},
        "limits": {"steps": steps}, "accelerator": "cpu", "validate_every": 1000,
    })  # fmt: skip
    return train(config, folder, console=Console(file=io.StringIO())) / "model.adatom"


def tested(model: Path, key: str) -> float:
    return float(json.loads((model.parent / "metrics.json").read_text())["test"][key])


def forces(model: Path, structures: Any, rounding: str, dtype: torch.dtype) -> torch.Tensor:
    """Forces on the test structures, (N, 3)."""
    potential = adatom.load(model, dtype=dtype, compile="off")
    with within(rounding):
        return predict(potential, Dataset(structures, potential.cutoff), Budget(atoms=64)).predicted.forces


if __name__ == "__main__":
    main()
