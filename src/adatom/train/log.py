"""The log of a run: one JSON record a line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from adatom.train.checkpoint import disk
from adatom.train.loggers import Logger

LOG = "log.jsonl"
START = b'{"kind": "start"'


class Log:
    """``log.jsonl`` of a run folder; ``silent`` in processes that do not write. ``copies`` take the same records."""

    def __init__(self, path: Path, silent: bool = False) -> None:
        self.path, self.silent = path, silent
        self.copies: list[Logger] = []

    def add(self, record: dict[str, Any]) -> None:
        """Append one record; CheckpointError when it cannot be written."""
        if not self.silent:
            with disk(self.path), self.path.open("a") as file:
                file.write(json.dumps({key: _finite(value) for key, value in record.items()}) + "\n")
        for copy in self.copies:
            copy.log(record)

    def close(self) -> None:
        """Let the copies write what they hold back."""
        for copy in self.copies:
            copy.close()

    def size(self) -> int:
        """Bytes written so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, kept: int) -> None:
        """Take out what came after the first ``kept`` bytes, all but the starts of sessions."""
        if self.size() <= kept:
            return
        with disk(self.path), self.path.open("r+b") as file:
            file.seek(kept)
            starts = [line for line in file if line.startswith(START) and line.endswith(b"\n")]
            file.seek(kept)
            file.writelines(starts)
            file.truncate()


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
