"""A small potential with real physics in it (Morse pairs, a three-body term), for tests that need no training."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from adatom.elements import MAX_Z, covalent_radius
from adatom.graph import Graph, edge_vectors
from adatom.models.base import Claims, Model, ModelConfig, NetworkOutput
from adatom.potential import Potential

SOUND = Claims(symmetry="O(3)", reach="local", extensive=True, conservative=True, smooth=True)
REFERENCES = {1: -13.6, 8: -432.1, 14: -163.2, 29: -197.5}  # eV: H, O, Si, Cu


class ToyConfig(ModelConfig):
    """Morse depth (eV), stiffness (1/Å) and strength of the three-body term (eV)."""

    architecture: Literal["toy"] = "toy"
    depth: float = 0.4
    stiffness: float = 1.4
    bend: float = 0.1


def fade(r: Tensor, cutoff: float) -> Tensor:
    """Polynomial (1 - x)^3 (1 + 3x + 6x^2), x = r / cutoff: one at contact, zero with two derivatives at the cutoff."""
    x = (r / cutoff).clamp(max=1.0)
    return (1 - x) ** 3 * (1 + 3 * x + 6 * x * x)


class Toy(Model):
    """e_i = 1/2 sum_j f(r) D [(1 - exp(-a (r - r0)))^2 - 1] + b |sum_j f(r) r_ij / r|^2.

    r0 is the sum of the covalent radii. Smooth, local, extensive, O(3)-invariant and conservative;
    fcc copper is its stable crystal.
    """

    Config = ToyConfig
    claims = SOUND

    def __init__(self, config: ToyConfig | None = None) -> None:
        super().__init__()
        self.config: ToyConfig = config or ToyConfig()
        self.cutoff = self.config.cutoff
        self.depth = nn.Parameter(torch.tensor(self.config.depth))
        self.stiffness = nn.Parameter(torch.tensor(self.config.stiffness))
        self.bend = nn.Parameter(torch.tensor(self.config.bend))
        self.register_buffer("radii", torch.from_numpy(covalent_radius(range(MAX_Z + 1))).float())

    radii: Tensor

    def vectors(self, graph: Graph) -> Tensor:
        """Edge vectors in the dtype of the network, (E, 3)."""
        return edge_vectors(graph).to(self.depth.dtype)

    def envelope(self, r: Tensor) -> Tensor:
        """Weight of an edge, (E,)."""
        return fade(r, self.cutoff)

    def edge_energies(self, graph: Graph, r: Tensor) -> Tensor:
        """Half of the pair energy of each edge, (E,)."""
        z = self.radii.index_select(0, graph.numbers)
        bond = z.index_select(0, graph.edges[0]) + z.index_select(0, graph.edges[1])
        morse = self.depth * ((1 - torch.exp(-self.stiffness * (r - bond))) ** 2 - 1)
        return 0.5 * self.envelope(r) * morse

    def atomic(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Energy (N,) and summed directions (N, 3) of each atom."""
        vectors = self.vectors(graph)
        r = vectors.norm(dim=1)
        pairs = torch.zeros_like(graph.positions[:, 0], dtype=r.dtype)
        pairs = pairs.index_add(0, graph.edges[0], self.edge_energies(graph, r))
        pull = (self.envelope(r) / r).unsqueeze(1) * vectors  # (E, 3)
        pulls = torch.zeros_like(graph.positions, dtype=r.dtype).index_add(0, graph.edges[0], pull)
        return pairs + self.bend * pulls.square().sum(1), pulls

    def forward(self, graph: Graph) -> NetworkOutput:
        """Energy of each atom; its features are the energy alone."""
        energy, _ = self.atomic(graph)
        return NetworkOutput(energy=energy, features=energy.unsqueeze(1))


def toy_potential(cutoff: float = 5.0, dtype: torch.dtype = torch.float64, bend: float = 0.1) -> Potential:
    """A ready potential for H, O, Si and Cu with the references above, in evaluation mode."""
    network = Toy(ToyConfig(cutoff=cutoff, bend=bend)).to(dtype)
    card = {"min_distance_A": {"Si-Si": 1.6, "Cu-Cu": 1.6, "H-H": 0.4, "H-O": 0.6}}
    return Potential(network, REFERENCES, card=card).eval()
