"""Core repulsion: the published function at short range, nothing beyond its reach, smooth in between."""

from __future__ import annotations

import math

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk

from adatom.elements import covalent_radius
from adatom.neighbors import graph_from_atoms
from adatom.priors.zbl import ZBL, ZBLConfig

CUTOFF = 5.0


def pair_energy(prior: ZBL, a: int, b: int, distances: list[float]) -> np.ndarray:
    """Energy of a pair at each distance, eV."""
    return np.array(
        [
            float(prior(graph_from_atoms(ase.Atoms([a, b], positions=[[0, 0, 0], [0, r, 0]]), CUTOFF)).sum())
            for r in distances
        ]
    )


def pair_force(prior: ZBL, a: int, b: int, distance: float) -> float:
    """-dE/dr by autograd, eV/Å."""
    graph = graph_from_atoms(ase.Atoms([a, b], positions=[[0, 0, 0], [0, distance, 0]]), CUTOFF)
    positions = graph.positions.clone().requires_grad_()
    (slope,) = torch.autograd.grad(prior(graph.replace(positions=positions)).sum(), positions)
    return -float(slope[1, 1])


@pytest.mark.parametrize(
    ("x", "phi"),
    # the four terms of Ziegler, Biersack and Littmark, added up by hand
    [(0.0, 0.99997 + 0.0001), (1.0, 0.41644), (5.0, 0.05224)],
)
def test_the_screening_is_the_universal_one(x: float, phi: float) -> None:
    prior = ZBL(ZBLConfig(reach=1e6))  # the switch out of the way
    a = 0.8854 * 0.529177210903 / (2 * 14**0.23)  # 0.1277 Å for silicon
    r = max(x, 1e-6) * a
    coulomb = 14 * 14 * 14.399645478 / r
    assert pair_energy(prior, 14, 14, [r])[0] / coulomb == pytest.approx(phi, abs=2e-4)


def test_silicon_at_half_an_angstrom_is_worth_what_the_book_says() -> None:
    x = 0.5 / (0.8854 * 0.529177210903 / (2 * 14**0.23))
    phi = 0.1818 * math.exp(-3.2 * x) + 0.5099 * math.exp(-0.9423 * x)
    phi += 0.2802 * math.exp(-0.4029 * x) + 0.02817 * math.exp(-0.2016 * x)
    assert pair_energy(ZBL(ZBLConfig(reach=1e4)), 14, 14, [0.5])[0] == pytest.approx(
        196 * 14.399645478 / 0.5 * phi, rel=1e-9
    )


def test_different_elements_share_one_pair_energy_evenly() -> None:
    energies = ZBL()(graph_from_atoms(ase.Atoms("SiO", positions=[[0, 0, 0], [0, 0.7, 0]]), CUTOFF))
    assert energies[0] == energies[1] > 0


def test_nothing_is_left_beyond_the_reach() -> None:
    outer = 0.7 * 2 * float(covalent_radius(14))
    assert outer == pytest.approx(1.554)
    assert (pair_energy(ZBL(), 14, 14, [outer, outer + 1e-9, 2.0, 2.35, 6.0]) == 0.0).all()
    assert pair_energy(ZBL(), 14, 14, [outer - 0.05])[0] > 0.0
    silicon = graph_from_atoms(bulk("Si", cubic=True), CUTOFF)
    assert not ZBL()(silicon).any(), "bonds are the network's"


def test_a_lone_atom_has_none() -> None:
    energies = ZBL()(graph_from_atoms(ase.Atoms("Si"), CUTOFF))
    assert energies.tolist() == [0.0]
    assert energies.dtype == torch.float64


def test_repulsion_falls_all_the_way_to_the_reach() -> None:
    energy = pair_energy(ZBL(), 14, 14, np.linspace(0.05, 1.56, 100).tolist())
    assert (np.diff(energy[:-1]) < 0).all()
    assert energy[0] > 1e4


def test_energy_and_two_derivatives_fade_at_the_reach() -> None:
    outer = 0.7 * 2 * float(covalent_radius(14))
    for power, step in ((1, 1e-2), (1, 1e-3)):
        inside = pair_energy(ZBL(), 14, 14, [outer - step])[0]
        assert inside / step**2 < 100 * step**power  # vanishes faster than the square of the distance
    forces = [pair_force(ZBL(), 14, 14, outer + s) for s in (-2e-4, -1e-4, 1e-4)]
    assert abs(forces[1]) < 1e-4
    assert abs(forces[0] - 2 * forces[1] + forces[2]) < 1e-4
    assert forces[2] == 0.0


@pytest.mark.parametrize("distance", [0.3, 0.8, 1.2, 1.5])
def test_forces_are_derivatives(distance: float) -> None:
    step = 1e-4
    e = pair_energy(ZBL(), 14, 8, [distance + k * step for k in (-2, -1, 1, 2)])
    slope = (e[0] - 8 * e[1] + 8 * e[2] - e[3]) / (12 * step)
    assert pair_force(ZBL(), 14, 8, distance) == pytest.approx(-slope, rel=1e-7, abs=1e-8)


def test_the_prior_is_rebuilt_from_its_configuration() -> None:
    prior = ZBL(ZBLConfig(reach=0.9))
    again = ZBL(ZBLConfig.parse(prior.config.model_dump()))
    assert (pair_energy(again, 14, 14, [1.0, 1.8]) == pair_energy(prior, 14, 14, [1.0, 1.8])).all()
    assert not prior.state_dict(), "nothing to be stored but the configuration"


def test_a_wall_is_added_for_new_pairs_only() -> None:
    known = ZBL(ZBLConfig(closest={"H-O": 0.9, "Si-Si": 2.0}))
    taught = known.taught({"O-H": 0.7, "Mo-Mo": 1.9})
    assert taught.config.closest == {"H-O": 0.9, "Si-Si": 2.0, "Mo-Mo": 1.9}
    assert known.taught({"O-H": 0.7}) is known
    assert ZBL().taught({"Mo-Mo": 1.9}).config.closest is None, "one that never asked for it"
    z = torch.tensor([42])
    assert float(taught.outer(z, z)) == pytest.approx(1.25 * 1.9)


def test_soft_cores_get_a_wall_that_hard_ones_have() -> None:
    closest = {"H-H": 1.34, "H-O": 0.885, "Si-Si": 1.9}
    plain, walled = ZBL(ZBLConfig(closest=closest)), ZBL(ZBLConfig(closest=closest, least=3.0))
    pairs = {"H-H": (1, 1), "H-O": (1, 8), "Si-Si": (14, 14)}
    for name, (a, b) in pairs.items():
        d = closest[name]
        before, after = (pair_energy(prior, a, b, [0.8 * d])[0] for prior in (plain, walled))
        assert after == pytest.approx(max(before, 3.0), rel=1e-9)
        grid = np.linspace(0.1, 1.24, 60) * d
        energies = pair_energy(walled, a, b, list(grid))
        assert (np.diff(energies) < 0.0).all(), name
        assert pair_force(walled, a, b, 0.9 * d) > 0.0
        assert float(walled.nearest(torch.tensor([a]), torch.tensor([b]), after)[0]) == pytest.approx(0.8 * d)
    unknown = [pair_energy(prior, 6, 6, [0.8])[0] for prior in (plain, walled)]
    assert unknown[0] == unknown[1]
    assert ZBL(ZBLConfig(closest=closest, beyond=0.5, least=3.0)).bumps.isfinite().all()
