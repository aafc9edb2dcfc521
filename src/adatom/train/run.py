"""A training run from files to a run folder: read, check, split, fit, test, save."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.text import Text

from adatom import model_file
from adatom.data.dataset import Dataset
from adatom.data.doctor import unseen
from adatom.data.selection import Selection
from adatom.errors import ConfigError
from adatom.models import MODELS
from adatom.potential import Potential
from adatom.priors import PRIORS
from adatom.report import write_report
from adatom.statistics import References
from adatom.train.anchors import anchors
from adatom.train.checkpoint import BEFORE, CHECKPOINT, disk, sweep
from adatom.train.closest import closest_pairs
from adatom.train.config import TrainConfig
from adatom.train.evaluate import errors_table, predict
from adatom.train.finetune import merged
from adatom.train.forgetting import forgetting_table
from adatom.train.generic import kept
from adatom.train.interrupt import Stopped
from adatom.train.knowledge import (
    NO_MEANING,
    check_structures,
    facts,
    references_of,
    representative,
    scales_of,
    without_energies,
)
from adatom.train.lock import lock
from adatom.train.log import LOG
from adatom.train.loggers import make_loggers, require_loggers
from adatom.train.loop import Trainer
from adatom.train.lowest import deepened
from adatom.train.parallel import Team
from adatom.train.progress import Progress
from adatom.train.records import data_card, data_record, identity, start_record, versions
from adatom.train.sets import COLOURS, Sets, read_all, show
from adatom.train.stages import stages_of
from adatom.train.start import Start, tuned
from adatom.train.state import State

MATMUL = {"float32": "highest", "tf32": "high", "bf16": "medium"}  # as PyTorch calls them


def train(
    config: TrainConfig, folder: str | Path = "runs", resume: bool = False, console: Console | None = None
) -> Path:
    """Train a potential; returns the run folder ``folder/name``.

    The folder receives ``config.yaml``, ``data.json``, ``log.jsonl``, ``checkpoint.safetensors``, ``model.adatom``,
    ``predictions.npz``, ``metrics.json`` and ``report.html``.

    Raises
    ------
    ConfigError
        The run folder exists already and ``resume`` was not asked for; the machine has no GPU, or fewer devices than
        asked for; something waits for validations and there is no validation set; the package of a logger is missing.
    LockError
        Another process trains into this run folder.
    CheckpointError
        ``resume`` with other data or settings than the run was begun with, or a disk that is full.
    DataError
        The data cannot be trained on; names file, record and field.
    TrainingError
        The loss is no longer a number.
    Stopped
        Ctrl-C, SIGTERM or the end of ``max_time``: a KeyboardInterrupt after the step in hand, and after the
        checkpoint that the run goes on from.
    """
    console = console or Console()
    require_loggers(config.loggers)
    run = _check_folder(Path(folder) / config.name, resume)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    torch.set_float32_matmul_precision(MATMUL[config.matmul])
    team = Team.launch(config)
    if not team.first:
        return _train(config, run, team, resume, Console(quiet=True))
    with lock(run) as remark:
        _warn(remark, console)
        _check_folder(run, resume)  # another may have begun and ended since
        return _train(config, run, team, resume, console)


def _train(config: TrainConfig, run: Path, team: Team, resume: bool, console: Console) -> Path:
    """As one process of the team does."""
    sets = read_all(config.data, needed(config), console)
    _require_validation(config, sets)
    start = _fresh(config, sets) if config.finetune is None else tuned(config, sets.train, run, team, resume)
    resolved, potential, references = start.config, start.potential, start.references
    sets = _fitting(sets, potential, start, console)
    with disk(run):
        run.mkdir(parents=True, exist_ok=True)
    potential.card |= {"data": data_card(sets), "versions": versions()}
    train_set = start.training_set()
    valid_set = Dataset(sets.valid, potential.cutoff, sets.source_of("valid", start.source)) if sets.valid else None
    if team.first:
        sweep(run)
    trainer = Trainer(resolved, potential, train_set, valid_set, run, team, identity(resolved, sets))
    trainer.probe = start.probe
    if resume:
        _warn(trainer.resume(), console)
    else:
        trainer.save()  # before the first line of the log: a run that can no longer be started can go on
    team.wait()  # until all have read the checkpoint
    if team.first:
        _write(run / "config.yaml", resolved.to_yaml())
        _write_json(run / "data.json", data_record(sets, references, potential.card["data"]))
        trainer.log.copies = make_loggers(config.loggers, run, resolved.model_dump(mode="json"), trainer.state.step)
    trainer.log.add(start_record(config, potential, team))
    title = f"{config.name}: {type(potential.network).__name__}, {len(train_set)} structures"
    try:
        with Progress(title, console=console) as display:
            trainer.fit(display)
    except Stopped as stop:
        console.print(
            f"{stop.reason}: stopped at step {trainer.state.step}; all of it is kept: go on with --resume",
            soft_wrap=True,
        )
        raise
    finally:
        trainer.log.close()
    if team.first:
        metrics = _finish(merged(trainer.potential), config, sets, run, trainer.state, team.device, start)
        _tell(metrics, trainer.state, run, console)
    team.wait()
    return run


def _warn(remark: str, console: Console) -> None:
    if remark:
        console.print(f"warning: {remark}", style="yellow", soft_wrap=True)


def _fresh(config: TrainConfig, sets: Sets) -> Start:
    """A new potential, made for the training set."""
    sources = sets.source_of("train")
    dataset = Dataset(sets.train, config.model.cutoff, sources)
    references = {
        name: references_of(dataset.chosen.select(np.flatnonzero(sources == k)), data)
        for k, (name, data) in enumerate(config.data.by_source())
    }
    model = config.model.model_copy(update={"sources": len(references)}).completed(facts(dataset))
    resolved = config.model_copy(update={"model": model})
    potential = make_potential(resolved, dataset, references)
    held = anchors(potential, config.anchors, bool(np.isfinite(dataset.chosen.energies).any()))
    remarks = (f"anchors: {len(held)} dimers whose energy is that of the atoms and their cores",) if held else ()
    return Start(resolved, potential, references, dataset, replay=tuple(held), remarks=remarks)


def _require_validation(config: TrainConfig, sets: Sets) -> None:
    """What waits for a validation must not wait for ever."""
    waiting = {
        "patience": config.patience is not None,
        "optimizer.schedule = plateau": config.optimizer.schedule == "plateau",
        "keep = best": config.keep == "best",
    }
    for entry, waits in waiting.items():
        if waits and not sets.valid:
            raise ConfigError(
                f"{entry} goes by the validation loss, and there is no validation set",
                where=entry.split(" ")[0],
                wanted="structures to validate on",
                got="none",
                remedy="give data.valid, or set data.split.valid above 0",
            )


def _fitting(sets: Sets, potential: Potential, start: Start, console: Console) -> Sets:
    """The same sets, with what is to be said of them beside this network.

    UnknownElementError or ChargeError when a structure to validate or to test on is none that training prepares for.
    """
    network = potential.network
    seen = {name for name, sees in (("charge", network.embeds_charge), ("spin", network.embeds_spin)) if sees}
    findings = [*unseen(sets.train, seen), *without_energies(start.references)]
    show(findings, console)
    for part in ("valid", "test"):
        check_structures(potential, sets.parts()[part], sets.source_of(part, start.source))
    for remark in start.remarks:
        console.print(Text.assemble(("note", COLOURS["note"]), f": {remark}"))
    return replace(sets, findings=[*sets.findings, *findings])


def needed(config: TrainConfig) -> set[str]:
    """Labels that the loss of any stage asks of every structure."""
    return set().union(*(stage.loss.needed() for stage in stages_of(config)))


def make_potential(config: TrainConfig, dataset: Dataset, references: dict[str, References]) -> Potential:
    """A fresh potential for the first stage of a run, whose scales come from the training set."""
    first = Selection.of(dataset.structures).select(np.flatnonzero(dataset.sources == 0))
    sizes = scales_of(first, next(iter(references.values())))
    scale = next((s for s in (sizes.forces, sizes.energy) if np.isfinite(s) and s > 0), 1.0)
    model = stages_of(config)[0].model
    network = MODELS[model.architecture](model)
    network.to(getattr(torch, config.precision))
    closest = closest_pairs(dataset)
    priors = tuple(PRIORS[p.name](p.model_dump() | {"closest": p.closest or closest}) for p in config.priors)
    card: dict[str, Any] = {
        "min_distance_A": closest,
        "samples": kept(representative(dataset.structures, 2000), config.samples),
    }
    if without_energies(references):
        card["energies"] = NO_MEANING
    energies = {name: own.energies for name, own in references.items()}
    return Potential(network, energies.get("", energies), scale, priors, model.derivatives, card)  # type: ignore[arg-type]


def _finish(
    potential: Potential, config: TrainConfig, sets: Sets, run: Path, state: State, device: torch.device, start: Start
) -> dict[str, Any]:
    """Errors of every set, predictions and the model file."""
    potential = deepened(potential, start.training_set(), config.batch, start.lowest)
    metrics: dict[str, Any] = {"train_seconds": state.seconds}
    if state.trouble.skipped or state.trouble.rollbacks:
        metrics["not_finite"] = {"steps_not_taken_for": state.trouble.skipped, "rollbacks": state.trouble.rollbacks}
    for part, structures in sets.parts().items():
        if not structures:
            continue
        dataset = Dataset(structures, potential.cutoff, sets.source_of(part, start.source))
        predictions = predict(potential, dataset, config.batch, device)
        metrics[part] = _plain(predictions.errors())
        for k, name in enumerate(potential.sources if sets.sources else ()):
            own = np.flatnonzero(dataset.sources == k)
            if len(own):
                metrics.setdefault("sources", {}).setdefault(name, {})[part] = _plain(predictions.of(own).errors())
        if part != "train":
            path = run / ("predictions.npz" if part == "test" else "valid_predictions.npz")
            with disk(path):
                predictions.save(path)
    if start.probe is not None:
        start.probe.look(potential)
        metrics["forgetting"] = start.probe.record(state.ended)
    potential.card["errors"] = {part: metrics[part] for part in ("valid", "test") if part in metrics}
    potential.card["training"] = {
        "seconds": state.seconds,
        "seed": config.seed,
        "loss": config.loss.model_dump(mode="json"),
        "schedule": config.schedule,
    }
    with disk(run / "model.adatom"):
        model_file.save(potential, run / "model.adatom")
    _write_json(run / "card.json", model_file.describe(potential))
    _write_json(run / "metrics.json", metrics)
    return metrics


def _tell(metrics: dict[str, Any], state: State, run: Path, console: Console) -> None:
    """What came out, for the terminal; the report is written."""
    if state.trouble.told():
        console.print(f"{state.trouble.told()}: see {run / LOG}", style="yellow", soft_wrap=True)
    console.print(errors_table(metrics))
    for name, own in metrics.get("sources", {}).items():
        console.print(errors_table(own, f"Errors of {name}"))
    if "forgetting" in metrics:
        console.print(forgetting_table(metrics["forgetting"]))
    console.print(f"model   {run / 'model.adatom'}\nreport  {write_report(run)}", soft_wrap=True)


def _plain(errors: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: None if np.isnan(value) else value for name, value in errors.items()}


def resumable(run: Path) -> bool:
    """Whether a run folder holds a checkpoint to go on from."""
    return (run / CHECKPOINT).exists() or (run / BEFORE).exists()


def _check_folder(run: Path, resume: bool) -> Path:
    taken = (run / LOG).exists() or (run / "model.adatom").exists()
    if taken and not resume:
        raise ConfigError(
            "this run folder holds a run already, and nothing is overwritten",
            where=str(run),
            remedy="continue it with --resume, give the run another name, or remove the folder",
        )
    if resume and not resumable(run):
        raise ConfigError("there is no checkpoint to resume from", where=str(run), remedy="start without --resume")
    return run


def _write_json(path: Path, values: dict[str, Any]) -> None:
    _write(path, json.dumps(values, indent=1, ensure_ascii=False))


def _write(path: Path, text: str) -> None:
    with disk(path):
        model_file.write_atomically(path, text.encode())
