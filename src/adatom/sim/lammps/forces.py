"""What a potential says of the atoms that LAMMPS holds, on one process or asked by many."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import ase
import numpy as np
import torch
from torch import Tensor

from adatom.graph import Graph, Results, volumes
from adatom.models.layered import Layered
from adatom.neighbors import complete_cell
from adatom.potential import EAGER_CHUNK, Energies, Potential, strained
from adatom.priors.base import Prior
from adatom.sim.skin import SkinList
from adatom.stream import streamed


class Frame(NamedTuple):
    """Atoms as one process of LAMMPS holds them: its own first, copies of others after them."""

    own: int  # n
    tags: np.ndarray  # (n + g,)  the number by which LAMMPS knows an atom
    numbers: np.ndarray  # (n + g,)  elements
    positions: np.ndarray  # (n + g, 3)  Å, of copies where the copies stand
    cell: np.ndarray  # (3, 3)  Å, rows
    pbc: np.ndarray  # (3,)  bool


class Evaluated(NamedTuple):
    """Figures of one geometry; energy and virial are those of all atoms on all processes."""

    energy: float  # eV
    forces: np.ndarray  # (n, 3)  eV/Å
    virial: np.ndarray  # (3, 3)  -dE/d(strain), eV; NaN where the potential does not say
    energies: np.ndarray | None  # (n,)  eV
    virials: np.ndarray | None  # (n, 3, 3)  eV


class Evaluator(ABC):
    """Asks a potential."""

    @abstractmethod
    def __call__(self, frame: Frame, atomic: bool) -> Evaluated:
        """Energy, forces and virial; with ``atomic`` those of single atoms too."""


class Whole(Evaluator):
    """All atoms on one process: the potential as everywhere else, the neighbour list with a skin of its own.

    Atoms are taken in the order of their tags, and followed through periodic boundaries: where LAMMPS folds an atom
    back into the cell, or sorts its memory anew, the list lives on.
    """

    def __init__(self, potential: Potential, skin: float = 0.5, info: dict[str, Any] | None = None) -> None:
        self.potential, self.skin, self.info = potential, skin, dict(info or {})
        self.device = potential.references.device
        self.layers = layers_of(potential)
        self._tags = self._numbers = np.zeros(0, dtype=np.int64)
        self._order = np.zeros(0, dtype=np.int64)  # of the tags
        self._pbc = np.zeros(3, dtype=bool)
        self._last = np.zeros((0, 3))  # (n, 3)  where the atoms stood, unfolded, by tag
        self._list = SkinList(potential.cutoff, skin, self.device)
        self._box: tuple[np.ndarray, Tensor, Tensor] | None = None  # of an open system: cell, and as if it were closed

    def __call__(self, frame: Frame, atomic: bool) -> Evaluated:
        """One pass through the network, two where single atoms are asked of a network that cannot be streamed."""
        self._meet(frame)
        positions = frame.positions[: frame.own][self._order]
        steps = np.round((positions - self._last) @ np.linalg.pinv(frame.cell)) * frame.pbc
        # so written that positions that are no numbers reach the list, which names them
        self._last = positions - np.where(np.isfinite(steps), steps, 0.0) @ frame.cell
        graph = self._list.at(torch.from_numpy(self._last).to(self.device), frame.cell)
        if atomic and self.layers is not None:
            return self._in_chunks(self.layers, graph)
        energy, forces, virial = self._predict(graph)
        energies = None
        if atomic:
            with torch.no_grad():
                energies = self._by_place(self.potential.atomic_energies(graph))
        return Evaluated(energy, self._by_place(forces), virial, energies, None)

    def _meet(self, frame: Frame) -> None:
        """Take note of who is there; a list of others is dropped."""
        n = frame.own
        same = np.array_equal(frame.tags[:n], self._tags) and np.array_equal(frame.numbers[:n], self._numbers)
        if same and np.array_equal(frame.pbc, self._pbc):
            return
        before = self._tags[self._order], self._numbers[self._order], self._pbc
        self._tags, self._numbers, self._pbc = frame.tags[:n].copy(), frame.numbers[:n].copy(), frame.pbc.copy()
        self._order = np.argsort(self._tags, kind="stable")
        after = self._tags[self._order], self._numbers[self._order], self._pbc
        if all(np.array_equal(old, new) for old, new in zip(before, after, strict=True)):
            return  # sorted anew, no more
        atoms = ase.Atoms(after[1], frame.positions[:n][self._order], cell=frame.cell, pbc=frame.pbc)
        atoms.info |= self.info
        self.potential.check_atoms(atoms)
        smooth = self.potential.network.claims.smooth
        self._list = SkinList(self.potential.cutoff, self.skin, self.device, loose=smooth)
        self._list.meet(atoms)
        self._last = atoms.get_positions()

    def _predict(self, graph: Graph) -> tuple[float, Tensor, np.ndarray]:
        """Energy, forces and virial."""
        if bool(graph.pbc.all()):
            found: Results = self.potential(graph, forces=True, stress=True)
            virial = -found.stress[0] * float(volumes(graph.cell))
        elif self.potential.derivatives == "direct":
            found = self.potential(graph, forces=True)
            virial = found.stress[0]  # a head of stress says nothing of what has no volume
        elif self.potential.network.claims.reach == "local":
            closed = self._closed(graph)
            found = self.potential(closed, forces=True, stress=True)
            virial = -found.stress[0] * float(volumes(closed.cell))
        else:
            found = self.potential.results(graph, True, True, _slopes)
            virial = -found.stress[0]
        return float(found.energy), found.forces, virial.detach().cpu().numpy()

    def _closed(self, graph: Graph) -> Graph:
        """The same edges in a cell with volume: the virial of a molecule or a slab is that of any box around it."""
        cell = graph.cell[0].cpu().numpy()
        if self._box is None or not np.array_equal(self._box[0], cell):
            box = torch.from_numpy(complete_cell(np.zeros((1, 3)), cell, self._pbc, 1.0)).unsqueeze(0)
            self._box = cell, box.to(self.device), torch.ones_like(graph.pbc)
        return graph.replace(cell=self._box[1], pbc=self._box[2])

    def _in_chunks(self, body: Layered, graph: Graph) -> Evaluated:
        """With figures of single atoms, which come along where a network is streamed."""
        graph = with_a_shift(graph)
        priors = [prior for prior in self.potential.priors if isinstance(prior, Prior)]
        found = streamed(body, self.potential.scale, priors, graph, EAGER_CHUNK)
        energies = found.energy + self.potential.atomic_references(graph)
        return Evaluated(
            float(energies.sum()),
            self._by_place(-found.slopes),
            symmetric(-found.virials.sum(0)),
            self._by_place(energies),
            symmetric(self._by_place(-found.virials)),
        )

    def _by_place(self, values: Tensor) -> np.ndarray:
        """Values of atoms, from the order of tags to the order in memory of LAMMPS."""
        placed = np.empty(tuple(values.shape))
        placed[self._order] = values.detach().cpu().numpy()
        return placed


def layers_of(potential: Potential) -> Layered | None:
    """The layers of a network of layers whose forces are derivatives; None for others."""
    parts = list(potential.network.children())
    alone = len(parts) == 1 and isinstance(parts[0], Layered) and potential.derivatives == "gradient"
    return parts[0] if alone and isinstance(parts[0], Layered) else None


def with_a_shift(graph: Graph) -> Graph:
    """The same graph; one without edges gets a row of shifts that empty slots may point to."""
    return graph if graph.edges.shape[1] else graph.replace(shifts=graph.positions.new_zeros(1, 3))


def symmetric(virial: Any) -> np.ndarray:
    """The symmetric part of (..., 3, 3), which is all that does work."""
    values: np.ndarray = np.asarray(virial, dtype=np.float64)
    half: np.ndarray = 0.5 * (values + np.swapaxes(values, -1, -2))
    return half


def _slopes(energies: Energies, graph: Graph, forces: bool, stress: bool) -> Results:
    """Energies with forces and dE/d(strain), which is there without a volume too."""
    positions = graph.positions.detach().requires_grad_(forces)
    strain = torch.zeros_like(graph.cell, requires_grad=stress)
    with torch.enable_grad():
        energy = energies(strained(graph.replace(positions=positions), strain))
        slopes = torch.autograd.grad(energy.sum(), (positions, strain), materialize_grads=True)
    return Results(energy.detach(), -slopes[0], slopes[1])
