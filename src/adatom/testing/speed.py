"""What a potential costs: time and memory of energy and forces, with stress, and of a training step.

On a CPU the time is that of the process, on one thread, the least of several calls: other work on the machine slows a
call, nothing hastens it. On a CUDA device it is the median between two device events. A call is one pass through the
potential on a finished graph: neighbour lists are not part of it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import ase
import numpy as np
import torch

from adatom.compile import Compiler, compiled
from adatom.errors import ConfigError, MemoryLimitError
from adatom.graph import Graph, Results
from adatom.neighbors import graph_from_atoms
from adatom.potential import Potential
from adatom.testing.structures import Spacing, crystal

Task = Literal["forces", "stress", "training"]
TASKS: dict[Task, str] = {
    "forces": "energy and forces",
    "stress": "energy, forces and stress",
    "training": "training step: the gradient of a force loss for all weights, without the optimizer",
}
COMPILE = ("auto", "on", "off")
SIZES = (64, 512, 4096)
ROUNDS = 7
SLOW = 5.0  # s; a call that takes longer is repeated three times only
WARMUP = 3  # calls that are not counted: caches fill, what is compiled is compiled
FS_PER_DAY = 86_400.0  # seconds of a day; a step of 1 fs that takes t seconds makes 86400/t fs, or that times 1e-6 ns


@dataclass(frozen=True)
class Speed:
    """What one task costs on one structure."""

    task: Task
    atoms: int
    edges: int
    seconds: float  # of a call: least CPU time of the process, or median of device events
    rounds: int
    memory_MiB: float  # at the peak of a call: of the whole process on a CPU, of tensors on a device
    clock: str  # what was measured, in words
    device: str  # the card's name, or cpu
    code: str  # compiled or eager
    load: float  # of the machine in the last minute

    @property
    def us_per_atom(self) -> float:
        """Microseconds for each atom."""
        return 1e6 * self.seconds / self.atoms

    @property
    def ns_per_day(self) -> float:
        """Nanoseconds of dynamics at 1 fs that this many seconds a step allow: the potential alone."""
        return 1e-6 * FS_PER_DAY / self.seconds

    def to_record(self) -> dict[str, Any]:
        """Everything, derived figures too, as plain values."""
        return asdict(self) | {"us_per_atom": self.us_per_atom, "ns_per_day": self.ns_per_day}


def measure(potential: Potential, atoms: ase.Atoms, task: Task = "forces", rounds: int = ROUNDS) -> Speed:
    """Time and memory of one task on one structure, on the device that the potential is on.

    Parameters
    ----------
    potential
        Left in the mode, and with the gradients, that it came with.
    atoms
        One structure.
    task
        ``"forces"``, ``"stress"`` or ``"training"``.
    rounds
        Calls that count; three where a call takes more than five seconds.

    Raises
    ------
    ConfigError
        No such task, fewer than one round, or stress of a structure that has no volume.
    UnknownElementError, ChargeError
        A structure that is not of the potential's kind.
    MemoryLimitError
        The structure is too large for the memory there is.
    """
    if rounds < 1:
        raise ConfigError("something is measured at least once", wanted="one round or more", got=str(rounds))
    potential.check_atoms(atoms)
    place = potential.references.device
    graph = graph_from_atoms(atoms, potential.cutoff).to(device=place)
    load = os.getloadavg()[0]
    with as_found(potential), one_thread():
        try:
            call = step(potential, graph, task)
            if place.type == "cuda":
                seconds, memory = _device_times(call, rounds, place)
            else:
                seconds, memory = _cpu_times(call, rounds)
        except (MemoryError, RuntimeError) as error:
            if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
                raise
            raise _too_large(atoms, task, error) from error
    cuda = place.type == "cuda"
    return Speed(
        task=task,
        atoms=len(atoms),
        edges=graph.edges.shape[1],
        seconds=statistics.median(seconds) if cuda else min(seconds),
        rounds=len(seconds),
        memory_MiB=memory,
        clock="median of device events" if cuda else "least CPU time of the process, one thread",
        device=torch.cuda.get_device_name(place) if cuda else "cpu",
        code=code_of(potential),
        load=load,
    )


def step(potential: Potential, graph: Graph, task: Task) -> Callable[[], Results]:
    """One call of a task, as often as wanted; puts the potential in the mode that the task wants."""
    task = _task(task)
    if task == "stress" and not bool(graph.pbc.all()):
        raise ConfigError(
            "stress is measured on structures that have a volume",
            wanted="three periodic directions",
            got=str(graph.pbc[0].tolist()),
            remedy="give a periodic structure, or measure forces",
        )
    training = task == "training"
    potential.train(training).requires_grad_(training)
    if training:

        def train() -> Results:
            potential.zero_grad(set_to_none=True)
            results: Results = potential(graph)
            results.forces.square().mean().backward()
            return results

        return train

    def evaluate() -> Results:
        results: Results = potential(graph, forces=True, stress=task == "stress")
        return results

    return evaluate


def with_code(potential: Potential, mode: str) -> Potential:
    """The potential with the code that ``mode`` asks for: the one place where a benchmark chooses it.

    ``"off"`` is eager code, ``"on"`` compiled code, ``"auto"`` what a long run comes to: compiled, where that is
    possible. ConfigError for any other word.
    """
    if mode not in COMPILE:
        raise ConfigError("no such way to run", where="compile", wanted=", ".join(COMPILE), got=mode)
    # not "auto": it waits until it pays, and a few calls would be over before
    return compiled(potential, "off" if mode == "off" else "on")


def code_of(potential: Potential) -> str:
    """Which code has run: compiled, or eager where none was compiled or it was given up."""
    runner = potential.runner
    return (
        "compiled"
        if isinstance(runner, Compiler) and not runner.dropped and (runner.programs or runner.steps)
        else "eager"
    )


def on_device(potential: Potential, device: str) -> Potential:
    """The potential on a device by name; ConfigError when there is none of that kind."""
    try:
        return potential.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device '{device}' cannot be used here",
            got=str(error).splitlines()[0],
            remedy="use cpu, or install the build of torch for your accelerator",
        ) from error


def read_sizes(text: str | None) -> list[int] | None:
    """Numbers of atoms from ``64,512``; ConfigError for anything else."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ConfigError("sizes are numbers of atoms", wanted="--atoms 64,512,4096", got=text)
    return [int(word) for word in words]


