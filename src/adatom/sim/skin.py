"""A neighbour list that lives through many steps: made with a skin, cut at the cutoff every time it is asked."""

from __future__ import annotations

from dataclasses import dataclass

import ase
import numpy as np
import torch
from torch import Tensor

from adatom.graph import Graph, pad_neighbours, pad_rows, reverse_edges
from adatom.neighbors import charge_and_spin, check_cell, neighbor_list


@dataclass(frozen=True)
class _Wide:
    """All edges within cutoff + skin, at the reference positions; H pairs stand for an edge and its reverse each."""

    edges: Tensor  # (2, E)
    shifts: Tensor  # (E, 3)
    reverse: Tensor  # (E,)
    pairs: Tensor  # (2, H)
    pair_shifts: Tensor  # (H, 3)
    pair_of: Tensor  # (E,)  the pair of each edge
    numbers: Tensor  # (N,)
    pbc: Tensor  # (1, 3)
    owner: Tensor  # (N,)
    table: Tensor  # (1, K)


@dataclass(frozen=True)
class _Cut:
    """What is left of the wide list at the cutoff."""

    kept: Tensor  # (H,)  bool
    edges: Tensor  # (2, E)
    shifts: Tensor  # (E, 3)
    slots: Tensor  # (N, M)
    neighbours: Tensor  # (N, M)
    back: Tensor  # (N, M)
    reverse: Tensor  # (E,)


