"""Structures of any size to measure on."""

from __future__ import annotations

import ase
import numpy as np
from ase.build import bulk, molecule


def silicon(*cells: int) -> ase.Atoms:
    """Rattled cubic cells."""
    atoms = bulk("Si", cubic=True) * (cells if len(cells) == 3 else cells * 3)
    atoms.rattle(0.05, seed=0)
    return atoms


def water(cells: int, molecules: int = 4) -> ase.Atoms:
    """Cells of ``molecules``^3 water molecules at 1 g/cm^3, turned at random; 192 atoms each."""
    spacing, random = 3.1043, np.random.default_rng(0)
    box = ase.Atoms(cell=[spacing * molecules] * 3, pbc=True)
    for place in np.ndindex(molecules, molecules, molecules):
        one = molecule("H2O")
        one.rotate(random.uniform(0, 360), random.normal(size=3))
        one.translate((np.array(place) + 0.5) * spacing - one.get_center_of_mass())
        box += one
    return box * ((cells,) * 3)
