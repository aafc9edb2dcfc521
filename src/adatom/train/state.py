"""Where a run stands: its counters, its clock, and what of its limits is used up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from adatom.train.config import Limits
from adatom.train.trouble import Trouble


@dataclass
class Tally:
    """Steps since the last record of the log."""

    loss: float = 0.0  # summed over steps
    norm: float = 0.0  # largest
    steps: int = 0
    structures: int = 0
    lr: float = 0.0  # of the last step


@dataclass
class State:
    """Where a run stands; all of it goes into a checkpoint."""

    step: int = 0  # batches seen, those included whose step was not taken
    epoch: int = 0
    batch: int = 0  # next batch of this epoch
    seconds: float = 0.0  # of training, by the clock of the limits
    best_loss: float = math.inf
    best_step: int = 0
    stale: int = 0  # validations since the best
    stage: int = 0  # which of the stages
    stage_step: int = 0  # first step of this stage
    ended: str = ""  # why this stage is over, once it is
    stage_start: float = 0.0  # fraction of the limits that was spent before this stage
    schedule: dict[str, float] = field(default_factory=dict)
    most: int | None = None  # atoms that fit into memory at once, once it ran out
    log_bytes: int = 0  # length of the log at this point
    tally: Tally = field(default_factory=Tally)
    trouble: Trouble = field(default_factory=Trouble)

    @classmethod
    def restored(cls, values: dict[str, Any]) -> State:
        """From a checkpoint's plain values."""
        nested = {"tally": Tally(**values["tally"]), "trouble": Trouble(**values["trouble"])}
        return cls(**{**values, **nested})


class Clock:
    """Seconds spent, of this and of resumed sessions, wall or CPU time."""

    def __init__(self, limits: Limits, spent: float) -> None:
        self.read: Callable[[], float] = time.process_time if limits.clock == "cpu" else time.monotonic
        self.start = self.read() - spent

    def seconds(self) -> float:
        """Training time so far."""
        return self.read() - self.start


def progress_of(limits: Limits, state: State, epochs: float) -> float:
    """Largest fraction of any limit that is used up."""
    spent = [(limits.epochs, epochs), (limits.steps, state.step), (limits.minutes, state.seconds / 60)]
    return max(used / limit for limit, used in spent if limit is not None)
