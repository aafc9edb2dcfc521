"""A relaxation on a property card."""

from __future__ import annotations

import numpy as np

from adatom.report.card.section import Section
from adatom.report.figure import Figure, axis, layout, line, positive, reference_line
from adatom.report.format import THIN, fixed, number, plural
from adatom.report.record import Record


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
    energy, force = history.reals("energy_eV"), history.reals("fmax_eV_per_A")
    if energy.size < 2:
        return ()
    step = np.arange(energy.size, dtype=np.float64)
    above = 1e3 * (energy - energy[-1])
    shown = positive(force)
    look = layout(axis("step"), axis("largest force (eV/Å)", log_over=shown))
    wanted = settings.real("fmax")
    if wanted is not None:
        look["shapes"] = [reference_line(wanted)]
    return (
        Figure(
            "relaxation-energy", "Energy above the last", "", [line(step, above, "energy", "@blue", 2.0)],
            layout(axis("step"), axis("meV")),
        ),
        Figure(
            "relaxation-force", "Largest force", "dashed: what was asked for",
            [line(step, shown, "force", "@orange", 2.0)], look,
        ),
    )  # fmt: skip
