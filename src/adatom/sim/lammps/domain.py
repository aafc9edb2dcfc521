"""Several processes, each with the atoms of its part of the cell: messages between layers cross from part to part.

A layer needs of an atom's neighbours the rows that they know by then (``adatom.stream``). So between two layers every
process sends the rows of its atoms to those that hold copies of them, and on the way back the slopes by these rows are
sent home and added. Nothing is computed twice, and copies need to reach one cutoff only, however many layers there are.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import ase
import numpy as np
import torch
from torch import Tensor, nn

from adatom.compile import Checked, Compiler
from adatom.errors import AdatomError, CompileWarning
from adatom.graph import Graph
from adatom.memory import ran_out
from adatom.models.layered import Layered, Rows
from adatom.neighbors import build_graph
from adatom.potential import COMPILED_CHUNK, EAGER_CHUNK, Potential
from adatom.priors.base import Prior
from adatom.sim.lammps.forces import Evaluated, Evaluator, Frame, Whole, symmetric, with_a_shift
from adatom.sim.skin import SkinList
from adatom.stream import Steps, streamed


class Exchange:
    """Rows of atoms from the processes that own them to those that hold copies, and slopes back.

    Parameters
    ----------
    comm
        The processes.
    own
        Tags of the atoms of this one, (n,).
    around
        Tags of the others it needs, each once, (h,).
    """

    def __init__(self, comm: Any, own: np.ndarray, around: np.ndarray) -> None:
        self.comm = comm
        self.own = max(own.shape[0], 1)  # a process without atoms has a row that nobody asks for
        tags = comm.allgather(own)
        every = np.concatenate(tags)
        rank = np.repeat(np.arange(len(tags)), [len(part) for part in tags])
        place = np.concatenate([np.arange(len(part)) for part in tags])
        order = np.argsort(every)
        home = order[np.searchsorted(every, around, sorter=order)]  # (h,)
        self.sorting = np.argsort(rank[home], kind="stable")  # (h,)  those of one process stand together
        home = home[self.sorting]
        self.taken = np.bincount(rank[home], minlength=comm.size)  # rows that come from each process
        self.given = np.array(comm.alltoall(self.taken.tolist()))  # rows that go to each
        self.places = np.empty(int(self.given.sum()), dtype=np.int64)  # (s,)  which rows go
        self._send(place[home].astype(np.int64), self.taken, self.places, self.given)

    def fetch(self, rows: Rows) -> Rows:
        """Rows of own atoms (n, F), those of the atoms around them behind."""
        wide = torch.cat(rows, dim=1)
        leaving = wide.index_select(0, self._index(wide)).cpu().numpy()
        arrived = np.empty((len(self.sorting), wide.shape[1]), dtype=leaving.dtype)
        self._send(leaving, self.given, arrived, self.taken)
        whole = torch.cat([wide, torch.from_numpy(arrived).to(wide.device)])
        return _parted(whole, rows)

    def give(self, slopes: Rows) -> Rows:
        """Slopes by all rows (n + h, F): those by own ones (n, F), with what others found added."""
        wide = torch.cat(slopes, dim=1)
        leaving = wide[self.own :].cpu().numpy()
        arrived = np.empty((len(self.places), wide.shape[1]), dtype=leaving.dtype)
        self._send(leaving, self.taken, arrived, self.given)
        total = wide[: self.own].index_add(0, self._index(wide), torch.from_numpy(arrived).to(wide.device))
        return _parted(total, slopes)

    def _index(self, like: Tensor) -> Tensor:
        return torch.from_numpy(self.places).to(like.device)

    def _send(self, leaving: np.ndarray, to: np.ndarray, arrived: np.ndarray, of: np.ndarray) -> None:
        """Rows to each process and from each, in their order."""
        width = int(np.prod(arrived.shape[1:]))
        self.comm.Alltoallv(
            [np.ascontiguousarray(leaving), (to * width, _starts(to) * width)],
            [arrived, (of * width, _starts(of) * width)],
        )


class Patient:
    """One of the functions that chunks go through: compiled when it has taken ``patience`` seconds without.

    Seconds are those of a processor: where several processes share it, waiting for it is not what compiling saves.
    Processes compile when they come to it, each for itself, and call ``say`` first; the others wait. What cannot be
    compiled, or comes out otherwise than in float64, goes on as it was, with a warning.
    """

    def __init__(self, step: Callable[..., Any], device: str, patience: float, say: Callable[[], None]) -> None:
        self.step, self.device, self.patience, self.say = step, device, patience, say
        self.compiled: Checked | None = None
        self.dropped = False

    def __call__(self, module: nn.Module, *inputs: Any) -> Any:
        """What the step says of a chunk."""
        if self.dropped or self.patience > 0.0:
            wall, busy = time.monotonic(), time.process_time()
            found = self.step(module, *inputs)
            # threads together are busy for longer than the clock says
            self.patience -= min(time.monotonic() - wall, time.process_time() - busy)
            return found
        try:
            if self.compiled is None:
                self.say()
                self.compiled = Checked(self.step, self.device)
            return self.compiled(module, *inputs)
        except Exception as error:
            if isinstance(error, AdatomError) or ran_out(error):
                raise
            self.dropped = True
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            warnings.warn(f"compiling was given up, all goes on uncompiled: {first}", CompileWarning, stacklevel=2)
            return self.step(module, *inputs)


class Domain(Evaluator):
    """The atoms of one process among several, for networks of layers.

    LAMMPS must renew its copies of atoms as soon as one may be missing: ``neigh_modify every 1 delay 0 check yes``.
    """

    def __init__(
        self,
        potential: Potential,
        body: Layered,
        comm: Any,
        skin: float = 0.5,
        info: dict[str, Any] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.potential, self.body, self.comm = potential, body, comm
        self.skin, self.info = skin, dict(info or {})
        self.device = potential.references.device
        self._say = say  # forgotten when it has been said
        runner = potential.runner
        self.steps, self.size = Steps(), EAGER_CHUNK
        if isinstance(runner, Compiler):
            share = runner.patience / len(self.steps)
            self.steps = Steps(*(Patient(step, self.device.type, share, self._tell) for step in self.steps))
            self.size = COMPILED_CHUNK
        self.priors = [prior for prior in potential.priors if isinstance(prior, Prior)]
        self._tags = np.zeros(0, dtype=np.int64)  # (n + g,)  as LAMMPS lists them
        self._nodes = np.zeros(0, dtype=np.int64)  # (n + h,)  which of them are atoms of the graph
        self._numbers = np.zeros(0, dtype=np.int64)
        self._last = np.zeros((0, 3))  # (n + h, 3)
        self._list = SkinList(potential.cutoff, skin, self.device)
        self._exchange = Exchange(comm, self._tags, self._tags)

    def __call__(self, frame: Frame, atomic: bool) -> Evaluated:
        """Own atoms through all layers, in step with the other processes."""
        numbers = frame.numbers[: frame.own]
        same = np.array_equal(frame.tags, self._tags) and np.array_equal(numbers, self._numbers[: frame.own])
        if not self.comm.allreduce(same, op=_all()):
            self._settle(frame)
        graph = with_a_shift(self._graph(frame) if frame.own else self._nobody(frame))
        own = self._exchange.own
        graph = graph.replace(slots=graph.slots[:own], neighbours=graph.neighbours[:own])
        found = streamed(self.body, self.potential.scale, self.priors, graph, self.size, self.steps, self._exchange)
        energies = (found.energy + self.potential.atomic_references(graph))[: frame.own]
        total = np.append(found.virials.sum(0).cpu().numpy(), float(energies.sum()))
        self.comm.Allreduce(total.copy(), total)
        return Evaluated(
            float(total[9]),
            -found.slopes[: frame.own].cpu().numpy(),
            symmetric(-total[:9].reshape(3, 3)),
            energies.cpu().numpy() if atomic else None,
            symmetric(-found.virials[: frame.own].cpu().numpy()) if atomic else None,
        )

    def _tell(self) -> None:
        """That code is being made, once, by the first process."""
        say, self._say = self._say, None
        if say is not None and self.comm.rank == 0:
            say("compiling now: each process takes half a minute to a minute and a half, less where it was done before")

    def _graph(self, frame: Frame) -> Graph:
        """Own atoms and those around them as they stand now."""
        positions = frame.positions[self._nodes]
        steps = np.round((positions - self._last) @ np.linalg.pinv(frame.cell)) * frame.pbc
        self._last = positions - np.where(np.isfinite(steps), steps, 0.0) @ frame.cell
        return self._list.at(torch.from_numpy(self._last).to(self.device), frame.cell)

    def _nobody(self, frame: Frame) -> Graph:
        """A lone atom that nobody sees: a process without atoms keeps step with the others."""
        around = frame.positions[self._nodes]
        return build_graph(
            torch.from_numpy(np.append(self.potential.elements[0], self._numbers)).to(self.device),
            torch.from_numpy(np.concatenate([np.zeros((1, 3)), around])).to(self.device),
            torch.zeros(2, 0, dtype=torch.int64, device=self.device),
            torch.zeros(0, 3, dtype=torch.float64, device=self.device),
            torch.from_numpy(frame.cell).to(self.device),
            torch.from_numpy(frame.pbc).to(self.device),
        )

    def _settle(self, frame: Frame) -> None:
        """Take note of who is where: own atoms, and each atom around them once, whatever images LAMMPS holds of it."""
        n = frame.own
        around, first = np.unique(frame.tags[n:], return_index=True)
        strangers = ~np.isin(around, frame.tags[:n])
        around, first = around[strangers], first[strangers]
        self._exchange = Exchange(self.comm, frame.tags[:n], around)
        self._tags = frame.tags.copy()
        self._nodes = np.concatenate([np.arange(n), n + first[self._exchange.sorting]])
        self._numbers, self._last = frame.numbers[self._nodes], frame.positions[self._nodes]
        atoms = ase.Atoms(self._numbers, self._last, cell=frame.cell, pbc=frame.pbc)
        atoms.info |= self.info
        self._list = SkinList(self.potential.cutoff, self.skin, self.device, loose=self.potential.network.claims.smooth)
        self._list.meet(atoms)


class Gathered(Evaluator):
    """All atoms on the first process, the others wait: for networks that cannot be cut into parts."""

    def __init__(self, whole: Whole, comm: Any) -> None:
        self.whole, self.comm = whole, comm

    def __call__(self, frame: Frame, atomic: bool) -> Evaluated:
        """What the first process finds, each its share."""
        n = frame.own
        parts = self.comm.gather((frame.tags[:n], frame.numbers[:n], frame.positions[:n]))
        shares: list[Evaluated] | None = None
        if parts is not None:
            tags, numbers, positions = (np.concatenate(column) for column in zip(*parts, strict=True))
            found = self.whole(Frame(len(tags), tags, numbers, positions, frame.cell, frame.pbc), atomic)
            ends = np.cumsum([len(part[0]) for part in parts])[:-1]
            none = [None] * len(parts)
            shares = [
                Evaluated(found.energy, forces, found.virial, energies, virials)
                for forces, energies, virials in zip(
                    np.split(found.forces, ends),
                    none if found.energies is None else np.split(found.energies, ends),
                    none if found.virials is None else np.split(found.virials, ends),
                    strict=True,
                )
            ]
        share: Evaluated = self.comm.scatter(shares)
        return share


def _parted(wide: Tensor, like: Rows) -> Rows:
    """Columns of a table as rows of the widths they had."""
    parts: Rows = wide.split([row.shape[1] for row in like], dim=1)
    return parts


def _starts(counts: np.ndarray) -> np.ndarray:
    first: np.ndarray = np.cumsum(counts) - counts
    return first


def _all() -> Any:
    """The operation that asks whether all processes say yes."""
    from mpi4py import MPI

    return MPI.LAND
