"""Padded neighbours against plain indexing, with first and second derivatives, for every odd batch."""

from __future__ import annotations

from collections.abc import Callable

import ase
import pytest
import torch
from ase.build import bulk, molecule
from torch import Tensor

from adatom.graph import Graph, collate
from adatom.neighbors import graph_from_atoms
from adatom.nn.slots import Slots, gather_neighbours, index_slots, pad_edges

CUTOFF = 3.1
F = 2


def lone() -> ase.Atoms:
    return ase.Atoms("Cu", positions=[[0.3, 0.1, 0.2]])


def thin() -> ase.Atoms:
    """An atom whose neighbours are its own images."""
    return ase.Atoms("Cu", cell=[[2.4, 0, 0], [0.5, 2.5, 0], [0.3, 0.2, 2.9]], pbc=True)


def water() -> ase.Atoms:
    return molecule("H2O")


def metal() -> ase.Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=0)
    return atoms


BATCHES: dict[str, list[Callable[[], ase.Atoms]]] = {
    "molecule": [water],
    "lone atom": [lone],
    "lone atoms": [lone, lone],
    "lone atom first": [lone, water],
    "lone atom in between": [water, lone, thin],
    "lone atom last": [thin, lone],
    "own images": [thin],
    "mixed": [metal, lone, water],
}


def batch(name: str) -> Graph:
    return collate([graph_from_atoms(build(), CUTOFF) for build in BATCHES[name]])


def slots_of(graph: Graph, extra: int = 0, dtype: torch.dtype = torch.float64) -> Slots:
    """Tables of a batch; ``extra`` columns of empty slots on the right."""
    table = graph.slots
    if extra:
        table = torch.cat([table, torch.full((table.shape[0], extra), graph.edges.shape[1])], dim=1)
    return index_slots(graph.edges, table, graph.reverse, dtype)


def plain_pad(values: Tensor, graph: Graph, width: int) -> Tensor:
    """Edge after edge by hand."""
    padded = values.new_zeros(graph.numbers.shape[0], width, values.shape[1])
    taken = [0] * graph.numbers.shape[0]
    for edge, centre in enumerate(graph.edges[0].tolist()):
        padded[centre, taken[centre]] = values[edge]
        taken[centre] += 1
    return padded


def random(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, F, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


every_batch = pytest.mark.parametrize("name", BATCHES)
widths = pytest.mark.parametrize("extra", [0, 3])


@every_batch
@widths
def test_padded_edges_are_the_edges_of_each_atom_and_zero_elsewhere(name: str, extra: int) -> None:
    graph = batch(name)
    slots, values = slots_of(graph, extra), random(graph.edges.shape[1])
    padded = pad_edges(values, slots)
    assert padded.shape == (graph.numbers.shape[0], graph.slots.shape[1] + extra, F)
    assert torch.equal(padded, plain_pad(values, graph, padded.shape[1]))
    assert torch.equal(slots.filled[:, 0], (plain_pad(torch.ones_like(values), graph, padded.shape[1])[..., 0]))


@every_batch
@widths
def test_gathered_neighbours_are_the_atoms_at_the_other_end(name: str, extra: int) -> None:
    graph = batch(name)
    slots, values = slots_of(graph, extra), random(graph.numbers.shape[0])
    gathered = gather_neighbours(values, slots) * slots.filled.transpose(1, 2)
    assert torch.equal(gathered, plain_pad(values[graph.edges[1]], graph, gathered.shape[1]))


@every_batch
@widths
def test_first_and_second_derivatives_are_right(name: str, extra: int) -> None:
    graph = batch(name)
    if graph.edges.shape[1] > 60:
        pytest.skip("finite differences of a large batch take long, and smaller ones show the same")
    slots = slots_of(graph, extra)
    mask = slots.filled.transpose(1, 2)
    edges = random(graph.edges.shape[1]).requires_grad_()
    atoms = random(graph.numbers.shape[0], 1).requires_grad_()

    def padded(values: Tensor) -> Tensor:
        return pad_edges(values, slots)

    def gathered(values: Tensor) -> Tensor:
        return gather_neighbours(values, slots) * mask  # what is in empty slots is nobody's business

    for function, values in ((padded, edges), (gathered, atoms)):
        if values.numel():
            assert torch.autograd.gradcheck(function, (values,))
            assert torch.autograd.gradgradcheck(lambda v, f=function: f(v) ** 3, (values,))


@every_batch
def test_derivatives_agree_with_those_of_plain_indexing(name: str) -> None:
    """Also where gradients flow through both and meet again: forces of a pair energy, differentiated by a parameter."""
    graph = batch(name)
    slots = slots_of(graph)
    strength = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    found = []
    for gather in (
        lambda values: gather_neighbours(values, slots) * slots.filled.transpose(1, 2),
        lambda values: plain_pad(values[graph.edges[1]], graph, graph.slots.shape[1]),
    ):
        x = random(graph.numbers.shape[0], 2).requires_grad_()
        energy = torch.sin(strength * gather(x).sum(1) * x).sum()
        (force,) = torch.autograd.grad(energy, x, create_graph=True)
        (slope,) = torch.autograd.grad(force.square().sum(), strength)
        found.append((energy, force, slope))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)


def test_gradients_repeat_bit_by_bit() -> None:
    graph = batch("mixed")
    slots = slots_of(graph, dtype=torch.float32)

    def gradients() -> list[Tensor]:
        edges = random(graph.edges.shape[1]).float().requires_grad_()
        atoms = random(graph.numbers.shape[0], 1).float().requires_grad_()
        both = pad_edges(edges, slots) * gather_neighbours(atoms, slots)
        return list(torch.autograd.grad(both.square().sum(), (edges, atoms)))

    first = gradients()
    assert all(torch.equal(a, b) for _ in range(5) for a, b in zip(first, gradients(), strict=True))


def test_nothing_flows_to_atoms_that_stand_in_for_empty_slots() -> None:
    graph = batch("lone atom first")
    slots = slots_of(graph, extra=2)
    values = random(graph.numbers.shape[0]).requires_grad_()
    (gradient,) = torch.autograd.grad(gather_neighbours(values, slots).sum(), values)
    assert torch.equal(gradient[0], torch.zeros(F, dtype=torch.float64))  # the lone atom is nobody's neighbour
