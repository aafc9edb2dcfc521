"""Settings of a training run from facts of the data, for those who would rather not choose.

Every rule is a pure function of :class:`DataFacts`; the runs that stand behind the numbers are in LOG.md. ``auto`` in a
configuration is one of these rules, worked out before training: what a run folder keeps are plain numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adatom.data.read import LABELS, Structure, read
from adatom.data.selection import Selection
from adatom.errors import ConfigError, LabelError
from adatom.train.config import DataConfig, TrainConfig
from adatom.train.loss import LossConfig

AUTO = "auto"
BATCH_ATOMS = 64  # on a CPU, smaller batches cost nearly as much for each step
LEAST_BATCHES = 8  # of an epoch: a few structures are still shown in several batches
STEPS, LEAST_STEPS = 12_000, 2_000  # of a whole run
EPOCHS = (30, 150)  # fewer leave large sets half learned, more only fit small ones closer
HELD_BACK, MOST_HELD_BACK = 0.1, 1000  # share for validation and for testing, and its largest number
LEAST_TO_TEST = 50  # structures; below, all that can be spared is validated on


@dataclass(frozen=True)
class DataFacts:
    """What the rules look at: of the structures that are not single atoms."""

    structures: int
    atoms: float  # mean of a structure
    labelled: Mapping[str, float]  # share of the structures with energy, forces and, of periodic ones, stress


def data_facts(structures: Sequence[Structure]) -> DataFacts:
    """Facts of structures as they were read: of columns of numbers, so that a store makes no structure for them.

    Stress is asked of structures that are periodic in three directions; without any of those nothing has it.
    """
    chosen = Selection.of(structures)
    chosen = chosen.select(np.flatnonzero(~chosen.isolated))
    shares = {}
    for name in LABELS:
        known = chosen.has(name)
        known = known[chosen.periodic] if name == "stress" else known
        shares[name] = float(known.mean()) if len(known) else 0.0
    return DataFacts(len(chosen), float(chosen.atoms.mean()) if len(chosen) else 1.0, shares)


def batch_atoms(facts: DataFacts) -> int:
    """Atoms of a batch: 64, less where the set would not make eight batches, never less than a structure."""
    least = int(np.ceil(facts.atoms))
    return max(least, min(BATCH_ATOMS, int(facts.structures * facts.atoms / LEAST_BATCHES)))


def epochs(facts: DataFacts, atoms: int) -> int:
    """As many epochs as make 12,000 steps of batches of so many atoms, between 30 and 150; 2,000 steps at least."""
    batches = max(facts.structures / max(atoms // max(facts.atoms, 1.0), 1.0), 1.0)
    few, many = EPOCHS
    return round(min(max(STEPS / batches, few), max(many, LEAST_STEPS / batches)))


def loss_settings(facts: DataFacts) -> dict[str, Any]:
    """Weights of the loss: those of ``LossConfig``, zero for labels that no structure has.

    Labels that only some structures have are used where they are (``allow_missing``). Without forces the energy is all
    there is: its late weight is the early one.

    Raises
    ------
    LabelError
        No structure has an energy or forces.
    """
    usual = LossConfig()
    if facts.labelled["energy"] == facts.labelled["forces"] == 0:
        raise LabelError(
            "there is nothing to learn from",
            where="data.train",
            wanted="structures with energies or forces",
            got=f"{facts.structures} structures of more than one atom, none of them with either",
            remedy="name the fields that hold them in data.keys",
        )
    absent = [name for name in LABELS if facts.labelled[name] == 0]
    settings: dict[str, Any] = dict.fromkeys(absent, 0.0)
    if usual.late is not None:
        settings["late"] = None if "forces" in absent else usual.late.model_dump() | dict.fromkeys(absent, 0.0)
    partly = [name for name in LABELS if 0 < facts.labelled[name] < 1]
    return settings | ({"allow_missing": partly} if partly else {})


def split_settings(facts: DataFacts, given: Sequence[str] = ()) -> dict[str, Any]:
    """A tenth for validation and, from 50 structures on, a tenth to test on; at most 1,000 each.

    Sets that are ``given`` as files are not split off.
    """
    share = min(max(round(HELD_BACK * facts.structures), 1), MOST_HELD_BACK) if facts.structures > 1 else 0
    test = share if facts.structures >= LEAST_TO_TEST and "test" not in given else 0
    return {"valid": 0 if "valid" in given else share, "test": test}


def completed(values: Mapping[str, Any], facts: DataFacts) -> dict[str, Any]:
    """Plain values of a configuration with every ``auto`` worked out.

    ``auto`` may stand for ``batch`` or ``batch.atoms``, ``limits.epochs``, ``loss`` and ``data.split``.
    """
    done = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    if done.get("batch") == AUTO:
        done["batch"] = {"atoms": AUTO}
    atoms = batch_atoms(facts)
    batch, limits, data = done.get("batch"), done.get("limits"), done.get("data")
    if isinstance(batch, dict) and batch.get("atoms") == AUTO:
        batch["atoms"] = atoms
    if isinstance(limits, dict) and limits.get("epochs") == AUTO:
        chosen = batch.get("atoms") if isinstance(batch, dict) else None
        limits["epochs"] = epochs(facts, chosen if isinstance(chosen, int) else atoms)
    if done.get("loss") == AUTO:
        done["loss"] = loss_settings(facts)
    if isinstance(data, dict) and data.get("split") == AUTO:
        data["split"] = split_settings(facts, [part for part in ("valid", "test") if data.get(part)])
    return done


def wants_facts(values: Mapping[str, Any]) -> bool:
    """Whether ``auto`` stands where only the data can say what is meant."""
    limits, batch, data = (values.get(key) for key in ("limits", "batch", "data"))
    return (
        AUTO in (batch, values.get("loss"))
        or (isinstance(limits, Mapping) and limits.get("epochs") == AUTO)
        or (isinstance(batch, Mapping) and batch.get("atoms") == AUTO)
        or (isinstance(data, Mapping) and data.get("split") == AUTO)
    )


def resolved(values: Mapping[str, Any], where: str | None = None) -> TrainConfig:
    """The configuration that plain values stand for; the training files are read where ``auto`` needs them."""
    if not wants_facts(values):
        return TrainConfig.parse(dict(values), where=where)
    return TrainConfig.parse(
        completed(values, _facts_of(values.get("data") or {}, where or "configuration")), where=where
    )


def recipe(files: Sequence[str | Path], **choices: Any) -> TrainConfig:
    """A run over these files with every setting taken from what they hold: MLANet of size S unless chosen otherwise.

    ``choices`` are entries of the configuration that go before the rules, nested as in YAML:
    ``recipe(["data.xyz"], model={"size": "M"}, limits={"minutes": 10})``.

    Raises
    ------
    ConfigError
        No file is named, or an entry is unknown.
    LabelError
        No structure has an energy or forces.
    """
    if not files:
        raise ConfigError("there is nothing to train on", where="data.train", wanted="at least one file", got="none")
    values: dict[str, Any] = {
        "name": Path(files[0]).name.split(".")[0],
        "data": {"train": [str(file) for file in files], "split": AUTO},
        "model": {"architecture": "mlanet", "size": "S"},
        "batch": AUTO,
        "limits": {} if choices.get("limits") else {"epochs": AUTO},
    }
    values = _merged(values, {key: value for key, value in choices.items() if key != "loss"})
    facts = _facts_of(values["data"], "recipe")
    asked = choices.get("loss", {})
    values["loss"] = _merged(loss_settings(facts), asked) if isinstance(asked, Mapping) else asked
    return TrainConfig.parse(completed(values, facts), where="recipe")


def told(config: TrainConfig) -> str:
    """One line on what a recipe has chosen."""
    model, split, weights = config.model, config.data.split, config.loss.weights(0.0)._asdict()
    limits = [
        f"{value:g} {name}"
        for name, value in config.limits.model_dump(include={"epochs", "steps", "minutes"}).items()
        if value
    ]
    return (
        f"{model.architecture} {model.size}, {' or '.join(limits)} of batches of {config.batch.atoms} atoms, "
        f"{' and '.join(name for name, weight in weights.items() if weight > 0)} learned, "
        f"{split.valid} structures to validate, {split.test} to test"
    )


def _facts_of(data: Mapping[str, Any], where: str) -> DataFacts:
    """Facts of the training files that the entry ``data`` of a configuration names."""
    if not isinstance(data, Mapping):
        raise ConfigError("data is a mapping", where=f"{where}: data", wanted="data: {train: [FILE]}", got=repr(data))
    plain = {key: value for key, value in data.items() if (key, value) != ("split", AUTO)}
    config = DataConfig.parse(plain, where=f"{where}: data")
    every = [read(own.train, own.keys, own.units)[0] for _, own in config.by_source()]
    return data_facts(every[0] if len(every) == 1 else [s for structures in every for s in structures])


def _merged(values: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, value in choices.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
