from __future__ import annotations

import itertools

import ase
import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk, molecule

from adatom.errors import SimulationError
from adatom.neighbors import graph_from_atoms
from adatom.priors.zbl import ZBL, ZBLConfig
from adatom.sim.guard import HEAT, MARGIN, Guard, closest_allowed
from adatom.sim.skin import SkinList

CARD = {"min_distance_A": {"Cu-Cu": 1.6, "C-C": 1.2, "C-H": 0.9, "H-H": 1.0}}


def closest(atoms: ase.Atoms) -> float:
    """By how much the closest pair of a structure is farther apart than its limit, Å."""
    limit = {frozenset("CC"): 1.02, frozenset("CH"): 0.765, frozenset("HH"): 0.85, frozenset(["Cu"]): 1.36}
    spare = [
        atoms.get_distance(i, j, mic=True) - limit[frozenset((a.symbol, b.symbol))]
        for i, a in enumerate(atoms)
        for j, b in enumerate(atoms)
        if i < j
    ]
    return min(spare)


@pytest.mark.parametrize("start", [molecule("C2H6"), bulk("Cu", cubic=True) * 2], ids=["molecule", "crystal"])
@pytest.mark.parametrize("seed", range(4))
def test_the_first_step_on_which_two_atoms_are_too_close_is_the_step_that_is_named(start: ase.Atoms, seed: int) -> None:
    atoms, rng = start.copy(), np.random.default_rng(seed)
    guard = Guard(atoms, CARD)
    positions = torch.tensor(atoms.positions)
    for step in range(300):
        positions += torch.from_numpy(rng.normal(scale=0.03, size=positions.shape))
        atoms.positions = positions.numpy()
        if closest(atoms) < 0.0:
            with pytest.raises(SimulationError, match=f"step {step}, atoms"):
                guard.check_distances(step, positions, atoms.cell.array)
            return
        guard.check_distances(step, positions, atoms.cell.array)
    pytest.fail("nothing came close: the walk is too short")


def test_pairs_are_looked_at_only_when_two_atoms_may_have_met(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    pairs = SkinList.pairs
    monkeypatch.setattr(SkinList, "pairs", lambda self, *where: looks.append(1) or pairs(self, *where))
    atoms = bulk("Cu", cubic=True) * 2
    guard, positions = Guard(atoms, CARD), torch.tensor(atoms.positions)
    for step in range(50):
        positions[:, step % 3] += 0.004
        guard.check_distances(step, positions, atoms.cell.array)
    assert len(looks) < 5


def test_a_cell_that_shrinks_under_the_atoms_is_noticed() -> None:
    atoms = bulk("Cu", cubic=True)
    guard = Guard(atoms, CARD)
    guard.check_distances(0, torch.tensor(atoms.positions), atoms.cell.array)
    with pytest.raises(SimulationError, match="closer"):
        guard.check_distances(1, torch.tensor(atoms.positions) * 0.5, atoms.cell.array * 0.5)


def test_behind_a_wall_hot_atoms_may_come_as_near_as_heat_brings_them() -> None:
    wall, species = ZBL(ZBLConfig(closest=CARD["min_distance_A"])), np.array([1, 6, 29])
    tables = [closest_allowed(species, CARD, wall=wall, temperature_K=t) for t in (0.0, 300.0, 1000.0, 3000.0, 1e5)]
    assert np.array_equal(tables[0], closest_allowed(species, CARD))
    for cold, hot in itertools.pairwise(tables):
        assert (hot <= cold).all()
        np.testing.assert_array_equal(hot, hot.T)
    changed = tables[3] < tables[0]
    assert changed[0, 0], "two H: their cores are soft"
    assert not changed[:2, 2].any(), "no word of C-Cu and H-Cu in training: no wall, no change"
    pair = ase.Atoms("HH", [[0, 0, 0], [0, 0, tables[3][0, 0]]])
    repulsion = float(wall(graph_from_atoms(pair, 3.0)).sum())
    assert repulsion == pytest.approx(HEAT * units.kB * 3000.0, rel=1e-9)


def test_heat_counts_only_behind_a_wall_and_without_a_margin_of_ones_own() -> None:
    atoms, wall = ase.Atoms("HH", [[0, 0, 0], [0.7, 0, 0]]), ZBL(ZBLConfig(closest=CARD["min_distance_A"]))
    place = torch.tensor(atoms.positions), atoms.cell.array
    guards = {
        "bare": Guard(atoms, CARD),
        "own margin": Guard(atoms, CARD, MARGIN, wall),
        "cold": Guard(atoms, CARD, None, wall),
        "hot": Guard(atoms, CARD, None, wall),
    }
    for name, guard in guards.items():
        guard.warm(0.0 if name == "cold" else 3000.0)
        if name == "hot":
            guard.check_distances(0, *place)
            assert guard.nearest is not None
            assert guard.nearest.distance_A == pytest.approx(0.7)
        else:
            with pytest.raises(SimulationError, match="closer"):
                guard.check_distances(0, *place)


@pytest.mark.parametrize("seed", range(4))
def test_the_nearest_approach_that_was_let_pass_is_remembered(seed: int) -> None:
    atoms, rng = molecule("C2H6"), np.random.default_rng(seed)
    guard, positions = Guard(atoms, CARD, 0.0), torch.tensor(atoms.positions)
    best = (MARGIN, -1)
    for step in range(300):
        positions += torch.from_numpy(rng.normal(scale=0.03, size=positions.shape))
        atoms.positions = positions.numpy()
        best = min(best, (ratio(atoms), step))
        guard.check_distances(step, positions, atoms.cell.array)
    assert best[1] >= 0, "nothing came close: the walk is too short"
    assert guard.nearest is not None
    assert guard.nearest.step == best[1]
    assert guard.nearest.distance_A / guard.nearest.trained_A == pytest.approx(best[0], abs=1e-12)


def ratio(atoms: ase.Atoms) -> float:
    """Of the nearest pair in terms of the shortest distances in training."""
    known = {frozenset(pair.split("-")): d for pair, d in CARD["min_distance_A"].items()}
    every = itertools.combinations(range(len(atoms)), 2)
    return min(atoms.get_distance(i, j) / known[frozenset((atoms[i].symbol, atoms[j].symbol))] for i, j in every)
