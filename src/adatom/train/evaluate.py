"""Errors of a potential on labelled structures, and the predictions they come from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from adatom.data.dataset import Budget, Dataset, batches
from adatom.errors import MemoryLimitError
from adatom.graph import Graph, Results
from adatom.memory import ran_out
from adatom.potential import Potential
from adatom.train.knowledge import check_structures
from adatom.train.loss import LossConfig, Weights, counted, terms, total
from adatom.units import EV_PER_A3_IN_GPA


class Predictions(NamedTuple):
    """Labels and predictions of a data set, structure after structure; NaN where there is no label."""

    names: np.ndarray  # (S,)
    config_types: np.ndarray  # (S,)
    n_atoms: np.ndarray  # (S,)
    numbers: np.ndarray  # (N,)
    label: Results
    predicted: Results

    def save(self, path: Path) -> None:
        """Write as NumPy archive, the field names those of the report."""
        arrays = {name: getattr(self, name) for name in ("names", "config_types", "n_atoms", "numbers")}
        for name in Results._fields:
            arrays[f"{name}_ref"] = getattr(self.label, name).numpy()
            arrays[name] = getattr(self.predicted, name).numpy()
        np.savez_compressed(path, **arrays)

    def of(self, indices: np.ndarray) -> Predictions:
        """Those of some structures."""
        ends = np.cumsum(self.n_atoms)
        atoms = [np.arange(ends[k] - self.n_atoms[k], ends[k]) for k in indices]
        rows = np.concatenate([*atoms, np.zeros(0, dtype=np.int64)]).astype(np.int64)

        def part(results: Results) -> Results:
            return Results(results.energy[indices], results.forces[rows], results.stress[indices])

        return Predictions(
            self.names[indices],
            self.config_types[indices],
            self.n_atoms[indices],
            self.numbers[rows],
            part(self.label),
            part(self.predicted),
        )

    def errors(self) -> dict[str, float]:
        """RMSE and MAE: energy in meV/atom, force components in meV/Å, stress components in GPa; NaN without labels."""
        owner = torch.repeat_interleave(torch.arange(len(self.n_atoms)), torch.from_numpy(self.n_atoms))
        return _named(_errors(owner, self.predicted, self.label))


class Measured(NamedTuple):
    """Sums over a data set, or over one process's share of it: errors and loss follow from those of all."""

    errors_of: Tensor  # (3, 3)  energy per atom, forces, stress: squares, absolute values, number
    terms: Tensor  # (3,)  of the loss
    counts: Tensor  # (3,)  labels

    def of_all(self, add: Callable[[Tensor], Tensor]) -> Measured:
        """With the sums of all processes."""
        flat = add(torch.cat([t.reshape(-1) for t in self]))
        return Measured(flat[:9].view(3, 3), flat[9:12], flat[12:])

    def loss(self, weights: Weights) -> float:
        """The loss over the whole set."""
        return float(total(weights, self.terms, self.counts))

    def errors(self) -> dict[str, float]:
        """As :meth:`Predictions.errors`."""
        return _named(self.errors_of)


def measure(
    potential: Potential,
    dataset: Dataset,
    budget: Budget,
    device: torch.device | str = "cpu",
    loss: LossConfig | None = None,
    weights: Weights | None = None,
    share: tuple[int, int] = (0, 1),
) -> Measured:
    """Errors and loss on a data set, batch after batch, nothing kept; of every batch whose turn it is in ``share``.

    ``share`` is the number of this process and that of all of them.
    """
    loss = loss or LossConfig()
    weights = weights or Weights(1.0, 1.0, 1.0)
    found = Measured(*(torch.zeros(shape, dtype=torch.float64, device=device) for shape in ((3, 3), 3, 3)))
    was_training = potential.training
    potential.eval()
    for graph, label, predicted in _answers(potential, dataset, budget, device, share):
        found.errors_of.add_(_errors(graph.owner, predicted, label))
        found.terms.add_(terms(loss, weights, graph, predicted, label))
        found.counts.add_(counted(label))
    potential.train(was_training)
    return found


