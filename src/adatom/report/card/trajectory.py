"""Pairs, structure factor, diffusion and vibrations of a trajectory on a property card."""

from __future__ import annotations

import numpy as np

from adatom.report.card.section import Section, Table
from adatom.report.figure import SERIES, Figure, Json, axis, layout, line, positive, reference_line
from adatom.report.format import THIN, fixed, number, plural, tidy
from adatom.report.record import Record

HIGHEST = 1.02  # of the last frequency with a visible density of states, where the axis ends
VISIBLE = 2e-3  # of the largest


def section(record: Record) -> Section:
    """What a trajectory shows; each part where it was computed."""
    figures = (_pairs(record), _structure(record), _displacements(record), _vibrations(record), _correlation(record))
    tables = (_peaks(record), _diffusion(record))
    duration = record.real("duration_ps")
    parts = [
        record.text("formula"),
        f"{tidy(duration)}{THIN}ps" if duration else "",
        plural(record.whole("frames") or 0, "frame"),
        f"{number(skipped)}{THIN}ps skipped" if (skipped := record.real("skip_ps")) else "",
    ]
    return Section(
        "trajectory",
        "Trajectory",
        " · ".join(part for part in parts if part),
        tuple(_facts(record)),
        tuple(_warnings(record)),
        tuple(table for table in tables if table is not None),
        tuple(figure for figure in figures if figure is not None),
    )


def _facts(record: Record) -> list[tuple[str, str]]:
    facts = []
    for name, one in _each(record.record("diffusion"), "species"):
        value, error = one.real("D_A2_per_ps"), one.real("D_error_A2_per_ps")
        if one.flag("diffusive") and value is not None and error is not None:
            facts.append((f"D of {name}", f"{uncertain(1e-4 * value, 1e-4 * error)}{THIN}cm²/s"))
    for pair, one in _each(record, "likeness"):
        overlap = one.real("overlap")
        share = fixed(None if overlap is None else 100 * overlap, 1)
        facts.append((f"g(r) of {pair}, overlap with the reference", f"{share} %"))
    heat = record.record("velocities").record("total").real("temperature_K")
    if heat is not None:
        facts.append(("temperature", f"{fixed(heat, 1)}{THIN}K"))
    return facts


def _warnings(record: Record) -> list[str]:
    found = record.texts("notes")
    for name, one in _each(record.record("diffusion"), "species"):
        if one.flag("diffusive") is False:
            power, far = number(one.real("exponent"), 2), number(one.real("moved_A"), 2)
            if one.flag("left") is False:
                found.append(
                    f"{name} does not diffuse: in the window of the fit it goes {far} Å, no farther than atoms rattle "
                    "in their places: no D"
                )
                continue
            found.append(
                f"{name} does not diffuse yet: in the window of the fit its mean-square displacement grows as t to the "
                f"power {power}, and it goes {far} Å; take D as an estimate, and run longer"
            )
    motion = record.record("velocities")
    if motion.flag("resolved") is False:
        share, highest = motion.real("folded") or 0.0, number(motion.real("highest_THz"))
        found.append(
            f"{100 * share:.0f} % of the kinetic energy moves faster than {highest} THz, half of the frame rate, and "
            "appears at frequencies where it does not belong: write frames more often"
        )
    return found


def _peaks(record: Record) -> Table | None:
    rows = []
    for pair, one in _each(record, "likeness"):
        ours, theirs = one.reals("peak"), one.reals("reference_peak")
        noise, overlap = one.real("noise"), one.real("overlap")
        rows.append(
            (
                pair,
                fixed(None if overlap is None else 100 * overlap, 1),
                fixed(None if noise is None else 100 * noise, 1),
                fixed(one.real("mean_difference"), 3),
                f"{fixed(ours[0], 2)}, {fixed(ours[1], 2)}",
                f"{fixed(theirs[0], 2)}, {fixed(theirs[1], 2)}",
            )
        )
    columns = ("pair", "overlap, %", "of its halves, %", "mean |Δg|", "peak: r (Å), g", "of the reference")
    title = "g(r) beside the reference, and how far two halves of the reference overlap"
    return Table(title, columns, tuple(rows)) if rows else None


