"""Batches of a plan in their order, prepared ahead by worker processes."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import signal
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from multiprocessing.connection import Connection, wait
from typing import Any, Final

import numpy as np
import torch

from adatom import errors
from adatom.data.dataset import Dataset
from adatom.errors import AdatomError, WorkerError
from adatom.graph import Graph, Results

Batch = tuple[Graph, Results]

ALIGNED: Final = 64  # bytes; where each array begins in a message
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)  # batch systems send them to all: the main process decides
GRAPH: Final = tuple(f.name for f in fields(Graph))


def load(dataset: Dataset, plan: Iterable[Sequence[int]], workers: int = 0) -> Iterator[Batch]:
    """The batches of a plan, one after the other; the same for any number of workers.

    Worker k prepares the batches k, k + workers, ... and holds the next ones ready. ``plan[k:]`` goes on from batch k.
    An error in a worker is raised here as if it had happened here.

    Raises
    ------
    WorkerError
        A worker died, for want of memory or by a signal.
    """
    if workers <= 0:
        for indices in plan:
            yield dataset.batch(indices)
        return
    plan = plan if isinstance(plan, Sequence) else list(plan)
    pool = _Pool(dataset, plan, min(workers, max(len(plan), 1)))
    try:
        for number in range(len(plan)):
            yield pool.answer(number)
    finally:
        pool.close()


class _Pool:
    """Worker processes with a pipe to each."""

    def __init__(self, dataset: Dataset, plan: Sequence[Sequence[int]], workers: int) -> None:
        forks = "fork" in multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("fork" if forks else "spawn")
        pipes = [context.Pipe(duplex=False) for _ in range(workers)]
        self.pipes: list[Connection] = [ours for ours, _ in pipes]
        self.processes = []
        for k, (_, theirs) in enumerate(pipes):
            # a child that kept the other ends would keep its siblings waiting after the main process died
            others = [c for i, pair in enumerate(pipes) for c in pair if (i, c) != (k, theirs)] if forks else []
            process = context.Process(
                target=_work, args=(dataset, plan, range(k, len(plan), workers), theirs, others), daemon=True
            )
            if forks:  # until the child can look after itself
                signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            with warnings.catch_warnings():  # Python >= 3.12 warns of threads; workers compute with NumPy alone
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            if forks:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            self.processes.append(process)
        for _, theirs in pipes:
            theirs.close()

    def answer(self, number: int) -> Batch:
        """The batch of this number; to be called in turn."""
        k = number % len(self.pipes)
        pipe = self.pipes[k]
        try:
            if not pipe.poll():
                wait([pipe, self.processes[k].sentinel])
            if not pipe.poll():  # the process ended and left nothing behind
                raise self._died(k)
            head = json.loads(pipe.recv_bytes())
            if "error" in head:
                raise _restored(head)
            buffer = bytearray(head["bytes"])
            pipe.recv_bytes_into(buffer)
        except (EOFError, OSError) as error:
            raise self._died(k) from error
        return _unpacked(head["layout"], buffer)

    def _died(self, k: int) -> WorkerError:
        process = self.processes[k]
        process.join(1.0)
        code = process.exitcode
        cause = f"exit code {code}" if code is None or code >= 0 else f"signal {signal.Signals(-code).name}"
        killed = code == -signal.SIGKILL
        return WorkerError(
            "a process that prepared batches died",
            where=f"worker {k} of {len(self.pipes)}, process {process.pid}",
            got=cause + (": most often the system had run out of memory" if killed else ""),
            remedy="go on from the last checkpoint with --resume, with fewer workers or none where memory is short",
        )

    def close(self) -> None:
        """End all workers."""
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.kill()  # it has nothing to put in order
        for process in self.processes:
            process.join()
            process.close()


def _work(
    dataset: Dataset, plan: Sequence[Sequence[int]], mine: range, pipe: Connection, others: Sequence[Connection]
) -> None:
    """Life of a worker: its batches go out one after the other, each as soon as the one before has been taken."""
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    if others:  # of a fork
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    for other in others:
        other.close()
    torch.set_num_threads(1)
    with contextlib.suppress(OSError):  # the main process has gone
        for number in mine:
            try:
                layout, buffer = _packed(dataset.batch(plan[number]))
            except Exception as error:  # whatever it is, it is raised in the main process
                pipe.send_bytes(json.dumps(_told(error)).encode())
                return
            pipe.send_bytes(json.dumps({"layout": layout, "bytes": len(buffer)}).encode())
            pipe.send_bytes(buffer)


def _packed(batch: Batch) -> tuple[list[tuple[str, list[int], int]], bytearray]:
    """A batch as one run of bytes, and where each array stands in it: type, shape, first byte."""
    graph, label = batch
    arrays = [t.numpy() for t in (*(getattr(graph, name) for name in GRAPH), *label)]
    layout, size = [], 0
    for array in arrays:
        layout.append((array.dtype.str, list(array.shape), size))
        size += -(-array.nbytes // ALIGNED) * ALIGNED
    buffer = bytearray(max(size, 1))
    for array, (kind, shape, start) in zip(arrays, layout, strict=True):
        np.ndarray(shape, kind, buffer, start)[...] = array
    return layout, buffer


def _unpacked(layout: Sequence[tuple[str, list[int], int]], buffer: bytearray) -> Batch:
    tensors = [torch.from_numpy(np.ndarray(shape, kind, buffer, start)) for kind, shape, start in layout]
    return Graph(**dict(zip(GRAPH, tensors, strict=False))), Results(*tensors[len(GRAPH) :])


def _told(error: Exception) -> dict[str, Any]:
    """An error in plain values."""
    if isinstance(error, AdatomError):
        parts = ("problem", "where", "wanted", "got", "remedy")
        return {"error": type(error).__name__, **{name: getattr(error, name) for name in parts}}
    return {"error": "", "problem": "a worker failed", "got": "".join(traceback.format_exception(error)).strip()}


def _restored(told: dict[str, Any]) -> AdatomError:
    kind = getattr(errors, told.pop("error"), WorkerError)
    return kind(told.pop("problem"), **told)  # type: ignore[no-any-return]
