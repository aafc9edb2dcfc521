"""Configurations refuse what they do not know and offer the nearest name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, PositiveInt, ValidationError

from adatom.config import Config, nearest, read_yaml
from adatom.errors import ConfigError


class Optimizer(Config):
    learning_rate: float = 1e-3
    weight_decay: float = 0.0


class Small(Config):
    name: Literal["small"] = "small"
    channels: PositiveInt = 8


class Large(Config):
    name: Literal["large"] = "large"
    channels: PositiveInt = 64
    attention_heads: PositiveInt = 4


class Recipe(Config):
    epochs: PositiveInt = 10
    optimizer: Optimizer = Optimizer()
    model: Annotated[Small | Large, Field(discriminator="name")] = Small()
    stages: tuple[Optimizer, ...] = ()
    teacher: Optimizer | None = None


@pytest.mark.parametrize(
    ("values", "path", "guess"),
    [
        ({"epoch": 3}, "epoch", "epochs"),
        ({"optimizer": {"learning_rat": 1}}, "optimizer.learning_rat", "learning_rate"),
        ({"stages": [{}, {"weight_deca": 1}]}, "stages.1.weight_deca", "weight_decay"),
        ({"teacher": {"wieght_decay": 1}}, "teacher.wieght_decay", "weight_decay"),
        ({"model": {"name": "large", "atention_heads": 2}}, "model.large.atention_heads", "attention_heads"),
    ],
)
def test_an_unknown_key_offers_the_nearest_name(values: dict, path: str, guess: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Recipe.parse(values, where="recipe.yaml")
    assert f"unknown key '{path}': did you mean '{guess}'?" in str(caught.value)
    assert caught.value.where == "recipe.yaml"


def test_a_key_like_no_other_is_answered_with_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match="known keys: learning_rate, weight_decay"):
        Recipe.parse({"optimizer": {"zzz": 1}})


def test_a_name_is_not_offered_from_another_branch() -> None:
    with pytest.raises(ConfigError) as caught:
        Recipe.parse({"model": {"name": "small", "attention_head": 2}})
    assert "did you mean" not in str(caught.value)


def test_every_wrong_entry_is_named_at_once() -> None:
    with pytest.raises(ConfigError, match="2 wrong entries") as caught:
        Recipe.parse({"epochs": -1, "optimzer": {}})
    assert "'epochs' = -1" in str(caught.value)
    assert "'optimizer'" in str(caught.value)


def test_a_value_of_the_wrong_kind_is_shown() -> None:
    with pytest.raises(ConfigError, match="1 wrong entry") as caught:
        Recipe.parse({"optimizer": {"learning_rate": "fast"}})
    assert "'optimizer.learning_rate' = 'fast'" in str(caught.value)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Recipe().epochs = 3  # type: ignore[misc]


def test_what_is_written_is_complete_and_reads_back_as_the_same(tmp_path) -> None:
    recipe = Recipe(epochs=7, model=Large(channels=3), stages=(Optimizer(learning_rate=0.5),))
    path = tmp_path / "config.yaml"
    path.write_text(recipe.to_yaml())
    assert "weight_decay: 0.0" in path.read_text(), "defaults are spelled out"
    assert Recipe.load(path) == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: [1, 2", "not YAML"),
        ("- 1\n- 2\n", "a mapping"),
        ("", "a mapping"),
        ("epochs: 3\nepochz: 3\n", "'epochs'"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        Recipe.load(path)
    assert caught.value.where == str(path)


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match="no such"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match="not YAML"):
        read_yaml(tmp_path / "binary.yaml")


def test_a_folder_and_a_locked_file_are_no_configuration(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="a folder"):
        read_yaml(tmp_path)

    def locked(path: Path, *_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", locked)
    with pytest.raises(ConfigError, match="Permission denied"):
        read_yaml(tmp_path / "locked.yaml")


def test_the_nearest_name() -> None:
    assert nearest("cutof", ["cutoff", "channels"]) == "cutoff"
    assert nearest("qqq", ["cutoff", "channels"]) is None