def _diffusion(record: Record) -> Table | None:
    rows = []
    corrected = record.record("diffusion").real("correction_A2_per_ps") is not None
    for name, one in _each(record.record("diffusion"), "species"):
        begin, end = one.reals("fit_ps")
        rows.append(
            (
                name,
                uncertain(one.real("D_A2_per_ps"), one.real("D_error_A2_per_ps")),
                uncertain(one.real("D_cm2_per_s"), one.real("D_error_cm2_per_s")),
                *([number(one.real("D_corrected_A2_per_ps"))] if corrected else []),
                f"{number(begin)} to {number(end)}",
                uncertain(one.real("exponent"), one.real("exponent_error")),
            )
        )
    wide = ("infinite box, Å²/ps",) if corrected else ()
    columns = ("element", "D, Å²/ps", "D, cm²/s", *wide, "fitted, ps", "exponent")
    blocks = record.record("diffusion").whole("blocks")
    return Table(f"Diffusion, errors from {blocks} blocks", columns, tuple(rows)) if rows else None


def uncertain(value: float | None, error: float | None) -> str:
    """A figure and its error with the digits that the error leaves: ``0.231 ± 0.012``, ``(2.3 ± 0.1)×10⁻⁵``."""
    if value is None or error is None:
        return number(value)
    if error <= 0.0 or not np.isfinite(error):
        return f"{number(value)} ± {number(error)}"
    size = int(np.floor(np.log10(max(abs(value), error))))
    if size < -3 or size > 5:
        inner = uncertain(value / 10.0**size, error / 10.0**size)
        return f"({inner}){number(10.0**size, 1).removeprefix('1')}"
    decimals = max(0, 1 - int(np.floor(np.log10(error))))
    return f"{fixed(value, decimals)} ± {fixed(error, decimals)}"


def _pairs(record: Record) -> Figure | None:
    found, reference = record.record("pairs"), record.record("reference")
    curves: list[Json] = []
    names = list(found.record("g").values)
    for i, pair in enumerate(names):
        colour = SERIES[i % len(SERIES)]
        if pair in reference.record("g"):
            theirs = line(reference.reals("r_A"), reference.record("g").reals(pair), "reference", "@ink/40", 2.8)
            curves.append(theirs | {"showlegend": i == 0})
        curves.append(line(found.reals("r_A"), found.record("g").reals(pair), pair, colour, 1.6))
    if not curves:
        return None
    # a bond inside a molecule towers over what is of interest: cut where the rest ends
    outer = [values[found.reals("r_A") > 1.5] for pair in names for values in (found.record("g").reals(pair),)]
    top = max((float(np.nanmax(values)) for values in outer if values.size), default=1.0)
    tallest = max(float(np.nanmax(found.record("g").reals(pair))) for pair in names)
    look = layout(axis("r (Å)"), axis("g(r)", span=(0.0, 1.15 * (top if tallest > 2.5 * top else tallest))))
    look |= {"showlegend": len(curves) > 1, "shapes": [reference_line(1.0)]}
    note = f"{plural(found.whole('frames') or 0, 'frame')}" + (
        f"; grey: {plural(reference.whole('frames') or 0, 'reference frame')}" if reference.values else ""
    )
    return Figure("trajectory-pairs", "Pair distribution", note, curves, look)


def _structure(record: Record) -> Figure | None:
    found = record.record("structure")
    q = found.reals("q_per_A")
    if not q.size:
        return None
    partial = found.record("faber_ziman")
    curves = []
    if len(partial.values) > 1:
        curves = [
            line(q, partial.reals(pair), pair, SERIES[(i + 1) % len(SERIES)], 1.1)
            for i, pair in enumerate(partial.values)
        ]
    curves.append(line(q, found.reals("total"), "all atoms alike", "@ink", 1.8))
    look = layout(axis("q (1/Å)"), axis("S(q)"))
    look |= {"showlegend": len(curves) > 1, "shapes": [reference_line(1.0)]}
    return Figure("trajectory-structure", "Structure factor", "partials of Faber and Ziman", curves, look)


