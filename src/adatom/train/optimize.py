"""Optimiser, learning-rate schedule, and the running average of the weights that becomes the model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from adatom.config import Config
from adatom.train.muon import Muon


class OptimizerConfig(Config):
    """Muon, or AdamW, with warm-up, then a cosine or a fall on plateaus."""

    name: Literal["muon", "adamw"] = Field(
        "muon", description="muon: matrices by orthogonal momentum, the rest by AdamW"
    )
    lr: PositiveFloat = 2e-2
    others: PositiveFloat = Field(1.0, description="muon: learning rate of all but matrices, as a multiple of lr")
    momentum: float = Field(0.95, ge=0.0, lt=1.0, description="muon: of the matrices")
    final_lr: float = Field(0.01, gt=0.0, le=1.0, description="fraction of lr at the end")
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: NonNegativeFloat = 0.0
    warmup_steps: NonNegativeInt = 100
    schedule: Literal["cosine", "plateau"] = "cosine"
    plateau_factor: float = Field(0.5, gt=0.0, lt=1.0)
    plateau_patience: PositiveInt = 10
    clip: PositiveFloat = 10.0
    ema: float = Field(0.999, ge=0.0, lt=1.0, description="decay of the running average per step")


def make_optimizer(config: OptimizerConfig, module: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of all parameters of a network that are trained.

    A group of parameters may carry ``lr_factor``: the loop sets its learning rate to that of the schedule times this.
    With Muon every weight with two axes or more is a matrix, or several, but for embeddings, whose rows belong to
    elements.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    if config.name == "adamw":
        return torch.optim.AdamW(
            trained, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
        )
    # all parameters of theirs: rows may be weights of their own (nn/lora.py)
    tables = {id(p) for m in module.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    matrices = [p for p in trained if p.ndim > 1 and min(p.shape[-2:]) > 1 and id(p) not in tables]
    chosen = {id(p) for p in matrices}
    others = [p for p in trained if id(p) not in chosen]
    return Muon(
        matrices, others, config.lr, config.others, config.momentum, config.betas, weight_decay=config.weight_decay
    )


class Schedule:
    """Learning rate as a function of step and progress; the plateau variant remembers the best validation loss."""

    def __init__(self, config: OptimizerConfig) -> None:
        self.config = config
        self.factor, self.best, self.waited = 1.0, math.inf, 0

    def lr(self, step: int, progress: float) -> float:
        """Learning rate of step ``step`` (from 0) at a fraction ``progress`` of the budget."""
        c = self.config
        warm = min(1.0, (step + 1) / max(c.warmup_steps, 1))
        if c.schedule == "plateau":
            return c.lr * warm * max(self.factor, c.final_lr)
        cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        return c.lr * warm * (c.final_lr + (1 - c.final_lr) * cosine)

    def observe(self, validation_loss: float) -> None:
        """Tell a validation loss; on a plateau the learning rate falls."""
        if validation_loss < self.best:
            self.best, self.waited = validation_loss, 0
            return
        self.waited += 1
        if self.waited > self.config.plateau_patience:
            self.factor, self.waited = self.factor * self.config.plateau_factor, 0

    def state(self) -> dict[str, float]:
        """What a checkpoint must hold."""
        return {"factor": self.factor, "best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, float]) -> None:
        """Continue from a checkpoint."""
        self.factor, self.best, self.waited = state["factor"], state["best"], int(state["waited"])


class RunningAverage:
    """Exponential moving average of all parameters.

    W <- d w + (1 - d) theta, with a short memory in the first steps.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        self.live = list(parameters)
        self.decay = decay
        self.average: list[Tensor] = [p.detach().clone() for p in self.live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step ``step`` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.live], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The averaged weights stand in the model inside the block."""
        kept = [p.detach().clone() for p in self.live]
        self.write(self.average)
        try:
            yield
        finally:
            self.write(kept)

    @torch.no_grad()
    def write(self, values: list[Tensor]) -> None:
        """Put values into the model."""
        for parameter, value in zip(self.live, values, strict=True):
            parameter.copy_(value)
