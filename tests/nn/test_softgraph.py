"""The soft graph: published values, smoothness, symmetry, and cost of order N."""

from __future__ import annotations

import math

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk
from torch import Tensor

from adatom.neighbors import graph_from_atoms
from adatom.nn.slots import Slots, index_slots, pad_edges
from adatom.nn.softgraph import (
    bump,
    distances_in_slots,
    fading_ranks,
    flip_edges,
    flip_slots,
    log_weight,
    slot_bias,
    soft_envelope,
    soft_ranks,
    with_self,
)

CUTOFF, K = 6.0, 30
WATER = ase.Atoms("OHH", positions=[[0, 0, 0], [0.9572, 0, 0], [-0.2399872, 0.9266272, 0]])


def edges(atoms: ase.Atoms, reach: float = CUTOFF + 0.8) -> tuple[Tensor, Slots, Tensor, Tensor]:
    """Distances, tables, reverse edges and the edges themselves."""
    graph = graph_from_atoms(atoms, reach)
    i, j = graph.edges
    r = (graph.positions[j] + graph.shifts @ graph.cell[0] - graph.positions[i]).norm(dim=1)
    return r, index_slots(graph.edges, graph.slots, graph.reverse, r.dtype), graph.reverse, graph.edges


def envelopes(atoms: ase.Atoms, published: bool = True, k: int = K) -> tuple[Tensor, Tensor, Tensor]:
    """Envelope and distance of each edge, and its reverse."""
    r, slots, reverse, _ = edges(atoms, CUTOFF + 0.8 if published else CUTOFF)
    padded = distances_in_slots(r, slots)
    ranks = soft_ranks(padded, k) if published else fading_ranks(padded, CUTOFF)
    return soft_envelope(r, ranks, slots, reverse, k, CUTOFF), r, reverse


def gas(atoms: int = 40, seed: int = 0) -> ase.Atoms:
    """Random places, as many as there are atoms in water."""
    length = (9.94 * atoms) ** (1 / 3)
    rng = np.random.default_rng(seed)
    return ase.Atoms(f"H{atoms}", positions=rng.uniform(0, length, size=(atoms, 3)), cell=np.eye(3) * length, pbc=True)


def test_the_bump_has_its_published_values() -> None:
    x = torch.tensor([-9.0, -4.0, -0.5, 0.0, 0.5, 2.0, 3.9, 4.0, 9.0], dtype=torch.float64)
    expected = [0.0, 0.0, 0.37568, 0.5, 0.62432, 0.93503, 1.0, 1.0, 1.0]
    assert bump(x).tolist() == pytest.approx(expected, abs=5e-6)
    assert bump(x[[0, 1, 7, 8]]).tolist() == [0.0, 0.0, 1.0, 1.0]
    u = x[2:6] / 4
    exponentials = torch.exp(-2 / (u + 1)) / (torch.exp(-2 / (u + 1)) + torch.exp(-2 / (1 - u)))
    torch.testing.assert_close(bump(x[2:6]), exponentials, rtol=0, atol=1e-15)


