"""Configuration: frozen models that refuse unknown keys and name the nearest known one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from adatom.errors import ConfigError

# YAML reads a bare on or off as true or false
Switch = Annotated[
    Literal["auto", "on", "off"], BeforeValidator(lambda value: {True: "on", False: "off"}.get(value, value))
]


class Config(BaseModel):
    """Base of every configuration: immutable, complete, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @model_validator(mode="wrap")
    @classmethod
    def _hinted(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """An unknown key is answered here, where the known ones are known: a union leads to many configurations."""
        try:
            return handler(values)
        except ValidationError as error:
            raise ValidationError.from_exception_data(
                cls.__name__, [_with_hint(entry, sorted(cls.model_fields)) for entry in error.errors()]
            ) from None

    @classmethod
    def parse(cls, values: dict[str, Any], where: str | None = None) -> Self:
        """Build from plain values; ConfigError names each wrong key or value, and the nearest known key."""
        with typed(where):
            return cls.model_validate(values)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a YAML file."""
        return cls.parse(read_yaml(path), where=str(path))

    def to_yaml(self) -> str:
        """As YAML, every default spelled out, so that the text alone repeats the run."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        return text


@contextmanager
def typed(where: str | None = None) -> Iterator[None]:
    """Inside the block a ValidationError of pydantic becomes a ConfigError that names every wrong entry."""
    try:
        yield
    except ValidationError as error:
        raise ConfigError(
            f"the configuration has {error.error_count()} wrong entr{'y' if error.error_count() == 1 else 'ies'}",
            where=where,
            got="; ".join(_explain(entry) for entry in error.errors()),
            remedy="correct the entries named above",
        ) from error


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


def nearest(name: str, known: Sequence[str], likeness: float = 0.5) -> str | None:
    """The known name closest to a mistyped one, capitals aside, or None when none is alike (0 to 1) enough."""
    spelled = {word.lower(): word for word in known}
    close = difflib.get_close_matches(name.lower(), list(spelled), n=1, cutoff=likeness)
    return spelled[close[0]] if close else None


def unknown_word(name: object, known: Sequence[str], loc: tuple[str, ...] = ()) -> InitErrorDetails:
    """Error entry for a word that is none of the known ones, with the nearest of them: for validators to raise."""
    guess = nearest(name, known) if isinstance(name, str) else None
    hint = f"did you mean '{guess}'?" if guess else f"there are: {', '.join(known)}"
    return InitErrorDetails(type=PydanticCustomError("unknown_word", "{hint}", {"hint": hint}), loc=loc, input=name)


def _with_hint(entry: ErrorDetails, known: list[str]) -> InitErrorDetails:
    """The same entry, a key of this configuration that is unknown answered with the nearest of the known ones."""
    loc, value, kind = entry["loc"], entry["input"], entry["type"]
    if kind == "extra_forbidden" and len(loc) == 1:
        guess = nearest(str(loc[0]), known)
        hint = f"did you mean '{guess}'?" if guess else f"known keys: {', '.join(known)}"
        return InitErrorDetails(type=PydanticCustomError("unknown_key", "{hint}", {"hint": hint}), loc=loc, input=value)
    context = entry.get("ctx", {})
    if kind in ("unknown_key", "unknown_word"):
        return InitErrorDetails(type=PydanticCustomError(kind, "{hint}", context), loc=loc, input=value)
    return InitErrorDetails(type=kind, loc=loc, input=value, ctx=context)


def _explain(entry: ErrorDetails) -> str:
    """One sentence on one wrong entry."""
    path, message = ".".join(str(part) for part in entry["loc"]), entry["msg"]
    if entry["type"] == "unknown_key":
        return f"unknown key '{path}': {message}"
    if entry["type"] == "literal_error":
        words = re.findall(r"'([^']*)'", entry["ctx"]["expected"])
        guess = nearest(str(entry["input"]), words)
        message += f"; did you mean '{guess}'?" if guess else ""
    return f"'{path}' = {entry['input']!r}: {message}"
