"""The gradient of the loss over one batch: in parts, where it is shared by processes or does not fit into memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from adatom.data.dataset import Dataset
from adatom.errors import MemoryLimitError
from adatom.graph import Graph, Results
from adatom.memory import ran_out
from adatom.potential import Potential
from adatom.train.loss import LossConfig, Weights, terms, total
from adatom.train.parallel import Team, divide

Batch = tuple[Graph, Results]
Part = tuple[list[int], Batch]  # structures, and the same collated

CACHED = 512  # atoms that a CPU differentiates at once


class Gradients(NamedTuple):
    """What one batch says, of all processes together; the gradient stands in the parameters."""

    loss: float
    norm: float  # of the gradient, before it is clipped

    @property
    def finite(self) -> bool:
        """Whether a step can be taken with it."""
        return math.isfinite(self.loss) and math.isfinite(self.norm)


class Backward:
    """Evaluates batches of a training set for one stage of training.

    ``most`` is the number of atoms that a part may hold: none to begin with; where memory runs out, the part is cut
    in two, and so are all later ones. Cutting changes nothing but the order of sums.
    """

    def __init__(self, potential: Potential, data: Dataset, loss: LossConfig, team: Team) -> None:
        self.potential, self.data, self.loss, self.team = potential, data, loss, team
        self.parameters = [p for p in potential.parameters() if p.requires_grad]
        self.slopes = [torch.zeros_like(p) for p in self.parameters]  # own memory: autograd's may be shared
        self.most: int | None = None

    def __call__(self, mine: Sequence[Part], weights: Weights, counts: Tensor, clip: float) -> Gradients:
        """Gradient of the loss of a batch, clipped, into the parameters.

        Parameters
        ----------
        mine
            The structures of the batch that are this process's, in the parts of :meth:`pieces`; there may be none.
        counts
            (3,) labels of the whole batch, of all processes.

        Raises
        ------
        MemoryLimitError
            One structure alone does not fit into memory.
        """
        value = self._shared(self._in_parts(mine, weights, counts))
        for parameter, slope in zip(self.parameters, self.slopes, strict=True):
            parameter.grad = slope
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, clip)
        return Gradients(value, float(norm))

    def value(self, graph: Graph, label: Results, weights: Weights, counts: Tensor, compiled: bool = True) -> Tensor:
        """The share of a part in the loss of its batch."""
        device = self.team.device
        graph, label = graph.to(device), Results(*(t.to(device) for t in label))
        evaluate = self.potential if compiled else self.potential.eager
        predicted = evaluate(graph, forces=weights.forces > 0, stress=weights.stress > 0)
        return total(weights, terms(self.loss, weights, graph, predicted, label), counts.to(device))

    def _in_parts(self, mine: Sequence[Part], weights: Weights, counts: Tensor) -> float:
        """Value and gradient of this process's share, one part after the other."""
        value = 0.0
        torch._foreach_zero_(self.slopes)
        waiting: list[tuple[list[int], Batch | None]] = list(mine[::-1])
        while waiting:
            part, batch = waiting.pop()
            atoms = int(self.data.atoms[part].sum())
            if self.most is not None and atoms > self.most and len(part) > 1:
                waiting += self._halves(part)
                continue
            try:
                share, found = self._one(batch, part, weights, counts)
            except (RuntimeError, MemoryError, MemoryLimitError) as error:
                if not ran_out(error):
                    raise
                self._less(part, atoms, error)
                waiting += self._halves(part)
                continue
            value += share
            pairs = [(into, slope) for into, slope in zip(self.slopes, found, strict=True) if slope is not None]
            torch._foreach_add_([into for into, _ in pairs], [slope for _, slope in pairs])
        return value

    def _one(
        self, batch: Batch | None, part: list[int], weights: Weights, counts: Tensor
    ) -> tuple[float, tuple[Tensor | None, ...]]:
        """Value and gradient of one part; what was allocated for them is free again on return."""
        graph, label = batch or self.data.batch(part)
        share = self.value(graph, label, weights, counts)
        return float(share.detach()), torch.autograd.grad(share, self.parameters, allow_unused=True)

    def pieces(self, indices: list[int]) -> list[list[int]]:
        """This process's share of a batch, in parts that are evaluated one after the other; none where it has none.

        On a CPU a part is so much as stays in its caches: beyond, an atom costs up to twice as much.
        """
        mine = divide(indices, self.data.atoms[indices], self.team.size)[self.team.rank]
        if self.team.device.type != "cpu":
            return [mine] if mine else []
        atoms = self.data.atoms[mine]
        return [part for part in divide(mine, atoms, max(math.ceil(atoms.sum() / CACHED), 1)) if part]

    def _halves(self, part: list[int]) -> list[tuple[list[int], Batch | None]]:
        return [(half, None) for half in divide(part, self.data.atoms[part], 2)[::-1]]

    def _less(self, part: list[int], atoms: int, error: Exception) -> None:
        """A lower budget after memory ran out; MemoryLimitError when there is nothing left to cut."""
        if len(part) == 1:
            raise MemoryLimitError(
                "one structure alone does not fit into memory",
                where=self.data.names[part[0]],
                wanted=f"room to differentiate {atoms} atoms",
                got=str(error).splitlines()[0],
                remedy="leave this structure out, take a smaller cutoff or network, or a machine with more memory",
            ) from error
        largest = int(self.data.atoms[part].max())
        self.most = max(atoms // 2 + 1, largest)
        if self.team.device.type == "cuda":
            torch.cuda.empty_cache()

    def _shared(self, value: float) -> float:
        """Sums over all processes: of the gradients in place, and of the value."""
        if self.team.size == 1:
            return value
        flat = torch.cat([s.reshape(-1) for s in self.slopes])
        high = flat.new_tensor([value])  # the value in two numbers of the network's precision
        low = flat.new_tensor([value - float(high)])
        flat = self.team.sum(torch.cat([flat, high, low]))
        at = 0
        for slope in self.slopes:
            slope.copy_(flat[at : at + slope.numel()].view_as(slope))
            at += slope.numel()
        return float(flat[-2].double() + flat[-1].double())

    def bad(self, indices: Sequence[int], mine: Sequence[Part], weights: Weights) -> list[int]:
        """The structures of a batch whose own loss or gradient is no finite number; the same list in every process."""
        owned, flags = {k for part, _ in mine for k in part}, np.zeros(len(indices))
        for place, k in enumerate(indices):
            if k in owned:
                share = self.alone(k, weights)
                slopes = torch.autograd.grad(share, self.parameters, allow_unused=True)
                finite = all(bool(torch.isfinite(t).all()) for t in (share, *slopes) if t is not None)
                flags[place] = not finite
        found = self.team.sum(torch.as_tensor(flags, device=self.team.device)).cpu()
        return [k for k, flag in zip(indices, found.tolist(), strict=True) if flag > 0]

    def alone(self, k: int, weights: Weights) -> Tensor:
        """Loss of one structure by itself, without compiled code."""
        graph, label = self.data.batch([k])
        return self.value(graph, label, weights, torch.ones(3, dtype=torch.float64), compiled=False)
