"""The one loss of all architectures: the difference between two Results."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from adatom.config import Config
from adatom.graph import Graph, Results

Kind = Literal["l1", "l2", "huber"]


class LateWeights(Config):
    """Weights of the last part of training; energies gain from a late, strong weight once the forces are right."""

    start: float = Field(0.75, ge=0.0, le=1.0, description="fraction of the training budget at which they take over")
    energy: NonNegativeFloat = 300.0
    forces: NonNegativeFloat = 10.0
    stress: NonNegativeFloat = 1000.0


class LossConfig(Config):
    """Weights and shapes of the terms.

    ``huber_*`` are the errors (eV/atom, eV/Å, eV/Å^3) at which a Huber loss turns from a parabola into a line.
    ``allow_missing`` names labels that some structures may lack: they are left out of the loss there, and counted in
    the data table.
    """

    kind: Kind = "huber"
    energy: NonNegativeFloat = 30.0
    forces: NonNegativeFloat = 10.0
    stress: NonNegativeFloat = 1000.0
    huber_energy: PositiveFloat = 0.02
    huber_forces: PositiveFloat = 0.2
    huber_stress: PositiveFloat = 0.02
    late: LateWeights | None = LateWeights()
    allow_missing: tuple[Literal["energy", "forces", "stress"], ...] = ()

    def weights(self, progress: float) -> Weights:
        """Weights in force at a fraction of the training budget."""
        if self.late is not None and progress >= self.late.start:
            return Weights(self.late.energy, self.late.forces, self.late.stress)
        return Weights(self.energy, self.forces, self.stress)

    def needed(self) -> set[str]:
        """Labels that every structure must carry."""
        stages = [self.weights(0.0), self.weights(1.0)]
        used = {name for name in Weights._fields for stage in stages if stage._asdict()[name] > 0}
        return used - set(self.allow_missing)


class Weights(NamedTuple):
    """Weight of each term."""

    energy: float
    forces: float
    stress: float


def counted(label: Results) -> Tensor:
    """How many energies, force components and stress components are labelled, (3,) float64."""
    return torch.stack([torch.isfinite(part).sum() for part in label]).to(torch.float64)


def terms(config: LossConfig, weights: Weights, graph: Graph, predicted: Results, label: Results) -> Tensor:
    """Sums of the errors of energies per atom, force components and stress components, (3,), each by its shape.

    Labels that are NaN do not count, and terms of weight zero are not looked at.
    """
    atoms = torch.bincount(graph.owner, minlength=graph.cell.shape[0]).to(predicted.energy.dtype)
    # energies are never left out, whatever their weight: a bias that only they see has a gradient at every step
    energy = _sum(config.kind, predicted.energy / atoms, label.energy / atoms, config.huber_energy)
    none = torch.zeros_like(energy)
    return torch.stack(
        [
            energy,
            _sum(config.kind, predicted.forces, label.forces, config.huber_forces) if weights.forces > 0 else none,
            _sum(config.kind, predicted.stress, label.stress, config.huber_stress) if weights.stress > 0 else none,
        ]
    )


def total(weights: Weights, sums: Tensor, counts: Tensor) -> Tensor:
    """L = w_E <d(E/n)> + w_F <dF> + w_S <d sigma> from the sums of :func:`terms` and the counts of :func:`counted`.

    Means over structures, force components and stress components; a term without any label is zero. A batch may be
    computed in parts, by one process or by many: with the counts of the whole batch the losses of its parts add up,
    and so do their gradients.
    """
    return (sums * sums.new_tensor(weights) / counts.to(sums).clamp(min=1.0)).sum()


def loss(config: LossConfig, weights: Weights, graph: Graph, predicted: Results, label: Results) -> Tensor:
    """The loss of a whole batch, see :func:`total`."""
    return total(weights, terms(config, weights, graph, predicted, label), counted(label))


def _sum(kind: Kind, predicted: Tensor, label: Tensor, delta: float) -> Tensor:
    known = torch.isfinite(label)  # not of the difference: a prediction that is no number must not pass unseen
    difference = predicted - label
    if not known.all():
        difference = difference[known]
    if kind == "l2":
        return (difference * difference).sum()
    size = difference.abs()
    if kind == "l1":
        return size.sum()
    return torch.where(size < delta, size * size, delta * (2.0 * size - delta)).sum()
