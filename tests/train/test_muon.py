"""Orthogonal momentum: what the iteration finds, what an update does, what a checkpoint must hold."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from adatom.models.mlanet import MLANet, MLANetConfig
from adatom.train.muon import Muon, newton_schulz, orthogonal
from adatom.train.optimize import OptimizerConfig, make_optimizer


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def network() -> nn.Module:
    torch.manual_seed(0)
    return MLANet(MLANetConfig(cutoff=4.0)).double()


def with_gradients(module: nn.Module, seed: int) -> None:
    for k, p in enumerate(module.parameters()):
        p.grad = drawn(*p.shape, seed=1000 * seed + k)


@pytest.mark.parametrize("shape", [(5, 8, 8), (3, 4, 16), (3, 16, 4)])
def test_the_iteration_keeps_singular_vectors_and_brings_singular_values_near_one(shape: tuple[int, ...]) -> None:
    matrices = drawn(*shape)
    u, s, v = torch.linalg.svd(matrices, full_matrices=False)
    core = u.mT @ newton_schulz(matrices) @ v.mT
    torch.testing.assert_close(core, torch.diag_embed(core.diagonal(dim1=1, dim2=2)), atol=1e-12, rtol=0)
    values = core.diagonal(dim1=1, dim2=2)[s > 0.02 * s.amax()]
    assert 0.6 < float(values.min()) < float(values.max()) < 1.3


def test_a_zero_gradient_moves_nothing_and_sizes_do_not_matter() -> None:
    assert not newton_schulz(torch.zeros(2, 4, 4)).any()
    matrices = drawn(2, 4, 6)
    torch.testing.assert_close(newton_schulz(1e-5 * matrices), newton_schulz(1e5 * matrices), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(32, 32), (3, 32, 64), (2, 96, 32), (8, 5), (4, 40)])
def test_an_update_has_mean_square_one_whatever_the_shape(shape: tuple[int, ...]) -> None:
    (update,) = orthogonal([drawn(*shape)])
    assert update.shape == shape
    assert 0.7 < float(update.square().mean().sqrt()) < 1.15


def test_blocks_are_made_orthogonal_one_by_one() -> None:
    large, small = drawn(2, 64, 96), drawn(64, 32, seed=1)
    updates = orthogonal([large, small])
    for update, matrix in zip(updates, (large, small), strict=True):
        for i in range(matrix.shape[-2] // 32):
            for j in range(matrix.shape[-1] // 32):
                block = matrix[..., 32 * i : 32 * i + 32, 32 * j : 32 * j + 32]
                alone = newton_schulz(block.reshape(-1, 32, 32)).view(block.shape) * 32**0.5
                torch.testing.assert_close(
                    update[..., 32 * i : 32 * i + 32, 32 * j : 32 * j + 32], alone, atol=1e-12, rtol=0
                )


def test_an_update_turns_with_the_gradient() -> None:
    gradient, turn = drawn(32, 32), torch.linalg.qr(drawn(32, 32, seed=1))[0]
    (update,), (turned,) = orthogonal([gradient]), orthogonal([turn @ gradient])
    torch.testing.assert_close(turned, turn @ update, atol=1e-11, rtol=0)


def test_steps_follow_the_equations() -> None:
    weight = nn.Parameter(drawn(6, 4))
    start, momentum = weight.detach().clone(), torch.zeros(6, 4, dtype=torch.float64)
    optimizer = Muon([weight], [], lr=0.1, momentum=0.9, weight_decay=0.5)
    for seed in (1, 2, 3):
        weight.grad = drawn(6, 4, seed=seed)
        momentum = 0.9 * momentum + 0.1 * weight.grad
        (update,) = orthogonal([0.9 * momentum + 0.1 * weight.grad])
        start = (1 - 0.1 * 0.5) * start - 0.1 * update
        optimizer.step()
    torch.testing.assert_close(weight.detach(), start, atol=1e-13, rtol=0)


def test_all_but_matrices_move_as_adamw_moves_them() -> None:
    ours, theirs = nn.Parameter(drawn(7)), nn.Parameter(drawn(7))
    optimizers = (
        Muon([], [ours], lr=0.1, others_factor=0.5, betas=(0.8, 0.95), weight_decay=0.1),
        torch.optim.AdamW([theirs], lr=0.05, betas=(0.8, 0.95), weight_decay=0.1),
    )
    for seed in range(4):
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = drawn(7, seed=seed)
            optimizer.step()
    torch.testing.assert_close(ours.detach(), theirs.detach(), atol=1e-14, rtol=0)


def test_matrices_are_the_weights_that_mix_channels() -> None:
    module = network()
    optimizer = make_optimizer(OptimizerConfig(), module)
    named = {id(p): name for name, p in module.named_parameters()}
    matrices, others = ([named[id(p)] for p in group["params"]] for group in optimizer.param_groups)
    assert sorted(matrices + others) == sorted(named.values()), "every parameter once"
    assert "body.layers.0.update.products.mix.weight" in matrices
    assert {"body.embedding.weight", "body.layers.0.null", "body.readouts.0.out.weight"} <= set(others)


def test_the_groups_carry_the_factors_of_their_learning_rates() -> None:
    optimizer = make_optimizer(OptimizerConfig(lr=0.5, others=3.0), network())
    assert [(group["lr"], group["lr_factor"]) for group in optimizer.param_groups] == [(0.5, 1.0), (1.5, 3.0)]


def test_frozen_parameters_and_those_without_gradient_stay_as_they_are() -> None:
    module = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)])
    module[0].requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    optimizer = make_optimizer(OptimizerConfig(), module)
    module[1].weight.grad = torch.randn(4, 4)
    optimizer.step()
    moved = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"1.weight"}


def test_a_run_that_goes_on_from_saved_tensors_is_bit_identical() -> None:
    one, other = network(), network()
    first, second = make_optimizer(OptimizerConfig(), one), make_optimizer(OptimizerConfig(), other)
    for seed in range(3):
        with_gradients(one, seed)
        first.step()
    state = first.state_dict()["state"]
    assert all(isinstance(value, Tensor) for moments in state.values() for value in moments.values())
    file = io.BytesIO()
    torch.save({k: dict(v) for k, v in state.items()}, file)
    file.seek(0)
    other.load_state_dict(one.state_dict())
    second.load_state_dict({"state": torch.load(file), "param_groups": second.state_dict()["param_groups"]})
    for module, optimizer in ((one, first), (other, second)):
        with_gradients(module, 9)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
