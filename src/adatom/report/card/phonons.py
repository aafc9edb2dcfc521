"""Phonons on a property card: bands beside the density of states, thermal properties."""

from __future__ import annotations

import numpy as np

from adatom.report.card.section import Section, Table
from adatom.report.figure import Figure, Json, axis, layout, line, plain, reference_line
from adatom.report.format import THIN, fixed, number, plural, signed
from adatom.report.record import Record

R = 8.314462618  # J/(mol K)
ZERO = -0.05  # THz: what lies above is no imaginary mode
SHOWN = (100.0, 300.0, 600.0, 1000.0)  # K


def section(record: Record) -> Section:
    """Bands with density of states, heat capacity, entropy and free energy."""
    thermal = record.record("thermal")
    cell = record.record("supercell")
    repeats, mesh = (" × ".join(fixed(n, 0) for n in x) for x in (cell.reals("repeats"), record.reals("mesh")))
    facts = [
        ("Highest frequency", f"{fixed(record.real('highest_THz'), 2)}{THIN}THz"),
        ("Imaginary modes", "none" if record.flag("stable") else _imaginary(record)),
        ("Zero-point energy", f"{fixed(1e3 * (record.real('zero_point_eV_per_atom') or 0.0), 1)}{THIN}meV/atom"),
    ]
    room = _at(thermal, 300.0)
    if room is not None:
        facts.append(("Heat capacity at 300 K", f"{fixed(R * room[2], 2)}{THIN}J/(mol K)"))
        facts.append(("Entropy at 300 K", f"{fixed(R * room[1], 2)}{THIN}J/(mol K)"))
    facts.append(("Net force constant, made zero", f"{number(record.real('acoustic_eV_per_A2'), 2)}{THIN}eV/Å²"))
    facts.append(("Force constants at the edge of the supercell", f"{fixed(100 * (record.real('edge') or 0), 1)} %"))
    subtitle = (
        f"{record.text('space_group')}; supercell of {repeats} conventional cells, {fixed(cell.whole('atoms'), 0)} "
        f"atoms, images {fixed(cell.real('length_A'), 1)} Å apart; "
        f"{plural(record.whole('displacements') or 0, 'displacement')}; mesh {mesh}"
    )
    figures = (_bands(record), _heat(thermal), _free(thermal))
    return Section(
        "phonons", "Phonons", subtitle, tuple(facts), tuple(record.texts("warnings")), (_table(thermal),),
        tuple(figure for figure in figures if figure is not None),
    )  # fmt: skip


def _imaginary(record: Record) -> str:
    lowest = record.real("softest_THz") or 0.0
    place = record.text("softest_place").replace("G", "Γ")
    q = ", ".join(fixed(x, 3) for x in record.reals("softest_q"))
    return f"{fixed(-lowest, 2)}i THz at {place or f'q = ({q})'}"


def _at(thermal: Record, temperature: float) -> tuple[float, float, float] | None:
    """Free energy (eV), entropy and heat capacity (kB) at a temperature; None beyond the range."""
    t = thermal.reals("temperature_K")
    if not t.size or t[-1] < temperature:
        return None
    keys = ("free_energy_eV_per_atom", "entropy_kB_per_atom", "heat_capacity_kB_per_atom")
    free, entropy, heat = (float(np.interp(temperature, t, thermal.reals(key))) for key in keys)
    return free, entropy, heat


def _table(thermal: Record) -> Table:
    rows = []
    for temperature in SHOWN:
        found = _at(thermal, temperature)
        if found is not None:
            free, entropy, heat = found
            rows.append((
                fixed(temperature, 0), signed(1e3 * free, 1), fixed(entropy, 3), fixed(R * entropy, 2), fixed(heat, 3),
                fixed(R * heat, 2),
            ))  # fmt: skip
    columns = ("T, K", "F, meV/atom", "S, k_B/atom", "S, J/(mol K)", "C_V, k_B/atom", "C_V, J/(mol K)")
    return Table("Harmonic thermal properties, per atom", columns, tuple(rows))


