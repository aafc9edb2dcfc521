"""Energy against volume: the model beside the reference labels, with the fits of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adatom.report.figure import Figure, Json, axis, layout, line, plain
from adatom.report.format import fixed, number, plural, signed
from adatom.report.load import EnergyVolume
from adatom.units import EV_PER_A3_IN_GPA

CONSTANTS = (
    ("lattice_constant_A", "Lattice constant", "Å", 4),
    ("V0_A3_per_atom", "Volume V₀", "Å³/atom", 3),
    ("E0_eV_per_atom", "Energy E₀", "eV/atom", 4),
    ("B0_GPa", "Bulk modulus B₀", "GPa", 1),
    ("B0_prime", "B₀′", "", 2),
)


@dataclass(frozen=True)
class ConstantRow:
    """One constant of the fits, as shown."""

    name: str
    unit: str
    model: str
    reference: str
    difference: str


def birch_murnaghan(volume: np.ndarray, V0: float, E0: float, B0: float, B1: float) -> np.ndarray:
    """Third-order Birch-Murnaghan energy, eV/atom, with B0 in GPa.

    E(V) = E0 + 9 V0 B0 / 16 { B0' (x - 1)^3 + (x - 1)^2 (6 - 4 x) },   x = (V0 / V)^(2/3)
    """
    x = (V0 / volume) ** (2 / 3)
    bracket = B1 * (x - 1) ** 3 + (x - 1) ** 2 * (6 - 4 * x)
    return np.asarray(E0 + 9 * V0 * B0 / EV_PER_A3_IN_GPA / 16 * bracket)


def energy_volume_figure(curves: tuple[EnergyVolume, ...]) -> Figure | None:
    """The curve of the model (first) and of the reference, where there is one; None without a single point."""
    curves = tuple(curve for curve in curves if curve.volume.size)
    if not curves:
        return None
    traces: list[Json] = []
    for curve in reversed(curves):  # the model on top
        fit, ours = _fit(curve), curve is curves[0]
        if fit:
            style = line(*fit, f"{curve.label}, fit", "@blue" if ours else "@ink", 1.6, "solid" if ours else "dash")
            traces.append(style | {"showlegend": False, "hoverinfo": "skip", "hovertemplate": None})
        traces.append(_points(curve, hollow=not ours))
    look = layout(axis("volume (Å³/atom)"), axis("energy (eV/atom)"), hover="closest")
    look |= {"showlegend": True}
    difference = _difference(curves)
    if difference is not None:
        _add_panel(look, traces, *difference)
    return Figure("energy-volume", "Energy against volume", "", traces, look, "wide")


def constants(curves: tuple[EnergyVolume, ...]) -> list[ConstantRow]:
    """The constants of the fits side by side."""
    model = curves[0].fit
    reference = curves[1].fit if len(curves) > 1 else None
    rows = []
    for key, name, unit, decimals in CONSTANTS:
        ours, theirs = model.real(key), reference.real(key) if reference else None
        if ours is None and theirs is None:
            continue
        gap = None if ours is None or theirs is None else ours - theirs
        shown = signed(gap, decimals)
        if gap is not None and theirs and key != "E0_eV_per_atom":
            shown += f" ({signed(100 * gap / abs(theirs), 2)} %)"
        rows.append(ConstantRow(name, unit, fixed(ours, decimals), fixed(theirs, decimals), shown))
    return rows


def _fit(curve: EnergyVolume) -> tuple[np.ndarray, np.ndarray] | None:
    """The fitted curve over the range that was fitted, or None where the constants are not all there."""
    keys = ("V0_A3_per_atom", "E0_eV_per_atom", "B0_GPa", "B0_prime")
    values = [value for key in keys if (value := curve.fit.real(key)) is not None]
    if len(values) < len(keys):
        return None
    span = curve.fit.reals("range_A3_per_atom")  # of the points that were fitted, where not all were
    low, high = span if span.shape == (2,) else (curve.volume[0], curve.volume[-1])
    volume = np.linspace(low, high, 160)
    return volume, birch_murnaghan(volume, *values)


def _points(curve: EnergyVolume, hollow: bool) -> Json:
    marker: Json = {"color": "@blue", "size": 5}
    if hollow:
        marker = {"color": "@page", "size": 10, "line": {"color": "@ink", "width": 1.4}}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": curve.label,
        "x": plain(curve.volume),
        "y": plain(curve.energy, 8),
        "marker": marker,
        "hovertemplate": "%{x:.3f} Å³/atom<br>%{y:.4f} eV/atom<extra>%{fullData.name}</extra>",
    }


def _difference(curves: tuple[EnergyVolume, ...]) -> tuple[np.ndarray, np.ndarray] | None:
    """Model minus reference in meV/atom at the volumes that both have; None when they share fewer than three."""
    if len(curves) < 2:
        return None
    ours, theirs = curves
    nearest = np.abs(ours.volume[:, None] - theirs.volume[None]).argmin(axis=1)
    shared = np.abs(ours.volume - theirs.volume[nearest]) < 1e-3 * ours.volume
    if shared.sum() < 3:
        return None
    return ours.volume[shared], 1e3 * (ours.energy[shared] - theirs.energy[nearest[shared]])


def _add_panel(look: Json, traces: list[Json], volume: np.ndarray, difference: np.ndarray) -> None:
    """A second panel below with the difference."""
    look["yaxis"] |= {"domain": [0.36, 1.0]}
    look["yaxis2"] = axis("Δ (meV/atom)") | {"domain": [0.0, 0.24], "nticks": 4}
    look["xaxis"] |= {"anchor": "y2"}
    zero = {"color": "@muted", "width": 1}
    look["shapes"] = [{"type": "line", "xref": "paper", "yref": "y2", "x0": 0, "x1": 1, "y0": 0, "y1": 0, "line": zero}]
    traces.append(
        {
            "type": "scatter",
            "mode": "markers+lines",
            "name": "model − reference",
            "showlegend": False,
            "x": plain(volume),
            "y": plain(difference, 4),
            "yaxis": "y2",
            "line": {"color": "@blue", "width": 1.2},
            "marker": {"color": "@blue", "size": 5},
            "hovertemplate": "%{x:.3f} Å³/atom<br>%{y:+.2f} meV/atom<extra></extra>",
        }
    )


def headline(curves: tuple[EnergyVolume, ...]) -> str:
    """One sentence on the points."""
    parts = [
        f"{curve.label} at {plural(curve.volume.size, 'volume')}, "
        f"{number(curve.volume[0])} to {number(curve.volume[-1])} Å³/atom"
        for curve in curves
        if curve.volume.size
    ]
    text = "; ".join(parts) + "."
    return text[0].upper() + text[1:]
