"""The parts ``kernels`` and ``tuning`` of ``run_all.py``: kernels against their twins, and how to launch them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import clock
import torch
from torch import Tensor

if TYPE_CHECKING:
    from parts import Session

Calls = dict[str, Callable[[], object]]
# neighbours, senders, radial functions, harmonics: of water within 5 Å
MOMENTS = {"S": (64, 4, 8, 16), "M": (64, 8, 8, 16), "L": (64, 8, 10, 16)}
ATOMS = (1_000, 30_000)
ORDERS = ("value", "slope", "bend")  # what is new in each order of derivatives
LOOSE = 1e-4  # of the largest entry, float32


def moment_inputs(session: Session, atoms: int, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Random ones, lying in memory as they do in a network."""
    M, K, B, L2 = shape
    made = [torch.randn(atoms, *size, device=session.device) for size in ((M, K), (B, M), (L2, M))]
    return made[0].transpose(1, 2).requires_grad_(), made[1].requires_grad_(), made[2].requires_grad_()


def derivatives(function: Callable[..., Tensor], given: tuple[Tensor, ...], order: int) -> list[Tensor]:
    """Values, and derivatives up to an order, as in an evaluation (1) and a training step (2)."""
    if order == 0:
        with torch.no_grad():
            return [function(*given)]
    values = function(*given)
    first = torch.autograd.grad(values.square().sum(), given, create_graph=order > 1)
    if order == 1:
        return [values.detach(), *first]
    second = torch.autograd.grad(sum(slope.square().sum() for slope in first), given)
    return [t.detach() for t in (values, *first, *second)]


def compare(
    session: Session, kernel: str, fused: Callable[..., Tensor], twin: Callable[..., Tensor], shape: str,
    given: tuple[Tensor, ...], orders: tuple[int, ...],
) -> None:  # fmt: skip
    """Equality and times of a kernel and its twin, and of the twin compiled."""
    ways = {"kernel": fused, "twin": twin, "compiled": torch.compile(twin, dynamic=False)}
    for order in orders:
        with session.trying(f"{kernel}, {shape}, order {order}"):
            found = {
                name: derivatives(way, given, order) for name, way in ways.items() if order < 2 or name != "compiled"
            }
            pairs = zip(found["kernel"], found["twin"], strict=True)
            off = max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) for a, b in pairs)
            calls: Calls = {name: lambda w=ways[name], o=order: derivatives(w, given, o) for name in found}
            took = clock.seconds_each(calls, session.device, 3 if session.quick else 15)
            session.say(
                what="check", of=kernel, which=f"{shape}, order {order}", ok=off < LOOSE, said=f"off by {off:.1e}"
            )
            session.say(what="kernel", kernel=f"{kernel} {ORDERS[order]}", shape=shape, order=order,
                        **{f"{name}_us": 1e6 * value for name, value in took.items()})  # fmt: skip


def all_kernels(session: Session) -> None:
    """Every kernel."""
    from adatom.nn.kernels import moments as fused
    from adatom.nn.moments import plain

    for size, shape in MOMENTS.items():
        for atoms in ATOMS:
            given = moment_inputs(session, atoms, shape)
            compare(session, "moments", fused.moments, plain, f"{size}, {atoms} atoms", given, (0, 1, 2))


def tuning(session: Session) -> None:
    """Times of the kernels by tile and warps, each against the launch that they have now."""
    from adatom.nn.kernels import moments as fused

    now = dict(fused.TUNING)
    for size, shape in MOMENTS.items():
        s, r, y = (t.detach() for t in moment_inputs(session, ATOMS[-1], shape))
        g = fused._moments(s, r, y)
        calls: Calls = {
            "moments": lambda s=s, r=r, y=y: fused._moments(s, r, y),
            "slopes": lambda s=s, r=r, y=y, g=g: fused._slopes(g, s, r, y),
            "bends": lambda s=s, r=r, y=y, g=g: fused._bends(g, s, r, y, s, r, y),
        }
        for name, call in calls.items():
            for tile in (16, 32):
                for warps in (1, 2, 4, 8):
                    with session.trying(f"{name}, tile {tile}, warps {warps}"):
                        fused.TUNING[name] = fused.Tuning(tile, warps)
                        took = clock.seconds(call, session.device)
                        session.say(what="tuning", kernel=name, shape=size, tile=tile, warps=warps, us=1e6 * took)
            fused.TUNING[name] = now[name]