def _bands(record: Record) -> Figure | None:
    """Bands along the path, the density of states beside them on the same scale."""
    parts = record.records("bands")
    if not parts:
        return None
    x, y, ticks = _joined(parts)
    traces: list[Json] = []
    for band in y:
        style = line(x, band, "", "@blue", 1.4)
        traces.append(style | {"showlegend": False, "hovertemplate": "%{y:.3~f} THz<extra></extra>"})
        if (band < ZERO).any():
            traces.append(line(x, np.where(band < ZERO, band, np.nan), "", "@bad", 2.0) | {"showlegend": False})
    dos = record.record("dos")
    frequency, density = dos.reals("frequency_THz"), dos.reals("per_THz_and_atom")
    shown = [np.nanmin(y), np.nanmax(y)]
    room = 0.04 * (shown[1] - min(shown[0], 0.0))
    span = (shown[0] - room if shown[0] < ZERO else 0.0, shown[1] + room)
    traces.append({
        "type": "scatter", "mode": "lines", "name": "density of states", "x": plain(density), "y": plain(frequency),
        "xaxis": "x2", "yaxis": "y2", "line": {"color": "@orange", "width": 1.6}, "showlegend": False,
        "hovertemplate": "%{x:.3~g} /THz<extra></extra>",
    })  # fmt: skip
    look = layout(axis(""), axis("frequency (THz)", span=span), hover="closest")
    look["xaxis"] |= {
        "domain": [0.0, 0.76], "range": [0.0, float(np.nanmax(x))], "tickvals": [at for at, _ in ticks],
        "ticktext": [name for _, name in ticks],
    }  # fmt: skip
    look["xaxis2"] = axis("1/(THz atom)", span=(0.0, 1.08 * float(density.max(initial=1e-9))))
    look["xaxis2"] |= {"domain": [0.79, 1.0], "anchor": "y2", "showgrid": False, "nticks": 3, "showline": True}
    look["yaxis2"] = axis("", span=span) | {"anchor": "x2", "matches": "y", "showticklabels": False}
    style = {"color": "@line", "width": 1, "dash": "solid"}
    look["shapes"] = [
        {"type": "line", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1, "line": style, "layer": "below"}
        for at, _ in ticks
    ]
    if span[0] < 0.0:
        look["shapes"].append(reference_line(0.0))
    note = "" if record.flag("stable") is not False else "imaginary frequencies below zero, in red"
    return Figure("phonon-bands", "Phonon bands and density of states", note, traces, look, "wide")


def _joined(parts: list[Record]) -> tuple[np.ndarray, np.ndarray, list[tuple[float, str]]]:
    """Distances (Q,), bands (B, Q), with a gap where the path is broken; and names of the special points."""
    x, y = [np.zeros(0)], []
    ticks: list[tuple[float, str]] = []
    for part in parts:
        distance = part.reals("distance_per_A")
        bands = np.array(part.values.get("frequency_THz"), dtype=np.float64)  # (B, Q)
        start, end = (part.text(key).replace("G", "Γ") for key in ("from", "to"))
        if ticks and ticks[-1][1] != start:
            ticks[-1] = (ticks[-1][0], f"{ticks[-1][1]}|{start}")
            x.append(np.array([np.nan]))
            y.append(np.full((len(bands), 1), np.nan))
        elif not ticks:
            ticks.append((float(distance[0]), start))
        ticks.append((float(distance[-1]), end))
        x.append(distance)
        y.append(bands)
    return np.concatenate(x), np.concatenate(y, axis=1), ticks


def _heat(thermal: Record) -> Figure | None:
    t = thermal.reals("temperature_K")
    if t.size < 2:
        return None
    curves = [
        line(t, thermal.reals("heat_capacity_kB_per_atom"), "heat capacity C_V", "@blue", 2.0),
        line(t, thermal.reals("entropy_kB_per_atom"), "entropy S", "@orange", 2.0),
    ]
    look = layout(axis("temperature (K)"), axis("k_B per atom") | {"rangemode": "tozero"})
    look |= {"showlegend": True, "shapes": [reference_line(3.0)]}
    return Figure("phonon-heat", "Heat capacity and entropy", "dashed: 3 k_B, Dulong and Petit", curves, look)


def _free(thermal: Record) -> Figure | None:
    t = thermal.reals("temperature_K")
    if t.size < 2:
        return None
    curve = line(t, 1e3 * thermal.reals("free_energy_eV_per_atom"), "free energy", "@blue", 2.0)
    return Figure(
        "phonon-free", "Vibrational free energy", "zero-point energy included", [curve],
        layout(axis("temperature (K)"), axis("F (meV/atom)")),
    )  # fmt: skip
