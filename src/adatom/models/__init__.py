"""Architectures; ``MODELS`` lists them by the word that configurations and model files use.

A new one takes a file in this folder and a line in the table: docs/add_an_architecture.md.
"""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, SerializeAsAny, ValidationError

from adatom.config import typed, unknown_word
from adatom.models.allscaip import AllScAIP
from adatom.models.base import Model, ModelConfig
from adatom.models.mlanet import MLANet
from adatom.models.nemp import NEMP

MODELS: dict[str, type[Model]] = {
    "mlanet": MLANet,
    "nemp": NEMP,
    "allscaip": AllScAIP,
}


def parse_model(values: Any) -> Any:
    """Configuration of the architecture that the entry ``architecture`` names; MLANet where there is none.

    Raises
    ------
    ValidationError
        No such architecture (the nearest one is offered), or a wrong entry.
    """
    if not isinstance(values, dict):
        return values
    word = values.get("architecture", "mlanet")
    if not isinstance(word, str) or word not in MODELS:
        raise ValidationError.from_exception_data("model", [unknown_word(word, list(MODELS), ("architecture",))])
    return MODELS[word].Config.model_validate(values)


def read_model(values: dict[str, Any], where: str | None = None) -> ModelConfig:
    """``parse_model`` for callers that are no configuration themselves: ConfigError names the wrong entries."""
    with typed(where):
        config: ModelConfig = parse_model(values)
    return config


def forms(architecture: str) -> tuple[str, ...]:
    """The forms of an architecture, the one to take first."""
    return get_args(MODELS[architecture].Config.model_fields["form"].annotation) or ("default",)


def sizes(architecture: str) -> tuple[str, ...]:
    """The values that the dial ``size`` of an architecture has, from small to large."""
    words = get_args(MODELS[architecture].Config.model_fields["size"].annotation) or ("S",)
    return tuple(size for size in ("S", "M", "L") if size in words)


# the field of a configuration that holds a model of any architecture in the table
AnyModelConfig = Annotated[SerializeAsAny[ModelConfig], BeforeValidator(parse_model)]

__all__ = ["MODELS", "AnyModelConfig", "Model", "ModelConfig", "forms", "parse_model", "read_model", "sizes"]
