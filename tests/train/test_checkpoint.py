"""A checkpoint holds all of a run, and a disk that is full leaves the last one whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from adatom.errors import CheckpointError
from adatom.train import checkpoint

STATE = {"step": 7, "best_loss": 0.25, "schedule": {"factor": 0.5}}


class Run:
    """A network, its optimiser and an average, a few steps from their start."""

    def __init__(self, seed: int, steps: int = 3) -> None:
        torch.manual_seed(seed)
        self.network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)).double()
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.1)
        for _ in range(steps):
            self.step()
        self.averages = {"average": [p.detach() * 0.5 for p in self.network.parameters()]}

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.network(torch.ones(2, 3, dtype=torch.float64)).square().sum().backward()
        self.optimizer.step()

    def gather(self) -> checkpoint.Checkpoint:
        return checkpoint.gather(self.network, self.averages, self.optimizer, STATE)

    def weights(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.network.parameters()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_run_goes_on_from_a_checkpoint_bit_by_bit(tmp_path: Path) -> None:
    one, other = Run(0), Run(1, steps=0)
    path = tmp_path / checkpoint.CHECKPOINT
    checkpoint.write(one.gather(), path)
    saved = checkpoint.read(path)
    assert saved.state == STATE
    checkpoint.scatter(saved, other.network, other.averages, other.optimizer)
    assert same(one.averages["average"], other.averages["average"])
    for _ in range(3):
        assert same(one.weights(), other.weights())
        one.step()
        other.step()


def test_a_checkpoint_is_a_copy_of_its_time(tmp_path: Path) -> None:
    run = Run(0)
    before, kept = run.weights(), run.gather()
    run.step()
    assert same([kept.tensors[f"network.{name}"] for name, _ in run.network.named_parameters()], before)


def test_a_full_disk_is_named_and_leaves_the_last_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / checkpoint.CHECKPOINT
    run = Run(0)
    checkpoint.write(run.gather(), path)
    before = path.read_bytes()
    run.step()
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(CheckpointError, match=r"No space left on device; .* from before is whole") as caught:
        checkpoint.write(run.gather(), path)
    assert caught.value.where == str(path)
    assert "--resume" in str(caught.value.remedy)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name], "no part of a file is left"
    assert checkpoint.read(path).state == STATE


def test_the_first_checkpoint_on_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(CheckpointError, match="nothing was written"):
        checkpoint.write(Run(0).gather(), tmp_path / checkpoint.CHECKPOINT)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "content", [None, b"", b"not a checkpoint", b"\x80\x04N."], ids=["none", "empty", "text", "pickle"]
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / checkpoint.CHECKPOINT
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="no usable checkpoint") as caught:
        checkpoint.read(path)
    assert caught.value.where == str(path)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / checkpoint.CHECKPOINT
    checkpoint.write(Run(0).gather(), path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError):
        checkpoint.read(path)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / checkpoint.CHECKPOINT
    checkpoint.write(Run(0).gather(), path)
    run = Run(0, steps=0)
    run.network = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 1)).double()
    with pytest.raises(CheckpointError, match="another"):
        checkpoint.scatter(checkpoint.read(path), run.network, run.averages, run.optimizer)


def test_a_checkpoint_without_some_of_its_parts_is_refused(tmp_path: Path) -> None:
    run = Run(0)
    whole = run.gather()
    partial = checkpoint.Checkpoint({k: v for k, v in whole.tensors.items() if "average" not in k}, whole.state)
    with pytest.raises(CheckpointError, match="another"):
        checkpoint.scatter(partial, run.network, run.averages, run.optimizer)


def test_the_checkpoint_before_is_kept_and_taken_when_the_last_one_is_damaged(tmp_path: Path) -> None:
    run, path = Run(0), tmp_path / checkpoint.CHECKPOINT
    for step in (1, 2, 3):
        checkpoint.write(run.gather()._replace(state=STATE | {"step": step}), path)
        run.step()
    assert checkpoint.last(tmp_path)[1].state["step"] == 3
    assert checkpoint.read(tmp_path / checkpoint.BEFORE).state["step"] == 2
    whole = path.read_bytes()
    for damaged in (whole[:-7], whole[: len(whole) // 2], flipped(whole, len(whole) - 9), flipped(whole, 40), b""):
        path.write_bytes(damaged)
        found, saved, remark = checkpoint.last(tmp_path)
        assert (found.name, saved.state["step"]) == (checkpoint.BEFORE, 2)
        assert "damaged" in remark
    path.unlink()
    assert checkpoint.last(tmp_path)[1].state["step"] == 2
    (tmp_path / checkpoint.BEFORE).write_bytes(b"")
    with pytest.raises(CheckpointError, match="no usable checkpoint"):
        checkpoint.last(tmp_path)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def test_every_flipped_bit_of_weights_and_state_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / checkpoint.CHECKPOINT
    checkpoint.write(Run(0).gather(), path)
    whole = path.read_bytes()
    for at in range(8, len(whole), 11):
        path.write_bytes(flipped(whole, at))
        try:
            read = checkpoint.read(path)
        except CheckpointError:
            continue
        # what is left are names of dtypes and spaces, that change nothing
        ours = Run(0).gather()
        assert read.state == ours.state, at
        assert all(torch.equal(read.tensors[name], tensor) for name, tensor in ours.tensors.items()), at


def test_all_that_differs_is_listed() -> None:
    before = {
        "seed": 0,
        "loss": {"kind": "huber", "forces": 10.0},
        "limits": {"epochs": 3},
        "data": {"train": "sha256:a"},
    }
    now = {"seed": 1, "loss": {"kind": "l1", "forces": 10.0}, "limits": {"epochs": 9}, "data": {"train": "sha256:b"}}
    with pytest.raises(CheckpointError, match=r"another seed, loss\.kind, data\.train") as caught:
        checkpoint.same_run(before, now, Path("x"))
    assert caught.value.wanted == "seed = 0; loss.kind = huber; data.train = sha256:a"
    assert caught.value.got == "seed = 1; loss.kind = l1; data.train = sha256:b"
    checkpoint.same_run(before, before | {"limits": {"epochs": 9}, "devices": 2}, Path("x"))


def test_a_damaged_checkpoint_never_takes_the_place_of_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, path = Run(0), tmp_path / checkpoint.CHECKPOINT
    for step in (1, 2):
        checkpoint.write(run.gather()._replace(state=STATE | {"step": step}), path)
    path.write_bytes(flipped(path.read_bytes(), 200))
    assert checkpoint.last(tmp_path)[1].state["step"] == 1
    checkpoint.reinstate(tmp_path)
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoint.write(run.gather(), path)
    assert checkpoint.last(tmp_path)[1].state["step"] == 1
    assert checkpoint.last(tmp_path)[2] == ""
