"""The loss against values worked out by hand; what is not labelled does not count, and spoils nothing."""

from __future__ import annotations

import math

import ase
import pytest
import torch
from ase.build import bulk
from torch import Tensor

from adatom.errors import ConfigError
from adatom.graph import Graph, Results, collate
from adatom.neighbors import graph_from_atoms
from adatom.train.loss import LateWeights, LossConfig, Weights, counted, loss, terms, total
from toy import toy_potential

NAN = float("nan")
ONLY_ENERGY, ONLY_FORCES, ONLY_STRESS = Weights(2.0, 0.0, 0.0), Weights(0.0, 3.0, 0.0), Weights(0.0, 0.0, 5.0)


def two_structures() -> Graph:
    """A dimer and a lone atom."""
    dimer = ase.Atoms("Cu2", positions=[[0, 0, 0], [2.2, 0, 0]])
    return collate([graph_from_atoms(dimer, 5.0), graph_from_atoms(ase.Atoms("Cu"), 5.0)])


def results(energy: list[float], force: float, stress: float) -> Results:
    """Energies of both structures; the first force and the first stress component, all others zero."""
    forces, tension = torch.zeros(3, 3, dtype=torch.float64), torch.zeros(2, 3, 3, dtype=torch.float64)
    forces[0, 0], tension[0, 0, 0] = force, stress
    return Results(torch.tensor(energy, dtype=torch.float64), forces, tension)


ZERO = results([0.0, 0.0], 0.0, 0.0)


def value(kind: str, weights: Weights, predicted: Results, label: Results = ZERO, **deltas: float) -> float:
    config = LossConfig.parse({"kind": kind, **deltas})
    return loss(config, weights, two_structures(), predicted, label).item()


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("l1", 2.0 * (0.6 / 2 + 0.1) / 2),
        ("l2", 2.0 * ((0.6 / 2) ** 2 + 0.1**2) / 2),
        ("huber", 2.0 * (2 * 0.2 * (0.3 - 0.1) + 0.1**2) / 2),  # 0.3 on the line, 0.1 on the parabola
    ],
)
def test_energy_errors_are_per_atom_and_averaged_over_structures(kind: str, wanted: float) -> None:
    predicted = results([0.6, -0.1], 0.0, 0.0)  # of two atoms, and of one
    assert value(kind, ONLY_ENERGY, predicted, huber_energy=0.2) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("kind", "wanted"), [("l1", 3.0 * 0.9 / 9), ("l2", 3.0 * 0.81 / 9), ("huber", 3.0 * 2 * 0.5 * (0.9 - 0.25) / 9)]
)
def test_force_errors_are_averaged_over_components(kind: str, wanted: float) -> None:
    assert value(kind, ONLY_FORCES, results([0, 0], -0.9, 0), huber_forces=0.5) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("kind", "wanted"), [("l1", 5.0 * 0.2 / 18), ("l2", 5.0 * 0.04 / 18), ("huber", 5.0 * 0.04 / 18)]
)
def test_stress_errors_are_averaged_over_components(kind: str, wanted: float) -> None:
    assert value(kind, ONLY_STRESS, results([0, 0], 0, 0.2), huber_stress=0.3) == pytest.approx(wanted)


def test_the_terms_add_up_with_their_weights() -> None:
    predicted = results([0.6, -0.1], -0.9, 0.2)
    parts = sum(value("l2", w, predicted) for w in (ONLY_ENERGY, ONLY_FORCES, ONLY_STRESS))
    assert value("l2", Weights(2.0, 3.0, 5.0), predicted) == pytest.approx(parts)


def test_a_huber_loss_has_neither_jump_nor_kink_at_its_width() -> None:
    def at(error: float) -> tuple[float, float]:
        predicted = results([0.0, 0.0], error, 0.0)
        predicted.forces.requires_grad_()
        total = loss(LossConfig(huber_forces=0.5), ONLY_FORCES, two_structures(), predicted, ZERO)
        (slope,) = torch.autograd.grad(total, predicted.forces)
        return total.item(), slope[0, 0].item()

    assert at(0.5 - 1e-9) == pytest.approx(at(0.5 + 1e-9), rel=1e-6)


def test_labels_that_are_missing_do_not_count() -> None:
    label = Results(
        torch.tensor([NAN, 0.0], dtype=torch.float64), ZERO.forces.clone(), torch.full_like(ZERO.stress, NAN)
    )
    label.forces[2] = NAN
    predicted = results([7.0, -0.1], -0.9, 0.2)
    assert value("l1", ONLY_ENERGY, predicted, label) == pytest.approx(2.0 * 0.1)
    assert value("l1", ONLY_FORCES, predicted, label) == pytest.approx(3.0 * 0.9 / 6)
    assert value("l1", ONLY_STRESS, predicted, label) == 0.0


