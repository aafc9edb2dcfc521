"""Copies of the training log for other programs: TensorBoard, Weights & Biases.

``log.jsonl`` in the run folder is always written; a logger takes the same records. Both packages are extras.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

from adatom.errors import ConfigError

LoggerName = Literal["tensorboard", "wandb"]
NOT_DRAWN = {"step"}  # the axis


class Logger(ABC):
    """Takes the records of a run; a run that goes on gives ``step``, the last one that counts."""

    package: ClassVar[str]

    @abstractmethod
    def log(self, record: Mapping[str, Any]) -> None:
        """One record, as it stands in ``log.jsonl``."""

    @abstractmethod
    def close(self) -> None:
        """Write what is still held back."""


class TensorBoard(Logger):
    """Curves in ``RUN/tensorboard``, to be looked at with ``tensorboard --logdir RUN``."""

    package = "tensorboard"

    def __init__(self, run: Path, settings: Mapping[str, Any], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # steps after a checkpoint that a resumed run takes again are hidden
        self.writer = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1 if step else None)
        if step == 0:
            self.writer.add_text("settings", _as_text(settings))

    def log(self, record: Mapping[str, Any]) -> None:
        """One point of each curve."""
        for name, value in curves(record).items():
            self.writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Write what is still held back."""
        self.writer.close()


class WeightsAndBiases(Logger):
    """A run in ``RUN/wandb``, offline unless the environment variable WANDB_MODE says otherwise.

    ``wandb sync RUN/wandb/offline-*`` sends it later. Its name and its id are those of the run folder, so that a run
    that goes on is one run.
    """

    package = "wandb"

    def __init__(self, run: Path, settings: Mapping[str, Any], step: int) -> None:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "adatom"),
            name=run.name,
            id=run.name,
            dir=str(run),
            config=dict(settings),
            mode=mode,
            resume="allow" if mode == "online" else None,
        )
        # the step is a curve like any other: records of one step come one after another, and a resumed run goes back
        self.run.define_metric("*", step_metric="at_step")

    def log(self, record: Mapping[str, Any]) -> None:
        """One point of each curve."""
        drawn = curves(record)
        if drawn:
            self.run.log({**drawn, "at_step": record["step"]})

    def close(self) -> None:
        """Write what is still held back."""
        self.run.finish()


LOGGERS: dict[str, type[TensorBoard] | type[WeightsAndBiases]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def require_loggers(names: Sequence[str]) -> None:
    """ConfigError when the package of a logger is not installed: said before anything is read or trained."""
    for name in names:
        package = LOGGERS[name].package
        if find_spec(package) is None:
            raise ConfigError(
                f"the logger {name} needs the package {package}, which is not installed",
                where="loggers",
                wanted=f"the package {package}",
                got="none",
                remedy=f"pip install 'adatom[{name}]', or leave {name} out of loggers; log.jsonl holds all records",
            )


def make_loggers(names: Sequence[str], run: Path, settings: Mapping[str, Any], step: int = 0) -> list[Logger]:
    """The loggers of a run folder; ``step`` is where a resumed run goes on."""
    require_loggers(names)
    return [LOGGERS[name](run, settings, step) for name in names]


def curves(record: Mapping[str, Any]) -> dict[str, float]:
    """Finite numbers of a record by kind and name, as ``valid/forces_rmse_meV_per_A``; none where there is no step."""
    if "step" not in record:
        return {}
    return {
        f"{record['kind']}/{name}": float(value)
        for name, value in record.items()
        if name not in NOT_DRAWN
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    }


def _as_text(settings: Mapping[str, Any]) -> str:
    """Settings as indented text, which TensorBoard shows as code."""
    import yaml

    return "\n".join("    " + line for line in yaml.safe_dump(dict(settings), sort_keys=False).splitlines())
