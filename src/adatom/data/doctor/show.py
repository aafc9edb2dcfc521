"""An examination in the terminal: tables, then findings with their remedies, errors last before the verdict."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from adatom.data.doctor.examine import Examination
from adatom.data.doctor.finding import Finding
from adatom.data.read import LABELS

LOOK: Final = {
    "error": ("✕", "bold red"),
    "warning": ("!", "bold yellow"),
    "note": ("·", "green"),
}
ELEMENTS: Final = 20  # rows of the table of elements in the terminal


def show(examination: Examination, console: Console, names: bool = False) -> None:
    """Print an examination; ``names``: every structure that a finding speaks of."""
    tables = examination.tables
    for table in (
        _files(tables),
        *(_elements(part, values) for part, values in tables["parts"].items()),
        *(_neighbours(part, values) for part, values in tables["parts"].items()),
        *(_slopes(part, values) for part, values in tables["parts"].items()),
    ):
        if table is not None:
            console.print(table)
            console.print()
    for finding in examination.findings:
        console.print(_finding(finding, names))
    console.print(_verdict(examination))


def _finding(finding: Finding, names: bool) -> Padding:
    sign, style = LOOK[finding.severity]
    where = ", ".join(finding.names) if names and finding.names else finding.where
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column(overflow="fold")
    grid.add_row(Text(sign, style), Text.assemble((finding.severity, style), f" {finding.kind}: {finding.message}"))
    grid.add_row("", Text(where, "dim"))
    if finding.severity != "note" or finding.remedy != "nothing to do":
        grid.add_row("", Text.assemble(("→ ", style), finding.remedy))
    return Padding(grid, (0, 0, 0, 0))


def _verdict(examination: Examination) -> Text:
    errors, warnings = len(examination.errors), len(examination.warnings)
    notes = len(examination.findings) - errors - warnings
    told = ", ".join(
        f"{n} {word}{'' if n == 1 else 's'}"
        for n, word in ((errors, "error"), (warnings, "warning"), (notes, "note"))
        if n
    )
    words, style = {
        "errors": ("do not train on these data as they are", "bold red"),
        "warnings": ("no errors; look at the warnings", "bold yellow"),
        "clean": ("nothing speaks against these data", "bold green"),
    }[examination.verdict]
    return Text.assemble("\n", (words, style), f"  ({told or 'no findings'})")


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))


def _files(tables: dict[str, Any]) -> Table | None:
    rows = tables.get("files", [])
    if not rows:
        return None
    table = _table("Files")
    for column in ("set", "file", "frames", "atoms", *LABELS):
        table.add_column(
            column, justify="right" if column in ("frames", "atoms") else "left", overflow="fold", style=None
        )
    for row in rows:
        cells = []
        for label in LABELS:
            keys, n = ", ".join(row["keys"][label]), row["labelled"][label]
            full = n == row["frames"] or (label != "energy" and n == row["frames"] - row["isolated"])
            cells.append(Text(f"{keys} {n}/{row['frames']}", "" if full else "yellow") if keys else Text("–", "dim"))
        table.add_row(row["part"], row["file"], f"{row['frames']:,}", f"{row['atoms']:,}", *cells)
    return table


def _named(title: str, part: str, parts: int = 2) -> str:
    return title if part == "train" else f"{title} ({part})"


def _elements(part: str, values: dict[str, Any]) -> Table | None:
    rows = values.get("elements", [])
    if not rows:
        return None
    table = _table(_named("Elements: nearest atom in Å, rms of a force component in eV/Å, reference in eV", part))
    for column in ("element", "atoms", "share", "frames", "nearest", "median", "force", "reference"):
        table.add_column(column, justify="left" if column == "element" else "right")
    table.add_column("from")
    for row in rows[:ELEMENTS]:
        table.add_row(
            row["element"],
            f"{row['atoms']:,}",
            f"{100 * row['share']:.1f} %",
            f"{row['structures']:,}",
            _number(row["nearest_A"], ".2f"),
            _number(row["nearest_median_A"], ".2f"),
            _number(row["force_rms_eV_A"], ".3g"),
            _number(row["reference_eV"], ".4f"),
            row["source"].replace("least squares", "fit"),
        )
    composed = values["compositions"]
    caption = f"{composed['count']:,} composition{'' if composed['count'] == 1 else 's'}: " + ", ".join(
        f"{r['formula']} ({r['structures']:,})" for r in composed["rows"][:4]
    )
    table.caption = caption + (", ..." if composed["count"] > 4 else "")
    if len(rows) > ELEMENTS:
        table.caption = f"and {len(rows) - ELEMENTS} more elements; {table.caption}"
    table.caption_justify = "left"
    return table


def _neighbours(part: str, values: dict[str, Any]) -> Table | None:
    rows = values.get("neighbours", [])
    if not rows:
        return None
    table = _table(_named("Neighbours of an atom", part))
    for column in ("cutoff Å", "mean", "least", "median", "most", "without any", "edges each"):
        table.add_column(column, justify="right")
    for row in rows:
        lonely = f"{row['lonely_atoms']:,}" if row["lonely_atoms"] else "–"
        table.add_row(
            f"{row['cutoff_A']:g}",
            f"{row['mean']:.1f}",
            str(row["min"]),
            f"{row['median']:g}",
            str(row["max"]),
            lonely,
            f"{row['edges_per_structure']:,.0f}",
        )
    return table


def _slopes(part: str, values: dict[str, Any]) -> Table | None:
    rows = values.get("slopes", [])
    if not rows:
        return None
    table = _table(_named("Energy against work: 1 where the labels belong together", part))
    for column in ("structures", "pairs", "distance Å", "forces", "stress", "unexplained"):
        table.add_column(column, justify="left" if column == "structures" else "right")
    for row in rows[:12]:
        table.add_row(
            row["kind"],
            str(row["pairs"]),
            f"{row['distance_A']:.3f}",
            _with_error(row["forces"], row["forces_error"]),
            _with_error(row["stress"], row["stress_error"]),
            f"{100 * row['unexplained']:.0f} %",
        )
    return table


def _with_error(value: float | None, error: float | None) -> str:
    return "–" if value is None or error is None else f"{value:.3f} ± {error:.3f}"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
