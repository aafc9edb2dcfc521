"""A reaction path on a property card."""

from __future__ import annotations

import numpy as np

from adatom.errors import DataError
from adatom.report.card.section import Section, Table
from adatom.report.figure import Figure, Json, axis, layout, line, plain, reference_line
from adatom.report.format import THIN, fixed, number, plural
from adatom.report.record import Record


def section(record: Record) -> Section:
    """Barriers and the energy along the path."""
    s, e = record.reals("distance_A"), record.reals("path_energy_eV")
    slopes = record.reals("slope_eV_per_A")
    if s.size == 0 or not s.shape == e.shape == slopes.shape:
        raise DataError(
            "distances, energies and slopes of a path do not pair up", where=record.where,
            wanted="one of each for every image", got=f"{s.size}, {e.size} and {slopes.size}",
            remedy="write it anew with adatom neb",
        )  # fmt: skip
    done = record.flag("converged")
    facts = []
    for key, name in (
        ("barrier_forward_eV", "Barrier forward"),
        ("barrier_backward_eV", "Barrier backward"),
        ("reaction_energy_eV", "Reaction energy"),
    ):
        value = record.real(key)
        if value is not None:
            facts.append((name, f"{fixed(value, 3)}{THIN}eV"))
    facts.append(("Length of the path", f"{fixed(float(s[-1]), 2)}{THIN}Å"))
    warnings = []
    if not done:
        warnings.append(
            f"not converged after {record.whole('steps')} steps: pulls of {number(record.real('fmax_eV_per_A'))} eV/Å, "
            f"{number(record.real('wanted_fmax_eV_per_A'))} wanted. The height of this path is no barrier"
        )
    dips = record.reals("intermediates")
    if dips.size:
        named = ", ".join(str(int(k)) for k in dips)
        warnings.append(f"the path dips at image {named}: another minimum; seek it in parts, one barrier at a time")
    climbing = record.whole("climbing")
    count = len(s) - 2
    subtitle = f"nudged elastic band of {plural(count, 'image')} between the ends"
    subtitle += f", image {climbing} climbed" if climbing is not None else ", none climbed"
    if done:
        subtitle += (
            f"; pulls below {number(record.real('wanted_fmax_eV_per_A'))} eV/Å after {record.whole('steps')} steps"
        )
    rows = tuple(
        (str(k), fixed(float(a), 3), fixed(float(b), 4), fixed(float(c), 3))
        for k, (a, b, c) in enumerate(zip(s, e, slopes, strict=True))
    )
    table = Table("Images", ("", "distance, Å", "energy, eV", "slope, eV/Å"), rows)
    return Section("neb", "Reaction path", subtitle, tuple(facts), tuple(warnings), (table,), (_figure(record, s, e),))


def _figure(record: Record, s: np.ndarray, e: np.ndarray) -> Figure:
    """Images, and the cubic through their energies and slopes; dashed where it is no path of least energy yet."""
    done = record.flag("converged")
    curve = line(
        record.reals("curve_distance_A"),
        record.reals("curve_energy_eV"),
        "path",
        "@blue",
        2.0,
        "solid" if done else "dash",
    )
    images: Json = {
        "type": "scatter", "mode": "markers", "name": "images", "x": plain(s), "y": plain(e),
        "marker": {"color": "@blue", "size": 8, "line": {"color": "@page", "width": 1.5}},
        "hovertemplate": "%{x:.2f} Å: %{y:.3f} eV<extra></extra>",
    }  # fmt: skip
    look = layout(axis("distance along the path (Å)"), axis("energy (eV)"), hover="closest")
    look |= {"shapes": [reference_line(0.0)]}
    note = "spline through energies and forces" + ("" if done else "; not converged")
    return Figure("neb", "Energy along the path", note, [curve, images], look, "wide")
