"""AllScAIP: atoms attend to their neighbours, the neighbours to one another, and all atoms to all.

Qu, Wood, Krishnapriyan, Ulissi, arXiv:2603.06567 (2026); the soft graph is that of R. Liu, arXiv:2602.04861.

Which neighbours an atom sees is a smooth function of all distances (nn/softgraph.py): an edge fades by its rank among
the neighbours of either end and by its length, and enters every attention with the weight

    w_ij = exp(b(env)),   b(env) = -env^2 / (1 - env^2),   env = soft maximum of rank_i(j) / k, rank_j(i) / k, r / r_c

The atom itself has weight 1 and is the token to which attention returns as neighbours leave. Four components:

``Ne``  neighbourhood attention over the slots of an atom, softmax_b(q_a k_b / sqrt(D) + b(env_b)).
``An``  angles in it: channels of degree l carry Y_lm, so that q k = sum_l P_l(cos theta_ab) sum_(c of l) q_c k_c.
``No``  node attention among all atoms of a structure.
``Si``  distances in the node attention: a bias log softplus(sum_n w_n sinc(omega_n r)), published form only.

Two forms:

``default``  sound. Slots are narrow, capacity stands on the atoms. A round of neighbourhood attention with the atom
             as the query ends in bond orders (Steinhardt's, with learned weights) whose invariants update the atom:

                 h_ij = SiLU RMS( U x_i + V x_j + R b(r_ij) )                        what i sees in slot j
                 a_ij = w_ij e^(s h_ij) / (n e^c + sum_k w_ik e^(s h_ik))             attention; n e^c is the null token
                 A_i  = sum_j a_ij (W h_ij) Y(r_ij)                                  bond orders, (L2, F)
                 x_i <- x_i + W' SiLU( W'' [ A_00 || <f1 f2> || <f1 f2 f3> ] )       f = fields on the sphere from A

             Products of bond orders hold every pair and triple of neighbours with their angles. With ``An`` slots
             attend to one another as well. A lone atom has exactly its reference energy. Energies are invariant under
             rotation and inversion unless ``symmetry: learned`` lets raw harmonics in. Total charge and multiplicity
             enter where the training data give them.
``paper``    as published: features of all slots in every layer, two attentions (edges from an atom, edges to it), raw
             harmonics l <= 5 and bond orders l <= 9 averaged without weights. The energy depends on the orientation,
             jumps by the bond orders as an edge enters, and with node attention is not extensive. It equals the
             authors' code (fairchem-core 2.24.0) to 1e-10: tests/against.

Node attention and periodic boundaries. The published one runs over the atoms of the cell, not over its images, and
(NeNo) knows no distances: supercells agree exactly, and an atom feels every other one of a large box alike, however
far. Si takes the distance to the nearest image, and supercells then differ. In the default form every pair weighs

    W_ij = sum over images of (1 - (r_ij / R)^2)^3 for r_ij < R,
    a_ij = W_ij e^(q_i k_j / sqrt(D)) / (n e^c + sum_k W_ik e^(q_i k_k / sqrt(D)))

with R the node cutoff (twice the cutoff): n cells are exactly n times one, parts farther apart add up exactly, and in
large structures only near atoms are looked at.

Shapes: S structures, N atoms, E edges, M neighbours (padded), C channels of an atom, F of a slot (H in the paper form),
H heads, D channels of a head, B radial functions, L2 = (l_max + 1)^2 harmonics.
"""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator
from torch import Tensor, nn
from torch.nn.functional import gelu, silu, softplus