def _answers(
    potential: Potential, dataset: Dataset, budget: Budget, device: torch.device | str, share: tuple[int, int] = (0, 1)
) -> Iterator[tuple[Graph, Results, Results]]:
    """Graph, labels and predictions, batch after batch in order; where memory runs out, in halves from there on."""
    plan, most = batches(dataset, budget, seed=0, epoch=0, shuffle=False), math.inf
    waiting = list(plan[share[0] :: share[1]])[::-1]
    while waiting:
        indices = waiting.pop()
        atoms, half = int(dataset.atoms[indices].sum()), len(indices) // 2
        if atoms <= most or not half:
            try:
                graph, label = dataset.batch(indices)
                graph, label = graph.to(device), Results(*(t.to(device) for t in label))
                predicted = potential(graph, forces=True, stress=bool(torch.isfinite(label.stress).any()))
            except (RuntimeError, MemoryError, MemoryLimitError) as error:
                if not half or not ran_out(error):
                    raise
                most = atoms // 2
            else:
                yield graph, label, Results(*(t.detach() for t in predicted))
                continue
        waiting += [indices[half:], indices[:half]]


def _errors(owner: Tensor, predicted: Results, label: Results) -> Tensor:
    """(3, 3) squares, absolute values and number of the errors of energy per atom, forces and stress."""
    atoms = torch.bincount(owner, minlength=label.energy.shape[0])
    rows = []
    per = (atoms, torch.ones_like(atoms[:1]), torch.ones_like(atoms[:1]))
    for found, wanted, size in zip(predicted, label, per, strict=True):
        labelled = torch.isfinite(wanted)  # not of the difference: a prediction that is no number is not left out
        known = ((found - wanted) / size)[labelled]
        rows.append(torch.stack([(known**2).sum(), known.abs().sum(), known.new_tensor(float(known.numel()))]))
    return torch.stack(rows)


def _named(sums: Tensor) -> dict[str, float]:
    """RMSE and MAE by name: energy in meV/atom, force components in meV/Å, stress in GPa; NaN without labels."""
    errors = {}
    units = (("energy", "meV_per_atom", 1e3), ("forces", "meV_per_A", 1e3), ("stress", "GPa", EV_PER_A3_IN_GPA))
    for (name, unit, factor), (squares, sizes, number) in zip(units, sums.tolist(), strict=True):
        errors[f"{name}_rmse_{unit}"] = factor * math.sqrt(squares / number) if number else math.nan
        errors[f"{name}_mae_{unit}"] = factor * sizes / number if number else math.nan
    return errors


def errors_table(metrics: dict[str, Any], title: str = "Errors") -> Table:
    """Errors per set, for the terminal."""
    table = Table(title=title)
    columns = {
        "energy_rmse_meV_per_atom": "E rmse\nmeV/atom", "energy_mae_meV_per_atom": "E mae\nmeV/atom",
        "forces_rmse_meV_per_A": "F rmse\nmeV/Å", "forces_mae_meV_per_A": "F mae\nmeV/Å",
        "stress_rmse_GPa": "stress rmse\nGPa", "stress_mae_GPa": "stress mae\nGPa",
    }  # fmt: skip
    table.add_column("set")
    for heading in columns.values():
        table.add_column(heading, justify="right")
    for part in ("train", "valid", "test"):
        if part in metrics:
            values = [metrics[part].get(key) for key in columns]
            table.add_row(part, *("–" if v is None else f"{v:.2f}" for v in values))
    return table


def predict(potential: Potential, dataset: Dataset, budget: Budget, device: torch.device | str = "cpu") -> Predictions:
    """Run a potential over a data set, each structure with the labels it has.

    UnknownElementError or ChargeError names the first structure that the potential was not made for, before any is
    computed.
    """
    check_structures(potential, dataset.structures, dataset.sources)
    was_training = potential.training
    potential.eval()
    parts: list[tuple[Results, Results]] = []
    numbers: list[Tensor] = []
    for graph, label, predicted in _answers(potential, dataset, budget, device):  # in the order of the data set
        parts.append((Results(*(t.cpu() for t in label)), Results(*(t.cpu() for t in predicted))))
        numbers.append(graph.numbers.cpu())
    potential.train(was_training)
    label, predicted = (Results(*(torch.cat(t) for t in zip(*side, strict=True))) for side in zip(*parts, strict=True))
    return Predictions(
        names=np.array(list(dataset.names)),
        config_types=np.array(list(dataset.config_types)),
        n_atoms=dataset.atoms,
        numbers=torch.cat(numbers).numpy(),
        label=label,
        predicted=predicted,
    )
