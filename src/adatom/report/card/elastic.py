"""Elastic tensor on a property card."""

from __future__ import annotations

import numpy as np

from adatom.errors import DataError
from adatom.report.card.section import Section, Table
from adatom.report.figure import SERIES, Figure, Json, plain
from adatom.report.format import THIN, fixed, number, plural
from adatom.report.record import Record

COMPONENTS = ("xx", "yy", "zz", "yz", "xz", "xy")
PAIRS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
X, Y, Z = np.eye(3)
PLANES = (("x to y", X, Y), ("x to z", X, Z), ("y to z", Y, Z))
DIAGONAL = ("[110] to z", (X + Y) / np.sqrt(2.0), Z)


def section(record: Record) -> Section:
    """Constants, moduli, both tensors, and Young's modulus by direction."""
    moduli, fit = record.record("moduli"), record.record("fit")
    stiffness, clamped, conventional = (
        tensor(record, key) for key in ("stiffness_GPa", "clamped_GPa", "conventional_GPa")
    )
    facts = (
        [(name, f"{fixed(value, 1)}{THIN}GPa") for name, value in record.record("constants_GPa").numbers().items()]
        if record.text("system") != "triclinic"
        else []
    )
    if moduli.values:
        facts += [
            ("Bulk modulus K (Hill)", f"{fixed(moduli.real('K_GPa'), 1)}{THIN}GPa"),
            ("Shear modulus G (Hill)", f"{fixed(moduli.real('G_GPa'), 1)}{THIN}GPa"),
            ("Young's modulus E", f"{fixed(moduli.real('E_GPa'), 1)}{THIN}GPa"),
            ("Poisson's ratio", fixed(moduli.real("nu"), 3)),
            ("Universal anisotropy", fixed(moduli.real("anisotropy"), 3)),
            ("Debye temperature (elastic)", f"{fixed(moduli.real('debye_K'), 0)}{THIN}K"),
        ]
    facts.append(("Stable (Born)", "yes" if record.flag("stable") else "no"))
    facts.append(
        ("Least eigenvalue", f"{fixed(float(record.reals('eigenvalues_GPa').min(initial=np.inf)), 1)}{THIN}GPa")
    )
    subtitle = (
        f"{record.text('space_group')}, {record.text('system')}; {plural(record.whole('points') or 0, 'strain')} of "
        f"each kind up to {100 * (record.real('strain') or 0.0):g} %, atoms at rest; constants in the axes of the "
        f"conventional cell; fit {number(fit.real('rms_GPa'), 2)} GPa rms"
    )
    tables = [Table("Stiffness C, GPa, axes of the conventional cell", ("", *COMPONENTS), rows(conventional))]
    if np.abs(stiffness - conventional).max() > 0.05:
        tables.append(Table("Stiffness C, GPa, axes of the structure given", ("", *COMPONENTS), rows(stiffness)))
    if np.abs(stiffness - clamped).max() > 0.05:
        title = "Atoms that only follow the cell (clamped), GPa, axes of the structure given"
        tables.append(Table(title, ("", *COMPONENTS), rows(clamped)))
    if moduli.values:
        tables.append(_averages(moduli))
    figure = _young(conventional, record.text("system")) if record.flag("stable") else None
    return Section(
        "elastic", "Elastic tensor", subtitle, tuple(facts), tuple(record.texts("warnings")), tuple(tables),
        () if figure is None else (figure,),
    )  # fmt: skip


def tensor(record: Record, key: str) -> np.ndarray:
    """A 6x6 matrix of a record; DataError for anything else."""
    try:
        found = np.array(record.values.get(key), dtype=np.float64)
    except (TypeError, ValueError):
        found = np.zeros(0)
    if found.shape != (6, 6):
        raise DataError(
            f"'{key}' is no elastic tensor", where=record.where, wanted="six rows of six numbers",
            got=f"an array of shape {found.shape}", remedy="write it anew with adatom elastic",
        )  # fmt: skip
    return found


def rows(stiffness: np.ndarray) -> tuple[tuple[str, ...], ...]:
    """A 6x6 matrix as rows of a table."""
    return tuple(
        (name, *(fixed(value if abs(value) > 0.05 else 0.0, 1) for value in line))
        for name, line in zip(COMPONENTS, stiffness, strict=True)
    )


def young_modulus(stiffness: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Young's modulus along unit vectors (D, 3), in the unit of the stiffness."""
    v = np.stack([directions[:, i] * directions[:, j] for i, j in PAIRS], axis=1)
    along: np.ndarray = 1.0 / np.einsum("di,ij,dj->d", v, np.linalg.inv(stiffness), v)
    return along


def _averages(moduli: Record) -> Table:
    def row(name: str, keys: tuple[str, ...], decimals: int = 1) -> tuple[str, ...]:
        return (name, *(fixed(moduli.real(key), decimals) for key in keys))

    return Table(
        "Polycrystal, GPa",
        ("", "Voigt", "Reuss", "Hill"),
        (
            row("bulk modulus K", ("K_voigt_GPa", "K_reuss_GPa", "K_GPa")),
            row("shear modulus G", ("G_voigt_GPa", "G_reuss_GPa", "G_GPa")),
        ),
    )


def _young(stiffness: np.ndarray, system: str) -> Figure:
    """Young's modulus in planes of the conventional axes; in a cubic crystal three of them are the same."""
    planes = (PLANES[0], DIAGONAL) if system == "cubic" else PLANES
    angles = np.linspace(0.0, 360.0, 181)
    traces: list[Json] = []
    peak, least = 0.0, np.inf
    for color, (name, first, second) in zip(SERIES, planes, strict=False):
        t = np.radians(angles)[:, None]
        values = young_modulus(stiffness, np.cos(t) * first + np.sin(t) * second)
        peak, least = max(peak, float(values.max())), min(least, float(values.min()))
        traces.append({
            "type": "scatterpolar", "mode": "lines", "name": name, "theta": plain(angles), "r": plain(values),
            "line": {"color": color, "width": 2.0},
            "hovertemplate": f"%{{theta:.0f}}°: %{{r:.4~g}} GPa<extra>{name}</extra>",
        })  # fmt: skip
    line = {"gridcolor": "@grid", "linecolor": "@line", "tickcolor": "@line"}
    look: Json = {
        "polar": {
            "bgcolor": "rgba(0,0,0,0)",
            "radialaxis": line | {"range": [0.0, 1.08 * peak], "angle": 90, "tickangle": 90, "nticks": 5},
            "angularaxis": line | {"dtick": 30},
        },
        "showlegend": True,
        "margin": {"l": 30, "r": 30, "t": 24, "b": 24},
    }
    spread = f"GPa, from the first axis (0°) to the second (90°); {fixed(least, 0)} to {fixed(peak, 0)}"
    return Figure("young", "Young's modulus", spread, traces, look, "parity")
