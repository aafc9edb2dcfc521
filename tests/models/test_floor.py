"""Every sound architecture with a floor of distances: as before in the data, blind nearer, streamed and grown alike."""

from __future__ import annotations

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk

from adatom.models import MODELS, read_model
from adatom.models.base import Facts
from adatom.models.grow import with_closest
from adatom.neighbors import graph_from_atoms
from adatom.potential import Potential
from adatom.priors.zbl import ZBL, ZBLConfig

CLOSEST = {"H-H": 1.2, "H-O": 0.9, "O-O": 2.2, "Si-Si": 2.0}
REFERENCES = {1: -13.0, 8: -430.0, 14: -160.0}


def made(architecture: str, closest: dict[str, float] | None, form: str = "default") -> Potential:
    torch.manual_seed(3)
    config = read_model({"architecture": architecture, "form": form, "cutoff": 4.0})
    config = config.completed(Facts((1, 8, 14), 20.0, None, None, closest))
    return Potential(MODELS[architecture](config).double(), REFERENCES, 5.0).eval()


def energies(potential: Potential, pair: str, distances: list[float]) -> np.ndarray:
    graphs = [graph_from_atoms(ase.Atoms(pair, [[0, 0, 0], [0.6 * r, 0, 0.8 * r]]), 4.0) for r in distances]
    return np.array([float(potential(graph, forces=False).energy) for graph in graphs])


@pytest.mark.parametrize("architecture", ["mlanet", "nemp", "allscaip"])
def test_a_network_is_as_before_in_its_data_and_blind_nearer(architecture: str) -> None:
    free, floored = made(architecture, None), made(architecture, CLOSEST)
    far = [0.9, 1.0, 1.7, 3.0]
    np.testing.assert_array_equal(energies(floored, "OH", far), energies(free, "OH", far))
    near = energies(floored, "OH", [0.2, 0.5, 0.71])
    if architecture != "allscaip":  # its attention among all atoms goes by the real distance, and fades slowly
        np.testing.assert_allclose(near, near[0], atol=1e-9)
    assert abs(energies(free, "OH", [0.2]) - energies(free, "OH", [0.71])) > abs(near[0] - near[2])


@pytest.mark.parametrize("architecture", ["mlanet", "nemp"])
def test_streamed_systems_have_the_same_floor(architecture: str) -> None:
    potential = made(architecture, CLOSEST)
    crystal = bulk("Si", cubic=True) * 2
    crystal.rattle(0.3, seed=2)
    crystal.positions[1] = crystal.positions[0] + [1.0, 0.9, 0.8]
    graph = graph_from_atoms(crystal, 4.0)
    whole = potential.eager(graph)
    body = next(iter(potential.network.children()))
    parts = potential.streamed(body, graph, stress=False)
    torch.testing.assert_close(parts.energy, whole.energy)
    torch.testing.assert_close(parts.forces, whole.forces)
    away = made(architecture, None).eager(graph)
    assert (away.energy - whole.energy).abs().item() > 1e-6


def test_published_forms_see_every_distance() -> None:
    for architecture in ("nemp", "allscaip"):
        pair, distances = "OH", [0.3, 0.6]
        np.testing.assert_array_equal(
            energies(made(architecture, CLOSEST, "paper"), pair, distances),
            energies(made(architecture, None, "paper"), pair, distances),
        )


def test_a_network_that_learns_of_closer_pairs_sees_them() -> None:
    network = made("nemp", CLOSEST).network
    grown = with_closest(network, {"H-O": 0.8, "O-O": 2.5, "H-Si": 1.4})
    assert grown.config.closest == CLOSEST | {"H-O": 0.8, "H-Si": 1.4}
    for name, value in network.state_dict().items():
        assert torch.equal(grown.state_dict()[name], value)
    assert with_closest(network, {"H-O": 1.0}) is network
    free = made("nemp", None).network
    assert with_closest(free, {"H-O": 0.8}) is free


def test_core_repulsion_reaches_into_what_no_data_showed() -> None:
    plain, reaching = ZBL(), ZBL(ZBLConfig(closest={"Si-Si": 2.0}))
    inside, beyond = (graph_from_atoms(ase.Atoms("Si2", [[0, 0, 0], [r, 0, 0]]), 4.0) for r in (1.9, 2.5))
    assert float(plain(inside).sum()) == 0.0
    assert float(reaching(inside).sum()) > 0.1
    assert float(reaching(beyond).sum()) == 0.0
    carbon = graph_from_atoms(ase.Atoms("C2", [[0, 0, 0], [0.9, 0, 0]]), 4.0)
    assert torch.equal(plain(carbon), reaching(carbon)), "pairs without data keep the reach of their radii"
    again = ZBL(ZBLConfig.parse(reaching.config.model_dump()))
    assert torch.equal(again(inside), reaching(inside))
