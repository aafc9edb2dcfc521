"""What the defaults give on sets of all kinds, and what more or fewer steps would give.

    python benchmarks/defaults.py --data DIR --sets tio2 qm7 --steps 1000 4000

Batch, loss and epochs are those of ``adatom.train.defaults``; every run has its own full schedule. Sets without a test
set of their own give a tenth. Each run adds its record to ``benchmarks/results/defaults.json``, or to ``--results``.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch
from accuracy import append, commit
from learning import Bench
from systems.ours import merge

from adatom.data.read import Structure, read
from adatom.data.split import Split, split
from adatom.train.config import TrainConfig
from adatom.train.defaults import batch_atoms, data_facts, epochs

WORTH_COMPILING = 6000  # steps
RESULTS = Path(__file__).resolve().parent / "results" / "defaults.json"
FILES: dict[str, tuple[list[str], list[str]]] = {  # to train on; to test on, a tenth of the former where there is none
    "si_pbe_gpaw": (["si_pbe_gpaw/train"], ["si_pbe_gpaw/test"]),
    "mlearn_mo": (["mlearn_elements/Mo/train"], ["mlearn_elements/Mo/test"]),
    "ethanol": (["rmd17/ethanol/train_01"], ["rmd17/ethanol/test_01"]),
    "3bpa": (["3bpa/train_300K"], ["3bpa/derived_600K_from_mixedT_167"]),
    "water": ([f"water_pbe0_deepmd/data_{k}" for k in range(3)], ["water_pbe0_deepmd/data_3"]),
    "tio2": (["tio2_aenet_subset/all"], []),
    "cu_ace": (["cu_ace21_1k/all"], []),
    "tial": (["tial_tutorial/all"], []),
    "perovskite": (["halide_perovskite/sys000_sub1500"], []),
    "inp": (["inp_snap/all"], []),
    "qm7": (["qm7/all"], []),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=sorted(FILES), default=sorted(FILES))
    parser.add_argument("--model", default="mlanet")
    parser.add_argument("--steps", nargs="+", type=int, default=[1000, 4000])
    parser.add_argument(
        "--change", nargs="+", default=[], metavar="optimizer.lr=0.01", help="departures, one at a time"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.sets:
        train, test = parts(options.data, name)
        known = data_facts(train)
        atoms = batch_atoms(known)
        bench = Bench(options.model, train, test, compiled=sum(options.steps) > WORTH_COMPILING)
        for entry in options.change or [""]:
            change = merge({"batch": {"atoms": atoms}}, nested(entry))
            for steps in options.steps:
                record = {
                    "set": name, "model": options.model, "structures": known.structures,
                    "atoms": round(known.atoms, 1), "labelled": dict(known.labelled), "change": entry,
                    "batch_atoms": change["batch"]["atoms"], "epochs_of_defaults": epochs(known, atoms),
                    "forces_rms_meV_per_A": spread(test),
                    **bench.train(change, steps, 0), "date": time.strftime("%Y-%m-%d %H:%M"), "commit": commit(),
                    "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
                }  # fmt: skip
                append(options.results, record)
                print({k: v for k, v in record.items() if k not in ("date", "commit", "machine")}, flush=True)


def parts(data: Path, name: str) -> tuple[list[Structure], list[Structure]]:
    """Structures to train on and to test on."""
    train, test = ([s for file in files for s in read(data / f"{file}.xyz.xz")[0]] for files in FILES[name])
    if not test:
        train, _, test = split(train, Split(valid=0, test=0.1))
    return train, [s for s in test if not s.isolated]


def spread(structures: list[Structure]) -> float:
    """Root mean square of a force component, meV/Å: the error of a potential that says nothing."""
    forces = torch.cat([torch.from_numpy(s.forces).flatten() for s in structures])
    return round(1e3 * float(forces[forces.isfinite()].square().mean().sqrt()), 1)


def nested(entry: str) -> dict[str, Any]:
    """``a.b=1`` as {a: {b: 1}}."""
    if not entry:
        return {}
    path, _, value = entry.partition("=")
    keys = path.split(".")
    found: Any = float(value) if "." in value or "e" in value else int(value)
    for key in reversed(keys):
        found = {key: found}
    TrainConfig.parse({"data": {"train": ["-"]}, "model": {"architecture": "mlanet"}} | found)  # refused here if wrong
    return dict(found)


if __name__ == "__main__":
    main()
