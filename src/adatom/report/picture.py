"""Figures as pictures for papers and slides: the plots of the pages, drawn by matplotlib.

One description serves both: what a page draws from plotly's JSON is read here and drawn as PNG, SVG or PDF. It knows
what the house's figures are made of (curves, points, bars, bands, polar curves, several axes) and refuses the rest.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adatom.errors import ConfigError
from adatom.report.card.section import Section
from adatom.report.figure import Figure, Json

PICTURES = (".png", ".svg", ".pdf")
SUFFIXES = (*PICTURES, ".html")
INK, MUTED, GRID, LINE, PAGE = "#1b1f24", "#5c6670", "#eceff2", "#cfd5db", "#ffffff"
COLOURS = {
    "page": PAGE, "ink": INK, "muted": MUTED, "line": LINE, "grid": GRID, "faint": "#aab6c2", "soft": "#f5f7f8",
    "blue": "#1868ab", "orange": "#c2560a", "green": "#0c7a5b", "purple": "#8b4a8b", "sky": "#4798cf",
    "gold": "#a97b06", "good": "#0c7a5b", "bad": "#b5271d", "warn": "#9a6200",
}  # fmt: skip  # those of style.css on light ground
DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
WIDTH, HEIGHT = 5.2, 3.5  # inches of one plot
_TAG = re.compile(r"<[^>]*>")


def write_figure(section: Section, path: str | Path) -> Path:
    """Write the figures of a section: a picture (.png, .svg, .pdf), or a page with its tables too (.html).

    ConfigError for another suffix, and where a section has no figures.
    """
    path = Path(path)
    check_suffix(path)
    if path.suffix == ".html":
        from adatom.report.properties import write_section  # the page builds on all of this

        return write_section(section, path)
    if not section.figures:
        raise ConfigError("there is nothing to draw", where=section.title, remedy="write --json instead")
    _draw(section.figures, path)
    return path


def check_suffix(path: Path) -> None:
    """ConfigError unless a figure can be written under this name: to be asked before any work."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(
            "no figure can be written in this format",
            where=str(path),
            wanted=f"a name that ends in {', '.join(SUFFIXES)}",
            got=path.suffix or "a name without a suffix",
        )


