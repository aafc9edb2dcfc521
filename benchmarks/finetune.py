"""Fine-tuning on real data, against training from scratch at equal CPU time.

    python benchmarks/finetune.py --data DIR                # everything that is not yet in the results
    python benchmarks/finetune.py --data DIR --only ethanol
    python benchmarks/finetune.py --table                   # what docs/finetune.md shows

DIR holds the data sets, one folder each (extended XYZ, xz). NEMP of size S, one thread, uncompiled steps, the clock is
CPU time of training. Three cases:

silicon     small cells (GPAW, PBE) -> liquid silicon of another group (Quantum ESPRESSO, PBE), 60 frames
molybdenum  the same model -> molybdenum (VASP, PBE), an element that it has never seen
ethanol     rMD17 (PBE, def2-SVP) -> MD17 (PBE+vdW-TS), 50, 200 and 1,000 frames

Every record of ``benchmarks/results/finetune.json`` has the errors on held-out new data, before any training, at the
first validation after it began, and at the end, and those on old test data before and after.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from accuracy import commit
from rich.console import Console
from sets import labelled

from adatom import model_file
from adatom.data.dataset import Budget, Dataset
from adatom.data.read import Structure, read
from adatom.train.config import TrainConfig
from adatom.train.evaluate import predict
from adatom.train.recipe import recipe
from adatom.train.run import train

RESULTS = Path(__file__).resolve().parent / "results" / "finetune.json"
BASE_MINUTES = {"silicon": 2.5, "ethanol": 3.0}
MINUTES = {"silicon": 1.5, "molybdenum": 1.5, "ethanol": 1.0}
TITLES = {"scratch": "from scratch", "plain": "fine-tuned"}
FIGURES = ("energy_rmse_meV_per_atom", "forces_rmse_meV_per_A")


@dataclass(frozen=True)
class Case:
    """New data and old, and the ways to learn the new."""

    base: str  # which model to start from
    train: list[Structure]
    test: list[Structure]
    old_train: list[Structure]
    old_test: list[Structure]
    ways: dict[str, dict[str, Any]] = field(default_factory=dict)  # entries of ``finetune``; None is from scratch


def cases(data: Path) -> Iterator[tuple[str, Case]]:
    """Every case by its name, ``ethanol_200`` for instance."""
    old = (_read(data, "si_pbe_gpaw/train"), _read(data, "si_pbe_gpaw/test"))
    liquid = _shuffled(_read(data, "si_csi_workshop/liquid_1700K"))
    plain: dict[str, Any] = {"scratch": None, "plain": {"replay": {"share": 0.0}}}
    yield "silicon", Case("silicon", liquid[:60], liquid[-100:], *old, plain | {"replay": {"replay": {"share": 0.3}}})
    metal = (_read(data, "mlearn_elements/Mo/train"), _read(data, "mlearn_elements/Mo/test"))
    ways = plain | {"replay": {}, "old data": {"replay": {"files": True}}}
    yield "molybdenum", Case("silicon", *metal, *old, ways)
    old = (_read(data, "rmd17/ethanol/train_01"), _read(data, "rmd17/ethanol/test_01")[:500])
    theirs = _shuffled(_read(data, "md17_ethanol_2000/all"))
    for frames in (50, 200, 1000):
        ways = plain
        if frames == 200:
            low = {"replay": {"share": 0.0}, "lora": {"rank": 8}}
            ways = plain | {"two sources": {"source": "vdw-TS", "old_source": "svp"}, "lora 8": low}
        yield f"ethanol_{frames}", Case("ethanol", theirs[:frames], theirs[-500:], *old, ways)


def base_values(name: str, files: dict[str, str]) -> dict[str, Any]:
    """Configuration of the model to start from."""
    minutes = BASE_MINUTES[name]
    return scratch_values(files["old_train"], files["old_test"], minutes) | {"name": f"base_{name}"}


def scratch_values(new: str, test: str, minutes: float) -> dict[str, Any]:
    """Configuration of a training from scratch, with the settings that the data ask for."""
    return {
        "data": {"train": [new], "test": [test], "split": {"valid": 0.1}},
        "model": {"architecture": "nemp", "size": "S"},
        "loss": _loss(new),
        "batch": {"atoms": 64},
        **_budget(minutes),
    }


def _loss(path: str) -> dict[str, Any]:
    from adatom.train.defaults import data_facts, loss_settings

    return loss_settings(data_facts(read(path)[0]))


def _budget(minutes: float) -> dict[str, Any]:
    limits = {"minutes": minutes, "clock": "cpu"}
    return {"limits": limits, "threads": 1, "accelerator": "cpu", "compile": "off", "validate_every": 2}


def measure(name: str, case: Case, way: str, base: Path, runs: Path) -> dict[str, Any]:
    """One run; its record."""
    files = write(case, runs / "data" / name)
    given, minutes = case.ways[way], MINUTES[name.split("_")[0]]
    if given is None:
        values = scratch_values(files["train"], files["test"], minutes)
    else:
        settings = {"forgetting": {"files": [files["old_test"]]}, **given}
        if given.get("replay", {}).get("files"):
            settings["replay"] = {"files": [files["old_train"]]}
        values = recipe(base, [Path(files["train"])], "", {"test": [Path(files["test"])]}, settings)
        values |= {key: value for key, value in _budget(minutes).items() if key != "validate_every"}
    values["name"] = f"{name}_{way}".replace(" ", "_")
    load = os.getloadavg()[0]
    folder = train(TrainConfig.parse(values), runs, console=Console(file=io.StringIO(), width=120))
    metrics = json.loads((folder / "metrics.json").read_text())
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    valid = [[r["step"], *(round(r[figure], 3) for figure in FIGURES)] for r in log if r["kind"] == "valid"]
    forgotten = metrics.get("forgetting", {})
    return {
        "case": name, "way": way, "minutes": minutes, "frames": len(case.train), "settings": given,
        "steps": valid[-1][0], "test": metrics["test"], "validation": valid,
        "old": {key: forgotten.get(key) for key in ("before", "after")} if given is not None else None,
        "date": time.strftime("%Y-%m-%d %H:%M"), "commit": commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f} at the start",
    }  # fmt: skip


def before(name: str, case: Case, base: Path) -> dict[str, Any]:
    """What the old model says of the new data, its energies where they stand: nothing is solved."""
    potential = model_file.load(base)
    if not {int(z) for s in case.test for z in s.atoms.numbers} <= set(potential.elements):
        return {}
    errors = predict(potential, Dataset(case.test, potential.cutoff), Budget(atoms=256)).errors()
    return {"case": name, "way": "old model", "minutes": 0.0, "test": errors}


def write(case: Case, folder: Path) -> dict[str, str]:
    """The parts of a case as files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for part in ("train", "test", "old_train", "old_test"):
        paths[part] = str(folder / f"{part}.xyz")
        ase.io.write(paths[part], [labelled(s) for s in getattr(case, part)], format="extxyz")
    return paths


