"""L-BFGS for many structures at once, as an optimiser of TorchSim: each goes its own way, all in the same operations.

H g = r + S R^-T (D p - Y^T r),   r = H0 (g - Y p),   p = R^-1 S^T g      (Byrd, Nocedal, Schnabel 1994, two-loop order)

=====================  ==================================  ===========================
equation               variable                            shape
=====================  ==================================  ===========================
S, Y                   moves, turns; cell_moves, ...       (N, m, 3); (S, m, 9)
R (upper triangle)     products: s_a . y_b, a <= b         (S, m, m), oldest first
D                      its diagonal
H0                     1 / stiffness                       of an atom, of a cell
=====================  ==================================  ===========================

The coordinates of a structure are the positions of its atoms, and where cells relax a symmetric strain of what is there
now, r -> r exp(eps): its slope is volume (stress + pressure). Every step starts from the cell of the moment, so that
no reference cell is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from adatom.sim.torchsim import AtomsState, ModelInterface

MEMORY = 20  # moves that are remembered
STIFFNESS = 70.0  # eV/Å^2, of an atom before anything is known of its curvature
CELL_STIFFNESS = 1.0  # eV/Å^3 (160 GPa), of a cell per volume
STRIDE, STRAIN = 0.2, 0.04  # Å and 1: the longest step of an atom and of a cell
PEAK = 1e-12  # of |s| |y|: less of s . y is no curvature


@dataclass
class DescentState(AtomsState):
    """Structures on their way down. ``visits`` counts evaluations: a structure that has not been looked at has none."""

    energy: Tensor  # (S,)  eV, or enthalpy under pressure
    forces: Tensor  # (N, 3)  eV/Å, zero on atoms that are held
    stress: Tensor  # (S, 3, 3)  eV/Å^3, NaN in fixed cells
    visits: Tensor  # (S,)  int64
    moves: Tensor  # (N, m, 3)
    turns: Tensor  # (N, m, 3)  changes of the gradient
    cell_moves: Tensor  # (S, m, 9)
    cell_turns: Tensor  # (S, m, 9)
    products: Tensor  # (S, m, m)  s_a . y_b, the identity where nothing is remembered

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
        atoms, structures, like = state.positions.shape[0], state.cell.shape[0], state.positions
        return DescentState(
            **{field.name: getattr(state, field.name) for field in fields(AtomsState)},
            energy=like.new_full((structures,), torch.nan),
            forces=torch.zeros_like(like),
            stress=torch.full_like(state.cell, torch.nan),
            visits=torch.zeros_like(state.number),
            moves=like.new_zeros((atoms, MEMORY, 3)),
            turns=like.new_zeros((atoms, MEMORY, 3)),
            cell_moves=like.new_zeros((structures, MEMORY, 9)),
            cell_turns=like.new_zeros((structures, MEMORY, 9)),
            products=torch.eye(MEMORY, dtype=like.dtype, device=like.device).repeat(structures, 1, 1),
        )

    def step(state: DescentState) -> DescentState:
        """One step of each structure, and one evaluation of all."""
        pull = _pull(state, pressure) if cell else torch.zeros_like(state.cell)
        move, strain = _limited(state, *_direction(state, state.forces, pull))
        before = state.forces
        _go(state, move, strain if cell else None)
        found = model(state)
        volume = torch.linalg.det(state.cell).abs()
        state.energy = found["energy"] + pressure * volume if cell else found["energy"]
        state.forces = found["forces"] * state.mobile
        if cell:
            state.stress = found["stress"]
        known = state.visits > 0
        state.visits = state.visits + 1
        turn = before - state.forces
        cell_turn = pull - _pull(state, pressure) if cell else torch.zeros_like(pull)
        _remember(state, known, move, turn, strain.flatten(1), cell_turn.flatten(1))
        return state

    return begin, step


def _pull(state: DescentState, pressure: float) -> Tensor:
    """What strains the cells, -dH/d(strain), (S, 3, 3) in eV; zero before anything is known."""
    volume = torch.linalg.det(state.cell).abs().view(-1, 1, 1)
    own = torch.eye(3, dtype=state.cell.dtype, device=state.cell.device)
    return torch.where(state.stress.isnan(), 0.0, -volume * (state.stress + pressure * own))


def _sums(state: AtomsState, values: Tensor) -> Tensor:
    """Sum over the atoms of each structure, (N, ...) -> (S, ...)."""
    total = values.new_zeros((state.cell.shape[0], *values.shape[1:]))
    return total.index_add(0, state.system_idx, values)


def _products(state: DescentState, atoms: Tensor, cells: Tensor, vector: Tensor, cell_vector: Tensor) -> Tensor:
    """Products of remembered vectors with one, (S, m)."""
    own = _sums(state, torch.bmm(atoms, vector.unsqueeze(2)).flatten(1))
    return own + torch.bmm(cells, cell_vector.unsqueeze(2)).flatten(1)


def _direction(state: DescentState, forces: Tensor, pull: Tensor) -> tuple[Tensor, Tensor]:
    """Where to go: forces (N, 3) and pull (S, 3, 3) times the inverse of the curvature met so far."""
    moves, turns, owner = state.moves, state.turns, state.system_idx
    flat = pull.flatten(1)
    along = _products(state, moves, state.cell_moves, forces, flat)
    p = torch.linalg.solve_triangular(state.products, along.unsqueeze(2), upper=True)  # (S, m, 1)
    q = forces - torch.bmm(p.index_select(0, owner).mT, turns).flatten(1)
    q_cell = flat - torch.bmm(p.mT, state.cell_turns).flatten(1)
    soft, soft_cell = _softness(state)
    r, r_cell = q * soft, q_cell * soft_cell
    diagonal = state.products.diagonal(dim1=1, dim2=2).unsqueeze(2)
    rest = diagonal * p - _products(state, turns, state.cell_turns, r, r_cell).unsqueeze(2)
    w = torch.linalg.solve_triangular(state.products.mT, rest, upper=False)
    r = r + torch.bmm(w.index_select(0, owner).mT, moves).flatten(1)
    r_cell = r_cell + torch.bmm(w.mT, state.cell_moves).flatten(1)
    return r, r_cell.view(-1, 3, 3)


def _softness(state: DescentState) -> tuple[Tensor, Tensor]:
    """H0: of atoms (N, 1) in Å^2/eV and of cells (S, 1) in 1/eV, scaled to the curvature met last."""
    volume = torch.linalg.det(state.cell).abs().clamp(min=1.0)
    y, y_cell = state.turns[:, -1], state.cell_turns[:, -1]
    cell = 1.0 / (CELL_STIFFNESS * volume)
    curved = _sums(state, y.square().sum(1)) / STIFFNESS + cell * y_cell.square().sum(1)
    scale = torch.where(curved > 0.0, state.products[:, -1, -1] / curved, 1.0)
    atoms = (scale / STIFFNESS).index_select(0, state.system_idx)
    return atoms.unsqueeze(1), (cell * scale).unsqueeze(1)


def _limited(state: DescentState, move: Tensor, strain: Tensor) -> tuple[Tensor, Tensor]:
    """The same direction, no atom by more than STRIDE, no cell by more than STRAIN."""
    longest = torch.linalg.vector_norm(move, dim=1)
    longest = torch.zeros_like(state.energy).scatter_reduce(0, state.system_idx, longest, "amax")
    most = torch.maximum(longest / STRIDE, strain.abs().amax((1, 2)) / STRAIN).clamp(min=1.0)
    return move / most.index_select(0, state.system_idx).unsqueeze(1), strain / most.view(-1, 1, 1)


def _go(state: DescentState, move: Tensor, strain: Tensor | None) -> None:
    """Strain what is there, and move the atoms."""
    if strain is not None:
        growth = torch.linalg.matrix_exp(0.5 * (strain + strain.mT))  # (S, 3, 3), symmetric
        state.cell = growth @ state.cell  # columns are lattice vectors
        grown = growth.index_select(0, state.system_idx)
        state.positions = torch.bmm(grown, state.positions.unsqueeze(2)).flatten(1)
    state.positions = state.positions + move


def _remember(
    state: DescentState, known: Tensor, move: Tensor, turn: Tensor, cell_move: Tensor, cell_turn: Tensor
) -> None:
    """Add the last step to what is remembered of each structure, where it tells of curvature."""
    along = _sums(state, (move * turn).sum(1)) + (cell_move * cell_turn).sum(1)
    length = _sums(state, move.square().sum(1)) + cell_move.square().sum(1)
    change = _sums(state, turn.square().sum(1)) + cell_turn.square().sum(1)
    told = known & (along > PEAK * (length * change).sqrt())  # (S,)
    of_atom = told.index_select(0, state.system_idx).view(-1, 1, 1)
    state.moves = torch.where(of_atom, torch.cat([state.moves[:, 1:], move.unsqueeze(1)], 1), state.moves)
    state.turns = torch.where(of_atom, torch.cat([state.turns[:, 1:], turn.unsqueeze(1)], 1), state.turns)
    of_cell = told.view(-1, 1, 1)
    state.cell_moves = torch.where(
        of_cell, torch.cat([state.cell_moves[:, 1:], cell_move.unsqueeze(1)], 1), state.cell_moves
    )
    state.cell_turns = torch.where(
        of_cell, torch.cat([state.cell_turns[:, 1:], cell_turn.unsqueeze(1)], 1), state.cell_turns
    )
    products = torch.zeros_like(state.products)
    products[:, :-1, :-1] = state.products[:, 1:, 1:]
    products[:, :, -1] = _products(state, state.moves, state.cell_moves, turn, cell_turn)
    state.products = torch.where(of_cell, products, state.products)