def _draw(figures: Sequence[Figure], path: Path) -> None:
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    columns = 1 if len(figures) == 1 else 2
    rows = -(-len(figures) // columns)
    wide = len(figures) == 1 and figures[0].shape == "wide"
    style: Any = {
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": MUTED,
        "svg.fonttype": "none",
        "pdf.fonttype": 42,
    }
    with rc_context(style):
        canvas = Canvas(figsize=(WIDTH * columns * (1.5 if wide else 1.0), HEIGHT * rows), dpi=200, facecolor=PAGE)
        FigureCanvasAgg(canvas)
        for number, figure in enumerate(figures):
            left, bottom = (number % columns) / columns, 1.0 - (number // columns + 1) / rows
            share = 1.0 - left if number == len(figures) - 1 else 1.0 / columns  # no panel stays empty
            _plot(canvas, figure, (left, bottom, share, 1.0 / rows), 1.0 / columns)
        canvas.savefig(path)


def _plot(canvas: Any, figure: Figure, place: tuple[float, float, float, float], column: float) -> None:
    """One figure into its share of the canvas: title above, then as many axes as its layout has."""
    left, bottom, width, height = place
    inner = (left + 0.15 * column, bottom + 0.15 * height, width - 0.19 * column, 0.68 * height)
    # a circle has degrees all around it, and names beside it
    circle = (left + 0.1 * column, bottom + 0.09 * height, 0.56 * column, 0.67 * height)
    title = _plain(figure.title)
    canvas.text(inner[0], bottom + 0.965 * height, title, va="top", ha="left", weight="bold", fontsize=10)
    if figure.note:
        canvas.text(inner[0], bottom + 0.91 * height, _plain(figure.note), va="top", ha="left", fontsize=8, color=MUTED)
    axes: dict[tuple[str, str], Any] = {}
    for trace in figure.data:
        kind = trace.get("type", "scatter")
        key = ("polar", "") if kind == "scatterpolar" else (trace.get("xaxis", "x"), trace.get("yaxis", "y"))
        if key not in axes:
            axes[key] = _axes(canvas, figure.layout, key, circle if kind == "scatterpolar" else inner, axes)
        _trace(axes[key], trace, figure)
    for key, ax in axes.items():
        if key[0] == "polar":
            _finish_polar(ax)
        else:
            _finish(ax, figure.layout, key)
    named = [trace for trace in figure.data if trace.get("showlegend", True) and trace.get("name")]
    if figure.layout.get("showlegend") and len(named) > 1 and axes:
        first = next(iter(axes.values()))
        handles, labels = (list(part) for part in zip(*_handles(axes.values()), strict=True))
        columns = 2 if len(labels) > 6 else 1
        beside = {"loc": "upper left", "bbox_to_anchor": (1.08, 1.0)} if ("polar", "") in axes else {"loc": "best"}
        first.legend(handles, labels, fontsize=7.5, frameon=False, ncols=columns, **beside)


def _handles(axes: Any) -> list[tuple[Any, str]]:
    found: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return [(handle, label) for label, handle in found.items()] or [(None, "")]


def _axes(
    canvas: Any,
    look: Json,
    key: tuple[str, str],
    inner: tuple[float, float, float, float],
    known: dict[tuple[str, str], Any],
) -> Any:
    """Axes where the domains of a layout put them; a second scale lies over the first."""
    if key[0] == "polar":
        return canvas.add_axes(inner, projection="polar")
    x, y = _axis(look, key[0]), _axis(look, key[1])
    over = y.get("overlaying")
    if over:
        base = next((ax for (_, name), ax in known.items() if name == over), None)
        if base is not None:
            return base.twinx()
    (x0, x1), (y0, y1) = x.get("domain", (0.0, 1.0)), y.get("domain", (0.0, 1.0))
    left, bottom, width, height = inner
    return canvas.add_axes((left + x0 * width, bottom + y0 * height, (x1 - x0) * width, (y1 - y0) * height))


def _axis(look: Json, name: str) -> Json:
    """The layout of axis ``x2``: plotly keeps it under ``xaxis2``."""
    found: Json = look.get(f"{name[0]}axis{name[1:]}", {})
    return found


def _trace(ax: Any, trace: Json, figure: Figure) -> None:
    kind = trace.get("type", "scatter")
    label = _plain(trace.get("name", "")) if trace.get("showlegend", True) else ""
    if kind == "scatterpolar":
        angles = np.radians(_numbers(trace["theta"]))
        ax.plot(angles, _numbers(trace["r"]), label=label, **_line(trace))
        return
    if kind == "bar":
        colour, alpha = _colour(trace.get("marker", {}).get("color"))
        ax.bar(trace["x"], _numbers(trace["y"]), width=trace.get("width", 0.8), color=colour, alpha=alpha, label=label)
        return
    if kind not in ("scatter", "scattergl"):
        raise ConfigError(
            f"a plot of kind '{kind}' cannot be drawn as a picture", where=figure.title, remedy="write an .html page"
        )
    x, y = trace["x"], _numbers(trace["y"])
    if x and isinstance(x[0], str):
        ax.set_xlim(-0.5, len(x) - 0.5)  # room for the first and the last name
    else:
        x = _numbers(x)
    mode = trace.get("mode", "lines")
    if trace.get("fill") in ("toself", "tozeroy", "tonexty"):
        colour, alpha = _colour(trace.get("fillcolor") or trace.get("line", {}).get("color"))
        ax.fill(x, y, color=colour, alpha=min(alpha, 0.35), linewidth=0, label=label if "lines" not in mode else "")
    if "lines" in mode and trace.get("line", {}).get("width", 1) > 0:
        ax.plot(x, y, label=label, **_line(trace))
        label = ""
    if "markers" in mode:
        ax.plot(x, y, linestyle="none", label=label, **_marker(trace.get("marker", {})))
    error = trace.get("error_y")
    if error and error.get("array"):
        colour, _ = _colour(trace.get("marker", {}).get("color") or trace.get("line", {}).get("color"))
        ax.errorbar(x, y, yerr=_numbers(error["array"]), fmt="none", ecolor=colour, elinewidth=1.0, capsize=2)


def _line(trace: Json) -> dict[str, Any]:
    line = trace.get("line", {})
    colour, alpha = _colour(line.get("color"))
    dash = DASHES.get(line.get("dash", "solid"), "-")
    return {"color": colour, "alpha": alpha, "linewidth": 0.8 * line.get("width", 1.6), "linestyle": dash}


def _marker(marker: Json) -> dict[str, Any]:
    face, alpha = _colour(marker.get("color"))
    edge = marker.get("line", {})
    colour = _colour(edge["color"])[0] if edge.get("color") else face
    size = marker.get("size", 5)
    return {
        "marker": "o", "markersize": 0.75 * float(size if isinstance(size, int | float) else 5), "alpha": alpha,
        "markerfacecolor": face, "markeredgecolor": colour, "markeredgewidth": 0.8 * edge.get("width", 0.0),
    }  # fmt: skip


def _finish(ax: Any, look: Json, key: tuple[str, str]) -> None:
    """Titles, scales, ranges and ticks; lines and words that a layout draws across."""
    for name, spec in zip("xy", (_axis(look, key[0]), _axis(look, key[1])), strict=True):
        title = spec.get("title", {})
        getattr(ax, f"set_{name}label")(_plain(title.get("text", "") if isinstance(title, dict) else title))
        logarithmic = spec.get("type") == "log"
        if logarithmic:
            getattr(ax, f"set_{name}scale")("log")
        if spec.get("range"):
            low, high = spec["range"]
            getattr(ax, f"set_{name}lim")(*((10**low, 10**high) if logarithmic else (low, high)))
        if spec.get("tickvals") is not None:
            texts = spec.get("ticktext") or [f"{v:g}" for v in spec["tickvals"]]
            getattr(ax, f"set_{name}ticks")(spec["tickvals"], [_plain(text) for text in texts])
        if spec.get("showticklabels") is False:
            getattr(ax, f"set_{name}ticklabels")([])
        if spec.get("rangemode") == "tozero":
            getattr(ax, f"set_{name}lim")(**{"left" if name == "x" else "bottom": 0.0})
        if logarithmic and spec.get("tickvals") is None:
            _mark_decades(getattr(ax, f"{name}axis"), *getattr(ax, f"get_{name}lim")())
    ax.grid(visible=True, axis="y", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(LINE)
    ax.tick_params(colors=MUTED, labelcolor=MUTED, length=3)
    ax.tick_params(which="minor", colors=MUTED, length=1.5)
    for shape in look.get("shapes", []):
        _shape(ax, shape, key)
    for note in look.get("annotations", []):
        if note.get("xref", "x") == key[0] and note.get("yref", "y") in (key[1], "paper"):
            place = ax.get_xaxis_transform() if note.get("yref") == "paper" else ax.transData
            colour = _colour(note.get("font", {}).get("color"))[0]
            ax.text(note["x"], note["y"], _plain(note["text"]), transform=place, fontsize=7.5, color=colour)


def _mark_decades(axis: Any, low: float, high: float) -> None:
    """Figures at the decades of a logarithmic axis; where it has hardly two of them, at 2 and 5 too, written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if high < 200.0 * low:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _finish_polar(ax: Any) -> None:
    """Few circles, in the light lines of the other plots, their figures along the vertical."""
    from matplotlib.ticker import MaxNLocator

    high = ax.get_ylim()[1]
    ax.set_ylim(0.0, high)
    ax.set_yticks([tick for tick in MaxNLocator(4).tick_values(0.0, high) if 0.0 < tick < high])
    ax.set_rlabel_position(90)
    ax.grid(visible=True, color=GRID, linewidth=0.8)
    ax.spines["polar"].set_color(LINE)
    ax.tick_params(colors=MUTED, labelcolor=MUTED, labelsize=7.5)


def _shape(ax: Any, shape: Json, key: tuple[str, str]) -> None:
    """A straight line across the axes, or between two points."""
    if shape.get("type") != "line":
        return
    style = _line(shape)
    xref, yref = shape.get("xref", "x"), shape.get("yref", "y")
    if xref in ("paper", f"{key[0]} domain") and yref == key[1]:
        ax.axhline(shape["y0"], zorder=0, **style)
    elif yref in ("paper", f"{key[1]} domain") and xref == key[0]:
        ax.axvline(shape["x0"], zorder=0, **style)
    elif (xref, yref) == key:
        ax.plot([shape["x0"], shape["x1"]], [shape["y0"], shape["y1"]], zorder=0, **style)


def _colour(token: Any) -> tuple[str, float]:
    """Colour and opacity of a token such as ``@blue/40``; ink where there is none."""
    if not isinstance(token, str):
        return INK, 1.0
    if not token.startswith("@"):
        return token, 1.0
    name, _, share = token[1:].partition("/")
    return COLOURS.get(name, INK), float(share) / 100.0 if share else 1.0


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    return np.array([math.nan if v is None else v for v in values], dtype=np.float64)


def _plain(text: str) -> str:
    """Text without the markup of a page."""
    return html.unescape(_TAG.sub("", text))
