"""A plan is a partition of the set into well filled batches, the same for the same seed and epoch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from adatom.data.batches import Budget, Plan, batches


@dataclass
class Sizes:
    """As much of a data set as a plan asks for."""

    atoms: np.ndarray
    edges: np.ndarray = field(default_factory=lambda: np.zeros(0))


def molecules(count: int, seed: int = 0) -> Sizes:
    """Sizes of 2 to 350 atoms, log-normal about 50, and edges that saturate with size."""
    random = np.random.default_rng(seed)
    drawn = np.rint(np.exp(random.normal(np.log(50), 0.7, 3 * count))).astype(int)
    atoms = drawn[(drawn >= 2) & (drawn <= 350)][:count]
    near = np.minimum(atoms - 1, 60 * (1 - 1.2 * atoms ** (-1 / 3)) + 8) * random.normal(1, 0.1, count).clip(0.7, 1.3)
    return Sizes(atoms, np.maximum(atoms * near, 2).astype(int))


def filling(plan: Plan, sizes: np.ndarray, limit: int) -> float:
    return float(sizes.sum() / (limit * len(plan)))


@pytest.mark.parametrize("atoms", [400, 700, 1000, 2000, 4000])
@pytest.mark.parametrize("tight", [False, True])
def test_batches_of_molecules_of_all_sizes_are_filled_to_97_percent(atoms: int, tight: bool) -> None:
    data = molecules(30_000)
    edges = int(atoms * data.edges.sum() / data.atoms.sum()) if tight else None  # both limits bind alike
    plan = batches(data, Budget(atoms=atoms, edges=edges), seed=1, epoch=2)
    assert filling(plan, data.atoms, atoms) > (0.97 if tight else 0.99)
    for sizes, limit in ((data.atoms, atoms), (data.edges, edges)):
        assert limit is None or max(sizes[b].sum() for b in plan if len(b) > 1) <= limit


@pytest.mark.parametrize("seed", range(30))
def test_a_plan_is_a_partition_within_the_budget(seed: int) -> None:
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 400))
    data = Sizes(random.integers(1, 60, count), random.integers(0, 900, count))
    budget = Budget(atoms=int(random.integers(1, 200)), edges=int(random.integers(1, 3000)) if seed % 2 else None)
    plan = batches(data, budget, seed, epoch=seed, shuffle=seed % 3 > 0)
    assert sorted(k for batch in plan for k in batch) == list(range(count))
    for batch in plan:
        over = data.atoms[batch].sum() > budget.atoms
        over |= budget.edges is not None and data.edges[batch].sum() > budget.edges
        assert len(batch) == 1 or (len(batch) > 1 and not over)


def test_plans_of_many_lanes_are_partitions_too() -> None:
    data = Sizes(np.random.default_rng(0).integers(1, 9, 40_000))
    plan = batches(data, Budget(atoms=16), seed=3)
    assert np.array_equal(np.sort(plan.order), np.arange(40_000))
    assert filling(plan, data.atoms, 16) > 0.98


def test_batches_are_shuffled_in_content_and_order() -> None:
    data = molecules(20_000)
    first, second = (batches(data, Budget(atoms=1000), seed=0, epoch=e) for e in (0, 1))
    assert first == batches(data, Budget(atoms=1000), seed=0, epoch=0)
    assert first != second
    means = np.array([data.atoms[b].mean() for b in first])
    each = data.atoms.std() / np.sqrt(np.mean([len(b) for b in first]))
    assert means.std() < 1.5 * each, "small and large structures come together as if drawn at random"
    place = np.empty(20_000)
    place[first.order] = np.arange(20_000)
    assert abs(np.corrcoef(place, np.arange(20_000))[0, 1]) < 0.05
    assert abs(np.corrcoef(place, data.atoms)[0, 1]) < 0.05
    together = {(a, b) for batch in first for a in batch for b in batch if a < b}
    again = {(a, b) for batch in second for a in batch for b in batch if a < b}
    assert len(together & again) < 0.02 * len(together)


def test_the_rest_of_an_epoch_is_a_slice_of_its_plan() -> None:
    plan = batches(molecules(500), Budget(atoms=300), seed=5)
    listed = list(plan)
    assert plan == listed
    assert plan[7:] == listed[7:]
    assert plan[3:9] == listed[3:9]
    assert plan[1::3] == listed[1::3]
    assert plan[-1] == listed[-1]
    assert len(plan[len(plan) :]) == 0
    with pytest.raises(IndexError):
        plan[len(plan)]


def test_a_million_structures_are_planned_in_about_half_a_second() -> None:
    import time

    data = molecules(1_000_000)
    start = time.process_time()
    plan = batches(data, Budget(atoms=1000))
    assert time.process_time() - start < 3.0, "with room for a busy machine"
    assert filling(plan, data.atoms, 1000) > 0.99
