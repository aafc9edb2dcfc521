"""Frames at even times, as dynamics need them: atoms followed across the boundaries of the cell, drift taken out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ase
import numpy as np
from ase import units

from adatom.data.frames import stream_frames
from adatom.elements import symbol
from adatom.errors import DataError, GeometryError

FOLLOWED = 0.4  # of a cell, from frame to frame: an atom that goes farther may have gone the other way round
EVEN = 1e-3  # of the interval, by which times may be off


@dataclass(frozen=True)
class Trajectory:
    """Positions and velocities of the same atoms at even times, relative to the centre of mass."""

    numbers: np.ndarray  # (N,)
    masses: np.ndarray  # (N,)  amu
    interval_ps: float
    positions: np.ndarray  # (T, N, 3)  Å, unwrapped
    velocities: np.ndarray | None  # (T, N, 3)  Å/ps; None where the frames hold no momenta
    volume_A3: float  # average; NaN where the system is not periodic in three directions
    cubic: bool  # in every frame

    @property
    def frames(self) -> int:
        """T."""
        return int(self.positions.shape[0])

    @property
    def duration_ps(self) -> float:
        """From the first frame to the last."""
        return (self.frames - 1) * self.interval_ps

    def species(self) -> dict[str, np.ndarray]:
        """The atoms of each element by its symbol."""
        return {symbol(z): np.flatnonzero(self.numbers == z) for z in np.unique(self.numbers)}


def read_frames_of(path: str | Path, skip_ps: float = 0.0, interval_fs: float | None = None) -> list[ase.Atoms]:
    """Frames of a trajectory that ASE reads, from ``skip_ps`` after the first on; ``info["time_ps"]`` says when.

    Frames of ``adatom md`` say themselves when they were; others are taken every ``interval_fs``.

    Raises
    ------
    DataError
        No such file, a broken one, no frame left, a time to skip and none in the frames, or an interval beside times.
    """
    frames: list[ase.Atoms] = []
    for number, frame in enumerate(stream_frames(Path(path))):
        atoms = frame.atoms
        if interval_fs is not None and "time_ps" in frame.fields:
            raise DataError(
                "the frames say themselves when they were, and an interval was given",
                where=f"{path}, frame {number}",
                got=f"time_ps {frame.fields['time_ps']} and an interval of {interval_fs:g} fs",
                remedy="leave --interval out, or take time_ps out of the file",
            )
        if interval_fs is not None:
            atoms.info["time_ps"] = 1e-3 * interval_fs * number
        elif "time_ps" in frame.fields:
            atoms.info["time_ps"] = float(frame.fields["time_ps"])
        elif skip_ps > 0.0:
            raise _no_time(f"{path}, frame {number}")
        frames.append(atoms)
    if skip_ps > 0.0:
        start = frames[0].info["time_ps"] + skip_ps
        frames = [atoms for atoms in frames if atoms.info["time_ps"] >= start - 1e-9]
    if not frames:
        raise DataError(
            "nothing is left of this trajectory",
            where=str(path),
            wanted=f"frames later than {skip_ps:g} ps",
            remedy="skip less",
        )
    return frames


def trajectory(frames: Sequence[ase.Atoms], where: str = "trajectory") -> Trajectory:
    """The motion that frames show; each says when it was in ``info["time_ps"]``.

    Atoms are followed by their shortest way from frame to frame, wrapped or not, summed as displacements in the cell of
    each moment, which is right under constant pressure too (von Bülow, Bullerjahn, Hummer, J. Chem. Phys. 153, 021101
    (2020)). The motion of the centre of mass is taken out. A last frame that is out of step, as a run leaves it that
    was stopped, is left out.

    Raises
    ------
    DataError
        Fewer than three frames, not of the same atoms, without or at uneven times, or so far apart that an atom goes
        nearly half a cell between two of them.
    """
    _check_atoms(frames, where)
    times = _times(frames, where)
    frames = frames[: len(times)]
    masses = frames[0].get_masses()
    share = masses / masses.sum()  # (N,)
    positions = _unwrapped(frames, where)
    positions -= np.einsum("n,tnc->tc", share, positions)[:, None]
    velocities = None
    if all(atoms.has("momenta") and atoms.get_momenta().any() for atoms in frames[1:]):
        velocities = np.array([atoms.get_velocities() for atoms in frames]) * (1e3 * units.fs)  # Å/ps
        velocities -= np.einsum("n,tnc->tc", share, velocities)[:, None]
    periodic = all(bool(np.all(atoms.pbc)) for atoms in frames)
    return Trajectory(
        numbers=frames[0].numbers.copy(),
        masses=masses,
        interval_ps=float(np.median(np.diff(times))),
        positions=positions,
        velocities=velocities,
        volume_A3=float(np.mean([atoms.get_volume() for atoms in frames])) if periodic else float("nan"),
        cubic=periodic and all(_cubic(np.asarray(atoms.cell)) for atoms in frames),
    )


def require_same_atoms(atoms: ase.Atoms, first: ase.Atoms, where: str) -> None:
    """DataError for a frame that holds other atoms than the first one."""
    if not np.array_equal(atoms.numbers, first.numbers):
        raise DataError(
            "the frames are not of the same atoms",
            where=where,
            wanted=first.get_chemical_formula(),
            got=atoms.get_chemical_formula(),
            remedy="give the frames of one simulation, its atoms in one order",
        )


def require_periodic(atoms: ase.Atoms, problem: str, where: str) -> None:
    """GeometryError for a frame that is not periodic in three directions."""
    if not np.all(atoms.pbc) or atoms.cell.volume <= 0.0:
        raise GeometryError(
            problem,
            where=where,
            wanted="pbc = True, True, True and a cell",
            got=f"pbc = {', '.join(str(bool(p)) for p in atoms.pbc)}, a cell of {atoms.cell.volume:.4g} Å^3",
            remedy="set cell and pbc",
        )


def _unwrapped(frames: Sequence[ase.Atoms], where: str) -> np.ndarray:
    """Positions of atoms followed from frame to frame, (T, N, 3) Å."""
    followed = np.empty((len(frames), len(frames[0]), 3))
    followed[0] = frames[0].positions
    for number, (before, step) in enumerate(_steps(frames), start=1):
        farthest = float(np.abs(before).max(initial=0.0))
        if farthest > FOLLOWED:
            raise DataError(
                "the frames are too far apart to follow the atoms across the boundaries of the cell",
                where=f"{where}, frame {number}",
                wanted=f"steps of less than {FOLLOWED:g} of the cell between frames",
                got=f"{farthest:.2f}",
                remedy="write frames more often",
            )
        followed[number] = followed[number - 1] + step
    return followed


def _steps(frames: Sequence[ase.Atoms]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Shortest displacements between frames, along the periodic axes in fractions of the cell, and as (N, 3) in Å."""
    for first, second in itertools.pairwise(frames):
        cell = np.asarray(second.cell.complete())
        way = _inside(second) - _inside(first)
        fractions = way @ np.linalg.inv(cell)
        turns = np.where(second.pbc, np.rint(fractions), 0.0)
        yield np.where(second.pbc, fractions - turns, 0.0), way - turns @ cell


