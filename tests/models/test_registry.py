"""One word in a configuration chooses the architecture; a new one needs a line in the table and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase.build import molecule

from adatom import model_file
from adatom.data.dataset import Dataset
from adatom.data.read import Structure
from adatom.errors import ConfigError, ModelFileError
from adatom.models import MODELS, read_model
from adatom.models.base import Facts
from adatom.models.mlanet import SIZES, MLANetConfig
from adatom.train.config import TrainConfig
from adatom.train.knowledge import facts
from toy import Toy, ToyConfig, toy_potential

FACTS = Facts((1, 8), 12.5, (-1.0, 2.0), (1.0, 3.0))


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy of the tests as an architecture among the others."""
    monkeypatch.setitem(MODELS, "toy", Toy)


def config(**model: Any) -> TrainConfig:
    return TrainConfig.parse({"data": {"train": ["a.xyz"]}, "model": model}, where="my.yaml")


def test_the_word_chooses_the_configuration() -> None:
    assert type(config(architecture="mlanet").model) is MLANetConfig
    assert config().model == MLANetConfig.parse({})


def test_an_architecture_can_be_registered_at_run_time(registered: None) -> None:
    read = config(architecture="toy", bend=0.2)
    assert type(read.model) is ToyConfig
    assert TrainConfig.parse(read.model_dump(mode="json")) == read
    assert read.model_dump()["model"]["bend"] == 0.2
    with pytest.raises(ConfigError, match=r"unknown key 'model\.bent': did you mean 'bend'\?"):
        config(architecture="toy", bent=0.2)


@pytest.mark.parametrize(
    ("entry", "word", "said"),
    [
        ("architecture", "mlnet", "'model.architecture' = 'mlnet': did you mean 'mlanet'?"),
        ("architecture", "MLANet", "did you mean 'mlanet'?"),
        ("architecture", "zzz", "there are: mlanet"),
        ("architecture", ["mlanet"], "'model.architecture' = ['mlanet']: there are: mlanet"),
        ("form", "papers", "'model.form' = 'papers': Input should be 'default' or 'paper'; did you mean 'paper'?"),
        ("size", "s", "did you mean 'S'?"),
        ("size", ["S"], "'model.size' = ['S']"),
        ("derivatives", "gradients", "did you mean 'gradient'?"),
        ("cut_off", 4.0, "unknown key 'model.cut_off': did you mean 'cutoff'?"),
    ],
)
def test_an_unknown_word_offers_the_nearest_one(entry: str, word: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**{entry: word})
    assert said in str(caught.value)
    assert caught.value.where == "my.yaml"


def test_wrong_entries_of_the_model_are_named_beside_those_of_the_run() -> None:
    with pytest.raises(ConfigError, match="3 wrong entries") as caught:
        TrainConfig.parse({"data": {"train": ["a"]}, "sed": 1, "model": {"layers": 0, "chanels": 3}})
    for said in ("'seed'", "'model.layers' = 0", "'channels'"):
        assert said in str(caught.value)


def test_a_model_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(ConfigError, match="'model' = 'mlanet'"):
        TrainConfig.parse({"data": {"train": ["a"]}, "model": "mlanet"})


def test_facts_fill_what_is_not_given() -> None:
    bare = read_model({})
    assert (bare.elements, bare.mean_neighbours, bare.charges, bare.spins) == (None, None, None, None)
    full = bare.completed(FACTS)
    assert (full.elements, full.mean_neighbours, full.charges, full.spins, full.closest) == FACTS
    given = read_model({"mean_neighbours": 3.0, "elements": [6]}).completed(FACTS)
    assert (given.elements, given.mean_neighbours, given.charges) == ((6,), 3.0, (-1.0, 2.0))
    assert read_model(full.model_dump(mode="json")) == full


def labelled(**info: float) -> Structure:
    water = molecule("H2O")
    water.info.update(info)
    return Structure(water, -1.0, np.zeros((3, 3)), np.full((3, 3), np.nan), "a.xyz:0", "")


def test_facts_are_those_of_the_data() -> None:
    none = facts(Dataset([labelled(), labelled()], 4.0))
    closest = {"H-H": pytest.approx(1.526478), "H-O": pytest.approx(0.968565)}
    assert none == Facts((1, 8), 2.0, None, None, closest)
    some = facts(Dataset([labelled(), labelled(total_charge=1.0, multiplicity=2.0), labelled(total_charge=-1.0)], 4.0))
    assert some == Facts((1, 8), 2.0, (-1.0, 1.0), (2.0, 2.0), closest)
    alone = facts(Dataset([labelled()], 0.5))
    assert alone.mean_neighbours == 1.0, "no neighbours at all are no number to divide by"


def test_a_model_file_of_an_architecture_that_is_not_in_the_table_says_so(
    registered: None, tmp_path, monkeypatch
) -> None:
    path = model_file.save(toy_potential(), tmp_path / "toy.adatom")
    assert torch.equal(model_file.load(path).network.bend, toy_potential().network.bend)
    monkeypatch.delitem(MODELS, "toy")
    with pytest.raises(ModelFileError, match="'architecture' = 'toy'"):
        model_file.load(path)
    with pytest.raises(ModelFileError, match="Toy is not among the architectures"):
        model_file.save(toy_potential(), path)


def test_a_card_written_before_forms_had_their_derivatives_is_still_read(tmp_path) -> None:
    """Format 1 of adatom 0.1.0: the published form was direct without saying so."""
    before = {"architecture": "mlanet", "size": "S", "cutoff": 5.0, "mean_neighbours": 20.0, **SIZES["S"]}
    assert read_model(before | {"form": "paper"}).derivatives == "direct"
    assert read_model(before | {"form": "default"}).derivatives == "gradient"
