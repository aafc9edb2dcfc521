"""Constants that stay float64 when the module that holds them is cast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn


class Exact(nn.Module):
    """A float64 constant: it follows its module to a device and is never rounded.

    A buffer would be: a network that was cast to float32, and to float64 again for a check, would keep couplings of
    eight digits and be equivariant to eight digits only. Not part of the state of a module.
    """

    def __init__(self, values: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("values", torch.from_numpy(np.asarray(values, dtype=np.float64)), persistent=False)

    values: Tensor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What ``to``, ``float`` and ``cuda`` call."""
        exact = self.values
        super()._apply(fn, recurse)
        self.values = exact.to(self.values.device)
        return self

    def forward(self, dtype: torch.dtype) -> Tensor:
        """The constant in the type it is used in."""
        return self.values.to(dtype)
