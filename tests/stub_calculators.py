"""Calculators whose physics is known in closed form."""

from __future__ import annotations

from typing import ClassVar

import ase
import numpy as np
from ase.calculators.calculator import Calculator, all_changes


class Springs(Calculator):
    """Each atom on a spring to where it stood: E = k/2 sum |r - r0|^2. A negative k throws the atoms out."""

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces"]

    def __init__(self, atoms: ase.Atoms, k: float) -> None:
        super().__init__()
        self.home, self.k = atoms.get_positions(), k

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        away = self.atoms.positions - self.home
        energy = 0.5 * self.k * float(np.square(away).sum())
        self.results = {"energy": energy, "free_energy": energy, "forces": -self.k * away}


class IdealGas(Calculator):
    """No forces at all; ``broken_after`` calculations it gives NaN."""

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, broken_after: int | None = None) -> None:
        super().__init__()
        self.left = np.inf if broken_after is None else broken_after

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        self.left -= 1
        value = 0.0 if self.left >= 0 else np.nan
        forces = np.zeros((len(self.atoms), 3))
        forces[-1] = value
        self.results = {"energy": 0.0, "free_energy": 0.0, "forces": forces, "stress": np.zeros(6)}
