"""``adatom train | finetune | evaluate | report``."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adatom.cli.app import Device, ModelFile, Overwrite, app, console, override, ready
from adatom.errors import LabelError

if TYPE_CHECKING:
    from adatom.data.read import Structure


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML file, see configs/")],
    folder: Annotated[Path, typer.Option(help="where run folders are made")] = Path("runs"),
    resume: Annotated[bool, typer.Option("--resume", help="go on from the last checkpoint of this run")] = False,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="override one entry: --set limits.minutes=5 (repeatable)")
    ] = None,
) -> None:
    """Train a potential."""
    from adatom.config import read_yaml
    from adatom.train.config import TrainConfig
    from adatom.train.loop import Stopped
    from adatom.train.run import train as run_training

    values = read_yaml(config)
    for entry in change or ():
        override(values, entry)
    try:
        run_training(TrainConfig.parse(values, where=str(config)), folder, resume, console)
    except Stopped:
        raise typer.Exit(130) from None  # as shells say of Ctrl-C


@app.command()
def finetune(
    model: ModelFile,
    files: Annotated[list[Path], typer.Argument(help="new labelled structures")],
    valid: Annotated[list[Path] | None, typer.Option(help="to validate on; without, a tenth of the new ones")] = None,
    test: Annotated[list[Path] | None, typer.Option(help="to test on")] = None,
    replay: Annotated[
        list[Path] | None, typer.Option(help="old data to keep in mind; without, what the old model says itself")
    ] = None,
    replay_share: Annotated[float, typer.Option(help="of the atoms of an epoch; 0: no replay")] = 0.3,
    probe: Annotated[list[Path] | None, typer.Option(help="old test data, to measure what is forgotten")] = None,
    forget_bound: Annotated[
        float | None, typer.Option(help="stop when errors on the probe have grown by this factor")
    ] = None,
    lora: Annotated[int | None, typer.Option(help="train low-rank changes of this rank only")] = None,
    freeze: Annotated[
        list[str] | None, typer.Option(help="weights that stay as they are: embedding, layers.0, ... (repeatable)")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="name of the new labels, to keep the old level of theory beside them")
    ] = None,
    name: Annotated[str, typer.Option(help="of the run, and of its folder")] = "finetune",
    folder: Annotated[Path, typer.Option(help="where run folders are made")] = Path("runs"),
    epochs: Annotated[int | None, typer.Option(help="passes over the data; by default by their number")] = None,
    minutes: Annotated[float | None, typer.Option(help="of training")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the last checkpoint of this run")] = False,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="override one entry: --set optimizer.lr=0.002 (repeatable)")
    ] = None,
) -> None:
    """Teach a trained potential new data, and say what it forgets."""
    from adatom.train.config import TrainConfig
    from adatom.train.loop import Stopped
    from adatom.train.recipe import recipe
    from adatom.train.run import train as run_training

    settings = {
        "replay": {"share": replay_share, "files": [str(path) for path in replay or ()]},
        "forgetting": {"bound": forget_bound, "files": [str(path) for path in probe or ()]},
        "freeze": freeze or [],
        "lora": None if lora is None else {"rank": lora},
        "source": source,
    }
    values = recipe(model, files, name, {"valid": valid or [], "test": test or []}, settings)
    limits = {name: value for name, value in (("epochs", epochs), ("minutes", minutes)) if value is not None}
    if limits:
        values["limits"] = limits
    for entry in change or ():
        override(values, entry)
    try:
        run_training(TrainConfig.parse(values, where="finetune"), folder, resume, console)
    except Stopped:
        raise typer.Exit(130) from None  # as shells say of Ctrl-C


@app.command()
def evaluate(
    model: ModelFile,
    files: Annotated[list[Path], typer.Argument(help="labelled structures")],
    energy: Annotated[
        str | None, typer.Option(help="name of the energy field, where it is not found by itself")
    ] = None,
    forces: Annotated[str | None, typer.Option(help="name of the forces field")] = None,
    stress: Annotated[str | None, typer.Option(help="name of the stress field")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for predictions.npz and metrics.json")] = None,
    device: Device = "cpu",
    batch: Annotated[int, typer.Option(help="atoms in a batch")] = 256,
    overwrite: Overwrite = False,
) -> None:
    """Errors of a potential on labelled structures."""
    from adatom import model_file
    from adatom.data.dataset import Budget, Dataset
    from adatom.data.labels import Keys
    from adatom.data.read import found_table, read
    from adatom.train.evaluate import errors_table, predict

    written = () if out is None else (out / "predictions.npz", out / "metrics.json")
    ready(*written, overwrite=overwrite)
    potential = model_file.load(model, device)
    structures, found = read(files, Keys(energy=energy, forces=forces, stress=stress))
    console.print(found_table(found))
    _require_any_label(structures, files)
    predictions = predict(potential, Dataset(structures, potential.cutoff), Budget(atoms=batch), device)
    errors = {key: None if math.isnan(value) else value for key, value in predictions.errors().items()}
    console.print(errors_table({"test": errors}))
    if written:
        predictions.save(written[0])
        written[1].write_text(json.dumps({"test": errors}, indent=1), encoding="utf-8")


@app.command()
def report(run: Annotated[Path, typer.Argument(help="a run folder")]) -> None:
    """Write report.html into a run folder."""
    from adatom.report import write_report

    console.print(str(write_report(run)))


def _require_any_label(structures: Sequence[Structure], files: Sequence[Path]) -> None:
    """LabelError when there is nothing to compare with; the zero forces on free atoms are no labels of the file."""
    import numpy as np

    for s in structures:
        if np.isfinite(s.energy) or np.isfinite(s.stress).any() or (not s.isolated and np.isfinite(s.forces).any()):
            return
    raise LabelError(
        "none of these structures has a label",
        where=", ".join(map(str, files)),
        wanted="energy, forces or stress of one structure at least",
        got=f"fields {', '.join(sorted({name for s in structures for name in s.fields})) or 'none at all'}",
        remedy="name the fields with --energy, --forces and --stress, or give labelled structures",
    )
