"""NEMP in both forms: the figures of the published network, what repairs keep, and where the two differ."""

from __future__ import annotations

from functools import cache
from typing import Any

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from adatom.errors import ConfigError
from adatom.graph import Graph, collate
from adatom.models.nemp import EPSILON, NEMP, SIZES, NEMPConfig, Network, node_paths, unit_coupling
from adatom.neighbors import graph_from_atoms
from adatom.nn.radial import envelope
from adatom.potential import Potential
from adatom.testing import verify

CUTOFF = 4.5
REFERENCES = {1: -13.0, 8: -430.0, 14: -160.0}
FORMS = ("default", "paper")
SMALL: dict[str, dict[str, Any]] = {
    "default": {"channels": 8, "readout": 8, "senders": 2},
    "paper": {"channels": 4, "radial": 6, "readout": 8, "pair_code": 8, "edge_width": 8},
}


@cache
def made(form: str, seed: int = 1) -> Potential:
    """A narrow network with weights that nobody chose."""
    torch.manual_seed(seed)
    known = {"elements": (1, 8, 14), "mean_neighbours": 20.0, "cutoff": CUTOFF}
    config = NEMPConfig.parse({"form": form, **SMALL[form], **known})
    return Potential(NEMP(config).double(), REFERENCES).eval()


def graph(*structures: ase.Atoms, cutoff: float = CUTOFF) -> Graph:
    return collate([graph_from_atoms(atoms, cutoff) for atoms in structures])


def chain(distance: float) -> ase.Atoms:
    """Three atoms close together and one that leaves along x."""
    return ase.Atoms("Si4", positions=[[0, 0, 0], [0, 2.3, 0], [0, 1.1, 2.0], [distance, 0.5, 0.3]])


def pair_energies(potential: Potential, distances: np.ndarray) -> np.ndarray:
    pairs = [ase.Atoms("Si2", positions=[[0, 0, 0], [x, 0, 0]]) for x in distances]
    return potential(graph(*pairs), forces=False).energy.numpy() - 2 * REFERENCES[14]


# --- the published network --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("elements", "count"), [(37, 663_978), (3, 558_918)])
def test_the_paper_form_has_as_many_parameters_as_published(elements: int, count: int) -> None:
    config = NEMPConfig.parse({"form": "paper", "elements": tuple(range(1, elements + 1)), "cutoff": 6.0})
    assert sum(p.numel() for p in NEMP(config).parameters()) == count  # 664k and 559k


def test_the_node_product_has_eleven_paths_and_83_coefficients() -> None:
    paths = node_paths(2, 2)
    assert paths[:3] == [(0, 0, 0), (1, 1, 0), (2, 2, 0)]
    assert [sum(p[2] == degree for p in paths) for degree in range(3)] == [3, 4, 4]
    tensors = [unit_coupling(*path) for path in paths]
    assert sum(int((np.abs(t) > 1e-3).sum()) for t in tensors) == 83
    for tensor in tensors:
        assert (tensor**2).sum() == pytest.approx(1.0, abs=1e-14)
    np.testing.assert_allclose(np.abs(unit_coupling(2, 2, 0)[:, :, 0]), np.eye(5) / np.sqrt(5), atol=1e-14)


def test_features_of_lower_degree_leave_the_paths_of_the_geometry() -> None:
    assert node_paths(3, 1) == [(0, 0, 0), (1, 1, 0), (0, 1, 1), (1, 0, 1), (2, 1, 1)]


def test_the_squared_envelope_has_the_published_values_and_stays_dead_beyond_the_cutoff() -> None:
    x = torch.tensor([0.25, 0.5, 0.75, 0.9, 1.0, 1.05, 1.2, 3.0], dtype=torch.float64)
    f = envelope(x, 1.0, power=6).square()
    torch.testing.assert_close(f[:4], torch.tensor([0.99156, 0.73183, 0.10333, 1.451e-3]).double(), rtol=0, atol=5e-6)
    assert f[4:].tolist() == [0.0] * 4  # the published polynomial comes back: 0.83 at 1.2


