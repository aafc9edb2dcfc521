"""Crystals of silicon, lithium and molybdenum: what models trained on one set say of lattice, elasticity and phonons.

    python benchmarks/properties.py --data DIR --element Si --model runs/si/model.adatom --name MLANet-S --minutes 4
    ENV/bin/python benchmarks/properties.py --data DIR --element Si --mace model.pt --name MACE --minutes 4
    python benchmarks/properties.py --table

DIR holds ``mlearn_elements``. Models of another package live in environments of their own, where adatom is installed
too: every figure comes from the same functions. The reference is the DFT of the very set: lattice constant and elastic
constants are read off its strained cells (stress against strain, atoms that only scale with the cell: "clamped"), so
nothing but the fit of the models is compared. Each run adds its record to ``benchmarks/results/properties.json``;
``--table`` writes the table of docs/properties.md.
"""

from __future__ import annotations

import argparse
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ase
import numpy as np
from accuracy import append, commit
from ase.build import bulk
from ase.calculators.calculator import BaseCalculator

from adatom.data.read import Structure, read
from adatom.properties.crystal import at_rest
from adatom.properties.defects import vacancies
from adatom.properties.elastic import elastic
from adatom.properties.phonons import Phonons, phonons
from adatom.properties.surfaces import surfaces
from adatom.sim.calculator import Calculator
from adatom.units import EV_PER_A3_IN_GPA

RESULTS = Path(__file__).resolve().parent / "results" / "properties.json"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "properties.md"
CRYSTALS = {"Si": ("diamond", 5.45), "Li": ("bcc", 3.45), "Mo": ("bcc", 3.17)}
SMALL = 0.07  # strains beyond are left to higher orders than are fitted
BEGIN, END = "<!-- benchmarks/properties.py: begin -->", "<!-- end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--element", choices=sorted(CRYSTALS))
    parser.add_argument("--model", type=Path, help="a model file of adatom")
    parser.add_argument("--mace", type=Path, help="a model of mace-torch")
    parser.add_argument("--name", help="of the model, in the table")
    parser.add_argument("--minutes", type=float, help="of CPU time that it was trained for")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="write the table from the records, and no more")
    options = parser.parse_args()
    if options.table:
        write_table(options.results)
        return
    begin = time.process_time()
    record = measure(options.element, calculator(options))
    record |= {
        "element": options.element, "system": options.name, "minutes": options.minutes,
        "cpu_seconds": round(time.process_time() - begin, 1), "reference": reference(options.data, options.element),
        "versions": {name: version(name) for name in ("adatom", "torch", *(["mace-torch"] if options.mace else []))},
        "date": time.strftime("%Y-%m-%d %H:%M"), "commit": commit(),
    }  # fmt: skip
    append(options.results, record)
    print({key: record[key] for key in ("element", "system", "a_A", "clamped_GPa", "relaxed_GPa", "vacancy_eV")})


def calculator(options: argparse.Namespace) -> BaseCalculator:
    if options.model is not None:
        return Calculator(options.model)
    from mace.calculators import MACECalculator

    return MACECalculator(model_paths=[str(options.mace)], device="cpu", default_dtype="float32")


def measure(element: str, engine: BaseCalculator) -> dict[str, Any]:
    """Everything that is compared, of one model."""
    lattice, a = CRYSTALS[element]
    crystal = bulk(element, lattice, a=a, cubic=True)
    rest = at_rest(crystal, engine, 1e-3, 0.02)
    cubic = rest.atoms
    constants = elastic(cubic, engine)
    modes = phonons(cubic, engine)
    holes = vacancies(cubic, engine)
    planes = surfaces(cubic, engine, indices=((1, 0, 0), (1, 1, 0), (1, 1, 1)))
    return {
        "a_A": float(cubic.cell.lengths().mean()),
        "relaxed_GPa": constants.constants,
        "clamped_GPa": dict(zip(("C11", "C12", "C44"), _cubic(constants.clamped_GPa), strict=True)),
        "stable": constants.stable,
        "vacancy_eV": holes.sites[0].relaxed_eV,
        "vacancy_unrelaxed_eV": holes.sites[0].unrelaxed_eV,
        "surface": planes.to_record(),
        "phonons_THz": at_special_points(modes),
        "phonons_stable": modes.stable,
        "atoms_of_supercells": {"phonons": modes.supercell.to_record(), "vacancy": holes.supercell.to_record()},
    }


def _cubic(stiffness: np.ndarray) -> tuple[float, float, float]:
    diagonal, beside = np.diag(stiffness), [stiffness[0, 1], stiffness[0, 2], stiffness[1, 2]]
    return float(diagonal[:3].mean()), float(np.mean(beside)), float(diagonal[3:].mean())


def at_special_points(modes: Phonons) -> dict[str, list[float]]:
    """Frequencies, THz, at the ends of the segments of the path."""
    found: dict[str, list[float]] = {}
    for part in modes.segments:
        for name, place in ((part.start, 0), (part.end, -1)):
            found.setdefault(name, sorted(round(float(f), 3) for f in part.frequencies[place]))
    return found


