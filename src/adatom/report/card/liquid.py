"""Density and heat of vaporisation on a property card."""

from __future__ import annotations

import numpy as np

from adatom.report.card.section import Section, Table
from adatom.report.card.trajectory import uncertain
from adatom.report.figure import Figure, axis, layout, line, reference_line
from adatom.report.format import MISSING, THIN, number, plural, tidy
from adatom.report.record import Record

KJ_PER_MOL = 96.485332  # of 1 eV
MEANS = (
    ("volume_A3", "volume", "Å³"),
    ("energy_eV", "potential energy", "eV"),
    ("temperature_K", "temperature", "K"),
    ("pressure_GPa", "pressure", "GPa"),
)


def section(record: Record) -> Section:
    """Means with their errors, how the gas was found, and the run in time."""
    config = record.record("config")
    parts = (
        f"{record.whole('molecules')} {record.text('formula')}",
        f"{tidy(config.real('temperature_K'))}{THIN}K",
        f"{tidy(config.real('pressure_GPa'))}{THIN}GPa",
        f"{tidy(config.real('production_ps'))}{THIN}ps after {tidy(config.real('equilibration_ps'))}{THIN}ps",
    )
    figures = (_density(record), _energy(record))
    return Section(
        "liquid",
        "Liquid",
        " · ".join(parts),
        tuple(_facts(record)),
        tuple(record.texts("warnings")),
        (_means(record),),
        tuple(figure for figure in figures if figure is not None),
    )


def _facts(record: Record) -> list[tuple[str, str]]:
    facts = [
        (
            "density",
            f"{uncertain(record.real('density_g_per_cm3'), record.real('density_error_g_per_cm3'))}{THIN}g/cm³",
        )
    ]
    heat = record.real("vaporisation_kJ_per_mol")
    if heat is not None:
        error = record.real("vaporisation_error_kJ_per_mol")
        facts.append(("heat of vaporisation", f"{uncertain(heat, error)}{THIN}kJ/mol"))
    gas = record.record("gas")
    if gas.values:
        facts.append(
            ("energy of a molecule in the gas", f"{uncertain(gas.real('energy_eV'), gas.real('error_eV'))} eV")
        )
        facts.append(("gas by", gas.text("by")))
    whole = record.record("integrity")
    torn, frames = whole.whole("torn_ever"), whole.whole("frames") or 0
    facts.append(("molecules broken apart", f"{torn} of {whole.whole('molecules')} in {plural(frames, 'frame')}"))
    return facts


def _means(record: Record) -> Table:
    rows = []
    for key, name, unit in MEANS:
        one = record.record(key)
        blocks = one.whole("blocks")
        rows.append(
            (
                f"{name}, {unit}",
                uncertain(one.real("value"), one.real("error")),
                number(one.real("correlation_ps"), 2),
                f"{blocks} of {number(one.real('block_ps'), 2)} ps" if blocks else MISSING,
                number(one.real("drift"), 2),
            )
        )
    columns = ("mean", "value", "correlation time, ps", "blocks", "drift between halves, errors")
    return Table("Means and their errors", columns, tuple(rows))


def _density(record: Record) -> Figure | None:
    series = record.record("series")
    time, density = series.reals("time_ps"), series.reals("density_g_per_cm3")
    mean = record.real("density_g_per_cm3")
    if not time.size or mean is None:
        return None
    begin = record.record("config").real("equilibration_ps") or 0.0
    late = time >= begin
    curves = [line(time, density, "density", "@blue/50", 1.0)]
    if late.sum() > 2:
        so_far = np.cumsum(density[late]) / np.arange(1, late.sum() + 1)
        curves.append(line(time[late], so_far, "mean so far", "@blue", 2.0))
    look = layout(axis("time (ps)"), axis("density (g/cm³)"))
    look |= {"shapes": [reference_line(mean)], "showlegend": len(curves) > 1}
    return Figure("liquid-density", "Density", f"means begin at {tidy(begin)} ps; dashed: the mean", curves, look)


def _energy(record: Record) -> Figure | None:
    series, count = record.record("series"), record.whole("molecules") or 1
    time, energy = series.reals("time_ps"), series.reals("energy_eV")
    mean = record.record("energy_eV").real("value")
    if not time.size or mean is None:
        return None
    change = KJ_PER_MOL * (energy - mean) / count
    look = layout(axis("time (ps)"), axis("E − ⟨E⟩ (kJ per mol of molecules)"))
    look["shapes"] = [reference_line(0.0)]
    return Figure("liquid-energy", "Potential energy", "", [line(time, change, "energy", "@orange", 1.0)], look)
