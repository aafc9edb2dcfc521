"""Energy, forces and stress of many structures at once: displaced and strained copies, images of a path, candidates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import ase
import numpy as np
import torch
from ase.calculators.calculator import BaseCalculator

from adatom.errors import SimulationError
from adatom.graph import Graph, Results, collate
from adatom.memory import available, footprint
from adatom.neighbors import graph_from_atoms
from adatom.potential import Potential
from adatom.sim.calculator import Calculator, require_volume
from adatom.sim.relax import as_calculator

CACHED = 512  # atoms of a batch on a CPU: beyond, an atom costs more, for a batch leaves the caches
MEMORY = 0.7  # of what a card has free may be filled by one batch


class Evaluation(NamedTuple):
    """What a potential says of one structure; NaN where it was not asked."""

    energy: float  # eV
    forces: np.ndarray  # (n, 3)  eV/Å
    stress: np.ndarray  # (3, 3)  eV/Å^3, tension positive


def evaluate(
    structures: Sequence[ase.Atoms],
    calculator: BaseCalculator | Potential | str | Path,
    *,
    forces: bool = True,
    stress: bool = False,
) -> list[Evaluation]:
    """Evaluate structures in their order, as few passes through the network as memory allows.

    A calculator of another package is asked for one structure after the other. Constraints are not looked at.

    Raises
    ------
    UnknownElementError, ChargeError
        The potential was not made for one of them: said before anything is computed.
    StressError
        Stress was asked of a structure without volume.
    SimulationError
        An energy, a force or a stress is no number; names the structure.
    """
    engine = as_calculator(calculator)
    if stress:
        for atoms in structures:
            require_volume(atoms)
    if not isinstance(engine, Calculator):
        found = [_alone(atoms, engine, forces, stress) for atoms in structures]
    else:
        for number, atoms in enumerate(structures):
            engine.potential.check_atoms(atoms, where=_name(number, atoms))
        found = list(_batched(structures, engine, forces, stress))
    for number, (atoms, one) in enumerate(zip(structures, found, strict=True)):
        asked = [np.asarray(one.energy), *([one.forces] if forces else []), *([one.stress] if stress else [])]
        if not all(np.isfinite(values).all() for values in asked):
            raise SimulationError(
                "the potential gives no number",
                where=_name(number, atoms),
                wanted="finite energy, forces and stress",
                got=f"energy {one.energy:g} eV",
                remedy="look at this structure: atoms on one spot, or far from anything the model was trained on",
            )
    return found


def packed(graphs: Sequence[Graph], budget: int) -> Iterator[list[Graph]]:
    """Neighbours in the list together, at most ``budget`` atoms; one that is larger goes alone."""
    batch: list[Graph] = []
    atoms = 0
    for graph in graphs:
        size = graph.numbers.shape[0]
        if batch and atoms + size > budget:
            yield batch
            batch, atoms = [], 0
        batch.append(graph)
        atoms += size
    if batch:
        yield batch


def atoms_at_once(potential: Potential, width: int, device: torch.device) -> int:
    """How many atoms with up to ``width`` neighbours are best evaluated together."""
    if device.type == "cpu":
        return CACHED
    room = MEMORY * available(device)
    return max(int(room / footprint(potential.network, potential.elements[0]).of(1, width)), 1)


def _batched(structures: Sequence[ase.Atoms], engine: Calculator, forces: bool, stress: bool) -> Iterator[Evaluation]:
    potential, device = engine.potential, engine.neighbors.device
    graphs = [graph_from_atoms(atoms, potential.cutoff) for atoms in structures]
    width = max((graph.slots.shape[1] for graph in graphs), default=1)
    for batch in packed(graphs, atoms_at_once(potential, width, device)):
        sizes = [graph.numbers.shape[0] for graph in batch]
        predicted: Results = potential(collate(batch).to(device), forces=forces, stress=stress)
        energy, force, tensor = (t.detach().cpu() for t in predicted)
        for number, part in enumerate(force.split(sizes)):
            yield Evaluation(float(energy[number]), part.numpy().copy(), tensor[number].numpy().copy())


def _alone(atoms: ase.Atoms, calculator: BaseCalculator, forces: bool, stress: bool) -> Evaluation:
    copy = atoms.copy()
    copy.set_constraint()
    copy.calc = calculator
    energy = float(copy.get_potential_energy())
    return Evaluation(
        energy,
        np.array(copy.get_forces(), dtype=np.float64) if forces else np.full((len(copy), 3), np.nan),
        np.array(copy.get_stress(voigt=False), dtype=np.float64) if stress else np.full((3, 3), np.nan),
    )


def _name(number: int, atoms: ase.Atoms) -> str:
    return f"structure {number}, {atoms.get_chemical_formula()}"