def test_a_set_without_any_label_costs_nothing() -> None:
    label = Results(*(torch.full_like(t, NAN) for t in ZERO))
    assert value("huber", Weights(1.0, 1.0, 1.0), results([7.0, 7.0], 7.0, 7.0), label) == 0.0


def gradient(structures: list[ase.Atoms], stress: Tensor) -> list[Tensor]:
    """Gradient of the stress loss by the parameters of a potential."""
    potential = toy_potential().train()
    graph = collate([graph_from_atoms(atoms, potential.cutoff) for atoms in structures])
    predicted = potential(graph, stress=True)
    label = Results(torch.zeros_like(predicted.energy), torch.zeros_like(predicted.forces), stress)
    total = loss(LossConfig(kind="l2"), ONLY_STRESS, graph, predicted, label)
    return list(torch.autograd.grad(total, list(potential.parameters())))


def test_a_molecule_in_a_batch_of_crystals_leaves_the_gradient_as_it_is() -> None:
    """It has no volume, so its stress is NaN: that must not reach the weights."""
    crystal, dimer = bulk("Cu", cubic=True), ase.Atoms("Cu2", positions=[[0, 0, 0], [2.2, 0, 0]])
    label = torch.zeros(2, 3, 3, dtype=torch.float64)
    label[1] = NAN
    alone, beside = gradient([crystal], label[:1]), gradient([crystal, dimer], label)
    assert all(a.abs() > 0 for a in alone)
    for a, b in zip(alone, beside, strict=True):
        torch.testing.assert_close(a, b)


def test_late_weights_take_over_at_their_time() -> None:
    config = LossConfig(energy=1.0, late=LateWeights(start=0.6, energy=100.0, forces=2.0, stress=3.0))
    assert config.weights(0.59) == Weights(1.0, config.forces, config.stress)
    assert config.weights(0.6) == config.weights(1.0) == Weights(100.0, 2.0, 3.0)
    assert LossConfig(late=None).weights(1.0) == LossConfig().weights(0.0)


def test_a_label_is_needed_when_either_stage_weighs_it_and_it_may_not_be_missing() -> None:
    assert LossConfig().needed() == {"energy", "forces", "stress"}
    assert LossConfig(stress=0.0, late=None).needed() == {"energy", "forces"}
    assert LossConfig(stress=0.0, late=LateWeights(stress=1.0)).needed() == {"energy", "forces", "stress"}
    assert LossConfig(allow_missing=("stress",)).needed() == {"energy", "forces"}


def test_a_negative_weight_and_an_unknown_kind_are_refused() -> None:
    with pytest.raises(ConfigError, match="energy"):
        LossConfig.parse({"energy": -1.0})
    with pytest.raises(ConfigError, match="'l1', 'l2' or 'huber'"):
        LossConfig.parse({"kind": "mse"})


@pytest.mark.parametrize("kind", ["l1", "l2", "huber"])
def test_the_losses_of_parts_add_up_to_that_of_the_batch(kind: str) -> None:
    torch.manual_seed(0)
    config, weights = LossConfig.parse({"kind": kind}), Weights(2.0, 3.0, 5.0)
    atoms = [
        ase.Atoms("Cu2", positions=[[0, 0, 0], [2.2, 0, 0]]),
        ase.Atoms("Cu"),
        ase.Atoms("Cu3", [[0, 0, 2.3 * k] for k in range(3)]),
    ]
    graphs = [graph_from_atoms(a, 5.0) for a in atoms]
    found = [_drawn(graph) for graph in graphs]
    label = [_drawn(graph) for graph in graphs]
    label[1].energy[:] = NAN  # the parts hold unequal numbers of labels
    label[2].forces[0] = NAN

    def of(members: list[int], counts: Tensor | None = None) -> Tensor:
        predicted, wanted = (
            Results(*(torch.cat(t) for t in zip(*(r[k] for k in members), strict=True))) for r in (found, label)
        )
        sums = terms(config, weights, collate([graphs[k] for k in members]), predicted, wanted)
        return total(weights, sums, counted(wanted) if counts is None else counts)

    counts = counted(Results(*(torch.cat(t) for t in zip(*label, strict=True))))
    assert counts.tolist() == [2.0, 15.0, 27.0]
    assert of([0, 1, 2]).item() == pytest.approx(sum(of([k], counts).item() for k in range(3)), rel=1e-14)


def _drawn(graph: Graph) -> Results:
    return Results(
        torch.randn(1, dtype=torch.float64),
        torch.randn_like(graph.positions),
        torch.randn(1, 3, 3, dtype=torch.float64),
    )


@pytest.mark.parametrize("part", ["energy", "forces", "stress"])
def test_a_prediction_that_is_no_number_is_not_left_out(part: str) -> None:
    predicted = results([0.0, 0.0], 0.0, 0.0)
    getattr(predicted, part).view(-1)[0] = NAN
    assert math.isnan(value("huber", Weights(1.0, 1.0, 1.0), predicted))
