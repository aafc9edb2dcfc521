"""What a molecular dynamics run leaves on disk: thermo log, trajectory and restart file."""

from __future__ import annotations

import io
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO
from zipfile import BadZipFile

import ase
import ase.io
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator

from adatom.errors import CheckpointError, ConfigError
from adatom.model_file import write_atomically

FORMAT = 2  # 1 held no forces, no neighbour list and the random numbers of another generator


@dataclass(frozen=True)
class Thermo:
    """One line of the thermo log. NaN where there is no such figure: pressure and volume of open systems."""

    step: int
    time_ps: float
    temperature_K: float
    potential_eV: float
    kinetic_eV: float
    total_eV: float
    pressure_GPa: float
    volume_A3: float


@dataclass(frozen=True)
class State:
    """All that a run needs to go on as if it had never stopped."""

    step: int
    phase: np.ndarray  # (3, N, 3)  positions (Å), momenta (ASE units), forces (eV/Å)
    energy: float  # eV
    cell: np.ndarray  # (3, 3)  Å
    origin: np.ndarray  # (N, 3)  Å, where the neighbour list in use was made; (0, 3) where there is none
    origin_cell: np.ndarray  # (3, 3)  Å, its cell
    random: np.ndarray  # bytes of the random number generator
    hottest_start: float  # K, temperature at step 0
    first_volume: float  # Å^3 at step 0; NaN where there is none
    sizes: tuple[int, int]  # bytes of log and trajectory when the run was here


@dataclass(frozen=True)
class Files:
    """Names of the files of one run."""

    log: Path
    trajectory: Path
    restart: Path

    @classmethod
    def of(cls, folder: Path, name: str) -> Files:
        """``folder/name.jsonl``, ``folder/name.xyz`` (extended XYZ) and ``folder/name.restart.npz``."""
        return cls(folder / f"{name}.jsonl", folder / f"{name}.xyz", folder / f"{name}.restart.npz")

    def refuse_existing(self) -> None:
        """ConfigError when a run of this name exists."""
        for path in (self.log, self.trajectory, self.restart):
            if path.exists():
                raise ConfigError(
                    "a run of this name exists already",
                    where=str(path),
                    wanted="a folder without it",
                    remedy="continue it with restart, allow overwrite, or choose another folder or name",
                )

    def remove(self) -> None:
        """Delete what an earlier run of this name left."""
        for path in (self.log, self.trajectory, self.restart):
            path.unlink(missing_ok=True)