def read_tasks(text: str) -> list[Task]:
    """Tasks from ``forces,training``; ConfigError for one that there is not."""
    return [_task(word.strip()) for word in text.split(",")]


def _task(word: str) -> Task:
    for task in TASKS:
        if word == task:
            return task
    raise ConfigError("no such task", wanted=", ".join(TASKS), got=word)


def sweep(
    potential: Potential,
    structure: ase.Atoms | None,
    sizes: Sequence[int] | None,
    tasks: Sequence[Task],
    *,
    code: str = "auto",
    device: str = "cpu",
    progress: Callable[[str], object] = lambda text: None,
) -> list[Speed]:
    """Measure tasks on a structure repeated to several sizes.

    Without a structure it is a crystal of what the potential knows; without sizes a structure is taken as it is, and a
    crystal in three sizes. ``code`` is "auto", "on" or "off": whether compiled code runs.
    """
    if sizes is None and structure is None:
        sizes = SIZES
    cell = crystal_of(potential) if structure is None else structure
    potential = with_code(on_device(potential, device), code)
    speeds = []
    for system in [cell] if sizes is None else [repeated(cell, count) for count in sizes]:
        for task in tasks:
            progress(f"{len(system)} atoms, {TASKS[task]}")
            speeds.append(measure(potential, system, task))
    return speeds


def crystal_of(potential: Potential) -> ase.Atoms:
    """A rattled crystal of what a potential knows: silicon where it does, or a mixture of up to three elements."""
    known = potential.elements
    cell = crystal([14] if 14 in known else known[:3], Spacing.of(potential.card), np.random.default_rng(0))
    config = potential.network.config
    cell.info["total_charge"], cell.info["multiplicity"] = (
        low if low is not None and not low <= usual <= high else usual
        for usual, (low, high) in ((0.0, config.charges or (None, 0.0)), (1.0, config.spins or (None, 0.0)))
    )
    return cell


