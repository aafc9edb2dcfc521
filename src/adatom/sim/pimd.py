"""Path-integral molecular dynamics: an i-PI server of its own, its input written, its beads evaluated here."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

import ase
import numpy as np
import torch
from ase.calculators.calculator import BaseCalculator
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from adatom.compile import Mode
from adatom.config import Config
from adatom.errors import AdatomError, CheckpointError, ConfigError, SimulationError
from adatom.potential import Potential
from adatom.sim.ipi import Server, serve

NAME = "adatom"  # of the socket, in a folder of its own
ROOM = 50.0  # Å around a structure without a cell: i-PI cannot do without one
SETTINGS = "pimd.json"  # what i-PI does not tell of a run: it goes on with its own settings, whatever is asked for
FIXED = ["step", "time{picosecond}", "conserved{electronvolt}", "temperature{kelvin}", "potential{electronvolt}"]


class PathIntegralConfig(Config):
    """How to run it: constant volume and temperature, each nucleus a ring of ``beads``.

    The thermostat is PILE (Ceriotti et al., J. Chem. Phys. 133, 124104 (2010)): Langevin on the modes of the rings, on
    their centroids Langevin (``pile_l``) or velocity rescaling (``pile_g``). Beads needed: several times
    hbar omega_max / kT; for water at 300 K some 32, 8 for a first look. One bead is classical.
    """

    beads: PositiveInt = 8
    temperature_K: PositiveFloat = 300.0
    timestep_fs: PositiveFloat = 0.5
    steps: NonNegativeInt = 1000  # of the whole run, those before a restart included
    thermostat: Literal["pile_l", "pile_g"] = "pile_l"
    thermostat_ps: PositiveFloat = 0.1  # of the centroids; the modes are damped critically
    seed: PositiveInt = 1
    log_every: PositiveInt = 10
    trajectory_every: NonNegativeInt = 100  # centroids, 0: none
    restart_every: PositiveInt = 500


@dataclass(frozen=True)
class PathIntegralRun:
    """What i-PI wrote, one value for each logged step.

    ``kinetic_eV`` is the quantum kinetic energy by the centroid virial estimator: of all atoms, and of each element.
    """

    folder: Path
    counts: dict[str, int]  # atoms of each element
    time_ps: np.ndarray
    temperature_K: np.ndarray
    potential_eV: np.ndarray
    conserved_eV: np.ndarray
    kinetic_eV: np.ndarray
    kinetic_by_element_eV: dict[str, np.ndarray]
    evaluations: int  # of geometries, in this leg; beads on one spot, as at the start, count once
    seconds: float  # of this leg
    finished: bool  # False: stopped by Ctrl-C, with a restart file


def path_integral(
    atoms: ase.Atoms,
    potential: BaseCalculator | Potential | str | Path,
    config: PathIntegralConfig | None = None,
    folder: str | Path = "pimd",
    *,
    restart: bool = False,
    overwrite: bool = False,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    compile: Mode | None = None,
    source: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> PathIntegralRun:
    """Run path-integral molecular dynamics with i-PI.

    Writes ``input.xml``, ``start.xyz``, ``pimd.json`` (atoms and settings) and ``ipi.log`` into ``folder``, i-PI writes
    ``pimd.out``, ``pimd.centroid.xyz``, ``pimd.checkpoint`` and, where it ends, ``RESTART``. The beads of a step come
    in one message and go through the network in batches. Ctrl-C ends the run after the step; with ``restart`` it goes
    on to ``config.steps`` steps in all, after a crash from the last checkpoint.

    Parameters
    ----------
    atoms
        The start, masses included; a cell that is not in i-PI's orientation (a along x, b in the plane of x and y) is
        rotated. A structure without cell is put into a wide one.
    potential, device, dtype, compile, source
        As in ``adatom.sim.ipi.serve``.
    progress
        Called with the number of steps done.

    Raises
    ------
    ConfigError
        i-PI is not installed, or the folder holds a run already.
    CheckpointError
        There is no run to go on with, or it was one of other atoms or settings.
    SimulationError
        A figure is no number, or i-PI stopped on its own; its last words are in the error.
    """
    config, folder = config or PathIntegralConfig(), Path(folder)
    program = find_ipi()
    if restart:
        _check_same(folder, atoms, config)
        _go_on(folder, config.steps)
    else:
        _clear(folder, overwrite)
        write_input(folder, atoms, config)
        (folder / SETTINGS).write_text(json.dumps(_meaning(atoms, config), indent=1), encoding="utf-8")
    (folder / "EXIT").unlink(missing_ok=True)  # of a run that was killed: it would end this one
    begin, step = time.perf_counter(), _steps_done(folder / "RESTART")
    with tempfile.TemporaryDirectory(prefix="adatom-") as place, (folder / "ipi.log").open("ab") as log:
        prefix = f"{place}/"
        words = [sys.executable, program, "-S", prefix, "RESTART" if restart else "input.xml"]
        # a session of its own: Ctrl-C is for us, who let it end its step
        process = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            with _interrupts(folder / "EXIT") as stopped:
                evaluations = serve(
                    potential, atoms, Server(NAME, prefix=prefix), device=device, dtype=dtype, compile=compile,
                    source=source, alive=lambda: process.poll() is None,
                    progress=None if progress is None else lambda count: progress(step + (count - 1) // config.beads),
                )  # fmt: skip
            process.wait(timeout=60)
        except AdatomError as error:
            if process.poll() not in (None, 0):
                raise _died(folder, process) from error
            raise
        finally:
            _end(process)
            (folder / "EXIT").unlink(missing_ok=True)
    if process.returncode != 0:
        raise _died(folder, process)
    return read_run(folder, atoms, evaluations, time.perf_counter() - begin, not stopped)


def find_ipi() -> str:
    """The program of i-PI. ConfigError when it is not installed."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("i-pi", path=beside) or shutil.which("i-pi")
    if found is None:
        raise ConfigError(
            "i-PI is not installed", wanted="the command i-pi", got="none", remedy="pip install 'adatom[ipi]'"
        )
    return found