def _inside(atoms: ase.Atoms) -> np.ndarray:
    """Positions folded into the cell along its periodic axes, (N, 3) Å."""
    cell = np.asarray(atoms.cell.complete())
    folds = np.where(atoms.pbc, np.floor(atoms.positions @ np.linalg.inv(cell)), 0.0)
    inside: np.ndarray = atoms.positions - folds @ cell
    return inside


def _check_atoms(frames: Sequence[ase.Atoms], where: str) -> None:
    if len(frames) < 3:
        raise DataError(
            "motion needs three frames at least", where=where, got=f"{len(frames)}", remedy="write frames more often"
        )
    for number, atoms in enumerate(frames):
        require_same_atoms(atoms, frames[0], f"{where}, frame {number}")


def _times(frames: Sequence[ase.Atoms], where: str) -> np.ndarray:
    """Times in ps, evenly spaced, of all frames but a last one that is out of step."""
    for number, atoms in enumerate(frames):
        if "time_ps" not in atoms.info:
            raise _no_time(f"{where}, frame {number}")
    times = np.array([float(atoms.info["time_ps"]) for atoms in frames])
    steps = np.diff(times)
    usual = float(np.median(steps))
    odd = np.flatnonzero(~(np.abs(steps - usual) <= EVEN * usual)) if usual > 0.0 else np.arange(1)
    if odd.size == 1 and odd[0] == len(steps) - 1 and len(steps) > 2:
        return times[:-1]
    if odd.size:
        raise DataError(
            "the frames are not evenly spaced in time",
            where=f"{where}, frames {odd[0]} and {odd[0] + 1}",
            wanted=f"{usual:g} ps between all of them",
            got=f"{steps[odd[0]]:g} ps",
            remedy="give the frames of one run, written at one interval",
        )
    return times


def _cubic(cell: np.ndarray) -> bool:
    """Whether a cell is a cube, to 0.1 %."""
    metric = cell @ cell.T
    return bool(np.allclose(metric, np.trace(metric) / 3.0 * np.eye(3), rtol=0.0, atol=2e-3 * np.trace(metric) / 3.0))


def _no_time(where: str) -> DataError:
    return DataError(
        "the frames do not say when they were",
        where=where,
        wanted="time_ps in the frame, as adatom md writes it",
        remedy="give the time between frames: --interval FS",
    )
