"""Structures become graphs, and batches fill a budget."""

from __future__ import annotations

from pathlib import Path

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk

from adatom.data.dataset import Budget, Dataset, batches
from adatom.data.read import Structure, read
from adatom.errors import ConfigError, DataError
from adatom.neighbors import graph_from_atoms

SILICON = Path(__file__).parents[2] / "data" / "si_pbe_gpaw"
CUTOFF = 4.5


@pytest.fixture(scope="module")
def structures() -> list[Structure]:
    return read(SILICON / "test.xyz.xz")[0]


@pytest.fixture(scope="module")
def dataset(structures: list[Structure]) -> Dataset:
    return Dataset(structures, CUTOFF)


def cells(sizes: list[int]) -> Dataset:
    """Silicon chains of given numbers of atoms."""
    made = []
    for k, n in enumerate(sizes):
        atoms = ase.Atoms("Si" * n, [(0, 0, 2.4 * i) for i in range(n)])
        made.append(Structure(atoms, 0.0, np.zeros((n, 3)), np.full((3, 3), np.nan), f"a:{k}"))
    return Dataset(made, 3.0)


def test_a_data_set_keeps_graphs_and_labels(dataset: Dataset, structures: list[Structure]) -> None:
    assert len(dataset) == 56
    assert dataset.names[3] == "test.xyz.xz:3"
    assert dataset.config_types[0] == "beta-tin"
    assert dataset.elements == [14]
    graph, labels = dataset.batch([3])
    alone = graph_from_atoms(structures[3].atoms, CUTOFF)
    assert torch.equal(graph.edges, alone.edges)
    assert graph.positions.dtype == torch.float64
    assert labels.energy.tolist() == [structures[3].energy]
    assert torch.equal(labels.forces, torch.from_numpy(structures[3].forces))
    assert labels.stress.shape == (1, 3, 3)


def test_a_batch_joins_structures_in_order(dataset: Dataset, structures: list[Structure]) -> None:
    graph, labels = dataset.batch([5, 0, 9])
    sizes = [len(structures[k].atoms) for k in (5, 0, 9)]
    assert torch.bincount(graph.owner).tolist() == sizes
    assert labels.energy.tolist() == [structures[k].energy for k in (5, 0, 9)]
    assert labels.forces.shape == graph.positions.shape
    start = sizes[0]
    assert torch.equal(labels.forces[start : start + sizes[1]], torch.from_numpy(structures[0].forces))
    centre, neighbour = graph.edges
    assert torch.equal(graph.owner[centre], graph.owner[neighbour])
    assert graph.edges.shape[1] == int(dataset.edges[[5, 0, 9]].sum())


def test_charge_spin_and_origin_reach_the_graph() -> None:
    atoms = bulk("Si")
    atoms.info.update(total_charge=-1.0, multiplicity=2.0)
    graph, _ = Dataset([Structure(atoms, 0.0, np.zeros((2, 3)), np.zeros((3, 3)), "a:0")], 3.0, source=7).batch([0])
    assert (graph.charge.item(), graph.spin.item(), graph.source.item()) == (-1.0, 2.0, 7)


def test_an_empty_data_set_and_an_empty_batch_are_errors(dataset: Dataset) -> None:
    with pytest.raises(DataError, match="the data set is empty"):
        Dataset([], CUTOFF)
    with pytest.raises(DataError, match="a batch is empty"):
        dataset.batch([])


@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_hold_every_structure_once_and_keep_the_budget(dataset: Dataset, shuffle: bool) -> None:
    budget = Budget(atoms=40, edges=int(dataset.edges.mean() * 4.5))
    filled = batches(dataset, budget, seed=1, shuffle=shuffle)
    assert sorted(k for batch in filled for k in batch) == list(range(56))
    assert all(dataset.atoms[batch].sum() <= 40 for batch in filled)
    assert budget.edges is not None
    assert all(dataset.edges[batch].sum() <= budget.edges for batch in filled)


def test_seed_and_epoch_decide_the_batches(dataset: Dataset) -> None:
    budget = Budget(atoms=40)
    assert batches(dataset, budget, seed=1, epoch=2) == batches(dataset, budget, seed=1, epoch=2)
    assert batches(dataset, budget, seed=1, epoch=2) != batches(dataset, budget, seed=1, epoch=3)
    assert batches(dataset, budget, seed=1, epoch=2) != batches(dataset, budget, seed=2, epoch=2)


def test_batches_in_order_keep_the_order(dataset: Dataset) -> None:
    flat = [k for batch in batches(dataset, Budget(atoms=40), shuffle=False) for k in batch]
    assert flat == list(range(56))


def test_a_structure_beyond_the_budget_makes_a_batch_of_its_own() -> None:
    dataset = cells([3, 30, 4, 25, 5])
    for shuffle in (True, False):
        filled = batches(dataset, Budget(atoms=12), shuffle=shuffle)
        assert [1] in filled
        assert [3] in filled
        assert sorted(k for batch in filled for k in batch) == [0, 1, 2, 3, 4]


def test_batches_of_mixed_sizes_are_well_filled() -> None:
    sizes = np.random.default_rng(0).integers(1, 60, 400).tolist()
    filled = batches(cells(sizes), Budget(atoms=100), seed=5)
    assert sum(sizes) / (100 * len(filled)) > 0.95


def test_a_budget_of_nothing_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="atoms"):
        Budget.parse({"atoms": 0})
