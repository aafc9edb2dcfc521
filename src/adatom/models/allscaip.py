"""AllScAIP: attention among the neighbours of an atom, then among all atoms.

Qu, Wood, Krishnapriyan, Ulissi, arXiv:2603.06567 (2026).
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator
from torch import Tensor, nn
from torch.nn.functional import gelu, silu, softplus

from adatom.config import nearest
from adatom.elements import MAX_Z
from adatom.graph import Graph, edge_vectors, pad_rows, sum_by_owner
from adatom.models.base import Claims, Model, ModelConfig, NetworkOutput
from adatom.nn.attention import LegendreEncoding, Pairs, kept, node_attention, slot_attention
from adatom.nn.equivariant import Coupling, DegreeLinear, Linear
from adatom.nn.exact import Exact
from adatom.nn.images import Images, fading_sum, folded, images_within, nearest_distance
from adatom.nn.radial import bessel
from adatom.nn.slots import Slots, gather_neighbours, index_slots, pad_edges
from adatom.nn.softgraph import (
    BUMP_REACH,
    RANK_WIDTH,
    distances_in_slots,
    fading_ranks,
    flip_edges,
    log_weight,
    soft_envelope,
    soft_ranks,
)
from adatom.nn.spherical import SphericalHarmonics, degrees

Component = Literal["Ne", "An", "No", "Si"]
COMPONENTS: tuple[Component, ...] = ("Ne", "An", "No", "Si")

SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "default": {
        "S": {"channels": 64, "layers": 2, "heads": 4, "slot_channels": 32, "neighbours": 24, "components": "NeAnNo"},
        "M": {"channels": 128, "layers": 2, "heads": 8, "slot_channels": 64, "neighbours": 30, "components": "NeAnNo"},
        "L": {"channels": 256, "layers": 3, "heads": 8, "slot_channels": 96, "neighbours": 30, "components": "NeAnNo"},
    },
    "paper": {
        "sm": {"channels": 512, "layers": 6, "heads": 8, "neighbours": 30, "components": "NeNo", "cutoff": 6.0},
        "md": {"channels": 640, "layers": 10, "heads": 10, "neighbours": 30, "components": "NeNo", "cutoff": 6.0},
        "lg": {"channels": 1024, "layers": 8, "heads": 16, "neighbours": 30, "components": "NeNo", "cutoff": 6.0},
    },
}
PAPER_SIZE = {"S": "sm", "M": "md", "L": "lg"}


class AllScAIPConfig(ModelConfig):
    """``size`` sets the numbers that are not given; the ``paper`` form also knows its sizes as sm, md and lg."""

    architecture: Literal["allscaip"] = "allscaip"
    form: Literal["default", "paper"] = "default"
    size: Literal["S", "M", "L", "sm", "md", "lg"] = "S"
    components: tuple[Component, ...] = Field(description="written as one word: Ne, NeNo, NeAnNo, NeAnNoSi, ...")
    symmetry: Literal["invariant", "learned"] = Field(
        "invariant", description="learned: raw harmonics enter, as published"
    )
    neighbours: PositiveInt = Field(description="k, the number at which ranks fade")
    channels: PositiveInt = Field(description="of an atom; in the paper form of a slot as well")
    layers: PositiveInt
    heads: PositiveInt
    slot_channels: PositiveInt = Field(32, description="of a slot, default form")
    l_max: int = Field(3, ge=1, le=4, description="degree of the bond orders and of the angular encoding, default form")
    radial: PositiveInt = 8
    readout: PositiveInt = 32
    node_cutoff: PositiveFloat | None = Field(
        None, description="Å, reach of the node attention, default form; None: twice the cutoff"
    )
    legendre: tuple[int, ...] | None = Field(None, description="channels of each degree in a head, paper form")

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        form, size = values.get("form", "default"), values.get("size", "S")
        table = SIZES.get(form, SIZES["default"]) if isinstance(form, str) else SIZES["default"]
        size = PAPER_SIZE.get(size, size) if form == "paper" and isinstance(size, str) else size
        first = next(iter(table.values()))
        filled: dict[str, Any] = table.get(size, first) if isinstance(size, str) else first
        filled = filled | values
        if form == "paper":
            filled.setdefault("symmetry", "learned")
        return filled

    @field_validator("components", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        words = re.findall("[A-Z][a-z]*|[^A-Z]+", value)
        for word in words:
            if word not in COMPONENTS:
                guess = nearest(word, list(COMPONENTS))
                hint = f"did you mean '{guess}'?" if guess else f"known: {', '.join(COMPONENTS)}"
                raise ValueError(f"unknown component '{word}': {hint}")
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
            raise ValueError(
                f"size {self.size} belongs to the paper form; the default form has {', '.join(SIZES['default'])}"
            )
        if self.form == "paper" and self.symmetry == "invariant":
            raise ValueError("the published form learns its symmetry: leave symmetry out")
        if self.channels % self.heads:
            raise ValueError(f"channels ({self.channels}) must be a multiple of heads ({self.heads})")
        if self.legendre is not None and sum(self.legendre) != self.channels // self.heads:
            raise ValueError(f"legendre must sum to the depth of a head, {self.channels // self.heads}")
        return self


class AllScAIP(Model):
    """Energies of atoms (and direct forces where asked for) from a graph."""

    Config = AllScAIPConfig
    config: AllScAIPConfig
    embeds_charge = True
    embeds_spin = True

    def __init__(self, config: AllScAIPConfig) -> None:
        super().__init__()
        self.config = config
        published, node = config.form == "paper", "No" in config.components
        # published ranks feel what lies up to the reach of the bump beyond the cutoff
        self.cutoff = config.cutoff + (BUMP_REACH * RANK_WIDTH if published else 0.0)
        self.claims = Claims(
            "O(3)" if config.symmetry == "invariant" else "learned",
            "global" if node else "local",
            extensive=not (published and node),
            conservative=config.derivatives == "gradient",
            smooth=not published,
        )
        self.body: DefaultBody | PaperBody = PaperBody(config) if published else DefaultBody(config)

    def forward(self, graph: Graph) -> NetworkOutput:
        """Contribution of each atom."""
        output: NetworkOutput = self.body(graph, self._attended(graph, self.body.dtype))
        return output

    def _attended(self, graph: Graph, dtype: torch.dtype) -> Attended:
        """The soft graph: edges of which neither end has too many nearer ones."""
        k, cutoff = self.config.neighbours, self.config.cutoff
        vectors = edge_vectors(graph).to(dtype)  # (E, 3)
        r = (vectors * vectors).sum(1).sqrt()  # (E,)
        every = index_slots(graph.edges, graph.slots, graph.reverse, dtype)
        padded = distances_in_slots(r, every)
        ranks = soft_ranks(padded, k) if self.config.form == "paper" else fading_ranks(padded, cutoff)
        env = soft_envelope(r, ranks, every, graph.reverse, k, cutoff)
        keep = (env < 1) & (env.index_select(0, graph.reverse) < 1)  # both or none: their last bits may differ
        chosen = keep.nonzero().flatten()
        edges = graph.edges.index_select(1, chosen)
        number = keep.cumsum(0) - 1
        reverse = number.index_select(0, graph.reverse.index_select(0, chosen))
        slots = index_slots(edges, pad_rows(edges[0], graph.numbers.shape[0]), reverse, dtype)
        r = r.index_select(0, chosen)
        unit = vectors.index_select(0, chosen) / r.unsqueeze(1)
        return Attended(slots, r, unit, log_weight(env.index_select(0, chosen)))


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
    bias: Tensor  # (N, 1 + M)  logarithm of the weight, 0 for the atom itself, minus infinity in empty slots
    fade: Tensor  # (N, M, 1)  weight
    radial: Tensor  # (N, M, B)
    harmonics: Tensor  # (N, M, L2)


class DefaultBody(nn.Module):
    """Layers and readout of the sound form."""

    def __init__(self, config: AllScAIPConfig) -> None:
        super().__init__()
        self.config = config
        C = config.channels
        self.harmonics = SphericalHarmonics(config.l_max)
        self.species = nn.Embedding(MAX_Z + 1, C)
        self.layers = nn.ModuleList(DefaultLayer(config) for _ in range(config.layers))
        self.readouts = nn.ModuleList(Readout(C, config.readout) for _ in range(config.layers))

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.species.weight.dtype

    def forward(self, graph: Graph, attended: Attended) -> NetworkOutput:
        """Sum of what each layer's atoms say, relative to the atom without neighbours."""
        neighbours = self._neighbours(attended)
        pairs = self._pairs(graph)
        species = self.species(graph.numbers)  # (N, C)
        x, energy = species, torch.zeros_like(species[:, 0])
        for layer, readout in zip(self.layers, self.readouts, strict=True):
            x, _ = layer(x, neighbours, graph.table, pairs)
            energy = energy + readout(x) - readout(species)
        return NetworkOutput(energy, x)

    def _neighbours(self, attended: Attended) -> Neighbours:
        config, slots = self.config, attended.slots
        weight = torch.exp(attended.bias).unsqueeze(1)
        radial = bessel(attended.r, config.cutoff, config.radial) * config.cutoff**0.5
        y = self.harmonics(attended.unit)
        padded = pad_edges(torch.cat([attended.bias.unsqueeze(1), weight, radial, y], dim=1), slots)
        bias, fade, radial, y = padded.split([1, 1, config.radial, y.shape[1]], dim=2)
        bias = torch.where(slots.filled.squeeze(1) > 0, bias.squeeze(2), -torch.inf)
        return Neighbours(slots, torch.nn.functional.pad(bias, (1, 0)), fade, radial, y)

    def _pairs(self, graph: Graph) -> Pairs | None:
        """Weights between all atoms, summed over images."""
        if "No" not in self.config.components:
            return None
        reach = self.config.node_cutoff or 2 * self.config.cutoff
        images = images_within(graph.cell, graph.pbc, reach)

        def weights(here: Tensor, there: Tensor, present: Tensor, cell: Tensor) -> Tensor:
            return fading_sum(here, there, present, cell, images, reach).to(self.dtype).unsqueeze(1)

        return kept(Pairs(weights, folded(graph.positions, graph.cell, graph.owner), (graph.cell,)), graph.table)


