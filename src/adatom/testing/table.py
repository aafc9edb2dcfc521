"""The verdicts of a verification, and what a potential costs, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from adatom.testing.speed import TASKS, Speed
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


def speed_table(title: str, speeds: Sequence[Speed]) -> Table:
    """One line for each task and size; how it was measured stands below."""
    first = speeds[0]
    table = Table(
        title=f"{escape(title)}: {escape(first.device)}, {' and '.join(sorted({s.code for s in speeds}))} code",
        caption=f"{first.clock}, neighbour list not included; load {max(s.load for s in speeds):.1f}",
        title_justify="left",
        caption_justify="left",
    )
    for column in ("atoms", "neighbours", "µs/atom", "ms", "ns/day at 1 fs", "peak MiB"):
        table.add_column(column, justify="right")
    table.add_column("of")
    for s in speeds:
        dynamics = "" if s.task == "training" else f"{s.ns_per_day:.3g}"
        table.add_row(
            f"{s.atoms:,}", f"{s.edges / s.atoms:.1f}", f"{s.us_per_atom:.1f}", f"{1e3 * s.seconds:.4g}", dynamics,
            f"{s.memory_MiB:.0f}", TASKS[s.task].partition(":")[0],
        )  # fmt: skip
    return table
