"""Predictions stand in the order of the data, and errors are those worked out by hand."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.build import molecule as ase_molecule
from rich.console import Console

from adatom.data.dataset import Budget, Dataset
from adatom.data.read import Structure
from adatom.errors import UnknownElementError
from adatom.graph import Graph, Results
from adatom.neighbors import graph_from_atoms
from adatom.potential import Potential
from adatom.train.evaluate import Predictions, errors_table, predict
from adatom.units import EV_PER_A3_IN_GPA
from toy import toy_potential

NAN = math.nan


def structure(atoms: ase.Atoms, name: str, energy: float = 0.0, forces: float = 0.0, stress: float = 0.0) -> Structure:
    """Labels that are the same number everywhere."""
    return Structure(
        atoms, energy, np.full((len(atoms), 3), forces), np.full((3, 3), stress), name, config_type=name.rstrip("0123")
    )


def crystal(seed: int) -> ase.Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=seed)
    return atoms


def mixed() -> list[Structure]:
    """Sizes that do not pack in order: 4, 1, 3, 16, 2, 4 atoms."""
    return [
        structure(crystal(0), "bulk0"),
        structure(ase.Atoms("Cu"), "free", stress=NAN),
        structure(ase_molecule("H2O"), "water", stress=NAN),
        structure(crystal(1).repeat((2, 2, 1)), "bulk1"),
        structure(ase.Atoms("Cu2", positions=[[0, 0, 0], [2.2, 0, 0]]), "dimer", stress=NAN),
        structure(crystal(2), "bulk2"),
    ]


@pytest.mark.parametrize("atoms", [1, 5, 8, 100])
def test_whatever_the_batches_the_order_is_that_of_the_data(atoms: int) -> None:
    potential, structures = toy_potential(), mixed()
    found = predict(potential, Dataset(structures, potential.cutoff), Budget(atoms=atoms))
    assert found.names.tolist() == [s.name for s in structures]
    assert found.config_types.tolist() == ["bulk", "free", "water", "bulk", "dimer", "bulk"]
    assert found.n_atoms.tolist() == [4, 1, 3, 16, 2, 4]
    assert found.numbers.tolist() == [z for s in structures for z in s.atoms.numbers]
    ends = np.cumsum(found.n_atoms)
    for k, s in enumerate(structures):
        alone = potential(graph_from_atoms(s.atoms, potential.cutoff), stress=True)
        rows = slice(ends[k] - found.n_atoms[k], ends[k])
        torch.testing.assert_close(found.predicted.energy[k : k + 1], alone.energy)
        torch.testing.assert_close(found.predicted.forces[rows], alone.forces)
        torch.testing.assert_close(found.predicted.stress[k : k + 1], alone.stress, equal_nan=True)


def test_stress_is_left_out_where_nothing_is_labelled() -> None:
    potential = toy_potential()
    found = predict(potential, Dataset([structure(crystal(0), "a", stress=NAN)], potential.cutoff), Budget())
    assert found.predicted.stress.isnan().all()
    assert math.isnan(found.errors()["stress_rmse_GPa"])


def test_the_potential_keeps_its_mode() -> None:
    for training in (True, False):
        potential = toy_potential().train(training)
        found = predict(potential, Dataset(mixed(), potential.cutoff), Budget())
        assert potential.training is training
        assert not any(t.requires_grad for t in found.predicted)


def by_hand() -> Predictions:
    """A structure of two atoms with errors of 0.02 eV, and one of one atom with -0.03 eV and nothing else labelled."""
    forces, unlabelled = torch.zeros(3, 3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    forces[0] = torch.tensor([0.3, -0.4, 0.0])
    unlabelled[2] = NAN
    stress, label_stress = torch.zeros(2, 3, 3, dtype=torch.float64), torch.zeros(2, 3, 3, dtype=torch.float64)
    stress[0, 0, 0], label_stress[1] = 0.09, NAN
    return Predictions(
        names=np.array(["a", "b"]),
        config_types=np.array(["", ""]),
        n_atoms=np.array([2, 1]),
        numbers=np.array([29, 29, 29]),
        label=Results(torch.tensor([-1.0, -2.0], dtype=torch.float64), unlabelled, label_stress),
        predicted=Results(torch.tensor([-0.98, -2.03], dtype=torch.float64), forces, stress),
    )


def test_errors_are_those_worked_out_by_hand() -> None:
    assert by_hand().errors() == pytest.approx(
        {
            "energy_rmse_meV_per_atom": math.sqrt((10**2 + 30**2) / 2),
            "energy_mae_meV_per_atom": 20.0,
            "forces_rmse_meV_per_A": 500 / math.sqrt(6),
            "forces_mae_meV_per_A": 700 / 6,
            "stress_rmse_GPa": 0.09 / 3 * EV_PER_A3_IN_GPA,
            "stress_mae_GPa": 0.01 * EV_PER_A3_IN_GPA,
        }
    )


def test_predictions_are_written_under_the_names_the_report_reads(tmp_path: Path) -> None:
    by_hand().save(tmp_path / "predictions.npz")
    with np.load(tmp_path / "predictions.npz") as found:  # allow_pickle is off: plain arrays only
        arrays = dict(found)
    assert set(arrays) == {
        "names", "config_types", "n_atoms", "numbers", "energy_ref", "energy",
        "forces_ref", "forces", "stress_ref", "stress",
    }  # fmt: skip
    np.testing.assert_allclose(arrays["energy"] - arrays["energy_ref"], [0.02, -0.03])
    assert arrays["forces"].shape == (3, 3)
    assert np.isnan(arrays["stress_ref"][1]).all()


def test_an_unknown_element_is_named_with_its_structure_before_anything_is_computed() -> None:
    potential = toy_potential()
    structures = [*mixed(), structure(bulk("Au"), "gold.xyz:7")]

    def computed(*_: object) -> None:
        raise AssertionError("computed")

    potential.network.forward = computed
    with pytest.raises(UnknownElementError, match="does not know Au") as caught:
        predict(potential, Dataset(structures, potential.cutoff), Budget(atoms=4))
    assert caught.value.where == "gold.xyz:7"


def test_the_table_shows_each_set_and_a_dash_where_nothing_is_known() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(errors_table({"train": by_hand().errors(), "test": {"forces_rmse_meV_per_A": 12.3456}}))
    lines = console.export_text().splitlines()
    assert any(line.split()[1:3] == ["train", "│"] for line in lines)
    assert "12.35" in next(line for line in lines if "test" in line)
    assert "–" in next(line for line in lines if "test" in line)


def test_where_memory_runs_out_the_answers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    potential = toy_potential()
    structures = [structure(crystal(k), f"cu{k}") for k in range(12)] + [structure(ase_molecule("H2O"), "water")]
    dataset = Dataset(structures, potential.cutoff)
    whole = predict(potential, dataset, Budget(atoms=64))
    forward, tried = Potential.forward, []

    def limited(self: Potential, graph: Graph, *others: Any, **named: Any) -> Results:
        tried.append(graph.numbers.shape[0])
        if tried[-1] > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, graph, *others, **named)

    monkeypatch.setattr(Potential, "forward", limited)
    cut = predict(potential, dataset, Budget(atoms=64))
    assert max(tried) > 40
    assert list(cut.names) == list(whole.names)
    for ours, theirs in zip(cut.predicted, whole.predicted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12, equal_nan=True)
