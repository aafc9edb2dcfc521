"""Typed access to JSON that another program wrote: a missing entry is None, an entry of the wrong kind an error."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from adatom.errors import DataError


@dataclass(frozen=True)
class Record:
    """A JSON object and the place it came from.

    Parameters
    ----------
    values
        The object as parsed.
    where
        File and path inside it, for errors.
    """

    values: dict[str, Any] = field(default_factory=dict)
    where: str = "?"

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def text(self, key: str, default: str = "") -> str:
        """A string; numbers and booleans are written out."""
        value = self.values.get(key)
        if value is None:
            return default
        if isinstance(value, dict | list):
            raise self._wrong(key, "a text", value)
        return str(value)

    def real(self, key: str) -> float | None:
        """A finite number, or None where it is missing or NaN."""
        value = self.values.get(key)
        if value is None or isinstance(value, bool):
            return None
        if not isinstance(value, int | float):
            raise self._wrong(key, "a number", value)
        return float(value) if math.isfinite(value) else None

    def extended(self, key: str) -> float | None:
        """As ``real``, but infinities count as numbers."""
        value = self.values.get(key)
        return float(value) if isinstance(value, float) and math.isinf(value) else self.real(key)

    def whole(self, key: str) -> int | None:
        """A count, or None."""
        value = self.real(key)
        return None if value is None else round(value)

    def flag(self, key: str) -> bool | None:
        """True, False, or None where it is missing."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def record(self, key: str) -> Record:
        """A nested object; an empty one where it is missing."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            raise self._wrong(key, "an object", value)
        return Record(value or {}, f"{self.where}: {key}")

    def records(self, key: str) -> list[Record]:
        """A list of objects; an empty one where it is missing."""
        value = self.values.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self._wrong(key, "a list of objects", value)
        return [Record(item, f"{self.where}: {key}[{i}]") for i, item in enumerate(value)]

    def texts(self, key: str) -> list[str]:
        """A list of strings; an empty one where it is missing."""
        value = self.values.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(key, "a list of texts", value)
        return list(value)

    def reals(self, key: str) -> np.ndarray:
        """A list of numbers as a float64 vector, NaN for null; empty where it is missing."""
        value = self.values.get(key)
        if value is None:
            return np.zeros(0)
        try:
            array = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise self._wrong(key, "a list of numbers", value) from error
        if array.ndim != 1:
            raise self._wrong(key, "a list of numbers", value)
        return array

    def numbers(self) -> dict[str, float]:
        """Every entry that is a finite number."""
        found = {key: self.real(key) for key, value in self.values.items() if isinstance(value, int | float)}
        return {key: value for key, value in found.items() if value is not None}

    def _wrong(self, key: str, wanted: str, value: object) -> DataError:
        shown = repr(value)
        return DataError(
            f"'{key}' is of the wrong kind",
            where=self.where,
            wanted=wanted,
            got=shown if len(shown) < 80 else shown[:77] + "...",
            remedy="write the file anew, or delete it: the report leaves its section out",
        )


def read_json(path: Path) -> Record:
    """A JSON file that holds one object; DataError names file and line when it does not."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _broken(path, str(error)) from error
    if not isinstance(values, dict):
        raise _broken(path, type(values).__name__)
    return Record(values, path.name)


def read_lines(path: Path) -> list[Record]:
    """A file of one JSON object per line; a last line cut short by a killed run is left out, any other is an error."""
    return list(_lines(path))


def _lines(path: Path) -> Iterator[Record]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise _broken(path, str(error)) from error
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            if i == len(lines) - 1:  # no newline after it: it was being written
                return
            raise _broken(path, f"line {i + 1}: {error}") from error
        if not isinstance(values, dict):
            raise _broken(path, f"line {i + 1}: {type(values).__name__}")
        yield Record(values, f"{path.name}, line {i + 1}")


def _broken(path: Path, got: str) -> DataError:
    return DataError(
        "this file of the run folder cannot be read",
        where=str(path),
        wanted="JSON objects",
        got=got,
        remedy="write the file anew, or delete it: the report leaves its section out",
    )
