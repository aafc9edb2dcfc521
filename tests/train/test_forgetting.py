"""What is kept in mind of the old while the new is learned: replay, a probe, and sources side by side."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk

import adatom
from adatom import model_file
from adatom.data.read import read
from adatom.errors import ConfigError, SourceWarning, UnknownElementError
from adatom.train.config import TrainConfig
from adatom.train.defaults import resolved
from adatom.train.finetune import FinetuneConfig, begin
from adatom.train.forgetting import ReplayConfig, levelled, replayed
from adatom.train.generic import generic, kept
from train.runs import configuration, frames, log, run, slices, write
from train.tuned import SHIFT, dataset, molybdenum, shifted, silent, tune


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return slices(tmp_path_factory.mktemp("data"), 24, 6)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]) -> Path:
    """A silicon model, hardly trained."""
    return run(configuration(data, limits={"steps": 40}), tmp_path_factory.mktemp("base")) / "model.adatom"


# --- replay and forgetting --------------------------------------------------------------------------------------------


def test_a_model_file_holds_some_of_its_training_structures(base: Path, tmp_path: Path) -> None:
    samples = adatom.info(base)["samples"]
    assert 4 <= len(samples) <= 16
    assert sum(len(plain["numbers"]) for plain in samples) <= 640
    structures = read(write(tmp_path / "all.xyz", frames("train")))[0]
    chosen = kept(structures, 12)
    assert chosen == kept(structures, 12)
    assert len(chosen) == 12
    kinds = {s.config_type for s in structures}
    positions = {tuple(np.round(s.atoms.positions[0], 4)): s.config_type for s in structures}
    assert len({positions[tuple(plain["positions_A"][0])] for plain in chosen}) == min(len(kinds), 12)
    assert kept(structures, 0) == []


def test_generic_structures_keep_their_distance_and_are_the_same_every_time(base: Path) -> None:
    card = adatom.info(base)
    made = generic(card, [14], 200, seed=1)
    assert sum(len(atoms) for atoms in made) >= 200
    shortest = min(float(a.get_all_distances(mic=True)[~np.eye(len(a), dtype=bool)].min()) for a in made)
    assert shortest > 0.94 * card["min_distance_A"]["Si-Si"]
    again, other = generic(card, [14], 200, seed=1), generic(card, [14], 200, seed=2)
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(made, again, strict=True))
    assert not np.array_equal(made[0].positions, other[0].positions)


@pytest.mark.parametrize("periodic", [True, False])
def test_without_samples_there_are_prototypes(periodic: bool) -> None:
    made = generic({}, [1, 8, 14], 400, seed=1, periodic=periodic)
    assert any(atoms.pbc.all() for atoms in made) == periodic
    assert any(not atoms.pbc.any() for atoms in made)
    assert {z for atoms in made for z in atoms.numbers.tolist()} == {1, 8, 14}


def test_replay_takes_its_share_and_says_what_the_old_model_says(base: Path) -> None:
    old = model_file.load(base)
    for share in (0.2, 0.5):
        structures = replayed(ReplayConfig(share=share), old, 0, 300, [14], True, False)
        atoms = sum(len(s.atoms) for s in structures)
        assert share <= atoms / (300 + atoms) < share + 0.02
    assert structures[3].energy == pytest.approx(silent(old, structures[3].atoms), abs=1e-5)
    assert np.isfinite(structures[3].stress).all()
    assert replayed(ReplayConfig(), old, 0, 300, [14], True, apart=False) == [], "it could contradict the new labels"
    assert replayed(ReplayConfig(), old, 0, 300, [14], True, apart=True)


def test_old_data_is_moved_to_the_references_of_the_new(base: Path, data: dict[str, Any], tmp_path: Path) -> None:
    begun = begin(FinetuneConfig(model=str(base)), dataset(shifted(tmp_path)), {}, torch.float64)
    old = model_file.load(base, dtype=torch.float64)
    structures = read(data["test"])[0]
    moved = levelled(structures, begun.potential, 0)
    residuals = [s.energy - silent(begun.potential, s.atoms) for s in moved]
    before = [s.energy - silent(old, s.atoms) for s in structures]
    assert np.std(residuals) < 1.2 * np.std(before) + 1e-9
    assert abs(np.mean(residuals)) < 0.5


def test_what_was_forgotten_is_told(base: Path, data: dict[str, Any], tmp_path: Path) -> None:
    probe = {"forgetting": {"files": data["test"]}}
    folder = tune(base, shifted(tmp_path), tmp_path, finetune=probe)
    told = json.loads((folder / "metrics.json").read_text())["forgetting"]
    records = log(folder, "forgetting")
    assert told["labels"] == "of files"
    assert told["structures"] == 6
    assert records[0]["ratio"] == pytest.approx(1.0)
    assert told["before"]["forces_rmse_meV_per_A"] == pytest.approx(records[0]["forces_rmse_meV_per_A"])
    assert told["after"]["forces_rmse_meV_per_A"] != told["before"]["forces_rmse_meV_per_A"]
    own = tune(base, shifted(tmp_path), tmp_path / "own")
    told = json.loads((own / "metrics.json").read_text())["forgetting"]
    assert told["labels"].startswith("the model's own")
    assert log(own, "forgetting")[0]["ratio"] == pytest.approx(1.0)
    stated = adatom.info(base)["errors"]["test"]
    assert told["before"]["forces_rmse_meV_per_A"] == pytest.approx(stated["forces_rmse_meV_per_A"])
    change = math.sqrt(told["after"]["forces_rmse_meV_per_A"] ** 2 - told["before"]["forces_rmse_meV_per_A"] ** 2)
    assert change > 0


def test_training_stops_at_the_bound_with_the_last_weights_inside(
    base: Path, data: dict[str, Any], tmp_path: Path
) -> None:
    limited = {"forgetting": {"files": data["test"], "bound": 1.05}}
    wild = {"optimizer": {"lr": 0.3, "warmup_steps": 1, "ema": 0.0}, "limits": {"epochs": 30}}
    folder = tune(base, molybdenum(tmp_path), tmp_path, finetune=limited, **wild)
    records, end = log(folder, "forgetting"), log(folder, "end")[0]
    assert records[-1]["ratio"] > 1.05 >= max(record["ratio"] for record in records[:-1])
    assert "grew" in end["reason"]
    told = json.loads((folder / "metrics.json").read_text())["forgetting"]
    assert told["stopped"]
    assert told["ratio"] == pytest.approx(records[-2]["ratio"], rel=1e-5)
    assert told["ratio"] <= 1.05


def test_a_bound_needs_something_to_be_held_against(base: Path, tmp_path: Path) -> None:
    potential = model_file.load(base)
    del potential.card["errors"]
    bare = model_file.save(potential, tmp_path / "bare.adatom")
    with pytest.raises(ConfigError, match=r"the model file states no errors(.|\n)*--probe"):
        tune(bare, shifted(tmp_path), tmp_path, finetune={"forgetting": {"bound": 1.5}})
    folder = tune(bare, shifted(tmp_path), tmp_path / "unbound", limits={"steps": 2})
    assert json.loads((folder / "metrics.json").read_text())["forgetting"]["ratio"] is None


# --- several sources --------------------------------------------------------------------------------------------------


def test_a_second_source_is_learned_beside_the_first(base: Path, tmp_path: Path) -> None:
    both = {"source": "other", "old_source": "pbe", "replay": {"share": 0.5}}
    folder = tune(base, shifted(tmp_path), tmp_path, finetune=both, limits={"steps": 60})
    path = folder / "model.adatom"
    silicon = frames("test")[3]
    with pytest.warns(SourceWarning, match="pbe, other, and none was asked for: pbe is taken"):
        first = adatom.load(path, compile="off")
    other = adatom.load(path, source="other", compile="off")
    assert silent(other, silicon) - silent(first, silicon) == pytest.approx(SHIFT * len(silicon), rel=0.02)
    assert silent(adatom.load(path, source="pbe", compile="off"), silicon) == silent(first, silicon)
    assert silent(first, silicon) == pytest.approx(silent(model_file.load(base), silicon), abs=1.0)
    assert (first.sources, first.card["source"]) == ((), "pbe")
    for name, potential in (("other", other), ("pbe", first)):
        atoms = silicon.copy()
        atoms.calc = adatom.Calculator(path, source=name, compile="off")
        assert atoms.get_potential_energy() == pytest.approx(silent(potential, silicon), abs=1e-6)
    with pytest.raises(ConfigError, match=r"knows no source 'othr'(.|\n)*did you mean 'other'"):
        adatom.load(path, source="othr")
    whole = model_file.load_whole(path)
    assert silent(whole, silicon, 1) == pytest.approx(silent(other, silicon), abs=1e-5)
    assert model_file.save(whole, tmp_path / "again.adatom").read_bytes()[-2000:] == path.read_bytes()[-2000:]


def test_elements_are_those_of_the_source_that_is_asked(base: Path, tmp_path: Path) -> None:
    folder = tune(base, molybdenum(tmp_path), tmp_path, finetune={"source": "vasp"}, limits={"steps": 2})
    path = folder / "model.adatom"
    assert model_file.load(path, source="vasp").elements == [42]
    first = model_file.load(path, source="first")
    assert first.elements == [14]
    with pytest.raises(UnknownElementError, match="does not know Mo"):
        first.check_atoms(bulk("Mo", cubic=True))
    with pytest.raises(UnknownElementError, match="asked as vasp, does not know Si"):
        model_file.load_whole(path).check_atoms(bulk("Si"), source=1)


def test_more_data_of_a_source_go_on_with_that_source(base: Path, tmp_path: Path) -> None:
    two = tune(base, shifted(tmp_path), tmp_path / "two", finetune={"source": "other"}, limits={"steps": 2})
    files = shifted(tmp_path, "more", 8)
    with pytest.raises(ConfigError, match=r"knows several sources of labels(.|\n)*--source"):
        tune(two / "model.adatom", files, tmp_path / "no", limits={"steps": 2})
    three = tune(two / "model.adatom", files, tmp_path / "three", finetune={"source": "other"}, limits={"steps": 2})
    assert model_file.load_whole(three / "model.adatom").sources == ("first", "other")
    with pytest.raises(ConfigError, match="two sources of labels have one name"):
        tune(base, files, tmp_path / "same", finetune={"source": "first"}, limits={"steps": 2})


def test_one_training_takes_labels_of_several_sources(data: dict[str, Any], tmp_path: Path) -> None:
    sources = {"gpaw": {"train": data["train"], "test": data["test"]}, "qe": {"train": [shifted(tmp_path)]}}
    values = configuration({"sources": sources}, limits={"steps": 40})
    folder = run(values, tmp_path)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics["sources"]) == {"gpaw", "qe"}
    assert metrics["sources"]["qe"]["train"]["energy_rmse_meV_per_atom"] < 1000
    record = json.loads((folder / "data.json").read_text())
    energies = {name: own["Si"]["energy_eV"] for name, own in record["references_by_source"].items()}
    assert energies["qe"] - energies["gpaw"] == pytest.approx(SHIFT, abs=0.3)
    assert model_file.load(folder / "model.adatom", source="qe").references_of()[14] == energies["qe"]
    assert run(values, tmp_path, resume=True) == folder
    facts = resolved({**values, "loss": "auto", "limits": {"epochs": "auto"}})
    assert facts.loss.stress > 0
    with pytest.raises(ConfigError, match="write them there"):
        TrainConfig.parse(configuration({**data, "sources": sources}))
    with pytest.raises(ConfigError, match="train of the source 'qe': name at least one file"):
        TrainConfig.parse(configuration({"sources": {**sources, "qe": {}}}))
