"""When numbers stop being numbers: who is to blame, and what the run does about it.

A step whose loss or gradient is not finite is not taken, and its structures and layer are named. When it happens again
and again, the weights go back to those of some hundred steps before, the optimiser forgets, and the learning rate is
halved. When that does not help either, the run stops and says why. All of it follows from the state of the run alone,
so a run that was killed and goes on does the same.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from adatom.potential import Potential

STRIKES = 3  # bad steps before the weights go back
FORGIVEN = 200  # good steps after which a bad one is forgotten
ROLLBACKS = 3  # times the weights go back before the run stops
ANCHOR = 250  # steps between the weights to go back to
SLOWER = 0.5  # learning rate after each of them
SETTLED = 50  # steps before a spike is called one
SPIKE_LOSS, SPIKE_NORM = 10.0, 20.0  # times the usual
MEMORY = 0.98  # of what is usual, per step

Answer = Literal["skip", "roll back", "stop"]


@dataclass
class Trouble:
    """What went wrong so far; part of every checkpoint."""

    strikes: int = 0
    good: int = 0  # steps since the last bad one
    rollbacks: int = 0
    rate: float = 1.0  # factor of the learning rate
    warm_step: int = 0  # from which the learning rate is warmed up again
    skipped: dict[str, int] = field(default_factory=dict)  # structure -> steps that were not taken for it
    usual_loss: float = 0.0  # logarithms of geometric means over the last steps
    usual_norm: float = 0.0
    seen: int = 0  # steps in these means
    spikes: int = 0

    def passed(self) -> None:
        """A step was taken."""
        self.good += 1
        if self.good >= FORGIVEN:
            self.strikes = 0

    def struck(self, names: Sequence[str], step: int) -> Answer:
        """A step was not taken; what to do."""
        self.good, self.strikes = 0, self.strikes + 1
        for name in names:
            self.skipped[name] = self.skipped.get(name, 0) + 1
        if self.strikes < STRIKES:
            return "skip"
        if self.rollbacks == ROLLBACKS:
            return "stop"
        self.strikes, self.rollbacks, self.rate, self.warm_step = 0, self.rollbacks + 1, self.rate * SLOWER, step + 1
        return "roll back"

    def anchors(self, step: int) -> bool:
        """Whether the weights after a step are such as to go back to: now and then, when all is well."""
        return step % ANCHOR == 0 and self.strikes == 0

    def spike(self, loss: float, norm: float) -> bool:
        """Whether loss or gradient norm stand out from those before; takes them in."""
        values = math.log(max(loss, 1e-300)), math.log(max(norm, 1e-300))
        usual = self.usual_loss, self.usual_norm
        out = self.seen >= SETTLED and (
            values[0] - usual[0] > math.log(SPIKE_LOSS) or values[1] - usual[1] > math.log(SPIKE_NORM)
        )
        keep = min(MEMORY, self.seen / (self.seen + 1))
        self.usual_loss, self.usual_norm = (keep * u + (1 - keep) * v for u, v in zip(usual, values, strict=True))
        self.seen, self.spikes = self.seen + 1, self.spikes + out
        return out

    def told(self) -> str:
        """What a user should know at the end of a run; empty when nothing went wrong."""
        said = []
        if self.skipped:
            worst = sorted(self.skipped, key=lambda name: -self.skipped[name])[:3]
            names = ", ".join(f"{name} ({self.skipped[name]} times)" for name in worst)
            said.append(f"steps were not taken for {len(self.skipped)} structures: {names}")
        if self.rollbacks:
            said.append(f"the weights went back {self.rollbacks} times")
        if self.spikes:
            said.append(f"{self.spikes} steps stood out by their loss or gradient")
        return "; ".join(said)

    def changed(self) -> None:
        """What is usual is no longer: other weights of the loss, another stage."""
        self.seen = 0


def blame(potential: Potential, compute: Any) -> str:
    """Where numbers stop being numbers while ``compute()`` gives a loss: a layer, or an operation of its derivatives.

    ``compute`` must evaluate the potential without compiled code. Empty when all is finite.
    """
    with _watched(potential) as found:
        value: Tensor = compute()
    if found:
        return f"first in {found[0]} ({type(potential.get_submodule(found[0])).__name__})"
    if not bool(torch.isfinite(value.detach()).all()):
        return "after the network: in the sum over atoms, the derivatives, or the loss"
    parameters = {name: p for name, p in potential.named_parameters() if p.requires_grad}
    slopes = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    broken = [n for n, s in zip(parameters, slopes, strict=True) if s is not None and not bool(torch.isfinite(s).all())]
    if not broken:
        return ""
    return f"in the gradient of {broken[-1]}{_operation(compute, parameters)}; the values before it are finite"


def _operation(compute: Any, parameters: dict[str, nn.Parameter]) -> str:
    """The operation whose derivative is no number, as autograd's own search tells it."""
    try:
        with warnings.catch_warnings(action="ignore"), torch.autograd.set_detect_anomaly(True):
            torch.autograd.grad(compute(), list(parameters.values()), allow_unused=True)
    except RuntimeError as error:
        return f" ({str(error).splitlines()[0]})"
    return ""


@contextmanager
def _watched(potential: Potential) -> Iterator[list[str]]:
    """Inside the block every layer is looked at; the list receives those whose output is the first to be no number."""
    found: list[str] = []
    hooks = []
    for name, module in potential.named_modules():
        if name:

            def look(_module: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
                if not found and _finite(inputs) and not _finite(output):
                    found.append(name)

            hooks.append(module.register_forward_hook(look))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _finite(values: Any) -> bool:
    """Whether all floating-point tensors of nested tuples and lists are finite."""
    if isinstance(values, Tensor):
        return not values.is_floating_point() or bool(torch.isfinite(values.detach()).all())
    if isinstance(values, (tuple, list)):
        return all(_finite(value) for value in values)
    return True
