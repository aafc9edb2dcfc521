"""i-PI: a client that gives energies, forces and virials to an i-PI server, over a socket of this machine or the net.

i-PI moves the nuclei, classical or as rings of beads, and asks its clients for forces. With ``<batch_size>`` in its
``<ffsocket>`` it sends several beads in one message; they go through the network together.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import ase
import numpy as np
import torch
from ase.calculators.calculator import BaseCalculator
from ase.units import Bohr, Hartree

from adatom.compile import Mode
from adatom.errors import ConfigError, SimulationError
from adatom.potential import Potential
from adatom.sim.calculator import Calculator, has_volume
from adatom.sim.many import Evaluation, evaluate

HEADER = 12  # bytes of a message's name
PREFIX = "/tmp/ipi_"  # of socket files, as i-PI has it
PAUSE = 0.1  # s between two attempts to reach a server


class Server(NamedTuple):
    """Where an i-PI server listens: a socket file PREFIX + name, or a port of a host."""

    name: str | None = None
    host: str = "localhost"
    port: int = 31415
    prefix: str = PREFIX

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.name is None else f"socket {self.prefix}{self.name}"

    def connect(self) -> socket.socket:
        """A connection; OSError where nobody listens."""
        if self.name is None:
            line = socket.create_connection((self.host, self.port))
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return line
        line = socket.socket(socket.AF_UNIX)
        try:
            line.connect(self.prefix + self.name)
        except OSError:
            line.close()
            raise
        return line


def serve(
    potential: BaseCalculator | Potential | str | Path,
    atoms: ase.Atoms,
    server: Server,
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    compile: Mode | None = None,
    source: str | None = None,
    patience: float = 60.0,
    alive: Callable[[], bool] | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Answer an i-PI server until it says goodbye; returns how many different geometries were evaluated.

    Parameters
    ----------
    potential
        A model file, a potential, or any calculator of ASE.
    atoms
        What the particles of i-PI are, in its order: i-PI does not say. ``pbc``, total charge and multiplicity are
        taken from here, positions and cell from i-PI. Along open directions atoms are taken where they belong together,
        whatever i-PI folds; of structures that are not periodic in three directions the virial is zero.
    server
        Where i-PI listens.
    device, dtype, compile, source
        As in ``adatom.Calculator``; not for calculators.
    patience
        Seconds to wait for a server that does not listen yet.
    alive
        Asked while waiting: whether there can be a server at all.
    progress
        Called with the number of geometries after each message.

    Raises
    ------
    ConfigError
        No server, or one with another number of atoms.
    UnknownElementError, ChargeError
        The potential was not made for these atoms.
    SimulationError
        A figure is no number, or the connection broke in the middle of a message. The connection is closed then: i-PI
        stops with ``<exit_on_disconnect>True</exit_on_disconnect>``, and waits for another client without.
    """
    engine = (
        potential
        if isinstance(potential, BaseCalculator)
        else Calculator(potential, device, dtype, compile=compile, source=source)
    )
    if isinstance(engine, Calculator):
        engine.check(atoms)
    with _reach(server, patience, alive) as line:
        client = Client(line, engine, atoms, server)
        while client.answer():
            if progress is not None and client.fresh:
                progress(client.evaluated)
    return client.evaluated


