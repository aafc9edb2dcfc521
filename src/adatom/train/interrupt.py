"""A stop between two steps instead of in the middle of one: what is saved then is a whole step."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

REQUEUE = 99  # Grid Engine starts a job again that ends with it; SLURM, LSF and HTCondor can be told to
NAMES = ("SIGTERM", "SIGUSR1")  # what batch systems send before the end; SIGUSR1 is not everywhere


class Stopped(KeyboardInterrupt):
    """A run was stopped from outside, after the step in hand was finished and a checkpoint was written.

    ``code`` is what the command ends with: 130 after Ctrl-C, as shells say; ``REQUEUE`` after a signal of the batch
    system or at the end of ``max_time``, for these runs are to go on.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = 130 if reason == "Ctrl-C" else REQUEUE


class StopRequests:
    """Why the run is to stop, once something asks for it."""

    def __init__(self, seconds: float | None = None) -> None:
        self.end = None if seconds is None else time.monotonic() + seconds
        self.signal = ""

    def reason(self) -> str:
        """``Ctrl-C``, the name of a signal, ``max_time``, or nothing."""
        if self.signal:
            return self.signal
        return "max_time" if self.end is not None and time.monotonic() > self.end else ""


@contextmanager
def stop_requests(seconds: float | None = None) -> Iterator[StopRequests]:
    """Inside the block Ctrl-C, SIGTERM and SIGUSR1 are requests, and so is the end of ``seconds``.

    A second Ctrl-C is a KeyboardInterrupt at once. Signals are left alone outside of the main thread.
    """
    asked = StopRequests(seconds)
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    heard = [signal.SIGINT, *(signal.Signals[name] for name in NAMES if name in signal.Signals.__members__)]
    before = {number: signal.getsignal(number) for number in heard}

    def ask(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and asked.signal:
            raise KeyboardInterrupt
        asked.signal = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name

    for number in heard:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def duration(text: str) -> float:
    """Seconds of ``90m``, ``1.5h``, ``2d``, ``45s``, of ``3:50:00``, ``1-12:00:00`` as SLURM writes it, or of minutes.

    ValueError for anything else.
    """
    text = text.strip()
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text):
        seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400, "": 60}[match[2]]
    elif match := re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?", text):
        days, first, second, third = match.groups()
        hours, minutes, rest = (first, second, third) if third or days else ("0", first, second)
        seconds = 86400 * int(days or 0) + 3600 * int(hours) + 60 * int(minutes) + int(rest or 0)
    else:
        raise ValueError(f"'{text}' is no time: write 90m, 1.5h, 3:50:00 or 1-12:00:00")
    if seconds <= 0:
        raise ValueError("no time at all: write 90m, 1.5h, 3:50:00 or 1-12:00:00")
    return seconds
