"""Configuration: frozen models that refuse unknown keys and name the nearest known one."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from adatom.errors import ConfigError


class Config(BaseModel):
    """Base of every configuration: immutable, complete, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @classmethod
    def parse(cls, values: dict[str, Any], where: str | None = None) -> Self:
        """Build from plain values; ConfigError names each wrong key or value, and the nearest known key."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(
                f"the configuration has {error.error_count()} wrong entr{'y' if error.error_count() == 1 else 'ies'}",
                where=where,
                got="; ".join(_explain(cls, e["loc"], e["type"], e["msg"], e.get("input")) for e in error.errors()),
                remedy="correct the entries named above",
            ) from error

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a YAML file."""
        return cls.parse(read_yaml(path), where=str(path))

    def dump(self, path: str | Path) -> None:
        """Write as YAML, every default spelled out, so that the file alone repeats the run."""
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        Path(path).write_text(text, encoding="utf-8")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping; ConfigError when the file is missing, unreadable, malformed, or holds something else."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError("no such configuration file", where=str(path), remedy="check the path") from error
    except OSError as error:
        raise ConfigError(
            "this configuration file cannot be read",
            where=str(path),
            wanted="a YAML file",
            got="a folder" if isinstance(error, IsADirectoryError) else str(error.strerror or error),
            remedy="name the file itself, and check that you may read it",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError("this is not YAML", where=str(path), got=str(error), remedy="mend the file") from error
    if not isinstance(values, dict):
        raise ConfigError("a configuration is a mapping", where=str(path), wanted="key: value lines", got=repr(values))
    return values


def nearest(name: str, known: list[str]) -> str | None:
    """The known name closest to a mistyped one, or None when nothing is close."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return close[0] if close else None


def _explain(cls: type[BaseModel], loc: tuple[int | str, ...], kind: str, message: str, value: object) -> str:
    """One sentence on one wrong entry."""
    path = ".".join(str(part) for part in loc)
    if kind != "extra_forbidden":
        return f"'{path}' = {value!r}: {message}"
    known = _known_keys(cls, loc[:-1])
    guess = nearest(str(loc[-1]), known)
    hint = f"did you mean '{guess}'?" if guess else f"known keys: {', '.join(known)}"
    return f"unknown key '{path}': {hint}"


def _known_keys(cls: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Field names of the model that ``loc`` leads to."""
    models: list[type[BaseModel]] = [cls]
    for part in loc:
        found: list[type[BaseModel]] = []
        for model in models:
            if part in model.model_fields:
                found += _models_in(model.model_fields[str(part)].annotation)
        # a union puts its tag or the name of its member into the path, a list the place: choose, and stay where we are
        models = found or [model for model in models if part == model.__name__ or part in _tags(model)] or models
    return sorted({name for model in models for name in model.model_fields})


def _tags(model: type[BaseModel]) -> set[object]:
    """Values of the literal fields of a model: the words by which a union tells its members apart."""
    kinds = (field.annotation for field in model.model_fields.values())
    return {value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """All configuration models named inside a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for arg in getattr(annotation, "__args__", ()) for m in _models_in(arg)]