def _displacements(record: Record) -> Figure | None:
    found = record.record("diffusion")
    lag = found.reals("lag_ps")
    curves: list[Json] = []
    highest, lowest = 0.0, np.inf
    for i, (name, one) in enumerate(_each(found, "species")):
        colour, msd = SERIES[i % len(SERIES)], one.reals("msd_A2")
        curves.append(line(lag[1:], positive(msd[1:]), name, colour, 1.8))  # no place for lag zero on this axis
        if (msd > 0).any():
            highest, lowest = max(highest, float(msd.max())), min(lowest, float(msd[msd > 0].min()))
        begin, end = one.reals("fit_ps")
        inside = (lag >= begin - 1e-9) & (lag <= end + 1e-9)
        D = one.real("D_A2_per_ps")
        if D is not None and inside.any():
            fit = msd[inside].mean() + 6.0 * D * (lag[inside] - lag[inside].mean())
            style = line(lag[inside], positive(fit), f"{name}, fit", "@ink", 1.6, "dash")
            curves.append(style | {"showlegend": i == 0, "name": "fit, 6 D t + c"})
    if not curves or highest == 0.0:
        return None
    look = layout(
        axis("time between two looks (ps)", log_over=lag[lag > 0]),
        axis("mean-square displacement (Å²)", log_over=np.array([lowest, highest])),
    )
    look["showlegend"] = True
    return Figure("trajectory-msd", "Mean-square displacement", "dashed: the window of the fit", curves, look)


def _vibrations(record: Record) -> Figure | None:
    found = record.record("velocities")
    nu = found.reals("frequency_per_cm")
    if not nu.size:
        return None
    named = [*_each(found, "species"), ("all", found.record("total"))]
    if len(named) == 2:
        named = named[:1]
    curves, last = [], nu[-1]
    for i, (name, one) in enumerate(named):
        dos = one.reals("dos_per_THz")
        colour = "@ink" if name == "all" else SERIES[i % len(SERIES)]
        curves.append(line(nu, dos, name, colour, 1.6, "dot" if name == "all" else "solid"))
    total = found.record("total").reals("dos_per_THz")
    if (total > 0).any():
        last = HIGHEST * nu[np.flatnonzero(total > VISIBLE * total.max())[-1]]
    look = layout(axis("wavenumber (cm⁻¹)", span=(0.0, float(last))), axis("density of states (1/THz)"))
    look["showlegend"] = len(curves) > 1
    source = "momenta" if found.text("source") == "momenta" else "displacements between frames"
    note = f"from {source}; a sharp line is {number(found.real('resolution_THz'), 2)} THz wide"
    return Figure("trajectory-vibrations", "Vibrations", note, curves, look)


def _correlation(record: Record) -> Figure | None:
    found = record.record("velocities")
    lag = found.reals("lag_ps")
    if not lag.size:
        return None
    curves = [
        line(lag, one.reals("vacf"), name, SERIES[i % len(SERIES)], 1.6)
        for i, (name, one) in enumerate(_each(found, "species"))
    ]
    early = float(lag[-1]) if lag[-1] < 0.5 else 0.5
    look = layout(axis("time (ps)", span=(0.0, early)), axis("⟨v(0)·v(t)⟩ / ⟨v²⟩"))
    look |= {"showlegend": len(curves) > 1, "shapes": [reference_line(0.0)]}
    return Figure("trajectory-vacf", "Velocity autocorrelation", "", curves, look)


def _each(record: Record, key: str) -> list[tuple[str, Record]]:
    """The nested objects of an entry by name."""
    inner = record.record(key)
    return [(name, inner.record(name)) for name in inner.values]
