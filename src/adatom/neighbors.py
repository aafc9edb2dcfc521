"""From atoms to a Graph: every pair within the cutoff, periodic images included."""

from __future__ import annotations

import ase
import numpy as np
import torch
import vesin

from adatom.elements import covalent_radius, symbol
from adatom.errors import ChargeError, GeometryError
from adatom.graph import Graph, pad_neighbours, pad_rows, reverse_edges

NEUTRAL, SINGLET = 0.0, 1.0  # what a structure is that says nothing of charge and multiplicity
CONTACT = 0.3  # two atoms closer than this times the sum of their covalent radii are on one spot


def neighbor_list(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray]:
    """All directed pairs closer than ``cutoff``: edges (2, E) sorted by centre, and lattice shifts (E, 3).

    r_ij = r_j + shift @ cell - r_i. Exact for triclinic cells, cells thinner than the cutoff (an atom then neighbours
    its own images), open systems and any mixture of periodic and open directions. Positions in Å, anywhere in space.
    What `check_cell` refuses must not come here.
    """
    positions = np.ascontiguousarray(positions, dtype=np.float64)
    cell, pbc = np.asarray(cell, dtype=np.float64), np.asarray(pbc, dtype=bool)
    if len(positions) == 0:
        return np.zeros((2, 0), dtype=np.int64), np.zeros((0, 3))
    if not pbc.any():  # no pair is farther apart than the whole is wide; the search takes time with the cutoff cubed
        cutoff = min(cutoff, float(np.linalg.norm(np.ptp(positions, axis=0))) + 1.0)
    box = complete_cell(positions, cell, pbc, cutoff)
    # vesin counts images from where the atoms stand: fold periodic directions into the cell, correct the shifts after
    fractional = positions @ np.linalg.inv(box)
    folds = np.where(pbc, np.floor(fractional), 0.0)
    i, j, shift = vesin.NeighborList(cutoff=cutoff, full_list=True, sorted=False).compute(
        points=positions - folds @ box, box=box, periodic=pbc, quantities="ijS", copy=True
    )
    i, j = i.astype(np.int64), j.astype(np.int64)
    shift = shift + folds[i] - folds[j]
    order = np.lexsort((shift[:, 2], shift[:, 1], shift[:, 0], j, i))
    return np.stack([i[order], j[order]]), np.ascontiguousarray(shift[order], dtype=np.float64)


