"""A run folder as frozen values. Any file may be missing; one that is there and broken is an error that names it."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from adatom.errors import DataError
from adatom.report.record import Record, read_json, read_lines

Columns = dict[str, np.ndarray]  # name -> (T,) float64, NaN where a line has no such entry
TROUBLE = ("not finite", "spike", "memory")  # kinds of lines


@dataclass(frozen=True)
class History:
    """Learning curves: what ``log.jsonl`` says, a resumed stretch replacing the one it repeats."""

    start: Record
    steps: Columns
    valid: Columns
    end: Record
    borders: tuple[tuple[float, str], ...] = ()  # first step and name of every stage but the first
    forgetting: Columns = field(default_factory=dict)  # errors on what was known before
    trouble: tuple[Record, ...] = ()  # steps that were not taken, or stood out, or did not fit into memory


@dataclass(frozen=True)
class Finding:
    """One remark of the data doctor."""

    severity: str
    kind: str
    where: str
    message: str
    remedy: str


@dataclass(frozen=True)
class DataSheet:
    """What the model was trained on."""

    files: tuple[Record, ...]
    splits: dict[str, int]
    elements: dict[str, int]
    config_types: dict[str, dict[str, int]]  # split -> config type -> structures
    references: tuple[Record, ...]
    findings: tuple[Finding, ...]
    fingerprint: str


@dataclass(frozen=True)
class Predictions:
    """Labels and predictions of one set: S structures, N atoms; NaN = not labelled.

    Units: energy eV, forces eV/Å, stress eV/Å^3 (tension positive).
    """

    split: str
    names: np.ndarray  # (S,)
    config_types: np.ndarray  # (S,)
    n_atoms: np.ndarray  # (S,)
    numbers: np.ndarray  # (N,)
    energy_ref: np.ndarray  # (S,)
    energy: np.ndarray  # (S,)
    forces_ref: np.ndarray  # (N, 3)
    forces: np.ndarray  # (N, 3)
    stress_ref: np.ndarray  # (S, 3, 3)
    stress: np.ndarray  # (S, 3, 3)

    @property
    def owner(self) -> np.ndarray:
        """Structure of each atom, (N,)."""
        return np.repeat(np.arange(self.n_atoms.shape[0]), self.n_atoms)


@dataclass(frozen=True)
class EnergyVolume:
    """Points of an energy-volume curve (Å^3/atom, eV/atom, by rising volume) and the constants of its fit."""

    label: str
    volume: np.ndarray
    energy: np.ndarray
    fit: Record


@dataclass(frozen=True)
class Trajectory:
    """Thermodynamic log of one MD run and, where there are such, its pair distribution functions."""

    name: str
    start: Record
    columns: Columns
    end: Record
    r: np.ndarray
    g: dict[str, np.ndarray]  # "Si-O" -> (R,)


@dataclass(frozen=True)
class Run:
    """All that a run folder holds."""

    name: str
    config: str
    history: History | None
    data: DataSheet | None
    card: Record | None
    predictions: tuple[Predictions, ...]  # test before valid
    metrics: Record
    curves: tuple[EnergyVolume, ...]  # the model before the reference
    trajectories: tuple[Trajectory, ...]
    verify: Record | None
    speed: Record | None

    @property
    def empty(self) -> bool:
        """True when there is nothing to report."""
        parts = (self.config, self.history, self.data, self.card, self.predictions, self.metrics.values)
        return not any((*parts, self.curves, self.trajectories, self.verify, self.speed))


def load_run(folder: Path) -> Run:
    """Read a run folder; DataError when it does not exist, holds nothing that is known, or holds a broken file."""
    if not folder.is_dir():
        raise DataError(
            "no such run folder", where=str(folder), remedy="give the folder that `adatom train` has written"
        )
    config = folder / "config.yaml"
    run = Run(
        name=folder.resolve().name,
        config=config.read_text(encoding="utf-8") if config.is_file() else "",
        history=_history(folder / "log.jsonl"),
        data=_data_sheet(folder / "data.json"),
        card=_optional(folder / "card.json"),
        predictions=tuple(_predictions(folder)),
        metrics=_optional(folder / "metrics.json") or Record({}, "metrics.json"),
        curves=tuple(_energy_volume(folder / "eos.json")),
        trajectories=tuple(_trajectory(path) for path in sorted((folder / "md").glob("*.jsonl"))),
        verify=_optional(folder / "verify.json"),
        speed=_optional(folder / "speed.json"),
    )
    if run.empty:
        raise DataError(
            "this folder holds nothing to report",
            where=str(folder),
            wanted="log.jsonl, data.json, predictions.npz, metrics.json, ...",
            got=", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "an empty folder",
            remedy="give the folder that `adatom train` has written",
        )
    return run


def columns(lines: list[Record]) -> Columns:
    """The numeric entries of many lines as columns."""
    names = dict.fromkeys(key for line in lines for key in line.numbers())
    return {
        name: np.array([np.nan if (value := line.real(name)) is None else value for line in lines]) for name in names
    }


def _optional(path: Path) -> Record | None:
    return read_json(path) if path.is_file() else None


def _history(path: Path) -> History | None:
    """Sort the log by kind. A resumed run repeats the steps after its checkpoint: the later lines count."""
    if not path.is_file():
        return None
    start = end = Record({}, path.name)
    kept: dict[str, list[Record]] = {kind: [] for kind in ("step", "valid", "forgetting", *TROUBLE)}
    borders: dict[float, str] = {}
    for line in read_lines(path):
        kind = line.text("kind")
        if kind == "start":
            start = line
        elif kind == "end":
            end = line
        elif kind == "stage":
            borders[line.real("step") or 0.0] = line.text("stage")
        elif kind in kept:
            series, now = kept[kind], line.real("step")
            while series and now is not None and (series[-1].real("step") or 0.0) >= now:
                series.pop()
            series.append(line)
    trouble = sorted((line for kind in TROUBLE for line in kept[kind]), key=lambda line: line.real("step") or 0.0)
    curves = [columns(kept[kind]) for kind in ("step", "valid", "forgetting")]
    return History(start, curves[0], curves[1], end, tuple(sorted(borders.items())), curves[2], tuple(trouble))


def _data_sheet(path: Path) -> DataSheet | None:
    record = _optional(path)
    if record is None:
        return None
    references = record.record("references")
    counts = record.record("config_types")
    return DataSheet(
        files=tuple(record.records("files")),
        splits=_counts(record.record("splits")),
        elements=_counts(record.record("elements")),
        config_types={split: _counts(counts.record(split)) for split in counts.values},
        references=tuple(
            Record({"element": element, **references.record(element).values}, references.where)
            for element in references.values
        ),
        findings=tuple(
            Finding(f.text("severity"), f.text("kind"), f.text("where"), f.text("message"), f.text("remedy"))
            for f in record.records("findings")
        ),
        fingerprint=record.text("fingerprint"),
    )


def _counts(record: Record) -> dict[str, int]:
    return {key: round(value) for key, value in record.numbers().items()}


def _predictions(folder: Path) -> list[Predictions]:
    files = {"test": folder / "predictions.npz", "validation": folder / "valid_predictions.npz"}
    return [_read_predictions(split, path) for split, path in files.items() if path.is_file()]


def _read_predictions(split: str, path: Path) -> Predictions:
    """Read and check one archive; nothing in it is unpickled."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            held = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise _wrong_archive(path, "a .npz of plain arrays", str(error)) from error
    counts = held["n_atoms"] = held.get("n_atoms", np.zeros(0)).astype(np.int64)
    S, N = counts.shape[0], int(counts.sum())
    shapes: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(("names", "config_types", "n_atoms", "energy_ref", "energy"), (S,)),
        **dict.fromkeys(("forces_ref", "forces"), (N, 3)),
        **dict.fromkeys(("stress_ref", "stress"), (S, 3, 3)),
        "numbers": (N,),
    }
    for name, shape in shapes.items():
        if name not in held:
            raise _wrong_archive(path, f"an array '{name}'", ", ".join(held) or "an empty archive")
        if held[name].shape != shape:
            raise _wrong_archive(path, f"'{name}' of shape {shape}", f"shape {held[name].shape}")
    return Predictions(split=split, **{name: held[name] for name in shapes})


