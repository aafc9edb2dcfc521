"""A run folder becomes one self-contained HTML page. Reads files only; imports no torch."""

from adatom.report.page import write_report

__all__ = ["write_report"]
