"""The verdicts of a verification as a table for the terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from adatom.testing.verify import Verdict, Verification

COLOURS: dict[Verdict, str] = {"pass": "green", "fail": "bold red", "not claimed": "yellow", "not applicable": "dim"}


def verification_table(result: Verification) -> Table:
    """Claim, figure, threshold and verdict of every check; below, where a promise that does not hold is missed."""
    verdict = "[green]every claim holds[/]" if result.passed else "[red]a claim does not hold[/]"
    table = Table(
        title=f"{result.model}: {verdict}",
        caption="\n".join(f"{escape(c.name)}: {escape(c.detail)}" for c in result.checks if c.missed),
        title_justify="left",
        caption_justify="left",
    )
    for column in ("check", "claim", "figure", "threshold", "verdict"):
        table.add_column(column, justify="right" if column == "figure" else "left")
    for check in result.checks:
        figure = "" if check.figure is None else f"{check.figure:.1e}"
        said = f"[{COLOURS[check.verdict]}]{check.verdict}[/]"
        table.add_row(escape(check.name), check.claim, figure, f"{check.threshold:.0e} {check.unit}", said)
    return table
