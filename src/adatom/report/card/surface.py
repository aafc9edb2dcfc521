"""Surface energies on a property card."""

from __future__ import annotations

from adatom.report.card.section import Section, Table
from adatom.report.card.vacancy import beside
from adatom.report.format import MISSING, THIN, fixed
from adatom.report.record import Record


def section(record: Record) -> Section:
    """Energy of every cut; the best of each plane stands above."""
    cuts = record.records("cuts")
    best: dict[str, float] = {}
    for cut in cuts:
        value = _value(cut)
        if value is not None:
            best[cut.text("name")] = min(best.get(cut.text("name"), value), value)
    facts = tuple((f"γ {name}", f"{fixed(value, 3)}{THIN}J/m²") for name, value in best.items())
    rows = tuple(
        (
            _name(cut, cuts), fixed(cut.real("unrelaxed_J_per_m2"), 3), fixed(cut.real("relaxed_J_per_m2"), 3),
            "alike" if cut.flag("alike") else "differ", fixed(cut.whole("atoms"), 0),
            fixed(cut.real("thickness_A"), 1), fixed(cut.real("area_A2"), 2),
        )
        for cut in cuts
    )  # fmt: skip
    columns = ("plane", "rigid, J/m²", "relaxed, J/m²", "sides", "atoms", "thick, Å", "area, Å²")
    thinnest = min((cut.real("thickness_A") or 0.0 for cut in cuts), default=None)
    subtitle = (
        f"{record.text('space_group')}; slabs of {fixed(thinnest, 1) if thinnest else MISSING} Å and more, "
        f"{fixed(record.real('vacuum_A'), 1)} Å of vacuum; mean of both sides, 1 × 1 cells: no reconstruction"
    )
    figure = beside(
        "surfaces", "Surface energy", "γ (J/m²)", [_name(cut, cuts) for cut in cuts],
        [cut.real("unrelaxed_J_per_m2") for cut in cuts], [cut.real("relaxed_J_per_m2") for cut in cuts],
    )  # fmt: skip
    return Section(
        "surface", "Surfaces", subtitle, facts, tuple(record.texts("warnings")), (Table("Cuts", columns, rows),),
        (figure,) if cuts else (),
    )  # fmt: skip


def _name(cut: Record, cuts: list[Record]) -> str:
    """As in ``(1 1 1) b`` where a plane can be cut in several places."""
    name = cut.text("name")
    several = sum(other.text("name") == name for other in cuts) > 1
    return f"{name} {chr(ord('a') + (cut.whole('cut') or 0))}" if several else name


def _value(cut: Record) -> float | None:
    relaxed = cut.real("relaxed_J_per_m2")
    return cut.real("unrelaxed_J_per_m2") if relaxed is None else relaxed
