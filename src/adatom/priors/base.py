"""A prior: physics that is added to what the network learns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from adatom.config import Config
from adatom.graph import Graph


class Prior(nn.Module, ABC):
    """Base of all priors. ``config`` rebuilds it; ``name`` is its word in configuration and model files."""

    name: ClassVar[str]
    config: Config

    @abstractmethod
    def forward(self, graph: Graph) -> Tensor:
        """Energy per atom in eV, (N,) float64; exactly zero for an atom without neighbours."""