class Client:
    """One connection to i-PI, message by message. i-PI speaks in atomic units, of cells it writes the columns."""

    def __init__(self, line: socket.socket, calculator: BaseCalculator, atoms: ase.Atoms, server: Server) -> None:
        self.evaluated, self.fresh = 0, False
        self._line, self._calculator, self._server = line, calculator, server
        self._atoms = atoms.copy()
        self._atoms.set_constraint()
        self._placed = self._atoms.positions.copy()  # the last geometry, whole along open directions
        self._batch = 1
        self._known = False  # the server has said how many beads a message holds
        self._found: list[Evaluation] = []

    def answer(self) -> bool:
        """Answer one message; whether there will be more."""
        message = self._receive(HEADER, first=True).decode("ascii", errors="replace").strip()
        self.fresh = message == "POSDATA"
        if message in ("", "EXIT"):
            return False
        if message == "STATUS":
            self._say("HAVEDATA" if self._found else "READY" if self._known else "NEEDINIT")
        elif message == "INIT":
            self._begin()
        elif message == "POSDATA":
            self._compute(self._geometries())
        elif message == "GETFORCE" and self._found:
            self._send()
        else:
            raise SimulationError(
                "i-PI sent a message that has no place here",
                where=str(self._server),
                wanted="STATUS, INIT, POSDATA, GETFORCE or EXIT",
                got=message,
                remedy="use i-PI 3, and a socket that nobody else talks to",
            )
        return True

    def _begin(self) -> None:
        _, length = self._numbers(2, np.int32)
        words = self._receive(int(length)).decode("ascii", errors="replace").replace(" ", "").split(",")
        for word in words:
            key, _, value = word.partition(":")
            if key == "batch_size":
                self._batch = int(value)
        self._known = True

    def _geometries(self) -> list[ase.Atoms]:
        """The geometries of one message."""
        batch = self._batch
        if batch > 1:
            self._check_count(int(self._numbers(1, np.int32)[0]))
            cells = self._numbers(18 * batch).reshape(batch, 2, 3, 3)[:, 0]
        else:
            cells = self._numbers(18).reshape(1, 2, 3, 3)[:, 0]
            self._check_count(int(self._numbers(1, np.int32)[0]))
        positions = self._numbers(batch * 3 * len(self._atoms)).reshape(batch, -1, 3)
        return [self._geometry(c.T * Bohr, p * Bohr) for c, p in zip(cells, positions, strict=True)]

    def _geometry(self, cell: np.ndarray, positions: np.ndarray) -> ase.Atoms:
        atoms = self._atoms.copy()
        atoms.info = self._atoms.info
        if not atoms.pbc.all() and len(atoms):
            # by how many cells each atom has moved against the first one since the last geometry: by none
            moved = (positions - positions[0]) - (self._placed - self._placed[0])
            folds = np.where(atoms.pbc, 0.0, np.round(moved @ np.linalg.inv(cell)))
            positions = positions - folds @ cell
            self._placed = positions
        atoms.set_cell(np.where(atoms.pbc[:, None], cell, 0.0))
        atoms.positions = positions
        return atoms

    def _compute(self, geometries: list[ase.Atoms]) -> None:
        """Evaluate a message; copies of a geometry, which fill up a message that is not full, cost nothing."""
        first = geometries[:1] + [b for a, b in pairwise(geometries) if not _same(a, b)]
        found = evaluate(first, self._calculator, stress=has_volume(self._atoms))
        places = np.cumsum([0] + [not _same(a, b) for a, b in pairwise(geometries)])
        self._found = [found[place] for place in places]
        self._volumes = [atoms.cell.volume for atoms in geometries]
        self.evaluated += len(first)

    def _send(self) -> None:
        found, self._found = self._found, []
        if has_volume(self._atoms):
            virials = [-volume * one.stress for volume, one in zip(self._volumes, found, strict=True)]
        else:
            virials = [np.zeros((3, 3))] * len(found)
        parts = [
            b"FORCEREADY".ljust(HEADER),
            np.array([one.energy / Hartree for one in found]).tobytes(),
            np.int32(len(self._atoms)).tobytes(),
            np.array([one.forces * (Bohr / Hartree) for one in found]).tobytes(),
            np.array([virial / Hartree for virial in virials]).tobytes(),
            np.int32(0).tobytes() * len(found),  # no further text
        ]
        self._line.sendall(b"".join(parts))

    def _check_count(self, count: int) -> None:
        if count != len(self._atoms):
            raise ConfigError(
                "i-PI moves another number of atoms than the structure of the client holds",
                where=str(self._server),
                wanted=f"{len(self._atoms)} atoms, {self._atoms.get_chemical_formula()}",
                got=f"{count}",
                remedy="give the client the structure that i-PI starts from, atoms in the same order",
            )

    def _say(self, word: str) -> None:
        self._line.sendall(word.encode().ljust(HEADER))

    def _numbers(self, count: int, kind: type = np.float64) -> np.ndarray:
        return np.frombuffer(self._receive(count * np.dtype(kind).itemsize), dtype=kind)

    def _receive(self, size: int, first: bool = False) -> bytes:
        """Exactly so many bytes; none where the line was closed before the ``first`` of a message."""
        data = bytearray()
        while len(data) < size:
            try:
                piece = self._line.recv(size - len(data))
            except ConnectionResetError:
                piece = b""
            if not piece:
                if first and not data:
                    return b""
                raise SimulationError(
                    "i-PI closed the connection in the middle of a message",
                    where=str(self._server),
                    remedy="look into the output of i-PI",
                )
            data += piece
        return bytes(data)


def _same(a: ase.Atoms, b: ase.Atoms) -> bool:
    return np.array_equal(a.positions, b.positions) and np.array_equal(a.cell.array, b.cell.array)


def _reach(server: Server, patience: float, alive: Callable[[], bool] | None) -> socket.socket:
    """A connection as soon as the server listens."""
    until = time.monotonic() + patience
    while True:
        try:
            return server.connect()
        except OSError as error:
            if time.monotonic() < until and (alive is None or alive()):
                time.sleep(PAUSE)
                continue
            raise ConfigError(
                "no i-PI server can be reached",
                where=str(server),
                wanted="a running i-PI whose <ffsocket> has this address",
                got=error.strerror or str(error),
                remedy="start it first: i-pi input.xml; compare mode, address and port in <ffsocket>",
            ) from error
