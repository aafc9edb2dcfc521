"""The common look of all plots: plain plotly JSON, its colours tokens that the page resolves, light or dark.

A token is ``@name`` or ``@name/40`` (40 % opaque), where ``--name`` is a colour of style.css.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

Json = dict[str, Any]

SERIES = ("@blue", "@orange", "@green", "@purple", "@sky", "@gold")


@dataclass(frozen=True)
class Figure:
    """One plot: a name unique on the page, what stands above it, and plotly's ``data`` and ``layout``.

    ``shape`` is ``"line"``, ``"parity"`` or ``"wide"``: its proportions on the page. ``remark`` goes below.
    """

    name: str
    title: str
    note: str
    data: list[Json]
    layout: Json
    shape: str = "line"
    remark: str = ""


def axis(title: str, log_over: np.ndarray | None = None, span: tuple[float, float] | None = None) -> Json:
    """An axis; logarithmic over the values ``log_over``, or fixed to ``span``."""
    look: Json = {
        "title": {"text": title, "standoff": 8},
        "gridcolor": "@grid",
        "linecolor": "@line",
        "showline": False,  # plotly turns it on where a colour is given
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": "@line",
        "automargin": True,
        "nticks": 6,
        "spikecolor": "@line",
        "spikethickness": 1,
        "spikedash": "solid",
    }
    if log_over is not None:
        look |= {"type": "log"} | _log_ticks(log_over)
    if span is not None:
        look |= {"range": [float(span[0]), float(span[1])]}
    return look


def _log_ticks(values: np.ndarray) -> Json:
    """Powers of ten where the data span many of them, else 1-2-5 written in full (plotly's own bare digits mislead)."""
    known = values[np.isfinite(values) & (values > 0)]
    decades = math.log10(known.max() / known.min()) if known.size else 0.0
    if decades > 2.2:
        return {"dtick": 1 if decades < 7 else math.ceil(decades / 5), "exponentformat": "power"}
    if decades < 0.2:  # less than 1-2-3: let plotly choose
        return {}
    return {"dtick": "D2" if decades > 0.7 else "D1", "tickformat": "~g"}


def layout(x: Json, y: Json, hover: str = "x unified") -> Json:
    """Layout of a figure with one pair of axes."""
    return {
        "xaxis": x | {"showgrid": False, "showline": True},
        "yaxis": y,
        "hovermode": hover,
        "showlegend": False,
        "margin": {"l": 10, "r": 12, "t": 10, "b": 10},
    }


def line(x: np.ndarray, y: np.ndarray, name: str, color: str, width: float = 1.8, dash: str = "solid") -> Json:
    """A curve; gaps where a value is not finite."""
    return {
        "type": "scatter",
        "mode": "lines" if np.isfinite(y).sum() > 2 else "lines+markers",  # a line through one point shows nothing
        "name": name,
        "x": plain(x),
        "y": plain(y),
        "line": {"color": color, "width": width, "dash": dash},
        "marker": {"color": color, "size": 5},
        "hovertemplate": f"%{{y:.4~g}}<extra>{html.escape(name)}</extra>",
    }


def reference_line(y: float) -> Json:
    """A dashed horizontal line across the plot."""
    style = {"color": "@muted", "width": 1, "dash": "dash"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": style, "layer": "below"}


def border_lines(borders: Iterable[tuple[float, str]]) -> Json:
    """Parts of a layout that draw a named vertical line where each stage begins; none for no borders."""
    style = {"color": "@muted", "width": 1, "dash": "dash"}
    lines, names = [], []
    for x, name in borders:
        lines.append({"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": style})
        names.append({
            "text": html.escape(name), "x": x, "yref": "paper", "y": 1, "xanchor": "left", "yanchor": "top",
            "showarrow": False, "font": {"size": 11, "color": "@muted"},
        })  # fmt: skip
    return {"shapes": lines, "annotations": names} if lines else {}


def plain(values: np.ndarray, digits: int = 6) -> list[float | None]:
    """JSON numbers with as many digits as a plot can show; None where a value is not finite."""
    return [float(f"{v:.{digits}g}") if math.isfinite(v) else None for v in values.tolist()]


def thin(count: int, limit: int) -> np.ndarray:
    """Indices of at most ``limit`` + 1 of ``count`` points of a curve, evenly spaced, the last one among them."""
    if count <= limit:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, limit + 1).round().astype(np.int64))


def positive(values: np.ndarray) -> np.ndarray:
    """What a logarithmic axis can show; NaN else."""
    return np.where(values > 0, values, np.nan)


def joined(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """All values of several arrays."""
    return np.concatenate([np.zeros(0), *arrays])
