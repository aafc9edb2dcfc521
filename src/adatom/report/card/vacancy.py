"""Vacancy formation energies on a property card."""

from __future__ import annotations

from adatom.report.card.section import Section, Table
from adatom.report.figure import Figure, Json, axis, layout
from adatom.report.format import MISSING, THIN, fixed, plural
from adatom.report.record import Record


def section(record: Record) -> Section:
    """Formation energy of every kind of site."""
    sites = record.records("sites")
    cell = record.record("supercell")
    facts = tuple(
        (f"Vacancy of {site.text('element')}, {site.whole('multiplicity')} a cell", _energy(site.real("relaxed_eV")))
        for site in sites
    )
    rows = tuple(
        (
            site.text("site"), fixed(site.real("unrelaxed_eV"), 3), fixed(site.real("relaxed_eV"), 3),
            fixed(site.real("farthest_A"), 3), fixed(site.real("potential_eV"), 4),
            f"{fixed(site.whole('steps'), 0)}{'' if site.flag('converged') else ', not at rest'}",
        )
        for site in sites
    )  # fmt: skip
    columns = ("site", "unrelaxed, eV", "relaxed, eV", "longest way of an atom, Å", "μ, eV", "steps")
    subtitle = (
        f"{record.text('space_group')}; {plural(cell.whole('atoms') or 0, 'atom')} before, images "
        f"{fixed(cell.real('length_A'), 1)} Å apart, cell of the perfect crystal; μ: {record.text('reference')}"
    )
    return Section(
        "vacancy", "Vacancies", subtitle, facts, tuple(record.texts("warnings")),
        (Table("Formation energies", columns, rows),),
        (beside("vacancies", "Formation energy", "E (eV)", [s.text("site") for s in sites],
                [s.real("unrelaxed_eV") for s in sites], [s.real("relaxed_eV") for s in sites]),) if sites else (),
    )  # fmt: skip


def beside(
    name: str, title: str, unit: str, names: list[str], unrelaxed: list[float | None], relaxed: list[float | None]
) -> Figure:
    """Energies before and after relaxation, one place on the x axis for each name."""

    def points(label: str, values: list[float | None], marker: Json) -> Json:
        return {
            "type": "scatter", "mode": "markers", "name": label, "x": names, "y": values, "marker": marker,
            "hovertemplate": f"%{{y:.4~g}}<extra>{label}</extra>",
        }  # fmt: skip

    hollow = {"color": "@page", "size": 10, "line": {"color": "@muted", "width": 1.4}}
    known = [value for value in (*unrelaxed, *relaxed) if value is not None]
    span = (min(0.0, 1.15 * min(known, default=0.0)), 1.15 * max(known, default=1.0))
    look = layout(axis(""), axis(unit, span=span)) | {"showlegend": True}
    traces = [points("unrelaxed", unrelaxed, hollow), points("relaxed", relaxed, {"color": "@blue", "size": 9})]
    return Figure(name, title, "", traces, look)


def _energy(value: float | None) -> str:
    return MISSING if value is None else f"{fixed(value, 3)}{THIN}eV"
