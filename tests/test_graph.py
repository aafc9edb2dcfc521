"""The batch type: padded tables say the same as the edge list, and a batch says the same as its structures."""

from __future__ import annotations

import dataclasses

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from adatom.graph import Graph, collate, edge_vectors, pad_rows, reverse_edges, sum_by_owner
from adatom.neighbors import graph_from_atoms

CUTOFF = 4.0


@pytest.fixture(scope="module")
def structures() -> list[ase.Atoms]:
    crystal = bulk("Si", cubic=True)
    crystal.rattle(0.1, seed=0)
    thin = ase.Atoms(
        "OH", positions=[[0, 0, 0], [0.8, 0.9, 1.0]], cell=[[2.1, 0, 0], [0.7, 2.0, 0], [0, 0.4, 2.4]], pbc=True
    )
    return [molecule("H2O"), ase.Atoms("Cu", positions=[[1.0, 2.0, 3.0]]), crystal, thin]


@pytest.fixture(scope="module")
def graphs(structures: list[ase.Atoms]) -> list[Graph]:
    return [graph_from_atoms(atoms, CUTOFF) for atoms in structures]


def check_tables(graph: Graph) -> None:
    """``slots``, ``table`` and ``reverse`` against the plain lists, entry by entry."""
    atoms, edges = graph.numbers.shape[0], graph.edges.shape[1]
    assert (graph.edges[0].diff() >= 0).all(), "sorted by centre"
    assert (graph.owner.diff() >= 0).all(), "sorted by structure"
    for i in range(atoms):
        row = graph.slots[i]
        assert row[row < edges].tolist() == (graph.edges[0] == i).nonzero().flatten().tolist()
        assert (row[row >= edges] == edges).all()
    for s in range(graph.cell.shape[0]):
        row = graph.table[s]
        assert row[row < atoms].tolist() == (graph.owner == s).nonzero().flatten().tolist()
        assert (row[row >= atoms] == atoms).all()
    assert (graph.reverse < edges).all()
    assert torch.equal(graph.edges[:, graph.reverse], graph.edges.flip(0))
    assert torch.equal(graph.shifts[graph.reverse], -graph.shifts)


def test_tables_say_what_the_lists_say(graphs: list[Graph]) -> None:
    for graph in graphs:
        check_tables(graph)


def test_tables_of_a_batch_say_what_its_lists_say(graphs: list[Graph]) -> None:
    check_tables(collate(graphs))
    check_tables(collate([collate(graphs[:2]), collate(graphs[2:])]))


def test_a_batch_holds_each_structure_as_it_was_alone(graphs: list[Graph]) -> None:
    batch = collate(graphs)
    edge_owner = batch.owner[batch.edges[0]]
    vectors = edge_vectors(batch)
    first = 0
    for s, graph in enumerate(graphs):
        own = batch.owner == s
        assert torch.equal(batch.numbers[own], graph.numbers)
        assert torch.equal(batch.positions[own], graph.positions)
        assert torch.equal(batch.edges[:, edge_owner == s] - first, graph.edges)
        assert torch.equal(vectors[edge_owner == s], edge_vectors(graph))
        for name in ("cell", "pbc", "charge", "spin", "source"):
            assert torch.equal(getattr(batch, name)[s : s + 1], getattr(graph, name))
        first += graph.numbers.shape[0]


def test_a_batch_of_one_is_that_one(graphs: list[Graph]) -> None:
    for graph in graphs:
        for field in dataclasses.fields(Graph):
            assert torch.equal(getattr(collate([graph]), field.name), getattr(graph, field.name)), field.name


def test_batches_of_lone_atoms_have_no_edges() -> None:
    lone = graph_from_atoms(ase.Atoms("H"), CUTOFF)
    batch = collate([lone, lone, lone])
    assert batch.edges.shape == (2, 0)
    assert batch.slots.tolist() == [[0], [0], [0]], "an empty slot each"
    assert batch.table.tolist() == [[0], [1], [2]]


def test_a_missing_opposite_edge_is_marked_with_the_number_of_edges() -> None:
    edges = torch.tensor([[0, 0, 1], [1, 1, 0]])
    shifts = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [0.0, 0, 0]])
    reverse = reverse_edges(edges, shifts)
    assert reverse.tolist() == [2, 3, 0]
    graph = graph_from_atoms(ase.Atoms("H2", positions=[[0, 0, 0], [0, 0, 1]]), CUTOFF)
    one_way = graph.replace(reverse=torch.tensor([1, 2]))
    assert collate([one_way, graph]).reverse.tolist() == [1, 4, 3, 2]


def test_opposite_edges_are_found_however_far_the_atoms_have_wandered() -> None:
    atoms = bulk("Cu", cubic=True)
    rng = np.random.default_rng(0)
    atoms.positions += rng.integers(-50_000, 50_000, size=(4, 3)) @ np.asarray(atoms.cell)
    graph = graph_from_atoms(atoms, CUTOFF)
    assert graph.edges.shape[1] == graph_from_atoms(bulk("Cu", cubic=True), CUTOFF).edges.shape[1]
    check_tables(graph)


def test_edge_vectors_point_from_the_centre_to_the_neighbour() -> None:
    atoms = ase.Atoms("HO", positions=[[0.5, 0, 0], [2.5, 0, 0]], cell=[3, 9, 9], pbc=[True, False, False])
    graph = graph_from_atoms(atoms, 1.5)
    assert graph.edges.tolist() == [[0, 1], [1, 0]]
    assert edge_vectors(graph).tolist() == [[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]


def test_edge_vectors_can_be_derived_by_positions_and_cell(graphs: list[Graph]) -> None:
    graph = graphs[3]
    positions, cell = graph.positions.clone().requires_grad_(), graph.cell.clone().requires_grad_()

    def vectors(positions: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        return edge_vectors(graph.replace(positions=positions, cell=cell))

    assert torch.autograd.gradcheck(vectors, (positions, cell))


def test_sums_by_owner_keep_structures_apart_and_give_zero_to_the_empty() -> None:
    values = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    total = sum_by_owner(values, torch.tensor([0, 0, 2]), 4)
    assert total.tolist() == [[3.0, 30.0], [0.0, 0.0], [4.0, 40.0], [0.0, 0.0]]


def test_padding_of_rows_without_entries() -> None:
    assert pad_rows(torch.tensor([1, 1, 3]), 5).tolist() == [[3, 3], [0, 1], [3, 3], [2, 3], [3, 3]]
    assert pad_rows(torch.zeros(0, dtype=torch.int64), 2).tolist() == [[0], [0]]


def test_a_change_of_dtype_leaves_integers_alone(graphs: list[Graph]) -> None:
    single = collate(graphs).to(dtype=torch.float32)
    for field in dataclasses.fields(Graph):
        before, after = getattr(collate(graphs), field.name), getattr(single, field.name)
        assert after.dtype == (torch.float32 if before.is_floating_point() else before.dtype), field.name


def test_a_graph_cannot_be_written_to(graphs: list[Graph]) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        graphs[0].numbers = graphs[1].numbers  # type: ignore[misc]
