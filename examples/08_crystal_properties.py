"""A crystal from its model: relaxed with its symmetry, elastic constants, phonons, expansion, a vacancy, surfaces.

    python examples/08_crystal_properties.py runs/mine/model.adatom si.cif --folder si_properties

Every property is a function that returns a frozen dataclass with its units in the names of its figures; ``to_record``
is plain JSON, and what ``adatom elastic`` and the others write with --json and --figure is made here by hand.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io

import adatom
from adatom.properties.defects import vacancies
from adatom.properties.elastic import elastic
from adatom.properties.expansion import expansion
from adatom.properties.phonons import phonons
from adatom.properties.surfaces import surfaces
from adatom.report.picture import write_figure
from adatom.report.properties import section_of, write_card
from adatom.report.record import Record


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """All of it; returns a few figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("structure", help="a crystal of one element, anything ASE reads")
    parser.add_argument("--folder", type=Path, default=Path("crystal"), help="receives records, pictures and a page")
    parser.add_argument(
        "--length", type=float, default=None, help="of supercells, Å; by default 12, or twice the cutoff"
    )
    parser.add_argument("--points", type=int, default=9, help="volumes for the thermal expansion")
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)

    calculator = adatom.Calculator(given.model)  # one for all: it keeps what it has compiled
    relaxed = adatom.relax(ase.io.read(given.structure), calculator, cell=True, symmetry=True).require_converged()
    print(f"space group {relaxed.space_group_after}, {relaxed.energy / len(relaxed.atoms):.4f} eV/atom")
    crystal = relaxed.atoms

    tensor = elastic(crystal, calculator)
    print("constants, GPa:", {name: round(value, 1) for name, value in tensor.constants.items()})
    assert tensor.moduli is not None, tensor.warnings  # an unstable crystal has none
    print(f"K {tensor.moduli.K_GPa:.1f} GPa, G {tensor.moduli.G_GPa:.1f} GPa, Debye {tensor.moduli.debye_K:.0f} K")

    lattice = phonons(crystal, calculator, length_A=given.length)
    free, entropy, heat = lattice.thermal.at(300.0)
    print(f"{len(lattice.supercell.atoms)} atoms displaced {lattice.displacements} times; stable: {lattice.stable}")
    print(f"at 300 K: F {1e3 * free:.1f} meV, S {entropy:.3f} k_B, C_V {heat:.3f} k_B per atom")

    warm = expansion(crystal, calculator, points=given.points, length_A=given.length, temperature_max_K=400.0)
    print(f"expansion at 300 K: {1e6 * warm.at(300.0)['alpha_per_K']:.1f} of a millionth per K")

    hole = vacancies(crystal, calculator, length_A=given.length)
    faces = surfaces(crystal, calculator, indices=[(1, 0, 0), (1, 1, 1)])
    for site in hole.sites:
        print(f"vacancy of {site.element}: {site.unrelaxed_eV:.3f} eV rigid, {site.relaxed_eV:.3f} eV relaxed")
    for cut in faces.best().values():
        print(f"surface {cut.name}: {cut.unrelaxed_J_per_m2:.3f} J/m² rigid, {cut.relaxed_J_per_m2:.3f} J/m² relaxed")

    for found in (relaxed, tensor, lattice, warm, hole, faces):
        record: dict[str, Any] = found.to_record() | {"model": str(given.model), "formula": str(crystal.symbols)}
        name = record["property"]
        (given.folder / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")
        write_figure(section_of(Record(record, name)), given.folder / f"{name}.png")
    print("page:", write_card(given.folder))
    return {
        "K_GPa": tensor.moduli.K_GPa,
        "C_V_kB": heat,
        "alpha_per_K": warm.at(300.0)["alpha_per_K"],
        "vacancy_eV": hole.sites[0].relaxed_eV or float("nan"),
        "surface_J_per_m2": min(cut.unrelaxed_J_per_m2 for cut in faces.cuts),
    }


if __name__ == "__main__":
    main()
