"""Run an input script of LAMMPS with a potential of ours."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch

from adatom.compile import Mode, load
from adatom.errors import AdatomError, ConfigError
from adatom.potential import Potential
from adatom.sim.lammps.coupling import FIX, Coupling, Report
from adatom.sim.lammps.domain import Domain, Gathered
from adatom.sim.lammps.forces import Evaluator, Whole, layers_of
from adatom.sim.lammps.library import LammpsError, command, communicator, expand, open_library
from adatom.sim.lammps.script import Host, Reader, Statement, bare, words_of
from adatom.sim.lammps.species import type_map

RUNS = ("run", "minimize", "rerun", "dynamical_matrix", "third_order", "neb", "tad", "prd", "temper", "hyper")
ATOMIC = ("pe/atom", "stress/atom", "centroid/stress/atom")  # computes that ask for single atoms
STYLE = "adatom"


class Interrupted(KeyboardInterrupt):
    """A run was stopped by Ctrl-C or a signal, between two steps; ``restart`` is the file that it left."""

    def __init__(self, restart: Path, step: int) -> None:
        super().__init__(f"stopped at step {step}; go on with: read_restart {restart}")
        self.restart, self.step = restart, step


class Progress(NamedTuple):
    """How a script stands."""

    command: str  # run or minimize, as it is written
    step: int  # of this command
    steps: int  # at the most; 0 where nobody knows
    energy: float  # eV
    ns_per_day: float  # NaN where it has no meaning


@dataclass(frozen=True)
class LammpsRun:
    """A script that has come to its end."""

    step: int  # where LAMMPS stands
    evaluations: int  # of the potential
    seconds: float
    atoms: int
    processes: int
    evaluated: str  # how: whole, domains, or gathered on one process


def run(
    script: str | Path,
    potential: Potential | str | Path,
    *,
    elements: tuple[str, ...] = (),
    log: str | Path | None = "log.lammps",
    screen: str | Path | None = None,
    variables: dict[str, str] | None = None,
    charge: float | None = None,
    multiplicity: float | None = None,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    source: str | None = None,
    compile: Mode = "auto",
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] | None = None,
    inspect: Callable[[Any], None] | None = None,
) -> LammpsRun:
    """Run a script with energy, forces and virial from a potential.

    The script is an ordinary one in metal units. ``pair_style adatom`` and ``pair_coeff * * Si O`` may stand in it;
    where they do not, ``elements`` or the masses say which type is which. ``pair_style hybrid/overlay adatom ...`` adds
    what other styles give. Under ``mpirun`` all processes share the work where the network is made of layers (MLANet
    and NEMP in their default form); otherwise the first one computes.

    Parameters
    ----------
    script, potential
        An input file; a model file, or a potential.
    elements
        Symbols in the order of the types.
    log, screen
        Files for the log of LAMMPS and for what it would print on the terminal; None for none.
    variables
        As ``-var`` on the command line of LAMMPS.
    charge, multiplicity
        Of the system, for models that ask for them.
    device, dtype, source, compile
        As in ``adatom.load``.
    progress, say
        Called about twice a second, and on the first of several processes once they compile.
    inspect
        Called with LAMMPS when the script is done, before it is closed.

    Raises
    ------
    LammpsError
        LAMMPS refused a line of the script.
    ConfigError
        Units other than metal, a type map that does not fit, what this coupling does not know (r-RESPA, two
        dimensions, forces of another pair style that would be added unsaid).
    UnknownElementError, ChargeError, MemoryLimitError, SimulationError
        The potential was not made for these atoms, or gave no number: the run stops at that step.
    Interrupted
        Ctrl-C; a restart file was written.
    """
    comm = communicator()
    _share_cores(comm.size)
    if not isinstance(potential, Potential):
        potential = load(potential, device, dtype, compile, source)
    info = {k: v for k, v in (("total_charge", charge), ("multiplicity", multiplicity)) if v is not None}
    start = time.monotonic()
    library = open_library(_arguments(log, screen, variables or {}))
    try:
        session = Session(library, comm, potential.eval(), Path(script), tuple(elements), info, progress, say)
        with _signals(session.coupling):
            Reader(session).run(Path(script))
        if inspect is not None:
            inspect(library)
        return LammpsRun(
            int(library.extract_global("ntimestep")),
            session.coupling.calls,
            time.monotonic() - start,
            int(library.get_natoms()),
            comm.size,
            session.way,
        )
    finally:
        library.close()


def _share_cores(processes: int) -> None:
    """Threads for each of the processes of this machine, unless the environment says how many."""
    if processes > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))


def _arguments(log: str | Path | None, screen: str | Path | None, variables: dict[str, str]) -> list[str]:
    """The command line of LAMMPS."""
    named = [word for name, value in variables.items() for word in ("-var", name, value)]
    return ["-log", str(log or "none"), "-screen", str(screen or "none"), *named]


class Session(Host):
    """One script under way: what LAMMPS does, with the lines that concern the potential taken out."""

    def __init__(
        self,
        library: Any,
        comm: Any,
        potential: Potential,
        script: Path,
        elements: tuple[str, ...],
        info: dict[str, float],
        progress: Callable[[Progress], None] | None,
        say: Callable[[str], None] | None,
    ) -> None:
        self.library, self.comm, self.potential, self.script = library, comm, potential, script
        self.elements, self.info, self.progress = elements, info, progress
        self.way, evaluator = _evaluator(potential, comm, info, say)
        self.coupling = Coupling(library, comm, evaluator, self._report)
        self._style = ""  # the pair style as the script asks for it: with our word in it, or empty
        self._mapped = ""  # where the script names the elements
        self._attached = False
        self._now, self._first, self._steps = "", 0, 0  # the run under way

    # --- what the reader asks for

    def do(self, statement: Statement) -> None:
        """One command: ours, or LAMMPS's."""
        word = words_of(statement.text)[0]
        if word == "pair_style":
            self._pair_style(statement)
        elif word == "pair_coeff":
            self._pair_coeff(statement)
        elif word in RUNS:
            self._run(statement)
        else:
            self._look_at(statement, word)
            command(self.library, statement.text, statement.where)
        if word == "clear":
            self._attached, self._style, self.coupling.atomic = False, "", False
        if not self._attached and self.library.extract_setting("box_exist"):
            self._attach(statement)

    def expand(self, statement: Statement) -> str:
        """Variables filled in."""
        return expand(self.library, statement.text, statement.where)

    def ask(self, statement: Statement, name: str) -> str:
        """Do a command and say what a variable holds then."""
        command(self.library, statement.text, statement.where)
        return str(self.library.extract_variable(name))

    def has_variable(self, name: str) -> bool:
        """Whether a variable is defined."""
        return bool(self.library.has_id("variable", name))

    # --- before a box is there, and when it is

    def _attach(self, statement: Statement) -> None:
        """There is a box: it must be one of ours."""
        units, dimension = self.library.extract_global("units"), self.library.extract_setting("dimension")
        if units != "metal":
            raise ConfigError(
                "a potential in eV and Å needs metal units",
                where=statement.where,
                wanted="units metal, before the box is made",
                got=f"units {units}",
                remedy="write 'units metal' as the first line, and give lengths in Å, times in ps, pressures in bar",
            )
        if dimension != 3:
            raise ConfigError(
                "there are no potentials of two dimensions",
                where=statement.where,
                got=f"dimension {dimension}",
                remedy="leave 'dimension' out; for a slab write 'boundary p p f'",
            )
        self.coupling.attach(statement.where)
        self._attached = True

    def _look_at(self, statement: Statement, word: str) -> None:
        """Commands that would go wrong in silence."""
        words = [bare(w) for w in words_of(statement.text)]
        if word == "run_style" and words[1:2] == ["respa"]:
            raise _unknown(statement, "LAMMPS does not call external forces under r-RESPA", "run_style verlet")
        if word == "compute" and words[3:4] == ["heat/flux"]:
            raise _unknown(
                statement,
                "the heat flux of a message-passing potential is not the sum that compute heat/flux takes",
                "no heat/flux",
            )
        if word == "compute" and set(words[3:4]) & set(ATOMIC):
            if words[3] != "pe/atom" and layers_of(self.potential) is None:
                raise _unknown(statement, "this network has no virials of single atoms", "MLANet or NEMP, default form")
            self.coupling.atomic = True

    # --- the potential as a pair style

    def _pair_style(self, statement: Statement) -> None:
        words = words_of(self.expand(statement))
        ours = words.count(STYLE)
        if ours and (len(words) > 2 if words[1] == STYLE else words[1] != "hybrid/overlay" or ours > 1):
            raise ConfigError(
                "this pair style cannot be read",
                where=statement.where,
                wanted="pair_style adatom, or pair_style hybrid/overlay adatom and other styles",
                got=statement.text,
                remedy="name the model on the command line, and the elements in pair_coeff",
            )
        self._style, self._mapped = ("", "") if not ours else (words[1], self._mapped)
        command(self.library, " ".join(self._zero() if word == STYLE else word for word in words), statement.where)

    def _zero(self) -> str:
        """A pair style that gives LAMMPS the reach of the potential, and no forces."""
        return f"zero {self.potential.cutoff:.10g} nocoeff"

    def _pair_coeff(self, statement: Statement) -> None:
        words = [bare(word) for word in words_of(self.expand(statement))]
        names = words[3:] if self._style == STYLE else words[4:] if words[3:4] == [STYLE] else None
        if not self._style or names is None:
            command(self.library, statement.text, statement.where)
            return
        if words[1:3] != ["*", "*"] or "NULL" in names:
            raise ConfigError(
                "the potential is one of all atoms",
                where=statement.where,
                wanted=f"pair_coeff * * {'adatom ' * (self._style != STYLE)}and an element for each type",
                got=statement.text,
                remedy="name an element for every type; a part of the atoms alone cannot be given to it",
            )
        names = names[1:] if names and names[0].endswith(".adatom") else names  # the file, as other styles have it
        if self.elements and not self._mapped and list(self.elements) != names:
            raise ConfigError(
                "two type maps that differ",
                where=statement.where,
                wanted=f"{' '.join(self.elements)}, as --elements says",
                got=" ".join(names),
                remedy="give one of them",
            )
        self.elements, self._mapped = tuple(names), statement.where

    # --- runs

    def _run(self, statement: Statement) -> None:
        """A command that asks for forces."""
        self._get_ready(statement)
        words = words_of(self.expand(statement))
        self._now, self._first, self._steps = words[0], int(self.library.extract_global("ntimestep")), _steps(words)
        if words[0] == "run" and "upto" in words:
            self._steps = max(self._steps - self._first, 0)
        coupling = self.coupling
        coupling.begin()
        before = coupling.calls
        try:
            command(self.library, statement.text, statement.where)
        except LammpsError:
            if coupling.failure is None:
                raise
        if coupling.failure is not None:
            raise _placed(coupling.failure, statement)
        if coupling.stopped:
            self._save(statement)
        if coupling.calls == before and not {"pre", "0"} <= set(words):
            raise LammpsError(
                "LAMMPS ran without asking the potential for forces",
                where=statement.where,
                got=statement.text,
                remedy=f"do not remove the fixes {FIX} and {FIX}_guard",
            )

    def _get_ready(self, statement: Statement) -> None:
        """Before forces are asked for: the potential is at work, alone or as the script says, and the types fit."""
        library, where = self.library, statement.where
        if not self._attached:
            raise ConfigError("there is no box yet", where=where, got=statement.text, remedy="read or create one first")
        if not library.has_id("fix", FIX) or not library.has_id("fix", f"{FIX}_guard"):
            raise ConfigError(
                "the script has removed the potential",
                where=where,
                wanted=f"the fixes {FIX} and {FIX}_guard",
                remedy="leave them alone, or start anew with 'clear'",
            )
        current = str(library.extract_global("pair_style"))
        if not self._style:
            if current not in ("none", "zero", "None"):
                raise ConfigError(
                    "the script has a pair style of its own, whose forces would be added to those of the potential",
                    where=where,
                    wanted="pair_style adatom",
                    got=f"pair_style {current}",
                    remedy=f"write so instead; where both are meant: pair_style hybrid/overlay adatom {current} ...",
                )
            command(library, f"pair_style {self._zero()}", where)
            self._style = STYLE
        command(library, "pair_coeff * *" + ("" if self._style == STYLE else " zero"), where)
        if self.comm.size > 1:  # copies of atoms must be there when they are needed
            command(library, "neigh_modify every 1 delay 0 check yes", where)
        if library.extract_atom("id") is None:
            raise ConfigError("atoms need numbers", where=where, remedy="leave 'atom_modify id no' out")
        kinds = library.extract_setting("ntypes")
        masses = library.numpy.extract_atom("mass")
        known = np.full(kinds, math.nan) if masses is None else np.array(masses[1 : kinds + 1])
        self.coupling.species = type_map(self.elements, known, self.potential, self._mapped or where)

    def _report(self, report: Report) -> None:
        if self.progress is not None:
            self.library.flush_buffers()
            speed = report.ns_per_day if self._now == "run" else math.nan
            step = report.step - self._first
            self.progress(Progress(self._now, step, self._steps, report.energy, speed))

    def _save(self, statement: Statement) -> None:
        """Leave a restart file, and go."""
        path = Path(f"{self.script.stem}.interrupted.restart")
        command(self.library, f"write_restart {path}", statement.where)
        raise Interrupted(path, int(self.library.extract_global("ntimestep")))


