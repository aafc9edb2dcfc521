"""What a user sees while a run is going: a live panel in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

COLUMNS = (
    ("epoch", "epoch", "{:d}"),
    ("loss", "loss", "{:.4f}"),
    ("energy_rmse_meV_per_atom", "E rmse\nmeV/atom", "{:.1f}"),
    ("forces_rmse_meV_per_A", "F rmse\nmeV/Å", "{:.1f}"),
    ("forces_mae_meV_per_A", "F mae\nmeV/Å", "{:.1f}"),
    ("stress_rmse_GPa", "stress rmse\nGPa", "{:.2f}"),
    ("seconds", "elapsed", "{:.0f} s"),
)
SHOWN = 8  # validations in the table


class Progress:
    """Live display of one training run.

    ``step`` and ``valid`` take the records that also go to ``log.jsonl``.
    """

    def __init__(self, title: str, console: Console | None = None, every_seconds: float = 15.0) -> None:
        self.title = title
        self.console = console or Console()
        self.every_seconds = every_seconds
        self.validations: list[dict[str, Any]] = []
        self.latest: dict[str, Any] = {}
        self.fraction = 0.0
        self.started = self.last_line = time.monotonic()
        self.live = Live(console=self.console, refresh_per_second=4, transient=False)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.live.start()
        else:
            self.console.print(self.title)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self.live.update(self._panel(), refresh=True)
            self.live.stop()

    def step(self, record: dict[str, Any], fraction: float) -> None:
        """A training step is done; ``fraction`` of the budget is spent."""
        self.latest, self.fraction = record, fraction
        if self.console.is_terminal:
            self.live.update(self._panel())

    def say(self, text: str) -> None:
        """A line of its own."""
        self.console.print(text, soft_wrap=True)

    def valid(self, record: dict[str, Any]) -> None:
        """A validation is done."""
        self.validations.append(record)
        if not self.console.is_terminal and time.monotonic() - self.last_line > self.every_seconds:
            self.last_line = time.monotonic()
            cells = (f"{label} {form.format(record[key])}" for key, label, form in COLUMNS if _known(record, key))
            self.console.print(
                f"{100 * self.fraction:3.0f} %  "
                + "  ".join(c.replace("\n", " ") for c in cells)
                + "  "
                + self._left(),
                soft_wrap=True,
            )

    def _left(self) -> str:
        elapsed = time.monotonic() - self.started
        if self.fraction < 0.01:
            return ""
        left = elapsed * (1 - self.fraction) / self.fraction
        return f"{int(left // 60)}:{int(left % 60):02d} left"

    def _panel(self) -> Group:
        table = Table(box=None, padding=(0, 2), header_style="bold")
        shown = [c for c in COLUMNS if any(_known(r, c[0]) for r in self.validations)] or list(COLUMNS[:2])
        for _, label, _ in shown:
            table.add_column(label, justify="right")
        best = min((r["loss"] for r in self.validations), default=math.nan)
        for record in self.validations[-SHOWN:]:
            cells = [form.format(record[key]) if _known(record, key) else "–" for key, _, form in shown]
            table.add_row(*cells, style="green" if record["loss"] == best else None)
        head = Text.assemble((self.title, "bold"), "   validation", style="default")
        rate = self.latest.get("structures_per_s")
        foot = Text(
            " ".join(filter(None, [self.latest.get("stage"), f"step {self.latest.get('step', 0)}"]))
            + (
                f"  training loss {self.latest['loss']:.4f}  lr {self.latest['lr']:.1e}"
                if "loss" in self.latest
                else ""
            )
            + (f"  {rate:.0f} structures/s" if rate else "")
            + f"  {self._left()}"
        )
        return Group(head, table, ProgressBar(total=1.0, completed=min(self.fraction, 1.0), width=72), foot)


def _known(record: dict[str, Any], key: str) -> bool:
    value = record.get(key)
    return value is not None and not (isinstance(value, float) and math.isnan(value))
