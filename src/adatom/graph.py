"""The batch of structures that everything inside adatom works on, and the labels or predictions that belong to it.

Shapes: S structures, N atoms, E directed edges, M neighbours of an atom (padded), K atoms of a structure (padded).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from adatom.nn.slots import Adjacent, gather_neighbours


@dataclass(frozen=True)
class Graph:
    """S structures as one set of atoms and directed edges; S = 1 is a batch like any other.

    Lengths in Å. Edges are sorted by centre; r_ij = r_j + shift @ cell - r_i points from the centre i to its neighbour
    j. The last five index tables say the same as ``edges`` and ``owner`` in the padded form that dense kernels want.
    """

    numbers: Tensor  # (N,)  int64, atomic numbers
    positions: Tensor  # (N, 3)
    owner: Tensor  # (N,)  structure of each atom, sorted
    edges: Tensor  # (2, E)  centre i, neighbour j
    shifts: Tensor  # (E, 3)  lattice translations
    cell: Tensor  # (S, 3, 3)  rows are lattice vectors; zeros where open
    pbc: Tensor  # (S, 3)  bool
    charge: Tensor  # (S,)  total charge, e
    spin: Tensor  # (S,)  multiplicity
    source: Tensor  # (S,)  int64, origin of the labels
    slots: Tensor  # (N, M)  the edges of each atom, padded with E; M >= 1
    neighbours: Tensor  # (N, M)  the atom at the other end, 0 in empty slots
    back: Tensor  # (N, M)  the column of the opposite edge in the neighbour's row, 0 in empty slots
    table: Tensor  # (S, K)  the atoms of each structure, padded with N
    reverse: Tensor  # (E,)  the opposite edge (E where there is none)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Graph:
        """Move to a device; ``dtype`` applies to the floating-point fields only."""
        moved = {
            f.name: (t := getattr(self, f.name)).to(device=device, dtype=dtype if t.is_floating_point() else None)
            for f in dataclasses.fields(self)
        }
        return Graph(**moved)

    def replace(self, **changes: Tensor) -> Graph:
        """Copy with some fields exchanged."""
        return dataclasses.replace(self, **changes)


torch.export.register_dataclass(Graph)  # a pytree: torch.compile and torch.func take it whole


class Results(NamedTuple):
    """What a potential predicts and what a data set labels: one type. NaN means not labelled or not asked for."""

    energy: Tensor  # (S,)  eV
    forces: Tensor  # (N, 3)  eV/Å
    stress: Tensor  # (S, 3, 3)  eV/Å^3, tension positive


def edge_vectors(graph: Graph) -> Tensor:
    """r_ij from centre to neighbour in Å, (E, 3), differentiable in positions and cell."""
    centre, neighbour = graph.edges[0], graph.edges[1]
    cell = graph.cell.index_select(0, graph.owner.index_select(0, centre))  # (E, 3, 3)
    translation = (graph.shifts.unsqueeze(-1) * cell).sum(-2)  # (E, 3)
    return graph.positions.index_select(0, neighbour) + translation - graph.positions.index_select(0, centre)


def neighbour_vectors(graph: Graph) -> Tensor:
    """The same vectors in padded form, (N, M, 3) in Å. Empty slots hold some vector: weigh them with zero."""
    steps = torch.cat([graph.shifts, graph.shifts.new_zeros(1, 3)]).index_select(0, graph.slots.flatten())  # (N M, 3)
    translations = torch.bmm(steps.view(*graph.slots.shape, 3), graph.cell.index_select(0, graph.owner))
    ends = gather_neighbours(graph.positions, adjacent(graph, graph.positions.dtype))
    return ends + translations - graph.positions.unsqueeze(1)


def adjacent(graph: Graph, dtype: torch.dtype) -> Adjacent:
    """Who stands in which slot, as ``nn.slots`` gathers by."""
    width = graph.slots.shape[1]
    filled = (graph.slots < graph.edges.shape[1]).to(dtype).unsqueeze(1)
    return Adjacent(graph.neighbours.flatten(), (graph.neighbours * width + graph.back).flatten(), filled)


def sum_by_owner(values: Tensor, owner: Tensor, structures: int) -> Tensor:
    """Sum an atomic quantity (N, ...) over the atoms of each structure: (S, ...)."""
    total = values.new_zeros((structures, *values.shape[1:]))
    return total.index_add(0, owner, values)


def volumes(cell: Tensor) -> Tensor:
    """|a x b . c| of cells (S, 3, 3) in Å^3, (S,); 0 where an axis is open."""
    a, b, c = cell.unbind(1)
    volume: Tensor = (torch.linalg.cross(a, b) * c).sum(1).abs()
    return volume


def padded_index(index: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Positions of sorted row numbers in a padded table: (row, column) of each entry.

    ``index`` (n,) holds sorted row numbers below ``rows``; the column counts the entries of one row from 0.
    """
    counts = torch.bincount(index, minlength=rows)
    first = counts.cumsum(0) - counts
    column = torch.arange(index.shape[0], device=index.device) - first.index_select(0, index)
    return index, column