def write_input(folder: Path, atoms: ase.Atoms, config: PathIntegralConfig) -> Path:
    """Write ``input.xml`` and ``start.xyz`` for i-PI; both can be changed by hand and run with ``i-pi input.xml``."""
    folder.mkdir(parents=True, exist_ok=True)
    cell, positions = placed(atoms)
    lines = [f"{symbol} {x:.12f} {y:.12f} {z:.12f}" for symbol, (x, y, z) in zip(atoms.symbols, positions, strict=True)]
    h = " ".join(f"{value:.12f}" for value in cell.T.flat)  # i-PI writes the columns
    head = f"# CELL(H): {h} positions{{angstrom}} cell{{angstrom}}"
    (folder / "start.xyz").write_text("\n".join([str(len(atoms)), head, *lines, ""]), encoding="utf-8")
    elements = sorted(set(atoms.get_chemical_symbols()))
    columns = [*FIXED, "kinetic_cv{electronvolt}", *(f"kinetic_cv{{electronvolt}}({e})" for e in elements)]
    frames = (
        f"<trajectory filename='centroid' stride='{config.trajectory_every}' cell_units='angstrom'>"
        "x_centroid{angstrom}</trajectory>"
        if config.trajectory_every
        else ""
    )
    text = f"""<simulation verbosity='low'>
  <output prefix='pimd'>
    <properties filename='out' stride='{config.log_every}'> [ {", ".join(columns)} ] </properties>
    {frames}
    <checkpoint filename='checkpoint' stride='{config.restart_every}' overwrite='True'/>
  </output>
  <total_steps> {config.steps} </total_steps>
  <prng> <seed> {config.seed} </seed> </prng>
  <ffsocket name='adatom' mode='unix' pbc='False'>
    <address> {NAME} </address>
    <latency> 1e-4 </latency>
    <batch_size> {config.beads} </batch_size>
    <exit_on_disconnect> True </exit_on_disconnect>
  </ffsocket>
  <system>
    <initialize nbeads='{config.beads}'>
      <file mode='xyz'> start.xyz </file>
      <masses mode='manual' units='dalton'> [ {", ".join(f"{m:.8f}" for m in atoms.get_masses())} ] </masses>
      <velocities mode='thermal' units='kelvin'> {config.temperature_K} </velocities>
    </initialize>
    <forces> <force forcefield='adatom'/> </forces>
    <ensemble> <temperature units='kelvin'> {config.temperature_K} </temperature> </ensemble>
    <motion mode='dynamics'>
      <dynamics mode='nvt'>
        <timestep units='femtosecond'> {config.timestep_fs} </timestep>
        <thermostat mode='{config.thermostat}'> <tau units='picosecond'> {config.thermostat_ps} </tau> </thermostat>
      </dynamics>
    </motion>
  </system>
</simulation>
"""
    path = folder / "input.xml"
    path.write_text(text, encoding="utf-8")
    return path


