"""What an architecture is: a network that says what each atom contributes, and what it claims about itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor, nn

from adatom.config import Config as BaseConfig
from adatom.graph import Graph


class NetworkOutput(NamedTuple):
    """What a network returns, in units of the potential's energy scale. None: this network has no such head."""

    energy: Tensor  # (N,)  additive per-atom energy
    features: Tensor  # (N, C)  invariant, for uncertainty and property heads
    pooled: Tensor | None = None  # (S,)  graph-level energy; replaces the sum over atoms
    forces: Tensor | None = None  # (N, 3)  direct head
    stress: Tensor | None = None  # (S, 3, 3)  direct head


class Claims(NamedTuple):
    """What an architecture promises; ``adatom verify`` measures each, and a claim that does not hold fails."""

    symmetry: Literal["O(3)", "learned"]
    reach: Literal["local", "global"]
    extensive: bool  # energy of parts far apart = sum of the parts; a supercell of n cells has n times the energy
    conservative: bool  # forces and stress are derivatives of the energy
    smooth: bool  # no jump as an atom crosses the cutoff


class Model(nn.Module, ABC):
    """Base of all architectures. ``config`` rebuilds the network; ``cutoff`` (Å) is the reach of its edges."""

    Config: ClassVar[type[BaseConfig]]
    config: BaseConfig
    claims: Claims
    cutoff: float

    @abstractmethod
    def forward(self, graph: Graph) -> NetworkOutput:
        """Contribution of each atom; differentiable in ``graph.positions`` and ``graph.cell``."""
