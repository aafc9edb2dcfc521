"""Weights trained through a few numbers only: low-rank changes of matrices, and new rows of tables.

Both stand in front of a weight as a parametrisation (``torch.nn.utils.parametrize``): modules read ``weight`` as they
always do, and do not know. ``merge`` writes what was learned into the weights, and nothing of it is left.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """W + (alpha / rank) A B, for matrices (..., n, m); A (..., n, rank), B (..., rank, m).

    Hu et al., arXiv:2106.09685. A is drawn with the root mean square of W and B is zero: nothing has changed at first,
    and one learning rate then moves every weight by the same fraction of its size, as without.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        *many, n, m = weight.shape
        size = weight.detach().square().mean().sqrt()
        self.a = nn.Parameter(torch.randn(*many, n, rank, dtype=torch.float64).to(weight) * size)
        self.b = nn.Parameter(weight.new_zeros(*many, rank, m))
        self.gain = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        """The changed weight."""
        return weight + self.gain * (self.a @ self.b)


class NewRows(nn.Module):
    """A table (rows, ...) some rows of which are weights of their own: they can be trained where the table is not."""

    def __init__(self, weight: Tensor, rows: list[int]) -> None:
        super().__init__()
        self.register_buffer("rows", torch.tensor(rows, device=weight.device), persistent=False)
        self.fresh = nn.Parameter(weight.detach().index_select(0, self.rows).clone())

    rows: Tensor  # (n,)

    def forward(self, weight: Tensor) -> Tensor:
        """The table with its new rows."""
        return weight.index_copy(0, self.rows, self.fresh)


def place(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds a weight, and how the weight is called there."""
    path, _, attribute = name.rpartition(".")
    return network.get_submodule(path), attribute


def adapt(network: nn.Module, name: str, rank: int, alpha: float) -> None:
    """Put a low-rank change in front of a weight, which itself is no longer trained."""
    module, attribute = place(network, name)
    weight = getattr(module, attribute)
    change = LowRank(weight, rank, alpha)
    parametrize.register_parametrization(module, attribute, change)
    weight.requires_grad_(False)


def set_apart(network: nn.Module, name: str, rows: list[int]) -> None:
    """Make rows of a table weights of their own."""
    module, attribute = place(network, name)
    parametrize.register_parametrization(module, attribute, NewRows(getattr(module, attribute), rows))


def worthwhile(weight: Tensor, rank: int) -> bool:
    """Whether a low-rank change has fewer numbers than the weight itself."""
    return weight.ndim >= 2 and rank * (weight.shape[-1] + weight.shape[-2]) < weight.shape[-1] * weight.shape[-2]


def merge(network: nn.Module) -> None:
    """Write all changes into the weights; the network is then of the kind it was before any."""
    for module in list(network.modules()):
        changed = getattr(module, "parametrizations", None)
        for attribute in list(changed.keys()) if isinstance(changed, nn.ModuleDict) else []:
            parametrize.remove_parametrizations(module, attribute, leave_parametrized=True)


def original(name: str) -> str:
    """Name of the weight that a parameter is part of: ``x.parametrizations.weight.0.a`` is part of ``x.weight``."""
    before, found, after = name.partition("parametrizations.")
    return f"{before}{after.split('.')[0]}" if found else name
