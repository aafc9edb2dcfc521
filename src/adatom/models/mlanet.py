"""MLANet: message passing by dual-path equivariant graph attention.

Bi, Zhao, Sun, Hu, Lu, Cheng, arXiv:2603.22810 (2026). The published text leaves choices open; equation numbers below
are the paper's.

An atom carries features of several degrees, x (L2, C). It looks at its neighbours through two paths: what a neighbour
is (value path) and how the pair stands in space (query path), mixed by a gate and weighted by attention, (4)-(9):

    m_i = sum_j a_ij [ g_ij W_V x_j + (1 - g_ij) Q_ij ],   Q_ij = W_Q x_i + E_ij,   E_ij = edge features of r_ij

Two forms:

``default``  sound: attention weights fade at the cutoff and share with a null token, the harmonics of E_ij carry radial
             functions, features couple once per atom after the sum, the energy is a sum over atoms that is exactly
             zero for a lone one, and forces and stress are its derivatives. With ``derivatives: direct`` they come
             from heads that read the messages of every layer; all else is the same, weight by weight.
``paper``    as published: softmax over neighbours, pooled energy [sum, mean, max], direct force and stress heads. The
             energy is not extensive and jumps at the cutoff, and forces are not its derivatives.

Shapes: N atoms, E edges, M neighbours (padded), C channels, L2 = (l_max + 1)^2 harmonics, H heads, D channels of a
head, B radial functions.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from adatom.elements import MAX_Z
from adatom.graph import Graph, edge_vectors, sum_by_owner
from adatom.models.base import Claims, Model, ModelConfig, NetworkOutput, element_rows
from adatom.models.layered import Layered, Rows, Step
from adatom.nn.depth import Depth
from adatom.nn.direct import MOST, DirectHead
from adatom.nn.equivariant import DegreeLinear, Gate, Linear, Readout, add_degrees
from adatom.nn.exact import Exact
from adatom.nn.floor import Floor
from adatom.nn.moments import moments
from adatom.nn.radial import bessel
from adatom.nn.sphere import SphereUpdate
from adatom.nn.spherical import SphericalHarmonics, coupling
from adatom.nn.surroundings import Geometry, Surroundings

SIZES: dict[str, dict[str, int]] = {
    "S": {"l_max": 3, "l_hidden": 1, "channels": 32, "layers": 2, "heads": 4, "radial": 8, "readout": 32},
    "M": {"l_max": 3, "l_hidden": 1, "channels": 64, "layers": 2, "heads": 8, "radial": 8, "readout": 64},
    "L": {"l_max": 3, "l_hidden": 2, "channels": 128, "layers": 3, "heads": 8, "radial": 10, "readout": 128},
}


class MLANetConfig(ModelConfig):
    """``size`` sets the numbers that are not given. The ``paper`` form has direct heads, always."""

    architecture: Literal["mlanet"] = "mlanet"
    form: Literal["default", "paper"] = "default"
    size: Literal["S", "M", "L"] = "S"
    l_max: int = Field(ge=1, le=3, description="degree of the geometry and of the couplings")
    l_hidden: int = Field(ge=0, le=3, description="degree of the features handed from layer to layer, default form")
    channels: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    radial: PositiveInt
    readout: PositiveInt

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        size = values.get("size", "S")
        # one error for an unknown size, not eight
        filled: dict[str, Any] = SIZES[size if isinstance(size, str) and size in SIZES else "S"] | values
        if "l_hidden" not in values and isinstance(filled.get("l_max"), int):
            filled["l_hidden"] = min(filled["l_hidden"], filled["l_max"])
        if filled.get("form") == "paper":
            filled.setdefault("derivatives", "direct")
        return filled

    @model_validator(mode="after")
    def _consistent(self) -> MLANetConfig:
        if self.l_hidden > self.l_max:
            raise ValueError(f"l_hidden ({self.l_hidden}) cannot exceed l_max ({self.l_max})")
        if self.channels % self.heads:
            raise ValueError(f"channels ({self.channels}) must be a multiple of heads ({self.heads})")
        if self.form == "paper" and self.derivatives == "gradient":
            raise ValueError("the published MLANet has direct heads and no other: leave derivatives out")
        return self


class MLANet(Model):
    """Invariant energies of atoms (and direct forces and stress in the ``paper`` form) from a graph."""

    Config = MLANetConfig
    config: MLANetConfig
    about: ClassVar[dict[str, str]] = {
        "default": "the one to begin with: accurate from little data, stable in dynamics",
        "paper": "comparison with the publication; not for dynamics",
    }

    def __init__(self, config: MLANetConfig) -> None:
        super().__init__()
        self.config, self.cutoff = config, config.cutoff
        if config.form == "paper":
            self.claims = Claims("O(3)", "local", extensive=False, conservative=False, smooth=False)
            self.embeds_charge = True
            self.body: DefaultBody | PaperBody = PaperBody(config)
        else:
            gradient = config.derivatives == "gradient"
            self.claims = Claims("O(3)", "local", extensive=True, conservative=gradient, smooth=True)
            self.body = DefaultBody(config)
        self.tables = ("body.embedding.weight",)

    def forward(self, graph: Graph) -> NetworkOutput:
        """Contribution of each atom."""
        output: NetworkOutput = self.body(graph, self.body.embedding.weight.dtype)
        return output


# --- default form -----------------------------------------------------------------------------------------------------


class DefaultBody(Layered):
    """Layers and readouts of the sound form; the energy is relative to the atom without neighbours."""

    def __init__(self, config: MLANetConfig) -> None:
        super().__init__()
        C, last = config.channels, config.layers - 1
        self.channels = C
        self.sources = config.sources
        self.geometry = Geometry(config.cutoff, config.l_max, config.radial)
        self.floor = Floor(config.closest)
        self.depth = Depth(None if config.derivatives == "direct" else config.lowest, config.layers)
        self.embedding = nn.Embedding(config.sources * (MAX_Z + 1), C)
        self.layers = nn.ModuleList(DefaultLayer(config, first=t == 0, last=t == last) for t in range(config.layers))
        self.readouts = nn.ModuleList(Readout(C, config.readout) for _ in range(config.layers))
        heads = config.layers if config.derivatives == "direct" else 0
        self.direct = nn.ModuleList(DirectHead(min(MOST, config.l_max), 3 * C, C) for _ in range(heads))

    def start(self, species: Tensor) -> Rows:
        """An atom starts as a scalar, its element."""
        return self._tell(0, self.embedding(species).unsqueeze(1))

    def step(self, number: int, own: Rows, others: Rows, near: Surroundings, species: Tensor) -> Step:
        """One layer, and what its scalars say."""
        element = self.embedding(species)  # (N, C)
        layer = self._layer(number)
        x, powers = layer(own[0].unflatten(1, (layer.size_in, self.channels)), others, near)
        scalars, readout = x[:, 0], self.readouts[number]
        rows = (scalars,) if number + 1 == len(self.layers) else self._tell(number + 1, x)
        direct = self.direct[number](powers, scalars) if self.direct else ()
        return Step(rows, readout(scalars) - readout(element), *direct)

    def _tell(self, number: int, x: Tensor) -> Rows:
        return self._layer(number).tell(x)

    def _layer(self, number: int) -> DefaultLayer:
        layer = self.layers[number]
        assert isinstance(layer, DefaultLayer)
        return layer


class DefaultLayer(nn.Module):
    """Attention over neighbours, couplings on the atom, gated update.

        s_ij = 1/2 [ x_i^T A x_j + k_j + b(r)^T (u_i + u) ]               attention logit, one per head
        a_ij = 2 f(r) e^s_ij / (n e^c + sum_k f(r) e^s_ik)                fades at the cutoff; n e^c is the null token
        g_ij = sigmoid(v_j + b(r)^T v)                                    which path
        m    = sum_j a g W_V x_j + sum_j a (1 - g) [ W_Q x_i + W_E (b(r) Y(r)) ]
        x   <- x + W Gate( W_o [ m || m m || m m m ] )         products of mixtures of m, on the sphere

    A = W_Q^T W_K is the query-key product of (5) and (6), n the mean number of neighbours. Without neighbours m = 0 and
    x stays as it is. Keys, values and the neighbours' own terms come with one gather of x; per edge there are small
    matrix products only, and W_E mixes heads and radial functions on the atom, after the sum. The first layer receives
    scalars only, the last one returns scalars only.
    """

    def __init__(self, config: MLANetConfig, first: bool, last: bool) -> None:
        super().__init__()
        C, H, B = config.channels, config.heads, config.radial
        l_in, l_out = (0 if first else config.l_hidden), (0 if last else config.l_hidden)
        self.size_in, self.heads, self.radial = (l_in + 1) ** 2, H, B
        self.mean_neighbours = config.mean_neighbours or 30.0
        self.ask = DegreeLinear(l_in, C, H * C + C)  # A x_i and W_Q x_i
        self.own = Linear(C, H * B)  # u_i
        self.other = Linear(C, 2 * H)  # k_j and v_j
        self.free = nn.Parameter(torch.randn(2 * H, B))  # u and v
        self.null = nn.Parameter(torch.zeros(H))  # c
        self.value = DegreeLinear(l_in, H * C, C)
        self.edge = DegreeLinear(config.l_max, H * B, C)
        l_seen = min(MOST, config.l_max) if config.derivatives == "direct" else 0
        self.update = SphereUpdate(config.l_max, l_out, l_seen, C)

    def tell(self, x: Tensor) -> Rows:
        """What this layer wants of neighbours: x (N, (l_in+1)^2 C), k and v (N, 2 H)."""
        return x.flatten(1), self.other(x[:, 0])

    def forward(self, x: Tensor, others: Rows, near: Surroundings) -> tuple[Tensor, Tensor]:
        """New features (N, (l_out+1)^2, C) from x (N, (l_in+1)^2, C), and [ m || m m || m m m ]."""
        updated: tuple[Tensor, Tensor] = self.update(x, self._message(x, others, near))
        return updated

    def _message(self, x: Tensor, others: Rows, near: Surroundings) -> Tensor:
        """Both paths summed over neighbours, (N, L2, C)."""
        (N, L, C), H, B = x.shape, self.heads, self.radial
        x_j, other = others  # (N, M, L C), (N, M, 2 H)
        score, query = self.ask(x).split([H * C, C], dim=2)
        score = score.view(N, L, H, C).transpose(1, 2).reshape(N, H, L * C)
        about = torch.matmul(self.free, near.radial) / math.sqrt(B) + other.transpose(1, 2)  # (N, 2 H, M)
        known, gates = about.split([H, H], dim=1)
        logits = 0.5 * (
            torch.bmm(score, x_j.transpose(1, 2)) / math.sqrt(L * C)
            + torch.bmm(self.own(x[:, 0]).view(N, H, B), near.radial) / math.sqrt(B)
            + known
        )
        weights = self._fading(logits, near)  # (N, H, M)
        valued = weights * torch.sigmoid(gates)
        asked = weights - valued
        values = torch.bmm(valued, x_j).view(N, H, L, C).transpose(1, 2).reshape(N, L, H * C)
        queries = query.view(N, L, H, C // H) * asked.sum(-1).view(N, 1, H, 1)
        directions = moments(asked, near.radial, near.harmonics)  # a (1 - g) b(r) Y(r), (N, L2, H B)
        return add_degrees(self.edge(directions), self.value(values) + queries.reshape(N, L, C))

    def _fading(self, logits: Tensor, near: Surroundings) -> Tensor:
        """Attention weights (N, H, M) that vanish at the cutoff, the null token in the denominator."""
        top = (logits * near.filled).detach().amax(-1, keepdim=True).clamp(min=0)  # cancels: no overflow
        weights = near.fade * torch.exp(logits - top)
        null = self.mean_neighbours * torch.exp(self.null.view(1, -1, 1) - top)
        return weights * (2 / (null + weights.sum(-1, keepdim=True)))


# --- paper form -------------------------------------------------------------------------------------------------------


class PaperBody(nn.Module):
    """Equations (1)-(16) as published: pooled energy, direct forces and stress."""

    def __init__(self, config: MLANetConfig) -> None:
        super().__init__()
        C, width = config.channels, config.readout
        self.cutoff, self.radial = config.cutoff, config.radial
        self.l_max = config.l_max
        self.harmonics = SphericalHarmonics(config.l_max)
        self.sources = config.sources
        self.embedding = nn.Embedding(config.sources * (MAX_Z + 1), C)
        self.lift = nn.Linear(C + 1, C)  # element and total charge of the structure
        self.layers = nn.ModuleList(PaperLayer(config) for _ in range(config.layers))
        self.energy = nn.Sequential(nn.Linear(3 * C, width), nn.SiLU(), nn.Linear(width, 1))
        self.forces = nn.Linear(C, 1, bias=False)
        self.pressure = nn.Linear(2 * C, 1)
        self.shear = nn.Linear(2 * C, 1, bias=False)
        # Y_2 components to a symmetric traceless matrix; harmonics are ordered (y, z, x), Cartesian axes (x, y, z)
        self.traceless = Exact(coupling(1, 1, 2)[[2, 0, 1]][:, [2, 0, 1]])  # (3, 3, 5)

    def forward(self, graph: Graph, dtype: torch.dtype) -> NetworkOutput:
        """Pooled energy and direct heads."""
        vectors = edge_vectors(graph).to(dtype)  # (E, 3)
        r = (vectors * vectors).sum(1).sqrt()  # (E,)
        y = self.harmonics(vectors / r.unsqueeze(1))  # (E, L2)
        species = self.embedding(element_rows(graph, self.sources))  # (N, C)
        x = torch.zeros(species.shape[0], (self.l_max + 1) ** 2, species.shape[1], dtype=species.dtype, device=r.device)
        charge = graph.charge.index_select(0, graph.owner).to(species.dtype).unsqueeze(1)  # (N, 1)
        x = torch.cat([self.lift(torch.cat([species, charge], dim=1)).unsqueeze(1), x[:, 1:]], dim=1)  # (1)
        e = bessel(r, self.cutoff, self.radial)  # (2), reading A
        for layer in self.layers:
            x = layer(x, e, y, graph.edges[0], graph.edges[1])
        structures = graph.cell.shape[0]
        total = sum_by_owner(x, graph.owner, structures)  # (S, L2, C)
        mean = total / torch.bincount(graph.owner, minlength=structures).view(-1, 1, 1)
        largest = _segment_max(
            x[:, 0], graph.owner, structures
        )  # scalars only: a maximum of components is not equivariant
        energy = self.energy(torch.cat([total[:, 0], mean[:, 0], largest], dim=1)).flatten()  # (13), (14)
        forces = self.forces(x[:, 1:4]).squeeze(-1)[:, [2, 0, 1]]  # (15), (y, z, x) to (x, y, z)
        pooled = torch.cat([total, mean], dim=2)
        stress = self.pressure(pooled[:, 0]).unsqueeze(2) * torch.eye(3, dtype=x.dtype, device=x.device)
        if self.l_max >= 2:
            stress = stress + (self.traceless(x.dtype) * self.shear(pooled[:, 4:9]).view(-1, 1, 1, 5)).sum(-1)  # (16)
        return NetworkOutput(torch.zeros_like(r[:0].sum() + x[:, 0, 0]), x[:, 0], energy, forces, stress)


class PaperLayer(nn.Module):
    """Equations (4)-(12), written as they stand; every head has the full width (D = C)."""

    def __init__(self, config: MLANetConfig) -> None:
        super().__init__()
        C, H, l_max = config.channels, config.heads, config.l_max
        self.heads = H
        self.edge_radial = nn.Linear(config.radial, H * C, bias=False)  # W_e, reaches scalars only
        self.edge_harmonics = nn.Parameter(torch.randn(l_max + 1, H * C))  # W_Y
        self.query, self.key, self.value, self.gated = (DegreeLinear(l_max, C, H * C) for _ in range(4))
        self.attend = nn.Parameter(torch.randn(l_max + 1, H, C))  # tensor product to a scalar, channel by channel
        self.choose = nn.Parameter(torch.randn(l_max + 1, H, C))
        self.temperature = nn.Parameter(torch.tensor(math.sqrt(C * (l_max + 1) ** 2)))
        self.merge = DegreeLinear(l_max, H * C, C)
        self.gate = Gate(l_max, C)
        self.register_buffer("degree", self.query.degree.clone(), persistent=False)

    degree: Tensor  # (L2,)

    def forward(self, x: Tensor, e: Tensor, y: Tensor, centre: Tensor, neighbour: Tensor) -> Tensor:
        """New features from x (N, L2, C), radial functions e (E, B) and harmonics y (E, L2)."""
        (N, L, C), H = x.shape, self.heads

        def heads(features: Tensor) -> Tensor:
            return features.view(*features.shape[:2], H, C)  # (..., L2, H, C)

        harmonics = self.edge_harmonics.index_select(0, self.degree) * y.unsqueeze(2)  # (E, L2, H C)
        radial = torch.cat([self.edge_radial(e).unsqueeze(1), torch.zeros_like(harmonics[:, 1:])], dim=1)
        edge = heads(radial + harmonics)  # (4)
        query = heads(self.query(x)).index_select(0, centre) + edge  # (5)
        key = heads(self.key(x)).index_select(0, neighbour) + edge
        attention = _segment_softmax(self._scalar(self.attend, query, key) / self.temperature, centre, N)  # (6), (E, H)
        gated = heads(self.gated(x)).index_select(0, neighbour)
        g = torch.sigmoid(self._scalar(self.choose, gated, edge) / math.sqrt(C)).view(-1, 1, H, 1)  # (7), reading a
        message = g * heads(self.value(x)).index_select(0, neighbour) + (1 - g) * query  # (8)
        message = message * attention.view(-1, 1, H, 1)
        summed = torch.zeros(N, L, H, C, dtype=x.dtype, device=x.device).index_add(0, centre, message)  # (9)
        updated: Tensor = x + self.gate(self.merge(summed.flatten(2)))  # (10)-(12)
        return updated

    def _scalar(self, weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Weighted tensor product to one scalar per head: sum_l sum_u w_lu <a_lu, b_lu> / sqrt(2l+1)."""
        scaled = weight / torch.sqrt(2 * torch.arange(weight.shape[0], device=a.device, dtype=a.dtype) + 1).view(
            -1, 1, 1
        )
        scalar: Tensor = (scaled.index_select(0, self.degree) * a * b).sum((1, 3))
        return scalar


def _segment_softmax(logits: Tensor, segment: Tensor, count: int) -> Tensor:
    """Softmax of (E, H) within the edges of each centre."""
    largest = _segment_max(logits.detach(), segment, count)
    weights = torch.exp(logits - largest.index_select(0, segment))
    total = torch.zeros_like(largest).index_add(0, segment, weights)
    return weights / total.index_select(0, segment)


def _segment_max(values: Tensor, segment: Tensor, count: int) -> Tensor:
    """Largest value of each segment, (E, F) -> (count, F); zero for empty ones."""
    index = segment.unsqueeze(1).expand_as(values)
    return values.new_zeros(count, values.shape[1]).scatter_reduce(0, index, values, "amax", include_self=False)
