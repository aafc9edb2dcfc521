"""Every way to compute attention gives the same numbers and derivatives, in memory that grows with the atoms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from adatom.nn import attention
from adatom.nn.attention import (
    AngularAttention,
    FadingAttention,
    LegendreEncoding,
    Pairs,
    kept,
    node_attention,
    recomputed,
    slot_attention,
)
from adatom.nn.spherical import reference_harmonics

N, H, M, D = 5, 2, 4, 3
TABLE = torch.tensor([[0, 1, 2], [3, 4, 5]])  # two structures of three and two atoms


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of one or two queries, so that a small system has several."""
    monkeypatch.setattr(attention, "TILE", 40)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def slots() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return randn(N, H, M, D), randn(N, H, M + 1, D, seed=1), randn(N, H, M + 1, D, seed=2), randn(N, M + 1, seed=3)


def nodes() -> tuple[Tensor, Tensor, Tensor]:
    return randn(N, H, D), randn(N, H, D, seed=1), randn(N, H, D, seed=2)


def closeness(here: Tensor, there: Tensor, present: Tensor, scale: Tensor) -> Tensor:
    square = (here.unsqueeze(2) - there.unsqueeze(1)).square().sum(3)
    return (torch.exp(-scale * square) * present.unsqueeze(1)).unsqueeze(1)


def pairs(places: Tensor, scale: Tensor) -> Pairs:
    return Pairs(closeness, places, (scale,))


