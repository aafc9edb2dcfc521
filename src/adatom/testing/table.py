"""The verdicts of a verification as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from adatom.testing.verify import Verification

COLOURS = {"pass": "green", "fail": "bold red", "not claimed": "yellow", "not applicable": "dim"}


def verification_table(result: Verification) -> Table:
    """Claim, figure, threshold and verdict of every check."""
    table = Table(title=f"{result.model}: {'every claim holds' if result.passed else 'a claim does not hold'}")
    for column in ("check", "claim", "figure", "threshold", "verdict"):
        table.add_column(column, justify="right" if column in ("figure", "threshold") else "left")
    for check in result.checks:
        figure = "–" if check.figure is None else f"{check.figure:.2g}"
        colour = COLOURS[check.verdict]
        table.add_row(
            check.name, check.claim, figure, f"{check.threshold:.2g} {check.unit}", f"[{colour}]{check.verdict}[/]"
        )
    return table
