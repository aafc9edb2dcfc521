"""What verbs that compute a property share: their files, and the property in the terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import ase
import typer
from rich.markup import escape
from rich.table import Table

from adatom.cli.app import console, ready

if TYPE_CHECKING:  # at run time it comes with the verb: the command is light
    from adatom.report.card.section import Section
    from adatom.sim.guard import Approach

FigureFile = Annotated[Path | None, typer.Option("--figure", help="draw it: .png, .svg, .pdf or .html")]


def prepare(json_file: Path | None, figure: Path | None, overwrite: bool) -> None:
    """Make sure before any work that what was asked for can be written."""
    from adatom.report.picture import check_suffix

    ready(*(path for path in (json_file, figure) if path is not None), overwrite=overwrite)
    if figure is not None:
        check_suffix(figure)


def signed(model: Path, atoms: ase.Atoms) -> dict[str, Any]:
    """Whose figures these are and of what: a crystal by its composition, a molecule or a slab by all of its atoms."""
    return {"model": str(model), "formula": atoms.get_chemical_formula(empirical=bool(atoms.pbc.all()))}


def say_nearest(approach: Approach, before: str = "") -> None:
    """That atoms came nearer than the training data know."""
    console.print(f"[yellow]note[/]: {escape(before + str(approach))}: there the model is a guess", soft_wrap=True)


def show(record: dict[str, Any], json_file: Path | None, figure: Path | None) -> None:
    """The section of a record in the terminal, and its files."""
    section = _section(record)
    if section.subtitle:
        console.print(escape(section.subtitle))
    for rows, title, columns in (
        (section.facts, section.title, ("", "")),
        *((table.rows, table.title, table.columns) for table in section.tables),
    ):
        if rows:
            console.print(_table(rows, title, columns))
    for warning in section.warnings:
        console.print(f"[yellow]warning[/] {escape(warning)}", soft_wrap=True)
    write(record, json_file, figure)


def write(record: dict[str, Any], json_file: Path | None, figure: Path | None) -> None:
    """The files of a property that were asked for; in JSON a figure that is no number is null."""
    from adatom.report.picture import write_figure

    if json_file is not None:
        json_file.write_text(
            json.dumps(_plain(record), indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8"
        )
        console.print(f"numbers     {escape(str(json_file))}", soft_wrap=True)
    if figure is not None:
        write_figure(_section(record), figure)
        console.print(f"figure      {escape(str(figure))}", soft_wrap=True)


def _plain(value: Any) -> Any:
    """The same with null for what is no number: JSON knows neither NaN nor infinity."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _section(record: dict[str, Any]) -> Section:
    """What a page shows of a record."""
    from adatom.report.properties import section_of
    from adatom.report.record import Record

    return section_of(Record(record, record["property"]))


def _table(rows: Sequence[Sequence[str]], title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", show_header=any(columns))
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table
