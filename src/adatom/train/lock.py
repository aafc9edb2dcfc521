"""One run folder, one run: a lock that the first process of a run holds while it lives.

It is an advisory lock of POSIX, which belongs to a process, not to a file: the system takes it away however the process
ends, and children that were forked, such as those that prepare batches, do not keep it. It also goes when this process
closes the file that it opened a second time: nothing here does.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from adatom.errors import LockError
from adatom.train.checkpoint import disk

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
HELD = (errno.EACCES, errno.EAGAIN)  # what systems say of a lock that another process holds


@contextmanager
def lock(run: Path) -> Iterator[str]:
    """Inside the block no other process trains into ``run``; yields what is to be said where there are no locks.

    Afterwards the lock file is gone, and so is a folder that was made for it and stayed empty.

    Raises
    ------
    LockError
        Another process holds the lock; names process and host.
    CheckpointError
        The folder cannot be written to.
    """
    path, made = run / LOCK, not run.exists()
    with disk(path):
        run.mkdir(parents=True, exist_ok=True)
        file, remark = _taken(path)
    try:
        yield remark
    finally:
        path.unlink(missing_ok=True)  # before it is released: whoever waits sees that it is no longer the lock
        file.close()
        if made and not any(run.iterdir()):
            run.rmdir()


def _taken(path: Path) -> tuple[IO[str], str]:
    """The open lock file with this process written into it, and a remark where the system has no locks."""
    while True:
        file = path.open("a+")
        try:
            remark = _try(file)
        except BlockingIOError:
            file.seek(0)
            said = file.read()
            file.close()
            raise _held(path, said) from None
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            break
        file.close()  # it was removed by a run that ended just now
    file.truncate(0)
    file.write(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}))
    file.flush()
    return file, remark


def _try(file: IO[str]) -> str:
    """Lock, or say why not; BlockingIOError where another process has it."""
    why = "this system has no such locks"
    if fcntl is not None:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return ""
        except OSError as error:
            if error.errno in HELD:
                raise BlockingIOError(error.errno, error.strerror) from error
            why = error.strerror or str(error)
    return f"the run folder cannot be locked ({why}): see to it that no other process trains into it"


def _held(path: Path, said: str) -> LockError:
    """Who holds it, as the file says; it may be empty for the moment between locking and writing."""
    try:
        holder = json.loads(said)
        who = f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
        end = f"or end it with  kill {holder['pid']}  on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        who, end = "a process that has just begun", "or end it"
    return LockError(
        "another process trains into this run folder",
        where=str(path.parent),
        wanted="one process, or one team of them, for each run",
        got=who,
        remedy=f"wait for it, {end}, then go on with --resume; or give this run another name",
    )
