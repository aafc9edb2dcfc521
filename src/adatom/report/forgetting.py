"""What a fine-tune forgot: errors on what the potential knew, before and after, and on the way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adatom.report.figure import Figure, Json, axis, joined, layout, line
from adatom.report.format import number
from adatom.report.load import Columns, Run
from adatom.report.record import Record

SPREAD = 3.0  # times the smallest value, from which an axis is logarithmic
SAME = 1e-3  # relative difference of two errors of the same weights, one of them computed after they were merged
_QUANTITIES = (
    ("energy", "Energy", "meV/atom", "energy_rmse_meV_per_atom"),
    ("forces", "Forces", "meV/Å", "forces_rmse_meV_per_A"),
    ("stress", "Stress", "GPa", "stress_rmse_GPa"),
)


@dataclass(frozen=True)
class ForgettingRow:
    """RMSE of one quantity on what was known; None where the model file stated no error."""

    name: str
    unit: str
    before: float | None
    after: float
    ratio: float | None


def forgetting_rows(record: Record) -> list[ForgettingRow]:
    """One row per quantity that was measured at the end."""
    before, rows = record.record("before"), []
    for _, name, unit, key in _QUANTITIES:
        old, now = before.real(key), record.record("after").real(key)
        if now is not None:
            rows.append(ForgettingRow(name, unit, old, now, now / old if old else None))
    return rows


def forgetting_figures(run: Run) -> list[Figure]:
    """Errors at every validation, one figure per quantity; the error before is a dashed line, what was kept a point."""
    record, curves = run.metrics.record("forgetting"), run.history.forgetting if run.history else {}
    kept = _kept(curves, record.record("after"))
    return [
        _figure(curves, record, kept, *quantity)
        for quantity in _QUANTITIES
        if np.isfinite(curves.get(quantity[-1], np.zeros(0))).any()
    ]


def _figure(
    curves: Columns, record: Record, kept: int | None, quantity: str, title: str, unit: str, key: str
) -> Figure:
    step, error = curves["step"], curves[key]
    before, bound = record.record("before").real(key), record.real("bound")
    bound = None if quantity == "stress" else bound  # which is not held against it
    traces: list[Json] = []
    levels = []
    if before is not None:
        levels.append((before, "before", "@muted"))
        if bound is not None and np.nanmax(error) > before * bound / 2:  # far off it would only press the curve flat
            levels.append((before * bound, "bound", "@orange"))
    ends = np.array([step[0], step[-1]])
    traces += [line(ends, np.array([y, y]), name, color, 1.2, "dash") | {"mode": "lines"} for y, name, color in levels]
    traces.append(line(step, error, "RMSE", "@blue", 2.0))
    if kept is not None:
        traces.append(_point(step[kept], error[kept]))
    shown = joined([error[np.isfinite(error)], np.array([y for y, *_ in levels])])
    note = f"{number(before)} → {number(float(error[kept]))} {unit}" if before is not None and kept is not None else ""
    spread = shown.min() > 0 and shown.max() > SPREAD * shown.min()
    look = layout(axis("step"), axis(unit, log_over=shown if spread else None))
    return Figure(f"forgetting-{quantity}", title, note, traces, look)


def _kept(curves: Columns, after: Record) -> int | None:
    """The validation whose weights became the model; None where no errors are those of the model."""
    measured = {key: now for *_, key in _QUANTITIES if (now := after.real(key)) and key in curves}
    if not measured:
        return None
    off = np.max([np.abs(curves[key] / now - 1) for key, now in measured.items()], axis=0)  # (T,)
    off = np.where(np.isfinite(off), off, np.inf)
    return int(off.argmin()) if off.min() < SAME else None


def _point(x: float, y: float) -> Json:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "kept",
        "x": [float(x)],
        "y": [float(f"{y:.6g}")],
        "marker": {"color": "@page", "size": 8, "line": {"color": "@blue", "width": 2}},
        "hovertemplate": "%{y:.4~g}<extra>kept</extra>",
    }