def test_networks_on_edges_turn_zero_into_zero() -> None:
    assert Network(5, 8, 3, 2)(torch.zeros(4, 5)).abs().max() == 0
    constant = Network(5, 8, 3, 2, bias=1.0)
    torch.testing.assert_close(constant(torch.randn(4, 5)), torch.ones(4, 3), rtol=0, atol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_edges_beyond_the_cutoff_count_for_nothing(form: str) -> None:
    """A list with a skin gives the energies of the list without."""
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.1, seed=0)
    exact, skin = graph(atoms), graph(atoms, cutoff=CUTOFF + 1.0)
    assert skin.edges.shape[1] > exact.edges.shape[1]
    for a, b in zip(made(form)(exact, stress=True), made(form)(skin, stress=True), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


# --- what repairs are worth -------------------------------------------------------------------------------------------


def test_the_published_pair_falls_off_a_cliff_and_the_default_one_fades() -> None:
    distances = np.linspace(2.0, CUTOFF, 400)
    last = {}
    for form in FORMS:
        energies = np.abs(pair_energies(made(form), distances))
        last[form] = energies[distances > 0.9 * CUTOFF].max() / energies.max()
    assert last["paper"] > 0.3  # n divides the envelope out
    assert last["default"] < 0.1


def test_the_last_neighbour_of_a_cluster_leaves_without_a_flare() -> None:
    """Largest force within 0.3 Å of the end, relative to the largest before."""
    flare = {}
    for form in FORMS:
        distances = np.linspace(2.5, CUTOFF + 1.0, 600)
        forces = made(form)(graph(*map(chain, distances))).forces.view(len(distances), 4, 3)[:, 3].norm(dim=1)
        late = torch.from_numpy(distances > CUTOFF + 0.1)  # the atom at (0, 0, 0) is the last within reach
        assert forces[torch.from_numpy(distances > CUTOFF + 0.6)].max() == 0
        flare[form] = float(forces[~late].max()), float(forces[late].max())
    assert flare["default"][1] < 0.01 * flare["default"][0]


@pytest.mark.parametrize("form", FORMS)
def test_a_lone_atom_has_its_reference_energy(form: str) -> None:
    for element in ("H", "O", "Si"):
        result = made(form)(graph(ase.Atoms(element, positions=[[1, 2, 3]])))
        assert result.energy.item() == REFERENCES[ase.Atoms(element).numbers[0]]
        assert result.forces.abs().max() == 0


def test_the_published_shift_moves_lone_atoms_by_its_value() -> None:
    torch.manual_seed(0)
    config = NEMPConfig.parse({"form": "paper", **SMALL["paper"], "elements": (8, 14), "cutoff": CUTOFF})
    network = NEMP(config).double()
    with torch.no_grad():
        network.body.shift[1] = 0.25
    potential = Potential(network, REFERENCES, scale=2.0).eval()
    energy = potential(graph(ase.Atoms("Si"), ase.Atoms("O"))).energy
    torch.testing.assert_close(energy, torch.tensor([REFERENCES[14] + 0.5, REFERENCES[8]]).double(), rtol=0, atol=1e-12)
    assert not network.claims.grounded
    assert made("default").network.claims.grounded


@pytest.mark.parametrize("form", FORMS)
def test_elements_matter_on_both_sides_of_a_bond(form: str) -> None:
    energies = []
    for symbols in ("SiO", "SiH", "OSi", "OH"):
        atoms = ase.Atoms(symbols, positions=[[0, 0, 0], [1.6, 0, 0]])
        shift = sum(REFERENCES[z] for z in atoms.numbers)
        energies.append(made(form)(graph(atoms)).energy.item() - shift)
    assert abs(energies[0] - energies[2]) < 1e-10
    assert len({round(e, 8) for e in energies}) == 3


@pytest.mark.parametrize("form", FORMS)
def test_three_bodies_are_more_than_their_pairs(form: str) -> None:
    bent, straight = molecule("H2O"), molecule("H2O")
    straight.set_angle(1, 0, 2, 180, indices=[2])
    straight.set_distance(1, 2, bent.get_distance(1, 2), fix=1, indices=[])
    bent_energy, straight_energy = made(form)(graph(bent, straight)).energy.tolist()
    assert abs(bent_energy - straight_energy) > 1e-4


# --- the contract -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_every_claim_holds(form: str) -> None:
    potential = made(form)
    result = verify(potential)
    assert result.passed, [check for check in result.checks if check.verdict == "fail"]
    assert potential.network.claims.smooth == (form == "default")


def test_the_published_form_flares_as_a_pair_parts_and_says_so() -> None:
    check = verify(made("paper")).check("no flare as a pair parts")
    assert check.verdict == "not claimed"
    assert check.figure is not None
    assert check.figure > 10


# --- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", ["S", "M", "L"])
def test_every_size_of_every_form_predicts(form: str, size: str) -> None:
    config = NEMPConfig.parse({"form": form, "size": size, "elements": (14,)})
    assert config.channels == SIZES[form][size]["channels"]
    potential = Potential(NEMP(config), REFERENCES).eval()
    energy, forces, stress = potential(graph_from_atoms(bulk("Si"), config.cutoff), stress=True)
    assert all(t.isfinite().all() for t in (energy, forces, stress))


def test_sizes_grow() -> None:
    for form in FORMS:
        counts = [
            sum(p.numel() for p in NEMP(NEMPConfig.parse({"form": form, "size": s, "elements": (1, 8)})).parameters())
            for s in "SML"
        ]
        assert counts == sorted(counts)
        assert counts[2] > 1.5 * counts[0]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"form": "papers"}, "paper"),
        ({"size": "XL"}, "'S', 'M' or 'L'"),
        ({"chanels": 8}, "channels"),
        ({"l_max": 2, "l_hidden": 3}, "cannot exceed"),
        ({"form": "paper", "derivatives": "direct"}, "no direct head"),
        ({"layers": 0}, "layers"),
    ],
)
def test_wrong_entries_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        NEMPConfig.parse(values)


def test_a_lower_degree_of_the_geometry_takes_that_of_the_features_along() -> None:
    assert NEMPConfig.parse({"l_max": 1, "form": "paper"}).l_hidden == 1


def test_one_epsilon_serves_training_and_inference() -> None:
    assert EPSILON == 1e-6
    potential = made("paper")
    atoms = bulk("Si", cubic=True)
    trained = potential.train()(graph(atoms)).energy.detach()
    torch.testing.assert_close(potential.eval()(graph(atoms)).energy, trained, rtol=0, atol=0)
