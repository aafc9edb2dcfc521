"""The waist: energies, forces and stress of batches, with references and priors, for every kind of boundary."""

from __future__ import annotations

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, fcc111, molecule
from torch import Tensor, nn

from adatom.errors import UnknownElementError
from adatom.graph import Graph, Results, collate
from adatom.models.base import Claims, Model, NetworkOutput
from adatom.neighbors import graph_from_atoms
from adatom.potential import Potential
from adatom.priors.zbl import ZBL
from broken import Direct, MeanPooled, Tilted
from toy import REFERENCES, SOUND, Toy, ToyConfig, toy_potential

CUTOFF = 5.0


class Constant(Model):
    """A network that looks at nothing."""

    Config = ToyConfig
    claims: Claims = SOUND
    cutoff = CUTOFF

    def __init__(self) -> None:
        super().__init__()
        self.config = ToyConfig()
        self.weight = nn.Parameter(torch.tensor(2.0), requires_grad=False)

    def forward(self, graph: Graph) -> NetworkOutput:
        energy = self.weight.expand(graph.numbers.shape[0])
        return NetworkOutput(energy=energy, features=energy.unsqueeze(1))


def crystal() -> ase.Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.numbers[1] = 14
    atoms.rattle(0.15, seed=3)
    return atoms


def triclinic() -> ase.Atoms:
    cell = [[2.9, 0, 0], [0.8, 2.7, 0], [-0.5, 0.9, 3.1]]
    return ase.Atoms("CuO", positions=[[0, 0.1, 0], [1.4, 1.6, 1.3]], cell=cell, pbc=True)


def heap() -> ase.Atoms:
    atoms = molecule("H2O")
    return atoms + ase.Atoms("Si", positions=[[1.9, 0.4, 0.3]])


def slab() -> ase.Atoms:
    atoms = fcc111("Cu", (1, 1, 3), vacuum=None)
    atoms.rattle(0.1, seed=1)
    return atoms


def lone() -> ase.Atoms:
    return ase.Atoms("Cu", positions=[[0.4, 0.5, 0.6]])


ALL = [crystal, lone, triclinic, heap, slab]


@pytest.fixture(scope="module")
def potential() -> Potential:
    """With every part: scale, references, prior."""
    return Potential(Toy().double(), REFERENCES, scale=0.7, priors=(ZBL(),)).eval()


def ask(potential: Potential, atoms: ase.Atoms) -> Results:
    return potential(graph_from_atoms(atoms, CUTOFF), stress=True)


def energy(potential: Potential, atoms: ase.Atoms) -> float:
    return float(potential(graph_from_atoms(atoms, CUTOFF), forces=False).energy[0])


def slope(potential: Potential, atoms: ase.Atoms, change, step: float) -> float:
    """Central difference of fourth order along ``change(atoms, size)``."""
    e = [energy(potential, change(atoms, k * step)) for k in (-2, -1, 1, 2)]
    return (e[0] - 8 * e[1] + 8 * e[2] - e[3]) / (12 * step)


@pytest.mark.parametrize("make", ALL, ids=lambda make: make.__name__)
def test_forces_are_minus_the_slope_of_the_energy(potential: Potential, make) -> None:
    atoms = make()
    forces = ask(potential, atoms).forces.numpy()
    for atom in range(len(atoms)):
        for axis in range(3):

            def moved(atoms: ase.Atoms, size: float, atom: int = atom, axis: int = axis) -> ase.Atoms:
                other = atoms.copy()
                other.positions[atom, axis] += size
                return other

            assert -slope(potential, atoms, moved, 1e-3) == pytest.approx(forces[atom, axis], abs=1e-7)


@pytest.mark.parametrize("make", [crystal, triclinic], ids=lambda make: make.__name__)
def test_stress_is_the_slope_over_strain_by_volume(potential: Potential, make) -> None:
    atoms = make()
    stress = ask(potential, atoms).stress[0].numpy()
    np.testing.assert_allclose(stress, stress.T, atol=1e-12)
    for a in range(3):
        for b in range(3):

            def strained(atoms: ase.Atoms, size: float, a: int = a, b: int = b) -> ase.Atoms:
                strain = np.eye(3)
                strain[a, b] += 0.5 * size
                strain[b, a] += 0.5 * size
                other = atoms.copy()
                other.set_cell(np.asarray(atoms.cell) @ strain, scale_atoms=True)
                return other

            found = slope(potential, atoms, strained, 3e-4) / atoms.get_volume()
            assert found == pytest.approx(stress[a, b], abs=1e-8)