class Readout(nn.Module):
    """Energy from invariants: (N, C) -> (N,)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.hidden, self.out = Linear(channels, width, bias=True), Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """One hidden layer."""
        energy: Tensor = self.out(silu(self.hidden(x)))
        return energy.flatten()


class DefaultLayer(nn.Module):
    """One round."""

    def __init__(self, config: AllScAIPConfig) -> None:
        super().__init__()
        C, F, H, B, l_max = config.channels, config.slot_channels, config.heads, config.radial, config.l_max
        self.l_max, self.heads, self.mean_neighbours = l_max, H, config.mean_neighbours or 30.0
        self.own, self.other, self.radial = Linear(C, F), Linear(C, F), Linear(B, F)
        self.angular = SlotAttention(F, H, l_max) if "An" in config.components else None
        self.logit, self.value = Linear(F, H), Linear(F, F)
        self.null = nn.Parameter(torch.zeros(H))
        self.mix = DegreeLinear(l_max, F, F)
        self.order = Coupling(l_max, l_max, F)
        self.hidden, self.out = Linear(F + 3 * (l_max + 1) * F, C), Linear(C, C)
        self.node = NodeAttention(config) if "No" in config.components else None
        self.register_buffer("degree", torch.tensor(degrees(l_max)), persistent=False)

    degree: Tensor  # (L2,)

    def forward(self, x: Tensor, near: Neighbours, table: Tensor, pairs: Pairs | None) -> tuple[Tensor, Tensor]:
        """New features (N, C) and bond orders (N, L2, F)."""
        h = self.own(x).unsqueeze(1) + gather_neighbours(self.other(x), near.slots) + self.radial(near.radial)
        h = silu(h * torch.rsqrt(1 + h.square().mean(2, keepdim=True)))  # (N, M, F)
        if self.angular is not None:
            h = h + self.angular(h, near)
        orders = self._orders(h, near)
        x = x + 0.5 * self.out(silu(self.hidden(self._invariants(orders))))
        if self.node is not None and pairs is not None:
            x = x + self.node(x, table, pairs)
        return x, orders

    def _orders(self, h: Tensor, near: Neighbours) -> Tensor:
        """Bond orders: harmonics of the neighbours averaged with attention, (N, L2, F)."""
        logits = self.logit(h)  # (N, M, H)
        top = (logits * near.slots.filled.transpose(1, 2)).detach().amax(1, keepdim=True).clamp(min=0)
        weights = near.fade * torch.exp(logits - top)
        null = self.mean_neighbours * torch.exp(self.null.view(1, 1, -1) - top)
        weights = weights * (2 / (null + weights.sum(1, keepdim=True)))
        N, M, F = h.shape
        value = (self.value(h).view(N, M, self.heads, -1) * weights.unsqueeze(3)).view(N, M, F)
        return 2.0 * torch.bmm(near.harmonics.transpose(1, 2), value)

    def _invariants(self, a: Tensor) -> Tensor:
        """Products of two, three and four bond orders, (N, F + 3 (l_max + 1) F)."""
        mixed = self.mix(a)
        pair = self.order(a, mixed)
        products = torch.cat([a * mixed, pair * a, pair * pair], dim=2)  # (N, L2, 3 F)
        sums = products.new_zeros(a.shape[0], self.l_max + 1, products.shape[2]).index_add(1, self.degree, products)
        scale = torch.rsqrt(2 * torch.arange(self.l_max + 1, device=a.device, dtype=a.dtype) + 1).view(1, -1, 1)
        return torch.cat([a[:, 0], (sums * scale).flatten(1)], dim=1)


class SlotAttention(nn.Module):
    """Neighbours of an atom attend to one another; angles enter through Legendre polynomials."""

    def __init__(self, width: int, heads: int, l_max: int) -> None:
        super().__init__()
        self.heads = heads
        depth = width // heads
        spread = [depth // (l_max + 1)] * (l_max + 1)
        spread[0] += depth - sum(spread)
        self.encoding = LegendreEncoding(spread)
        self.qkv, self.out = Linear(width, 3 * width), Linear(width, width)
        self.null = nn.Parameter(torch.randn(heads, depth))

    def forward(self, h: Tensor, near: Neighbours) -> Tensor:
        """(N, M, F) -> (N, M, F)."""
        N, M, F = h.shape
        q, k, v = self.qkv(h).view(N, M, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (N, H, M, D)
        directions = self.encoding.directions(near.harmonics)
        q, k = self.encoding(q, directions), self.encoding(k, directions)
        alone = torch.zeros_like(k[:, :, :1])
        k, v = torch.cat([alone, k], dim=2), torch.cat([torch.zeros_like(v[:, :, :1]), v], dim=2)
        seen = slot_attention(q, k, v, near.bias, self.training)
        mixed: Tensor = self.out(seen.transpose(1, 2).reshape(N, M, F))
        return mixed


class NodeAttention(nn.Module):
    """All atoms within the node cutoff."""

    def __init__(self, config: AllScAIPConfig) -> None:
        super().__init__()
        C, self.heads = config.channels, config.heads
        self.qkv, self.out = Linear(C, 3 * C), Linear(C, C)
        self.null = nn.Parameter(torch.zeros(self.heads))
        self.typical = math.log(config.mean_neighbours or 30.0)

    def forward(self, x: Tensor, table: Tensor, pairs: Pairs) -> Tensor:
        """(N, C) -> (N, C)."""
        N, C = x.shape
        size = torch.rsqrt(1 + x.square().mean(1, keepdim=True))
        q, k, v = self.qkv(x * size).view(N, 3, self.heads, -1).unbind(1)
        seen = node_attention(q, k, v, table, self.training, pairs, self.null + self.typical)
        mixed: Tensor = self.out(seen.reshape(N, C))
        return mixed


# --- paper form -------------------------------------------------------------------------------------------------------

GAUSSIANS, RAW_DEGREE, ORDER_DEGREE, FREQUENCIES = 512, 5, 9, 32


class Shell(NamedTuple):
    """Slots of all atoms as the layers of the published form see them; slot 0 is the atom itself."""

    slots: Slots
    bias: Tensor  # (N, 1 + M)  minus infinity in empty slots
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
        self.species, self.charge, self.spin = nn.Embedding(MAX_Z + 1, H), nn.Embedding(201, H), nn.Embedding(101, H)
        nn.init.uniform_(self.species.weight, -1e-3, 1e-3)
        self.order, self.atom, self.atom_norm = nn.Linear(ORDER_DEGREE + 1, H), nn.Linear(2 * H, H), nn.RMSNorm(2 * H)
        self.state, self.slot = nn.Linear(2 * H, H), nn.Linear(2 * H, H)
        self.pair = nn.Linear(GAUSSIANS + (RAW_DEGREE + 1) ** 2, H)
        self.blocks = nn.ModuleList(PaperBlock(config) for _ in range(config.layers))
        self.encoding = LegendreEncoding(legendre_channels(config)) if "An" in config.components else None
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        self.energy = PaperHead(H, 1)
        self.forces = PaperHead(H, 3) if config.derivatives == "direct" else None
        self.register_buffer("degree", torch.tensor(degrees(ORDER_DEGREE)), persistent=False)

    degree: Tensor  # (100,)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.species.weight.dtype

    def forward(self, graph: Graph, attended: Attended) -> NetworkOutput:
        """Energies, and forces of the direct head."""
        slots = attended.slots
        # the axes of the harmonics are (y, z, x) here, (x, y, z) in the published ones
        padded = pad_edges(torch.cat([attended.unit[:, [2, 0, 1]], attended.r.unsqueeze(1)], dim=1), slots)
        unit, r = with_self(padded).split([3, 1], dim=2)  # (N, 1 + M, 3): the atom itself has no direction
        bias = pad_edges(attended.bias.unsqueeze(1), slots).squeeze(2)
        bias = torch.where(slots.filled.squeeze(1) > 0, bias, -torch.inf)
        bias = torch.nn.functional.pad(bias, (1, 0))
        x = self._atoms(graph, unit, bias)  # (N, H)
        centres = torch.linspace(0.0, self.config.cutoff, GAUSSIANS, dtype=r.dtype, device=r.device)
        width = 2 * self.config.cutoff / (GAUSSIANS - 1)
        g = torch.exp(-0.5 * ((r - centres) / width) ** 2)  # (N, 1 + M, 512)
        e = gelu(self.pair(torch.cat([g, self.raw(unit)], dim=2)))
        h = gelu(self.slot(torch.cat([x.unsqueeze(1).expand_as(e), e], dim=2)))  # (N, 1 + M, H)
        shell = self._shell(graph, slots, unit, bias)
        for block in self.blocks:
            h = block(h, shell)
        atoms = h[:, 0]
        forces = None if self.forces is None else self.forces(atoms)
        return NetworkOutput(self.energy(atoms).flatten(), atoms, forces=forces)

    def _atoms(self, graph: Graph, unit: Tensor, bias: Tensor) -> Tensor:
        """Element and bond orders of each atom, charge and multiplicity of its structure."""
        present = (bias > -torch.inf).to(unit.dtype).unsqueeze(1)  # (N, 1, 1 + M)
        mean = torch.bmm(present, self.orders(unit)).squeeze(1) / present.sum(2)  # (N, 100)
        power = mean.square() / (2 * self.degree + 1)
        q = power.new_zeros(power.shape[0], ORDER_DEGREE + 1).index_add(1, self.degree, power)
        order = gelu(self.order(q.clamp(min=1e-6).sqrt()))
        x = gelu(self.atom(self.atom_norm(torch.cat([self.species(graph.numbers), order], dim=1))))
        charge, spin = self.charge(graph.charge.round().long() + 100), self.spin(graph.spin.round().long())
        state = gelu(self.state(torch.cat([charge, spin], dim=1)))  # (S, H)
        return x + state.index_select(0, graph.owner)

    def _shell(self, graph: Graph, slots: Slots, unit: Tensor, bias: Tensor) -> Shell:
        dtype, directions, flipped, images = unit.dtype, None, None, None
        if self.encoding is not None:
            y = self.raw(unit)
            directions = self.encoding.directions(y)
            flipped = self.encoding.directions(flip(y, slots))
        if "Si" in self.config.components:
            images = images_within(graph.cell, graph.pbc, self.config.cutoff)
        places = folded(graph.positions, graph.cell, graph.owner).to(dtype)
        return Shell(slots, bias, directions, flipped, graph.table, places, graph.cell.to(dtype), images)


class PaperBlock(nn.Module):
    """Two neighbourhood attentions, node attention and feed-forward networks, each added with a gain of its own."""

    def __init__(self, config: AllScAIPConfig) -> None:
        super().__init__()
        H = config.channels
        self.out_attention, self.in_attention = PaperAttention(config), PaperAttention(config)
        self.nodes = PaperAttention(config) if "No" in config.components else None
        shape = (config.heads, FREQUENCIES)
        self.radial = nn.Parameter(torch.full(shape, 1 / FREQUENCIES)) if "Si" in config.components else None
        self.edge_network, self.node_network = PaperNetwork(H, config.layers), PaperNetwork(H, config.layers)
        # logarithmically spaced in single precision, as published
        low, high = math.log10(math.pi / 120), math.log10(math.pi / 0.25)
        self.frequencies = Exact(torch.logspace(low, high, FREQUENCIES, dtype=torch.float64).numpy())
        self.encoding = LegendreEncoding(legendre_channels(config)) if "An" in config.components else None

    def forward(self, h: Tensor, shell: Shell) -> Tensor:
        """(N, 1 + M, H) -> (N, 1 + M, H)."""
        h = h + self._among_slots(self.out_attention, h, shell.bias, shell.directions)
        h = flip(h, shell.slots)
        h = h + self._among_slots(self.in_attention, h, shell.bias, shell.flipped)
        h = flip(h, shell.slots)
        x = h[:, 0]
        if self.nodes is not None:
            x = x + self._among_atoms(self.nodes, x, shell)
        return torch.cat([self.node_network(x).unsqueeze(1), self.edge_network(h[:, 1:])], dim=1)

    def _among_slots(self, attention: PaperAttention, h: Tensor, bias: Tensor, directions: Tensor | None) -> Tensor:
        q, k, v = (t.transpose(1, 2) for t in attention.projected(h))  # (N, heads, 1 + M, D)
        if self.encoding is not None and directions is not None:
            q, k = self.encoding(q, directions), self.encoding(k, directions)
        return attention.joined(slot_attention(q, k, v, bias, self.training).transpose(1, 2))

    def _among_atoms(self, attention: PaperAttention, x: Tensor, shell: Shell) -> Tensor:
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


class PaperAttention(nn.Module):
    """Norm, projections and gain of one multi-head attention."""

    def __init__(self, config: AllScAIPConfig) -> None:
        super().__init__()
        H, self.heads = config.channels, config.heads
        self.norm = nn.RMSNorm(H)
        self.q, self.k, self.v, self.out = (nn.Linear(H, H) for _ in range(4))
        self.gain = nn.Parameter(torch.tensor(1 / config.layers))

    def projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (..., heads, D) of (..., H)."""
        x = self.norm(x)
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)) for layer in (self.q, self.k, self.v))
        return q, k, v

    def joined(self, seen: Tensor) -> Tensor:
        """What is added to the features: (..., heads, D) -> (..., H)."""
        mixed: Tensor = self.gain * self.out(seen.flatten(-2))
        return mixed