def test_the_bump_can_be_differentiated_twice_anywhere() -> None:
    x = torch.linspace(-6, 6, 97, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(bump(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), x)
    assert slope.isfinite().all()
    assert second.isfinite().all()
    assert slope.min() >= 0


def test_water_has_its_published_envelopes_and_weights() -> None:
    env, r, _ = envelopes(WATER)
    oh, hh = r < 1, r > 1
    assert env[oh].tolist() == pytest.approx([0.21434613] * 4, abs=1e-6)
    assert env[hh].tolist() == pytest.approx([0.28369164] * 2, abs=1e-6)
    assert log_weight(env[oh]).tolist() == pytest.approx([-0.04815679] * 4, abs=1e-6)
    assert log_weight(env[hh]).tolist() == pytest.approx([-0.08752504] * 2, abs=1e-6)


@pytest.mark.parametrize(
    ("env", "weight"),
    [(0.0, 1.0), (0.05, 0.9975), (0.2, 0.959), (0.4, 0.827), (0.6, 0.570), (0.8, 0.169), (0.9, 0.0141), (0.95, 9.5e-5)],
)
def test_weights_are_the_published_ones(env: float, weight: float) -> None:
    assert math.exp(log_weight(torch.tensor(env, dtype=torch.float64)).item()) == pytest.approx(weight, rel=6e-3)


def test_the_edge_of_a_lone_pair_dies_just_inside_the_cutoff() -> None:
    distances = torch.linspace(5.99, 6.01, 201, dtype=torch.float64)
    env = torch.stack([envelopes(ase.Atoms("H2", positions=[[0, 0, 0], [d, 0, 0]]))[0][0] for d in distances.tolist()])
    assert distances[env < 1].max().item() == pytest.approx(5.999, abs=1e-3)


@pytest.mark.parametrize("published", [True, False])
def test_ranks_count_the_nearer_neighbours(published: bool) -> None:
    """Distances far apart have whole numbers; the atom itself counts one, a neighbour one half for itself."""
    r = torch.tensor([[0.9, 1.8, 2.7, torch.inf]], dtype=torch.float64)
    ranks = soft_ranks(r, K) if published else fading_ranks(r, 1e3)
    assert ranks[0, :3].tolist() == pytest.approx([1.5, 2.5, 3.5], abs=1e-9)


def test_only_the_nearest_are_ranked_as_published() -> None:
    r = torch.arange(1, 61, dtype=torch.float64).view(1, -1)[:, torch.randperm(60)]
    ranks = soft_ranks(r, K)[0]
    assert torch.equal(ranks[r[0] > K + 19], torch.full((60 - K - 19,), 2.0 * K, dtype=torch.float64))
    assert ranks[r[0] <= K + 19].tolist() == pytest.approx((r[0][r[0] <= K + 19] + 0.5).tolist(), abs=1e-9)


@pytest.mark.parametrize("published", [True, False])
def test_an_edge_and_its_reverse_have_one_envelope(published: bool) -> None:
    env, _, reverse = envelopes(gas(), published)
    torch.testing.assert_close(env, env[reverse], rtol=0, atol=1e-12)


def test_a_gas_of_the_density_of_water_keeps_25_neighbours_of_91() -> None:
    env, r, _ = envelopes(gas(300))
    assert float((r < 6).sum()) / 300 == pytest.approx(91, abs=1.5)
    assert float((env < 1).sum()) / 300 == pytest.approx(25.0, abs=0.3)


def test_the_envelope_of_the_default_form_is_smooth_as_an_atom_enters_the_cutoff() -> None:
    """The published ranks feel what lies beyond the cutoff; those of the default form never need it."""
    start = bulk("Cu", cubic=True) * 2
    start.pbc = False
    start.rattle(0.1, seed=0)
    offsets = CUTOFF + 1e-3 * (np.arange(-40, 40) + 0.5)
    values = []
    for distance in offsets:
        atoms = start.copy()
        atoms += ase.Atoms("H", positions=[atoms.positions[0] + np.array([-1.0, -1.0, -1.0]) / 3**0.5 * distance])
        r, slots, reverse, pairs = edges(atoms, CUTOFF)
        env = soft_envelope(r, fading_ranks(distances_in_slots(r, slots), CUTOFF), slots, reverse, 20, CUTOFF)
        inner = (pairs < len(start)).all(0)
        values.append(env[inner].numpy())
    steps = np.abs(np.diff(values, axis=0)).max(axis=1)
    assert steps.max() < 1e-6


def test_more_neighbours_than_candidates_keep_their_derivatives() -> None:
    r = (torch.rand(2, 70, dtype=torch.float64) * 5 + 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: soft_ranks(x, 8).clamp(max=12), (r,), atol=1e-4)


def test_flipping_edges_twice_changes_nothing_and_once_gives_the_reverse_edges() -> None:
    r, slots, reverse, pairs = edges(gas(12), 4.0)
    values = torch.stack([pairs[0].double(), pairs[1].double(), r], dim=1)
    padded = pad_edges(values, slots)
    flipped = flip_edges(padded, slots)
    torch.testing.assert_close(flip_edges(flipped, slots), padded)
    torch.testing.assert_close(flipped, pad_edges(values[reverse], slots))
    own = torch.randn(12, 1, 3, dtype=torch.float64)
    torch.testing.assert_close(flip_slots(torch.cat([own, padded], 1), slots), torch.cat([own, flipped], 1))


def test_flipping_has_the_transpose_as_its_derivative() -> None:
    _, slots, _, pairs = edges(WATER)
    x = torch.randn(3, slots.filled.shape[2], 2, dtype=torch.float64, requires_grad=True)
    assert pairs.shape[1] == 6
    assert torch.autograd.gradcheck(lambda t: flip_edges(t, slots), (x,))
    assert torch.autograd.gradgradcheck(lambda t: flip_edges(t, slots), (x,))


def test_the_atom_itself_is_the_first_slot() -> None:
    _, slots, _, _ = edges(ase.Atoms("H3", positions=[[0, 0, 0], [1, 0, 0], [20, 0, 0]]))
    bias = slot_bias(torch.full((3, 1, 1), -0.5), slots)
    assert bias.tolist() == [[0.0, -0.5], [0.0, -0.5], [0.0, -math.inf]]
    assert with_self(torch.ones(3, 1, 2)).tolist() == [[[0.0, 0.0], [1.0, 1.0]]] * 3
