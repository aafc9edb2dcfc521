from __future__ import annotations

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, fcc111, molecule

from adatom.errors import GeometryError
from adatom.graph import Graph, edge_vectors
from adatom.neighbors import graph_from_atoms
from adatom.sim.skin import SkinList

CUTOFF = 5.0


def systems() -> dict[str, ase.Atoms]:
    slab = fcc111("Cu", (2, 2, 3), a=3.6, vacuum=6.0)  # periodic in two directions
    wire = ase.Atoms("Cu4", [[0, 0, 0], [1.5, 1.4, 1.2], [0.2, 2.1, 2.6], [-1.5, 1.0, 3.6]], cell=[0, 0, 5.1])
    wire.pbc = (False, False, True)
    thin = ase.Atoms(
        "SiO", [[0, 0, 0], [1.4, 1.2, 0.7]], cell=[[2.9, 0, 0], [1.1, 2.7, 0.3], [-0.8, 0.9, 2.6]], pbc=True
    )
    return {
        "crystal": bulk("Cu", cubic=True) * 2,
        "thin triclinic cell": thin,
        "one atom in a primitive cell": bulk("Cu"),
        "slab": slab,
        "wire": wire,
        "molecule": molecule("C2H6"),
    }


def same(ours: Graph, fresh: Graph) -> None:
    for name in ("numbers", "positions", "owner", "edges", "shifts", "cell", "pbc", "slots", "table", "reverse"):
        assert torch.equal(getattr(ours, name), getattr(fresh, name)), name


@pytest.mark.parametrize("name", systems())
@pytest.mark.parametrize("skin", [0.0, 0.4, 1.5])
def test_on_a_random_walk_every_graph_equals_a_fresh_one(name: str, skin: float) -> None:
    atoms, rng = systems()[name], np.random.default_rng(7)
    neighbors = SkinList(CUTOFF, skin)
    for step in range(60):
        atoms.positions += rng.normal(scale=0.03, size=atoms.positions.shape)
        if step % 10 == 3:  # atoms and cell together
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(scale=0.02, size=(3, 3))), scale_atoms=True)
        if step % 10 == 6:  # the cell slides under the atoms
            atoms.set_cell(atoms.cell.array * (1 + rng.normal(scale=0.01)), scale_atoms=False)
        if step % 20 == 9:  # out of the box, all of them
            atoms.positions += rng.normal(scale=20.0, size=3)
        if step % 20 == 19:
            atoms.wrap()
        same(neighbors.graph(atoms), graph_from_atoms(atoms, CUTOFF))


def test_a_gentle_walk_seldom_makes_a_new_list() -> None:
    atoms, rng = bulk("Cu", cubic=True) * 2, np.random.default_rng(1)
    start, neighbors = atoms.get_positions(), SkinList(CUTOFF, 0.5)
    neighbors.graph(atoms)
    for _ in range(50):
        atoms.positions = start + rng.uniform(-0.14, 0.14, size=start.shape)  # |d| < 0.25
        same(neighbors.graph(atoms), graph_from_atoms(atoms, CUTOFF))
    assert neighbors.builds == 1


def test_the_list_is_made_anew_when_an_atom_has_moved_by_more_than_half_the_skin() -> None:
    atoms, neighbors = bulk("Cu", cubic=True) * 2, SkinList(CUTOFF, 0.6)
    neighbors.graph(atoms)
    atoms.positions[5] += [0.299, 0.0, 0.0]
    neighbors.graph(atoms)
    assert neighbors.builds == 1
    atoms.positions[5] += [0.002, 0.0, 0.0]
    neighbors.graph(atoms)
    assert neighbors.builds == 2


def test_a_list_of_every_pair_of_a_molecule_lasts_for_ever() -> None:
    atoms, rng, neighbors = molecule("C2H6"), np.random.default_rng(2), SkinList(CUTOFF, 0.5)
    for _ in range(40):
        atoms.positions += rng.normal(scale=0.3, size=atoms.positions.shape)
        same(neighbors.graph(atoms), graph_from_atoms(atoms, CUTOFF))
    assert neighbors.builds == 1
    atoms.pbc, atoms.cell = True, np.eye(3) * 20.0
    neighbors.graph(atoms)
    atoms.positions += 1.0
    neighbors.graph(atoms)
    assert neighbors.builds == 3  # periodic: there is always another image
    atoms.pbc = False
    neighbors.graph(atoms)
    atoms.positions[4, 1] = np.nan
    with pytest.raises(GeometryError, match="atom 4"):
        neighbors.graph(atoms)


def test_a_pair_that_closes_in_from_both_sides_is_not_missed() -> None:
    neighbors = SkinList(CUTOFF, 0.6)
    atoms = ase.Atoms("Cu2", [[0, 0, 0], [CUTOFF + 0.61, 0, 0]])
    assert neighbors.graph(atoms).edges.shape[1] == 0
    atoms.positions[0, 0] += 0.31
    atoms.positions[1, 0] -= 0.31
    assert neighbors.graph(atoms).edges.shape[1] == 2


