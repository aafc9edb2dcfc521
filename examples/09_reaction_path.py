"""A reaction path: two minima, the band between them, and the proof that its top is a saddle.

    python examples/09_reaction_path.py model.adatom ammonia.xyz mirrored.xyz      # two ends, atoms in one order
    python examples/09_reaction_path.py model.adatom crystal.cif --vacancy         # a neighbour falls into a vacancy

The band runs as one batch of images per step. Its top is no saddle because it is the highest image: it is one when the
vibrations about it have exactly one imaginary mode, and that mode leads from one end to the other.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ase
import ase.io
import numpy as np
from ase.constraints import FixAtoms

from adatom.properties.neb import neb
from adatom.properties.vibrations import vibrations
from adatom.report.card.neb import section
from adatom.report.picture import write_figure
from adatom.report.record import Record

NEAR = 3.5  # Å from the atom that moves most: what vibrates when the saddle is examined


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("structures", nargs="+", type=Path, help="both ends, or a crystal with --vacancy")
    parser.add_argument("--vacancy", action="store_true")
    parser.add_argument("--images", type=int, default=5, help="between the ends")
    parser.add_argument("--folder", type=Path, default=Path("runs/path"), help="receives images and figure")
    options = parser.parse_args(arguments)

    structures = [ase.io.read(path) for path in options.structures]
    first, last = vacancy(structures[0]) if options.vacancy else structures
    path = neb(first, last, options.model, images=options.images, fmax=0.02).require_converged()
    print(f"barrier    {path.barrier_forward_eV:.3f} eV forward, {path.barrier_backward_eV:.3f} eV backward")

    top = path.saddle
    ways = np.linalg.norm(path.images[-1].positions - path.images[0].positions, axis=1)
    apart = top.get_distances(int(ways.argmax()), range(len(top)), mic=bool(top.pbc.any()))
    top.set_constraint(FixAtoms(np.flatnonzero(apart > NEAR)))
    found = vibrations(top, options.model, fmax=0.05)
    print(f"saddle     {found.imaginary} imaginary mode, {-found.frequencies_per_cm[0]:.0f}i cm^-1")

    options.folder.mkdir(parents=True, exist_ok=True)
    path.write(options.folder / "path.xyz")
    write_figure(section(Record(path.to_record(), "path")), options.folder / "path.png")
    return {
        "forward_eV": path.barrier_forward_eV or 0.0,
        "backward_eV": path.barrier_backward_eV or 0.0,
        "imaginary": found.imaginary,
    }


def vacancy(crystal: ase.Atoms) -> tuple[ase.Atoms, ase.Atoms]:
    """Two blocks of a crystal without an atom: without number 0, and with a neighbour fallen into its place."""
    block = crystal.repeat([max(1, round(9.0 / length)) for length in crystal.cell.lengths()])
    nearest = int(np.argsort(block.get_distances(0, range(len(block)), mic=True))[1])
    fallen = block.copy()
    fallen.positions[nearest] += block.get_distance(nearest, 0, mic=True, vector=True)
    del block[0], fallen[0]
    return block, fallen


if __name__ == "__main__":
    main()
