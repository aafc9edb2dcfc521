"""Muon: momentum made orthogonal for the matrices of a network, AdamW for all else.

Jordan et al., kellerjordan.github.io/posts/muon (2024); Liu et al., arXiv:2502.16982 (2025). A gradient of a matrix is
dominated by few directions, and momentum more so. Its nearest orthogonal matrix moves all directions alike:

    M <- beta M + (1 - beta) G
    W <- (1 - lr lambda) W - lr sqrt(max(m, n)) O,   O = U V^T  of  beta M + (1 - beta) G = U S V^T,  W (m, n)

O comes from a few products of matrices instead of a decomposition. Scaled like this, an update changes the weights by
lr in root mean square, whatever the shape: weights of unit variance (`nn/equivariant.py`) all move at one relative
rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

BLOCK = 32  # longest side of what is made orthogonal as one: heads and factors lie side by side in larger matrices
QUINTIC = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration: singular values end up between 0.7 and 1.2
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Orthogonal momentum for matrices, AdamW for all else, as two groups of one optimiser.

    Parameters
    ----------
    matrices
        Weights of two or more axes. The last two are the matrix, of (inputs, outputs) or the other way round; what
        stands before them (degrees) counts matrices.
    others
        Everything else: vectors, single numbers, tables with a row for each element.
    lr
        Learning rate, the size of a step of a matrix relative to weights of unit variance.
    others_factor
        Learning rate of the others as a multiple of ``lr``; it stands in their group as ``lr_factor``.
    momentum
        beta above.
    betas, eps
        Of AdamW.
    weight_decay
        lambda above, for both groups.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        others: Iterable[nn.Parameter],
        lr: float,
        others_factor: float = 1.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        groups: list[dict[str, Any]] = [
            {"params": list(matrices), "orthogonal": True, "lr_factor": 1.0, "momentum": momentum},
            {"params": list(others), "orthogonal": False, "lr_factor": others_factor, "betas": betas, "eps": eps},
        ]
        defaults = {"lr": lr, "weight_decay": weight_decay}
        super().__init__([group for group in groups if group["params"]], defaults)
        for group in self.param_groups:
            group["lr"] = lr * group["lr_factor"]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update; ``closure`` is not used. Parameters without gradient stay as they are."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            (self._orthogonal if group["orthogonal"] else self._adam)(group, parameters)

    def _orthogonal(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        beta, lr = group["momentum"], group["lr"]
        gradients = [p.grad for p in parameters if p.grad is not None]
        momenta = [self._state(p, "momentum") for p in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - beta)
        updates = orthogonal(torch._foreach_lerp(gradients, momenta, beta))
        if group["weight_decay"] > 0:
            torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
        torch._foreach_add_(parameters, updates, alpha=-lr)

    def _adam(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        adamw(
            parameters,
            [p.grad for p in parameters if p.grad is not None],
            [self._state(p, "exp_avg") for p in parameters],
            [self._state(p, "exp_avg_sq") for p in parameters],
            [],
            [self._state(p, "step", number=True) for p in parameters],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _state(self, parameter: Tensor, name: str, number: bool = False) -> Tensor:
        state: dict[str, Tensor] = self.state[parameter]
        if name not in state:
            state[name] = (
                torch.zeros((), dtype=torch.float32, device=parameter.device) if number else torch.zeros_like(parameter)
            )
        return state[name]


def orthogonal(matrices: Sequence[Tensor], block: int = BLOCK) -> list[Tensor]:
    """Blocks of (..., m, n) replaced by sqrt(max(m, n)) U V^T of theirs, nearly: mean square one at full rank.

    A side longer than ``block`` is cut into pieces where it divides, and blocks of one shape are done in one go.
    """
    shapes = [(_piece(t.shape[-2], block), _piece(t.shape[-1], block)) for t in matrices]
    found: list[Tensor] = list(matrices)
    for m, n in dict.fromkeys(shapes):
        here = [k for k, shape in enumerate(shapes) if shape == (m, n)]
        stack = newton_schulz(torch.cat([_blocks(matrices[k], m, n) for k in here])) * max(m, n) ** 0.5
        parts = stack.split([matrices[k].numel() // (m * n) for k in here])
        for k, part in zip(here, parts, strict=True):
            rows, columns = matrices[k].shape[-2] // m, matrices[k].shape[-1] // n
            found[k] = part.view(-1, rows, columns, m, n).transpose(2, 3).reshape(matrices[k].shape)
    return found


def newton_schulz(matrices: Tensor) -> Tensor:
    """Nearly U V^T of each matrix U S V^T of (K, m, n): X <- a X + (b X X^T + c (X X^T)^2) X, begun at X / |X|.

    Odd polynomials act on the singular values alone. Those below about 1e-3 of the norm do not get to one.
    """
    a, b, c = QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-12)
    for _ in range(ITERATIONS):
        square = torch.bmm(x, x.transpose(1, 2))
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x


def _piece(side: int, block: int) -> int:
    return block if side % block == 0 else side


def _blocks(matrix: Tensor, m: int, n: int) -> Tensor:
    """(..., rows m, columns n) as (K, m, n)."""
    shape = matrix.shape
    return matrix.reshape(-1, shape[-2] // m, m, shape[-1] // n, n).transpose(2, 3).reshape(-1, m, n)
