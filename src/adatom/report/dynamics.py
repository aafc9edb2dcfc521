"""Molecular dynamics: temperature, energy, pressure and structure along a run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adatom.report.figure import SERIES, Figure, axis, layout, line, reference_line, thin
from adatom.report.format import fixed, integer, number, signed, tidy
from adatom.report.load import Trajectory

POINTS = 2000  # per curve
SETTLED = 0.2  # share of the run left out of means
STARTED = 0.1  # share of the run left out of the drift


@dataclass(frozen=True)
class Dynamics:
    """One MD run as shown: title, facts as (label, value), figures."""

    name: str
    title: str
    facts: list[tuple[str, str]]
    figures: list[Figure]


def dynamics(run: Trajectory) -> Dynamics:
    """Everything shown of one run."""
    ensemble = run.start.text("ensemble", run.name).upper()
    atoms, kelvin = run.start.whole("atoms"), run.start.real("temperature_K")
    parts = [ensemble, f"{integer(atoms)} atoms" if atoms else "", f"{tidy(kelvin)} K" if kelvin else ""]
    figures = [_temperature(run), _energy(run), _pressure(run), _volume(run), _pairs(run)]
    return Dynamics(
        run.name, " · ".join(part for part in parts if part), _facts(run), [f for f in figures if f is not None]
    )


def drift(run: Trajectory) -> float | None:
    """Slope of the total energy by least squares, meV/atom/ps, after the first tenth; None for too short a run."""
    time, energy, atoms = run.columns.get("time_ps"), run.columns.get("total_eV"), run.start.real("atoms")
    if time is None or energy is None or not atoms:
        return None
    known = np.isfinite(time) & np.isfinite(energy)
    if not known.any():
        return None
    known &= time >= time[known][0] + STARTED * (time[known][-1] - time[known][0])
    t, e = time[known] - time[known].mean(), energy[known]
    if t.size < 3 or not (t @ t) > 0:
        return None
    return float(1e3 * (t @ (e - e.mean())) / (t @ t) / atoms)


def _conserves(run: Trajectory) -> bool:
    return run.start.text("ensemble", run.name).lower() == "nve"


def _facts(run: Trajectory) -> list[tuple[str, str]]:
    table = run.columns
    time = table.get("time_ps", np.zeros(0))
    slope = drift(run) if _conserves(run) else None
    step = run.start.real("timestep_fs")
    speed = run.end.real("us_per_atom_step")
    facts = [
        ("length", f"{number(float(np.nanmax(time)))} ps" if np.isfinite(time).any() else ""),
        ("time step", f"{tidy(step)} fs" if step else ""),
        ("mean temperature", _mean(run, "temperature_K", 0, "K")),
        ("mean pressure", _mean(run, "pressure_GPa", 2, "GPa")),
        ("energy drift", f"{number(slope, 2)} meV/atom/ps" if slope is not None else ""),
        ("speed", f"{number(speed)} µs/atom/step" if speed else ""),
        ("ended", run.end.text("reason")),
    ]
    return [(label, value) for label, value in facts if value]


def _settled(run: Trajectory, key: str) -> np.ndarray:
    """The finite values of a column after the first fifth of the run."""
    values = run.columns.get(key, np.zeros(0))
    values = values[int(SETTLED * values.shape[0]) :]
    return values[np.isfinite(values)]


def _mean(run: Trajectory, key: str, decimals: int, unit: str) -> str:
    values = _settled(run, key)
    if values.size < 2:
        return ""
    return f"{fixed(float(values.mean()), decimals)} ± {fixed(float(values.std()), decimals)} {unit}"


def _temperature(run: Trajectory) -> Figure | None:
    figure = _series(run, "temperature_K", "Temperature", "K", "@orange")
    target = run.start.real("temperature_K")
    if figure is None or target is None or _conserves(run):
        return figure
    figure.layout["shapes"] = [reference_line(target)]
    note = " · ".join(part for part in (figure.note, "dashed: thermostat") if part)
    return Figure(figure.name, figure.title, note, figure.data, figure.layout)


def _pressure(run: Trajectory) -> Figure | None:
    return _series(run, "pressure_GPa", "Pressure", "GPa", "@purple")


def _volume(run: Trajectory) -> Figure | None:
    """The volume, where a barostat moves it."""
    values = run.columns.get("volume_A3", np.zeros(0))
    known = values[np.isfinite(values)]
    if known.size == 0 or np.ptp(known) == 0:
        return None
    return _series(run, "volume_A3", "Volume", "Å³", "@green")


def _energy(run: Trajectory) -> Figure | None:
    """Total energy where it is conserved, potential energy where a thermostat trades it."""
    atoms = run.start.real("atoms") or 1.0
    unit = "meV/atom" if "atoms" in run.start else "meV"
    key = "total_eV" if _conserves(run) else "potential_eV"
    values, time = run.columns.get(key), run.columns.get("time_ps")
    if values is None or time is None or not np.isfinite(values).any():
        return None
    change = 1e3 * (values - values[np.isfinite(values)][0]) / atoms
    keep = thin(change.shape[0], POINTS)
    curves = [line(time[keep], change[keep], "change", "@blue/60", 1.0)]
    title, note = "Potential energy", "change from the first frame"
    if _conserves(run):
        slope = drift(run)
        title = "Drift of the total energy"
        if slope is not None:
            late = np.flatnonzero(np.isfinite(change) & (time >= time[0] + STARTED * (time[-1] - time[0])))
            fit = slope * (time[late] - time[late].mean()) + change[late].mean()
            curves.append(line(time[late][[0, -1]], fit[[0, -1]], "fit", "@ink", 1.6, "dash"))
            note = f"dashed: fit, {signed(slope, 4)} meV/atom/ps"
    look = layout(axis("time (ps)"), axis(f"ΔE ({unit})"))
    return Figure(f"{run.name}-energy", title, note, curves, look)


def _series(run: Trajectory, key: str, title: str, unit: str, color: str) -> Figure | None:
    """A fluctuating quantity: thin as logged, strong as running mean over a thirtieth of the run."""
    values, time = run.columns.get(key), run.columns.get("time_ps")
    if values is None or time is None or not np.isfinite(values).any():
        return None
    keep = thin(values.shape[0], POINTS)
    curves, note = [line(time[keep], values[keep], title.lower(), f"{color}/45", 1.0)], ""
    window = values.shape[0] // 30
    if window >= 3 and np.isfinite(values).all():
        middle = time[window // 2 : window // 2 + values.shape[0] - window + 1]
        smooth = np.convolve(values, np.ones(window) / window, mode="valid")
        keep = thin(smooth.shape[0], POINTS)
        curves.append(line(middle[keep], smooth[keep], "running mean", color, 2.0))
        note = f"strong: mean over {tidy(float(f'{time[window] - time[0]:.2g}'))} ps"
    return Figure(f"{run.name}-{title.lower()}", title, note, curves, layout(axis("time (ps)"), axis(unit)))


def _pairs(run: Trajectory) -> Figure | None:
    """g(r) of every pair of elements."""
    found = {pair: g for pair, g in run.g.items() if g.size and g.shape == run.r.shape}
    if not found:
        return None
    curves = []
    for i, (pair, g) in enumerate(found.items()):
        dash = ("solid", "dash", "dot")[i // len(SERIES) % 3]  # colours come round again: the dash tells them apart
        curves.append(line(run.r, g, pair, SERIES[i % len(SERIES)], 1.6, dash))
    look = layout(axis("r (Å)"), axis("g(r)") | {"rangemode": "tozero"})
    look["shapes"] = [reference_line(1.0)]
    look["showlegend"] = len(found) > 1
    note = next(iter(found)) if len(found) == 1 else ""
    return Figure(f"{run.name}-pairs", "Pair distribution", note, curves, look)
