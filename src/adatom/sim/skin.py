"""A neighbour list that lives through many steps: made with a skin, cut at the cutoff where that pays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import ase
import numpy as np
import torch
from torch import Tensor

from adatom.graph import Graph, pad_neighbours, pad_rows, reverse_edges
from adatom.neighbors import charge_and_spin, check_cell, neighbor_list

# what cutting a list costs, in edges that a network goes through in the same time: some in any case, and a share of all
CUT_COSTS, CUT_SHARE = 60, 0.04


class Origin(NamedTuple):
    """Where the atoms stood when a list was made: the list can be made again from it, edge by edge the same."""

    positions: np.ndarray  # (N, 3)  Å
    cell: np.ndarray  # (3, 3)  Å, rows along open directions are zero


@dataclass(frozen=True)
class _Wide:
    """All edges within cutoff + skin, at the origin; H pairs stand for an edge and its reverse each."""

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
class Cut:
    """The edges of a graph: what is left of a wide list at the cutoff, or all of it."""

    kept: Tensor | None  # (H,)  bool; None: the wide list, to stay whole
    edges: Tensor  # (2, E)
    shifts: Tensor  # (E, 3)
    slots: Tensor  # (N, M)
    neighbours: Tensor  # (N, M)
    back: Tensor  # (N, M)
    reverse: Tensor  # (E,)

    @classmethod
    def at(cls, kept: Tensor, pair_of: Tensor, edges: Tensor, shifts: Tensor, reverse: Tensor, atoms: int) -> Cut:
        """What is left of a wide list where pairs (H,) are kept: both directions of a pair stay or go together."""
        both = kept.index_select(0, pair_of)  # (E,)
        index = both.nonzero().flatten()
        place = both.cumsum(0).sub_(1)  # (E,)  old number -> new
        left = torch.stack([end.index_select(0, index) for end in edges])  # rows one by one: five times faster
        back = place.index_select(0, reverse.index_select(0, index))
        return cls.of(kept, left, shifts.index_select(0, index), back, atoms)

    @classmethod
    def of(cls, kept: Tensor | None, edges: Tensor, shifts: Tensor, reverse: Tensor, atoms: int) -> Cut:
        """With the padded tables that belong to the edges."""
        slots = pad_rows(edges[0], atoms)
        return cls(kept, edges, shifts, slots, *pad_neighbours(edges, slots, reverse), reverse)


@dataclass(frozen=True)
class _Box:
    """The cell of the moment, and what follows from it."""

    array: np.ndarray  # (3, 3)
    cell: Tensor  # (1, 3, 3)
    anchors: Tensor  # (N, 3)  the origin, carried along by the cell
    room: float  # Å that an atom may be away from its anchor before the list is made anew
    translations: Tensor  # (H, 3)  Å, of the pairs


class SkinList:
    """Graphs of one moving structure; each holds just the edges shorter than ``cutoff``, in the order of a fresh list.

    The wide list reaches cutoff + skin. With F the deformation of the cell since it was made (rows: C = C0 F; the
    identity along open directions) and u = r - r0 F the motion of an atom beyond it, a pair now closer than the cutoff
    stood closer than (cutoff + 2 max|u|) / smin(F) then, smin the smallest singular value. The list is made anew as
    soon as that exceeds cutoff + skin: in a fixed cell, when an atom has moved by more than half the skin. A list that
    holds every pair of an open structure lasts for ever.

    Parameters
    ----------
    cutoff
        Reach of the edges, Å.
    skin
        What the list holds beyond it, Å; 0 makes a new list for every geometry.
    device
        Where the graphs live.
    loose
        Edges beyond the cutoff may stay in a graph where cutting them off would cost more than it saves: for networks
        that claim to be smooth, to which such edges are nothing.
    """

    def __init__(
        self, cutoff: float, skin: float = 0.5, device: torch.device | str = "cpu", loose: bool = False
    ) -> None:
        self.cutoff, self.skin, self.loose = float(cutoff), float(skin), loose
        self.device = torch.device(device)
        self.builds = 0
        self.origin = Origin(np.zeros((0, 3)), np.zeros((3, 3)))
        self._numbers = np.zeros(0, dtype=np.int64)
        self._pbc = np.zeros(3, dtype=bool)
        self._charge = self._spin = self._source = torch.zeros(1)
        self._given: tuple[float, float] | None = None  # total charge and multiplicity
        self._wide: _Wide | None = None
        self._cut: Cut | None = None
        self._box: _Box | None = None
        self._graph: Graph | None = None  # the last one, which is the next one if nothing but positions has changed

    def graph(self, atoms: ase.Atoms) -> Graph:
        """Graph of the atoms as they stand now, float64.

        GeometryError for positions that are no numbers and for periodic cells without volume.
        """
        self.meet(atoms)
        positions = atoms.get_positions()
        if not np.isfinite(positions).all():
            check_cell(atoms)  # names the atom
        return self.at(torch.from_numpy(positions).to(self.device), np.asarray(atoms.cell))

    def meet(self, atoms: ase.Atoms) -> None:
        """Take species, periodicity, charge and multiplicity from ``atoms``; a list of others is dropped."""
        pbc = np.asarray(atoms.pbc, dtype=bool)
        if not np.array_equal(atoms.numbers, self._numbers) or not np.array_equal(pbc, self._pbc):
            self._numbers, self._pbc = atoms.numbers.copy(), pbc.copy()
            self._wide = self._cut = self._box = None
        given = charge_and_spin(atoms)
        if given != self._given:
            self._given = given
            self._charge, self._spin = torch.tensor(given, dtype=torch.float64, device=self.device).view(2, 1).unbind()
            self._source = torch.zeros(1, dtype=torch.int64, device=self.device)
            self._graph = None

    def at(self, positions: Tensor, cell: np.ndarray) -> Graph:
        """Graph of the atoms met before, at other positions (N, 3) and in another cell (3, 3)."""
        wide, box = self._follow(positions, cell)
        cut, last = self._cut, self._graph
        if cut is None or cut.kept is not None:
            cut = self._cut = self._recut(wide, _squares(wide, box, positions))
        if last is not None and last.positions is positions and last.edges is cut.edges and last.cell is box.cell:
            return last
        self._graph = Graph(
            numbers=wide.numbers,
            positions=positions,
            owner=wide.owner,
            edges=cut.edges,
            shifts=cut.shifts,
            cell=box.cell,
            pbc=wide.pbc,
            charge=self._charge,
            spin=self._spin,
            source=self._source,
            slots=cut.slots,
            neighbours=cut.neighbours,
            back=cut.back,
            table=wide.table,
            reverse=cut.reverse,
        )
        return self._graph

    def pairs(self, positions: Tensor, cell: np.ndarray) -> tuple[Tensor, Tensor]:
        """Each pair within the wide list once, (2, H), and how far apart it stands now in Å, (H,)."""
        wide, box = self._follow(positions, cell)
        return wide.pairs, _squares(wide, box, positions).sqrt()

    def beyond(self, positions: Tensor) -> float:
        """By how much, in Å, each pair that is not in the list is farther apart than the cutoff, at the least."""
        box = self._follow(positions, self.origin.cell if self._box is None else self._box.array)[1]
        return math.inf if box.room == math.inf else 2.0 * (box.room - farthest(positions, box.anchors))

    def restore(self, origin: Origin) -> None:
        """Make the list of the atoms met before as it was made at ``origin``."""
        self._build(origin)

    def _follow(self, positions: Tensor, cell: np.ndarray) -> tuple[_Wide, _Box]:
        """The wide list and the cell, the list made anew if an edge shorter than the cutoff may be missing."""
        wide, box = self._wide, self._box
        if wide is None or box is None:
            return self._build(Origin(positions.detach().cpu().numpy(), cell))
        if not np.array_equal(cell[self._pbc], box.array[self._pbc]):
            box = self._box = self._enter(wide, cell)
        # so written that positions that are no numbers make a new list, which names them
        if box.room == math.inf or farthest(positions, box.anchors) <= box.room:
            return wide, box
        return self._build(Origin(positions.detach().cpu().numpy(), cell))

    def _build(self, origin: Origin) -> tuple[_Wide, _Box]:
        pbc, cell = self._pbc, np.where(self._pbc[:, None], origin.cell, 0.0)
        positions = origin.positions.copy()
        check_cell(ase.Atoms(self._numbers, positions, cell=cell, pbc=pbc))
        found = wide_edges(positions, cell, pbc, self.cutoff + self.skin)
        owner = torch.zeros(positions.shape[0], dtype=torch.int64)
        tensors = (
            found.edges,
            found.shifts,
            found.reverse,
            found.edges.index_select(1, found.first),
            found.shifts.index_select(0, found.first),
            found.pair_of,
            torch.from_numpy(self._numbers.astype(np.int64)),
            torch.from_numpy(pbc.reshape(1, 3)),
            owner,
            pad_rows(owner, 1),
        )
        wide = _Wide(*(t.to(self.device) for t in tensors))
        self.origin, self._wide = Origin(positions, cell), wide
        box = self._box = self._enter(wide, cell)
        self._cut = self._whole(wide, box) if self.loose else None
        self.builds += 1
        return wide, box

    def _enter(self, wide: _Wide, cell: np.ndarray) -> _Box:
        """The cell of the moment, with the origin deformed as the cell is."""
        first = self.origin.cell
        cell = np.where(self._pbc[:, None], cell, 0.0)
        anchors, shrink = self.origin.positions, 1.0
        if not np.isfinite(cell).all():
            shrink = 0.0  # no room: the new list names it
        elif not np.array_equal(cell, first):
            # least change that carries the periodic lattice vectors along
            deformation = np.eye(3) + np.linalg.pinv(first) @ (cell - first)
            shrink = float(np.linalg.svd(deformation, compute_uv=False)[-1])
            anchors = anchors @ deformation
        box = torch.from_numpy(cell).to(self.device)
        atoms = wide.numbers.shape[0]
        room = 0.5 * ((self.cutoff + self.skin) * shrink - self.cutoff)
        if not self._pbc.any() and wide.edges.shape[1] == atoms * (atoms - 1):
            room = math.inf  # there is no other pair
        return _Box(cell, box.unsqueeze(0), torch.from_numpy(anchors).to(self.device), room, wide.pair_shifts @ box)

    def _whole(self, wide: _Wide, box: _Box) -> Cut | None:
        """The wide list as it is where cutting would not pay: few edges to lose, or a device that waits for no host."""
        beyond = 2 * int((_squares(wide, box, box.anchors) >= self.cutoff**2).sum())
        if self.device.type == "cpu" and beyond > CUT_COSTS + CUT_SHARE * wide.edges.shape[1]:
            return None
        return Cut.of(None, wide.edges, wide.shifts, wide.reverse, wide.numbers.shape[0])

    def _recut(self, wide: _Wide, squares: Tensor) -> Cut:
        """Drop what is longer than the cutoff; both directions of a pair stay or go together."""
        kept = squares < self.cutoff**2
        if self._cut is not None and self._cut.kept is not None and torch.equal(kept, self._cut.kept):
            return self._cut
        return Cut.at(kept, wide.pair_of, wide.edges, wide.shifts, wide.reverse, wide.numbers.shape[0])


class Edges(NamedTuple):
    """Edges of one structure in both directions; H pairs stand for an edge and its reverse each."""

    edges: Tensor  # (2, E)
    shifts: Tensor  # (E, 3)
    reverse: Tensor  # (E,)
    first: Tensor  # (H,)  the edge that speaks for both directions
    pair_of: Tensor  # (E,)  the pair of each edge


def wide_edges(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, reach: float) -> Edges:
    """All edges within ``reach`` (Å), on the CPU; each has its reverse."""
    # a hair more than asked: a pair at the very end of the reach is then never found in one direction only
    edge_array, shift_array = neighbor_list(positions, cell, pbc, reach + 1e-6)
    edges, shifts = torch.from_numpy(edge_array), torch.from_numpy(shift_array)
    reverse = reverse_edges(edges, shifts)
    both = (reverse < edges.shape[1]).nonzero().flatten()
    if both.shape[0] < edges.shape[1]:
        edges, shifts = edges.index_select(1, both), shifts.index_select(0, both)
        reverse = reverse_edges(edges, shifts)
    first, pair_of = torch.unique(torch.minimum(torch.arange(edges.shape[1]), reverse), return_inverse=True)
    return Edges(edges, shifts, reverse, first, pair_of)


def farthest(positions: Tensor, anchors: Tensor) -> float:
    """The longest way from an anchor to its atom, Å; NaN where a position is no number."""
    return float(torch.linalg.vector_norm(positions - anchors, dim=1).max()) if positions.shape[0] else 0.0


def _squares(wide: _Wide, box: _Box, positions: Tensor) -> Tensor:
    """Squared distance of each pair in Å^2, (H,)."""
    ends = positions.index_select(0, wide.pairs[1]) - positions.index_select(0, wide.pairs[0])
    return ends.add_(box.translations).square_() @ ends.new_ones(3)  # three times faster than a sum of three