def repeated(cell: ase.Atoms, atoms: int) -> ase.Atoms:
    """A supercell, as near to a cube and to this many atoms as whole repeats come; rattled by 0.02 Å.

    ConfigError for a structure that has no direction to be repeated in and does not have as many atoms.
    """
    if atoms < 1:
        raise ConfigError("a structure has atoms", wanted="1 or more", got=str(atoms))
    times = max(round(atoms / len(cell)), 1)
    directions = [axis for axis in range(3) if cell.pbc[axis]]
    if not directions and times > 1:
        raise ConfigError(
            "a structure without periodic directions cannot be repeated",
            where=cell.get_chemical_formula(),
            wanted=f"{len(cell)} atoms, as it is",
            got=f"{atoms} atoms",
            remedy="leave out --atoms, or give a periodic structure",
        )
    repeats = [1, 1, 1]
    lengths = cell.cell.lengths()
    while np.prod(repeats) < times:
        shortest = min(directions, key=lambda axis: lengths[axis] * repeats[axis])
        grown = [n + (axis == shortest) for axis, n in enumerate(repeats)]
        # the last layer only where it comes nearer
        if abs(np.prod(grown) - times) > abs(np.prod(repeats) - times):
            break
        repeats = grown
    large = cell.repeat(repeats)
    if np.prod(repeats) > 1:
        large.rattle(0.02, seed=1)  # no two cells alike
    return large


@contextmanager
def as_found(potential: Potential) -> Iterator[None]:
    """Mode, gradients and what asks for gradients as they were before."""
    before = potential.training
    kept = [(p, p.requires_grad, p.grad) for p in potential.parameters()]
    try:
        yield
    finally:
        potential.train(before)
        for parameter, asks, gradient in kept:
            parameter.requires_grad_(asks)
            parameter.grad = gradient


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch's own operations."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def peak_memory(reset: bool = False) -> float:
    """Largest resident set of this process since it was last reset, MiB.

    Where the system cannot reset it, it is the largest since the process began.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest / (1024.0**2 if sys.platform == "darwin" else 1024.0)
    if reset:
        _release()
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024.0


def _release() -> None:
    """Hand memory that is free back to the system, where the C library knows how."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _cpu_times(call: Callable[[], object], rounds: int) -> tuple[list[float], float]:
    """CPU seconds of each call, and the memory at the peak."""
    call()  # may compile
    begin = time.process_time()
    call()
    for _ in range(WARMUP - 2 if time.process_time() - begin < SLOW else 0):
        call()
    peak_memory(reset=True)
    seconds: list[float] = []
    while len(seconds) < (min(rounds, 3) if seconds and min(seconds) > SLOW else rounds):
        begin = time.process_time()
        call()
        seconds.append(time.process_time() - begin)
    return seconds, peak_memory()


def _device_times(call: Callable[[], object], rounds: int, place: torch.device) -> tuple[list[float], float]:
    """Seconds between device events around each call, and the most memory that tensors took."""
    for _ in range(WARMUP):
        call()
    torch.cuda.synchronize(place)
    torch.cuda.reset_peak_memory_stats(place)
    seconds = []
    for _ in range(rounds):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()  # type: ignore[no-untyped-call]
        call()
        end.record()  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(place)
        seconds.append(1e-3 * begin.elapsed_time(end))
    return seconds, torch.cuda.max_memory_allocated(place) / 1024.0**2


def _too_large(atoms: ase.Atoms, task: Task, error: BaseException) -> MemoryLimitError:
    return MemoryLimitError(
        f"{TASKS[task]} of {len(atoms)} atoms did not fit into memory",
        where=atoms.get_chemical_formula(),
        got=str(error).splitlines()[0] if str(error) else type(error).__name__,
        remedy="measure fewer atoms, or a smaller network",
    )
