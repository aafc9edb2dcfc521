"""``adatom train | evaluate | report``."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adatom.cli.app import Device, ModelFile, Overwrite, Source, app, console, override, ready
from adatom.errors import ConfigError, LabelError

if TYPE_CHECKING:
    from adatom.data.read import Structure


@app.command()
def train(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="CONFIG | FILES", help="a YAML file, see configs/, or labelled structures and no more"),
    ],
    folder: Annotated[Path, typer.Option(help="where run folders are made")] = Path("runs"),
    resume: Annotated[bool, typer.Option("--resume", help="go on from the last checkpoint of this run")] = False,
    requeue: Annotated[
        bool,
        typer.Option("--resume-or-start", help="the same where there is a checkpoint, else begin: for job scripts"),
    ] = False,
    max_time: Annotated[
        str | None,
        typer.Option(help="90m, 3:50:00, ...: save then, and end with exit code 99, on which batch systems requeue"),
    ] = None,
    devices: Annotated[int | None, typer.Option(help="processes on each machine: GPUs, else CPU cores")] = None,
    nodes: Annotated[int | None, typer.Option(help="machines, started by torchrun or srun")] = None,
    detect: Annotated[
        bool, typer.Option("--detect", help="stop at the first NaN and name layer and operation")
    ] = False,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="override one entry: --set limits.minutes=5 (repeatable)")
    ] = None,
) -> None:
    """Train a potential, as a configuration says, or on files with settings that follow from what they hold."""
    from adatom.config import read_yaml
    from adatom.train.defaults import recipe, resolved, told
    from adatom.train.interrupt import Stopped
    from adatom.train.run import resumable
    from adatom.train.run import train as run_training

    plain = all(source.suffix not in (".yaml", ".yml") for source in sources)
    if not plain and len(sources) > 1:
        raise ConfigError(
            "a configuration stands alone: it names its files itself",
            got=" ".join(map(str, sources)),
            remedy="name the files in data.train, or leave the configuration out",
        )
    values = {} if plain else read_yaml(sources[0])
    given = {"max_time": max_time, "devices": devices, "nodes": nodes, "detect": detect or None}
    values |= {name: value for name, value in given.items() if value is not None}
    for entry in change or ():
        override(values, entry)
    parsed = recipe(sources, **values) if plain else resolved(values, where=str(sources[0]))
    if plain:
        console.print(told(parsed))
    try:
        run_training(parsed, folder, resume or (requeue and resumable(folder / parsed.name)), console)
    except Stopped as stop:
        raise typer.Exit(stop.code) from None


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
    source: Source = None,
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
    potential = model_file.load(model, device, source=source)
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
