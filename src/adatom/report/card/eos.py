"""Energy against volume on a property card."""

from __future__ import annotations

from adatom.report.card.section import Section, Table
from adatom.report.energy_volume import CONSTANTS, energy_volume_figure
from adatom.report.format import THIN, fixed, number
from adatom.report.load import energy_volume_curves
from adatom.report.record import Record

FACTS = (
    "lattice_constant_A",
    "B0_GPa",
    "B0_prime",
    "V0_A3_per_atom",
    "E0_eV_per_atom",
)  # the first stands above a card


def section(record: Record) -> Section:
    """Points and fit of an equation of state."""
    curves = tuple(energy_volume_curves(record))
    figure = energy_volume_figure(curves)
    fit = curves[0].fit
    known = {key: (name, unit, decimals) for key, name, unit, decimals in CONSTANTS}
    facts = []
    for key in FACTS:
        value = fit.real(key)
        if value is not None:
            name, unit, decimals = known[key]
            facts.append((name, f"{fixed(value, decimals)}{THIN}{unit}".rstrip(THIN)))
    rms = fit.real("rms_meV_per_atom")
    rows = tuple((fixed(v, 4), fixed(e, 6)) for v, e in zip(curves[0].volume, curves[0].energy, strict=True))
    return Section(
        "eos",
        "Equation of state",
        f"third-order Birch-Murnaghan fit of {len(rows)} volumes" + (f", {number(rms)} meV/atom off" if rms else ""),
        tuple(facts),
        (),
        (Table("Points", ("volume, Å³/atom", "energy, eV/atom"), rows),),
        () if figure is None else (figure,),
    )
