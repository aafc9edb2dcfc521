"""Relax many structures at once through TorchSim: batches as large as pays, structures swapped out as they finish."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ase
import numpy as np
import torch
from ase.calculators.calculator import BaseCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from torch import Tensor

from adatom.errors import ConfigError, SimulationError
from adatom.neighbors import check_cell
from adatom.potential import Potential
from adatom.sim.calculator import Calculator, require_volume
from adatom.sim.descent import DescentState, lbfgs
from adatom.sim.guard import Guard
from adatom.sim.record_many import Ended, digest_of_potential, digest_of_structures
from adatom.sim.relax import CONVERGED, EXHAUSTED, RelaxConfig
from adatom.sim.torchsim import InFlightAutoBatcher, TorchSimModel, atoms_state, batch_room, held
from adatom.units import EV_PER_A3_IN_GPA

VOLUME_BOUNDS = (0.3, 3.0)  # in volumes at the start: what lies beyond is no relaxation


@dataclass(frozen=True)
class Relaxed:
    """Where one structure ended; only if ``converged`` that is a minimum. ``atoms`` carry their energy and forces.

    ``ending`` says in words how it ended. ``energy`` is that of the potential, without p V. Figures are NaN where the
    potential gave no numbers.
    """

    atoms: ase.Atoms
    number: int  # among the structures given
    converged: bool
    steps: int
    energy: float  # eV
    fmax: float  # eV/Å
    smax_GPa: float  # of stress + pressure; 0 in a fixed cell
    ending: str


@dataclass(frozen=True)
class ManyRelaxed:
    """Results in the order of the structures, and what they took."""

    results: tuple[Relaxed, ...]
    wanted: RelaxConfig
    evaluations: int  # of structures, in this leg
    seconds: float  # of this leg
    earlier: int = 0  # structures that had ended in an earlier leg

    @property
    def converged(self) -> bool:
        """Whether every structure has reached a minimum."""
        return all(one.converged for one in self.results)

    @property
    def structures_per_second(self) -> float:
        """Of this leg."""
        return (len(self.results) - self.earlier) / max(self.seconds, 1e-9)

    def require_converged(self) -> ManyRelaxed:
        """These results if all have converged, SimulationError with the first that have not otherwise."""
        left = [one for one in self.results if not one.converged]
        if not left:
            return self
        named = [f"{one.number} ({one.atoms.get_chemical_formula()}): {one.ending}" for one in left[:5]]
        cell = f", stress below {self.wanted.smax_GPa:g} GPa" if self.wanted.cell else ""
        raise SimulationError(
            f"{len(left)} of {len(self.results)} structures have not converged",
            where="structures " + "; ".join(named) + ("; ..." if len(left) > len(named) else ""),
            wanted=f"forces below {self.wanted.fmax:g} eV/Å{cell}",
            got=f"largest force left {max(one.fmax for one in left):.3g} eV/Å",
            remedy="allow more steps, accept a larger fmax, or look at these structures",
        )

    def to_record(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "property": "relaxations",
            "settings": self.wanted.model_dump(),
            "seconds": self.seconds,
            "evaluations": self.evaluations,
            "structures_per_second": self.structures_per_second,
            "structures": [
                {
                    "formula": one.atoms.get_chemical_formula(),
                    "atoms": len(one.atoms),
                    "converged": one.converged,
                    "ending": one.ending,
                    "steps": one.steps,
                    "energy_eV": one.energy,
                    "fmax_eV_per_A": one.fmax,
                    "smax_GPa": one.smax_GPa if self.wanted.cell else None,
                }
                for one in self.results
            ],
        }


class RelaxManyStep(NamedTuple):
    """How far a run is."""

    ended: int
    converged: int  # of those
    structures: int
    moving: int  # in the batch of the moment
    atoms: int  # in that batch
    fmax: float  # eV/Å, the largest in it
    seconds: float  # of this leg
    rate: float  # structures per second


def relax_many(
    structures: Sequence[ase.Atoms],
    calculator: Calculator | Potential | str | Path,
    *,
    fmax: float = 0.01,
    steps: int = 500,
    cell: bool = False,
    pressure_GPa: float = 0.0,
    smax_GPa: float = 0.05,
    atoms_per_batch: int | None = None,
    record: str | Path | None = None,
    restart: bool = False,
    progress: Callable[[RelaxManyStep], None] | None = None,
) -> ManyRelaxed:
    """Relax copies of ``structures``, each by L-BFGS on a way of its own; settings are those of RelaxConfig.

    What one structure does depends on no other: a structure that fails, or does not converge, is taken out and named,
    and the others go on. Atoms held by FixAtoms stay.

    Parameters
    ----------
    structures
        Molecules, slabs and crystals may be mixed.
    calculator
        A model file, a potential, or a Calculator of this package, for its device and its code.
    atoms_per_batch
        By default as many as are best evaluated together: what fits into the cache of a CPU, or the memory of a card.
    record
        A file that receives each structure as it ends, so that a run that was stopped can go on.
    restart
        Go on with that file: what has ended is not done again.
    progress
        Called after every step of the batch.

    Raises
    ------
    ConfigError
        Settings that make no sense; constraints other than FixAtoms; atoms held in a cell that relaxes; an empty
        structure; a calculator of another package.
    UnknownElementError, ChargeError, GeometryError, StressError
        A structure that cannot be relaxed: said before anything is computed.
    CheckpointError
        There is no run to go on with, or it was another one.
    """
    config = RelaxConfig.parse(
        {"fmax": fmax, "steps": steps, "cell": cell, "pressure_GPa": pressure_GPa, "smax_GPa": smax_GPa},
        where="relax_many",
    )
    if isinstance(calculator, BaseCalculator) and not isinstance(calculator, Calculator):
        raise ConfigError(
            "many structures at once need a potential of this package",
            where="relax_many",
            wanted="a model file, a Potential or an adatom.Calculator",
            got=type(calculator).__name__,
            remedy="relax one after the other: adatom.relax",
        )
    model = TorchSimModel(calculator, stress=config.cell)
    for number, atoms in enumerate(structures):
        _check(number, atoms, model.potential, config)
    meaning = {
        "settings": config.model_dump(mode="json"),
        "structures": digest_of_structures(structures),
        "potential": digest_of_potential(model.potential),
    }
    ended = Ended(None if record is None else Path(record), meaning, restart)
    return _Run(structures, model, config, ended, atoms_per_batch, progress).run()


class _Run:
    """State and machinery of one run."""

    def __init__(
        self,
        structures: Sequence[ase.Atoms],
        model: TorchSimModel,
        config: RelaxConfig,
        ended: Ended,
        budget: int | None,
        progress: Callable[[RelaxManyStep], None] | None,
    ) -> None:
        self.structures, self.model, self.config, self.file, self.progress = structures, model, config, ended, progress
        self.results = {line["number"]: _from_line(line, structures[line["number"]]) for line in ended.lines}
        self.earlier, self.evaluations, self.begin = len(self.results), 0, time.perf_counter()
        left = [number for number in range(len(structures)) if number not in self.results]
        self.left = sorted(left, key=lambda number: -len(structures[number]))  # large ones first: a better fit
        room = batch_room([structures[number] for number in left], model.potential, model.device)
        self.budget = max(budget or room, len(structures[self.left[0]]) if left else 1)
        self.pressure = config.pressure_GPa / EV_PER_A3_IN_GPA if config.cell else 0.0

    def run(self) -> ManyRelaxed:
        """All structures that are left."""
        if self.left:
            begin, step = lbfgs(self.model, cell=self.config.cell, pressure=self.pressure)
            batcher = InFlightAutoBatcher(self.model, memory_scales_with="n_atoms", max_memory_scaler=self.budget)
            batcher.load_states(self._states(begin))
            state, _ = batcher.next_batch(None, None)
            while state is not None:
                state = step(state)
                self.evaluations += state.cell.shape[0]
                endings = self._endings(state)
                done = torch.tensor([ending is not None for ending in endings], device=state.device)
                self._report(state)
                if not bool(done.any()):
                    continue
                words = {int(n): ending for n, ending in zip(state.number, endings, strict=True) if ending is not None}
                state, finished = batcher.next_batch(state, done)
                for one in finished:
                    self._end(one, words[int(one.number)])
        seconds = time.perf_counter() - self.begin
        results = tuple(self.results[number] for number in range(len(self.structures)))
        return ManyRelaxed(results, self.config, self.evaluations, seconds, self.earlier)

    def _states(self, begin: Callable[[Any], DescentState]) -> Iterator[DescentState]:
        """What is left, each made when there is room for it."""
        for number in self.left:
            yield begin(atoms_state([self.structures[number]], self.model.device, self.model.dtype, number))

    def _endings(self, state: DescentState) -> list[str | None]:
        """How each structure of a batch has ended; None where it has not."""
        force, stress = largest_force(state), self._largest_stress(state)
        minimum = (force <= self.config.fmax) & (stress <= self.config.smax_GPa)
        number = (force + stress + state.energy).isfinite()
        ratio = torch.linalg.det(state.cell).abs() / self._first_volumes(state)
        sound = ~(ratio < VOLUME_BOUNDS[0]) & ~(ratio > VOLUME_BOUNDS[1])  # NaN of open structures is no harm
        spent = state.visits > self.config.steps
        endings: list[str | None] = []
        for k in range(force.shape[0]):
            if not number[k]:
                endings.append("not converged: the potential gave no number")
            elif not sound[k]:
                endings.append(f"not converged: the cell came to {float(ratio[k]):.2f} times its volume")
            elif minimum[k]:
                endings.append(CONVERGED)
            else:
                endings.append(EXHAUSTED if spent[k] else None)
        return endings

    def _first_volumes(self, state: DescentState) -> Tensor:
        volumes = [self.structures[number].cell.volume or np.nan for number in state.number.tolist()]
        return state.energy.new_tensor(volumes)

    def _largest_stress(self, state: DescentState) -> Tensor:
        """Of stress + pressure, GPa, (S,); 0 in fixed cells."""
        if not self.config.cell:
            return torch.zeros_like(state.energy)
        own = torch.eye(3, dtype=state.cell.dtype, device=state.cell.device)
        left = (state.stress + self.pressure * own).abs().amax((1, 2))
        return left * EV_PER_A3_IN_GPA

    def _end(self, state: DescentState, ending: str) -> None:
        """Keep where one structure ended."""
        number = int(state.number)
        atoms = self.structures[number].copy()
        atoms.set_constraint()
        atoms.set_cell(state.cell[0].T.cpu().numpy())
        atoms.set_positions(state.positions.cpu().numpy())
        atoms.set_constraint(self.structures[number].constraints)
        energy = float(state.energy)
        if self.config.cell:
            energy -= self.pressure * atoms.cell.volume
        forces = state.forces.cpu().numpy().copy()
        stress = state.stress[0].cpu().numpy().copy() if self.config.cell else None
        freeze(atoms, energy, forces, stress)
        ending = self._apart(atoms, ending, int(state.visits) - 1)
        self.results[number] = Relaxed(
            atoms,
            number,
            ending == CONVERGED,
            int(state.visits) - 1,
            energy,
            float(largest_force(state)),
            float(self._largest_stress(state)),
            ending,
        )
        self.file.add(_to_line(self.results[number], forces, stress))

    def _apart(self, atoms: ase.Atoms, ending: str, step: int) -> str:
        """The ending, or that two atoms have come closer than anything the potential was trained on."""
        if ending != CONVERGED:
            return ending
        try:
            guard = Guard(atoms, self.model.potential.card)
            guard.check_distances(step, torch.from_numpy(atoms.get_positions()), atoms.cell.array)
        except SimulationError as error:  # of this one structure: the others go on
            return f"not converged: {error.problem}: {error.where}, {error.got}"
        return ending

    def _report(self, state: DescentState) -> None:
        if self.progress is None:
            return
        seconds = time.perf_counter() - self.begin
        self.progress(
            RelaxManyStep(
                len(self.results),
                sum(one.converged for one in self.results.values()),
                len(self.structures),
                state.cell.shape[0],
                state.positions.shape[0],
                float(largest_force(state).max()),
                seconds,
                (len(self.results) - self.earlier) / max(seconds, 1e-9),
            )
        )


def largest_force(state: DescentState) -> Tensor:
    """On an atom of each structure, eV/Å, (S,)."""
    lengths = torch.linalg.vector_norm(state.forces, dim=1)
    return torch.zeros_like(state.energy).scatter_reduce(0, state.system_idx, lengths, "amax")


def freeze(atoms: ase.Atoms, energy: float, forces: np.ndarray, stress: np.ndarray | None) -> None:
    """Fix energy, forces and stress (3, 3) to atoms."""
    results: dict[str, Any] = {"energy": energy, "forces": forces}
    if stress is not None:
        results["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    atoms.calc = SinglePointCalculator(atoms, **results)


def _check(number: int, atoms: ase.Atoms, potential: Potential, config: RelaxConfig) -> None:
    """What cannot be relaxed, said before anything is computed."""
    where = f"structure {number}, {atoms.get_chemical_formula()}"
    if len(atoms) == 0:
        raise ConfigError("there are no atoms to relax", where=f"structure {number}", remedy="leave it out")
    potential.check_atoms(atoms, where=where)
    check_cell(atoms, where)
    if held(atoms).any() and config.cell:
        raise ConfigError(
            "atoms cannot be held in a cell that relaxes, where many relax at once",
            where=where,
            wanted="free atoms, or a fixed cell",
            got=f"{int(held(atoms).sum())} atoms held",
            remedy="free them, keep the cell, or relax this structure alone: adatom.relax",
        )
    if config.cell:
        require_volume(atoms)


def _to_line(one: Relaxed, forces: np.ndarray, stress: np.ndarray | None) -> dict[str, Any]:
    return {
        "number": one.number,
        "ending": one.ending,
        "steps": one.steps,
        "energy_eV": one.energy,
        "fmax": one.fmax,
        "smax_GPa": one.smax_GPa,
        "positions": one.atoms.get_positions().tolist(),
        "cell": one.atoms.cell.tolist(),
        "forces": forces.tolist(),
        "stress": None if stress is None else stress.tolist(),
    }


def _from_line(line: dict[str, Any], given: ase.Atoms) -> Relaxed:
    atoms = given.copy()
    atoms.set_constraint()
    atoms.set_cell(line["cell"])
    atoms.set_positions(line["positions"])
    atoms.set_constraint(given.constraints)
    stress = None if line["stress"] is None else np.array(line["stress"])
    freeze(atoms, line["energy_eV"], np.array(line["forces"]), stress)
    converged = line["ending"] == CONVERGED
    figures = (line["steps"], line["energy_eV"], line["fmax"], line["smax_GPa"])
    return Relaxed(atoms, line["number"], converged, *figures, line["ending"])