class SkinList:
    """Graphs of one moving structure; each holds just the edges shorter than ``cutoff``, in the order of a fresh list.

    The wide list reaches cutoff + skin. With F the deformation of the cell since it was made (rows: C = C0 F; the
    identity along open directions) and u = r - r0 F the motion of an atom beyond it, a pair now closer than the cutoff
    stood closer than (cutoff + 2 max|u|) / smin(F) then, smin the smallest singular value. The list is made anew as
    soon as that exceeds cutoff + skin: in a fixed cell, when an atom has moved by more than half the skin.

    Parameters
    ----------
    cutoff
        Reach of the edges, Å.
    skin
        What the list holds beyond it, Å; 0 makes a new list for every geometry.
    device
        Where the graphs live.
    """

    def __init__(self, cutoff: float, skin: float = 0.5, device: torch.device | str = "cpu") -> None:
        self.cutoff, self.skin = float(cutoff), float(skin)
        self.device = torch.device(device)
        self.builds = 0
        self._numbers = np.zeros(0, dtype=np.int64)
        self._positions = np.zeros((0, 3))
        self._cell = np.zeros((3, 3))
        self._pbc = np.zeros(3, dtype=bool)
        self._wide: _Wide | None = None
        self._cut: _Cut | None = None

    def graph(self, atoms: ase.Atoms) -> Graph:
        """Graph of the atoms as they stand now, float64.

        GeometryError for positions that are no numbers and for periodic cells without volume.
        """
        wide, points, box = self._update(atoms)
        cut = self._recut(wide, _squares(wide, points, box))
        charge, spin = charge_and_spin(atoms)
        return Graph(
            numbers=wide.numbers,
            positions=points,
            owner=wide.owner,
            edges=cut.edges,
            shifts=cut.shifts,
            cell=box.unsqueeze(0),
            pbc=wide.pbc,
            charge=points.new_tensor([charge]),
            spin=points.new_tensor([spin]),
            source=torch.zeros(1, dtype=torch.int64, device=self.device),
            slots=cut.slots,
            neighbours=cut.neighbours,
            back=cut.back,
            table=wide.table,
            reverse=cut.reverse,
        )

    def pairs(self, atoms: ase.Atoms) -> tuple[Tensor, Tensor]:
        """Each pair within the wide list once, (2, H), and how far apart it stands now in Å, (H,)."""
        wide, points, box = self._update(atoms)
        return wide.pairs, _squares(wide, points, box).sqrt()

    def _update(self, atoms: ase.Atoms) -> tuple[_Wide, Tensor, Tensor]:
        """The wide list, made anew if need be, with positions (N, 3) and cell (3, 3) of the atoms."""
        positions = atoms.get_positions()
        pbc = np.asarray(atoms.pbc, dtype=bool)
        cell = np.where(pbc[:, None], np.asarray(atoms.cell, dtype=np.float64), 0.0)
        if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
            check_cell(atoms)
        wide = self._wide
        if wide is None or self._stale(atoms.numbers, positions, cell, pbc):
            check_cell(atoms)
            wide = self._build(atoms.numbers, positions, cell, pbc)
        return wide, torch.from_numpy(positions).to(self.device), torch.from_numpy(cell).to(self.device)

    def _stale(self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> bool:
        """Whether an edge shorter than the cutoff may be missing from the wide list."""
        if not np.array_equal(numbers, self._numbers) or not np.array_equal(pbc, self._pbc):
            return True
        if np.array_equal(cell, self._cell):
            moved, shrink = positions - self._positions, 1.0
        else:
            # least change that carries the periodic lattice vectors along
            deformation = np.eye(3) + np.linalg.pinv(self._cell) @ (cell - self._cell)
            shrink = float(np.linalg.svd(deformation, compute_uv=False)[-1])
            moved = positions - self._positions @ deformation
        farthest = float(np.sqrt(np.square(moved).sum(axis=1).max(initial=0.0)))
        return self.cutoff + 2.0 * farthest > (self.cutoff + self.skin) * shrink

    def _build(self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> _Wide:
        # a hair more than asked: a pair at the very end of the reach is then never found in one direction only
        edge_array, shift_array = neighbor_list(positions, cell, pbc, self.cutoff + self.skin + 1e-6)
        edges, shifts = torch.from_numpy(edge_array), torch.from_numpy(shift_array)
        reverse = reverse_edges(edges, shifts)
        both = (reverse < edges.shape[1]).nonzero().flatten()
        if both.shape[0] < edges.shape[1]:
            edges, shifts = edges.index_select(1, both), shifts.index_select(0, both)
            reverse = reverse_edges(edges, shifts)
        first = torch.minimum(torch.arange(edges.shape[1]), reverse)  # (E,)  the edge that speaks for both directions
        chosen, pair_of = torch.unique(first, return_inverse=True)
        owner = torch.zeros(positions.shape[0], dtype=torch.int64)
        tensors = (
            edges,
            shifts,
            reverse,
            edges.index_select(1, chosen),
            shifts.index_select(0, chosen),
            pair_of,
            torch.from_numpy(numbers.astype(np.int64)),
            torch.from_numpy(pbc.reshape(1, 3)),
            owner,
            pad_rows(owner, 1),
        )
        wide = _Wide(*(t.to(self.device) for t in tensors))
        self._numbers, self._positions, self._cell, self._pbc = numbers.copy(), positions.copy(), cell, pbc.copy()
        self._wide, self._cut = wide, None
        self.builds += 1
        return wide

    def _recut(self, wide: _Wide, squares: Tensor) -> _Cut:
        """Drop what is longer than the cutoff; both directions of a pair stay or go together."""
        kept = squares < self.cutoff**2
        if self._cut is not None and torch.equal(kept, self._cut.kept):
            return self._cut
        index = kept.index_select(0, wide.pair_of).nonzero().flatten()
        edges = wide.edges.index_select(1, index)
        place = torch.empty(wide.edges.shape[1], dtype=torch.int64, device=self.device)  # (E,)  old number -> new
        place[index] = torch.arange(index.shape[0], device=self.device)
        slots = pad_rows(edges[0], wide.numbers.shape[0])
        reverse = place.index_select(0, wide.reverse.index_select(0, index))
        neighbours, back = pad_neighbours(edges, slots, reverse)
        self._cut = _Cut(
            kept=kept,
            edges=edges,
            shifts=wide.shifts.index_select(0, index),
            slots=slots,
            neighbours=neighbours,
            back=back,
            reverse=reverse,
        )
        return self._cut


def _squares(wide: _Wide, positions: Tensor, cell: Tensor) -> Tensor:
    """Squared distance of each pair in Å^2, (H,)."""
    ends = positions.index_select(0, wide.pairs[1]) - positions.index_select(0, wide.pairs[0])
    return (ends + wide.pair_shifts @ cell).square().sum(1)