def placed(atoms: ase.Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Cell (rows, a along x and b in the plane of x and y) and positions for i-PI, in Å."""
    cell = atoms.cell.array.copy()
    if not atoms.pbc.any() or abs(np.linalg.det(cell)) < 1e-9:
        if atoms.pbc.any():
            raise ConfigError(
                "i-PI needs a cell with a volume",
                where=atoms.get_chemical_formula(),
                wanted="three lattice vectors; a slab with a vacuum along the third",
                got=f"cell {cell.tolist()}",
                remedy="atoms.center(vacuum=10, axis=2) for a slab",
            )
        return np.eye(3) * (np.ptp(atoms.positions, axis=0).max(initial=0.0) + ROOM), atoms.positions
    right_handed = ase.cell.Cell(cell if np.linalg.det(cell) > 0 else -cell)  # the same lattice
    standard, rotation = right_handed.standard_form()
    return standard.array, atoms.positions @ rotation.T


def read_run(
    folder: Path, atoms: ase.Atoms, evaluations: int = 0, seconds: float = 0.0, finished: bool = True
) -> PathIntegralRun:
    """What a run has written. SimulationError where there is nothing to read."""
    path = folder / "pimd.out"
    table = np.loadtxt(path, ndmin=2) if path.exists() else np.zeros((0, 6))
    if len(table) == 0:
        raise SimulationError(
            "i-PI has written no step", where=str(path), got=_last_words(folder), remedy="look into ipi.log"
        )
    symbols = atoms.get_chemical_symbols()
    elements = sorted(set(symbols))
    _, time_ps, conserved, temperature, energy, kinetic, *by_element = table.T
    return PathIntegralRun(
        folder, {e: symbols.count(e) for e in elements}, time_ps, temperature, energy, conserved, kinetic,
        dict(zip(elements, by_element, strict=True)), evaluations, seconds, finished,
    )  # fmt: skip


def _clear(folder: Path, overwrite: bool) -> None:
    """ConfigError where the folder holds a run, unless it is to be replaced."""
    old = [path for path in folder.glob("*") if path.name.startswith("pimd.") or path.name in ("RESTART", "ipi.log")]
    if old and not overwrite:
        raise ConfigError(
            "this folder holds a run already, and nothing is overwritten",
            where=str(folder),
            remedy="give another folder, go on with it by restart=True (--restart), or overwrite=True (--overwrite)",
        )
    for path in old:
        path.unlink()


def _meaning(atoms: ase.Atoms, config: PathIntegralConfig) -> dict[str, object]:
    """What makes a run this run."""
    return {"symbols": str(atoms.symbols)} | config.model_dump(mode="json", exclude={"steps"})


def _check_same(folder: Path, atoms: ase.Atoms, config: PathIntegralConfig) -> None:
    """CheckpointError where the run of a folder is one of other atoms or settings; one without a note passes."""
    path, now = folder / SETTINGS, _meaning(atoms, config)
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else now
    changed = [key for key in now if now[key] != before.get(key)]
    if changed:
        raise CheckpointError(
            "a run cannot be continued with other atoms or settings",
            where=str(path),
            wanted=", ".join(f"{key} = {before.get(key)}" for key in changed),
            got=", ".join(f"{key} = {now[key]}" for key in changed),
            remedy="keep them (steps may change), or start a new run in another folder",
        )


def _go_on(folder: Path, steps: int) -> None:
    """Let the run of a folder go to ``steps`` steps in all, from where it ended or, after a crash, was last saved."""
    known = [path for path in (folder / "RESTART", folder / "pimd.checkpoint") if path.exists()]
    if not known:
        raise CheckpointError(
            "there is no run to go on with",
            where=str(folder / "RESTART"),
            wanted="the file RESTART of i-PI, or its pimd.checkpoint",
            remedy="start one",
        )
    last = max(known, key=_steps_done)
    _cut(folder, _steps_done(last))
    text = re.sub(
        r"<total_steps>.*?</total_steps>", f"<total_steps>{steps}</total_steps>", last.read_text(encoding="utf-8")
    )
    (folder / "RESTART").write_text(text, encoding="utf-8")


def _cut(folder: Path, step: int) -> None:
    """Take from what i-PI has written the lines and frames after a step: it appends, and they would be there twice."""
    table, frames = folder / "pimd.out", folder / "pimd.centroid.xyz"
    if table.exists():
        lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [
            line for line in lines if line.startswith("#") or (line.endswith("\n") and float(line.split()[0]) <= step)
        ]
        table.write_text("".join(kept), encoding="utf-8")
    if frames.exists():
        lines = frames.read_text(encoding="utf-8").splitlines(keepends=True)
        size = int(lines[0]) + 2 if lines else 1
        whole = [lines[k : k + size] for k in range(0, len(lines) - size + 1, size)]
        kept = ["".join(frame) for frame in whole if int(re.findall(r"Step:\s*(\d+)", frame[1])[0]) <= step]
        frames.write_text("".join(kept), encoding="utf-8")


def _steps_done(path: Path) -> int:
    """Of a restart file; 0 where there is none."""
    found = re.search(r"<step>\s*(\d+)\s*</step>", path.read_text(encoding="utf-8")) if path.exists() else None
    return int(found.group(1)) if found else 0


@contextmanager
def _interrupts(exit_file: Path) -> Iterator[list[int]]:
    """Ctrl-C asks i-PI to end after its step, a second one ends at once; the list is empty while there was none."""
    stopped: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # signals go there
        yield stopped
        return

    def ask(number: int, _: FrameType | None) -> None:
        if stopped:
            raise KeyboardInterrupt
        stopped.append(number)
        exit_file.touch()

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let i-PI write its restart file and go."""
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _died(folder: Path, process: subprocess.Popen[bytes]) -> SimulationError:
    return SimulationError(
        "i-PI stopped on its own",
        where=str(folder),
        got=f"exit code {process.returncode}: {_last_words(folder)}",
        remedy="look into ipi.log in this folder",
    )


def _last_words(folder: Path) -> str:
    path = folder / "ipi.log"
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
