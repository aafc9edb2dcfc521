"""Settings from facts of the data: what the rules say, what they leave alone, a run with nothing given."""

from __future__ import annotations

from pathlib import Path

import ase
import numpy as np
import pytest

from adatom.data.read import Structure, read
from adatom.errors import ConfigError, LabelError
from adatom.train.config import TrainConfig
from adatom.train.defaults import (
    EPOCHS,
    LEAST_STEPS,
    STEPS,
    DataFacts,
    batch_atoms,
    completed,
    data_facts,
    epochs,
    loss_settings,
    recipe,
    resolved,
    split_settings,
)
from train.runs import NETWORK, run, slices

ALL = {"energy": 1.0, "forces": 1.0, "stress": 1.0}


def structure(
    atoms: int, energy: bool = True, forces: bool = True, stress: bool = False, periodic: bool = True
) -> Structure:
    return Structure(
        ase.Atoms("Si" * atoms, np.arange(3.0 * atoms).reshape(-1, 3), cell=[9.0, 9.0, 9.0], pbc=periodic),
        -1.0 if energy else np.nan,
        np.full((atoms, 3), 0.0 if forces else np.nan),
        np.full((3, 3), 0.0 if stress else np.nan),
        "here",
    )


def test_facts_are_those_of_the_structures_that_are_not_single_atoms() -> None:
    free = structure(1, periodic=False)
    facts = data_facts([structure(2), structure(4, energy=False), structure(6, stress=True), free])
    assert facts == DataFacts(3, 4.0, {"energy": pytest.approx(2 / 3), "forces": 1.0, "stress": pytest.approx(1 / 3)})


def test_stress_is_missed_only_where_there_can_be_one() -> None:
    molecule, crystal = structure(3, periodic=False), structure(2, stress=True)
    assert data_facts([molecule, crystal]).labelled["stress"] == 1.0
    assert data_facts([molecule]).labelled["stress"] == 0.0


def test_a_batch_holds_a_structure_at_least_and_an_epoch_several_batches_at_best() -> None:
    assert batch_atoms(DataFacts(1000, 9.0, ALL)) == 64
    assert batch_atoms(DataFacts(1000, 192.0, ALL)) == 192
    assert batch_atoms(DataFacts(20, 8.0, ALL)) == 20
    assert batch_atoms(DataFacts(1, 8.0, ALL)) == 8


def test_more_data_mean_fewer_epochs_never_too_few_and_never_too_many() -> None:
    counts = {n: epochs(DataFacts(n, 8.0, ALL), 64) for n in (8, 80, 400, 1000, 10_000, 1_000_000)}
    assert list(counts.values()) == sorted(counts.values(), reverse=True)
    assert counts[8] == LEAST_STEPS, "one batch an epoch"
    assert counts[400] == EPOCHS[1]
    assert counts[1000] * 1000 / 8 == pytest.approx(STEPS, rel=0.02)
    assert counts[1_000_000] == EPOCHS[0]


def test_labels_that_nobody_has_do_not_count_and_those_that_some_have_are_used_where_they_are() -> None:
    config = TrainConfig.parse(
        {
            "data": {"train": ["x"]},
            "model": NETWORK,
            "loss": loss_settings(DataFacts(9, 4.0, {"energy": 1.0, "forces": 0.4, "stress": 0.0})),
        }
    ).loss
    for progress in (0.0, 1.0):
        assert config.weights(progress).stress == 0.0
        assert config.weights(progress).forces > 0.0
    assert config.allow_missing == ("forces",)
    assert config.needed() == {"energy"}


def test_energies_alone_are_learned_with_one_weight() -> None:
    settings = loss_settings(DataFacts(9, 4.0, {"energy": 1.0, "forces": 0.0, "stress": 0.0}))
    assert settings == {"forces": 0.0, "stress": 0.0, "late": None}


def test_nothing_to_learn_from_is_an_error() -> None:
    with pytest.raises(LabelError, match="nothing to learn from"):
        loss_settings(data_facts([structure(3, energy=False, forces=False, stress=True)]))


def test_a_tenth_is_held_back_but_not_where_files_are_given() -> None:
    assert split_settings(DataFacts(200, 8.0, ALL)) == {"valid": 20, "test": 20}
    assert split_settings(DataFacts(200, 8.0, ALL), ["test"]) == {"valid": 20, "test": 0}
    assert split_settings(DataFacts(200, 8.0, ALL), ["valid"]) == {"valid": 0, "test": 20}
    assert split_settings(DataFacts(20, 8.0, ALL)) == {"valid": 2, "test": 0}
    assert split_settings(DataFacts(1, 8.0, ALL)) == {"valid": 0, "test": 0}
    assert split_settings(DataFacts(10**6, 8.0, ALL)) == {"valid": 1000, "test": 1000}


def test_auto_becomes_a_plain_number_and_what_is_given_stays() -> None:
    facts = DataFacts(100, 8.0, ALL)
    values = {"batch": "auto", "limits": {"epochs": "auto", "minutes": 5}, "seed": 3}
    assert completed(values, facts) == {
        "batch": {"atoms": 64},
        "limits": {"epochs": epochs(facts, 64), "minutes": 5},
        "seed": 3,
    }
    given = {"batch": {"atoms": 16}, "limits": {"epochs": "auto"}}
    assert completed(given, facts)["limits"]["epochs"] == epochs(facts, 16)
    assert values["limits"]["epochs"] == "auto", "what was handed in is not written to"


def test_the_recipe_of_a_file_needs_nothing_else(tmp_path: Path) -> None:
    (file,) = slices(tmp_path, train_frames=60)["train"]
    config = recipe([file])
    facts = data_facts(read([file])[0])
    assert config.name == "train"
    assert config.batch.atoms == batch_atoms(facts)
    assert config.limits.epochs == epochs(facts, config.batch.atoms)
    assert (config.data.split.valid, config.data.split.test) == (6, 6)
    assert config.loss.weights(0.0).stress > 0
    assert TrainConfig.parse(config.model_dump(mode="json")) == config


def test_choices_go_before_the_rules(tmp_path: Path) -> None:
    (file,) = slices(tmp_path)["train"]
    config = recipe([file], name="mine", model={"size": "M"}, limits={"steps": 5}, loss={"kind": "l1"})
    assert (config.name, config.model.size, config.limits.steps, config.limits.epochs) == ("mine", "M", 5, None)
    assert config.loss == recipe([file]).loss.model_copy(update={"kind": "l1"})
    with pytest.raises(ConfigError, match="limit"):
        recipe([file], limit={"steps": 5})
    with pytest.raises(ConfigError, match="nothing to train on"):
        recipe([])


def test_a_configuration_without_auto_is_taken_as_it_is_and_no_file_is_read() -> None:
    config = resolved({"data": {"train": ["not_there.xyz"]}, "model": NETWORK})
    assert config.data.train == ("not_there.xyz",)


def test_a_run_of_a_recipe_keeps_plain_numbers(tmp_path: Path) -> None:
    (file,) = slices(tmp_path, train_frames=50)["train"]
    config = recipe([file], name="run", model=NETWORK, limits={"epochs": "auto", "steps": 4}, threads=1)
    folder = run(config.model_dump(mode="json"), tmp_path)
    kept = TrainConfig.load(folder / "config.yaml")
    assert kept.limits.epochs == config.limits.epochs
    assert kept.batch.atoms == config.batch.atoms
