"""Prediction against label, point by point, with the distribution of the residuals below."""

from __future__ import annotations

import html
from dataclasses import dataclass

import numpy as np

from adatom.elements import symbol
from adatom.report.figure import Figure, Json, axis, layout, plain
from adatom.report.format import integer, number, plural
from adatom.report.load import Predictions
from adatom.report.tables import errors
from adatom.units import EV_PER_A3_IN_GPA

POINTS = 12_000  # SVG markers of one plot that a browser draws and scrolls with ease
OUTLIERS = 1_000  # always drawn, whatever is left out

_AXES = "xyz"
_PAIRS = tuple(a + b for a in _AXES for b in _AXES)


@dataclass(frozen=True)
class Cloud:
    """Points of one parity plot: label x, prediction y, residual in the quoted unit, and what their hover says."""

    x: np.ndarray
    y: np.ndarray
    residual: np.ndarray
    structure: np.ndarray
    detail: np.ndarray  # (P,)  index into ``details``
    details: list[str]


def parity_figures(predictions: Predictions, references: dict[str, float]) -> list[Figure]:
    """Energy, forces and stress; a quantity without a single label is left out.

    ``references`` (eV per element): energies are shown above them where they cover all elements.
    """
    p = predictions
    offset = _offset(p, references)
    wanted = (
        ("energy", "Energy", "eV/atom", "meV/atom", _energy(p, offset)),
        ("forces", "Forces", "eV/Å", "meV/Å", _forces(p)),
        ("stress", "Stress", "GPa", "GPa", _stress(p)),
    )
    return [_figure(p, *entry) for entry in wanted if entry[-1].x.size]


def sample(residual: np.ndarray, limit: int = POINTS, outliers: int = OUTLIERS) -> np.ndarray:
    """Which points to draw: all, or the worst ``outliers`` and an even-handed choice of the rest, always the same."""
    if residual.size <= limit:
        return np.arange(residual.size)
    order = np.argsort(-np.abs(residual), kind="stable")
    rest = np.random.default_rng(0).permutation(order[outliers:])[: limit - outliers]
    return np.sort(np.concatenate([order[:outliers], rest]))


def density(x: np.ndarray, y: np.ndarray, bins: int = 90, dense: float = 100.0) -> np.ndarray:
    """How crowded the spot of each point is: 0 where it stands alone, 1 from ``dense`` points in one bin on."""
    if x.size == 0:
        return np.zeros(0)
    low, high = _span(np.concatenate([x, y]))
    column, row = (np.clip(((v - low) / (high - low) * bins).astype(np.int64), 0, bins - 1) for v in (x, y))
    crowd = np.bincount(row * bins + column, minlength=bins * bins)[row * bins + column]
    return np.asarray(np.clip(np.log(crowd) / np.log(dense), 0.0, 1.0))


def covers(p: Predictions, references: dict[str, float]) -> bool:
    """True when every element of the set has a reference energy."""
    return all(symbol(int(z)) in references for z in np.unique(p.numbers))


def _offset(p: Predictions, references: dict[str, float]) -> np.ndarray:
    """What is subtracted from the energies, eV per structure: zero unless the references cover all elements."""
    if not covers(p, references):
        return np.zeros(p.n_atoms.shape[0])
    per_atom = np.array([references[symbol(int(z))] for z in p.numbers])
    return np.bincount(p.owner, per_atom, minlength=p.n_atoms.shape[0])


def _energy(p: Predictions, offset: np.ndarray) -> Cloud:
    known = np.flatnonzero(np.isfinite(p.energy_ref) & np.isfinite(p.energy))
    x, y = ((v[known] - offset[known]) / p.n_atoms[known] for v in (p.energy_ref, p.energy))
    sizes, detail = np.unique(p.n_atoms[known], return_inverse=True)
    return Cloud(x, y, 1e3 * (y - x), known, detail, [plural(int(n), "atom") for n in sizes])


def _forces(p: Predictions) -> Cloud:
    atom, component = np.nonzero(np.isfinite(p.forces_ref) & np.isfinite(p.forces))
    first = np.cumsum(p.n_atoms) - p.n_atoms
    # a detail is (element, index inside the structure, component), spelled once however many points share it
    code = np.stack([p.numbers[atom], (np.arange(p.numbers.shape[0]) - first[p.owner])[atom], component], axis=1)
    unique, detail = np.unique(code, axis=0, return_inverse=True)
    details = [f"{symbol(int(z))} {i}, {_AXES[c]}" for z, i, c in unique.tolist()]
    x, y = p.forces_ref[atom, component], p.forces[atom, component]
    return Cloud(x, y, 1e3 * (y - x), p.owner[atom], detail.reshape(-1), details)


