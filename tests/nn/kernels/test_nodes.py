"""Node attention without a matrix against sums over all pairs and images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from adatom.nn.attention import Pairs, node_attention
from adatom.nn.images import Images, fading_sum, folded, images_within
from interpreted import (
    DEVICE,
    INTERPRETED,
    QUIET,
    in_a_process_of_their_own,
    needs_triton,
    run_interpreted,
    runs_kernels,
)

pytestmark = QUIET

H, REACH, TIGHT = 2, 5.0, 2e-5
# atoms of each structure, channels of a head, cell and periodic directions of each
SYSTEMS = {
    "molecule": ([5], 4, [np.zeros((3, 3))], [[False] * 3]),
    "wire and molecule": ([3, 7], 5, [np.diag([0, 0, 4.1]), np.zeros((3, 3))], [[False, False, True], [False] * 3]),
    "sheet": ([19], 16, [np.array([[9.1, 0.2, 0], [0.5, 8.8, 0.3], [0, 0, 0]])], [[True, True, False]]),
}


class Setting:
    """Random atoms and tokens; queries, keys and values of atoms (N, H, D)."""

    def __init__(self, lengths: list[int], depth: int, cells: list[np.ndarray], pbc: list[list[bool]]) -> None:
        random, atoms, S = torch.Generator().manual_seed(0), sum(lengths), len(lengths)
        self.owner = torch.repeat_interleave(torch.arange(S), torch.tensor(lengths)).to(DEVICE)
        self.cell = torch.tensor(np.array(cells), device=DEVICE).requires_grad_()
        raw = torch.rand(atoms, 3, generator=random, dtype=torch.float64) * 9 - 2
        self.positions = raw.to(DEVICE).requires_grad_()
        made = [torch.randn(atoms, H, depth, generator=random, dtype=torch.float64) for _ in range(3)]
        self.q, self.k, self.v = (t.to(DEVICE).requires_grad_() for t in made)
        self.null = torch.randn(H, generator=random, dtype=torch.float64).to(DEVICE).requires_grad_()
        self.table = torch.full((S, max(lengths)), atoms, device=DEVICE)
        for row, (count, end) in enumerate(zip(lengths, np.cumsum(lengths), strict=True)):
            self.table[row, :count] = torch.arange(end - count, end)
        self.images: Images = images_within(self.cell.detach(), torch.tensor(pbc, device=DEVICE), REACH)

    def found(self, dtype: torch.dtype, way: str) -> list[Tensor]:
        """The attention, and derivatives of a function of it by everything that it depends on."""

        def weights(here: Tensor, there: Tensor, present: Tensor, cell: Tensor) -> Tensor:
            return fading_sum(here, there, present, cell, self.images, REACH).to(dtype).unsqueeze(1)

        places = folded(self.positions, self.cell, self.owner)
        pairs = Pairs(weights, places, (self.cell,), fading=(self.images, REACH))
        given = (self.q, self.k, self.v, self.null)
        q, k, v, null = (t.to(dtype) for t in given)
        out = node_attention(q, k, v, self.table, False, pairs, null, way)  # type: ignore[arg-type]
        factor = torch.linspace(-1, 1, out.numel(), device=DEVICE, dtype=dtype).view(out.shape)
        slopes = torch.autograd.grad((factor * out.square()).sum(), (*given, self.positions, self.cell))
        return [t.detach().double() for t in (out, *slopes)]


@in_a_process_of_their_own
def test_the_kernels_agree_with_their_twin_when_interpreted() -> None:
    run_interpreted(__file__)


@runs_kernels
@pytest.mark.parametrize("system", SYSTEMS)
def test_values_and_derivatives_agree_with_the_twin(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from adatom.nn import attention
    from adatom.nn.kernels import nodes

    calls: list[Callable[..., Tensor]] = []
    monkeypatch.setattr(attention, "_has_kernel", lambda q: not calls.append(nodes.fading_attention))
    monkeypatch.setattr(attention, "nodes", nodes, raising=False)
    monkeypatch.setattr(nodes, "TILE", 16)
    setting = Setting(*SYSTEMS[system])
    ours, twin = setting.found(torch.float32, "fused"), setting.found(torch.float64, "plain")
    assert calls
    for found, wanted in zip(ours, twin, strict=True):
        assert float((found - wanted).abs().max()) <= TIGHT * max(float(wanted.abs().max()), 1e-6)


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled when interpreted")
@pytest.mark.parametrize("kernel", ["forward", "queries", "keys"])
def test_the_kernels_compile_for_a_card_without_one(kernel: str) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from adatom.nn.kernels import nodes

    function = getattr(nodes, f"_{kernel}_kernel")
    fixed = {"H": 4, "D": 16, "DP": 16, "TILE": nodes.TILE, "FAR": nodes.FAR, "CLOSE": nodes.CLOSE}
    fixed = {name: value for name, value in fixed.items() if name in function.arg_names}
    kinds = dict.fromkeys(function.arg_names, "*fp32") | {
        "K": "i32",
        "images": "i32",
        "scale": "fp32",
        "square": "fp32",
    }
    kinds |= {"places": "*fp64", "shifts": "*fp64", "valid": "*fp64", "lengths": "*i64"}
    kinds |= dict.fromkeys(fixed, "constexpr")
    made = triton.compile(
        ASTSource(function, kinds, fixed), target=GPUTarget("cuda", 90, 32), options={"num_warps": nodes.WARPS}
    )
    assert ".entry" in made.asm["ptx"]
