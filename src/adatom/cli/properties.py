"""``adatom properties | eos``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from adatom.cli.app import (
    Device,
    JsonFile,
    ModelFile,
    Overwrite,
    Source,
    StructureFile,
    app,
    console,
    last_structure,
    on_interrupt,
)  # fmt: skip
from adatom.cli.show import FigureFile, prepare, show, signed
from adatom.errors import ConfigError


@app.command()
def properties(
    model: ModelFile,
    structure: StructureFile,
    all_: Annotated[bool, typer.Option("--all", help="everything that applies to this structure")] = False,
    only: Annotated[
        str | None, typer.Option(help="some, by name: eos,elastic,phonons,expansion,vacancy,surface,vibrations,dimers")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="folder of the card")] = None,
    device: Device = "cpu",
    source: Source = None,
    overwrite: Overwrite = False,
) -> None:
    """The property card of a crystal or a molecule: one JSON file for each property, and a page of all.

    What is there already is kept: an interrupted card goes on. Exit code 1 when something could not be computed.
    """
    from adatom.properties.card import property_card
    from adatom.sim.calculator import Calculator

    if all_ == (only is not None):
        raise ConfigError(
            "say which properties",
            wanted="--all, or some with --only",
            got="both" if all_ else "neither",
            remedy="write for example --all, or --only elastic,phonons",
        )
    calculator = Calculator(model, device, source=source)
    atoms = last_structure(structure, calculator.potential)
    folder = out or Path("properties") / f"{model.resolve().parent.name}_{structure.stem}"
    goes_on = f"run it again: it goes on, what is done is kept in {folder}"
    with on_interrupt(goes_on), console.status("relaxing") as status:

        def line(name: str, what: str) -> None:
            if what == "begins":
                status.update(name)
            elif what in ("done", "kept"):
                console.print(f"{name:12} {what}")
            else:
                console.print(f"{name:12} [yellow]left out[/]: {escape(what)}", soft_wrap=True)

        names = [name.strip() for name in only.split(",") if name.strip()] if only else None
        card = property_card(
            atoms, calculator, folder, names, model=str(model), overwrite=overwrite, progress=line
        )  # fmt: skip
    console.print(f"card    {escape(str(card.page))}", soft_wrap=True)
    if card.left_out:
        raise typer.Exit(1)


@app.command()
def eos(
    model: ModelFile,
    structure: StructureFile,
    span: Annotated[float, typer.Option(help="volumes from (1 - span) to (1 + span) times that of the file")] = 0.08,
    points: int = 11,
    json_file: JsonFile = None,
    figure: FigureFile = None,
    device: Device = "cpu",
    source: Source = None,
    overwrite: Overwrite = False,
) -> None:
    """Energy-volume curve: equilibrium volume, bulk modulus and its pressure derivative."""
    from adatom.properties.eos import energy_volume
    from adatom.sim.calculator import Calculator

    prepare(json_file, figure, overwrite)
    calculator = Calculator(model, device, source=source)
    atoms = last_structure(structure, calculator.potential)
    with console.status("") as status:
        curve = energy_volume(
            atoms, calculator, span=span, points=points,
            progress=lambda point, volume, energy: status.update(f"volume {point + 1} of {points}"),
        )  # fmt: skip
    show(signed(model, atoms) | curve.to_record(), json_file, figure)
