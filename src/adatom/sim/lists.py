"""Neighbour lists of many moving structures in one batch: each is made with a skin and made anew when it must be."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import ase
import torch
from torch import Tensor

from adatom.graph import Graph, pad_rows
from adatom.neighbors import check_cell
from adatom.sim.skin import Cut, wide_edges


@dataclass(frozen=True)
class _Wide:
    """All edges of one structure within cutoff + skin; H pairs stand for an edge and its reverse each."""

    numbers: Tensor  # (n,)
    anchors: Tensor  # (n, 3)  Å, where the atoms stood
    cell: Tensor  # (3, 3)  Å, rows along open directions are zero
    pbc: Tensor  # (3,)
    edges: Tensor  # (2, E)
    shifts: Tensor  # (E, 3)
    reverse: Tensor  # (E,)
    first: Tensor  # (H,)  the edge that speaks for both directions
    pair_of: Tensor  # (E,)  the pair of each edge
    whole: bool  # every pair of an open structure is in it: the list lasts for ever


@dataclass(frozen=True)
class _Joined:
    """The wide lists of a batch, one after the other."""

    keys: tuple[Hashable, ...]
    numbers: Tensor  # (N,)
    anchors: Tensor  # (N, 3)
    cell: Tensor  # (S, 3, 3)  where the lists were made
    pbc: Tensor  # (S, 3)
    owner: Tensor  # (N,)
    table: Tensor  # (S, K)
    edges: Tensor  # (2, E)
    shifts: Tensor  # (E, 3)
    reverse: Tensor  # (E,)
    pairs: Tensor  # (2, H)
    pair_shifts: Tensor  # (H, 3)
    pair_owner: Tensor  # (H,)
    pair_of: Tensor  # (E,)
    whole: Tensor  # (S,)


@dataclass(frozen=True)
class _Boxes:
    """The cells of the moment, and what follows from them."""

    cell: Tensor  # (S, 3, 3)
    anchors: Tensor  # (N, 3)  carried along by the cells
    room: Tensor  # (S,)  Å that an atom may be away from its anchor before its list is made anew
    translations: Tensor  # (H, 3)  Å, of the pairs


class Lists:
    """Graphs of a batch whose structures move, come and go; each holds just the edges shorter than ``cutoff``.

    The list of a structure stays while none of its atoms has left its place by more than half the skin, counted as in
    ``SkinList`` where cells change. It is known by a key, and looked at before it is used: a structure of other atoms
    under the same key gets a list of its own.

    Parameters
    ----------
    cutoff
        Reach of the edges, Å.
    skin
        What the lists hold beyond it, Å.
    device
        Where the graphs live.
    """

    def __init__(self, cutoff: float, skin: float = 0.5, device: torch.device | str = "cpu") -> None:
        self.cutoff, self.skin, self.device = float(cutoff), float(skin), torch.device(device)
        self.builds = 0
        self._known: dict[Hashable, _Wide] = {}
        self._joined: _Joined | None = None
        self._boxes: _Boxes | None = None
        self._cut: Cut | None = None

    def graph(
        self,
        keys: Sequence[Hashable],
        numbers: Tensor,
        positions: Tensor,
        owner: Tensor,
        cell: Tensor,
        pbc: Tensor,
        charge: Tensor,
        spin: Tensor,
    ) -> Graph:
        """The batch as it stands, float64: the fields are those of Graph, a key stands for each structure.

        GeometryError for positions that are no numbers and for periodic cells without volume.
        """
        cell = torch.where(pbc.unsqueeze(2), cell, 0.0)
        joined = self._joined
        same = (
            joined is not None
            and joined.keys == tuple(keys)
            and torch.equal(joined.numbers, numbers)
            and torch.equal(joined.owner, owner)
            and torch.equal(joined.pbc, pbc)
        )
        if joined is None or not same:
            joined = self._join(tuple(keys), numbers, positions, owner, cell, pbc)
        joined, boxes = self._follow(joined, positions, cell)
        cut = self._recut(joined, boxes, positions)
        return Graph(
            numbers=joined.numbers,
            positions=positions,
            owner=joined.owner,
            edges=cut.edges,
            shifts=cut.shifts,
            cell=boxes.cell,
            pbc=joined.pbc,
            charge=charge,
            spin=spin,
            source=torch.zeros(cell.shape[0], dtype=torch.int64, device=self.device),
            slots=cut.slots,
            neighbours=cut.neighbours,
            back=cut.back,
            table=joined.table,
            reverse=cut.reverse,
        )

    def _join(
        self,
        keys: tuple[Hashable, ...],
        numbers: Tensor,
        positions: Tensor,
        owner: Tensor,
        cell: Tensor,
        pbc: Tensor,
    ) -> _Joined:
        """A batch of other structures than before: lists that are known are kept, the others made."""
        sizes = torch.bincount(owner, minlength=cell.shape[0]).tolist()
        own: dict[Hashable, _Wide] = {}
        for k, (key, z, r) in enumerate(zip(keys, numbers.split(sizes), positions.split(sizes), strict=True)):
            wide = self._known.get(key)
            if wide is None or not torch.equal(wide.numbers, z) or not torch.equal(wide.pbc, pbc[k]):
                wide = self._build(z, r, cell[k], pbc[k])
            own[key] = wide
        self._known = own
        return self._laid_out(keys)

    def _follow(self, joined: _Joined, positions: Tensor, cell: Tensor) -> tuple[_Joined, _Boxes]:
        """Lists and cells of the moment, those made anew in which an edge shorter than the cutoff may be missing."""
        boxes = self._boxes
        if boxes is None or not torch.equal(boxes.cell, cell):
            boxes = self._boxes = self._enter(joined, cell)
        away = torch.linalg.vector_norm(positions - boxes.anchors, dim=1)  # (N,)
        farthest = torch.zeros_like(boxes.room).scatter_reduce(0, joined.owner, away, "amax")
        # so written that positions that are no numbers make a new list, which names them
        stale = (~(joined.whole | (farthest <= boxes.room))).nonzero().flatten().tolist()
        if not stale:
            return joined, boxes
        sizes = torch.bincount(joined.owner, minlength=cell.shape[0]).tolist()
        places = positions.split(sizes)
        for k in stale:
            wide = self._known[joined.keys[k]]
            self._known[joined.keys[k]] = self._build(wide.numbers, places[k], cell[k], wide.pbc)
        joined = self._laid_out(joined.keys)
        boxes = self._boxes = self._enter(joined, cell)
        return joined, boxes

    def _build(self, numbers: Tensor, positions: Tensor, cell: Tensor, pbc: Tensor) -> _Wide:
        r, box, periodic = (t.detach().cpu().numpy() for t in (positions, cell, pbc))
        check_cell(ase.Atoms(numbers.cpu().numpy(), r, cell=box, pbc=periodic))
        found = wide_edges(r, box, periodic, self.cutoff + self.skin)
        atoms = numbers.shape[0]
        whole = not periodic.any() and found.edges.shape[1] == atoms * (atoms - 1)
        self.builds += 1
        return _Wide(
            numbers.clone(),
            positions.detach().clone(),
            cell.clone(),
            pbc.clone(),
            found.edges.to(self.device),
            found.shifts.to(self.device),
            found.reverse.to(self.device),
            found.first.to(self.device),
            found.pair_of.to(self.device),
            whole,
        )

    def _laid_out(self, keys: tuple[Hashable, ...]) -> _Joined:
        """The lists of these structures, renumbered and joined."""
        lists = [self._known[key] for key in keys]
        atoms = torch.tensor([wide.numbers.shape[0] for wide in lists], device=self.device)
        edges = torch.tensor([wide.edges.shape[1] for wide in lists], device=self.device)
        pairs = torch.tensor([wide.first.shape[0] for wide in lists], device=self.device)
        structures = torch.arange(len(lists), device=self.device)
        of_edge, of_pair = structures.repeat_interleave(edges), structures.repeat_interleave(pairs)
        owner = structures.repeat_interleave(atoms)
        atom0, edge0, pair0 = (counts.cumsum(0) - counts for counts in (atoms, edges, pairs))
        joined_edges = torch.cat([wide.edges for wide in lists], dim=1) + atom0.index_select(0, of_edge)
        shifts = torch.cat([wide.shifts for wide in lists])
        first = torch.cat([wide.first for wide in lists]) + edge0.index_select(0, of_pair)
        self._cut = self._boxes = None
        self._joined = _Joined(
            keys,
            torch.cat([wide.numbers for wide in lists]),
            torch.cat([wide.anchors for wide in lists]),
            torch.stack([wide.cell for wide in lists]),
            torch.stack([wide.pbc for wide in lists]),
            owner,
            pad_rows(owner, len(lists)),
            joined_edges,
            shifts,
            torch.cat([wide.reverse for wide in lists]) + edge0.index_select(0, of_edge),
            joined_edges.index_select(1, first),
            shifts.index_select(0, first),
            of_pair,
            torch.cat([wide.pair_of for wide in lists]) + pair0.index_select(0, of_edge),
            torch.tensor([wide.whole for wide in lists], device=self.device),
        )
        return self._joined

    def _enter(self, joined: _Joined, cell: Tensor) -> _Boxes:
        """The cells of the moment, with the anchors deformed as the cells are; see ``SkinList``."""
        anchors = joined.anchors
        shrink = torch.ones(cell.shape[0], dtype=cell.dtype, device=self.device)
        if not torch.equal(cell, joined.cell):
            # least change that carries the periodic lattice vectors along
            deformation = torch.linalg.pinv(joined.cell) @ (cell - joined.cell)  # (S, 3, 3)
            deformation = deformation + torch.eye(3, dtype=cell.dtype, device=self.device)
            finite = deformation.isfinite().all(2).all(1)  # no room where it is not: the new list names it
            safe = torch.where(finite.view(-1, 1, 1), deformation, 0.0)
            shrink = torch.linalg.svdvals(safe)[:, -1]
            anchors = torch.bmm(anchors.unsqueeze(1), safe.index_select(0, joined.owner)).flatten(1)
        room = 0.5 * ((self.cutoff + self.skin) * shrink - self.cutoff)
        of_pair = cell.index_select(0, joined.pair_owner)  # (H, 3, 3)
        translations = torch.bmm(joined.pair_shifts.unsqueeze(1), of_pair).flatten(1)
        return _Boxes(cell.clone(), anchors, room, translations)

    def _recut(self, joined: _Joined, boxes: _Boxes, positions: Tensor) -> Cut:
        """Drop what is longer than the cutoff; both directions of a pair stay or go together."""
        ends = positions.index_select(0, joined.pairs[1]) - positions.index_select(0, joined.pairs[0])
        squares = ends.add_(boxes.translations).square_() @ ends.new_ones(3)
        kept = squares < self.cutoff**2
        if self._cut is not None and self._cut.kept is not None and torch.equal(kept, self._cut.kept):
            return self._cut
        atoms = positions.shape[0]
        self._cut = Cut.at(kept, joined.pair_of, joined.edges, joined.shifts, joined.reverse, atoms)
        return self._cut