from adatom.config import nearest
from adatom.elements import MAX_Z
from adatom.graph import Graph, edge_vectors, pad_rows
from adatom.models.base import Claims, Model, ModelConfig, NetworkOutput, check_rows, element_rows
from adatom.models.base import stress_from_virials as by_volume
from adatom.nn import softgraph
from adatom.nn.attention import (
    AngularAttention,
    FadingAttention,
    LegendreEncoding,
    Pairs,
    kept,
    node_attention,
    published_spread,
    slot_attention,
)
from adatom.nn.depth import Depth
from adatom.nn.direct import DirectHeads
from adatom.nn.equivariant import Linear, Readout, bounded
from adatom.nn.exact import Exact
from adatom.nn.floor import Floor
from adatom.nn.images import Images, fading_sum, folded, images_within, nearest_distance, sinc
from adatom.nn.nearby import Nearby, nearby
from adatom.nn.radial import bessel
from adatom.nn.slots import Slots, gather_neighbours, index_slots, pad_edges
from adatom.nn.sphere import SphereProduct
from adatom.nn.spherical import SphericalHarmonics
from adatom.nn.transformer import FeedForward, MultiHead, NormHead

Component = Literal["Ne", "An", "No", "Si"]
COMPONENTS: tuple[Component, ...] = ("Ne", "An", "No", "Si")

PAPER = {"cutoff": 6.0, "symmetry": "learned"}
SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "default": {
        "S": {"channels": 64, "layers": 2, "heads": 4, "slot_channels": 32, "neighbours": 24, "components": "NeNo"},
        "M": {"channels": 128, "layers": 2, "heads": 8, "slot_channels": 64, "neighbours": 30, "components": "NeNo"},
        "L": {"channels": 256, "layers": 3, "heads": 8, "slot_channels": 96, "neighbours": 30, "components": "NeAnNo"},
    },
    "paper": {
        "sm": {"channels": 512, "layers": 6, "heads": 8, "neighbours": 30, "components": "NeNo", **PAPER},
        "md": {"channels": 640, "layers": 10, "heads": 10, "neighbours": 30, "components": "NeNo", **PAPER},
        "lg": {"channels": 1024, "layers": 8, "heads": 16, "neighbours": 30, "components": "NeNo", **PAPER},
    },
}
CROWD = 350  # atoms of a structure beyond which those within the node cutoff are looked for, default form
ORDER = 3  # bond orders multiplied at most, default form
SPREAD = 6.0  # size of a sum of neighbours in many directions, before it is bounded to one
PAPER_SIZE = {"S": "sm", "M": "md", "L": "lg"}


