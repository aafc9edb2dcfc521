"""The parts ``kernels`` and ``tuning`` of ``run_all.py``: kernels against their twins, and how to launch them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import ase
import clock
import torch
from boxes import silicon
from session import Session
from torch import Tensor

from adatom.nn import kernels
from adatom.nn.attention import Pairs, node_attention
from adatom.nn.images import fading_sum, images_within

Calls = dict[str, Callable[[], object]]
# neighbours, senders, radial functions, harmonics: of water within 5 Å
MOMENTS = {"S": (64, 4, 8, 16), "M": (64, 8, 8, 16), "L": (64, 8, 10, 16)}
ATOMS = (1_000, 30_000)
ORDERS = ("value", "slope", "bend")  # what is new in each order of derivatives
REACH = 10.0  # Å, of node attention
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
    session: Session, kernel: str, ways: dict[str, Callable[..., Tensor]], shape: str, given: tuple[Tensor, ...],
    orders: tuple[int, ...],
) -> None:  # fmt: skip
    """Equality and times of a kernel and its twin, and of other ways."""
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


class Crowd:
    """Node attention of the default AllScAIP S among the atoms of a crystal, by kernel and in tiles."""

    def __init__(self, session: Session, atoms: ase.Atoms) -> None:
        N, H, D = len(atoms), 4, 16
        made = [torch.randn(N, H, D, device=session.device, requires_grad=True) for _ in range(3)]
        self.positions = torch.tensor(atoms.get_positions(wrap=True), device=session.device).requires_grad_()
        self.cell = torch.tensor(atoms.cell.array, device=session.device).unsqueeze(0)
        self.table = torch.arange(N, device=session.device).unsqueeze(0)
        self.null, self.given = torch.zeros(H, device=session.device), (*made, self.positions)
        self.images = images_within(self.cell, torch.ones_like(self.cell[:, 0], dtype=torch.bool), REACH)

    def run(self, way: Literal["tiles", "fused"], *given: Tensor) -> Tensor:
        """The attention."""
        q, k, v, positions = given

        def weights(here: Tensor, there: Tensor, present: Tensor, cell: Tensor) -> Tensor:
            return fading_sum(here, there, present, cell, self.images, REACH).to(q.dtype).unsqueeze(1)

        pairs = Pairs(weights, positions, (self.cell,), fading=(self.images, REACH))
        return node_attention(q, k, v, self.table, False, pairs, self.null, way)


def crowds(session: Session) -> None:
    """Node attention: against its twin while that is quick, alone at 20,000 atoms."""
    for cells in ((4, 4, 4), (8, 8, 8), (10, 10, 25)):
        atoms = silicon(*cells)
        crowd = Crowd(session, atoms)
        shape = f"S, {len(atoms)} atoms"
        if len(atoms) < 5_000:
            ways = {"kernel": lambda *t, c=crowd: c.run("fused", *t), "twin": lambda *t, c=crowd: c.run("tiles", *t)}
            compare(session, "nodes", ways, shape, crowd.given, (0, 1))
            continue
        with session.trying(f"nodes, {shape}"):
            for order in (0, 1):
                call = lambda o=order, c=crowd: derivatives(lambda *t: c.run("fused", *t), c.given, o)  # noqa: E731
                clock.reset_peak(session.device)
                took = clock.seconds(call, session.device)
                session.say(what="alone", kernel=f"nodes {ORDERS[order]}", shape=shape, us=1e6 * took,
                            peak_MiB=clock.peak_mib(session.device))  # fmt: skip


def all_kernels(session: Session) -> None:
    """Every kernel."""
    if session.device.type != "cuda" or not kernels.PRESENT:
        raise RuntimeError("kernels need a card, a CUDA build of torch, and Triton")
    with session.trying("nodes"):
        crowds(session)
    from adatom.nn.kernels import moments as fused
    from adatom.nn.moments import plain

    for size, shape in MOMENTS.items():
        for atoms in ATOMS:
            given = moment_inputs(session, atoms, shape)
            ways = {"kernel": fused.moments, "twin": plain, "compiled": torch.compile(plain, dynamic=False)}
            compare(session, "moments", ways, f"{size}, {atoms} atoms", given, (0, 1, 2))


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
