"""Direct heads of every form that has both: what the swap for the gradient rests on, and what the heads promise."""

from __future__ import annotations

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from adatom.graph import Results, collate
from adatom.models import MODELS, forms, read_model
from adatom.models.base import Facts, ModelConfig
from adatom.neighbors import graph_from_atoms
from adatom.potential import Derivatives, Potential
from narrow import NARROW

REFERENCES = {1: -13.0, 8: -430.0, 14: -160.0}
FACTS = Facts((1, 8, 14), 12.0)


def config(architecture: str, form: str, derivatives: Derivatives) -> ModelConfig:
    values = {"architecture": architecture, "form": form, "derivatives": derivatives}
    return read_model(values | NARROW[architecture][form]).completed(FACTS)


ONE_WAY = {("mlanet", "paper"), ("nemp", "paper")}  # heads alone; the gradient alone
BOTH = [(a, f) for a in MODELS for f in forms(a) if (a, f) not in ONE_WAY]
both = pytest.mark.parametrize(("architecture", "form"), BOTH, ids=["-".join(pair) for pair in BOTH])


def made(architecture: str, form: str, derivatives: Derivatives) -> Potential:
    torch.manual_seed(3)
    settings = config(architecture, form, derivatives)
    network = MODELS[architecture](settings).double()
    return Potential(network, REFERENCES, scale=0.7, derivatives=derivatives).eval()


def structures() -> list[ase.Atoms]:
    crystal, water = bulk("Si", cubic=True), molecule("H2O")
    crystal.rattle(0.1, seed=0)
    return [crystal, water, ase.Atoms("Si")]


def ask(potential: Potential, frames: list[ase.Atoms]) -> Results:
    graph = collate([graph_from_atoms(atoms, potential.cutoff) for atoms in frames])
    return Results(*(t.detach() for t in potential(graph, stress=True)))


@both
def test_the_weights_of_the_gradient_are_a_part_of_those_with_heads(architecture: str, form: str) -> None:
    gradient, direct = made(architecture, form, "gradient").network, made(architecture, form, "direct").network
    shared, all_ = gradient.state_dict(), direct.state_dict()
    assert {name: t.shape for name, t in shared.items()} == {name: all_[name].shape for name in shared}
    assert len(all_) > len(shared)
    assert gradient.claims == direct.claims._replace(conservative=True)
    assert direct.claims.conservative is False


@both
def test_the_energy_does_not_know_of_the_heads(architecture: str, form: str) -> None:
    gradient, direct = made(architecture, form, "gradient"), made(architecture, form, "direct")
    weights = direct.network.state_dict()
    gradient.network.load_state_dict({name: weights[name] for name in gradient.network.state_dict()})
    ours, theirs = ask(gradient, structures()), ask(direct, structures())
    torch.testing.assert_close(ours.energy, theirs.energy, rtol=0, atol=1e-10)
    assert (ours.forces - theirs.forces).abs().max() > 1e-4, "heads are not derivatives"


@both
def test_heads_speak_in_the_scale_of_the_potential(architecture: str, form: str) -> None:
    one, two = made(architecture, form, "direct"), made(architecture, form, "direct")
    two.scale.mul_(2.0)
    a, b = ask(one, structures()), ask(two, structures())
    torch.testing.assert_close(b.forces, 2 * a.forces)
    torch.testing.assert_close(b.stress[0], 2 * a.stress[0], equal_nan=True)
    assert a.forces.abs().max() > 1e-3
    if (architecture, form) == ("allscaip", "paper"):
        assert a.stress.isnan().all(), "published without a head for stress"
    else:
        assert a.stress[0].abs().max() > 1e-6
    assert a.stress[1:].isnan().all(), "no volume, no stress"


@pytest.mark.parametrize(("architecture", "form"), [pair for pair in BOTH if pair[1] == "default"])
def test_default_heads_are_equivariant_local_and_fade(architecture: str, form: str) -> None:
    potential = made(architecture, form, "direct")
    _, forces, stress = ask(potential, structures())
    assert forces[-1].abs().max() == 0.0, "a lone atom"
    double = ask(potential, [structures()[0].repeat((2, 1, 1))])
    torch.testing.assert_close(double.forces, forces[:8].repeat(2, 1), rtol=0, atol=1e-9)
    torch.testing.assert_close(double.stress[0], stress[0], rtol=0, atol=1e-10)
    turned = structures()[1]
    turned.rotate(40, (1, 2, 3))
    matrix = np.linalg.lstsq(structures()[1].positions, turned.positions, rcond=None)[0]  # planar: exact in its plane
    rotated = ask(potential, [turned])
    torch.testing.assert_close(rotated.forces, forces[8:11] @ torch.from_numpy(matrix), rtol=0, atol=1e-9)
    outside = ask(potential, [ase.Atoms("SiO", positions=[[0, 0, 0], [potential.cutoff - 1e-5, 0, 0]])])
    assert outside.forces.abs().max() < 1e-6


@pytest.mark.parametrize("architecture", MODELS)
def test_heads_of_a_network_of_degree_one_read_what_there_is(architecture: str) -> None:
    values = {"architecture": architecture, "l_max": 1, "derivatives": "direct"}
    settings = read_model(NARROW[architecture].get("default", {}) | values).completed(FACTS)
    potential = Potential(MODELS[architecture](settings), REFERENCES, derivatives="direct").eval()
    energy, forces, stress = ask(potential, structures())
    assert energy.isfinite().all()
    assert forces.isfinite().all()
    assert stress[0].isfinite().all()
