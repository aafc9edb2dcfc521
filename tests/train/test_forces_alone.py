"""Data without energies: forces are learned, references are zero, and nobody is left to believe in the energies."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from adatom import model_file
from adatom.data.read import read
from adatom.errors import DataError
from adatom.train.config import DataConfig, TrainConfig
from adatom.train.defaults import recipe
from adatom.train.knowledge import NO_MEANING, references_of
from adatom.train.run import train
from train.runs import NETWORK, configuration, frames, log, run, write
from train.tuned import shifted, tune

ALONE: dict[str, Any] = {"loss": {"energy": 0.0, "stress": 0.0, "late": None}}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    chosen = [atoms.copy() for atoms in frames("train")[::16]]
    for atoms in chosen:
        del atoms.info["REF_energy"], atoms.info["REF_stress"]
    return [str(write(tmp_path_factory.mktemp("data") / "forces.xyz", chosen))]


@pytest.fixture(scope="module")
def trained(files: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    said = io.StringIO()
    values = configuration({"train": files}, **ALONE, limits={"steps": 60})
    console = Console(file=said, width=400)
    return train(TrainConfig.parse(values), tmp_path_factory.mktemp("runs"), console=console), said.getvalue()


def test_forces_are_learned_as_beside_energies_that_do_not_count(trained: tuple[Path, str], tmp_path: Path) -> None:
    labelled = [str(write(tmp_path / "both.xyz", frames("train")[::16]))]
    beside = run(configuration({"train": labelled}, **ALONE, limits={"steps": 60}), tmp_path)
    ours, theirs = (log(folder, "valid") for folder in (trained[0], beside))
    assert [r["forces_rmse_meV_per_A"] for r in ours] == [r["forces_rmse_meV_per_A"] for r in theirs]
    assert [r["loss"] for r in ours] == [r["loss"] for r in theirs]
    alone, other = (model_file.load(folder / "model.adatom") for folder in (trained[0], beside))
    assert alone.references_of(0) == {14: 0.0} != other.references_of(0)
    metrics = json.loads((trained[0] / "metrics.json").read_text())
    assert metrics["train"]["energy_rmse_meV_per_atom"] is None
    size = 1e3 * np.sqrt(np.mean(np.concatenate([a.arrays["REF_forces"] for a in frames("train")[::16]]) ** 2))
    assert metrics["train"]["forces_rmse_meV_per_A"] < 0.8 * size


def test_a_warning_and_the_card_say_what_energies_are_worth(trained: tuple[Path, str]) -> None:
    folder, said = trained
    assert "warning: no structure has an energy: the references of Si are zero" in said
    assert json.loads((folder / "card.json").read_text())["energies"] == NO_MEANING
    sheet = json.loads((folder / "data.json").read_text())
    assert sheet["references"]["Si"] == {"energy_eV": 0.0, "source": "none"}
    assert "no energies" in {finding["kind"] for finding in sheet["findings"]}
    assert NO_MEANING in (folder / "report.html").read_text(encoding="utf-8")


def test_files_alone_are_enough(files: list[str]) -> None:
    chosen = recipe(files, model=NETWORK)
    assert chosen.loss.needed() == {"forces"}


def test_a_fine_tune_with_energies_takes_the_note_away(trained: tuple[Path, str], tmp_path: Path) -> None:
    base, data = trained[0] / "model.adatom", shifted(tmp_path, count=10)
    assert "energies" in model_file.info(base)
    tuned = tune(base, data, tmp_path, limits={"steps": 2})
    assert "energies" not in model_file.info(tuned / "model.adatom")


def test_references_that_are_given_stay_and_one_energy_is_enough_to_ask_for_all(files: list[str]) -> None:
    structures = read(files[0])[0]
    given = references_of(structures, DataConfig(train=tuple(files), references={"Si": -5.0}))
    assert (given.energies, given.source) == ({14: -5.0}, {14: "given"})
    atoms = frames("train")[0].copy()
    atoms.numbers[:] = 32
    strange = [*structures, *read(write(Path(files[0]).parent / "ge.xyz", [atoms]))[0]]
    assert np.isfinite([s.energy for s in strange]).sum() == 1
    with pytest.raises(DataError, match="no labelled structure holds Si") as caught:
        references_of(strange, DataConfig(train=tuple(files)))
    assert "give their references" in str(caught.value.remedy)
