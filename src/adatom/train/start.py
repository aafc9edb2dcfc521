"""What a run starts with: a new potential, or one from a file together with what is to be kept in mind of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adatom import model_file
from adatom.data.dataset import Dataset
from adatom.data.read import Structure
from adatom.data.selection import concatenated
from adatom.elements import number, symbols
from adatom.errors import ConfigError
from adatom.potential import Potential
from adatom.statistics import References
from adatom.train.closest import closest_pairs
from adatom.train.config import TrainConfig
from adatom.train.finetune import START, begin, choose_weights
from adatom.train.forgetting import Probe, replayed
from adatom.train.generic import kept
from adatom.train.knowledge import representative
from adatom.train.lowest import Table
from adatom.train.parallel import Team


@dataclass(frozen=True)
class Start:
    """A potential before its first step, and all that depends on where it came from."""

    config: TrainConfig  # with the model as it is now
    potential: Potential
    references: dict[str, References]  # of each source, by its name
    dataset: Dataset  # that they were made for
    source: int = 0  # of the labels that are learned
    old_source: int = 0  # of those that are replayed
    replay: tuple[Structure, ...] = ()
    probe: Probe | None = None
    remarks: tuple[str, ...] = ()
    lowest: Table | None = None  # energies of atoms as they were known before

    def training_set(self) -> Dataset:
        """The new structures and the replayed ones."""
        new, reach = self.dataset, self.potential.cutoff  # a network may look further than its configuration says
        if not self.replay and self.source == 0 and new.cutoff == reach:
            return new
        sources = [*(new.sources + self.source).tolist(), *[self.old_source] * len(self.replay)]
        return Dataset(concatenated(new.structures, self.replay), reach, sources)


def tuned(config: TrainConfig, structures: Sequence[Structure], run: Path, team: Team, resume: bool) -> Start:
    """A potential from a file, ready for some training structures.

    It is written to ``run`` as ``start.adatom`` before its first step: a resumed run begins with the very same.
    """
    settings = config.finetune
    if settings is None:
        raise ConfigError("there is no model to start from", where="finetune", wanted="finetune: {model: FILE}")
    if config.schedule != "single":
        raise ConfigError(
            "fine-tuning has one stage",
            where="schedule",
            wanted="single",
            got=config.schedule,
            remedy="leave schedule out",
        )
    if config.data.sources:
        raise ConfigError(
            "a model is fine-tuned to one source of labels at a time",
            where="data.sources",
            remedy="give the files under data.train, and a name under finetune.source",
        )
    dtype = getattr(torch, config.precision)
    path = run / START
    old = model_file.info(settings.model)
    known = sorted({number(name) for name in old["elements"]})
    dataset = Dataset(structures, float(old["cutoff_A"]))
    begun = begin(settings, dataset, {number(n): e for n, e in config.data.references.items()}, dtype)
    start = begun.potential
    if resume:  # to the last digit what it was begun with
        start = model_file.load_whole(path, dtype=dtype)
    elif team.first:
        model_file.save(start, path)
    start.to(team.device)
    source, former = begun.source, 0
    if source < len(old.get("sources", [])):
        former = source  # more data for a source that is known
    periodic = any(s.atoms.pbc.any() for s in dataset.structures)
    apart = former != source or any(set(s.atoms.numbers.tolist()) & set(begun.new) for s in dataset.structures)
    replay = replayed(settings.replay, start, former, int(dataset.atoms.sum()), known, periodic, apart)
    probe = Probe.of(settings.forgetting, start, former, known, periodic, team.device)
    start.train()
    start.card = start.card | _provenance(old, settings.model, config)
    if "model" not in begun.references.source.values() and not start.sources:
        start.card.pop("energies", None)  # it was trained on forces alone; now every reference is that of labels
    nearest = dict(start.card.get("min_distance_A", {}))
    for pair, distance in closest_pairs(dataset).items():
        nearest[pair] = min(nearest.get(pair, distance), distance)
    new = kept(representative(dataset.structures, 2000), config.samples)
    samples = [*new[: -(-config.samples // 2)], *start.card.get("samples", [])][: config.samples]  # of both
    start.card = start.card | {"min_distance_A": nearest, "samples": samples}
    choose_weights(settings, start, begun.new)
    remarks = list(begun.remarks)
    if begun.new:
        remarks.append(f"new elements: {', '.join(symbols(begun.new))}, their rows begin as those of their kin")
    if replay:
        kind = "old data" if settings.replay.files else "generic structures, as the old model sees them"
        remarks.append(f"replay: {len(replay)} structures, {sum(len(s.atoms) for s in replay)} atoms: {kind}")
    priors = tuple(prior.config for prior in start.priors)
    resolved = config.model_copy(update={"model": start.network.config, "priors": priors})
    learned = {settings.source or "": begun.references}
    return Start(
        resolved,
        start,
        learned,
        dataset,
        source,
        former,
        tuple(replay),
        probe,
        tuple(remarks),
        old["config"].get("lowest"),
    )


def _provenance(old: dict[str, Any], path: str, config: TrainConfig) -> dict[str, Any]:
    """What the card says of where the potential came from."""
    assert config.finetune is not None
    parent = {"file": Path(path).name, "data": old.get("data"), "errors": old.get("errors")}
    settings = config.finetune.model_dump(mode="json", exclude={"model"})
    return {"finetuned": {"from": parent, "settings": settings, "before": old.get("finetuned")}}