def _evaluator(
    potential: Potential, comm: Any, info: dict[str, float], say: Callable[[str], None] | None
) -> tuple[str, Evaluator]:
    """Who asks the potential, and in which way."""
    whole = Whole(potential, info=info)
    if comm.size == 1:
        return "whole", whole
    body = layers_of(potential)
    if body is None:
        return "gathered", Gathered(whole, comm)
    return "domains", Domain(potential, body, comm, info=info, say=say)


def _steps(words: list[str]) -> int:
    """How many steps a command takes at the most; 0 where it does not say."""
    place = {"run": 1, "minimize": 3}.get(words[0], 0)
    word = words[place] if 0 < place < len(words) else "0"
    return int(float(word)) if word.replace(".", "").isdigit() else 0


def _placed(error: BaseException, statement: Statement) -> BaseException:
    """An error of ours with the line of the script in front of where it happened."""
    if not isinstance(error, AdatomError):
        return error
    where = statement.where if error.where is None else f"{statement.where}: {statement.text}; {error.where}"
    return type(error)(error.problem, where=where, wanted=error.wanted, got=error.got, remedy=error.remedy)


def _unknown(statement: Statement, problem: str, wanted: str) -> ConfigError:
    return ConfigError(
        problem, where=statement.where, wanted=wanted, got=statement.text, remedy="take this line out of the script"
    )


@contextmanager
def _signals(coupling: Coupling) -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM ask for a stop after the step in hand; a second Ctrl-C is one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in heard}

    def ask(number: int, _frame: FrameType | None) -> None:
        if coupling.stop or not coupling.library.is_running:
            raise KeyboardInterrupt
        coupling.stop = True

    for number in heard:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