class PaperNetwork(nn.Module):
    """x + gain W2 GELU(W1 RMSNorm(x)), twice as wide inside."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.RMSNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.gain = nn.Parameter(torch.tensor(1 / layers))

    def forward(self, x: Tensor) -> Tensor:
        """(..., H) -> (..., H)."""
        added: Tensor = x + self.gain * self.down(gelu(self.up(self.norm(x))))
        return added


class PaperHead(nn.Module):
    """Energy or force of each atom: (N, H) -> (N, 1 or 3)."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.RMSNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, outputs)
        for layer in (self.up, self.down):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """One hidden layer."""
        output: Tensor = self.down(gelu(self.up(self.norm(x))))
        return output


def legendre_channels(config: AllScAIPConfig) -> tuple[int, ...]:
    """Channels of each degree in a head: 20, 10, 4, 10, 20 of 64 as published, in proportion otherwise."""
    if config.legendre is not None:
        return config.legendre
    depth = config.channels // config.heads
    shares = [depth * share // 64 for share in (20, 10, 4, 10, 20)]
    shares[0] += depth - sum(shares)
    return tuple(shares)


def with_self(padded: Tensor) -> Tensor:
    """(N, M, F) -> (N, 1 + M, F), zero for the atom itself."""
    return torch.nn.functional.pad(padded, (0, 0, 1, 0))


def flip(h: Tensor, slots: Slots) -> Tensor:
    """Slots of the edges from an atom as slots of the edges to it; slot 0 stays."""
    return torch.cat([h[:, :1], flip_edges(h[:, 1:], slots)], dim=1)


def sinc(x: Tensor) -> Tensor:
    """sin(x) / x, with derivatives of any order at 0."""
    apart = x.abs() > 1e-4
    safe = torch.where(apart, x, 1.0)
    return torch.where(apart, safe.sin() / safe, 1 - x * x / 6)
