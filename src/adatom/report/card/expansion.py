"""Quasi-harmonic thermal expansion on a property card."""

from __future__ import annotations

import numpy as np

from adatom.report.card.section import Section, Table
from adatom.report.figure import Figure, axis, layout, line
from adatom.report.format import THIN, fixed
from adatom.report.record import Record

R = 8.314462618  # J/(mol K)
SHOWN = (0.0, 300.0, 600.0, 1000.0)  # K


def section(record: Record) -> Section:
    """Lattice constant, expansion, bulk modulus and heat capacities against temperature."""
    t = record.reals("temperature_K")
    cell = record.record("supercell")
    static = record.record("static")
    room = min(300.0, float(t[-1])) if t.size else 0.0

    def at(key: str, temperature: float) -> float:
        return float(np.interp(temperature, t, record.reals(key))) if t.size else float("nan")

    facts = (
        (f"Expansion at {fixed(room, 0)} K (volume)", f"{fixed(1e6 * at('alpha_per_K', room), 2)}{THIN}10⁻⁶/K"),
        ("A third of it (length, if cubic)", f"{fixed(1e6 * at('alpha_per_K', room) / 3, 2)}{THIN}10⁻⁶/K"),
        (f"a at {fixed(room, 0)} K", f"{fixed(at('lattice_constant_A', room), 4)}{THIN}Å"),
        ("a at 0 K, zero-point motion included", f"{fixed(at('lattice_constant_A', 0.0), 4)}{THIN}Å"),
        (f"Bulk modulus at {fixed(room, 0)} K", f"{fixed(at('B_GPa', room), 1)}{THIN}GPa"),
        (f"Grüneisen parameter at {fixed(room, 0)} K", fixed(at("gruneisen", room), 2)),
    )
    subtitle = (
        f"{record.text('space_group')}; quasi-harmonic, {fixed(static.reals('volume_A3_per_atom').size, 0)} volumes, "
        f"the shape of the cell kept; supercells of {fixed(cell.whole('atoms'), 0)} atoms"
    )
    rows = tuple(
        (
            fixed(T, 0), fixed(at("lattice_constant_A", T), 4), fixed(at("volume_A3_per_atom", T), 3),
            fixed(1e6 * at("alpha_per_K", T), 2), fixed(at("B_GPa", T), 1), fixed(R * at("Cp_kB_per_atom", T), 2),
        )
        for T in SHOWN
        if t.size and t[-1] >= T
    )  # fmt: skip
    columns = ("T, K", "a, Å", "V, Å³/atom", "α, 10⁻⁶/K", "B, GPa", "C_p, J/(mol K)")
    return Section(
        "expansion", "Thermal expansion", subtitle, facts, tuple(record.texts("warnings")),
        (Table("At zero pressure", columns, rows),), _figures(record, t) if t.size > 1 else (),
    )  # fmt: skip


def _figures(record: Record, t: np.ndarray) -> tuple[Figure, ...]:
    warm = axis("temperature (K)")
    heat = layout(warm, axis("k_B per atom") | {"rangemode": "tozero"}) | {"showlegend": True}
    return (
        Figure(
            "expansion-volume", "Volume", "", [line(t, record.reals("volume_A3_per_atom"), "V", "@blue", 2.0)],
            layout(warm, axis("V (Å³/atom)")),
        ),
        Figure(
            "expansion-alpha", "Coefficient of expansion", "of the volume; a third of it is that of lengths, if cubic",
            [line(t, 1e6 * record.reals("alpha_per_K"), "α", "@orange", 2.0)], layout(warm, axis("α (10⁻⁶/K)")),
        ),
        Figure(
            "expansion-bulk", "Bulk modulus", "isothermal", [line(t, record.reals("B_GPa"), "B", "@green", 2.0)],
            layout(warm, axis("B (GPa)")),
        ),
        Figure(
            "expansion-heat", "Heat capacity", "",
            [
                line(t, record.reals("Cp_kB_per_atom"), "C_p", "@blue", 2.0),
                line(t, record.reals("Cv_kB_per_atom"), "C_V", "@purple", 1.6, "dash"),
            ],
            heat,
        ),
    )  # fmt: skip
