"""Low-rank changes and new rows: nothing at first, trained alone, and gone once they are merged."""

from __future__ import annotations

import copy

import pytest
import torch
from ase.build import bulk, molecule
from torch import nn

from adatom import compile as compiling
from adatom.compile import Compiler
from adatom.graph import collate
from adatom.models import MODELS, Model
from adatom.neighbors import graph_from_atoms
from adatom.nn import lora
from adatom.nn.equivariant import DegreeLinear, Linear
from adatom.potential import Potential
from narrow import NARROW

FORMS = [(architecture, form) for architecture, forms in NARROW.items() for form in forms]
every_form = pytest.mark.parametrize(("architecture", "form"), FORMS)


def network(architecture: str, form: str, **given) -> Model:
    torch.manual_seed(1)
    facts = {"elements": (6, 8, 14), "mean_neighbours": 12.0, "charges": (0.0, 0.0)}
    values = {"architecture": architecture, "form": form, **facts, **NARROW[architecture][form], **given}
    return MODELS[architecture](MODELS[architecture].Config.parse(values)).double()


def graph(cutoff: float):
    crystal, ester = bulk("Si", cubic=True), molecule("CO2")
    crystal.rattle(0.1, seed=2)
    ester.rattle(0.1, seed=3)
    return collate([graph_from_atoms(atoms, cutoff) for atoms in (crystal, ester)])


def said(model: Model, structures) -> torch.Tensor:
    """What a network says of each atom: its energy and features, for some pool their energies."""
    output = model(structures)
    return (output.energy + output.features.sum(1)).detach()


def adapted(model: Model, rank: int) -> list[str]:
    """Every matrix that is worth it, changed."""
    names = [n for n, w in model.named_parameters() if n not in model.tables and lora.worthwhile(w, rank)]
    for name in names:
        lora.adapt(model, name, rank, 2.0)
    return names


def disturb(model: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "parametrizations" in name:
                parameter += 0.3 * torch.randn_like(parameter)


@every_form
def test_a_change_is_nothing_at_first_and_once_merged_the_weights_say_the_same(architecture: str, form: str) -> None:
    model = network(architecture, form)
    structures = graph(model.cutoff)
    plain = said(model, structures)
    before = [name for name, _ in model.named_parameters()]
    changed = adapted(model, 2)
    assert len(changed) >= 4
    assert torch.equal(said(model, structures), plain), "B is zero: not a bit may differ"
    disturb(model)
    changed_to = said(model, structures)
    assert float((changed_to - plain).abs().max()) > 1e-3
    lora.merge(model)
    assert sorted(name for name, _ in model.named_parameters()) == sorted(before)
    assert not any("parametrizations" in name for name, _ in model.named_modules())
    torch.testing.assert_close(said(model, structures), changed_to, rtol=1e-12, atol=1e-12)


def test_gradients_reach_the_changes_and_not_the_weights() -> None:
    model = network("nemp", "default")
    changed = adapted(model, 2)
    model(graph(model.cutoff)).energy.sum().backward()
    for name in changed:
        module, attribute = lora.place(model, name)
        change = module.parametrizations[attribute]
        assert change.original.grad is None
        assert not change.original.requires_grad
        assert change[0].b.grad.abs().max() > 0


@pytest.mark.parametrize(
    "layer", [Linear(12, 7), DegreeLinear(2, 12, 7), nn.Linear(12, 7)], ids=["Linear", "DegreeLinear", "nn.Linear"]
)
def test_a_change_has_the_rank_it_was_given(layer: nn.Module) -> None:
    layer = copy.deepcopy(layer).double()
    weight = layer.weight.detach().clone()
    lora.adapt(layer, "weight", 2, 4.0)
    disturb(layer)
    difference = layer.weight.detach() - weight
    ranks = torch.linalg.matrix_rank(difference, tol=1e-9)
    assert bool((ranks == 2).all())


def test_a_low_rank_change_is_worthwhile_where_it_has_fewer_numbers_than_the_matrix() -> None:
    assert lora.worthwhile(torch.zeros(32, 32), 8)
    assert not lora.worthwhile(torch.zeros(32, 32), 16)
    assert not lora.worthwhile(torch.zeros(32, 1), 1)
    assert not lora.worthwhile(torch.zeros(32), 1)


@every_form
def test_new_rows_are_trained_where_the_table_is_not(architecture: str, form: str) -> None:
    model = network(architecture, form)
    structures = graph(model.cutoff)
    plain = said(model, structures)
    row = model.table_elements.index(14)
    for name in model.tables:
        dict(model.named_parameters())[name].requires_grad_(False)
        lora.set_apart(model, name, [row])
    assert torch.equal(said(model, structures), plain)
    before = {name: model.get_parameter(_original(name)).detach().clone() for name in model.tables}
    disturb(model)
    changed_to = said(model, structures)
    owner = structures.owner
    assert float((changed_to - plain)[owner == 0].abs().max()) > 1e-4, "silicon has changed"
    if form == "default":
        assert torch.equal(changed_to[owner == 1], plain[owner == 1]), "molecules without silicon have not"
    lora.merge(model)
    torch.testing.assert_close(said(model, structures), changed_to, rtol=1e-12, atol=1e-12)
    for name, old in before.items():
        new = dict(model.named_parameters())[name].detach()
        others = [k for k in range(len(old)) if k != row]
        assert torch.equal(new[others], old[others])


def _original(name: str) -> str:
    path, _, attribute = name.rpartition(".")
    return f"{path}.parametrizations.{attribute}.original"


def test_the_name_of_a_change_tells_the_weight_it_belongs_to() -> None:
    assert lora.original("body.layers.0.send.parametrizations.weight.0.a") == "body.layers.0.send.weight"
    assert lora.original("body.layers.0.send.weight") == "body.layers.0.send.weight"


def test_changed_weights_go_through_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training step, checked against float64 with its gradients, as ``adatom.compile`` does before it is used."""
    monkeypatch.setattr(compiling, "BACKEND", {"backend": "aot_eager"})
    model = network("nemp", "default", l_max=1).float()
    potential = Potential(model, {6: 0.0, 8: 0.0, 14: 0.0})
    adapted(model, 2)
    lora.set_apart(model, "body.embedding.weight", [14])
    disturb(model)
    potential.runner = Compiler(0.0, training=True)
    potential.train()
    results = potential(graph(model.cutoff), forces=True)
    assert potential.runner.dropped == ""
    assert len(potential.runner.programs) == 1
    results.forces.square().sum().backward()
    slopes = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert all(slope is not None for name, slope in slopes.items() if name.endswith(".b"))
