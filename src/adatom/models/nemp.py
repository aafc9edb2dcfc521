"""NEMP: node-equivariant message passing.

Zhang, Guo (2025-26; github.com/zhangylch/NEMP). Edge-equivariant networks couple features with geometry once per edge.
Here the neighbours are summed first, into two virtual nodes of an atom, and are coupled once per atom:

    A_i = sum_j c(r_ij) psi_j        virtual neighbour node: what stands around
    G_i = sum_j c'(r_ij) Y(r_ij)     virtual geometry node: where
    psi_i <- W psi_i + W' (G_i (x) A_i)

The product of sums holds all pairs of neighbours (j, j'), one body order more than a sum of products.

Two forms:

``default``  sound and cheap: per edge there are radial functions and small matrix products only, no networks; all
             capacity stands on the atoms, where features are multiplied on the sphere up to the third order. Sums are
             divided by n + n0, so that the last neighbour fades; energies are exactly zero for a lone atom. With
             ``derivatives: direct`` forces and stress come from heads that read the products of every layer.
``paper``    as published: scalar networks per edge (over 95 % of the arithmetic), one coupling per atom and round, a
             density read out at the end. Sums are divided by n alone: energies fall off a cliff as the last neighbour
             leaves.

Shapes: N atoms, E edges, M neighbours (padded), C channels, L2 = (l_max + 1)^2 harmonics, B radial functions, K
channels that a neighbour sends, P = l_hidden + 1, R = l_max + 1.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn.functional import silu

from adatom.elements import MAX_Z
from adatom.graph import Graph, edge_vectors, sum_by_owner
from adatom.models.base import Claims, Model, ModelConfig, NetworkOutput
from adatom.models.layered import Layered, Rows, Step
from adatom.nn.depth import Depth
from adatom.nn.direct import MOST, DirectHead
from adatom.nn.equivariant import DegreeLinear, Linear, Readout, add_degrees
from adatom.nn.exact import Exact
from adatom.nn.floor import Floor
from adatom.nn.moments import moments
from adatom.nn.radial import envelope
from adatom.nn.sphere import SphereUpdate
from adatom.nn.spherical import SphericalHarmonics, coupling, coupling_paths, degrees
from adatom.nn.surroundings import Geometry, Surroundings

SIZES: dict[str, dict[str, dict[str, int]]] = {
    "default": {
        "S": {"l_max": 3, "l_hidden": 1, "channels": 32, "layers": 2, "radial": 8, "senders": 4, "readout": 32},
        "M": {"l_max": 3, "l_hidden": 1, "channels": 64, "layers": 2, "radial": 8, "senders": 8, "readout": 64},
        "L": {"l_max": 3, "l_hidden": 2, "channels": 128, "layers": 3, "radial": 10, "senders": 8, "readout": 128},
    },
    "paper": {  # S: the published HME21 example; L: the defaults of the published code, with nonlinear networks
        "S": {"l_max": 2, "l_hidden": 2, "channels": 16, "layers": 3, "radial": 16, "pair_code": 128, "readout": 128},
        "M": {"l_max": 2, "l_hidden": 2, "channels": 32, "layers": 3, "radial": 32, "pair_code": 128, "readout": 128},
        "L": {"l_max": 3, "l_hidden": 2, "channels": 64, "layers": 3, "radial": 64, "pair_code": 32, "readout": 128},
    },
}


class NEMPConfig(ModelConfig):
    """``form`` and ``size`` set the numbers that are not given."""

    architecture: Literal["nemp"] = "nemp"
    form: Literal["default", "paper"] = "default"
    size: Literal["S", "M", "L"] = "S"
    l_max: int = Field(ge=1, le=6, description="degree of the geometry")
    l_hidden: int = Field(ge=0, le=6, description="degree of the features handed from layer to layer")
    channels: PositiveInt
    layers: PositiveInt
    radial: PositiveInt
    readout: PositiveInt
    senders: PositiveInt = Field(4, description="channels in which a neighbour sends what it is, default form")
    pair_code: PositiveInt = Field(128, description="width of the code of a pair of elements, paper form")
    blocks: PositiveInt = Field(2, description="residual blocks of every network, paper form")
    edge_width: PositiveInt = Field(64, description="width of the networks on edges, paper form")
    normalise: bool = Field(True, description="features are divided by their size after each round, paper form")

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        sizes = SIZES.get(str(values.get("form", "default")), SIZES["default"])
        filled = sizes.get(str(values.get("size", "S")), sizes["S"]) | values
        if "l_hidden" not in values and isinstance(filled.get("l_max"), int):
            filled["l_hidden"] = min(filled["l_hidden"], filled["l_max"])
        return filled

    @model_validator(mode="after")
    def _consistent(self) -> NEMPConfig:
        if self.l_hidden > self.l_max:
            raise ValueError(f"l_hidden ({self.l_hidden}) cannot exceed l_max ({self.l_max})")
        if self.form == "paper" and self.derivatives == "direct":
            raise ValueError("the paper form of NEMP has no direct head; use derivatives: gradient, or form: default")
        return self


class NEMP(Model):
    """Invariant energies of atoms from a graph."""

    Config = NEMPConfig
    config: NEMPConfig
    about: ClassVar[dict[str, str]] = {
        "default": "speed: long simulations and large systems",
        "paper": "comparison with the publication",
    }

    def __init__(self, config: NEMPConfig) -> None:
        super().__init__()
        self.config, self.cutoff = config, config.cutoff
        smooth = config.form == "default"  # the published one is continuous, but steeper than its cutoff function
        gradient = config.derivatives == "gradient"
        # the published one also learns a shift of every element beside its reference energy
        self.claims = Claims("O(3)", "local", True, conservative=gradient, smooth=smooth, grounded=smooth)
        self.body: DefaultBody | PaperBody = DefaultBody(config) if smooth else PaperBody(config)
        if isinstance(self.body, PaperBody):
            per_round = [f"body.rounds.{t}.{n}" for t in range(config.layers) for n in PaperRound.TABLES]
            self.tables = ("body.first.weight", "body.scale", "body.shift", *per_round)
            self.table_elements = self.body.elements
        else:
            self.tables = ("body.embedding.weight",)

    def forward(self, graph: Graph) -> NetworkOutput:
        """Contribution of each atom."""
        output: NetworkOutput = self.body(graph, next(self.parameters()).dtype)
        return output


# --- default form -----------------------------------------------------------------------------------------------------


class DefaultBody(Layered):
    """Layers and readouts of the sound form; the energy is relative to the atom without neighbours."""

    def __init__(self, config: NEMPConfig) -> None:
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
        x = own[1].unflatten(1, (self._layer(number).size_in, self.channels)) if number else element.unsqueeze(1)
        x, powers = self.layers[number](x, others, near)
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
    """Virtual nodes, products on the sphere, gated update.

        G_i = sum_j (U psi_j)_k b(r_ij) Y(r_ij)                (N, L2, K B): matrix products of a few dozen columns
        A_i = sum_j w_h(r_ij) psi_j,   w_h = sum_b W_hb b_b    (N, (l_in+1)^2, H C)
        m   = (1 + W_s psi_i) 2 / (n + n0) [ W_G G + W_A A ]   channels mix within each degree; the scalars of the
                                                               centre, its element among them, weigh every channel
        psi_i <- psi_i + W Gate( W_o [ m || m m || m m m ] )   products of mixtures of m, on the sphere

    b are Bessel functions with an envelope, K = ``senders``, H = K. n0 is the mean number of neighbours: a crystal
    divides by a constant, and the last neighbour fades. Without neighbours m = 0 and psi stays as it is.
    """

    def __init__(self, config: NEMPConfig, first: bool, last: bool) -> None:
        super().__init__()
        C, B, K = config.channels, config.radial, config.senders
        l_in, l_out = (0 if first else config.l_hidden), (0 if last else config.l_hidden)
        self.size_in, self.senders = (l_in + 1) ** 2, K
        self.mean_neighbours = config.mean_neighbours or 30.0
        self.send = Linear(C, K)
        self.geometry = DegreeLinear(config.l_max, K * B, C)
        self.radial = None if first else Linear(B, K)  # psi of the first layer is what the senders say already
        self.features = None if first else DegreeLinear(l_in, K * C, C)
        self.weigh = Linear(C, (config.l_max + 1) * C)
        l_seen = min(MOST, config.l_max) if config.derivatives == "direct" else 0
        self.update = SphereUpdate(config.l_max, l_out, l_seen, C)
        self.register_buffer("degree", torch.tensor(degrees(config.l_max)), persistent=False)

    degree: Tensor  # (L2,)

    def tell(self, x: Tensor) -> Rows:
        """What this layer wants of neighbours: U psi (N, K) and, but in the first, psi (N, (l_in+1)^2 C)."""
        sent = self.send(x[:, 0])
        return (sent,) if self.radial is None else (sent, x.flatten(1))

    def forward(self, x: Tensor, others: Rows, near: Surroundings) -> tuple[Tensor, Tensor]:
        """New features (N, (l_out+1)^2, C) from x (N, (l_in+1)^2, C), and [ m || m m || m m m ]."""
        N, C = x.shape[0], x.shape[2]
        weights = 1 + self.weigh(x[:, 0]).view(N, -1, C).index_select(1, self.degree)  # (N, L2, C)
        share = 2 / (near.fade.sum(2, keepdim=True) + self.mean_neighbours)  # (N, 1, 1)
        m = self._virtual_nodes(others, near) * (share * weights)
        updated: tuple[Tensor, Tensor] = self.update(x, m)
        return updated

    def _virtual_nodes(self, others: Rows, near: Surroundings) -> Tensor:
        """Geometry and features of the neighbours, summed and mixed, (N, L2, C)."""
        N, L, K = near.radial.shape[0], self.size_in, self.senders
        places: Tensor = self.geometry(moments(others[0].transpose(1, 2), near.radial, near.harmonics))
        if self.radial is None or self.features is None:
            return places
        weights = torch.matmul((self.radial.weight * self.radial.scale).T, near.radial)  # (N, H, M)
        values = torch.bmm(weights, others[1]).view(N, K, L, -1)
        return add_degrees(places, self.features(values.transpose(1, 2).reshape(N, L, -1)))


# --- paper form -------------------------------------------------------------------------------------------------------

EPSILON = 1e-6  # one for training and inference; the published files have two, and two energies


class PaperBody(nn.Module):
    """The published network: pair code, three rounds, density readout."""

    def __init__(self, config: NEMPConfig) -> None:
        super().__init__()
        C, B, P, T = config.channels, config.radial, config.l_hidden + 1, config.layers
        width, blocks = config.edge_width, config.blocks
        elements = self.elements = config.elements or tuple(range(1, MAX_Z + 1))
        species, self.sources = config.sources * len(elements), config.sources
        self.cutoff, self.channels, self.l_hidden = config.cutoff, C, config.l_hidden
        self.harmonics = SphericalHarmonics(config.l_max)
        self.pairs = PairCode(elements, config)
        self.radial = Network(2 * B, width, (P + 2) * C, blocks)
        self.coefficients = nn.ModuleList(Network((2 + t) * C, width, 3 * P * C, blocks) for t in range(T + 1))
        self.first = SpeciesLinear(species, C)
        self.rounds = nn.ModuleList(PaperRound(config, species, t + 1) for t in range(T))
        self.out = Network((T + 2) * C, config.readout, 1, blocks)
        self.scale = nn.Parameter(torch.ones(species))
        self.shift = nn.Parameter(torch.zeros(species))
        index = torch.zeros(MAX_Z + 1, dtype=torch.int64)
        index[torch.tensor(elements)] = torch.arange(len(elements))
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("degree", torch.tensor(degrees(config.l_max)), persistent=False)

    index: Tensor  # (119,)  place of each element
    degree: Tensor  # (R^2,)

    def forward(self, graph: Graph, dtype: torch.dtype) -> NetworkOutput:
        """Rounds of messages; every sum over neighbours is written into rho or psi."""
        vectors = edge_vectors(graph).to(dtype)
        N, C, P = graph.numbers.shape[0], self.channels, self.l_hidden + 1
        i, j = graph.edges[0], graph.edges[1]
        element = self.index.index_select(0, graph.numbers)  # (N,)
        species = self._rows(graph, element)
        d = ((vectors * vectors).sum(1) + EPSILON).sqrt()  # (E,)
        y = self._unit_harmonics(vectors / d.unsqueeze(1))  # (E, R^2)
        f = envelope(d, self.cutoff).square().unsqueeze(1)  # (E, 1), zero beyond the cutoff
        n = EPSILON + sum_by_owner(f, i, N)  # (N, 1)
        frequency, code = self.pairs(element.index_select(0, i), element.index_select(0, j))
        waves = torch.sinc(frequency * (d / self.cutoff).unsqueeze(1)) * f
        radial = self.radial(torch.cat([code[:, C:] * f, waves], dim=1)).view(-1, P + 2, C)
        edge = torch.cat([code[:, :C] * f, radial[:, P + 1]], dim=1)  # a_ij, (E, 2 C)
        lower = self.degree[: P * P]
        y_low = y[:, : P * P].unsqueeze(2)  # (E, P^2, 1)
        size = torch.sqrt(2.0 * lower + 1).to(y.dtype).view(1, -1, 1)
        rho = [sum_by_owner(radial[:, P], i, N)]
        psi = self.first(sum_by_owner(radial.index_select(1, lower) * y_low, i, N) / n.unsqueeze(2), species)
        g = self.coefficients[0](edge).view(-1, 3, P, C).index_select(2, lower)  # (E, 3, P^2, C)
        for round_, coefficients in zip(self.rounds, self.coefficients[1:], strict=True):
            hat = psi / (size * math.sqrt(P))
            seen = g[:, 0] * hat.index_select(0, i) + g[:, 1] * hat.index_select(0, j)
            edge = torch.cat([edge, (y_low * seen).sum(1) / math.sqrt(2)], dim=1)
            rho.append((hat * sum_by_owner(g[:, 2] * y_low, i, N)).sum(1))
            psi = round_(psi, edge, y, graph.edges, species, n)
            g = coefficients(edge).view(-1, 3, P, C).index_select(2, lower)
        rho.append((psi / (size * math.sqrt(3 * P)) * sum_by_owner(g.sum(1) * y_low, i, N)).sum(1))
        density = torch.cat(rho, dim=1) / n  # (N, (T + 2) C)
        energy = self.scale.index_select(0, species) * self.out(density).flatten()
        return NetworkOutput(energy + self.shift.index_select(0, species), density)

    def _rows(self, graph: Graph, element: Tensor) -> Tensor:
        """Rows (N,) of the weights of atoms: elements, one source of labels after the other."""
        if self.sources == 1:
            return element
        return element + len(self.elements) * graph.source.index_select(0, graph.owner)

    def _unit_harmonics(self, directions: Tensor) -> Tensor:
        """Harmonics of vectors that are not quite of unit length, sum_m Y_lm^2 = 2l + 1 restored per degree."""
        y: Tensor = self.harmonics(directions)
        square = torch.zeros(y.shape[0], int(self.degree[-1]) + 1, dtype=y.dtype, device=y.device)
        square = square.index_add(1, self.degree, y * y) + EPSILON
        factor = torch.sqrt((2 * torch.arange(square.shape[1], dtype=y.dtype, device=y.device) + 1) / square)
        return y * factor.index_select(1, self.degree)


class PaperRound(nn.Module):
    """Virtual nodes and their one coupling per atom.

    A_i = sum_j c_l(ij) psi_j W_0,   G_i = sum_j c'_l(ij) Y_lm(ij),   c, c' = MLP(a_ij)
    O_i = 1/(n^2 sqrt(paths)) sum over paths lambda_path,Z (G_i (x) A_i)
    psi <- (psi W_2 + O W_1) / sqrt 2,   divided by its root mean square
    """

    TABLES: ClassVar[tuple[str, ...]] = (
        "before.weight",
        "after.weight",
        "keep.weight",
        "weight",
    )  # a row for each species

    def __init__(self, config: NEMPConfig, species: int, number: int) -> None:
        super().__init__()
        C, self.P, self.R = config.channels, config.l_hidden + 1, config.l_max + 1
        self.normalise = config.normalise
        self.messages = Network((2 + number) * C, config.edge_width, (self.P + self.R) * C, config.blocks)
        self.before, self.after, self.keep = (SpeciesLinear(species, C) for _ in range(3))  # W_0, W_1, W_2
        self.paths = node_paths(config.l_max, config.l_hidden)
        self.weight = nn.Parameter(torch.randn(species, len(self.paths), C))  # lambda
        self.couplings = nn.ModuleList(Exact(unit_coupling(*path)) for path in self.paths)
        self.register_buffer("degree", torch.tensor(degrees(config.l_max)), persistent=False)

    degree: Tensor  # (R^2,)

    def forward(self, psi: Tensor, edge: Tensor, y: Tensor, edges: Tensor, species: Tensor, n: Tensor) -> Tensor:
        """New features (N, P^2, C)."""
        (N, L, C), i = psi.shape, edges[0]
        c = self.messages(edge).view(-1, self.P + self.R, C)
        near, where = c[:, : self.P], c[:, self.P :]
        sent = self.before(psi, species).index_select(0, edges[1])  # (E, P^2, C)
        neighbour = sum_by_owner(near.index_select(1, self.degree[:L]) * sent, i, N)  # A
        geometry = sum_by_owner(where.index_select(1, self.degree) * y.unsqueeze(2), i, N)  # G
        product = self._couple(geometry, neighbour, species) / n.square().unsqueeze(2)  # O
        psi = (self.keep(psi, species) + self.after(product, species)) / math.sqrt(2)
        if self.normalise:
            psi = psi / (EPSILON + psi.square().sum((1, 2), keepdim=True) / (self.P * C)).sqrt()
        return psi

    def _couple(self, G: Tensor, A: Tensor, species: Tensor) -> Tensor:
        """Sum over paths (l1 of G, l2 of A) -> l3, channel by channel, (N, P^2, C)."""
        weight = self.weight.index_select(0, species)  # (N, paths, C)
        parts = [torch.zeros_like(A[:, degree**2 : (degree + 1) ** 2]) for degree in range(self.P)]
        for k, ((l1, l2, l3), tensor) in enumerate(zip(self.paths, self.couplings, strict=True)):
            g, a = G[:, l1**2 : (l1 + 1) ** 2], A[:, l2**2 : (l2 + 1) ** 2]
            parts[l3] = parts[l3] + weight[:, k, None] * torch.einsum("nac,nbc,abm->nmc", g, a, tensor(g.dtype))
        count = [sum(path[2] == degree for path in self.paths) for degree in range(self.P)]
        return torch.cat([part / math.sqrt(paths) for part, paths in zip(parts, count, strict=True)], dim=1)


def node_paths(l_max: int, l_hidden: int) -> list[tuple[int, int, int]]:
    """Parity-even paths (geometry l1 <= l_max, features l2 <= l_hidden) -> l3 <= l_hidden."""
    return [path for path in coupling_paths(l_max, l_hidden) if path[1] <= l_hidden]


def unit_coupling(l1: int, l2: int, l3: int) -> Any:
    """Coupling tensor of one path, its squares summing to one."""
    return coupling(l1, l2, l3) / math.sqrt(2 * l3 + 1)


class PairCode(nn.Module):
    """Frequencies (B,) and weights (B + C,) of every pair of elements, from their atomic numbers.

    u_ab = MLP_1(Z_a, Z_b),  alpha_ab = MLP_2(u_ab),  w_ab = MLP_3(u_ab)
    """

    def __init__(self, elements: tuple[int, ...], config: NEMPConfig) -> None:
        super().__init__()
        code, width, B = config.pair_code, config.readout, config.radial
        self.code = Network(2, width, code, config.blocks, bias=1.0)
        self.frequency = Network(code, width, B, config.blocks, bias=0.01 + 12 * torch.rand(B))
        self.weight = Network(code, width, B + config.channels, config.blocks)
        z = torch.tensor(elements, dtype=torch.float64)
        self.register_buffer("numbers", torch.cartesian_prod(z, z), persistent=False)

    numbers: Tensor  # (species^2, 2)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the two tables for pairs of species (E,), (E,)."""
        code = self.code(self.numbers.to(self.weight.first.weight.dtype))
        row = a * math.isqrt(self.numbers.shape[0]) + b
        return self.frequency(code).index_select(0, row), self.weight(code).index_select(0, row)


