"""Networks that grow: what they knew they know bit by bit, and what is new begins as something that makes sense."""

from __future__ import annotations

import pytest
import torch
from ase.build import bulk, molecule

from adatom.elements import number
from adatom.errors import ConfigError, UnknownElementError
from adatom.graph import Graph, collate
from adatom.models import MODELS, Model
from adatom.models.grow import kin, of_source, row, with_elements, with_source, with_state
from adatom.neighbors import graph_from_atoms
from adatom.potential import Potential
from narrow import NARROW
from toy import Toy, ToyConfig

FORMS = [(architecture, form) for architecture, forms in NARROW.items() for form in forms]
every_form = pytest.mark.parametrize(("architecture", "form"), FORMS)
KNOWN = (6, 8, 14)


def network(architecture: str, form: str, **given) -> Model:
    torch.manual_seed(1)
    values = {"architecture": architecture, "form": form, "elements": KNOWN, "mean_neighbours": 12.0}
    values |= NARROW[architecture][form] | given
    return MODELS[architecture](MODELS[architecture].Config.parse(values)).double()


def graph(cutoff: float, source: int = 0) -> Graph:
    crystal, gas = bulk("Si", cubic=True), molecule("CO2")
    crystal.rattle(0.1, seed=2)
    made = collate([graph_from_atoms(atoms, cutoff) for atoms in (crystal, gas)])
    return made.replace(source=torch.full_like(made.source, source))


def said(model: Model, structures: Graph) -> torch.Tensor:
    """What a network says of each atom: its energy and features, for some pool their energies."""
    output = model(structures)
    return (output.energy + output.features.sum(1)).detach()


@every_form
def test_a_grown_network_says_the_same_of_what_it_knew(architecture: str, form: str) -> None:
    old = network(architecture, form)
    structures = graph(old.cutoff)
    grown = with_elements(old, [14, 42, 22], KNOWN)
    if (architecture, form) == ("nemp", "paper"):  # a product with more rows rounds otherwise
        torch.testing.assert_close(said(grown, structures), said(old, structures), rtol=1e-13, atol=1e-13)
    else:
        assert torch.equal(said(grown, structures), said(old, structures))
    assert grown.config.elements == (*KNOWN, 42, 22)
    assert old.config.elements == KNOWN, "the old one is left as it is"


@every_form
def test_the_row_of_a_new_element_is_that_of_its_kin_and_a_tenth_of_noise(architecture: str, form: str) -> None:
    old = network(architecture, form)
    grown, again = (with_elements(old, [22, 40], KNOWN) for _ in range(2))
    before, after = old.state_dict(), grown.state_dict()
    for name in old.tables:
        like = before[name][row(old, kin(22, KNOWN))]
        new, other = after[name][row(grown, 22)], after[name][row(grown, 40)]
        size = like.square().mean().sqrt()
        if like.ndim and like.numel() > 4 and size > 0:
            assert 0.05 < float((new - like).square().mean().sqrt() / size) < 0.2
            assert not torch.equal(new, other)
        assert torch.equal(again.state_dict()[name], after[name]), "growing draws nothing from the global generator"
    titanium = bulk("Ti", "fcc", a=4.1, cubic=True)
    assert bool(torch.isfinite(grown(graph_from_atoms(titanium, grown.cutoff)).energy).all())


@pytest.mark.parametrize(
    ("new", "known", "like"),
    [
        ("Mo", "W Si O", "W"), ("Ge", "Si O", "Si"), ("Cl", "H C N O F", "F"), ("Li", "Na Cl", "Na"),
        ("La", "Y O", "Y"), ("Ce", "La O", "La"), ("Mo", "Si", "Si"), ("He", "H Ne", "Ne"),
    ],
)  # fmt: skip
def test_kin_stand_together_in_the_periodic_table(new: str, known: str, like: str) -> None:
    assert kin(number(new), [number(name) for name in known.split()]) == number(like)


@every_form
def test_every_source_of_a_network_is_a_network_of_its_own(architecture: str, form: str) -> None:
    old = network(architecture, form)
    both = with_source(old)
    assert both.config.sources == 2
    for source in (0, 1):
        assert torch.equal(said(both, graph(old.cutoff, source)), said(old, graph(old.cutoff))), "so it begins"
    with torch.no_grad():
        count = len(old.table_elements)
        for name in both.tables:
            rows = dict(both.named_parameters())[name][count:]
            rows += 0.1 * torch.randn_like(rows)
    second = said(both, graph(old.cutoff, 1))
    assert torch.equal(said(both, graph(old.cutoff, 0)), said(old, graph(old.cutoff)))
    assert float((second - said(old, graph(old.cutoff))).abs().max()) > 1e-4
    for source, wanted in ((0, said(old, graph(old.cutoff))), (1, second)):
        alone = of_source(both, source)
        assert alone.config.sources == 1
        torch.testing.assert_close(said(alone, graph(old.cutoff)), wanted, rtol=1e-13, atol=1e-13)


def test_structures_of_two_sources_stand_in_one_batch() -> None:
    both = with_source(network("nemp", "default"))
    with torch.no_grad():
        both.get_parameter("body.embedding.weight")[119:] += 0.1
    parts = [graph(both.cutoff, 0), graph(both.cutoff, 1)]
    joined = both(collate(parts)).energy
    torch.testing.assert_close(joined, torch.cat([both(part).energy for part in parts]), rtol=1e-12, atol=1e-12)


def test_both_grow_in_one_network() -> None:
    grown = with_elements(with_source(network("nemp", "paper")), [42], KNOWN)
    assert grown.state_dict()["body.scale"].shape == (8,)
    crystal = graph_from_atoms(bulk("Mo", cubic=True), grown.cutoff)
    for source in (0, 1):
        assert bool(torch.isfinite(grown(crystal.replace(source=torch.tensor([source]))).energy).all())


def test_a_network_learns_to_see_charges_and_is_what_it_was_for_neutral_singlets() -> None:
    old = network("allscaip", "default")
    structures = graph(old.cutoff)
    grown = with_state(old, [-1.0, 0.0], [2.0])
    assert (grown.config.charges, grown.config.spins) == ((-1.0, 0.0), (1.0, 2.0))
    assert torch.equal(grown(structures).energy, old(structures).energy)
    charged = structures.replace(charge=torch.tensor([-1.0, 0.0], dtype=torch.float64))
    assert torch.equal(grown(charged).energy, old(structures).energy), "it knows nothing of them yet"
    with torch.no_grad():
        grown.get_parameter("body.state.out.weight").add_(1.0)
    assert not torch.equal(grown(charged).energy, old(structures).energy), "and can learn"
    wider = with_state(grown, [2.0], [])
    assert wider.config.charges == (-1.0, 2.0)
    assert torch.equal(wider(charged).energy, grown(charged).energy)


def test_a_network_without_rows_of_elements_cannot_grow() -> None:
    with pytest.raises(UnknownElementError, match=r"Toy cannot learn of Mo.*"):
        with_elements(Toy(), [42], [14])
    with pytest.raises(ConfigError, match="cannot hold labels of several sources"):
        with_source(Toy())
    with pytest.raises(ConfigError, match="cannot tell sources of labels apart"):
        Potential(Toy(ToyConfig(sources=2)), {"a": {14: 0.0}, "b": {14: 0.0}})
    plain = Toy()
    assert with_elements(plain, [14], [14]) is plain
