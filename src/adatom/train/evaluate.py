"""Errors of a potential on labelled structures, and the predictions they come from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.table import Table

from adatom.data.dataset import Budget, Dataset, batches
from adatom.graph import Results
from adatom.potential import Potential
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

    def errors(self) -> dict[str, float]:
        """RMSE and MAE: energy in meV/atom, force components in meV/Å, stress components in GPa; NaN without labels."""
        atoms = torch.from_numpy(self.n_atoms)
        differences = {
            ("energy", "meV_per_atom", 1e3): (self.predicted.energy - self.label.energy) / atoms,
            ("forces", "meV_per_A", 1e3): self.predicted.forces - self.label.forces,
            ("stress", "GPa", EV_PER_A3_IN_GPA): self.predicted.stress - self.label.stress,
        }
        errors = {}
        for (name, unit, factor), difference in differences.items():
            known = difference[torch.isfinite(difference)]
            errors[f"{name}_rmse_{unit}"] = factor * math.sqrt((known**2).mean()) if known.numel() else math.nan
            errors[f"{name}_mae_{unit}"] = factor * float(known.abs().mean()) if known.numel() else math.nan
        return errors


def errors_table(metrics: dict[str, Any]) -> Table:
    """Errors per set, for the terminal."""
    table = Table(title="Errors")
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
    for structure, source in zip(dataset.structures, dataset.sources, strict=True):
        potential.check_atoms(structure.atoms, structure.name, int(source))
    stress = any(bool(torch.isfinite(label.stress).any()) for label in dataset.labels)
    was_training = potential.training
    potential.eval()
    parts: list[tuple[Results, Results]] = []
    order: list[int] = []
    for indices in batches(dataset, budget, seed=0, epoch=0, shuffle=False):
        graph, label = dataset.batch(indices)
        predicted = potential(graph.to(device), forces=True, stress=stress)
        parts.append((label, Results(*(t.detach().cpu() for t in predicted))))
        order += indices
    potential.train(was_training)
    label, predicted = (_in_order([pair[side] for pair in parts], order, dataset) for side in (0, 1))
    return Predictions(
        names=np.array([dataset.names[i] for i in range(len(dataset))]),
        config_types=np.array([dataset.config_types[i] for i in range(len(dataset))]),
        n_atoms=np.array([g.numbers.shape[0] for g in dataset.graphs]),
        numbers=np.concatenate([g.numbers.numpy() for g in dataset.graphs]),
        label=label,
        predicted=predicted,
    )


def _in_order(parts: list[Results], order: list[int], dataset: Dataset) -> Results:
    """Concatenate batch results and bring the structures back into the order of the data set."""
    place = np.argsort(np.array(order))
    atoms = [dataset.graphs[i].numbers.shape[0] for i in order]
    forces = torch.cat([p.forces for p in parts]).split(atoms)
    return Results(
        energy=torch.cat([p.energy for p in parts])[place],
        forces=torch.cat([forces[i] for i in place]),
        stress=torch.cat([p.stress for p in parts])[place],
    )