def _wrong_archive(path: Path, wanted: str, got: str) -> DataError:
    remedy = "run `adatom evaluate` again with --overwrite, or delete the file: the report leaves its sections out"
    return DataError("these predictions cannot be read", where=str(path), wanted=wanted, got=got, remedy=remedy)


def _energy_volume(path: Path) -> list[EnergyVolume]:
    record = _optional(path)
    if record is None:
        return []
    return energy_volume_curves(record)


def energy_volume_curves(record: Record) -> list[EnergyVolume]:
    """The curve of the model, and of the reference where there is one."""
    found = [_curve(record, "model")]
    if "reference" in record:
        reference = record.record("reference")
        found.append(_curve(reference, reference.text("label", "reference")))
    return found


def _curve(record: Record, label: str) -> EnergyVolume:
    volume, energy = record.reals("volume_A3_per_atom"), record.reals("energy_eV_per_atom")
    if volume.shape != energy.shape:
        raise DataError(
            "volumes and energies do not pair up",
            where=record.where,
            wanted="one energy per volume",
            got=f"{volume.shape[0]} volumes, {energy.shape[0]} energies",
            remedy="write the file anew, or delete it: the report leaves its section out",
        )
    order = np.argsort(volume)
    return EnergyVolume(label, volume[order], energy[order], record.record("fit"))


def _trajectory(path: Path) -> Trajectory:
    """One MD log; a restarted run repeats steps, and there too the later lines count."""
    start = end = Record({}, path.name)
    steps: dict[float, Record] = {}
    for line in read_lines(path):
        kind = line.text("kind")
        if kind == "start":
            start = line if not start.values else start
        elif kind == "end":
            end = line
        elif kind == "step":
            steps[line.real("step") or 0.0] = line
    pairs = _optional(path.with_suffix(".rdf.json")) or Record({}, path.name)
    g = pairs.record("g")
    table = columns([steps[key] for key in sorted(steps)])
    return Trajectory(path.stem, start, table, end, pairs.reals("r_A"), {pair: g.reals(pair) for pair in g.values})
