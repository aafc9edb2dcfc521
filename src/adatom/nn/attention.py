"""Attention among the neighbours of an atom and among the atoms of a structure.

Training on forces differentiates attention twice, which fused kernels cannot, and plain attention keeps a matrix of
weights for every derivative. Three ways to compute the same numbers, chosen in ``_plan`` alone:

``plain``   a few matrix products, differentiated by autograd: the fastest while the matrices are small.
``tiles``   a part of the queries at a time, recomputed in the backward and once more in the double backward. Weights
            live for one tile only: memory grows with the number of atoms, not with its square.
``fused``   ``torch.scaled_dot_product_attention`` where a single derivative is asked for (molecular dynamics), and a
            kernel of our own on a card for weights that fade with distance.

Where weights fade at a distance, ``nearby_attention`` looks at near atoms only (nn/nearby.py), tile by tile as above.

S structures, N atoms, K atoms per structure (padded), M slots of an atom, H heads, D channels of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from adatom.nn import kernels
from adatom.nn.equivariant import Linear
from adatom.nn.exact import Exact
from adatom.nn.images import Images
from adatom.nn.nearby import Nearby, ends, fading, gathered

if kernels.PRESENT:
    from adatom.nn.kernels import nodes

Way = Literal["plain", "tiles", "fused"]
TILE = 2**20  # attention weights held at once
LOWEST = -1e4  # in place of minus infinity where a bias is part of a product: e^LOWEST is 0


def slot_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, twice: bool, way: Way | None = None) -> Tensor:
    """Softmax attention among the slots of every atom: out_a = sum_b softmax_b(q_a k_b / sqrt(D) + bias_b) v_b.

    Parameters
    ----------
    q, k
        (N, H, M', D') and (N, H, M, D'), D' is D or wider (encodings); M' queries, M keys.
    v
        (N, H, M, D), which sets the scale.
    bias
        (N, M) of the key slots; minus infinity in empty ones, but not in a whole row.
    twice
        Whether second derivatives may be asked for.
    way
        Overrules the choice; for tests.
    """
    atoms, heads, width, _ = k.shape
    queries = q.shape[2]
    scale = 1 / math.sqrt(v.shape[3])
    chosen = way or _plan(atoms * heads * queries * width, twice)
    if chosen == "fused":
        return _fused_slots(q, k, v, bias, scale)

    def part(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        logits = q @ k.transpose(2, 3) * scale + bias.view(-1, 1, 1, width)
        return torch.softmax(logits, dim=-1) @ v

    if chosen == "plain":
        return part(q, k, v, bias)
    size = max(1, TILE // (heads * queries * width))
    return torch.cat([recomputed(part, *(t[a : a + size] for t in (q, k, v, bias))) for a in range(0, atoms, size)])


def _fused_slots(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    """The bias as one more channel of the keys: fused kernels give no gradient of a mask."""
    one = q.new_zeros(8)  # kernels like multiples of eight
    one[0] = 1 / scale
    more_k = pad(bias.clamp(min=LOWEST).view(bias.shape[0], 1, -1, 1), (0, 7))
    q = torch.cat([q, one.expand(*q.shape[:3], 8)], dim=3)
    k = torch.cat([k, more_k.expand(*k.shape[:3], 8)], dim=3)
    return _fused(q, k, v, None, scale)


def _fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    wide = pad(v, (0, q.shape[3] - v.shape[3]))  # all three of one width, as kernels want them
    return scaled_dot_product_attention(q, k, wide, attn_mask=mask, scale=scale)[..., : v.shape[3]]


class Pairs(NamedTuple):
    """Weights between the atoms of a structure, evaluated tile by tile: what is closer may count for more.

    ``function(queries (S, T, 3), keys (S, K, 3), present (S, K), *further)`` gives weights (S, 1 or H, T, K), zero for
    keys that are not present. ``matrix`` holds them for all queries at once where they fit. ``fading`` says that they
    are those of ``nn.images.fading_sum``, with the cell as the first of ``further``: there is a kernel for them.
    """

    function: Callable[..., Tensor]
    positions: Tensor  # (N, 3)
    further: tuple[Tensor, ...]
    matrix: Tensor | None = None  # (S, 1 or H, K, K)
    fading: tuple[Images, float] | None = None  # images and reach in Å


def kept(pairs: Pairs, table: Tensor, heads: int) -> Pairs:
    """The same weights, evaluated now for all layers to share, unless the matrix would be too large to keep."""
    if table.shape[0] * heads * table.shape[1] ** 2 > TILE:
        return pairs
    places, present = _places(pairs.positions, table)
    return pairs._replace(matrix=pairs.function(places, places, present, *pairs.further))


def node_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor,
    twice: bool,
    pairs: Pairs | None = None,
    null: Tensor | None = None,
    way: Way | None = None,
) -> Tensor:
    """Attention among all atoms of each structure, (N, H, D): structures do not see each other.

    out_i = sum_j W_ij e^(q_i k_j / sqrt(D)) v_j / (e^c + sum_j W_ij e^(q_i k_j / sqrt(D)))

    Parameters
    ----------
    q, k, v
        (N, H, D).
    table
        (S, K), atoms of each structure, padded with N.
    twice, way
        As in ``slot_attention``.
    pairs
        W; all ones when not given.
    null
        c of each head, (H,): a token without value, towards which the attention of a lonely atom goes. None: e^c = 0.
    """
    atoms, heads, _ = v.shape
    padded = [_pad(t, table) for t in (q, k, v)]  # (S, H, K, D)
    structures, count = table.shape
    chosen = way or _plan(structures * heads * count * count, twice)
    if chosen == "fused" and pairs is None and null is None:
        hidden = torch.where(table < atoms, 0.0, -torch.inf).to(q.dtype).view(structures, 1, 1, count)
        mask = None if bool((table < atoms).all()) else hidden.expand(-1, heads, count, -1)
        return _unpad(_fused(padded[0], padded[1], padded[2], mask, 1 / math.sqrt(v.shape[2])), table, atoms)
    places, present = _places(q.new_zeros(atoms, 3) if pairs is None else pairs.positions, table)
    bottom = q.new_full((heads,), LOWEST) if null is None else null

    def part(
        q: Tensor, k: Tensor, v: Tensor, bottom: Tensor, here: Tensor, there: Tensor, present: Tensor, *further: Tensor
    ) -> Tensor:
        some = present.view(structures, 1, 1, count)
        return _weighed(q, k, v, bottom, some if pairs is None else pairs.function(here, there, present, *further))

    if chosen == "fused" and pairs is not None and pairs.fading is not None and _has_kernel(q):
        crowd = nodes.Crowd((table < atoms).sum(1), *pairs.fading)
        seen = nodes.fading_attention(padded[0], padded[1], padded[2], bottom, places, pairs.further[0], crowd)
        return _unpad(seen, table, atoms)
    further = () if pairs is None else pairs.further
    if chosen == "plain" and pairs is not None and pairs.matrix is not None:
        output = _weighed(padded[0], padded[1], padded[2], bottom, pairs.matrix)
    elif chosen == "plain":
        output = part(*padded, bottom, places, places, present, *further)
    else:
        size = max(1, TILE // (structures * heads * count))
        q, k, v = padded
        tiles = [
            recomputed(part, q[:, :, a : a + size], k, v, bottom, places[:, a : a + size], places, present, *further)
            for a in range(0, count, size)
        ]
        output = torch.cat(tiles, dim=2)
    return _unpad(output, table, atoms)


def _has_kernel(q: Tensor) -> bool:
    """Whether the kernel of ``nn.kernels.nodes`` can take this: float32 on a card."""
    return kernels.PRESENT and q.is_cuda and q.dtype == torch.float32


def _weighed(q: Tensor, k: Tensor, v: Tensor, bottom: Tensor, weights: Tensor) -> Tensor:
    """Attention of queries (S, H, T, D) to keys (S, H, K, D) with weights (S, 1 or H, T, K) and null tokens (H,)."""
    logits = q @ k.transpose(2, 3) * (1 / math.sqrt(v.shape[3]))
    bottom = bottom.view(1, -1, 1, 1)
    top = torch.maximum(logits.detach().amax(3, keepdim=True), bottom.detach())  # cancels: no overflow
    attention = weights * torch.exp(logits - top)
    return attention @ v / (torch.exp(bottom - top) + attention.sum(3, keepdim=True))


def nearby_attention(q: Tensor, k: Tensor, v: Tensor, near: Nearby, null: Tensor) -> Tensor:
    """As ``node_attention`` with weights that fade at a distance, in time and memory linear in N."""
    heads, depth = q.shape[1:]
    queries = gathered(q.flatten(1), [tile.atoms for tile in near.tiles])
    keys = gathered(torch.cat([k.flatten(1), v.flatten(1)], dim=1), [tile.near for tile in near.tiles])

    def part(q: Tensor, kv: Tensor, here: Tensor, there: Tensor, null: Tensor, atoms: Tensor, own: Tensor) -> Tensor:
        q = q.view(*q.shape[:2], heads, depth).transpose(1, 2)
        k, v = kv.view(*kv.shape[:2], 2, heads, depth).permute(2, 0, 3, 1, 4)
        same = atoms.unsqueeze(2) == own.unsqueeze(1)
        weights = fading(here, there, same, near.reach, q.dtype).unsqueeze(1)
        return _weighed(q, k, v, null, weights).transpose(1, 2).flatten(0, 1)

    parts = [
        recomputed(part, q, kv, *places, null, tile.atoms, tile.own)
        for q, kv, places, tile in zip(queries, keys, ends(near), near.tiles, strict=True)
    ]
    return torch.cat(parts).index_select(0, near.place)


def _places(positions: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Positions (S, K, 3) and which of them are atoms (S, K)."""
    present = (table < positions.shape[0]).to(positions.dtype)
    return _pad(positions.unsqueeze(1), table).squeeze(1), present


def _plan(weights: int, twice: bool) -> Way:
    """How to compute attention with so many weights: the one place where this is decided."""
    if weights <= TILE:
        return "plain"
    return "tiles" if twice else "fused"


def _pad(values: Tensor, table: Tensor) -> Tensor:
    """(N, H, D) -> (S, H, K, D), zero where a structure has fewer atoms."""
    filled = torch.cat([values, values.new_zeros(1, *values.shape[1:])])
    return filled.index_select(0, table.flatten()).view(*table.shape, *values.shape[1:]).transpose(1, 2)


def _unpad(values: Tensor, table: Tensor, atoms: int) -> Tensor:
    """(S, H, K, D) -> (N, H, D)."""
    rows = values.transpose(1, 2).flatten(0, 1)
    return rows.index_select(0, (table.flatten() < atoms).nonzero().flatten())


class LegendreEncoding(nn.Module):
    """Directions in queries and keys, so that their product knows the angle between two neighbours.

    Channels of degree l are repeated 2l + 1 times and multiplied by Y_lm(direction) / sqrt(2l + 1). Products then are
    sum_l P_l(cos theta) sum_(c of degree l) q_c k_c, for P_l the Legendre polynomials: rotations leave them alone.

    Parameters
    ----------
    channels
        Number of channels of each degree, from 0 on; their sum is the depth of a head.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        source: list[int] = []
        harmonic: list[int] = []
        factor: list[float] = []
        first = 0
        for degree, count in enumerate(channels):
            for channel in range(first, first + count):
                source += [channel] * (2 * degree + 1)
                harmonic += range(degree**2, (degree + 1) ** 2)
                factor += [1 / math.sqrt(2 * degree + 1)] * (2 * degree + 1)
            first += count
        self.register_buffer("source", torch.tensor(source), persistent=False)
        self.register_buffer("harmonic", torch.tensor(harmonic), persistent=False)
        self.factor = Exact(np.array(factor))

    source: Tensor  # (D',)
    harmonic: Tensor  # (D',)

    def directions(self, harmonics: Tensor) -> Tensor:
        """Factors of the expanded channels (N, 1, M, D') from harmonics (N, M, L2)."""
        factor: Tensor = self.factor(harmonics.dtype)
        return (harmonics.index_select(2, self.harmonic) * factor).unsqueeze(1)

    def forward(self, x: Tensor, directions: Tensor) -> Tensor:
        """(N, H, M, D) -> (N, H, M, D')."""
        return x.index_select(3, self.source) * directions


def published_spread(depth: int) -> tuple[int, ...]:
    """Channels of each degree in a head of the published AllScAIP: 20, 10, 4, 10, 20 of 64, in proportion otherwise."""
    shares = [depth * share // 64 for share in (20, 10, 4, 10, 20)]
    shares[0] += depth - sum(shares)
    return tuple(shares)


class AngularAttention(nn.Module):
    """Slots of an atom attend to one another, angles through Legendre polynomials; the atom itself is the null token.

    Parameters
    ----------
    width
        Channels of a slot, F.
    heads
        H; F / H channels are spread over the degrees 0 to ``l_max``.
    """

    def __init__(self, width: int, heads: int, l_max: int) -> None:
        super().__init__()
        self.heads, depth = heads, width // heads
        spread = [depth // (l_max + 1)] * (l_max + 1)
        spread[0] += depth - sum(spread)
        self.encoding = LegendreEncoding(spread)
        self.qkv, self.out = Linear(width, 3 * width), Linear(width, width)

    def forward(self, h: Tensor, harmonics: Tensor, bias: Tensor) -> Tensor:
        """What is added to the slots (N, M, F), from their harmonics (N, M, L2) and weights (N, 1 + M)."""
        N, M, F = h.shape
        q, k, v = self.qkv(h).view(N, M, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (N, H, M, D)
        directions = self.encoding.directions(harmonics)
        q, k = self.encoding(q, directions), self.encoding(k, directions)
        k, v = pad(k, (0, 0, 1, 0)), pad(v, (0, 0, 1, 0))  # the atom itself: logit and value 0
        seen = slot_attention(q, k, v, bias, self.training).transpose(1, 2)
        mixed: Tensor = self.out(seen.reshape(N, M, F))
        return mixed


class FadingAttention(nn.Module):
    """Node attention with weights between atoms and a null token; zero for an atom without company.

    Parameters
    ----------
    typical
        Sum of the weights of an atom in common surroundings: the weight of the null token to begin with.
    """

    def __init__(self, channels: int, heads: int, typical: float) -> None:
        super().__init__()
        self.heads, self.typical = heads, math.log(typical)
        self.qkv, self.out = Linear(channels, 3 * channels), Linear(channels, channels)
        self.null = nn.Parameter(torch.zeros(heads))

    def forward(self, x: Tensor, table: Tensor, pairs: Pairs | Nearby) -> Tensor:
        """What is added to the atoms (N, C)."""
        small = x * torch.rsqrt(1 + x.square().mean(1, keepdim=True))
        q, k, v = self.qkv(small).view(x.shape[0], 3, self.heads, -1).unbind(1)
        null = self.null + self.typical
        if isinstance(pairs, Nearby):
            seen = nearby_attention(q, k, v, pairs, null)
        else:
            seen = node_attention(q, k, v, table, self.training, pairs, null)
        mixed: Tensor = self.out(seen.flatten(1))
        return mixed


# --- recomputation ----------------------------------------------------------------------------------------------------


def recomputed(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """``function(*inputs)`` that keeps its inputs only and is evaluated again for every derivative, of any order."""
    output: tuple[Tensor, ...] = _Recomputed.apply(lambda *t: (function(*t),), *inputs)
    return output[0]


class _Recomputed(torch.autograd.Function):
    """Outputs of a function of tensors. Its derivative is another function of tensors: ``_Slope`` of it."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.function = function
        ctx.save_for_backward(*inputs)
        with torch.no_grad():
            return function(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        wanted = [place for place, need in enumerate(ctx.needs_input_grad[1:]) if need]
        slopes = _Recomputed.apply(_Slope(ctx.function, len(grads), wanted), *grads, *inputs)
        found = dict(zip(wanted, slopes, strict=True))
        return (None, *(found.get(place) for place in range(len(inputs))))


class _Slope:
    """(grads of the outputs, inputs) -> grads of the wanted inputs; its own slope is taken in the double backward."""

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], outputs: int, wanted: list[int]) -> None:
        self.function, self.outputs, self.wanted = function, outputs, wanted

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        again = torch.is_grad_enabled()  # inside another slope: what is found must be differentiable
        grads, inputs = tensors[: self.outputs], list(tensors[self.outputs :])
        with torch.enable_grad():
            for place in self.wanted:
                if not (again and inputs[place].requires_grad):
                    inputs[place] = inputs[place].detach().requires_grad_()
            outputs = self.function(*inputs)
            slopes = torch.autograd.grad(
                outputs, [inputs[p] for p in self.wanted], grads, create_graph=again, allow_unused=True
            )
        return tuple(
            torch.zeros_like(inputs[p]) if slope is None else slope
            for p, slope in zip(self.wanted, slopes, strict=True)
        )
