"""Networks of layers in which an atom sees its neighbours and nothing else: what streaming and fast inference rest on.

A layer takes what an atom and its neighbours know and the way from one to the other, and gives what the atom knows
then, with its contribution to the energy. Nothing but these rows passes from layer to layer, so atoms can be taken in
chunks: memory per atom is then what the rows hold, however many neighbours there are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adatom.graph import Graph, adjacent, neighbour_vectors
from adatom.models.base import NetworkOutput, element_rows, stress_from_virials
from adatom.nn.depth import Depth
from adatom.nn.floor import Floor
from adatom.nn.slots import gather_neighbours
from adatom.nn.surroundings import Geometry, Surroundings

Rows = tuple[Tensor, ...]  # what is known of atoms, each (N, F)


class Step(NamedTuple):
    """What a layer says of n atoms."""

    rows: Rows  # what they know now; after the last layer their invariant features alone
    energy: Tensor  # (n,)
    forces: Tensor | None = None  # (n, 3)  direct head
    virials: Tensor | None = None  # (n, 3, 3)  direct head


class Layered(nn.Module, ABC):
    """Base of such networks; energies are sums over atoms and layers."""

    geometry: Geometry
    floor: Floor
    depth: Depth
    layers: nn.ModuleList
    sources: int  # of labels

    @abstractmethod
    def start(self, species: Tensor) -> Rows:
        """What is known of atoms before they have looked around, from their rows (N,) in the tables of elements."""

    @abstractmethod
    def step(self, number: int, own: Rows, others: Rows, near: Surroundings, species: Tensor) -> Step:
        """Layer ``number`` for n atoms.

        Parameters
        ----------
        own
            Rows of the atoms, each (n, F).
        others
            Rows of their neighbours, each (n, M, F); of some atom in empty slots.
        near
            Geometry of their neighbours.
        species
            Rows (n,) of the atoms in the tables of elements.
        """

    def layer(self, number: int, own: Rows, others: Rows, near: Surroundings, species: Tensor) -> Step:
        """Layer ``number`` as it counts: its energies no lower than training knows them (``adatom.nn.depth``)."""
        step = self.step(number, own, others, near, species)
        return step._replace(energy=self.depth(step.energy, species, number))

    def surroundings(self, vectors: Tensor, filled: Tensor, numbers: Tensor, others: Tensor) -> Surroundings:
        """What n atoms see: vectors (n, M, 3) to neighbours, ``filled`` (n, 1, M), atomic numbers (n,) and (n, M)."""
        seen = self.floor(vectors, numbers.unsqueeze(1), others, filled[:, 0])
        near: Surroundings = self.geometry(seen, filled)
        return near

    def forward(self, graph: Graph, dtype: torch.dtype) -> NetworkOutput:
        """All layers over all atoms."""
        near_by = adjacent(graph, dtype)
        others = graph.numbers.index_select(0, graph.neighbours.flatten()).view(graph.neighbours.shape)
        near = self.surroundings(neighbour_vectors(graph).to(dtype), near_by.filled, graph.numbers, others)
        species = element_rows(graph, self.sources)
        rows, steps = self.start(species), []
        for number in range(len(self.layers)):
            told = tuple(gather_neighbours(row, near_by) for row in rows)
            steps.append(self.layer(number, rows, told, near, species))
            rows = steps[-1].rows
        energy = torch.stack([step.energy for step in steps]).sum(0)
        if steps[0].forces is None:
            return NetworkOutput(energy, rows[0])
        forces = torch.stack([step.forces for step in steps if step.forces is not None]).sum(0)
        virials = torch.stack([step.virials for step in steps if step.virials is not None]).sum(0)
        return NetworkOutput(energy, rows[0], None, forces, stress_from_virials(virials, graph))