def reference(data: Path, element: str) -> dict[str, float]:
    """Lattice constant (Å) and clamped elastic constants (GPa) of the DFT of the set, from its strained cells.

    C11 and C12 are the slopes, at no strain, of the stress as a polynomial of the strain along one axis. C44 is read
    off the energies, E = E0 + V [s : h + C44 g^2 / 2 + k g^4] with h = (F F^T - 1) / 2 and g twice its component off
    the diagonal: the labels of shear stress are not in one order in all sets (yz and xz are exchanged in molybdenum's).
    """
    frames: list[Structure] = []
    for part in ("train", "test"):
        found = read(data / "mlearn_elements" / element / f"{part}.xyz.xz")[0]
        frames += [s for s in found if s.config_type == "Elastic"]
    sizes = [len(s.atoms) for s in frames]
    frames = [s for s in frames if len(s.atoms) == max(set(sizes), key=sizes.count)]
    cube = min((s for s in frames if _is_cube(s.atoms)), key=lambda s: float(np.abs(s.stress).max()))
    cell = np.asarray(cube.atoms.cell)
    volume, still = cube.atoms.get_volume(), float(np.trace(cube.stress)) / 3
    pulls = [(0.0, still, still)]  # strain, stress along, stress across
    slides: list[
        tuple[float, float]
    ] = []  # slide, energy over that at rest by volume, less the work of the rest stress
    for s in frames:
        change = np.linalg.solve(cell, np.asarray(s.atoms.cell)) - np.eye(3)
        along, off = np.diag(change), change - np.diag(np.diag(change))
        axes = np.flatnonzero(np.abs(along) > 1e-4)
        if len(axes) == 1 and np.abs(off).max() < 1e-4 and abs(along[axes[0]]) < SMALL:
            k = int(axes[0])
            pulls.append((along[k], s.stress[k, k], (np.trace(s.stress) - s.stress[k, k]) / 2))
        green = 0.5 * ((np.eye(3) + change) @ (np.eye(3) + change).T - np.eye(3))
        slide = 2.0 * np.abs(green - np.diag(np.diag(green))).max()
        if 1e-3 < slide < 2 * SMALL:
            slides.append((slide, (s.energy - cube.energy) / volume - still * np.trace(green)))
    e, sigma, across = np.array(pulls).T
    gamma, work = np.array(slides).T
    degree = 3 if len(np.unique(e.round(4))) > 6 else 2
    c11, c12 = (float(np.polyfit(e, y, degree)[-2]) for y in (sigma, across))
    even = np.linalg.lstsq(np.stack([0.5 * gamma**2, gamma**4], axis=1), work, rcond=None)[0]
    repeats = round((len(cube.atoms) / (8 if element == "Si" else 2)) ** (1 / 3))
    a = float(cube.atoms.cell.lengths().mean()) / repeats
    constants = {"C11": c11, "C12": c12, "C44": float(even[0])}
    return {
        "a_A": a * (1 - still / (c11 + 2 * c12)), "cells": len(frames),
        **{name: EV_PER_A3_IN_GPA * value for name, value in constants.items()},
    }  # fmt: skip


def _is_cube(atoms: ase.Atoms) -> bool:
    six = atoms.cell.cellpar()
    return bool(np.ptp(six[:3]) < 1e-4 and np.allclose(six[3:], 90.0, atol=1e-3))


def write_table(results: Path) -> None:
    """The table of the page, from the last record of each element and system."""
    import json

    last: dict[tuple[str, str], dict[str, Any]] = {}
    for record in json.loads(results.read_text()):
        last[record["element"], record["system"]] = record
    lines = [
        "| | | a, Å | C11, C12, C44 clamped, GPa | relaxed | vacancy, eV | (100), (110), (111), J/m² | phonons, THz |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for element in CRYSTALS:
        rows = [record for (own, _), record in last.items() if own == element]
        if rows:
            known = rows[-1]["reference"]
            triple = ", ".join(f"{known[k]:.1f}" for k in ("C11", "C12", "C44"))
            lines.append(f"| {element} | DFT of the set | {known['a_A']:.4f} | {triple} | | | | |")
        for r in rows:
            clamped = ", ".join(f"{r['clamped_GPa'][k]:.1f}" for k in ("C11", "C12", "C44"))
            relaxed = ", ".join(f"{r['relaxed_GPa'][k]:.1f}" for k in ("C11", "C12", "C44"))
            vacancy = "–" if r["vacancy_eV"] is None else f"{r['vacancy_eV']:.2f}"
            lines.append(
                f"| {element} | {r['system']} | {r['a_A']:.4f} | {clamped} | {relaxed} | {vacancy} | "
                f"{_surfaces(r['surface'])} | {_modes(r['phonons_THz'])} |"
            )
    text = PAGE.read_text(encoding="utf-8")
    if BEGIN not in text:
        raise SystemExit(f"{PAGE} has no place for the table: {BEGIN}")
    head, rest = text.split(BEGIN)
    PAGE.write_text(head + BEGIN + "\n" + "\n".join(lines) + "\n" + END + rest.split(END, 1)[1], encoding="utf-8")
    print("\n".join(lines))


def _surfaces(record: dict[str, Any]) -> str:
    best: dict[str, float | None] = {}
    for cut in record["cuts"]:  # of the cuts of a plane the one of least energy
        energy, before = cut["relaxed_J_per_m2"], best.get(cut["name"])
        if cut["name"] not in best or (energy is not None and (before is None or energy < before)):
            best[cut["name"]] = energy
    return ", ".join("–" if energy is None else f"{energy:.2f}" for energy in best.values())


def _modes(points: dict[str, list[float]]) -> str:
    return "; ".join(f"{name} {', '.join(f'{f:.1f}' for f in sorted(set(np.round(values, 1))) if f > 0.05)}"
                     for name, values in points.items() if name in ("G", "Γ", "X", "L", "H", "N"))  # fmt: skip


if __name__ == "__main__":
    main()