class Recorder:
    """Writes the files of one run; without ``files`` it keeps nothing but the open text in memory.

    Parameters
    ----------
    files
        Where to; None for a run that leaves no trace.
    sizes
        Bytes of log and trajectory to keep: what was written after the state that the run goes on from is cut off, so
        that a continued run reads like one that never stopped.
    """

    def __init__(self, files: Files | None, sizes: tuple[int, int] = (0, 0)) -> None:
        self.files = files
        self._log: TextIO = io.StringIO()
        if files is None:
            return
        try:
            files.log.parent.mkdir(parents=True, exist_ok=True)
            for path, size in zip((files.log, files.trajectory), sizes, strict=True):
                if path.exists():
                    os.truncate(path, size)
            self._log = files.log.open("a", encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                "the files of the run cannot be made here",
                where=str(files.log),
                got=str(error),
                remedy="give a folder that you may write to",
            ) from error

    @property
    def sizes(self) -> tuple[int, int]:
        """Bytes of log and trajectory by now."""
        return (0, 0) if self.files is None else (_size(self.files.log), _size(self.files.trajectory))

    def line(self, kind: str, values: dict[str, Any]) -> None:
        """One line of the log; figures that are no numbers become null. CheckpointError when it cannot be written."""
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        try:
            self._log.write(json.dumps({"kind": kind} | clean, ensure_ascii=False) + "\n")
            self._log.flush()
        except OSError as error:
            raise self._unwritten("log", error) from error

    def thermo(self, thermo: Thermo) -> None:
        """A step line."""
        self.line("step", asdict(thermo))

    def frame(self, atoms: ase.Atoms, step: int, time_ps: float) -> None:
        """Append a frame with momenta, energy and forces; CheckpointError when it cannot be written."""
        if self.files is None:
            return
        frame = atoms.copy()
        frame.set_constraint()
        frame.info |= {"step": step, "time_ps": time_ps}
        results = {
            name: atoms.calc.results[name] for name in ("energy", "forces", "stress") if name in atoms.calc.results
        }
        frame.calc = SinglePointCalculator(frame, **results)
        try:
            with self.files.trajectory.open("a", encoding="utf-8") as file:
                ase.io.write(file, frame, format="extxyz")
        except OSError as error:
            raise self._unwritten("trajectory", error) from error

    def save(self, state: State, numbers: np.ndarray, config: dict[str, Any]) -> None:
        """Write the restart file, the old one whole until the new one is; CheckpointError when that fails."""
        if self.files is None:
            return
        meta = {
            "format": FORMAT,
            "step": state.step,
            "energy": state.energy,
            "hottest_start": state.hottest_start,
            "first_volume": state.first_volume,
            "config": config,
            "sizes": state.sizes,
        }
        buffer = io.BytesIO()
        np.savez(
            buffer,
            meta=np.array(json.dumps(meta)),
            phase=state.phase,
            cell=state.cell,
            origin=state.origin,
            origin_cell=state.origin_cell,
            random=state.random,
            numbers=numbers,
        )
        try:
            write_atomically(self.files.restart, buffer.getvalue())
        except OSError as error:
            raise CheckpointError(
                "the restart file could not be written; the one before it is whole",
                where=str(self.files.restart),
                got=str(error),
                remedy="make room on the disk and continue with restart",
            ) from error

    def close(self) -> None:
        """Close the log; CheckpointError when what was left of it could not be written."""
        try:
            self._log.close()
        except OSError as error:
            raise self._unwritten("log", error) from error

    def _unwritten(self, what: str, error: OSError) -> CheckpointError:
        """The error of a log or trajectory that the disk did not take."""
        path = None if self.files is None else self.files.log if what == "log" else self.files.trajectory
        return CheckpointError(
            f"the {what} of the run could not be written",
            where=None if path is None else str(path),
            got=str(error),
            remedy="make room on the disk and continue with restart",
        )


@dataclass(frozen=True)
class Saved:
    """A restart file: the state, and the species and configuration it belongs to."""

    state: State
    numbers: np.ndarray
    config: dict[str, Any]


def load_restart(files: Files) -> Saved:
    """Read a restart file; CheckpointError when it is missing or damaged, or log or trajectory have shrunk since."""
    path = files.restart
    if not path.exists():
        raise CheckpointError(
            "there is no run to continue", where=str(path), wanted="a restart file", remedy="start without restart"
        )
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            meta = json.loads(str(arrays["meta"]))
            _check_format(meta["format"], path)
            state = State(
                step=int(meta["step"]),
                phase=arrays["phase"],
                energy=float(meta["energy"]),
                cell=arrays["cell"],
                origin=arrays["origin"],
                origin_cell=arrays["origin_cell"],
                random=arrays["random"],
                hottest_start=float(meta["hottest_start"]),
                first_volume=float(meta["first_volume"]),
                sizes=(int(meta["sizes"][0]), int(meta["sizes"][1])),
            )
            saved = Saved(state, arrays["numbers"], meta["config"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise CheckpointError(
            "the restart file is damaged", where=str(path), got=str(error), remedy="start the run again with overwrite"
        ) from error
    for file, size in zip((files.log, files.trajectory), state.sizes, strict=True):
        if _size(file) < size:
            raise CheckpointError(
                "a file of the run to continue is missing or was cut",
                where=str(file),
                wanted=f"at least {size} bytes",
                remedy="put it back, or start the run again with overwrite",
            )
    return saved


def _check_format(found: object, path: Path) -> None:
    """CheckpointError for a restart file of another format."""
    if found != FORMAT:
        raise CheckpointError(
            "the restart file is of another format",
            where=str(path),
            wanted=f"format {FORMAT}",
            got=f"format {found}",
            remedy="start a new run from the last frame of its trajectory, or use the version that wrote it",
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
