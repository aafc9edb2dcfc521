"""A calculator whose energy is any function of the distances between atoms: potentials with known answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

Function = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # x -> energies in eV and slopes


class PairCalculator(Calculator):
    """E = sum over pairs of u(r); ``pair`` gives u and du/dr. Open structures only."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, pair: Function) -> None:
        super().__init__()
        self.pair = pair

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        i, j = np.triu_indices(len(atoms), 1)
        vectors = atoms.positions[j] - atoms.positions[i]
        r = np.linalg.norm(vectors, axis=1)
        energies, slopes = self.pair(r)
        pulls = (slopes / r)[:, None] * vectors
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, i, pulls)
        np.add.at(forces, j, -pulls)
        self.results = {"energy": float(np.sum(energies)), "forces": forces}


class MullerBrown(Calculator):
    """The surface of Müller and Brown, Theor. Chim. Acta 53, 75 (1979), for one atom in x and y; 0.01 eV a unit."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]
    A: ClassVar[np.ndarray] = 0.01 * np.array([-200.0, -100.0, -170.0, 15.0])
    a, b, c = np.array([-1.0, -1.0, -6.5, 0.7]), np.array([0.0, 0.0, 11.0, 0.6]), np.array([-10.0, -10.0, -6.5, 0.7])
    x0, y0 = np.array([1.0, 0.0, -0.5, -1.0]), np.array([0.0, 0.5, 1.5, 1.0])

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        x, y, z = atoms.positions[0]
        u, v = x - self.x0, y - self.y0
        terms = self.A * np.exp(self.a * u * u + self.b * u * v + self.c * v * v)
        slope = [(terms * (2 * self.a * u + self.b * v)).sum(), (terms * (self.b * u + 2 * self.c * v)).sum(), 2.0 * z]
        self.results = {"energy": float(terms.sum() + z * z), "forces": -np.array([slope])}
