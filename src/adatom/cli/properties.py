"""``adatom properties | eos``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from adatom.cli.app import Device, ModelFile, Overwrite, Source, StructureFile, app, console, last_structure, ready
from adatom.errors import ConfigError

FigureFile = Annotated[Path | None, typer.Option("--figure", help="draw it: .png, .svg, .pdf or .html")]


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
    with console.status("relaxing") as status:

        def show(name: str, what: str) -> None:
            if what == "begins":
                status.update(name)
            elif what in ("done", "kept"):
                console.print(f"{name:12} {what}")
            else:
                console.print(f"{name:12} [yellow]left out[/]: {escape(what)}", soft_wrap=True)

        names = [name.strip() for name in only.split(",") if name.strip()] if only else None
        card = property_card(
            atoms, calculator, folder, names, model=str(model), overwrite=overwrite, progress=show
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
    json_file: Annotated[Path | None, typer.Option("--json", help="write curve and fit here")] = None,
    figure: FigureFile = None,
    device: Device = "cpu",
    source: Source = None,
    overwrite: Overwrite = False,
) -> None:
    """Energy-volume curve: equilibrium volume, bulk modulus and its pressure derivative."""
    from adatom.properties.eos import energy_volume
    from adatom.report.picture import check_suffix, write_figure
    from adatom.report.properties import section_of
    from adatom.report.record import Record
    from adatom.sim.calculator import Calculator

    ready(*(path for path in (json_file, figure) if path is not None), overwrite=overwrite)
    if figure is not None:
        check_suffix(figure)
    calculator = Calculator(model, device, source=source)
    atoms = last_structure(structure, calculator.potential)
    curve = energy_volume(atoms, calculator, span=span, points=points)
    table = Table(title="Birch-Murnaghan fit", show_header=False)
    for key, value in curve.fit.to_record().items():
        if isinstance(value, float):
            table.add_row(key, f"{value:.5g}")
    console.print(table)
    record = curve.to_record() | {"model": str(model), "formula": atoms.get_chemical_formula()}
    if json_file is not None:
        json_file.write_text(json.dumps(record, indent=1), encoding="utf-8")
    if figure is not None:
        write_figure(section_of(Record(record, "eos")), figure)
