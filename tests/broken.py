"""Models that break one promise each: the contract must catch every one of them."""

from __future__ import annotations

import torch
from torch import Tensor

from adatom.graph import Graph, sum_by_owner
from adatom.models.base import Claims, NetworkOutput
from adatom.potential import Derivatives, Potential
from toy import REFERENCES, Toy


class HardCutoff(Toy):
    """No envelope: an edge counts in full until it is gone."""

    def envelope(self, r: Tensor) -> Tensor:
        return torch.ones_like(r)


class SteepForce(Toy):
    """The energy fades with a slope: it is continuous, its force jumps at the cutoff."""

    def envelope(self, r: Tensor) -> Tensor:
        return 1 - r / self.cutoff


class KeenLast(Toy):
    """A mean over neighbours by their fading weights: a lone neighbour never fades."""

    def forward(self, graph: Graph) -> NetworkOutput:
        r = self.vectors(graph).norm(dim=1)
        weight = self.envelope(r)
        zeros = torch.zeros_like(graph.positions[:, 0], dtype=r.dtype)
        total = zeros.index_add(0, graph.edges[0], weight).clamp(min=1e-30)
        mean = zeros.index_add(0, graph.edges[0], weight * torch.exp(-r)) / total
        return NetworkOutput(energy=mean, features=mean.unsqueeze(1))


class Flaring(Toy):
    """A square root of the fading weights: energy and weights fade, the force grows without bound."""

    def forward(self, graph: Graph) -> NetworkOutput:
        output = super().forward(graph)
        r = self.vectors(graph).norm(dim=1)
        weight = (1 - r / self.cutoff).clamp(min=1e-14)
        flare = torch.zeros_like(output.energy).index_add(0, graph.edges[0], weight).clamp(min=1e-14).sqrt()
        return output._replace(energy=output.energy + 0.1 * (flare - 1e-7))


class MeanPooled(Toy):
    """The energy of a structure is the mean over its atoms."""

    def forward(self, graph: Graph) -> NetworkOutput:
        output = super().forward(graph)
        structures = graph.cell.shape[0]
        atoms = sum_by_owner(torch.ones_like(output.energy), graph.owner, structures)
        return output._replace(pooled=sum_by_owner(output.energy, graph.owner, structures) / atoms)


class Direct(Toy):
    """Forces from a head of their own, close to but not the derivative of the energy."""

    def forward(self, graph: Graph) -> NetworkOutput:
        energy, pulls = self.atomic(graph)
        stress = torch.zeros_like(graph.cell, dtype=energy.dtype)
        return NetworkOutput(energy=energy, features=energy.unsqueeze(1), forces=-pulls, stress=stress)


