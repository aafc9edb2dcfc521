"""Neighbour lists against two independent ones: ASE's, and all images of all pairs counted out."""

from __future__ import annotations

import time
from itertools import product

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, fcc111, molecule
from ase.neighborlist import neighbor_list as ase_neighbor_list

from adatom.errors import GeometryError
from adatom.graph import edge_vectors
from adatom.neighbors import check_geometry, graph_from_atoms, neighbor_list


def as_set(i: np.ndarray, j: np.ndarray, shifts: np.ndarray) -> list[tuple[int, ...]]:
    return sorted(map(tuple, np.column_stack([i, j, shifts]).round().astype(int).tolist()))


def found(atoms: ase.Atoms, cutoff: float) -> list[tuple[int, ...]]:
    edges, shifts = neighbor_list(atoms.positions, np.asarray(atoms.cell), atoms.pbc, cutoff)
    assert (np.diff(edges[0]) >= 0).all(), "sorted by centre"
    return as_set(edges[0], edges[1], shifts)


def by_ase(atoms: ase.Atoms, cutoff: float) -> list[tuple[int, ...]]:
    return as_set(*ase_neighbor_list("ijS", atoms, cutoff))


def counted(atoms: ase.Atoms, cutoff: float, reach: int) -> list[tuple[int, ...]]:
    """All pairs of all images up to ``reach`` cells away."""
    cell, r = np.asarray(atoms.cell), atoms.positions
    pairs = []
    for shift in product(*(range(-reach, reach + 1) if p else (0,) for p in atoms.pbc)):
        distance = np.linalg.norm(r[None] + np.array(shift) @ cell - r[:, None], axis=2)
        for i, j in zip(*np.nonzero(distance < cutoff), strict=True):
            if i != j or any(shift):
                pairs.append((int(i), int(j), *shift))
    return sorted(pairs)


def random_structure(seed: int, pbc: tuple[bool, bool, bool], unwrapped: bool) -> ase.Atoms:
    """A few atoms in a triclinic cell of volume, often thinner than the cutoff."""
    rng = np.random.default_rng(seed)
    while True:
        cell = rng.normal(size=(3, 3)) * 2.0 + np.diag(rng.uniform(1.0, 5.0, size=3))
        if abs(np.linalg.det(cell)) > 8.0:
            break
    count = int(rng.integers(1, 9))
    spread = rng.uniform(-4, 5, size=(count, 3)) if unwrapped else rng.random((count, 3))
    return ase.Atoms(numbers=[1] * count, positions=spread @ cell, cell=cell, pbc=pbc)


PBC = [tuple(bool(k >> axis & 1) for axis in range(3)) for k in range(8)]


@pytest.mark.parametrize("pbc", PBC, ids=lambda pbc: "".join("TF"[not p] for p in pbc))
@pytest.mark.parametrize("unwrapped", [False, True], ids=["wrapped", "unwrapped"])
def test_random_triclinic_cells_agree_with_ase(pbc: tuple[bool, bool, bool], unwrapped: bool) -> None:
    for seed in range(12):
        atoms = random_structure(seed, pbc, unwrapped)
        assert found(atoms, 4.1) == by_ase(atoms, 4.1), f"seed {seed}"


def test_cells_far_thinner_than_the_cutoff_agree_with_all_images_counted() -> None:
    atoms = ase.Atoms(
        "HO", positions=[[0, 0, 0], [0.7, 0.5, 0.8]], cell=[[1.4, 0, 0], [0.6, 1.3, 0], [-0.3, 0.5, 1.7]], pbc=True
    )
    pairs = found(atoms, 5.0)
    assert pairs == counted(atoms, 5.0, reach=9)
    assert len(pairs) > 600
    assert any(i == j for i, j, *_ in pairs), "an atom neighbours its own images"


@pytest.mark.parametrize("pbc", PBC, ids=lambda pbc: "".join("TF"[not p] for p in pbc))
def test_thin_and_partly_periodic_cells_agree_with_all_images_counted(pbc: tuple[bool, bool, bool]) -> None:
    rng = np.random.default_rng(7)
    cell = np.array([[2.0, 0, 0], [0.9, 1.8, 0], [0.4, -0.7, 2.2]])
    atoms = ase.Atoms("H3", positions=rng.uniform(-4, 4, size=(3, 3)), cell=cell, pbc=pbc)
    assert found(atoms, 3.3) == counted(atoms, 3.3, reach=9)


def test_a_very_skew_cell_is_the_lattice_it_spans() -> None:
    plain = bulk("Cu", cubic=True)
    plain.rattle(0.1, seed=2)
    skew = plain.copy()
    skew.set_cell(np.array([[1, 0, 0], [3, 1, 0], [-2, 4, 1]]) @ np.asarray(plain.cell))
    vectors = [np.sort(edge_vectors(graph_from_atoms(atoms, 5.0)).norm(dim=1).numpy()) for atoms in (plain, skew)]
    np.testing.assert_allclose(*vectors, atol=1e-12)


def test_left_handed_cells_are_cells() -> None:
    atoms = random_structure(3, (True, True, True), unwrapped=True)
    cell = np.asarray(atoms.cell)[[1, 0, 2]]
    atoms.set_cell(cell)
    assert found(atoms, 4.1) == by_ase(atoms, 4.1)
    mirrored = ase.Atoms(atoms.numbers, positions=-atoms.positions, cell=-cell, pbc=True)
    assert len(found(mirrored, 4.1)) == len(found(atoms, 4.1))


