"""Dimer curves on a property card."""

from __future__ import annotations

import numpy as np

from adatom.errors import DataError
from adatom.report.card.section import Section, Table
from adatom.report.figure import SERIES, Figure, Json, axis, layout, line, positive, reference_line, thin
from adatom.report.format import MISSING, THIN, fixed, number, plural
from adatom.report.record import Record

DASHES = ("solid", "dash", "dot")  # as many curves as colours and dashes tell apart
POINTS = 240  # of a curve as drawn
ABOVE = 0.5  # of the depth of the deepest well: so much of the walls is shown beside it
STEEP, HIGHEST = 1.3, 3.0  # of the nearest that atoms may come, and eV: beyond, a wall is a wall


def section(record: Record) -> Section:
    """Wells, walls, and figures of smoothness of every pair."""
    pairs = record.records("pairs")
    curves = [(pair.text("pair"), *_curve(pair)) for pair in pairs]
    unsound = [pair for pair in pairs if _trouble(pair)]
    facts = [("Sound pairs", f"{len(pairs) - len(unsound)} of {len(pairs)}")]
    deepest = min(pairs, key=lambda pair: pair.record("well").real("energy_eV") or 0.0, default=None)
    depth = 0.0 if deepest is None else -(deepest.record("well").real("energy_eV") or 0.0)
    if deepest is not None and depth > 0.0:
        facts.append((f"Deepest well, {deepest.text('pair')}", f"{fixed(depth, 2)}{THIN}eV"))
    warnings = tuple(f"{pair.text('pair')}: {', '.join(_trouble(pair))}" for pair in unsound)
    inner = [pair.real("inner_A") or 0.0 for pair in pairs]
    figures = [figure for figure in (_wells(curves, inner), _walls(curves)) if figure is not None]
    reach = f"{number(record.real('contact_A'))} to {number(record.real('reach_A'))} Å"
    subtitle = f"{plural(len(pairs), 'pair')} of isolated atoms, {reach}; sound: repulsive nearer than dynamics allow, "
    return Section(
        "dimers",
        "Dimers",
        subtitle + "falling all the way to the well, no minimum nearer",
        tuple(facts),
        warnings,
        (_summary(pairs), _arena(pairs), _ranks(pairs)),
        tuple(figures),
    )


def _trouble(pair: Record) -> list[str]:
    """What is wrong with a curve, in words."""
    found = []
    if not pair.flag("repulsive"):
        found.append(f"not repulsive everywhere below {number(pair.real('inner_A'))} Å")
    found += [
        f"a hole at {fixed(hole.real('distance_A'), 2)} Å, {number(hole.real('depth_eV'), 2)} eV deep"
        for hole in pair.records("holes")
    ]
    if not pair.flag("smooth"):
        found.append("the energy does not fall all the way to the well")
    return found


def _summary(pairs: list[Record]) -> Table:
    rows = []
    for pair in pairs:
        well = pair.record("well")
        energy = well.real("energy_eV")
        rows.append((
            pair.text("pair"),
            fixed(well.real("distance_A"), 3),
            MISSING if energy is None else fixed(-energy, 3),
            fixed(pair.real("trained_A"), 3),
            "yes" if pair.flag("repulsive") else "no",
            "yes" if pair.flag("smooth") else "no",
            str(len(pair.records("holes"))),
        ))  # fmt: skip
    return Table("Curves", ("", "rₑ, Å", "Dₑ, eV", "nearest in data, Å", "repulsive", "smooth", "holes"), tuple(rows))


def _arena(pairs: list[Record]) -> Table:
    rows = []
    for pair in pairs:
        figures = pair.record("arena")
        rows.append((
            pair.text("pair"),
            fixed(figures.real("tortuosity"), 3),
            number(figures.real("energy_jump_eV"), 2),
            str(figures.whole("energy_flips") or 0),
            str(figures.whole("force_flips") or 0),
        ))  # fmt: skip
    columns = ("", "tortuosity", "energy jump, eV", "energy flips", "force flips")
    return Table("Smoothness from 0.9 covalent radii on, as MLIP Arena defines it", columns, tuple(rows))


def _ranks(pairs: list[Record]) -> Table:
    keys = ("repulsion_energy", "attraction_energy", "descending_force", "ascending_force")
    rows = [
        (pair.text("pair"), *(fixed(pair.record("arena").real(f"spearman_{key}"), 3) for key in keys)) for pair in pairs
    ]
    columns = ("", "ρ(E) inside", "ρ(E) outside", "ρ(F) inside", "ρ(F) outside")
    return Table("Spearman's ρ of energy and force with the distance, from the same on", columns, tuple(rows))


def _curve(pair: Record) -> tuple[np.ndarray, np.ndarray]:
    """Distances and energies of one pair; DataError when they do not pair up."""
    r, e = pair.reals("distance_A"), pair.reals("energy_eV")
    if r.shape != e.shape:
        raise DataError(
            "distances and energies do not pair up", where=pair.where, wanted="one energy for each distance",
            got=f"{r.size} distances, {e.size} energies", remedy="write it anew with adatom dimers",
        )  # fmt: skip
    kept = thin(r.size, POINTS)
    return r[kept], e[kept]


def _wells(curves: list[tuple[str, np.ndarray, np.ndarray]], inner: list[float]) -> Figure | None:
    """Energies where atoms may go; walls are cut where they rise beyond what is between, and half of the deepest well.

    ``inner`` is the nearest that atoms may come, of each curve.
    """
    if not curves:
        return None
    between = [e[r >= STEEP * near] for (_, r, e), near in zip(curves, inner, strict=True)]
    low = min(float(e.min(initial=0.0)) for e in between)
    top = min(max(float(e.max(initial=0.0)) for e in between), HIGHEST)
    size = max(-low, 0.2)
    span = (-1.1 * size, max(ABOVE * size, 1.1 * top))
    look = layout(axis("distance (Å)"), axis("energy (eV)", span=span))
    look |= {"showlegend": len(curves) > 1, "shapes": [reference_line(0.0)]}
    return Figure("dimers", "Dimers", "above the two atoms apart", _traces(curves, False), look)


def _walls(curves: list[tuple[str, np.ndarray, np.ndarray]]) -> Figure | None:
    """Repulsion down to contact, on a logarithmic scale: a gap is an energy below zero."""
    every = np.concatenate([np.zeros(0), *(e for _, _, e in curves)])
    shown = every[every > 0.01]
    if not shown.size:
        return None
    high = max(float(r[e > 0.01].max(initial=0.0)) for _, r, e in curves)
    look = layout(axis("distance (Å)", span=(0.0, 1.05 * high)), axis("energy (eV)", log_over=shown))
    look["yaxis"]["range"] = [-2.0, float(np.log10(shown.max())) + 0.2]
    look |= {"showlegend": len(curves) > 1}
    return Figure("dimer-walls", "Repulsion", "down to contact; gaps lie below zero", _traces(curves, True), look)


def _traces(curves: list[tuple[str, np.ndarray, np.ndarray]], logarithmic: bool) -> list[Json]:
    found = []
    for k, (name, r, e) in enumerate(curves[: len(SERIES) * len(DASHES)]):
        color, dash = SERIES[k % len(SERIES)], DASHES[k // len(SERIES)]
        found.append(line(r, positive(e) if logarithmic else e, name, color, dash=dash))
    return found
