"""What a property card could not say, and why."""

from __future__ import annotations

from adatom.report.card.section import Section, Table
from adatom.report.record import Record


def section(record: Record) -> Section:
    """Reasons by property."""
    reasons = record.record("reasons")
    rows = tuple((name, reasons.text(name)) for name in reasons.values)
    return Section("left-out", "Not computed", tables=(Table("", ("property", "reason"), rows),))
