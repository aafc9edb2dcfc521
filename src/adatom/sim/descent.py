"""The descent of many structures as an optimiser of TorchSim: L-BFGS, each structure on a way of its own.

The coordinates of a structure are the positions of its atoms, and where cells relax a symmetric strain of what is there
now, r -> r exp(eps): its slope is volume (stress + pressure). Every step starts from the cell of the moment, so that
no reference cell is needed. The algebra is that of ``adatom.sim.curvature``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from adatom.sim.curvature import Memory, direction, limited, remember
from adatom.sim.torchsim import AtomsState, ModelInterface


@dataclass
class DescentState(AtomsState):
    """Structures on their way down. ``visits`` counts evaluations: a structure that has not been looked at has none."""

    energy: Tensor  # (S,)  eV, or enthalpy under pressure
    forces: Tensor  # (N, 3)  eV/Å, zero on atoms that are held
    stress: Tensor  # (S, 3, 3)  eV/Å^3, NaN in fixed cells
    visits: Tensor  # (S,)  int64
    moves: Tensor  # (N, m, 3)  this and what follows: see adatom.sim.curvature.Met
    turns: Tensor  # (N, m, 3)
    cell_moves: Tensor  # (S, m, 9)
    cell_turns: Tensor  # (S, m, 9)
    products: Tensor  # (S, m, m)

    _atom_attributes = AtomsState._atom_attributes | {"forces", "moves", "turns"}
    _system_attributes = AtomsState._system_attributes | {
        "energy", "stress", "visits", "cell_moves", "cell_turns", "products",
    }  # fmt: skip


def lbfgs(
    model: ModelInterface, *, cell: bool = False, pressure: float = 0.0
) -> tuple[Callable[[AtomsState], DescentState], Callable[[DescentState], DescentState]]:
    """Functions that begin a descent and make one step of it, as ``torch_sim.optimize`` wants them.

    Parameters
    ----------
    model
        Energies and forces; of a model that gives stresses if cells are to relax.
    cell
        Relax cells as well.
    pressure
        eV/Å^3, with ``cell``.
    """

    def begin(state: AtomsState) -> DescentState:
        """Where the structures stand, not looked at yet: the first step evaluates them and moves nothing."""
        structures, like = state.cell.shape[0], state.positions
        empty = Memory.empty(state.system_idx, structures, like.dtype)
        return DescentState(
            **{field.name: getattr(state, field.name) for field in fields(AtomsState)},
            energy=like.new_full((structures,), torch.nan),
            forces=torch.zeros_like(like),
            stress=torch.full_like(state.cell, torch.nan),
            visits=torch.zeros_like(state.number),
            moves=empty.moves,
            turns=empty.turns,
            cell_moves=empty.cell_moves,
            cell_turns=empty.cell_turns,
            products=empty.products,
        )

    def step(state: DescentState) -> DescentState:
        """One step of each structure, and one evaluation of all."""
        pull = _pull(state, pressure) if cell else torch.zeros_like(state.cell)
        move, strain = limited(state, *direction(state, _volumes(state), state.forces, pull))
        before = state.forces
        _go(state, move, strain if cell else None)
        found = model(state)
        state.energy = found["energy"] + pressure * _volumes(state) if cell else found["energy"]
        state.forces = found["forces"] * state.mobile
        if cell:
            state.stress = found["stress"]
        known = state.visits > 0
        state.visits = state.visits + 1
        cell_turn = pull - _pull(state, pressure) if cell else torch.zeros_like(pull)
        remember(state, known, move, before - state.forces, strain.flatten(1), cell_turn.flatten(1))
        return state

    return begin, step


def _volumes(state: DescentState) -> Tensor:
    """(S,) Å^3; 0 where a structure has none."""
    volumes: Tensor = torch.linalg.det(state.cell).abs()
    return volumes


def _pull(state: DescentState, pressure: float) -> Tensor:
    """What strains the cells, -dH/d(strain), (S, 3, 3) in eV; zero before anything is known."""
    own = torch.eye(3, dtype=state.cell.dtype, device=state.cell.device)
    work = -_volumes(state).view(-1, 1, 1) * (state.stress + pressure * own)
    return torch.where(state.stress.isnan(), 0.0, work)


def _go(state: DescentState, move: Tensor, strain: Tensor | None) -> None:
    """Strain what is there, and move the atoms."""
    if strain is not None:
        growth = torch.linalg.matrix_exp(0.5 * (strain + strain.mT))  # (S, 3, 3), symmetric
        state.cell = growth @ state.cell  # columns are lattice vectors
        grown = growth.index_select(0, state.system_idx)
        state.positions = torch.bmm(grown, state.positions.unsqueeze(2)).flatten(1)
    state.positions = state.positions + move
