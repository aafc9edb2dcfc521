"""Many structures to rest at once, each in its own fixed cell: strained copies, vacancies, slabs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ase
import numpy as np
import torch
from ase.calculators.calculator import BaseCalculator

from adatom.errors import SimulationError
from adatom.potential import Potential
from adatom.sim.curvature import Memory, direction, limited, remember
from adatom.sim.guard import Guard, card_of
from adatom.sim.many import Evaluation, evaluate
from adatom.sim.relax import as_calculator


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

    Each goes its own way by L-BFGS (``adatom.sim.curvature``) with steps of 0.2 Å at most. ``progress`` is called with
    the step and the number of structures that still move. Constraints are not looked at. Raises what ``evaluate``
    raises, and SimulationError where atoms end on one another.
    """
    engine = as_calculator(calculator)
    ends = [_free(atoms) for atoms in structures]
    last = [Evaluation(np.nan, np.full((len(atoms), 3), np.nan), np.full((3, 3), np.nan)) for atoms in ends]
    made, largest = [0] * len(ends), [np.inf] * len(ends)
    way = _Way([len(atoms) for atoms in ends])
    moving = list(range(len(ends)))
    for step in range(steps + 1):
        found = evaluate([ends[k] for k in moving], engine)
        for k, one in zip(moving, found, strict=True):
            last[k], largest[k] = one, float(np.linalg.norm(one.forces, axis=1).max(initial=0.0))
        moving = [k for k in moving if largest[k] > fmax]
        if progress is not None:
            progress(step, len(moving))
        if not moving or step == steps:
            break
        moves = way.on({k: last[k].forces for k in moving})
        for k in moving:
            ends[k].positions += moves[k]
            made[k] += 1
    for k, atoms in enumerate(ends):
        Guard(atoms, card_of(engine)).check_distances(
            made[k], torch.from_numpy(atoms.get_positions()), atoms.cell.array
        )
    final = evaluate(ends, engine, stress=True) if stress else last
    return [
        Settled(atoms, one, size <= fmax, count, size)
        for atoms, one, size, count in zip(ends, final, largest, made, strict=True)
    ]


def _free(atoms: ase.Atoms) -> ase.Atoms:
    copy = atoms.copy()
    copy.set_constraint()
    return copy


class _Way:
    """Structures on their way down in fixed cells. One at rest is pulled by nothing, and goes nowhere."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes, count = list(sizes), len(sizes)
        owner = torch.arange(count).repeat_interleave(torch.tensor(self._sizes, dtype=torch.int64))
        self._memory = Memory.empty(owner, count)
        self._known = torch.ones(count, dtype=torch.bool)
        self._fixed = torch.zeros(count, 3, 3, dtype=torch.float64)  # pulls and strains of cells: none
        self._move = self._forces = torch.zeros(owner.shape[0], 3, dtype=torch.float64)

    def on(self, found: Mapping[int, np.ndarray]) -> list[np.ndarray]:
        """The next moves of all structures, (n, 3) Å each, from the forces (n, 3) on those that still move."""
        forces = torch.cat([
            torch.from_numpy(np.asarray(found[k], dtype=np.float64) if k in found else np.zeros((size, 3)))
            for k, size in enumerate(self._sizes)
        ])  # fmt: skip
        flat = self._fixed.flatten(1)
        remember(self._memory, self._known, self._move, self._forces - forces, flat, flat)
        towards = direction(self._memory, torch.ones_like(flat[:, 0]), forces, self._fixed)
        self._move, _ = limited(self._memory, *towards)
        self._forces = forces
        return [move.numpy() for move in self._move.split(self._sizes)]
