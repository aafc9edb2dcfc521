"""Batches are the same with and without workers, and a worker that dies is an error."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from adatom.data.dataset import Budget, Dataset, batches
from adatom.data.loader import Batch, load
from adatom.data.pack import pack
from adatom.data.read import read
from adatom.data.store import Store
from adatom.errors import StoreError, WorkerError
from data.packed import flip, odd_structures, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("loaded")
    pack([write(place / "a.xyz", odd_structures(80, 4))], place / "store")
    return place


def assert_equal(left: list[Batch], right: list[Batch]) -> None:
    for (graph, label), (other, other_label) in zip(left, right, strict=True):
        for field in fields(graph):
            a, b = getattr(graph, field.name), getattr(other, field.name)
            assert a.dtype == b.dtype
            assert torch.equal(a, b)
        for a, b in zip(label, other_label, strict=True):
            assert torch.equal(a.isnan(), b.isnan())
            assert torch.equal(a.nan_to_num(), b.nan_to_num())


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("source", ["store", "a.xyz"])
def test_batches_are_the_same_for_any_number_of_workers(folder: Path, workers: int, source: str) -> None:
    data = Dataset(read(folder / source)[0], 4.0, source=2)
    plan = batches(data, Budget(atoms=20), seed=1)
    alone = list(load(data, plan))
    assert_equal(alone, list(load(data, plan, workers)))
    assert_equal(alone[5:], list(load(data, plan[5:], workers)))
    assert_equal(alone[:2], list(load(data, iter(plan[:2]), workers)))
    assert list(load(data, [], workers)) == []
    assert multiprocessing.active_children() == []


def test_batches_from_workers_can_be_written_to(folder: Path) -> None:
    graph, label = next(load(Dataset(Store(folder / "store"), 4.0), [[0, 1]], 1))
    graph.positions.add_(1.0)
    label.energy.zero_()


def test_a_worker_that_is_killed_is_an_error_and_no_hang(folder: Path) -> None:
    data = Dataset(Store(folder / "store"), 4.0)
    batch = load(data, [[k % 80, 3] for k in range(500)], 2)
    next(batch)
    victim = multiprocessing.active_children()[0]
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    start = time.monotonic()
    with pytest.raises(WorkerError, match="signal SIGKILL") as caught:
        list(batch)
    assert "--resume" in str(caught.value)
    assert time.monotonic() - start < 20
    assert multiprocessing.active_children() == []


def test_workers_leave_the_answer_to_a_signal_to_the_main_process(folder: Path) -> None:
    data = Dataset(Store(folder / "store"), 4.0)
    plan = [[k, k + 1] for k in range(40)]
    batch = load(data, plan, 2)
    first = next(batch)
    for process in multiprocessing.active_children():
        assert process.pid is not None
        os.kill(process.pid, signal.SIGTERM)
        os.kill(process.pid, signal.SIGINT)
    assert_equal([first, *batch], list(load(data, plan)))


def test_an_error_in_a_worker_is_raised_as_itself(folder: Path, tmp_path: Path) -> None:
    for path in (folder / "store").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    flip(tmp_path / "rows.f8", 5)
    with pytest.raises(StoreError, match="structure 0") as caught:
        list(load(Dataset(Store(tmp_path), 4.0), [[7], [0, 1]], 2))
    assert caught.value.remedy is not None
    with pytest.raises(WorkerError, match="IndexError"):
        list(load(Dataset(Store(folder / "store"), 4.0), [np.array([800])], 1))


def test_leaving_early_ends_the_workers(folder: Path) -> None:
    batch = load(Dataset(Store(folder / "store"), 4.0), [[0]] * 50, 2)
    next(batch)
    assert len(multiprocessing.active_children()) == 2
    batch.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []
