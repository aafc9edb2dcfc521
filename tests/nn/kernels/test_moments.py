"""Kernels against their twins, derivative by derivative: on a card where there is one, interpreted elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from ase.build import molecule
from torch import Tensor

from adatom.neighbors import graph_from_atoms
from adatom.nn import kernels
from adatom.nn.moments import moments, plain
from adatom.testing.untrained import untrained
from interpreted import (
    DEVICE,
    INTERPRETED,
    QUIET,
    TRITON,
    in_a_process_of_their_own,
    needs_triton,
    run_interpreted,
    runs_kernels,
)

pytestmark = QUIET

TIGHT = {torch.float64: 1e-12, torch.float32: 2e-5}

# atoms, neighbours, senders, radial functions, harmonics
SHAPES = {
    "default S": (3, 20, 4, 8, 16),
    "default M": (2, 17, 8, 8, 16),
    "default L": (2, 33, 8, 10, 16),
    "odd": (2, 37, 3, 5, 9),
    "one of each": (1, 1, 1, 1, 4),
    "no atoms": (0, 3, 4, 8, 16),
    "high degree": (2, 5, 2, 3, 49),
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
both_types = pytest.mark.parametrize("dtype", TIGHT, ids=str)


def inputs(shape: tuple[int, ...], dtype: torch.dtype, device: str = DEVICE) -> tuple[Tensor, Tensor, Tensor]:
    """What atoms send lies as it does when it was gathered; the last slot of every atom is empty."""
    N, M, K, B, L2 = shape
    random = torch.Generator().manual_seed(0)
    made = [torch.randn(size, generator=random, dtype=dtype).to(device) for size in ((N, M, K), (N, B, M), (N, L2, M))]
    if M > 1:
        made[1][:, :, -1] = 0
    return made[0].transpose(1, 2).requires_grad_(), made[1].requires_grad_(), made[2].requires_grad_()


def derivatives(function: Callable[..., Tensor], given: tuple[Tensor, ...]) -> list[Tensor]:
    """Values, first derivatives of a function of them, and second ones of a function of those."""
    values = function(*given)
    weights = torch.linspace(-1, 1, values.numel(), dtype=values.dtype, device=values.device).view(values.shape)
    first = torch.autograd.grad((weights * values.square()).sum(), given, create_graph=True)
    second = torch.autograd.grad(sum((slope**2).sum() for slope in first), given)
    return [t.detach() for t in (values, *first, *second)]


def agree(found: list[Tensor], wanted: list[Tensor], dtype: torch.dtype) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.shape == theirs.shape
        if theirs.numel():
            assert float((ours - theirs).abs().max()) <= TIGHT[dtype] * float(theirs.abs().max())


@in_a_process_of_their_own
def test_kernels_agree_with_their_twins_when_interpreted() -> None:
    run_interpreted(__file__)


@runs_kernels
@both_types
@every_shape
def test_values_and_two_derivatives_agree_with_the_twin(shape, dtype) -> None:
    from adatom.nn.kernels import moments as fused

    given = inputs(shape, dtype)
    agree(derivatives(fused.moments, given), derivatives(plain, given), dtype)


@runs_kernels
def test_first_and_second_derivatives_are_right() -> None:
    from adatom.nn.kernels import moments as fused

    given = inputs((1, 2, 2, 1, 2), torch.float64)
    assert torch.autograd.gradcheck(fused.moments, given)
    assert torch.autograd.gradgradcheck(fused.moments, given)


@runs_kernels
def test_a_third_derivative_is_refused_rather_than_wrong() -> None:
    from adatom.nn.kernels import moments as fused

    given = inputs((1, 2, 2, 2, 4), torch.float64)
    (first,) = torch.autograd.grad(fused.moments(*given).square().sum(), given[:1], create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), given[:1], create_graph=True)
    with pytest.raises(NotImplementedError, match="ADATOM_KERNELS=off"):
        torch.autograd.grad(second.square().sum(), given[:1])


@runs_kernels
def test_nothing_is_read_from_empty_slots_beyond_their_zeros() -> None:
    """What stands in an empty slot is some atom's, and nothing flows back to it."""
    from adatom.nn.kernels import moments as fused

    given = inputs(SHAPES["odd"], torch.float32)
    (slope,) = torch.autograd.grad(fused.moments(*given).sum(), given[:1])
    assert torch.equal(slope[:, :, -1], torch.zeros_like(slope[:, :, -1]))