def slopes(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Value, slopes, and slopes of the slopes' squares."""
    value = function(*inputs)
    first = torch.autograd.grad(value.square().sum(), inputs, create_graph=True)
    second = torch.autograd.grad(sum(s.square().sum() for s in first), inputs)
    return [value, *first, *second]


@pytest.mark.parametrize("way", ["plain", "tiles"])
def test_slot_attention_is_a_softmax_over_the_slots_of_each_atom(way: attention.Way) -> None:
    q, k, v, bias = slots()
    found = slot_attention(q, k, v, bias, True, way)
    for atom in range(N):
        for head in range(H):
            logits = q[atom, head] @ k[atom, head].T / D**0.5 + bias[atom]
            torch.testing.assert_close(found[atom, head], torch.softmax(logits, 1) @ v[atom, head], rtol=0, atol=1e-14)


def test_tiles_of_slots_have_the_derivatives_of_the_whole() -> None:
    ways = [slopes(lambda *t, w=w: slot_attention(*t, True, w), slots()) for w in ("plain", "tiles")]
    for plain, tiled in zip(*ways, strict=True):
        torch.testing.assert_close(tiled, plain, rtol=1e-12, atol=1e-12)


def test_the_fused_kernel_for_slots_agrees_with_its_first_derivatives() -> None:
    inputs = slots()
    plain, fused = (slot_attention(*inputs, False, way) for way in ("plain", "fused"))
    torch.testing.assert_close(fused, plain, rtol=1e-12, atol=1e-12)
    slopes_ = [torch.autograd.grad(value.square().sum(), inputs) for value in (plain, fused)]
    for a, b in zip(*slopes_, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("way", ["plain", "tiles", "fused"])
def test_an_empty_slot_counts_for_nothing(way: attention.Way) -> None:
    q, k, v, bias = (t.detach() for t in slots())
    bias[:, -1] = -torch.inf
    found = slot_attention(q, k, v, bias, True, way)
    torch.testing.assert_close(found, slot_attention(q, k[:, :, :-1], v[:, :, :-1], bias[:, :-1], True, "plain"))


def test_slot_attention_in_tiles_can_be_differentiated_twice() -> None:
    inputs = tuple(t.detach()[:2].requires_grad_() for t in slots())

    def tiled(*t: Tensor) -> Tensor:
        return slot_attention(*t, True, "tiles")

    assert gradcheck(tiled, inputs)
    assert gradgradcheck(tiled, inputs)


@pytest.mark.parametrize("way", ["plain", "tiles", "fused"])
def test_node_attention_is_a_softmax_within_each_structure(way: attention.Way) -> None:
    q, k, v = nodes()
    found = node_attention(q, k, v, TABLE, True, way=way)
    for rows in (slice(0, 3), slice(3, 5)):
        weights = torch.softmax(torch.einsum("ihd,jhd->hij", q[rows], k[rows]) / D**0.5, dim=2)
        torch.testing.assert_close(found[rows], torch.einsum("hij,jhd->ihd", weights, v[rows]), rtol=0, atol=1e-14)


def test_tiles_of_atoms_have_the_derivatives_of_the_whole_with_weights_and_null_token() -> None:
    inputs = (*nodes(), randn(N, 3, seed=3), randn(1, seed=4), randn(H, seed=5))

    def attend(way: attention.Way, shared: bool) -> Callable[..., Tensor]:
        def function(q: Tensor, k: Tensor, v: Tensor, places: Tensor, scale: Tensor, null: Tensor) -> Tensor:
            given = pairs(places, scale.square())
            if shared:
                given = given._replace(matrix=kept(given, TABLE, heads=1).matrix)
                assert given.matrix is not None
            return node_attention(q, k, v, TABLE, True, given, null, way)

        return function

    whole, shared, tiled = (
        slopes(attend(*choice), inputs) for choice in (("plain", False), ("plain", True), ("tiles", False))
    )
    for a, b, c in zip(whole, shared, tiled, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(c, a, rtol=1e-11, atol=1e-11)


def test_node_attention_in_tiles_can_be_differentiated_twice() -> None:
    inputs = (*nodes(), randn(N, 3, seed=3), randn(1, seed=4), randn(H, seed=5))

    def tiled(q: Tensor, k: Tensor, v: Tensor, places: Tensor, scale: Tensor, null: Tensor) -> Tensor:
        return node_attention(q, k, v, TABLE, True, pairs(places, scale.square()), null, "tiles")

    assert gradcheck(tiled, inputs)
    assert gradgradcheck(tiled, inputs)


def test_attention_returns_to_the_null_token_as_atoms_part() -> None:
    q, k, v = (t.detach() for t in nodes())
    places, null = torch.zeros(N, 3, dtype=torch.float64), torch.zeros(H, dtype=torch.float64)

    def at(distance: float) -> Tensor:
        moved = places + distance * torch.arange(N).unsqueeze(1)
        lonely = Pairs(lambda a, b, p, s: closeness(a, b, p, s) - torch.eye(3), moved, (torch.ones(1),))
        return node_attention(q, k, v, TABLE, True, lonely, null)

    assert at(0.1).abs().max() > 0.1
    assert at(10.0)[:3].abs().max() < 1e-12


def test_large_logits_do_not_overflow() -> None:
    q, k, v = (t.detach() for t in nodes())
    found = node_attention(300 * q, 300 * k, v, TABLE, True, null=torch.zeros(H, dtype=torch.float64))
    assert found.isfinite().all()
    assert found.abs().max() > 0.1


def test_the_plan_keeps_small_attention_whole_and_fuses_only_what_needs_one_derivative() -> None:
    assert attention._plan(40, twice=True) == attention._plan(40, twice=False) == "plain"
    assert attention._plan(41, twice=True) == "tiles"
    assert attention._plan(41, twice=False) == "fused"


def test_a_matrix_of_weights_is_shared_only_while_it_is_small() -> None:
    places, scale = randn(N, 3), randn(1)
    assert kept(pairs(places, scale), TABLE, heads=1).matrix is not None
    assert kept(pairs(places, scale), TABLE, heads=3).matrix is None


def test_what_is_recomputed_keeps_its_inputs_only() -> None:
    """Ten thousand weights per query would be kept by autograd; here nothing but the inputs is."""
    x, sizes = randn(100, 4), []

    def pack(t: Tensor) -> Tensor:
        sizes.append(t.numel())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        recomputed(lambda t: torch.softmax(t @ t.T, 1) @ t, x)
    assert max(sizes) == x.numel()


def test_recomputation_gives_third_derivatives() -> None:
    x = randn(3)
    for function in (lambda t: t.sin(), lambda t: recomputed(torch.sin, t)):
        value = function(x).sum()
        for _ in range(3):
            (slope,) = torch.autograd.grad(value, x, create_graph=True)
            value = slope.sum()
        torch.testing.assert_close(slope, -x.cos())


def test_the_encoding_turns_products_into_legendre_polynomials() -> None:
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(M, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    channels = (2, 1, 0, 3)
    encoding = LegendreEncoding(channels)
    harmonics = torch.from_numpy(reference_harmonics(directions, 3)).unsqueeze(0)
    q, k = randn(1, 1, M, 6), randn(1, 1, M, 6, seed=1)
    factors = encoding.directions(harmonics)
    found = (encoding(q, factors) @ encoding(k, factors).transpose(2, 3))[0, 0]
    cosines, first = directions @ directions.T, 0
    expected = torch.zeros(M, M, dtype=torch.float64)
    for degree, count in enumerate(channels):
        polynomial = torch.from_numpy(np.polynomial.legendre.Legendre.basis(degree)(cosines))
        part = slice(first, first + count)
        expected = expected + polynomial * (q[0, 0, :, part] @ k[0, 0, :, part].T)
        first += count
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


def test_the_published_encoding_is_320_wide() -> None:
    assert LegendreEncoding((20, 10, 4, 10, 20)).source.shape == (320,)


def test_blocks_add_nothing_to_what_has_no_company() -> None:
    torch.manual_seed(0)
    lonely = Pairs(lambda a, b, p: torch.zeros(2, 1, 3, 3, dtype=a.dtype), randn(N, 3), ())
    assert torch.equal(FadingAttention(8, 2, 30.0).double()(randn(N, 8), TABLE, lonely), torch.zeros(N, 8).double())
    empty = torch.tensor([[0.0, -torch.inf, -torch.inf]]).double()
    added = AngularAttention(8, 2, 1).double()(randn(1, 2, 8), randn(1, 2, 4), empty)
    assert torch.equal(added, torch.zeros_like(added))
