"""Between LAMMPS and a potential: at every step LAMMPS hands over its atoms, and gets energy, forces and virial.

LAMMPS calls back through ``fix external``. An error cannot travel through its C++: left alone, Python prints it and
LAMMPS goes on with the forces of the step before. So an error is kept, the forces become NaN, and a figure that LAMMPS
watches makes it stop right after the call, before it moves an atom or writes a line (``_GUARD``).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from adatom.errors import AdatomError, MemoryLimitError, SimulationError
from adatom.memory import ran_out
from adatom.sim.lammps.forces import Evaluated, Evaluator, Frame
from adatom.sim.lammps.library import command

FIX = "adatom"
# fix addforce asks for its variables at every step, in setup and in minimisation; there is no atom it could act on
_GUARD = (
    "variable adatom_failed equal 0/(1-f_adatom[1])",
    "variable adatom_zero atom 0",
    "group adatom_none empty",
    "fix adatom_guard adatom_none addforce v_adatom_failed 0.0 0.0 energy v_adatom_zero",
)
NS_A_DAY = 86.4  # of one ps a second
EVERY = 0.5  # s between two reports


class Report(NamedTuple):
    """How a run stands."""

    step: int
    energy: float  # eV, of the potential
    ns_per_day: float  # NaN in minimisation, and before there is a second step


class Coupling:
    """A potential as a fix of LAMMPS.

    Parameters
    ----------
    library
        LAMMPS.
    comm
        The processes that run it.
    evaluator
        Asks the potential.
    report
        Called about twice a second.
    """

    def __init__(self, library: Any, comm: Any, evaluator: Evaluator, report: Callable[[Report], None]) -> None:
        self.library, self.comm, self.evaluator, self.report = library, comm, evaluator, report
        self.species = np.zeros(0, dtype=np.int64)  # (T,)  element of each type
        self.atomic = False  # whether energies and virials of single atoms are asked for
        self.failure: BaseException | None = None
        self.stop = False  # asked from outside
        self.stopped = False  # and done
        self.calls = 0
        self._together = False  # whether all processes have come to a failure at the same step: each ends by itself
        self._began, self._first = 0.0, -1  # of this run: time and step of its first call
        self._told = 0.0

    def attach(self, where: str) -> None:
        """Become the first fix of the box that is there, so that those of the script act on our forces as well."""
        command(self.library, f"fix {FIX} all external pf/callback 1 1", where)
        self.library.fix_external_set_vector_length(FIX, 2)
        self.library.fix_external_set_vector(FIX, 1, 0.0)
        self.library.set_fix_external_callback(FIX, self._called, None)
        for line in _GUARD:
            command(self.library, line, where)

    def begin(self) -> None:
        """A new run: clocks start anew."""
        self._first, self._told = -1, time.monotonic()

    def _called(self, _caller: object, step: int, own: int, _tag: object, _x: object, forces: Any) -> None:
        """What LAMMPS calls; nothing is raised from here."""
        self.calls += 1
        try:
            self._step(step, own, forces)
        except BaseException as error:  # whatever it is, LAMMPS must stop: what was caught is raised after it has
            self._fail(error, step)
            if own:
                forces[:] = np.nan
            if self.comm.size > 1 and not self._together:
                self._abort(error)

    def _step(self, step: int, own: int, forces: Any) -> None:
        library = self.library
        found = self.evaluator(self._frame(own), self.atomic)
        self._agree(step, found)
        if own:
            forces[:] = found.forces
        library.fix_external_set_energy_global(FIX, found.energy)
        v = found.virial
        library.fix_external_set_virial_global(FIX, [v[0, 0], v[1, 1], v[2, 2], v[0, 1], v[0, 2], v[1, 2]])
        if self.atomic and found.energies is not None:
            library.fix_external_set_energy_peratom(FIX, found.energies.tolist())
        if self.atomic and found.virials is not None and own:
            w = found.virials
            pairs = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
            library.fix_external_set_virial_peratom(FIX, np.stack([w[:, i, j] for i, j in pairs], axis=1).tolist())
        if self.stopped:
            library.lib.lammps_force_timeout(library.lmp)
        self._say(step, found.energy)

    def _frame(self, own: int) -> Frame:
        """The atoms as LAMMPS holds them now."""
        library = self.library
        held = own if self.comm.size == 1 else library.extract_setting("nall")
        low, high, xy, yz, xz, periodic, _ = library.extract_box()
        edges = np.array(high) - np.array(low)
        cell = np.array([[edges[0], 0.0, 0.0], [xy, edges[1], 0.0], [xz, yz, edges[2]]])
        pbc = np.array(periodic, dtype=bool)
        if not held:
            empty = np.zeros(0, dtype=np.int64)
            return Frame(0, empty, empty, np.zeros((0, 3)), np.where(pbc[:, None], cell, 0.0), pbc)
        types = library.numpy.extract_atom("type", nelem=held)
        return Frame(
            own,
            library.numpy.extract_atom("id", nelem=held).astype(np.int64),
            self.species[types - 1],
            library.numpy.extract_atom("x", nelem=held, dim=3).astype(np.float64),
            np.where(pbc[:, None], cell, 0.0),
            pbc,
        )

    def _agree(self, step: int, found: Evaluated) -> None:
        """All processes stop where one has found no number, or was asked to stop."""
        bad = ~np.isfinite(found.forces).all(axis=1)
        counts = np.array([float(bad.sum()), float(self.stop)])
        if self.comm.size > 1:
            self.comm.Allreduce(counts.copy(), counts)
        self.stopped = bool(counts[1])
        if counts[0] or not np.isfinite(found.energy):
            self._together = True
            raise SimulationError(
                "the potential gave no number, and the run was stopped",
                where=f"step {step}",
                wanted="finite energy and forces",
                got=f"energy {found.energy} eV, forces on {int(counts[0])} atoms not finite",
                remedy="relax the structure first (minimize), take a shorter timestep, or train on such structures",
            )

    def _fail(self, error: BaseException, step: int) -> None:
        """Keep the first error, and have LAMMPS stop."""
        short = isinstance(error, Exception) and not isinstance(error, AdatomError) and ran_out(error)
        self.failure = self.failure or (_no_memory(error, step) if short else error)
        self.library.fix_external_set_vector(FIX, 1, 1.0)

    def _abort(self, error: BaseException) -> None:
        """One process of several cannot go on while the others wait for it: end them all."""
        print(f"process {self.comm.rank}: ({type(error).__name__}) {error}", file=sys.stderr, flush=True)
        self.comm.Abort(1)
        os._exit(1)  # it may come back from there, to a LAMMPS that the others have left

    def _say(self, step: int, energy: float) -> None:
        """Report now and then."""
        now = time.monotonic()
        if self._first < 0:
            self._began, self._first = now, step
        elif now - self._told < EVERY:
            return
        self._told = now
        done = step - self._first
        speed = done * self.library.extract_global("dt") / (now - self._began) if done and now > self._began else np.nan
        self.report(Report(step, energy, speed * NS_A_DAY))


def _no_memory(error: BaseException, step: int) -> MemoryLimitError:
    return MemoryLimitError(
        "memory ran out, and the run was stopped",
        where=f"step {step}",
        got=str(error).splitlines()[0] if str(error) else type(error).__name__,
        remedy="take a smaller system, more processes (mpirun -n 4 adatom lammps ...), or a larger machine",
    )
