"""Many structures to rest at once, each in its own fixed cell: strained copies, vacancies, slabs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ase
import numpy as np
import torch
from ase.calculators.calculator import BaseCalculator

from adatom.errors import SimulationError
from adatom.potential import Potential
from adatom.sim.guard import Guard, card_of
from adatom.sim.many import Evaluation, evaluate
from adatom.sim.relax import as_calculator

MEMORY = 20  # steps and changes of force that are remembered
STIFFNESS = 70.0  # eV/Å^2, before anything is known of the curvature
STRIDE = 0.2  # Å, the longest step of an atom


@dataclass(frozen=True)
class Settled:
    """Where one structure ended; only if ``converged`` that is a minimum (or a saddle that symmetry holds it on)."""

    atoms: ase.Atoms
    evaluation: Evaluation
    converged: bool
    steps: int
    fmax: float  # eV/Å

    def require_converged(self, where: str, wanted: float) -> Settled:
        """This result if it has converged, SimulationError otherwise."""
        if self.converged:
            return self
        raise SimulationError(
            "the atoms have not come to rest",
            where=f"{where}, {self.atoms.get_chemical_formula()} after {self.steps} steps",
            wanted=f"forces below {wanted:g} eV/Å",
            got=f"{self.fmax:.3g} eV/Å",
            remedy="allow more steps, or accept a larger fmax",
        )


def settle(
    structures: Sequence[ase.Atoms],
    calculator: BaseCalculator | Potential | str | Path,
    *,
    fmax: float = 0.01,
    steps: int = 300,
    stress: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Settled]:
    """Relax the atoms of every structure until no force is above ``fmax`` (eV/Å), those still moving as one batch.

    Each goes its own way by L-BFGS (Nocedal and Wright, Numerical Optimization, algorithm 7.4) with steps of 0.2 Å at
    most. ``progress`` is called with the step and the number of structures that still move. Constraints are not looked
    at. Raises what ``evaluate`` raises, and SimulationError where atoms end on one another.
    """
    engine = as_calculator(calculator)
    paths = [_Path(atoms) for atoms in structures]
    moving = list(range(len(paths)))
    for step in range(steps + 1):
        found = evaluate([paths[k].atoms for k in moving], engine)
        for k, one in zip(moving, found, strict=True):
            paths[k].arrive(one)
        moving = [k for k in moving if paths[k].fmax > fmax]
        if progress is not None:
            progress(step, len(moving))
        if not moving or step == steps:
            break
        for k in moving:
            paths[k].go()
    for path in paths:
        guard = Guard(path.atoms, card_of(engine))
        guard.check_distances(path.steps, torch.from_numpy(path.atoms.get_positions()), path.atoms.cell.array)
    ends = [path.atoms for path in paths]
    final = evaluate(ends, engine, stress=True) if stress else [path.last for path in paths]
    return [
        Settled(path.atoms, one, path.fmax <= fmax, path.steps, path.fmax)
        for path, one in zip(paths, final, strict=True)
    ]


class _Path:
    """One structure on its way: what L-BFGS remembers of it."""

    def __init__(self, atoms: ase.Atoms) -> None:
        self.atoms = atoms.copy()
        self.atoms.set_constraint()
        self.steps, self.fmax = 0, np.inf
        self.last = Evaluation(np.nan, np.full((len(atoms), 3), np.nan), np.full((3, 3), np.nan))
        self._moves: list[tuple[np.ndarray, np.ndarray]] = []  # step and change of gradient
        self._step = np.zeros(0)

    def arrive(self, found: Evaluation) -> None:
        """Learn the forces of where it stands."""
        if self._step.size:
            turn = (self.last.forces - found.forces).ravel()
            if self._step @ turn > 1e-12 * np.linalg.norm(self._step) * np.linalg.norm(turn):
                self._moves = [*self._moves[-MEMORY + 1 :], (self._step, turn)]
        self.last = found
        self.fmax = float(np.sqrt(np.square(found.forces).sum(axis=1).max(initial=0.0)))

    def go(self) -> None:
        """Make the next step."""
        step = self._direction().reshape(-1, 3)
        longest = float(np.linalg.norm(step, axis=1).max())
        if longest > STRIDE:
            step *= STRIDE / longest
        self.atoms.positions += step
        self._step = step.ravel()
        self.steps += 1

    def _direction(self) -> np.ndarray:
        """Force times the inverse of the curvature met so far."""
        q = self.last.forces.ravel().copy()
        weights = []
        for s, y in reversed(self._moves):
            weights.append((s @ q) / (s @ y))
            q -= weights[-1] * y
        q *= (
            (self._moves[-1][0] @ self._moves[-1][1]) / (self._moves[-1][1] @ self._moves[-1][1])
            if self._moves
            else (1.0 / STIFFNESS)
        )
        for (s, y), weight in zip(self._moves, reversed(weights), strict=True):
            q += (weight - (y @ q) / (s @ y)) * s
        return q
