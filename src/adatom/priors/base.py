"""A prior: physics that is added to what the network learns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from adatom.config import Config
from adatom.graph import Graph, neighbour_vectors


class Prior(nn.Module, ABC):
    """Base of all priors: an energy that an atom has from its neighbours.

    ``config`` rebuilds it; ``name`` is its word in configuration and model files.
    """

    name: ClassVar[str]
    config: Config

    def forward(self, graph: Graph) -> Tensor:
        """Energy per atom in eV, (N,) float64."""
        others = graph.numbers.index_select(0, graph.neighbours.flatten()).view(graph.neighbours.shape)
        return self.pairs(graph.numbers, others, neighbour_vectors(graph), graph.slots < graph.edges.shape[1])

    def taught(self, closest: Mapping[str, float]) -> Prior:
        """The prior of a potential that was also trained on pairs this close (Å, as in ``{"H-O": 0.9}``)."""
        return self

    @abstractmethod
    def pairs(self, numbers: Tensor, others: Tensor, vectors: Tensor, filled: Tensor) -> Tensor:
        """Energy of n atoms in eV, (n,) float64; exactly zero for an atom without neighbours.

        Parameters
        ----------
        numbers
            Atomic numbers (n,).
        others
            Those of their neighbours (n, M); any in empty slots.
        vectors
            To the neighbours (n, M, 3), Å; any in empty slots.
        filled
            Which slots hold a neighbour (n, M).
        """