def _stress(p: Predictions) -> Cloud:
    structure, a, b = np.nonzero(np.isfinite(p.stress_ref) & np.isfinite(p.stress))
    x, y = (EV_PER_A3_IN_GPA * v[structure, a, b] for v in (p.stress_ref, p.stress))
    return Cloud(x, y, y - x, structure, 3 * a + b, list(_PAIRS))


def _figure(p: Predictions, name: str, title: str, unit: str, quoted: str, cloud: Cloud) -> Figure:
    drawn = sample(cloud.residual)
    shade = np.zeros(cloud.x.size)
    shade[drawn] = density(cloud.x[drawn], cloud.y[drawn])
    kinds = p.config_types[cloud.structure]
    traces = []
    for kind in sorted(np.unique(kinds[drawn]).tolist(), key=lambda k: -int((kinds[drawn] == k).sum())):
        chosen = drawn[kinds[drawn] == kind]
        traces.append(_markers(p, cloud, chosen, shade[chosen], str(kind), quoted, 0.8 if drawn.size < 3000 else 0.5))
    total = errors(cloud.residual)
    note = f"RMSE {number(total.rmse)} {quoted} · MAE {number(total.mae)}" if total else ""
    remark = ""
    if drawn.size < cloud.x.size:
        remark = f"{title}: {integer(drawn.size)} of {plural(cloud.x.size, 'point')} drawn, the worst among them."
    return Figure(
        f"parity-{p.split}-{name}",
        title,
        note,
        [*traces, _histogram(cloud.residual, quoted)],
        _layout(cloud, unit, quoted),
        "parity",
        remark,
    )


def _markers(
    p: Predictions, cloud: Cloud, chosen: np.ndarray, shade: np.ndarray, kind: str, quoted: str, opacity: float
) -> Json:
    """Points of one config_type. Plotly reads markup in hover texts, so names are escaped."""
    names = [html.escape(str(name)) for name in p.names]
    of = f" ({html.escape(kind)})" if kind else ""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": kind,
        "x": plain(cloud.x[chosen]),
        "y": plain(cloud.y[chosen]),
        "customdata": plain(cloud.residual[chosen], 4),
        "text": [
            f"{names[s]}, {cloud.details[d]}"
            for s, d in zip(*(v[chosen] for v in (cloud.structure, cloud.detail)), strict=True)
        ],
        "marker": {
            "color": plain(shade, 2),
            "colorscale": [[0, "@blue"], [1, "@ink"]],
            "cmin": 0,
            "cmax": 1,
            "size": 5,
            "opacity": opacity,
            "line": {"width": 0},
        },
        "hovertemplate": "<b>%{text}</b>"
        + of
        + "<br>label %{x:.4f}<br>model %{y:.4f}<br>error %{customdata:+.4~g} "
        + quoted
        + "<extra></extra>",
    }


def _histogram(residual: np.ndarray, quoted: str, bins: int = 41) -> Json:
    """Counts of the residuals within the range that holds 99 % of them; the rest stands in the outermost bars."""
    reach = max(float(np.quantile(np.abs(residual), 0.99)), 1e-12)
    counts, edges = np.histogram(np.clip(residual, -reach, reach), bins=bins, range=(-reach, reach))
    return {
        "type": "bar",
        "x": plain((edges[1:] + edges[:-1]) / 2),
        "y": counts.tolist(),
        "width": float(edges[1] - edges[0]),
        "xaxis": "x2",
        "yaxis": "y2",
        "marker": {"color": "@blue/55", "line": {"width": 0}},
        "hovertemplate": "%{y} at %{x:.3~g} " + quoted + "<extra></extra>",
    }


def _layout(cloud: Cloud, unit: str, quoted: str) -> Json:
    """Parity above, histogram below; both parity axes have one range, so that the diagonal is the truth."""
    span = _span(np.concatenate([cloud.x, cloud.y]))
    look = layout(axis(f"label ({unit})", span=span), axis(f"model ({unit})", span=span), hover="closest")
    look["yaxis"] |= {"domain": [0.34, 1.0]}
    look["xaxis"] |= {"anchor": "y"}
    look["xaxis2"] = axis(f"model − label ({quoted})") | {
        "anchor": "y2",
        "showgrid": False,
        "showline": True,
        "nticks": 5,
    }
    look["yaxis2"] = axis("") | {"domain": [0.0, 0.15], "showticklabels": False, "ticks": "", "showgrid": False}
    look["bargap"] = 0.06
    diagonal = {"color": "@muted", "width": 1}
    low, high = span
    look["shapes"] = [
        {"type": "line", "x0": low, "y0": low, "x1": high, "y1": high, "line": diagonal, "layer": "below"},
        {"type": "line", "xref": "x2", "yref": "y2 domain", "x0": 0, "x1": 0, "y0": 0, "y1": 1, "line": diagonal},
    ]
    return look


def _span(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or 1.0
    return low - margin, high + margin
