"""Two processes never train into one run folder; a lock dies with its process."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from adatom.errors import ConfigError, LockError
from adatom.train import lock as locking
from adatom.train.lock import LOCK, lock
from train.runs import configuration, log, run, slices

HOLD = textwrap.dedent("""
    import os, sys, time
    from pathlib import Path
    from adatom.train.lock import lock
    with lock(Path(sys.argv[1])):
        child = os.fork() if "forks" in sys.argv else 1
        if child == 0:
            time.sleep(60)
            os._exit(0)
        print(child, flush=True)
        sys.stdin.read()
""")


@contextmanager
def holder(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that holds the lock, and its child."""
    command = [sys.executable, "-c", HOLD, str(folder), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return slices(tmp_path_factory.mktemp("data"), 12, 2)


def test_a_second_process_is_told_who_trains_here_and_writes_nothing(data: dict[str, Any], tmp_path: Path) -> None:
    values = configuration(data)
    folder = run({**values, "limits": {"steps": 4}}, tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with holder(folder) as (process, _):
        with pytest.raises(LockError, match="another process trains into this run folder") as caught:
            run(values, tmp_path, resume=True)
        assert f"process {process.pid} on {platform.node()}" in str(caught.value.got)
        assert f"kill {process.pid}" in str(caught.value.remedy)
        after = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert json.loads(after.pop(LOCK))["pid"] == process.pid
        assert after == before


def test_a_run_of_the_same_name_that_came_and_went_meanwhile_is_not_overwritten(
    data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def late(folder: Path) -> Iterator[str]:
        folder.mkdir()
        (folder / "log.jsonl").write_text("of another")
        yield ""

    monkeypatch.setattr("adatom.train.run.lock", late)
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        run(configuration(data), tmp_path)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["log.jsonl"]


def test_a_killed_run_goes_on_at_once_and_leaves_no_lock_at_its_end(data: dict[str, Any], tmp_path: Path) -> None:
    values = configuration(data)
    folder = run({**values, "limits": {"steps": 4}}, tmp_path)
    with holder(folder) as (process, _):
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (folder / LOCK).exists()
    run(values, tmp_path, resume=True)
    assert log(folder, "end")[-1]["seconds"] > 0
    assert max(record["step"] for record in log(folder, "step")) == 18
    assert not (folder / LOCK).exists()


def test_processes_that_were_forked_do_not_keep_the_lock_of_a_killed_one(tmp_path: Path) -> None:
    with holder(tmp_path, "forks") as (process, child):
        process.send_signal(signal.SIGKILL)
        process.wait()
        try:
            os.kill(child, 0)  # it lives
            with lock(tmp_path) as remark:
                assert remark == ""
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_lock_that_was_removed_while_waiting_for_it_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = fcntl.lockf, []

    def lockf(file: Any, how: int) -> None:
        real(file, how)
        calls.append(file)
        if len(calls) == 1:
            (tmp_path / LOCK).unlink()  # by a run that ends in this moment

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with lock(tmp_path):
        assert len(calls) == 2
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("system", ["no fcntl", "no locks on this file system"])
def test_without_locks_a_run_goes_on_with_a_warning(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lockf(file: Any, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    if system == "no fcntl":
        monkeypatch.setattr(locking, "fcntl", None)
    else:
        monkeypatch.setattr(fcntl, "lockf", lockf)
    with lock(tmp_path) as remark:
        assert "cannot be locked" in remark


def test_a_run_that_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), lock(tmp_path / "runs" / "new"):
        raise RuntimeError
    assert not (tmp_path / "runs" / "new").exists()
    (tmp_path / "runs" / "old").mkdir()
    with lock(tmp_path / "runs" / "old"):
        pass
    assert (tmp_path / "runs" / "old").exists()
