"""One property as a page shows it."""

from __future__ import annotations

from dataclasses import dataclass

from adatom.report.figure import Figure


@dataclass(frozen=True)
class Table:
    """Rows of text below a head; the first column names the row, the others are figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """Facts (name, value with unit), warnings, tables and figures of one property; ``name`` is unique on a page."""

    name: str
    title: str
    subtitle: str = ""  # what was computed: formula, cell, settings that matter
    facts: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