class SpeciesLinear(nn.Module):
    """x W_Z / sqrt(C): (N, L, C) -> (N, L, C), a matrix for each element."""

    def __init__(self, species: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(species, channels, channels))

    def forward(self, x: Tensor, species: Tensor) -> Tensor:
        """Mix channels."""
        return torch.bmm(x, self.weight.index_select(0, species) / math.sqrt(x.shape[2]))


class Network(nn.Module):
    """Dense, residual blocks of [SiLU, Dense] twice, SiLU, Dense; without ``bias`` zero gives exactly zero.

    Networks with a bias start as the constant that ``bias`` says.
    """

    def __init__(self, size: int, width: int, out: int, blocks: int, bias: float | Tensor | None = None) -> None:
        super().__init__()
        biased = bias is not None
        small = 0.01 if biased else 1.0
        gain = small * 1.67462  # 1 / rms of SiLU of a unit normal, as published
        self.first = Linear(size, width, biased, gain)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.SiLU(), Linear(width, width, biased, gain), nn.SiLU(), Linear(width, width, biased, gain))
            for _ in range(blocks)
        )
        self.last = Linear(width, out, biased, small)
        if self.last.bias is not None and bias is not None:
            with torch.no_grad():
                self.last.bias.copy_(torch.as_tensor(bias).expand(out))

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., out)."""
        x = self.first(x)
        for block in self.blocks:
            x = (x + block(x)) / math.sqrt(2)
        out: Tensor = self.last(silu(x))
        return out
