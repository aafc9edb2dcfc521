"""Vibrations of a molecule on a property card."""

from __future__ import annotations

import numpy as np

from adatom.errors import DataError
from adatom.report.card.section import Section, Table
from adatom.report.figure import Figure, Json, axis, layout, line, plain
from adatom.report.format import THIN, fixed, number, plural
from adatom.report.record import Record

WIDTH = 10.0  # cm^-1, half width of a line as drawn
MDYN_PER_A = 0.1602177  # of 1 eV/Å^2
J_PER_MOL = 96485.332  # of 1 eV
SHAPES = {
    "atom": "an atom",
    "line": "a linear molecule: translations and two rotations projected out",
    "body": "a molecule: translations and rotations projected out",
    "held": "some atoms held: nothing projected out",
    "periodic": "a periodic structure, zone centre: translations projected out",
}


def section(record: Record) -> Section:
    """Frequencies, spectrum, and thermochemistry where there is one."""
    nu = record.reals("frequency_per_cm")
    masses, constants = record.reals("reduced_mass_amu"), record.reals("force_constant_eV_per_A2")
    if not nu.shape == masses.shape == constants.shape:
        raise DataError(
            "frequencies, masses and force constants do not pair up", where=record.where,
            wanted="one of each for every mode", got=f"{nu.size}, {masses.size} and {constants.size}",
            remedy="write it anew with adatom vibrations",
        )  # fmt: skip
    intensities = record.reals("infrared_km_per_mol")
    facts = [("Zero-point energy", f"{fixed(record.real('zero_point_eV'), 4)}{THIN}eV")]
    if nu.size:
        facts.append(("Frequencies", f"{_wavenumber(float(nu[0]))} to {_wavenumber(float(nu[-1]))}{THIN}cm⁻¹"))
    heats = record.records("thermochemistry")
    standard = record.record("standard")
    if standard.values:
        where = f"{number(standard.real('temperature_K'), 5)} K, {number(standard.real('pressure_bar'))} bar"
        entropy = standard.real("entropy_eV_per_K") or 0.0
        facts += [
            (f"Enthalpy H, {where}", f"{fixed(standard.real('enthalpy_eV'), 4)}{THIN}eV"),
            (f"Entropy S, {where}", f"{fixed(J_PER_MOL * entropy, 2)}{THIN}J/mol/K"),
            (f"Gibbs energy G, {where}", f"{fixed(standard.real('gibbs_eV'), 4)}{THIN}eV"),
            ("Symmetry number", fixed(standard.whole("symmetry_number"), 0)),
            ("Multiplicity", fixed(standard.whole("multiplicity"), 0)),
        ]
    imaginary = int((nu < 0.0).sum())
    warnings = []
    if imaginary:
        kind = "a transition state has one" if imaginary == 1 else "neither a minimum nor a transition state"
        warnings.append(f"{plural(imaginary, 'imaginary mode')}: {kind}")
    rows: list[tuple[str, ...]] = []
    for k in range(nu.size):
        constant = fixed(MDYN_PER_A * float(constants[k]), 3)
        row = (str(k + 1), _wavenumber(float(nu[k])), fixed(float(masses[k]), 3), constant)
        rows.append((*row, fixed(float(intensities[k]), 1)) if intensities.size == nu.size else row)
    columns: tuple[str, ...] = ("mode", "cm⁻¹", "reduced mass, amu", "force constant, mdyn/Å")
    if nu.size and intensities.size == nu.size:
        columns = (*columns, "infrared, km/mol")
    subtitle = (
        f"{plural(nu.size, 'mode')} of {plural(record.whole('moving') or 0, 'moving atom')}; "
        f"{SHAPES.get(record.text('shape'), record.text('shape'))}; "
        f"forces below {number(record.real('fmax_eV_per_A'), 2)} eV/Å"
    )
    figures = [figure for figure in (_spectrum(nu, intensities), _heat(heats)) if figure is not None]
    return Section(
        "vibrations", "Vibrations", subtitle, tuple(facts), tuple(warnings), (Table("Modes", columns, tuple(rows)),),
        tuple(figures),
    )  # fmt: skip


def _wavenumber(nu: float) -> str:
    """Imaginary ones are marked."""
    return f"{fixed(-nu, 1)}i" if nu < 0.0 else fixed(nu, 1)


def _spectrum(nu: np.ndarray, intensities: np.ndarray) -> Figure | None:
    """Lines of equal strength, or of their infrared intensities."""
    real = nu > 0.0
    if not real.any():
        return None
    infrared = intensities.size == nu.size
    strength = intensities[real] if infrared else np.ones(int(real.sum()))
    at = np.linspace(0.0, 1.08 * float(nu.max()), 1200)
    shapes = WIDTH / np.pi / ((at[:, None] - nu[real]) ** 2 + WIDTH**2)
    sticks = np.array([[place, place, np.nan] for place in nu[real]]).ravel()
    height = float((shapes @ strength).max())
    foot = np.array([[0.0, -0.06 * height, np.nan]] * int(real.sum())).ravel()
    marks: Json = {
        "type": "scatter", "mode": "lines", "name": "modes", "x": plain(sticks), "y": plain(foot),
        "line": {"color": "@orange", "width": 1.5}, "hoverinfo": "skip",
    }  # fmt: skip
    title = "absorption (km/mol · cm)" if infrared else "density of modes (per cm⁻¹)"
    look = layout(axis("wavenumber (cm⁻¹)"), axis(title), hover="closest")
    name = "Infrared spectrum" if infrared else "Spectrum of modes"
    curve = line(at, shapes @ strength, "spectrum", "@blue")
    return Figure("vibrations", name, f"each mode a line of half width {WIDTH:g} cm⁻¹", [curve, marks], look, "wide")


def _heat(heats: list[Record]) -> Figure | None:
    """Enthalpy, entropy and Gibbs energy against temperature, above the energy at rest."""
    if len(heats) < 2:
        return None

    def column(key: str) -> np.ndarray:
        return np.array([np.nan if (value := row.real(key)) is None else value for row in heats])

    t, energy = column("temperature_K"), column("energy_eV")
    series = (
        ("H − E", column("enthalpy_eV") - energy, "@orange"),
        ("T S", t * column("entropy_eV_per_K"), "@green"),
        ("G − E", column("gibbs_eV") - energy, "@blue"),
    )
    look = layout(axis("temperature (K)"), axis("energy (eV)")) | {"showlegend": True}
    traces = [line(t, values, name, color) for name, values, color in series]
    pressure = heats[0].real("pressure_bar")
    return Figure("thermochemistry", "Thermochemistry", f"ideal gas at {number(pressure)} bar", traces, look)
