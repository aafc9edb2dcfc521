"""A training run from files to a run folder: read, check, split, fit, test, save."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.text import Text

from adatom import model_file
from adatom.data.dataset import Dataset
from adatom.data.doctor import Finding, examine, unseen
from adatom.data.doctor.examine import SAMPLE
from adatom.data.read import Found, Structure, fingerprint, found_table, read, require
from adatom.data.selection import Selection, concatenated
from adatom.data.split import check_leaks, split
from adatom.elements import symbol
from adatom.errors import ConfigError, DataError
from adatom.models import MODELS
from adatom.potential import Potential
from adatom.priors import PRIORS
from adatom.report import write_report
from adatom.statistics import References
from adatom.train.checkpoint import BEFORE, CHECKPOINT, disk, sweep
from adatom.train.config import DataConfig, TrainConfig
from adatom.train.evaluate import errors_table, predict
from adatom.train.finetune import merged
from adatom.train.forgetting import forgetting_table
from adatom.train.generic import kept
from adatom.train.interrupt import Stopped
from adatom.train.knowledge import check_structures, closest_pairs, facts, references_of, representative, scales_of
from adatom.train.log import LOG
from adatom.train.loggers import make_loggers, require_loggers
from adatom.train.loop import Trainer
from adatom.train.parallel import Team
from adatom.train.progress import Progress
from adatom.train.stages import stages_of
from adatom.train.start import Start, tuned
from adatom.train.state import State

MATMUL = {"float32": "highest", "tf32": "high", "bf16": "medium"}  # as PyTorch calls them
QUICK = 2_000  # structures of a store that are looked at before training
COLOURS = {"error": "bold red", "warning": "yellow", "note": "green"}  # of findings


@dataclass(frozen=True)
class Sets:
    """The structures of a run, parted, with what their files held and what the doctor says."""

    train: Sequence[Structure]
    valid: Sequence[Structure]
    test: Sequence[Structure]
    found: dict[str, list[Found]]  # part -> its files
    findings: list[Finding]
    sources: dict[str, np.ndarray] = field(default_factory=dict)  # part -> source of each of its structures

    def source_of(self, part: str, first: int = 0) -> np.ndarray:
        """Source of the labels of each structure of a part, counted from ``first``."""
        return first + self.sources.get(part, np.zeros(len(self.parts()[part]), dtype=np.int64))

    def parts(self) -> dict[str, Sequence[Structure]]:
        """By name."""
        return {"train": self.train, "valid": self.valid, "test": self.test}


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
    console = console if team.first else Console(quiet=True)
    sets = read_all(config.data, needed(config), console)
    _require_validation(config, sets)
    with disk(run):
        run.mkdir(parents=True, exist_ok=True)
    start = _fresh(config, sets) if config.finetune is None else tuned(config, sets.train, run, team, resume)
    resolved, potential, references = start.config, start.potential, start.references
    sets = _fitting(sets, potential, start, console)
    potential.card |= {"data": _data_card(sets), "versions": _versions()}
    train_set = start.training_set()
    valid_set = Dataset(sets.valid, potential.cutoff, sets.source_of("valid", start.source)) if sets.valid else None
    if team.first:
        sweep(run)
    trainer = Trainer(resolved, potential, train_set, valid_set, run, team, _identity(resolved, sets))
    trainer.probe = start.probe
    if resume:
        remark = trainer.resume()
        if remark:
            console.print(f"warning: {remark}", style="yellow", soft_wrap=True)
    else:
        trainer.save()  # before the first line of the log: a run that can no longer be started can go on
    team.wait()  # until all have read the checkpoint
    if team.first:
        _write(run / "config.yaml", resolved.to_yaml())
        _write_json(run / "data.json", _data_record(sets, references, potential.card["data"]))
        trainer.log.copies = make_loggers(config.loggers, run, resolved.model_dump(mode="json"), trainer.state.step)
    trainer.log.add(_start_record(config, potential, team))
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
        if trainer.state.trouble.told():
            console.print(f"{trainer.state.trouble.told()}: see {run / LOG}", style="yellow", soft_wrap=True)
        console.print(errors_table(metrics))
        for name, own in metrics.get("sources", {}).items():
            console.print(errors_table(own, f"Errors of {name}"))
        if "forgetting" in metrics:
            console.print(forgetting_table(metrics["forgetting"]))
        console.print(f"model   {run / 'model.adatom'}\nreport  {write_report(run)}", soft_wrap=True)
    team.wait()
    return run


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
    return Start(resolved, make_potential(resolved, dataset, references), references, dataset)


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


def read_all(config: DataConfig, needed: set[str], console: Console) -> Sets:
    """The structures of all sources of labels, one source after the other."""
    every = config.by_source()
    if len(every) == 1:
        return read_sets(every[0][1], needed, console)
    read: list[Sets] = []
    for name, own in every:
        console.print(Text.assemble(("source ", "bold"), name))
        read.append(read_sets(own, needed, console))
    parts = {part: concatenated(*(sets.parts()[part] for sets in read)) for part in read[0].parts()}
    sources = {part: np.repeat(np.arange(len(read)), [len(sets.parts()[part]) for sets in read]) for part in parts}
    found = {part: [f for sets in read for f in sets.found.get(part, [])] for part in parts}
    return Sets(**parts, found=found, findings=[f for sets in read for f in sets.findings], sources=sources)


def read_sets(config: DataConfig, needed: set[str], console: Console) -> Sets:
    """Read all files, show what was found, split; labels must be there, and no test structure in the training set."""
    found: dict[str, list[Found]] = {}
    parts: dict[str, Sequence[Structure]] = {"valid": [], "test": []}
    everything: Sequence[Structure]
    everything, found["train"] = read(config.train, config.keys, config.units)
    for part, files in (("valid", config.valid), ("test", config.test)):
        if files:
            parts[part], found[part] = read(files, config.keys, config.units)
    console.print(found_table([f for files in found.values() for f in files]))
    cut = config.split.model_copy(
        update={name: 0 for name in ("valid", "test") if parts[name]}  # given as files: nothing to split off
    )
    training, valid, test = split(everything, cut)
    valid, test = parts["valid"] or valid, parts["test"] or test
    for structures in (training, valid, test):
        if structures:
            require(structures, needed)
    remarks = check_leaks(concatenated(training, valid), test)
    findings = [Finding("sample", "note", "data", remark) for remark in remarks]
    examined = {"train": training, "valid": valid, "test": test}
    sample = SAMPLE if isinstance(training, list) else QUICK
    findings += examine(examined, used=sorted(needed), sample=sample, tables=False).findings
    _show(findings, console)
    console.print(f"{len(training)} structures to train on, {len(valid)} to validate, {len(test)} to test")
    return Sets(training, valid, test, found, findings)


def _show(findings: Sequence[Finding], console: Console) -> None:
    """Print findings; DataError at the first that forbids training."""
    for finding in findings:
        console.print(Text.assemble((finding.severity, COLOURS[finding.severity]), f": {finding.message}"))
        if finding.severity == "error":
            raise DataError(finding.message, where=finding.where, remedy=finding.remedy)


def _fitting(sets: Sets, potential: Potential, start: Start, console: Console) -> Sets:
    """The same sets, with what is to be said of them beside this network.

    UnknownElementError or ChargeError when a structure to validate or to test on is none that training prepares for.
    """
    network = potential.network
    seen = {name for name, sees in (("charge", network.embeds_charge), ("spin", network.embeds_spin)) if sees}
    findings = unseen(sets.train, seen)
    _show(findings, console)
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
    priors = tuple(PRIORS[p.name](p.model_dump()) for p in config.priors)
    card = {
        "min_distance_A": closest_pairs(dataset),
        "samples": kept(representative(dataset.structures, 2000), config.samples),
    }
    energies = {name: own.energies for name, own in references.items()}
    return Potential(network, energies.get("", energies), scale, priors, model.derivatives, card)  # type: ignore[arg-type]


def _finish(
    potential: Potential, config: TrainConfig, sets: Sets, run: Path, state: State, device: torch.device, start: Start
) -> dict[str, Any]:
    """Errors of every set, predictions and the model file."""
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


def _start_record(config: TrainConfig, potential: Potential, team: Team) -> dict[str, Any]:
    return {
        "kind": "start",
        "time": time.time(),
        "architecture": config.model.architecture,
        "size": config.model.size,
        "schedule": config.schedule,
        "parameters": sum(p.numel() for p in potential.network.parameters()),
        "device": str(team.device),
        "processes": team.size,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }


def _identity(config: TrainConfig, sets: Sets) -> dict[str, Any]:
    """The resolved configuration with fingerprints of the three sets in place of files, which may have moved."""
    values = config.model_dump(mode="json")
    parts = sets.parts()
    settings = {name: value for name, value in values["data"].items() if name not in parts}  # first: the likelier cause
    for own in settings["sources"].values():
        for part in parts:
            del own[part]
    return values | {"data": settings | {part: fingerprint(structures) for part, structures in parts.items()}}


def _data_card(sets: Sets) -> dict[str, Any]:
    return {
        "fingerprint": fingerprint(sets.train),
        "structures": {part: len(structures) for part, structures in sets.parts().items()},
        "files": sorted({Path(f.file).name for files in sets.found.values() for f in files}),
    }


def _data_record(sets: Sets, references: dict[str, References], card: dict[str, Any]) -> dict[str, Any]:
    """What ``data.json`` holds."""
    files = [
        {
            "file": f.file, "split": part, "frames": f.frames, "atoms": f.atoms, "labelled": dict(f.labelled),
            **{f"{label}_key": f.key(label) for label in ("energy", "forces", "stress")},
        }
        for part, found in sets.found.items()
        for f in found
    ]  # fmt: skip
    parts = {part: Selection.of(structures) for part, structures in sets.parts().items()}
    elements: Counter[str] = Counter()
    for chosen in parts.values():
        elements.update({symbol(z): atoms for z, atoms in chosen.elements.items()})
    return {
        "files": files,
        "splits": card["structures"],
        "elements": dict(elements),
        "config_types": {part: dict(chosen.config_type_counts()) for part, chosen in parts.items()},
        "references": {} if len(references) > 1 else _references_record(next(iter(references.values()))),
        "references_by_source": {name: _references_record(own) for name, own in references.items() if name},
        "findings": [
            {"severity": f.severity, "kind": f.kind, "where": f.where, "message": f.message, "remedy": f.remedy}
            for f in [*sets.findings, *_remarks(sets, references)]
        ],
        "fingerprint": card["fingerprint"],
    }


def _references_record(references: References) -> dict[str, Any]:
    return {
        symbol(z): {"energy_eV": energy, "source": references.source[z]} for z, energy in references.energies.items()
    }


def _remarks(sets: Sets, references: dict[str, References]) -> list[Finding]:
    """What reading and the fit of the references have to say, as findings."""
    remarks = [(f.file, remark) for found in sets.found.values() for f in found for remark in f.remarks]
    remarks += [(f"references {name}".strip(), remark) for name, own in references.items() for remark in own.remarks]
    return [Finding("remark", "note", where, remark, "") for where, remark in remarks]


def _versions() -> dict[str, str]:
    packages = ("adatom", "torch", "numpy", "ase", "vesin")
    return {"python": sys.version.split()[0]} | {name: version(name) for name in packages}


def _write_json(path: Path, values: dict[str, Any]) -> None:
    _write(path, json.dumps(values, indent=1, ensure_ascii=False))


def _write(path: Path, text: str) -> None:
    with disk(path):
        model_file.write_atomically(path, text.encode())
