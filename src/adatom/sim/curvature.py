"""L-BFGS for many structures at once: what steps have told of the curvature of each, all in the same operations.

H g = r + S R^-T (D p - Y^T r),   r = H0 (g - Y p),   p = R^-1 S^T g      (Byrd, Nocedal, Schnabel 1994, two-loop order)

=====================  ==================================  ===========================
equation               variable                            shape
=====================  ==================================  ===========================
S, Y                   moves, turns; cell_moves, ...       (N, m, 3); (S, m, 9)
R (upper triangle)     products: s_a . y_b, a <= b         (S, m, m), oldest first
D                      its diagonal
H0                     1 / stiffness                       of an atom, of a cell
=====================  ==================================  ===========================

The coordinates of a structure are the positions of its atoms and, where its cell relaxes, a strain; in a fixed cell all
that is about cells is zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

MEMORY = 20  # moves that are remembered
STIFFNESS = 70.0  # eV/Å^2, of an atom before anything is known of its curvature
CELL_STIFFNESS = 1.0  # eV/Å^3 (160 GPa), of a cell per volume
STRIDE, STRAIN = 0.2, 0.04  # Å and 1: the longest step of an atom and of a cell
PEAK = 1e-12  # of |s| |y|: less of s . y is no curvature


class Met(Protocol):
    """Who remembers steps: a ``Memory``, or a state of TorchSim that is cut and joined with its structures."""

    system_idx: Tensor  # (N,)  structure of each atom, as TorchSim calls it
    moves: Tensor  # (N, m, 3)
    turns: Tensor  # (N, m, 3)  changes of the gradient
    cell_moves: Tensor  # (S, m, 9)
    cell_turns: Tensor  # (S, m, 9)
    products: Tensor  # (S, m, m)  s_a . y_b, the identity where nothing is remembered


@dataclass
class Memory:
    """Steps of structures that stay together."""

    system_idx: Tensor
    moves: Tensor
    turns: Tensor
    cell_moves: Tensor
    cell_turns: Tensor
    products: Tensor

    @classmethod
    def empty(cls, owner: Tensor, structures: int, dtype: torch.dtype = torch.float64) -> Memory:
        """Of structures that have made no step; owner (N,)."""
        atoms, device = owner.shape[0], owner.device
        return cls(
            system_idx=owner,
            moves=torch.zeros(atoms, MEMORY, 3, dtype=dtype, device=device),
            turns=torch.zeros(atoms, MEMORY, 3, dtype=dtype, device=device),
            cell_moves=torch.zeros(structures, MEMORY, 9, dtype=dtype, device=device),
            cell_turns=torch.zeros(structures, MEMORY, 9, dtype=dtype, device=device),
            products=torch.eye(MEMORY, dtype=dtype, device=device).repeat(structures, 1, 1),
        )


def direction(met: Met, volume: Tensor, forces: Tensor, pull: Tensor) -> tuple[Tensor, Tensor]:
    """Where to go: forces (N, 3) and pull (S, 3, 3) times the inverse of the curvature met so far; volume (S,) Å^3."""
    moves, turns, owner = met.moves, met.turns, met.system_idx
    flat = pull.flatten(1)
    along = _products(met, moves, met.cell_moves, forces, flat)
    p = torch.linalg.solve_triangular(met.products, along.unsqueeze(2), upper=True)  # (S, m, 1)
    q = forces - torch.bmm(p.index_select(0, owner).mT, turns).flatten(1)
    q_cell = flat - torch.bmm(p.mT, met.cell_turns).flatten(1)
    soft, soft_cell = _softness(met, volume)
    r, r_cell = q * soft, q_cell * soft_cell
    diagonal = met.products.diagonal(dim1=1, dim2=2).unsqueeze(2)
    rest = diagonal * p - _products(met, turns, met.cell_turns, r, r_cell).unsqueeze(2)
    w = torch.linalg.solve_triangular(met.products.mT, rest, upper=False)
    r = r + torch.bmm(w.index_select(0, owner).mT, moves).flatten(1)
    r_cell = r_cell + torch.bmm(w.mT, met.cell_moves).flatten(1)
    return r, r_cell.view(-1, 3, 3)


def limited(met: Met, move: Tensor, strain: Tensor) -> tuple[Tensor, Tensor]:
    """The same direction, no atom (N, 3) by more than STRIDE, no cell (S, 3, 3) by more than STRAIN."""
    longest = torch.zeros_like(strain[:, 0, 0])
    longest = longest.scatter_reduce(0, met.system_idx, torch.linalg.vector_norm(move, dim=1), "amax")
    most = torch.maximum(longest / STRIDE, strain.abs().amax((1, 2)) / STRAIN).clamp(min=1.0)
    return move / most.index_select(0, met.system_idx).unsqueeze(1), strain / most.view(-1, 1, 1)


def remember(met: Met, known: Tensor, move: Tensor, turn: Tensor, cell_move: Tensor, cell_turn: Tensor) -> None:
    """Add the last step to what is remembered of each structure, where it is ``known`` (S,) and tells of curvature.

    Moves and changes of the gradient of atoms (N, 3) and of cells (S, 9).
    """
    along = _sums(met, (move * turn).sum(1)) + (cell_move * cell_turn).sum(1)
    length = _sums(met, move.square().sum(1)) + cell_move.square().sum(1)
    change = _sums(met, turn.square().sum(1)) + cell_turn.square().sum(1)
    told = known & (along > PEAK * (length * change).sqrt())  # (S,)
    of_atom, of_cell = told.index_select(0, met.system_idx).view(-1, 1, 1), told.view(-1, 1, 1)
    met.moves = torch.where(of_atom, _newest(met.moves, move), met.moves)
    met.turns = torch.where(of_atom, _newest(met.turns, turn), met.turns)
    met.cell_moves = torch.where(of_cell, _newest(met.cell_moves, cell_move), met.cell_moves)
    met.cell_turns = torch.where(of_cell, _newest(met.cell_turns, cell_turn), met.cell_turns)
    products = torch.zeros_like(met.products)
    products[:, :-1, :-1] = met.products[:, 1:, 1:]
    products[:, :, -1] = _products(met, met.moves, met.cell_moves, turn, cell_turn)
    met.products = torch.where(of_cell, products, met.products)


def _newest(remembered: Tensor, last: Tensor) -> Tensor:
    """The last one (n, d) behind those remembered (n, m, d), the oldest forgotten."""
    return torch.cat([remembered[:, 1:], last.unsqueeze(1)], 1)


def _sums(met: Met, values: Tensor) -> Tensor:
    """Sum over the atoms of each structure, (N, ...) -> (S, ...)."""
    total = values.new_zeros((met.products.shape[0], *values.shape[1:]))
    return total.index_add(0, met.system_idx, values)


def _products(met: Met, atoms: Tensor, cells: Tensor, vector: Tensor, cell_vector: Tensor) -> Tensor:
    """Products of remembered vectors with one, (S, m)."""
    own = _sums(met, torch.bmm(atoms, vector.unsqueeze(2)).flatten(1))
    return own + torch.bmm(cells, cell_vector.unsqueeze(2)).flatten(1)


def _softness(met: Met, volume: Tensor) -> tuple[Tensor, Tensor]:
    """H0: of atoms (N, 1) in Å^2/eV and of cells (S, 1) in 1/eV, scaled to the curvature met last."""
    y, y_cell = met.turns[:, -1], met.cell_turns[:, -1]
    cell = 1.0 / (CELL_STIFFNESS * volume.clamp(min=1.0))
    curved = _sums(met, y.square().sum(1)) / STIFFNESS + cell * y_cell.square().sum(1)
    scale = torch.where(curved > 0.0, met.products[:, -1, -1] / curved, 1.0)
    atoms = (scale / STIFFNESS).index_select(0, met.system_idx)
    return atoms.unsqueeze(1), (cell * scale).unsqueeze(1)