@pytest.mark.parametrize("periodic", [False, True])
def test_lone_atoms_have_no_edges_but_their_images(periodic: bool) -> None:
    graph = graph_from_atoms(ase.Atoms("H", cell=[3, 3, 3], pbc=periodic), 3.5)
    assert graph.edges.shape == (2, 6 if periodic else 0)
    assert graph.slots.shape == (1, 6 if periodic else 1)
    assert graph.table.tolist() == [[0]]


def test_no_atoms_at_all_have_no_edges() -> None:
    edges, shifts = neighbor_list(np.zeros((0, 3)), np.zeros((3, 3)), np.zeros(3, dtype=bool), 5.0)
    assert edges.shape == (2, 0)
    assert shifts.shape == (0, 3)


def test_atoms_at_exactly_the_cutoff_are_seen_by_both_or_by_neither() -> None:
    graph = graph_from_atoms(bulk("Po", "sc", a=2.5, cubic=True).repeat((2, 2, 2)), 5.0)
    assert (graph.reverse < graph.edges.shape[1]).all()


def test_opposite_edges_have_opposite_vectors() -> None:
    for seed, pbc in enumerate(PBC):
        graph = graph_from_atoms(random_structure(seed, pbc, unwrapped=True), 4.1)
        vectors = edge_vectors(graph)
        torch.testing.assert_close(vectors[graph.reverse], -vectors, rtol=0, atol=1e-12)
        assert (vectors.norm(dim=1) < 4.1).all()


def test_open_directions_ignore_what_the_cell_says_there() -> None:
    slab = fcc111("Cu", (2, 2, 2), vacuum=None)
    expected = found(slab, 4.0)
    for other in ([0, 0, 0], [0.1, 0.2, 0.3], [5, 5, 60]):
        cell = np.asarray(slab.cell).copy()
        cell[2] = other
        again = slab.copy()
        again.set_cell(cell)
        assert found(again, 4.0) == expected
        assert not graph_from_atoms(again, 4.0).cell[0, 2].any(), "zeros where open"


def test_many_atoms_agree_with_ase() -> None:
    atoms = bulk("Si", cubic=True).repeat((4, 4, 4))
    atoms.rattle(0.2, seed=5)
    assert found(atoms, 5.0) == by_ase(atoms, 5.0)


def test_charge_and_spin_come_from_the_info() -> None:
    ion = molecule("OH")
    assert graph_from_atoms(ion, 3.0).charge.tolist() == [0.0]
    assert graph_from_atoms(ion, 3.0).spin.tolist() == [1.0]
    ion.info.update(total_charge=-1, multiplicity=2)
    assert graph_from_atoms(ion, 3.0).charge.tolist() == [-1.0]
    assert graph_from_atoms(ion, 3.0).spin.tolist() == [2.0]


def flat_cell() -> ase.Atoms:
    return ase.Atoms("H2", positions=[[0, 0, 0], [0, 0, 1]], cell=[[3, 0, 0], [6, 0, 0], [0, 0, 3]], pbc=True)


def without_cell() -> ase.Atoms:
    return ase.Atoms("H2", positions=[[0, 0, 0], [0, 0, 1]], pbc=[False, False, True])


def lost() -> ase.Atoms:
    return ase.Atoms("H2", positions=[[0, 0, 0], [0, np.nan, 1]])


@pytest.mark.parametrize(
    ("make", "message"),
    [(flat_cell, "no volume"), (without_cell, "no volume"), (lost, "atom 1")],
)
@pytest.mark.parametrize("use", [check_geometry, lambda atoms: graph_from_atoms(atoms, 4.0)], ids=["check", "graph"])
def test_impossible_geometry_is_a_typed_error_everywhere(make, message, use) -> None:
    with pytest.raises(GeometryError, match=message) as caught:
        use(make())
    assert caught.value.wanted
    assert caught.value.remedy


@pytest.mark.parametrize(("symbol", "distance"), [("H", 0.1), ("Si", 0.6), ("Cs", 1.35)])
def test_overlapping_atoms_are_named(symbol: str, distance: float) -> None:
    atoms = ase.Atoms(f"{symbol}3", positions=[[0, 0, 0], [9, 0, 0], [9, 0, distance]])
    with pytest.raises(GeometryError, match="overlap") as caught:
        check_geometry(atoms, where="a.xyz:3")
    assert str(caught.value.where).startswith("a.xyz:3, atoms 1")
    atoms.positions[2, 2] = 3.2 * distance
    check_geometry(atoms)


def test_atoms_that_overlap_their_own_image_are_named() -> None:
    with pytest.raises(GeometryError, match="overlap"):
        check_geometry(ase.Atoms("Si", cell=[0.5, 4, 4], pbc=True))


def test_a_cutoff_of_a_thousand_angstrom_costs_an_open_molecule_nothing() -> None:
    positions = np.random.default_rng(0).uniform(size=(6, 3)) * 4.0
    begin = time.process_time()
    edges, shifts = neighbor_list(positions, np.zeros((3, 3)), np.zeros(3, dtype=bool), 1000.0)
    assert time.process_time() - begin < 1.0
    assert edges.shape == (2, 30)
    assert not shifts.any()
