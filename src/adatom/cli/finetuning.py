"""``adatom finetune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from adatom.cli.app import ModelFile, app, console, override


@app.command()
def finetune(
    model: ModelFile,
    files: Annotated[list[Path], typer.Argument(help="new labelled structures")],
    valid: Annotated[list[Path] | None, typer.Option(help="to validate on; without, a tenth of the new ones")] = None,
    test: Annotated[list[Path] | None, typer.Option(help="to test on")] = None,
    replay: Annotated[
        list[Path] | None, typer.Option(help="old data to keep in mind; without, what the old model says itself")
    ] = None,
    replay_share: Annotated[
        float | None, typer.Option(help="of the atoms of an epoch; by default 0.3 of what cannot contradict the new")
    ] = None,
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
    from adatom.train.interrupt import Stopped
    from adatom.train.recipe import recipe
    from adatom.train.run import train as run_training

    settings = {
        "replay": {"share": replay_share, "files": [str(path) for path in replay or ()]},
        "forgetting": {"bound": forget_bound, "files": [str(path) for path in probe or ()]},
        "freeze": freeze or [],
        "lora": None if lora is None else {"rank": lora},
        "source": source,
    }
    asked: dict[str, Any] = {}
    for entry in change or ():
        override(asked, entry)
    fields = asked.get("data", {}).get("keys")
    values = recipe(model, files, name, {"valid": valid or [], "test": test or []}, settings, fields)
    limits = {name: value for name, value in (("epochs", epochs), ("minutes", minutes)) if value is not None}
    if limits:
        values["limits"] = limits
    for entry in change or ():
        override(values, entry)
    try:
        run_training(TrainConfig.parse(values, where="finetune"), folder, resume, console)
    except Stopped as stop:
        raise typer.Exit(stop.code) from None
