from __future__ import annotations

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from adatom.errors import SimulationError
from adatom.sim.guard import Guard
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