def complete_cell(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> np.ndarray:
    """Cell whose open directions are filled with vectors normal to the periodic ones, long enough to hold all atoms."""
    box = np.array(cell, dtype=np.float64)
    open_axes = np.flatnonzero(~pbc)
    if open_axes.size:
        _, _, basis = np.linalg.svd(np.where(pbc[:, None], box, 0.0))
        extent = 2.0 * (np.ptp(positions, axis=0).max() + cutoff + 1.0)
        # the last rows of the SVD basis span what the periodic vectors leave open
        box[open_axes] = basis[3 - open_axes.size :] * extent
    return box


def check_cell(atoms: ase.Atoms, where: str | None = None) -> None:
    """GeometryError for positions or a cell that are not finite, and for a periodic cell without volume."""
    positions, cell, pbc = atoms.get_positions(), np.asarray(atoms.cell), np.asarray(atoms.pbc)
    if not np.isfinite(positions).all() or not np.isfinite(cell).all():
        bad = int(np.flatnonzero(~np.isfinite(positions).all(axis=1))[0]) if not np.isfinite(positions).all() else None
        raise GeometryError(
            "positions or cell are not finite numbers",
            where=_at(where, f"atom {bad}" if bad is not None else "cell"),
            wanted="finite numbers in Å",
            remedy="remove or repair this structure",
        )
    periodic = cell[pbc]
    if len(periodic):
        volume = np.sqrt(max(np.linalg.det(periodic @ periodic.T), 0.0))  # length, area or volume
        if volume < 1e-3 ** len(periodic):
            raise GeometryError(
                "a periodic cell has no volume",
                where=_at(where, "cell"),
                wanted="linearly independent lattice vectors along every periodic direction",
                got=f"cell {cell.tolist()}, pbc {pbc.tolist()}",
                remedy="give the cell, or set pbc to False where the system is open",
            )


def check_geometry(atoms: ase.Atoms, where: str | None = None) -> None:
    """GeometryError as `check_cell`, and for two atoms on one spot: closer than 0.3 times the sum of their radii."""
    check_cell(atoms, where)
    positions, cell, pbc = atoms.get_positions(), np.asarray(atoms.cell), np.asarray(atoms.pbc)
    radii = covalent_radius(atoms.numbers)
    contact = 2.0 * CONTACT * float(radii.max(initial=1.0))
    # in a roomy box the list looks through as many bins as it has volume: wider ones than needed are quicker
    room = abs(float(np.linalg.det(complete_cell(positions, cell, pbc, contact)))) / max(len(atoms), 1)
    edges, shifts = neighbor_list(positions, cell, pbc, max(contact, min(room ** (1.0 / 3.0), 4.0)))
    if edges.shape[1] == 0:
        return
    vectors = positions[edges[1]] + shifts @ cell - positions[edges[0]]
    distances = np.linalg.norm(vectors, axis=1)
    ratio = distances / (radii[edges[0]] + radii[edges[1]])
    worst = int(ratio.argmin())
    if ratio[worst] < CONTACT:
        a, b = edges[0, worst], edges[1, worst]
        raise GeometryError(
            "two atoms overlap",
            where=_at(where, f"atoms {a} ({symbol(atoms.numbers[a])}) and {b} ({symbol(atoms.numbers[b])})"),
            wanted=f"distances above {CONTACT} times the sum of the covalent radii",
            got=f"{distances[worst]:.3f} Å",
            remedy="check units (Å), cell and pbc; remove the structure if it is a failed calculation",
        )


def _at(where: str | None, detail: str) -> str:
    return detail if where is None else f"{where}, {detail}"


def given_charge_and_spin(atoms: ase.Atoms) -> tuple[float | None, float | None]:
    """Total charge (e) and spin multiplicity as ``atoms.info`` gives them, None where it does not say.

    Read from ``total_charge`` or ``charge``, and from ``multiplicity`` or ``spin``. ChargeError for what is no number.
    """
    return _number(atoms, "total_charge", "charge"), _number(atoms, "multiplicity", "spin")


def _number(atoms: ase.Atoms, *keys: str) -> float | None:
    """The first of some entries of ``atoms.info`` that is there."""
    for key in keys:
        value = atoms.info.get(key)
        if value is None:
            continue
        try:
            return float(value)
        except (TypeError, ValueError) as error:
            raise ChargeError(
                f"{key} is not a number",
                where=atoms.get_chemical_formula(),
                wanted="one number",
                got=repr(value),
                remedy=f"correct atoms.info['{key}']",
            ) from error
    return None


def charge_and_spin(atoms: ase.Atoms) -> tuple[float, float]:
    """Total charge (e) and spin multiplicity from ``atoms.info``: 0 and 1 where it does not say."""
    charge, spin = given_charge_and_spin(atoms)
    return NEUTRAL if charge is None else charge, SINGLET if spin is None else spin


def graph_from_atoms(atoms: ase.Atoms, cutoff: float, dtype: torch.dtype = torch.float64) -> Graph:
    """One structure as a Graph with all edges within ``cutoff`` (Å).

    Total charge and spin multiplicity are taken from ``atoms.info`` (``total_charge`` or ``charge``; ``multiplicity``
    or ``spin``), 0 and 1 where absent. GeometryError for positions that are not finite and periodic cells without
    volume.
    """
    check_cell(atoms)
    pbc = np.asarray(atoms.pbc, dtype=bool)
    cell = np.where(pbc[:, None], np.asarray(atoms.cell, dtype=np.float64), 0.0)
    edges, shifts = neighbor_list(atoms.get_positions(), cell, pbc, cutoff)
    charge, spin = charge_and_spin(atoms)
    return build_graph(
        torch.from_numpy(atoms.numbers.astype(np.int64)),
        torch.from_numpy(atoms.get_positions()).to(dtype),
        torch.from_numpy(edges),
        torch.from_numpy(shifts).to(dtype),
        torch.from_numpy(cell).to(dtype),
        torch.from_numpy(pbc),
        charge=charge,
        spin=spin,
    )


def build_graph(
    numbers: torch.Tensor,
    positions: torch.Tensor,
    edges: torch.Tensor,
    shifts: torch.Tensor,
    cell: torch.Tensor,
    pbc: torch.Tensor,
    charge: float = 0.0,
    spin: float = 1.0,
) -> Graph:
    """Graph of one structure from an edge list sorted by centre; the padded tables and reverse edges are made here."""
    atoms = numbers.shape[0]
    owner = torch.zeros(atoms, dtype=torch.int64, device=numbers.device)
    slots, reverse = pad_rows(edges[0], atoms), reverse_edges(edges, shifts)
    neighbours, back = pad_neighbours(edges, slots, reverse)
    return Graph(
        numbers=numbers,
        positions=positions,
        owner=owner,
        edges=edges,
        shifts=shifts,
        cell=cell.reshape(1, 3, 3),
        pbc=pbc.reshape(1, 3),
        charge=positions.new_tensor([charge]),
        spin=positions.new_tensor([spin]),
        source=torch.zeros(1, dtype=torch.int64, device=numbers.device),
        slots=slots,
        neighbours=neighbours,
        back=back,
        table=pad_rows(owner, 1),
        reverse=reverse,
    )
