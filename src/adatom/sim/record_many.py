"""What a relaxation of many structures leaves on disk while it runs: one line for each that has ended."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch

from adatom.errors import CheckpointError, ConfigError
from adatom.potential import Potential

FORMAT = 1


class Ended:
    """A file of lines of JSON: what the run is, then each structure as it ends. A line cut short is dropped.

    Parameters
    ----------
    path
        The file; None keeps nothing.
    meaning
        What makes this run the same run: settings, potential, structures.
    resume
        Go on with the file that is there; without it, an existing file is an error.

    Raises
    ------
    CheckpointError
        There is nothing to go on with, or it belongs to another run.
    ConfigError
        A run has left its file here, and it is not to be gone on with.
    """

    def __init__(self, path: Path | None, meaning: dict[str, Any], resume: bool = False) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []  # of structures that had ended before
        if path is None:
            return
        if resume:
            self.lines = _read(path, meaning)
        elif path.exists():
            raise ConfigError(
                "an unfinished run has left its results here",
                where=str(path),
                wanted="a name without it",
                remedy="go on with it (restart), or replace it (overwrite)",
            )
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"kind": "start", "format": FORMAT} | meaning) + "\n", encoding="utf-8")

    def add(self, line: dict[str, Any]) -> None:
        """One more structure; CheckpointError when the disk does not take it."""
        if self.path is None:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"kind": "structure"} | line) + "\n")
        except OSError as error:
            raise CheckpointError(
                "a result could not be written; those before it are whole",
                where=str(self.path),
                got=str(error),
                remedy="make room on the disk and go on with restart",
            ) from error

    def remove(self) -> None:
        """All is done, and kept elsewhere."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _read(path: Path, meaning: dict[str, Any]) -> list[dict[str, Any]]:
    """Lines of an earlier leg; what stands after the last whole line is cut off."""
    if not path.exists():
        raise CheckpointError(
            "there is no run to continue", where=str(path), wanted="what it left", remedy="start without restart"
        )
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    try:
        lines = [json.loads(line) for line in whole.decode("utf-8").splitlines()]
        start = lines[0]
    except (ValueError, IndexError) as error:
        raise CheckpointError(
            "the file of an unfinished run is damaged", where=str(path), got=str(error), remedy="start again, overwrite"
        ) from error
    before = {key: start.get(key) for key in meaning}
    changed = [key for key in meaning if before[key] != json.loads(json.dumps(meaning[key]))]
    if start.get("format") != FORMAT or changed:
        raise CheckpointError(
            "the unfinished run here is another one",
            where=str(path),
            wanted="the same structures, potential and settings",
            got=f"another {', '.join(changed) or 'format'}",
            remedy="give what it was started with, or start again with overwrite",
        )
    return lines[1:]


def digest_of_structures(structures: Sequence[ase.Atoms]) -> str:
    """What structures are, in a few letters: species, positions, cells, constraints, charges."""
    known = hashlib.sha256()
    for atoms in structures:
        for array in (atoms.numbers, atoms.get_positions(), atoms.cell.array, atoms.pbc):
            known.update(np.ascontiguousarray(array).tobytes())
        known.update(repr([constraint.todict() for constraint in atoms.constraints]).encode())
        known.update(repr([atoms.info.get(key) for key in ("total_charge", "charge", "multiplicity", "spin")]).encode())
    return known.hexdigest()[:16]


def digest_of_potential(potential: Potential) -> str:
    """What a potential is: its weights and references."""
    known = hashlib.sha256()
    for name, tensor in sorted(potential.state_dict().items()):
        known.update(name.encode())
        known.update(tensor.detach().to("cpu", torch.float64).numpy().tobytes())
    return known.hexdigest()[:16]