def test_a_compressed_cell_counts_although_no_fraction_has_changed() -> None:
    atoms, neighbors = bulk("Cu", cubic=True) * 2, SkinList(CUTOFF, 0.5)
    neighbors.graph(atoms)
    limit = CUTOFF / (CUTOFF + 0.5)
    cell = atoms.cell.array
    atoms.set_cell(cell * (limit + 1e-4), scale_atoms=True)
    same(neighbors.graph(atoms), graph_from_atoms(atoms, CUTOFF))
    assert neighbors.builds == 1
    atoms.set_cell(cell * (limit - 1e-4), scale_atoms=True)
    same(neighbors.graph(atoms), graph_from_atoms(atoms, CUTOFF))
    assert neighbors.builds == 2


def test_other_species_and_other_periodicity_make_a_new_list() -> None:
    atoms, neighbors = bulk("Cu", cubic=True), SkinList(CUTOFF)
    neighbors.graph(atoms)
    atoms.numbers[0] = 14
    assert neighbors.graph(atoms).numbers[0] == 14
    atoms.pbc = (True, True, False)
    same(neighbors.graph(atoms), graph_from_atoms(atoms, CUTOFF))
    atoms.pbc = True
    same(neighbors.graph(atoms), graph_from_atoms(atoms, CUTOFF))
    del atoms[2]
    same(neighbors.graph(atoms), graph_from_atoms(atoms, CUTOFF))
    assert neighbors.builds == 5


def test_an_open_system_that_becomes_periodic_gets_its_images() -> None:
    atoms, neighbors = molecule("C2H6", cell=[5, 5, 5]), SkinList(CUTOFF)
    neighbors.graph(atoms)
    atoms.pbc = True
    same(neighbors.graph(atoms), graph_from_atoms(atoms, CUTOFF))


def test_no_edge_is_longer_than_the_cutoff_and_both_directions_go_together() -> None:
    atoms, rng = bulk("Si", cubic=True) * 2, np.random.default_rng(3)
    atoms.set_cell(atoms.cell.array * CUTOFF / np.sqrt(2) / 3.0, scale_atoms=True)  # many pairs stand at the cutoff
    neighbors = SkinList(CUTOFF, 0.5)
    for _ in range(20):
        graph = neighbors.graph(atoms)
        assert edge_vectors(graph).norm(dim=1).max() < CUTOFF + 1e-12
        assert torch.equal(graph.reverse[graph.reverse], torch.arange(graph.edges.shape[1]))
        atoms.positions += rng.normal(scale=1e-13, size=atoms.positions.shape)


def test_the_pairs_of_the_wide_list_stand_where_the_atoms_are_now() -> None:
    atoms, neighbors = bulk("Cu", cubic=True), SkinList(3.0, 0.5)
    neighbors.meet(atoms)
    neighbors.pairs(torch.tensor(atoms.positions), atoms.cell.array)
    atoms.positions[0] += [0.1, 0.0, 0.05]
    pairs, lengths = neighbors.pairs(torch.tensor(atoms.positions), atoms.cell.array)
    inside = lengths < 3.0
    assert neighbors.builds == 1
    direct = edge_vectors(graph_from_atoms(atoms, 3.0)).norm(dim=1)
    np.testing.assert_allclose(lengths[inside].repeat_interleave(2).sort().values, direct.sort().values, atol=1e-12)
    assert pairs.shape == (2, lengths.shape[0])


def test_charge_and_spin_are_read_anew_each_time() -> None:
    atoms, neighbors = molecule("C2H6"), SkinList(CUTOFF)
    assert neighbors.graph(atoms).charge.item() == 0.0
    atoms.info["total_charge"], atoms.info["multiplicity"] = -1, 2
    graph = neighbors.graph(atoms)
    assert (graph.charge.item(), graph.spin.item()) == (-1.0, 2.0)
    assert neighbors.builds == 1


def test_a_graph_does_not_change_when_the_atoms_move_on() -> None:
    atoms, neighbors = bulk("Cu", cubic=True), SkinList(CUTOFF)
    graph = neighbors.graph(atoms)
    before = graph.positions.clone()
    atoms.positions += 0.05
    assert torch.equal(graph.positions, before)


def test_positions_that_are_no_numbers_and_flat_cells_are_refused() -> None:
    atoms, neighbors = bulk("Cu", cubic=True), SkinList(CUTOFF)
    neighbors.graph(atoms)
    atoms.positions[2, 1] = np.nan
    with pytest.raises(GeometryError, match="atom 2"):
        neighbors.graph(atoms)
    flat = bulk("Cu", cubic=True)
    flat.cell[2] = flat.cell[1]
    with pytest.raises(GeometryError, match="no volume"):
        neighbors.graph(flat)
