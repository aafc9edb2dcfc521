"""Learning curves: errors, loss, learning rate and throughput against optimiser steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from adatom.report.figure import Figure, Json, axis, border_lines, joined, layout, line, positive, thin
from adatom.report.format import number
from adatom.report.load import Columns, History

POINTS = 1200  # per curve; more than a plot is wide

TRAIN, VALID, VALID_RMSE = "training, running mean of MAE", "validation MAE", "validation RMSE"
_QUANTITIES = (
    ("energy", "Energy error", "meV/atom", "meV_per_atom"),
    ("forces", "Force error", "meV/Å", "meV_per_A"),
    ("stress", "Stress error", "GPa", "GPa"),
)


def learning_figures(history: History) -> list[Figure]:
    """One figure per quantity that the log holds; curves with no value are left out."""
    figures = [_error(history, *quantity) for quantity in _QUANTITIES]
    figures += [_loss(history), _rate(history), _throughput(history)]
    borders = border_lines(history.borders)
    return [replace(figure, layout=figure.layout | borders) for figure in figures if figure.data]


def _error(history: History, quantity: str, title: str, unit: str, suffix: str) -> Figure:
    mae, rmse = f"{quantity}_mae_{suffix}", f"{quantity}_rmse_{suffix}"
    curves = [
        *_curve(history.steps, mae, TRAIN, "@faint", 1.2),
        *_curve(history.valid, rmse, VALID_RMSE, "@blue", 1.3, "dot"),
        *_curve(history.valid, mae, VALID, "@blue", 2.0),
    ]
    best = _finite(_last_stage(history), rmse)
    note = f"best validation RMSE {number(float(best.min()))} {unit}" if best.size else ""
    shown = joined([_finite(history.steps, mae), _finite(history.valid, mae), _finite(history.valid, rmse)])
    return Figure(f"learning-{quantity}", title, note, curves, layout(axis("step"), axis(unit, log_over=shown)))


def _loss(history: History) -> Figure:
    curves = [
        *_curve(history.steps, "loss", "training loss", "@faint", 1.2),
        *_curve(history.valid, "loss", "validation loss", "@blue", 2.0),
    ]
    shown = joined([_finite(history.steps, "loss"), _finite(history.valid, "loss")])
    note = "weighted, as minimised"
    return Figure("learning-loss", "Loss", note, curves, layout(axis("step"), axis("", log_over=shown)))


def _rate(history: History) -> Figure:
    curves = _curve(history.steps, "lr", "learning rate", "@green", 1.8)
    rate = _finite(history.steps, "lr")
    note = f"peak {number(float(rate.max()), 2)}" if rate.size else ""
    y = axis("") | {"rangemode": "tozero", "exponentformat": "power"}
    return Figure("learning-rate", "Learning rate", note, curves, layout(axis("step"), y))


def _throughput(history: History) -> Figure:
    curves = _curve(history.steps, "structures_per_s", "structures/s", "@green", 1.2)
    speed = _finite(history.steps, "structures_per_s")
    note = f"median {number(float(np.median(speed)))} structures/s" if speed.size else ""
    y = axis("structures/s") | {"rangemode": "tozero"}
    return Figure("learning-speed", "Throughput", note, curves, layout(axis("step"), y))


def _last_stage(history: History) -> Columns:
    """Validations of the last stage: the model is one of these."""
    table, begin = history.valid, max((step for step, _ in history.borders), default=0.0)
    return {name: values[table["step"] > begin] for name, values in table.items()} if history.borders else table


def _curve(table: Columns, key: str, name: str, color: str, width: float, dash: str = "solid") -> list[Json]:
    """The curve of one column, or nothing where the log has no such column."""
    if _finite(table, key).size == 0 or "step" not in table:
        return []
    keep = thin(table[key].shape[0], POINTS)
    return [line(table["step"][keep], positive(table[key][keep]), name, color, width, dash)]


def _finite(table: Columns, key: str) -> np.ndarray:
    values = table.get(key, np.zeros(0))
    return values[np.isfinite(values) & (values > 0)]