def _read(data: Path, name: str) -> list[Structure]:
    return list(read(data / f"{name}.xyz.xz")[0])


def _shuffled(structures: list[Structure]) -> list[Structure]:
    return [structures[k] for k in np.random.default_rng(0).permutation(len(structures))]


def run_all(data: Path, runs: Path, results: Path, only: list[str]) -> None:
    """Every run that is not in the results yet."""
    torch.set_num_threads(1)
    records = json.loads(results.read_text()) if results.exists() else []
    for name, case in cases(data):
        if only and name.split("_")[0] not in only:
            continue
        base = runs / f"base_{case.base}" / "model.adatom"
        if not base.exists():
            values = base_values(case.base, write(case, runs / "data" / name))
            train(TrainConfig.parse(values), runs, console=Console(file=io.StringIO(), width=120))
        for way in ("old model", *case.ways):
            if any((record["case"], record["way"]) == (name, way) for record in records):
                continue
            record = before(name, case, base) if way == "old model" else measure(name, case, way, base, runs)
            if record:
                records.append(record)
                results.write_text(json.dumps(records, indent=1) + "\n")
                print(name, way, json.dumps({k: round(v, 2) for k, v in record["test"].items() if v}), flush=True)


def table(records: list[dict[str, Any]]) -> str:
    """Rows for the page of the documentation."""
    lines = [
        "| case | way | CPU min | E, meV/atom | F, meV/Å | E at the start | first validation | old: E | old: F |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in records:
        energy, forces = (r["test"][figure] for figure in FIGURES)
        start = first = old_energy = old_forces = ""
        if r.get("old"):
            start, first = (f"{point[1]:.2f}" for point in r["validation"][:2])
            was, now = r["old"]["before"], r["old"]["after"]
            old_energy, old_forces = (f"{was[figure]:.1f} → {now[figure]:.1f}" for figure in FIGURES)
        cells = (
            r["case"].replace("_", ", "), TITLES.get(r["way"], r["way"]), f"{r['minutes']:g}" if r["minutes"] else "",
            f"{energy:,.1f}" if energy > 100 else f"{energy:.2f}", f"{forces:.1f}", start, first,
            old_energy, old_forces,
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", nargs="*", default=[], choices=sorted(MINUTES))
    parser.add_argument("--runs", type=Path, help="keep the runs here, and start from base models that stand here")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print what is in the results as Markdown")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.results.read_text())))
        return
    if options.data is None:
        parser.error("--data is needed to run")
    with tempfile.TemporaryDirectory() as scratch:
        run_all(options.data, options.runs or Path(scratch), options.results, options.only)


if __name__ == "__main__":
    main()
