"""i-PI: nuclei as rings of beads. Starts i-PI and a client, and reports the quantum kinetic energy of each element.

    python examples/07_ipi.py water.adatom                      # one water molecule, 8 beads
    python examples/07_ipi.py water.adatom box.xyz --steps 5000 # a liquid

By hand, with the input.xml that is left in the folder, in two terminals there:

    i-pi input.xml
    adatom ipi water.adatom box.xyz --socket adatom
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ase.io
import numpy as np
from ase.build import molecule

import adatom
from adatom.sim.pimd import PathIntegralConfig, path_integral
from adatom.units import BOLTZMANN


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a model file")
    parser.add_argument("structure", type=Path, nargs="?", help="anything ASE reads; a water molecule by default")
    parser.add_argument("--beads", type=int, default=8)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--folder", type=Path, default=Path("runs/ipi"))
    options = parser.parse_args(arguments)

    atoms = molecule("H2O") if options.structure is None else ase.io.read(options.structure, -1)
    calculator = adatom.Calculator(options.model)
    start = adatom.relax(atoms, calculator, fmax=0.05, steps=100).atoms
    config = PathIntegralConfig(
        beads=options.beads, temperature_K=300.0, timestep_fs=0.5, steps=options.steps, log_every=2
    )
    result = path_integral(start, calculator, config, options.folder, overwrite=True)

    classical = 1.5e3 * BOLTZMANN * config.temperature_K
    print(f"{result.evaluations} geometries in {result.seconds:.1f} s, {result.time_ps[-1]:.3f} ps")
    figures = {}
    for element, series in result.kinetic_by_element_eV.items():
        later = series[len(series) // 5 :]  # after a first fifth
        figures[element] = 1e3 * float(np.mean(later)) / result.counts[element]
        print(f"{element:2s} {figures[element]:6.1f} meV per atom   (classical {classical:.1f})")
    return figures


if __name__ == "__main__":
    main()