class AllScAIPConfig(ModelConfig):
    """``size`` sets the numbers that are not given; the ``paper`` form also knows its sizes as sm, md and lg."""

    architecture: Literal["allscaip"] = "allscaip"
    form: Literal["default", "paper"] = "default"
    size: Literal["S", "M", "L", "sm", "md", "lg"] = "S"
    components: tuple[Component, ...] = Field(description="written as one word: Ne, NeNo, NeAnNo, NeAnNoSi, ...")
    symmetry: Literal["invariant", "learned"] = Field("invariant", description="learned: raw harmonics enter")
    neighbours: PositiveInt = Field(description="k, the number at which ranks fade")
    channels: PositiveInt = Field(description="of an atom; in the paper form of a slot as well")
    layers: PositiveInt
    heads: PositiveInt
    slot_channels: PositiveInt = Field(32, description="of a slot, default form")
    l_max: int = Field(3, ge=1, le=4, description="degree of the bond orders and of the angular encoding, default form")
    radial: PositiveInt = 8
    readout: PositiveInt = 32
    legendre: tuple[int, ...] | None = Field(None, description="channels of each degree in a head, paper form")
    node_cutoff: PositiveFloat | None = Field(None, description="Å, default form; None: twice the cutoff")

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        table, size = SIZES["paper" if values.get("form") == "paper" else "default"], str(values.get("size", "S"))
        # one error for an unknown size, not one for every number it would set
        return table.get(PAPER_SIZE.get(size, size), table.get(size, next(iter(table.values())))) | values

    @field_validator("components", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        for word in (words := re.findall("[A-Z][a-z]*|[^A-Z]+", value)):
            if word not in COMPONENTS:
                guess = nearest(word, list(COMPONENTS)) or ", ".join(COMPONENTS)
                raise ValueError(f"unknown component '{word}': did you mean {guess}?")
        return tuple(words)

    @model_validator(mode="after")
    def _consistent(self) -> AllScAIPConfig:
        if "Ne" not in self.components:
            raise ValueError("the neighbourhood attention Ne is always part of it")
        if "Si" in self.components and ("No" not in self.components or self.form == "default"):
            raise ValueError("Si encodes distances in the node attention No of the paper form")
        if len(set(self.components)) < len(self.components):
            raise ValueError("a component is named twice")
        if self.form == "default" and self.size not in SIZES["default"]:
            raise ValueError(f"size {self.size} belongs to the paper form; the default form has S, M and L")
        if self.form == "paper" and self.symmetry == "invariant":
            raise ValueError("the published form learns its symmetry: leave symmetry out")
        if self.channels % self.heads:
            raise ValueError(f"channels ({self.channels}) must be a multiple of heads ({self.heads})")
        if self.form == "default" and (
            self.slot_channels % self.heads or self.slot_channels // self.heads <= self.l_max
        ):
            raise ValueError(f"slot_channels ({self.slot_channels}): heads ({self.heads}) times more than l_max")
        return self


class AllScAIP(Model):
    """Energies of atoms (and direct forces where asked for) from a graph."""

    Config = AllScAIPConfig
    config: AllScAIPConfig
    about: ClassVar[dict[str, str]] = {
        "default": "effects beyond the cutoff, charged and open-shell systems",
        "paper": "comparison with the publication; very large data",
    }
    compiles = False  # which edges are attended to depends on their lengths

    def __init__(self, config: AllScAIPConfig) -> None:
        super().__init__()
        self.config, published, node = config, config.form == "paper", "No" in config.components
        # published ranks feel what lies up to the reach of the bump beyond the cutoff
        self.cutoff = config.cutoff + (softgraph.BUMP_REACH * softgraph.RANK_WIDTH if published else 0.0)
        self.claims = Claims(
            "O(3)" if config.symmetry == "invariant" else "learned",
            "global" if node else "local",
            extensive=not (published and node),
            conservative=config.derivatives == "gradient",
            smooth=not published,
            grounded=not published,
        )
        self.body: DefaultBody | PaperBody = PaperBody(config) if published else DefaultBody(config)
        self.floor = Floor(None if published else config.closest)
        self.tables = ("body.species.weight",)
        self.embeds_charge = self.embeds_spin = True  # both or none: a multiplicity nobody trained on is refused

    def forward(self, graph: Graph) -> NetworkOutput:
        """Contribution of each atom."""
        output: NetworkOutput = self.body(graph, self._attended(graph, self.body.species.weight.dtype))
        return output

    def _attended(self, graph: Graph, dtype: torch.dtype) -> Attended:
        """The soft graph: edges of which neither end has too many nearer ones."""
        k, cutoff = self.config.neighbours, self.config.cutoff
        vectors = self.floor(edge_vectors(graph).to(dtype), *graph.numbers[graph.edges])  # (E, 3)
        r = (vectors * vectors).sum(1).sqrt()  # (E,)
        every = index_slots(graph.edges, graph.slots, graph.reverse, dtype)
        padded = softgraph.distances_in_slots(r, every)
        ranks = (
            softgraph.soft_ranks(padded, k) if self.config.form == "paper" else softgraph.fading_ranks(padded, cutoff)
        )
        env = softgraph.soft_envelope(r, ranks, every, graph.reverse, k, cutoff)
        keep = (env < 1) & (env.index_select(0, graph.reverse) < 1)  # both or none: their last bits may differ
        chosen = keep.nonzero().flatten()
        edges = graph.edges.index_select(1, chosen)
        number = keep.cumsum(0) - 1
        reverse = number.index_select(0, graph.reverse.index_select(0, chosen))
        slots = index_slots(edges, pad_rows(edges[0], graph.numbers.shape[0]), reverse, dtype)
        r = r.index_select(0, chosen)
        unit = vectors.index_select(0, chosen) / r.unsqueeze(1)
        return Attended(slots, r, unit, softgraph.log_weight(env.index_select(0, chosen)))


class Attended(NamedTuple):
    """The edges that attention sees."""

    slots: Slots
    r: Tensor  # (E,)  Å
    unit: Tensor  # (E, 3)  direction to the neighbour
    bias: Tensor  # (E,)  logarithm of the weight


# --- default form -----------------------------------------------------------------------------------------------------


class Neighbours(NamedTuple):
    """Geometry of one batch as every layer of the default form sees it; zero in empty slots."""

    slots: Slots
    bias: Tensor  # (N, 1 + M)  logarithm of the weight; 0 for the atom itself, minus infinity in empty slots
    weight: Tensor  # (N, M, 1)
    radial: Tensor  # (N, M, B)
    harmonics: Tensor  # (N, M, L2)


class DefaultBody(nn.Module):
    """Layers and readout of the sound form."""

    def __init__(self, config: AllScAIPConfig) -> None:
        super().__init__()
        self.config, C = config, config.channels
        self.reach = config.node_cutoff or 2 * config.cutoff
        self.harmonics = SphericalHarmonics(config.l_max)
        self.species = nn.Embedding(config.sources * (MAX_Z + 1), C)
        charged = config.charges is not None or config.spins is not None
        self.state = State(C) if charged else None
        self.layers = nn.ModuleList(DefaultLayer(config) for _ in range(config.layers))
        # sum of W in uniform surroundings: 16/105 of the atoms within the node cutoff
        typical = 16 / 105 * (self.reach / config.cutoff) ** 3 * (config.mean_neighbours or 30.0)
        self.nodes = FadingAttention(C, config.heads, typical) if "No" in config.components else None
        self.readout = Readout(C, config.readout)
        direct = config.derivatives == "direct"
        self.depth = Depth(None if direct else config.lowest, 1)
        self.direct = DirectHeads(config.layers, config.l_max, config.slot_channels, C) if direct else None

    def forward(self, graph: Graph, attended: Attended) -> NetworkOutput:
        """Energy relative to the neutral singlet atom without neighbours."""
        neighbours = self._neighbours(attended)
        rows = element_rows(graph, self.config.sources)
        species = self.species(rows)
        x = species if self.state is None else species + self.state(graph, species)
        seen = []
        for layer in self.layers:
            x, orders = layer(x, neighbours)
            seen.append((orders, x))
        if self.nodes is not None:
            x = x + self.nodes(x, graph.table, self._pairs(graph))
        energy = self.depth(self.readout(x) - self.readout(species), rows)
        if self.direct is None:
            return NetworkOutput(energy, x)
        forces, virials = self.direct(seen)
        return NetworkOutput(energy, x, None, forces, by_volume(virials, graph))

    def _neighbours(self, attended: Attended) -> Neighbours:
        config, slots = self.config, attended.slots
        weight = torch.exp(attended.bias).unsqueeze(1)
        radial = bessel(attended.r, config.cutoff, config.radial) * math.sqrt(config.cutoff)
        columns = [attended.bias.unsqueeze(1), weight, radial, self.harmonics(attended.unit)]
        bias, weight, radial, y = pad_edges(torch.cat(columns, dim=1), slots).split(
            [c.shape[1] for c in columns], dim=2
        )
        return Neighbours(slots, softgraph.slot_bias(bias, slots), weight, radial, y)

    def _pairs(self, graph: Graph) -> Pairs | Nearby:
        """Weights of the node attention, summed over images: of all pairs, or of large structures of near ones."""
        places, reach = folded(graph.positions, graph.cell, graph.owner), self.reach
        if graph.table.shape[1] > CROWD:
            return nearby(places, graph.cell, graph.pbc, graph.table, reach)
        images = images_within(graph.cell, graph.pbc, reach)

        def weights(here: Tensor, there: Tensor, present: Tensor, cell: Tensor) -> Tensor:
            return fading_sum(here, there, present, cell, images, reach).to(self.species.weight.dtype).unsqueeze(1)

        return kept(Pairs(weights, places, (graph.cell,), fading=(images, reach)), graph.table, self.config.heads)


class State(nn.Module):
    """What total charge Q and multiplicity m of a structure do to its atoms, by element: (N, C).

    W silu(U [Q, m - 1]) * V e(Z): zero for neutral singlets, smooth between the trained values and linear beyond.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.given, self.out, self.element = Linear(2, channels), Linear(channels, channels), Linear(channels, channels)

    def forward(self, graph: Graph, species: Tensor) -> Tensor:
        """Added to the embedding of the elements."""
        given = torch.stack([graph.charge, graph.spin - 1], dim=1).to(species.dtype)  # (S, 2)
        state = self.out(silu(self.given(given))).index_select(0, graph.owner)
        product: Tensor = state * self.element(species)
        return product


class DefaultLayer(nn.Module):
    """One round: neighbourhood attention into bond orders, their products into the atom."""

    def __init__(self, config: AllScAIPConfig) -> None:
        super().__init__()
        C, F, H, l_max = config.channels, config.slot_channels, config.heads, config.l_max
        self.heads = H
        # of the neighbours in the list the soft graph keeps about k
        self.typical = min(config.mean_neighbours or 30.0, float(config.neighbours))
        self.ends, self.radial = Linear(C, 2 * F), Linear(config.radial, F)
        self.raw = Linear((l_max + 1) ** 2, F) if config.symmetry == "learned" else None
        self.angular = AngularAttention(F, H, l_max) if "An" in config.components else None
        self.read = Linear(F, H + F)  # logits and values
        self.null = nn.Parameter(torch.zeros(H))
        self.product = SphereProduct(l_max, 0, F, F, order=ORDER)
        self.hidden, self.out = Linear(ORDER * F, C), Linear(C, C)

    def forward(self, x: Tensor, near: Neighbours) -> tuple[Tensor, Tensor]:
        """New features (N, C) and bond orders (N, L2, F)."""
        own, other = self.ends(x).chunk(2, dim=1)
        h = own.unsqueeze(1) + gather_neighbours(other, near.slots) + self.radial(near.radial)  # (N, M, F)
        if self.raw is not None:
            h = h + self.raw(near.harmonics)
        h = silu(h * torch.rsqrt(1 + h.square().mean(2, keepdim=True)))
        if self.angular is not None:
            h = h + self.angular(h, near.harmonics, near.bias)
        orders = self._orders(h, near)
        products = torch.cat([orders[:, 0], self.product(orders).flatten(1)], dim=1)
        return x + 0.5 * self.out(silu(self.hidden(products))), orders

    def _orders(self, h: Tensor, near: Neighbours) -> Tensor:
        """Harmonics of the neighbours, summed with attention: (N, L2, F)."""
        N, M, F = h.shape
        logits, value = self.read(h).split([self.heads, F], dim=2)
        top = (logits * near.slots.filled.transpose(1, 2)).detach().amax(1, keepdim=True).clamp(min=0)  # cancels
        weights = near.weight * torch.exp(logits - top)  # (N, M, H)
        null = self.typical * torch.exp(self.null.view(1, 1, -1) - top)
        weights = weights * (SPREAD / (null + weights.sum(1, keepdim=True)))
        weighed = (value.reshape(N, M, self.heads, -1) * weights.unsqueeze(3)).view(N, M, F)
        return bounded(torch.bmm(near.harmonics.transpose(1, 2), weighed))


# --- paper form -------------------------------------------------------------------------------------------------------

GAUSSIANS, RAW_DEGREE, ORDER_DEGREE, FREQUENCIES = 512, 5, 9, 32


class Shell(NamedTuple):
    """Slots of all atoms as the layers of the published form see them; slot 0 is the atom itself."""

    slots: Slots
    bias: Tensor  # (N, 1 + M)  minus infinity in empty slots
    encoding: LegendreEncoding | None
    directions: Tensor | None  # (N, 1, 1 + M, D')  factors of the angular encoding
    flipped: Tensor | None  # the same of the edges that point at the atom
    table: Tensor  # (S, K)
    places: Tensor  # (N, 3)  folded positions
    cell: Tensor  # (S, 3, 3)
    images: Images | None


class PaperBody(nn.Module):
    """The published network: features of all slots in every layer, slot 0 of each atom read out."""

    def __init__(self, config: AllScAIPConfig) -> None:
        super().__init__()
        self.config, H = config, config.channels
        self.raw, self.orders = SphericalHarmonics(RAW_DEGREE), SphericalHarmonics(ORDER_DEGREE)
        self.species = nn.Embedding(config.sources * (MAX_Z + 1), H)
        self.charge, self.spin = nn.Embedding(201, H), nn.Embedding(101, H)
        nn.init.uniform_(self.species.weight, -1e-3, 1e-3)
        self.order, self.atom, self.atom_norm = nn.Linear(ORDER_DEGREE + 1, H), nn.Linear(2 * H, H), nn.RMSNorm(2 * H)
        self.state, self.slot = nn.Linear(2 * H, H), nn.Linear(2 * H, H)
        self.pair = nn.Linear(GAUSSIANS + (RAW_DEGREE + 1) ** 2, H)
        self.blocks = nn.ModuleList(PaperBlock(config) for _ in range(config.layers))
        spread = config.legendre or published_spread(H // config.heads)
        self.encoding = LegendreEncoding(spread) if "An" in config.components else None
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        self.energy = NormHead(H, 1)
        self.forces = NormHead(H, 3) if config.derivatives == "direct" else None

    def forward(self, graph: Graph, attended: Attended) -> NetworkOutput:
        """Energies, and forces of the direct head."""
        slots = attended.slots
        # the axes of the harmonics are (y, z, x) here, (x, y, z) in the published ones
        padded = pad_edges(torch.cat([attended.unit[:, [2, 0, 1]], attended.r.unsqueeze(1)], dim=1), slots)
        unit, r = softgraph.with_self(padded).split([3, 1], dim=2)  # (N, 1 + M, 3): the atom itself has no direction
        bias = softgraph.slot_bias(pad_edges(attended.bias.unsqueeze(1), slots), slots)
        x = self._atoms(graph, unit, bias)  # (N, H)
        centres = torch.linspace(0.0, self.config.cutoff, GAUSSIANS, dtype=r.dtype, device=r.device)
        g = torch.exp(-0.5 * ((r - centres) * ((GAUSSIANS - 1) / (2 * self.config.cutoff))) ** 2)  # (N, 1 + M, 512)
        e = gelu(self.pair(torch.cat([g, self.raw(unit)], dim=2)))
        h = gelu(self.slot(torch.cat([x.unsqueeze(1).expand_as(e), e], dim=2)))  # (N, 1 + M, H)
        shell = self._shell(graph, slots, unit, bias)
        for block in self.blocks:
            h = block(h, shell)
        forces = None if self.forces is None else self.forces(h[:, 0])
        return NetworkOutput(self.energy(h[:, 0]).flatten(), h[:, 0], forces=forces)

    def _atoms(self, graph: Graph, unit: Tensor, bias: Tensor) -> Tensor:
        """Element and bond orders of each atom, charge and multiplicity of its structure."""
        q = softgraph.bond_orders(self.orders(unit), (bias > -torch.inf).to(unit.dtype))  # all kept slots count alike
        order = gelu(self.order(q))
        rows = element_rows(graph, self.config.sources)
        x = gelu(self.atom(self.atom_norm(torch.cat([self.species(rows), order], dim=1))))
        check_rows("charge", graph.charge, -100, 100)
        check_rows("multiplicity", graph.spin, 0, 100)
        charge, spin = self.charge(graph.charge.long() + 100), self.spin(graph.spin.long())
        state = gelu(self.state(torch.cat([charge, spin], dim=1)))  # (S, H)
        return x + state.index_select(0, graph.owner)

    def _shell(self, graph: Graph, slots: Slots, unit: Tensor, bias: Tensor) -> Shell:
        dtype, directions, flipped, images = unit.dtype, None, None, None
        if self.encoding is not None:
            y = self.raw(unit)
            directions = self.encoding.directions(y)
            flipped = self.encoding.directions(softgraph.flip_slots(y, slots))
        if "Si" in self.config.components:
            images = images_within(graph.cell, graph.pbc, self.config.cutoff)
        places = folded(graph.positions, graph.cell, graph.owner).to(dtype)
        return Shell(slots, bias, self.encoding, directions, flipped, graph.table, places, graph.cell.to(dtype), images)


class PaperBlock(nn.Module):
    """Two neighbourhood attentions, node attention and feed-forward networks, each added with a gain of its own."""

    def __init__(self, config: AllScAIPConfig) -> None:
        super().__init__()
        H = config.channels
        shape = (H, config.heads, 1 / config.layers)
        self.out_attention, self.in_attention = MultiHead(*shape), MultiHead(*shape)
        self.nodes = MultiHead(*shape) if "No" in config.components else None
        radial = torch.full((config.heads, FREQUENCIES), 1 / FREQUENCIES)
        self.radial = nn.Parameter(radial) if "Si" in config.components else None
        self.edge_network, self.node_network = FeedForward(H, shape[2]), FeedForward(H, shape[2])
        low, high = math.log10(math.pi / 120), math.log10(math.pi / 0.25)
        self.frequencies = Exact(np.logspace(low, high, FREQUENCIES))

    def forward(self, h: Tensor, shell: Shell) -> Tensor:
        """(N, 1 + M, H) -> (N, 1 + M, H)."""
        h = h + self._among_slots(self.out_attention, h, shell, shell.directions)
        h = softgraph.flip_slots(h, shell.slots)
        h = h + self._among_slots(self.in_attention, h, shell, shell.flipped)
        h = softgraph.flip_slots(h, shell.slots)
        x = h[:, 0]
        if self.nodes is not None:
            x = x + self._among_atoms(self.nodes, x, shell)
        return torch.cat([self.node_network(x).unsqueeze(1), self.edge_network(h[:, 1:])], dim=1)

    def _among_slots(self, attention: MultiHead, h: Tensor, shell: Shell, directions: Tensor | None) -> Tensor:
        q, k, v = (t.transpose(1, 2) for t in attention.projected(h))  # (N, heads, 1 + M, D)
        if shell.encoding is not None and directions is not None:
            q, k = shell.encoding(q, directions), shell.encoding(k, directions)
        return attention.joined(slot_attention(q, k, v, shell.bias, self.training).transpose(1, 2))

    def _among_atoms(self, attention: MultiHead, x: Tensor, shell: Shell) -> Tensor:
        q, k, v = attention.projected(x)  # (N, heads, D)
        pairs = None
        if self.radial is not None and shell.images is not None:
            images, frequencies = shell.images, self.frequencies(x.dtype)

            def weights(here: Tensor, there: Tensor, present: Tensor, cell: Tensor, radial: Tensor) -> Tensor:
                r = nearest_distance(here, there, cell, images).unsqueeze(3)
                waves = sinc(r * frequencies) @ radial.T  # (S, T, K, heads)
                return ((softplus(waves) + 1e-6) * present[:, None, :, None]).permute(0, 3, 1, 2)

            pairs = Pairs(weights, shell.places, (shell.cell, self.radial))
        return attention.joined(node_attention(q, k, v, shell.table, self.training, pairs))
