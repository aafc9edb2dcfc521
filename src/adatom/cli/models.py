"""``adatom models | info | verify | bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.markup import escape
from rich.table import Table

from adatom.cli.app import (
    Architecture,
    Device,
    Form,
    JsonFile,
    MaybeModel,
    ModelFile,
    Overwrite,
    Size,
    Source,
    app,
    console,
    last_frame,
    last_structure,
    ready,
)


@app.command()
def models(
    markdown: Annotated[bool, typer.Option("--markdown", help="as in docs/architectures.md")] = False,
) -> None:
    """The architectures to choose from: what each promises, its sizes and what it is good for."""
    from adatom.models.overview import HEADINGS, entry_cells, overview
    from adatom.models.overview import markdown as as_markdown

    if markdown:
        print(as_markdown(), end="")
        return
    entries = overview()
    # a column for each form: six of them stand in a window of 80 characters, eleven properties do not
    table = Table(title="architectures", title_justify="left", pad_edge=False)
    table.add_column("")
    for entry in entries:
        table.add_column(f"{entry.architecture}\n{entry.form}")
    columns = [entry_cells(entry) for entry in entries]
    for row, heading in enumerate(HEADINGS[2:-1], start=2):
        table.add_row(heading, *(escape(column[row].replace(", ", "\n")) for column in columns))
    console.print(table)
    for entry in entries:
        console.print(f"[bold]{entry.architecture} {entry.form}[/bold]: {escape(entry.about)}")


@app.command()
def info(
    model: ModelFile, as_json: Annotated[bool, typer.Option("--json", help="the whole card as JSON")] = False
) -> None:
    """What a model file says of itself."""
    from adatom.model_file import info as read_card

    card = read_card(model)
    if as_json:
        print(json.dumps(card, indent=1, ensure_ascii=False))
        return
    table = Table(title=str(model), show_header=False, box=None, title_justify="left")
    for key, value in _short(card).items():
        text = yaml.safe_dump(value, allow_unicode=True, sort_keys=False).removesuffix("...\n").rstrip()
        table.add_row(key, escape(text))
    table.add_row("fits here", _fitting(model))
    console.print(table)


def _short(card: dict[str, Any]) -> dict[str, Any]:
    """The card without what fills pages: how many structures it holds, lowest energies in a line an element."""
    from adatom.report.format import plural

    short = dict(card)
    if card.get("samples"):
        short["samples"] = plural(len(card["samples"]), "structure")
    lowest = card.get("config", {}).get("lowest")
    if lowest:
        lines = {name: ", ".join(f"{energy:g} ({off:g})" for energy, off in layers) for name, layers in lowest.items()}
        short["config"] = card["config"] | {"lowest": lines}
    return short


def _fitting(model: Path) -> str:
    """How many atoms fit into the memory of this machine."""
    import torch

    from adatom.memory import available, fit
    from adatom.model_file import load_whole

    potential = load_whole(model)
    free, neighbours = available(torch.device("cpu")), potential.network.config.mean_neighbours or 30.0
    most = fit(potential.network, potential.elements[0], neighbours, free)
    streamed = "" if most.streamed is None else f"about {most.streamed:,} streamed, "
    return (
        f"in {free / 2**30:.1f} GiB: {streamed}{most.whole:,} differentiated whole, {most.batch:,} in a training batch"
    )


@app.command()
def verify(
    model: MaybeModel = None,
    structures: Annotated[
        list[Path] | None, typer.Argument(help="your own systems, tested besides generated ones")
    ] = None,
    architecture: Architecture = None,
    form: Form = None,
    size: Size = None,
    source: Source = None,
    json_file: JsonFile = None,
    seed: int = 0,
    overwrite: Overwrite = False,
) -> None:
    """Hold a potential to its claims: symmetries, derivatives, extensivity, smoothness, drift.

    Exit code 1 when one fails.
    """
    from adatom.testing import verify as run_checks
    from adatom.testing.table import verification_table
    from adatom.testing.untrained import file_or_untrained

    ready(*([json_file] if json_file else ()), overwrite=overwrite)
    potential = file_or_untrained("verify", model, architecture, {"form": form, "size": size}, source, seed=seed)
    systems = [last_structure(path, potential) for path in structures or ()]
    for system in systems:
        system.set_constraint()  # the claims are on all atoms
    with console.status("verifying"):
        result = run_checks(potential, systems or None, seed=seed)
    if json_file is not None:
        result.to_json(json_file)
    console.print(verification_table(result))
    if not result.passed:
        raise typer.Exit(1)


@app.command()
def bench(
    model: MaybeModel = None,
    architecture: Architecture = None,
    form: Form = None,
    size: Size = None,
    structure: Annotated[Path | None, typer.Option(help="measured on this, its last frame; else on a crystal")] = None,
    atoms: Annotated[str | None, typer.Option(help="64,512,...: the structure repeated to these numbers")] = None,
    task: Annotated[str, typer.Option(help="forces, stress, training, or several: forces,training")] = "forces",
    code: Annotated[str, typer.Option("--compile", help="auto, on or off")] = "auto",
    json_file: JsonFile = None,
    device: Device = "cpu",
    source: Source = None,
    overwrite: Overwrite = False,
) -> None:
    """What a potential costs: µs/atom, ms a step, ns/day and memory against the number of atoms."""
    from adatom.testing import speed
    from adatom.testing.table import speed_table
    from adatom.testing.untrained import file_or_untrained

    ready(*([json_file] if json_file else ()), overwrite=overwrite)
    held = last_frame(structure) if structure else None
    elements = {"elements": sorted(set(held.numbers.tolist()))} if held is not None and architecture else {}
    potential = file_or_untrained("bench", model, architecture, {"form": form, "size": size}, source, **elements)
    with console.status("measuring") as status:
        speeds = speed.sweep(
            potential, held, speed.read_sizes(atoms), speed.read_tasks(task), code=code, device=device,
            progress=status.update,
        )  # fmt: skip
    title = str(model) if model else f"{architecture}, untrained"
    console.print(speed_table(title, speeds))
    if json_file is not None:
        json_file.write_text(json.dumps([s.to_record() for s in speeds], indent=1), encoding="utf-8")
