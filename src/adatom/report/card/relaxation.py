"""A relaxation on a property card."""

from __future__ import annotations

import numpy as np

from adatom.report.card.section import Section
from adatom.report.figure import Figure, axis, layout, line, positive, reference_line
from adatom.report.format import THIN, fixed, number, plural
from adatom.report.record import Record

STILL = 1e-7  # eV/Å, GPa: zero by symmetry


def section(record: Record) -> Section:
    """Where it ended, and the way there."""
    history, settings = record.record("history"), record.record("settings")
    done = record.flag("converged")
    facts = [
        ("Energy", f"{fixed(record.real('energy_eV'), 4)}{THIN}eV"),
        ("Converged", "yes" if done else "no"),
        ("Largest force left", f"{number(record.real('fmax_eV_per_A'), 2)}{THIN}eV/Å"),
    ]
    if record.real("smax_GPa") is not None:
        facts.append(("Largest stress left", f"{number(record.real('smax_GPa'), 2)}{THIN}GPa"))
    before, after = record.text("space_group_before"), record.text("space_group_after")
    if before or after:
        facts.append(("Space group", after if before == after else f"{before or 'none'} → {after or 'none'}"))
    what = "atoms and cell" if settings.flag("cell") else "atoms"
    kept = ", the symmetry kept" if settings.flag("symmetry") else ""
    warnings = () if done else (
        f"not converged after {plural(record.whole('steps') or 0, 'step')}: this structure is no minimum",
    )  # fmt: skip
    subtitle = f"{what}{kept}; {settings.text('optimizer')}, {plural(record.whole('steps') or 0, 'step')}"
    return Section("relaxation", "Relaxation", subtitle, tuple(facts), warnings, (), _figures(history, settings))


def _figures(history: Record, settings: Record) -> tuple[Figure, ...]:
    energy, force, stress = (history.reals(key) for key in ("energy_eV", "fmax_eV_per_A", "smax_GPa"))
    if energy.size < 2:
        return ()
    step = np.arange(energy.size, dtype=np.float64)
    above = line(step, 1e3 * (energy - energy[-1]), "energy", "@blue", 2.0)
    figures = [
        Figure("relaxation-energy", "Energy above the last", "", [above], layout(axis("step"), axis("meV"))),
        _towards("relaxation-force", "Largest force", "force", "eV/Å", "@orange", force, settings.real("fmax")),
    ]
    if settings.flag("cell"):
        wanted = settings.real("smax_GPa")
        figures.append(_towards("relaxation-stress", "Largest stress", "stress", "GPa", "@green", stress, wanted))
    return tuple(figure for figure in figures if figure is not None)


def _towards(
    name: str, title: str, what: str, unit: str, color: str, values: np.ndarray, wanted: float | None
) -> Figure | None:
    """A quantity on its way to zero; None where symmetry keeps it there all the time."""
    if values.max(initial=0.0) < STILL:
        return None
    shown = positive(np.where(values < STILL, np.nan, values))
    look = layout(axis("step"), axis(f"{what} ({unit})", log_over=shown))
    if wanted is not None:
        look["shapes"] = [reference_line(wanted)]
    curve = line(np.arange(values.size, dtype=np.float64), shown, what, color, 2.0)
    return Figure(name, title, "dashed: what was asked for", [curve], look)