class Restless(Toy):
    """A direct head that pushes everything to one side and shears every cell."""

    def forward(self, graph: Graph) -> NetworkOutput:
        output = super().forward(graph)
        push = torch.linspace(0.1, 0.3, graph.numbers.shape[0], dtype=output.energy.dtype)
        forces = push.unsqueeze(1) * torch.tensor([1.0, 0.5, 0.0], dtype=push.dtype)
        stress = torch.tensor([[0.0, 0.1, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=push.dtype)
        return output._replace(forces=forces, stress=stress.expand(graph.cell.shape[0], 3, 3))


class Tilted(Toy):
    """One axis weighs more than the others."""

    def vectors(self, graph: Graph) -> Tensor:
        return super().vectors(graph) * torch.tensor([1.0, 1.0, 1.02], dtype=self.depth.dtype)


class Handed(Toy):
    """The triple product of three moments of the neighbourhood: turns with it, but knows left from right."""

    def forward(self, graph: Graph) -> NetworkOutput:
        output = super().forward(graph)
        vectors = self.vectors(graph)
        r = vectors.norm(dim=1, keepdim=True)
        heavy = graph.numbers.index_select(0, graph.edges[1]).to(r.dtype).unsqueeze(1) / 29
        edges = self.envelope(r) * vectors / r
        zeros = torch.zeros_like(graph.positions, dtype=r.dtype)
        a, b, c = (zeros.index_add(0, graph.edges[0], edges * w) for w in (1.0, torch.exp(-r), r * heavy))
        return output._replace(energy=output.energy + (a * torch.linalg.cross(b, c)).sum(1))


class Leaky(Toy):
    """The mean energy of the whole batch enters every structure."""

    def forward(self, graph: Graph) -> NetworkOutput:
        output = super().forward(graph)
        return output._replace(energy=output.energy + 0.01 * torch.tanh(output.energy.mean()))


class PaddingReader(Toy):
    """The width of the padded table enters."""

    def forward(self, graph: Graph) -> NetworkOutput:
        output = super().forward(graph)
        return output._replace(energy=output.energy * (1 + 1e-6 * graph.slots.shape[1]))


class Offset(Toy):
    """A lone atom is worth something beyond its reference."""

    def forward(self, graph: Graph) -> NetworkOutput:
        output = super().forward(graph)
        return output._replace(energy=output.energy + 1e-3)


class Telepathic(Toy):
    """Every atom feels the energy of its whole structure, however far."""

    def forward(self, graph: Graph) -> NetworkOutput:
        output = super().forward(graph)
        total = sum_by_owner(output.energy, graph.owner, graph.cell.shape[0]).index_select(0, graph.owner)
        return output._replace(energy=output.energy * (1 + 0.01 * torch.tanh(total)))


class Anchored(Toy):
    """The origin of coordinates matters."""

    def forward(self, graph: Graph) -> NetworkOutput:
        output = super().forward(graph)
        return output._replace(energy=output.energy + 1e-4 * torch.sin(graph.positions.sum(1)).to(output.energy.dtype))


class Ordered(Toy):
    """The first atom of the list weighs more."""

    def forward(self, graph: Graph) -> NetworkOutput:
        output = super().forward(graph)
        place = torch.arange(graph.numbers.shape[0]) - graph.table[:, 0].index_select(0, graph.owner)
        return output._replace(energy=output.energy * (1 + 0.01 * (place == 0)))


class CellReader(Toy):
    """The shape of the cell matters, not only the lattice it spans."""

    def forward(self, graph: Graph) -> NetworkOutput:
        output = super().forward(graph)
        longest = graph.cell.norm(dim=2).amax(dim=1).index_select(0, graph.owner).to(output.energy.dtype)
        return output._replace(energy=output.energy * (1 + 1e-3 * longest))


class ShiftReader(Toy):
    """The image an atom was written down in matters."""

    def forward(self, graph: Graph) -> NetworkOutput:
        output = super().forward(graph)
        far = graph.shifts.abs().sum(1).to(output.energy.dtype)
        count = torch.zeros_like(output.energy).index_add(0, graph.edges[0], far)
        return output._replace(energy=output.energy + 1e-5 * count)


class Forgetful(Toy):
    """Noise: the same question has another answer."""

    def forward(self, graph: Graph) -> NetworkOutput:
        output = super().forward(graph)
        return output._replace(energy=output.energy * (1 + 1e-3 * torch.rand(())))


class Vandal(Toy):
    """It writes into its input."""

    def forward(self, graph: Graph) -> NetworkOutput:
        graph.charge.add_(1.0)
        return super().forward(graph)


class Nothing(Toy):
    """It answers NaN."""

    def forward(self, graph: Graph) -> NetworkOutput:
        output = super().forward(graph)
        return output._replace(energy=output.energy * torch.nan)


def broken_potential(kind: type[Toy], claims: Claims, derivatives: Derivatives = "gradient") -> Potential:
    """A float64 potential of a broken model that makes the given claims."""
    network = kind().double()
    network.claims = claims
    return Potential(network, {29: REFERENCES[29], 8: REFERENCES[8]}, derivatives=derivatives).eval()