def test_stress_is_symmetric_even_where_the_network_knows_no_rotation() -> None:
    tilted = Potential(Tilted().double(), REFERENCES).eval()
    stress = ask(tilted, crystal()).stress[0]
    torch.testing.assert_close(stress, stress.T, rtol=0, atol=1e-14)


def test_tension_is_positive(potential: Potential) -> None:
    stretched, squeezed = (ask(toy_potential(), bulk("Cu", "fcc", a=a)).stress[0] for a in (3.8, 3.2))
    assert (stretched.diagonal() > 0.01).all()
    assert (squeezed.diagonal() < -0.01).all()


def test_a_batch_says_what_each_structure_says_alone(potential: Potential) -> None:
    graphs = [graph_from_atoms(make(), CUTOFF) for make in ALL]
    batch = potential(collate(graphs), stress=True)
    singles = [potential(graph, stress=True) for graph in graphs]
    torch.testing.assert_close(batch.energy, torch.cat([r.energy for r in singles]), rtol=0, atol=1e-11)
    torch.testing.assert_close(batch.forces, torch.cat([r.forces for r in singles]), rtol=0, atol=1e-12)
    torch.testing.assert_close(batch.stress, torch.cat([r.stress for r in singles]), rtol=0, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("make", [heap, lone, slab], ids=lambda make: make.__name__)
def test_what_has_no_volume_has_no_stress(potential: Potential, make) -> None:
    results = ask(potential, make())
    assert results.stress.shape == (1, 3, 3)
    assert results.stress.isnan().all()
    assert results.forces.isfinite().all()


def test_a_lone_atom_is_its_reference_and_feels_nothing(potential: Potential) -> None:
    for z, reference in REFERENCES.items():
        results = ask(potential, ase.Atoms([z], positions=[[1, 2, 3]]))
        assert results.energy.tolist() == [reference]
        assert results.forces.tolist() == [[0.0, 0.0, 0.0]]


def test_a_network_that_looks_at_nothing_has_forces_and_stress_of_zero() -> None:
    constant = Potential(Constant(), REFERENCES).eval()
    results = ask(constant, crystal())
    assert not results.forces.any()
    assert not results.stress.any()
    assert float(results.energy[0]) == pytest.approx(3 * REFERENCES[29] + REFERENCES[14] + 4 * 2.0)


def test_the_energy_is_network_times_scale_plus_references_plus_priors() -> None:
    close = ase.Atoms("SiH", positions=[[0, 0, 0], [0.8, 0, 0]])
    graph = graph_from_atoms(close, CUTOFF)
    network = Toy().double()
    expected = 3.0 * network(graph).energy + torch.tensor([REFERENCES[14], REFERENCES[1]]) + ZBL()(graph)
    potential = Potential(network, REFERENCES, scale=3.0, priors=(ZBL(),)).eval()
    torch.testing.assert_close(potential.atomic_energies(graph), expected)
    torch.testing.assert_close(potential(graph).energy[0], expected.sum())
    assert float(ZBL()(graph).sum()) > 0.5


def test_a_pooled_energy_replaces_the_sum_but_not_references_and_priors() -> None:
    graph = collate([graph_from_atoms(make(), CUTOFF) for make in (crystal, heap)])
    network = MeanPooled().double()
    found = Potential(network, REFERENCES, scale=2.0, priors=(ZBL(),)).eval()(graph).energy
    own = [3 * REFERENCES[29] + REFERENCES[14], 2 * REFERENCES[1] + REFERENCES[8] + REFERENCES[14]]
    prior = torch.zeros(2, dtype=torch.float64).index_add(0, graph.owner, ZBL()(graph))
    pooled = network(graph).pooled
    assert pooled is not None
    torch.testing.assert_close(found, torch.tensor(own, dtype=torch.float64) + prior + 2.0 * pooled)


def test_direct_heads_are_scaled_and_keep_the_same_rules() -> None:
    network = Direct().double()
    potential = Potential(network, REFERENCES, scale=2.0, derivatives="direct").eval()
    graph = collate([graph_from_atoms(make(), CUTOFF) for make in (crystal, heap)])
    results = potential(graph, stress=True)
    head = network(graph).forces
    assert head is not None
    torch.testing.assert_close(results.forces, 2.0 * head)
    assert results.stress[0].isfinite().all()
    assert results.stress[1].isnan().all(), "a molecule has no volume"
    assert potential(graph, forces=False).forces.isnan().all()
    assert not results.forces.requires_grad, "nothing of the graph of derivatives is kept outside training"
    assert not results.energy.requires_grad


def test_priors_push_beside_a_direct_head() -> None:
    """The head learns what the network's gradient would: a swap of one for the other leaves the rest alone."""
    near = ase.Atoms("CuO", positions=[[0, 0, 0], [0.7, 0, 0]], cell=[9, 9, 9], pbc=True)
    graph = graph_from_atoms(near, CUTOFF)
    heads, prior = Direct().double(), ZBL()
    bare = Potential(heads, REFERENCES, derivatives="direct").eval()
    both = Potential(heads, REFERENCES, priors=(prior,), derivatives="direct").eval()
    alone = Potential(Constant(), REFERENCES, priors=(prior,)).eval()
    a, b, c = (potential(graph, stress=True) for potential in (both, bare, alone))
    assert c.forces.abs().max() > 1.0
    torch.testing.assert_close(a.forces, b.forces + c.forces)
    torch.testing.assert_close(a.stress, b.stress + c.stress)
    trained = both.train()(graph, stress=True)
    torch.testing.assert_close(trained.forces, a.forces)
    trained.forces.sum().backward()


def test_what_is_not_asked_for_is_not_a_number(potential: Potential) -> None:
    results = potential(graph_from_atoms(crystal(), CUTOFF), forces=False)
    assert results.energy.isfinite().all()
    assert results.forces.isnan().all()
    assert results.stress.isnan().all()
    assert results.forces.shape == (4, 3)


def test_forces_come_out_under_no_grad_as_well(potential: Potential) -> None:
    graph = graph_from_atoms(crystal(), CUTOFF)
    with torch.no_grad():
        silent = potential(graph, stress=True)
    loud = potential(graph, stress=True)
    assert torch.equal(silent.forces, loud.forces)
    assert torch.equal(silent.stress, loud.stress)
    assert not loud.energy.requires_grad


def test_an_unknown_element_is_named(potential: Potential) -> None:
    with pytest.raises(UnknownElementError, match="does not know C, Au") as caught:
        potential.check_elements(torch.tensor([79, 29, 6, 6]))
    assert "H, O, Si, Cu" in str(caught.value)
    potential.check_elements(torch.tensor([29, 14, 29]))
    assert potential.elements == [1, 8, 14, 29]


def test_the_network_may_be_single_while_geometry_and_sums_are_double() -> None:
    single, double = toy_potential(dtype=torch.float32), toy_potential(dtype=torch.float64)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    a, b = (ask(p, crystal()) for p in (single, double))
    assert {t.dtype for t in a} == {torch.float64}
    torch.testing.assert_close(a.energy, b.energy, rtol=0, atol=1e-4)
    torch.testing.assert_close(a.forces, b.forces, rtol=0, atol=1e-4)
    assert not torch.equal(a.energy, b.energy)


def loss(potential: Potential, graph: Graph) -> Tensor:
    results = potential(graph, stress=True)
    return results.energy.sum() + results.forces.square().sum() + 10 * results.stress.nan_to_num().square().sum()


def test_in_training_a_loss_of_forces_and_stress_can_be_derived_by_the_parameters() -> None:
    potential = toy_potential().train()
    graph = collate([graph_from_atoms(make(), CUTOFF) for make in (crystal, lone, triclinic)])
    loss(potential, graph).backward()
    for name, parameter in potential.network.named_parameters():
        step = 1e-5
        values = []
        for sign in (1, -1):
            other = toy_potential().train()
            with torch.no_grad():
                dict(other.network.named_parameters())[name].add_(sign * step)
            values.append(float(loss(other, graph).detach()))
        assert float(parameter.grad) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-6), name


def test_the_graph_is_not_written_to(potential: Potential) -> None:
    graph = graph_from_atoms(crystal(), CUTOFF)
    before = graph.positions.clone()
    potential(graph, stress=True)
    assert torch.equal(graph.positions, before)
    assert not graph.positions.requires_grad
    assert graph.positions.grad is None
