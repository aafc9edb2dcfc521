"""Where energy and forces of moving atoms come from: a potential, straight from tensors, or any calculator of ASE."""

from __future__ import annotations

from abc import ABC, abstractmethod

import ase
import numpy as np
import torch
from ase.calculators.calculator import BaseCalculator
from torch import Tensor

from adatom.graph import Results
from adatom.sim.calculator import Calculator
from adatom.sim.skin import Origin, SkinList

NOWHERE = Origin(np.zeros((0, 3)), np.zeros((3, 3)))


class Surface(ABC):
    """Energy of one structure as a function of positions (N, 3) and cell (3, 3), with its derivatives."""

    device: torch.device

    @abstractmethod
    def __call__(self, positions: Tensor, cell: np.ndarray, stress: bool) -> Results:
        """Energy (1,), forces (N, 3) and, where asked for and defined, stress (1, 3, 3); NaN elsewhere."""

    @property
    @abstractmethod
    def origin(self) -> Origin:
        """Where the neighbour list in use was made: forces are the same to the last bit only with the same list."""

    @abstractmethod
    def restore(self, origin: Origin) -> None:
        """Use the neighbour list that was made there."""


class PotentialSurface(Surface):
    """A potential of this package: positions go to it as they are, the neighbour list lives through many steps."""

    def __init__(self, calculator: Calculator, atoms: ase.Atoms) -> None:
        calculator.check(atoms)
        self._potential, self.device = calculator.potential, calculator.neighbors.device
        smooth = self._potential.network.claims.smooth
        self._list = SkinList(calculator.neighbors.cutoff, calculator.neighbors.skin, self.device, loose=smooth)
        self._list.meet(atoms)

    def __call__(self, positions: Tensor, cell: np.ndarray, stress: bool) -> Results:
        """One pass through the network."""
        found: Results = self._potential(self._list.at(positions, cell), forces=True, stress=stress)
        return found

    @property
    def origin(self) -> Origin:
        """Where the list was made."""
        return self._list.origin

    def restore(self, origin: Origin) -> None:
        """Make it there again."""
        self._list.restore(origin)


class CalculatorSurface(Surface):
    """A calculator of ASE, which sees the atoms as ASE has them."""

    def __init__(self, calculator: BaseCalculator, atoms: ase.Atoms) -> None:
        self._atoms = atoms.copy()
        self._atoms.calc = calculator
        self.device = torch.device("cpu")

    def __call__(self, positions: Tensor, cell: np.ndarray, stress: bool) -> Results:
        """One calculation, and one for the stress where the calculator needs another."""
        atoms = self._atoms
        atoms.set_cell(cell)
        atoms.set_positions(positions.numpy(), apply_constraint=False)
        energy = atoms.get_potential_energy(apply_constraint=False)
        forces = torch.from_numpy(np.asarray(atoms.get_forces(apply_constraint=False), dtype=np.float64))
        tensor = torch.full((1, 3, 3), torch.nan, dtype=torch.float64)
        if stress:
            tensor = torch.from_numpy(atoms.get_stress(voigt=False, apply_constraint=False)).view(1, 3, 3)
        return Results(torch.tensor([energy], dtype=torch.float64), forces, tensor)

    @property
    def origin(self) -> Origin:
        """Calculators keep their lists to themselves."""
        return NOWHERE

    def restore(self, origin: Origin) -> None:
        """Nothing to do."""


def surface(atoms: ase.Atoms) -> Surface:
    """The surface of ``atoms.calc``; UnknownElementError or ChargeError where it was not made for such atoms."""
    calculator = atoms.calc
    if isinstance(calculator, Calculator):
        return PotentialSurface(calculator, atoms)
    return CalculatorSurface(calculator, atoms)
