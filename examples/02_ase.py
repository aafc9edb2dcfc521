"""ASE: relax a crystal, the vibrations of an atom in it, and the path of a vacancy from one site to the next.

    python examples/02_ase.py model.adatom crystal.cif
    python examples/02_ase.py seed1.adatom seed2.adatom crystal.cif      # a committee: its spread is printed too

Everything that ASE can do goes through ``atoms.calc``; a committee is a calculator as well.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ase
import ase.io
import numpy as np
from ase.calculators.calculator import BaseCalculator
from ase.mep import NEB
from ase.optimize import FIRE
from ase.vibrations import Vibrations

import adatom


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, help="one model file, or several of a committee")
    parser.add_argument("structure", type=Path, help="a crystal, anything ASE reads")
    parser.add_argument("--folder", type=Path, default=Path("runs/ase"), help="of the displaced geometries")
    parser.add_argument("--images", type=int, default=5, help="of the path, its ends included")
    options = parser.parse_args(arguments)

    calculator: BaseCalculator = (
        adatom.Calculator(options.models[0]) if len(options.models) == 1 else adatom.Committee(options.models)
    )
    crystal = adatom.relax(ase.io.read(options.structure), calculator, cell=True, fmax=0.005).require_converged().atoms
    print(f"relaxed    {crystal.get_potential_energy() / len(crystal):.4f} eV per atom")

    frequencies = vibrations_of(crystal, 0, calculator, options.folder)
    print("vibrations " + ", ".join(f"{f:.0f}" for f in frequencies) + " cm^-1 of one atom, all others at rest")

    path = vacancy_path(crystal, calculator, options.images)
    energies = np.array([image.get_potential_energy() for image in path])
    energies -= energies[0]
    print("path       " + ", ".join(f"{e:.3f}" for e in energies) + f" eV: barrier {energies.max():.3f} eV")
    figures = {"frequency_cm": float(frequencies[0]), "barrier_eV": float(energies.max())}
    if isinstance(calculator, adatom.Committee):
        saddle = path[int(energies.argmax())]
        saddle.get_forces()
        figures["forces_std"] = float(calculator.results["forces_std"].max())
        print(f"committee  forces at the saddle are {1e3 * figures['forces_std']:.0f} meV/Å apart at most")
    return figures


def vibrations_of(crystal: ase.Atoms, atom: int, calculator: BaseCalculator, folder: Path) -> np.ndarray:
    """Frequencies of one atom in cm^-1; an imaginary one comes out negative."""
    system = crystal.copy()
    system.calc = calculator
    folder.mkdir(parents=True, exist_ok=True)
    vibrations = Vibrations(system, indices=[atom], name=str(folder / "vibrations"))
    vibrations.clean()  # of an earlier run
    vibrations.run()
    waves = vibrations.get_frequencies()
    return waves.real - waves.imag


def vacancy_path(crystal: ase.Atoms, calculator: BaseCalculator, count: int) -> list[ase.Atoms]:
    """The path of lowest energy of an atom into the vacancy beside it."""
    repeats = [max(1, round(9.0 / length)) for length in crystal.cell.lengths()]
    block = crystal.repeat(repeats)
    nearest = int(np.argsort(block.get_distances(0, range(len(block)), mic=True))[1])
    start = block.copy()
    start.positions[nearest] += block.get_distance(nearest, 0, mic=True, vector=True)  # the ends differ by one hop
    ends = []
    for atoms in (block, start):
        image = atoms.copy()
        del image[0]
        ends.append(adatom.relax(image, calculator, fmax=0.02).require_converged().atoms)
    images = [ends[0], *(ends[0].copy() for _ in range(count - 2)), ends[1]]
    band = NEB(images, climb=True, method="improvedtangent", allow_shared_calculator=True)
    band.interpolate(mic=True)
    for image in images:
        image.calc = calculator
    FIRE(band, logfile=None).run(fmax=0.05, steps=200)
    return images


if __name__ == "__main__":
    main()