def pad_rows(index: Tensor, rows: int) -> Tensor:
    """Table (rows, widest row) that lists the entries of each row, padded with the number of entries.

    It is one column wide where there are no entries at all: a maximum over neighbours needs something to look at.
    """
    row, column = padded_index(index, rows)
    width = int(column.max()) + 1 if index.shape[0] else 1
    table = torch.full((rows, width), index.shape[0], dtype=torch.int64, device=index.device)
    table[row, column] = torch.arange(index.shape[0], device=index.device)
    return table


def pad_neighbours(edges: Tensor, slots: Tensor, reverse: Tensor) -> tuple[Tensor, Tensor]:
    """``neighbours`` and ``back`` of a graph from its edges, slots and opposite edges."""
    count = edges.shape[1]
    if count == 0:
        return torch.zeros_like(slots), torch.zeros_like(slots)
    _, column = padded_index(edges[0], slots.shape[0])
    filled = slots < count
    some = torch.where(filled, slots, 0)
    neighbours, back = edges[1][some], column[reverse[some]]
    return torch.where(filled, neighbours, 0), torch.where(filled, back, 0)


def reverse_edges(edges: Tensor, shifts: Tensor) -> Tensor:
    """Index of the edge (j, i, -shift) for every edge (i, j, shift); E where it is missing.

    Every edge is one integer; the integer its opposite would have is looked up among the sorted ones.
    """
    count = edges.shape[1]
    if count == 0:
        return edges.new_zeros(0)
    whole = shifts.round().to(torch.int64)
    forward = torch.cat([edges, whole.T])  # (5, E)
    backward = torch.cat([edges.flip(0), -whole.T])
    # one integer per edge: mixed radix over atoms and shifts
    low, high = whole.min().item(), whole.max().item()
    reach = int(max(abs(low), abs(high)))
    radix = 2 * reach + 1
    atoms = int(edges.max()) + 1

    def code(row: Tensor) -> Tensor:
        digits = row[2:] + reach
        return (((row[0] * atoms + row[1]) * radix + digits[0]) * radix + digits[1]) * radix + digits[2]

    keys, order = code(forward).sort()
    wanted = code(backward)
    place = torch.searchsorted(keys, wanted).clamp(max=count - 1)
    return torch.where(keys[place] == wanted, order[place], count)


def collate(graphs: Sequence[Graph]) -> Graph:
    """Join graphs into one batch; atoms, edges and structures keep their order."""
    atoms = [g.numbers.shape[0] for g in graphs]
    edges = [g.edges.shape[1] for g in graphs]
    structures = [g.cell.shape[0] for g in graphs]
    n, e = sum(atoms), sum(edges)
    atom0 = _offsets(atoms)
    edge0 = _offsets(edges)
    structure0 = _offsets(structures)
    joined = {
        name: torch.cat([getattr(g, name) for g in graphs])
        for name in ("numbers", "positions", "shifts", "cell", "pbc", "charge", "spin", "source")
    }
    return Graph(
        **joined,
        owner=torch.cat([g.owner + o for g, o in zip(graphs, structure0, strict=True)]),
        edges=torch.cat([g.edges + o for g, o in zip(graphs, atom0, strict=True)], dim=1),
        slots=_join_tables([g.slots for g in graphs], edges, edge0, e),
        neighbours=_join_padded(
            [torch.where(g.slots < k, g.neighbours + o, 0) for g, k, o in zip(graphs, edges, atom0, strict=True)]
        ),
        back=_join_padded([g.back for g in graphs]),
        table=_join_tables([g.table for g in graphs], atoms, atom0, n),
        reverse=torch.cat(
            [torch.where(g.reverse < k, g.reverse + o, e) for g, k, o in zip(graphs, edges, edge0, strict=True)]
        ),
    )


def _offsets(counts: list[int]) -> list[int]:
    total, offsets = 0, []
    for count in counts:
        offsets.append(total)
        total += count
    return offsets


def _join_tables(tables: list[Tensor], pads: list[int], offsets: list[int], pad: int) -> Tensor:
    """Stack padded index tables of different widths, renumbering entries and padding."""
    moved = [torch.where(t < own, t + offset, pad) for t, own, offset in zip(tables, pads, offsets, strict=True)]
    return _join_padded(moved, pad)


def _join_padded(tables: list[Tensor], pad: int = 0) -> Tensor:
    """Stack tables of different widths."""
    width = max(t.shape[1] for t in tables)
    return torch.cat([torch.nn.functional.pad(t, (0, width - t.shape[1]), value=pad) for t in tables])
