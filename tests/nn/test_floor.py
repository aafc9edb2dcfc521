"""The floor of distances: nothing changes in the data, nothing is seen nearer, and all of it is smooth."""

from __future__ import annotations

import pytest
import torch

from adatom.nn.floor import WIDTH, Floor, pair_table

D = 2.0  # Å, shortest distance of Si-Si
SILICON = torch.tensor([14])


def seen(floor: Floor, r: torch.Tensor) -> torch.Tensor:
    """Length that is seen of a vector of length r (n,)."""
    direction = torch.tensor([2.0, -1.0, 2.0], dtype=r.dtype) / 3
    vectors = r.unsqueeze(1) * direction
    found = floor(vectors, SILICON.expand(r.shape[0]), SILICON.expand(r.shape[0]))
    torch.testing.assert_close(torch.linalg.cross(found, direction.expand_as(found)), torch.zeros_like(found))
    return found @ direction


@pytest.fixture
def floor() -> Floor:
    return Floor({"Si-Si": D, "H-O": 0.9})


def test_what_the_data_hold_is_left_alone_to_the_last_bit(floor: Floor) -> None:
    vectors = torch.randn(50, 3, dtype=torch.float64)
    far = vectors * (D + torch.rand(50, 1, dtype=torch.float64)) / vectors.norm(dim=1, keepdim=True)
    far[0] *= D / far[0].norm() * (1 + 1e-12)
    near = torch.cat([far, far[:1] * 0.5])  # one below, so that the rule is at work for all
    z = SILICON.expand(51)
    assert torch.equal(floor(near, z, z)[:50], far)
    unknown = torch.full_like(z, 6)
    assert torch.equal(floor(near, z, unknown), near), "a pair that is not in the table has no floor"
    assert floor(far, z[:50], z[:50]) is far
    assert Floor(None)(near, z, z) is near


def test_nothing_nearer_than_the_floor_is_seen(floor: Floor) -> None:
    r = torch.linspace(0.01, 3.0, 300, dtype=torch.float64)
    length = seen(floor, r)
    assert (length >= D * (1 - WIDTH / 2) - 1e-12).all()
    assert (length.diff() >= -1e-12).all()
    torch.testing.assert_close(length[r < D * (1 - WIDTH)], torch.full_like(r[r < D * (1 - WIDTH)], 0.9 * D))


def test_three_derivatives_are_continuous(floor: Floor) -> None:
    for border in (D, D * (1 - WIDTH)):
        sides = []
        for r in (border - 1e-7, border + 1e-7):
            x = torch.tensor([r], dtype=torch.float64, requires_grad=True)
            value, orders = seen(floor, x), []
            for _ in range(3):
                (value,) = torch.autograd.grad(value.sum(), x, create_graph=True, allow_unused=True)
                value = torch.zeros_like(x) if value is None else value + 0.0 * x.sum()
                orders.append(float(value.detach()))
            sides.append(orders)
        assert sides[0] == pytest.approx(sides[1], abs=2e-4)


def test_derivatives_are_right_and_never_nan(floor: Floor) -> None:
    z = SILICON.expand(3)
    vectors = torch.tensor([[1.0, 1.2, 0.3], [0.5, 0.1, 0.2], [3.0, 0, 0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: floor(v, z, z), (vectors,))
    assert torch.autograd.gradgradcheck(lambda v: floor(v, z, z), (vectors,))
    empty = torch.zeros(1, 2, 3, requires_grad=True)  # a slot that holds nothing, and one that does
    vectors = empty + torch.tensor([[[0.0, 0, 0], [0, 0, 0.7]]])
    found = floor(vectors, torch.tensor([[8]]), torch.tensor([[1, 1]]), torch.tensor([[0.0, 1.0]]))
    (slope,) = torch.autograd.grad(found.sum(), empty)
    assert slope.isfinite().all()
    assert not found[0, 0].any()
    assert float(found[0, 1].detach().norm()) == pytest.approx(0.81)


def test_compiled_code_says_the_same(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    r = torch.linspace(0.5, 3.0, 40, dtype=torch.float64)
    eager, far = seen(floor, r), seen(floor, r[r > D])
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # no look at the values
    assert torch.equal(seen(floor, r), eager)
    assert torch.equal(seen(floor, r[r > D]), far)


def test_a_table_knows_pairs_from_both_ends() -> None:
    table = pair_table({"H-O": 0.9})
    assert table[1, 8] == table[8, 1] == 0.9
    assert int((table > 0).sum()) == 2