def forces(function: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Energies and forces of a small network, derived as compiled potentials do."""

    def evaluate(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        def total(x: Tensor) -> tuple[Tensor, Tensor]:
            r = (1 + x.square().sum(2)).sqrt()
            radial = torch.stack([torch.sin(r), torch.cos(r), r], 1)
            harmonics = torch.stack([torch.ones_like(r), *x.unbind(2)], 1)
            energy = function((x @ weight).transpose(1, 2), radial, harmonics).square().sum((1, 2))
            return energy.sum(), energy

        slope, (_, energy) = torch.func.grad_and_value(total, has_aux=True)(x)
        return energy, -slope

    return evaluate


@runs_kernels
@pytest.mark.parametrize("way", ["torch.func", "compiled"])
def test_a_force_loss_has_the_same_gradient_through_functional_derivatives_and_the_compiler(way: str) -> None:
    """The compiler once made wrong second derivatives of a function like these, and right first ones."""
    from adatom.nn.kernels import moments as fused

    torch.manual_seed(0)
    weight = torch.randn(3, 2, dtype=torch.float64, device=DEVICE, requires_grad=True)
    evaluate = forces(fused.moments)
    if way == "compiled":
        torch.compiler.allow_in_graph(fused.moments)
        evaluate = torch.compile(evaluate, fullgraph=True, dynamic=True, backend="aot_eager")
    for size in ((3, 5), (4, 7), (2, 6)):
        x = torch.randn(*size, 3, dtype=torch.float64, device=DEVICE)
        found = []
        for function in (evaluate, forces(plain)):
            energy, force = function(x, weight)
            (slope,) = torch.autograd.grad(energy.sin().sum() + force.pow(3).sum(), weight)
            found.append([energy.detach(), force.detach(), slope])
        agree(*found, torch.float64)


@runs_kernels
@pytest.mark.parametrize("architecture", ["nemp", "mlanet"])
def test_a_network_says_the_same_with_kernels_and_without(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from adatom.nn.kernels import moments as fused

    potential = untrained(architecture).to(DEVICE).train()
    potential.network.double()
    graph = graph_from_atoms(molecule("H2O2"), potential.cutoff).to(DEVICE)
    found = []
    for function in (fused.moments, plain):
        monkeypatch.setattr(f"adatom.models.{architecture}.moments", function)
        results = potential(graph)
        named = [p for p in potential.parameters() if p.requires_grad]
        loss = results.forces.square().sum() + results.energy.sum()
        slopes = torch.autograd.grad(loss, named, allow_unused=True)
        every = torch.cat([slope.flatten() for slope in slopes if slope is not None])
        found.append([results.energy.detach(), results.forces.detach(), every])
    agree(*found, torch.float64)


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled when interpreted")
@pytest.mark.parametrize("kernel", ["moments", "slopes", "bends"])
def test_kernels_compile_for_a_card_without_one(kernel: str) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from adatom.nn.kernels import moments as fused

    function = getattr(fused, f"_{kernel}_kernel")
    settings = fused._Shape.of(kernel, *inputs(SHAPES["default S"], torch.float32, "cpu")).settings
    warps = settings.pop("num_warps")
    kinds = dict.fromkeys(function.arg_names, "*fp32")
    kinds |= {name: "i32" for name in function.arg_names if name.endswith(("_atom", "_row", "_step")) or name == "M"}
    kinds |= dict.fromkeys(settings, "constexpr")
    target = GPUTarget("cuda", 90, 32)
    made = triton.compile(ASTSource(function, kinds, settings), target=target, options={"num_warps": warps})
    assert ".entry" in made.asm["ptx"]


def test_the_plain_way_is_taken_on_a_processor() -> None:
    given = inputs(SHAPES["default S"], torch.float32, "cpu")
    assert torch.equal(moments(*given), plain(*given))


def test_without_cuda_nothing_of_triton_is_loaded() -> None:
    if torch.version.cuda is not None and TRITON:
        pytest.skip("this torch is built for CUDA")
    assert not kernels.PRESENT
