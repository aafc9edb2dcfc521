"""A fine-tuning with nothing but a model and new data: every setting that was not given, from what the data are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adatom import model_file
from adatom.data.labels import Keys
from adatom.data.read import read
from adatom.elements import number
from adatom.train.defaults import BATCH_ATOMS, data_facts, loss_settings
from adatom.train.finetune import OPTIMIZER

RATE_OF_NEW_ELEMENTS = 0.01
STEPS, FRAMES, LEAST_STEPS, MOST_STEPS = 1500, 100, 800, 12_000  # steps for so many frames; they grow as the root
FRAMES_BETWEEN = 4  # training frames for each one that is validated or probed


def recipe(
    model: Path,
    files: Sequence[Path],
    name: str,
    data: Mapping[str, Sequence[Path]],
    settings: Mapping[str, Any],
    fields: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Plain values of a training configuration.

    Parameters
    ----------
    model
        The model file to start from.
    files
        New labelled structures.
    name
        Of the run.
    data
        Further files by set: ``valid``, ``test``.
    settings
        Entries of ``finetune`` that were given.
    fields
        Entries of ``data.keys`` that were given.
    """
    known = {number(name) for name in model_file.info(model)["elements"]}
    structures = read([str(path) for path in files], Keys.parse(dict(fields or {})))[0]
    facts = data_facts(structures)
    frames, atoms = facts.structures, facts.structures * facts.atoms
    valid = min(max(round(0.1 * frames), min(5, frames // 2)), 200)
    share = min(max(float(settings.get("replay", {}).get("share") or 0.0), 0.0), 0.9)  # others are refused later
    steps = min(max(STEPS * math.sqrt(frames / FRAMES), LEAST_STEPS), MOST_STEPS)
    new = {int(z) for s in structures for z in s.atoms.numbers} - known
    batch = max(BATCH_ATOMS, math.ceil(facts.atoms))
    per_epoch = max(atoms / batch, 1) / (1 - share)
    return {
        "name": name,
        "data": {
            "train": [str(path) for path in files],
            **{part: [str(path) for path in paths] for part, paths in data.items() if paths},
            "split": {"valid": valid},
        },
        "finetune": {"model": str(model), **settings},
        "loss": loss_settings(facts),
        "optimizer": OPTIMIZER | ({"lr": RATE_OF_NEW_ELEMENTS} if new else {}),
        "batch": {"atoms": batch},
        "limits": {"epochs": max(round(steps / per_epoch), 3)},
        "validate_every": max(1, math.ceil(FRAMES_BETWEEN * (valid + 32) / max(frames, 1))),
    }
