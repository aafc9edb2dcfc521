"""Sums over neighbours of what they send, radial functions and harmonics, without the products in memory.

    T_lkb = sum_m s_km r_bm y_lm                                                    for each atom
    Q(g; s, r, y) = sum g_lkb T_lkb(s, r, y)

T is linear in each of s, r and y, so that all derivatives are sums of this kind. Slopes are the derivatives of Q by s,
r and y; bends those of B, which is what the slopes come to when they are weighted with (s', r', y'):

    B = Q(g; s', r, y) + Q(g; s, r', y) + Q(g; s, r, y')

One program per atom; its neighbours come tile by tile, and every input is read once. Third derivatives raise.
This file needs Triton; it may be imported where there is no card (``TRITON_INTERPRET=1`` runs the kernels anywhere).

Shapes: N atoms, M neighbours (padded; the radial functions are zero in empty slots), K senders, B radial functions,
L2 harmonics.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


class Tuning(NamedTuple):
    """How a kernel is launched."""

    tile: int  # neighbours at a time, 16 or more
    warps: int  # for up to 512 sums of an atom; twice as many for more


# by the registers that the compiler needs for Hopper cards: most warps and neighbours without spilling; not yet by time
TUNING = {"moments": Tuning(16, 4), "slopes": Tuning(16, 4), "bends": Tuning(16, 4)}
EXACT_TILE = 2  # in float64, which goes without matrix products


# --- kernels ----------------------------------------------------------------------------------------------------------


@triton.jit
def _outer(a, b, DOT: tl.constexpr):
    """(P, T) and (Q, T) -> (P, Q), summed over T."""
    if DOT:  # noqa: SIM108 (decided while compiling)
        found = tl.dot(a, tl.trans(b), input_precision="ieee")
    else:
        found = tl.sum(a[:, None, :] * b[None, :, :], axis=2)
    return found


@triton.jit
def _apply(a, b, DOT: tl.constexpr):
    """(P, Q) and (Q, T) -> (P, T)."""
    if DOT:  # noqa: SIM108
        found = tl.dot(a, b, input_precision="ieee")
    else:
        found = tl.sum(a[:, :, None] * b[None, :, :], axis=1)
    return found


@triton.jit
def _rows(start, row, column, stride, step, ROWS: tl.constexpr, COLUMNS):
    """Rows of a matrix, zero outside of it."""
    inside = (row < ROWS)[:, None] & (column < COLUMNS)[None, :]
    return tl.load(start + row[:, None] * stride + column[None, :] * step, mask=inside, other=0.0)


@triton.jit
def _store(start, row, column, values, ROWS: tl.constexpr, COLUMNS):
    """Rows of a matrix that lie within it; one row after the other in memory."""
    inside = (row < ROWS)[:, None] & (column < COLUMNS)[None, :]
    tl.store(start + row[:, None] * COLUMNS + column[None, :], values, mask=inside)


@triton.jit
def _moments_kernel(
    s_start, r_start, y_start, out, M,
    s_atom, s_row, s_step, r_atom, r_row, r_step, y_atom, y_row, y_step,
    K: tl.constexpr, B: tl.constexpr, L2: tl.constexpr, KP: tl.constexpr, BP: tl.constexpr, LP: tl.constexpr,
    TILE: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    pair, l = tl.arange(0, KP * BP), tl.arange(0, LP)  # noqa: E741
    b = pair % BP
    k = tl.where(b < B, pair // BP, K)  # outside where the radial function is
    total = tl.zeros((LP, KP * BP), dtype=out.dtype.element_ty)
    for first in range(0, M, TILE):
        m = first + tl.arange(0, TILE)
        s = _rows(s_start + n * s_atom, k, m, s_row, s_step, K, M)
        r = _rows(r_start + n * r_atom, b, m, r_row, r_step, B, M)
        y = _rows(y_start + n * y_atom, l, m, y_row, y_step, L2, M)
        total += _outer(y, s * r, DOT)
    inside = (l < L2)[:, None] & (k < K)[None, :]
    tl.store(out + n * (L2 * K * B) + l[:, None] * (K * B) + (k * B + b)[None, :], total, mask=inside)


@triton.jit
def _slopes_kernel(
    grad, s_start, r_start, y_start, ds, dr, dy, M,
    s_atom, s_row, s_step, r_atom, r_row, r_step, y_atom, y_row, y_step,
    K: tl.constexpr, B: tl.constexpr, L2: tl.constexpr, KP: tl.constexpr, BP: tl.constexpr, LP: tl.constexpr,
    TILE: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    pair, l = tl.arange(0, KP * BP), tl.arange(0, LP)  # noqa: E741
    b = pair % BP
    k = tl.where(b < B, pair // BP, K)
    inside = (l < L2)[:, None] & (k < K)[None, :]
    g = tl.load(grad + n * (L2 * K * B) + l[:, None] * (K * B) + (k * B + b)[None, :], mask=inside, other=0.0)
    for first in range(0, M, TILE):
        m = first + tl.arange(0, TILE)
        s = _rows(s_start + n * s_atom, k, m, s_row, s_step, K, M)
        r = _rows(r_start + n * r_atom, b, m, r_row, r_step, B, M)
        y = _rows(y_start + n * y_atom, l, m, y_row, y_step, L2, M)
        w = _apply(tl.trans(g), y, DOT)  # (K B, tile)
        by_s = tl.sum(tl.reshape(w * r, (KP, BP, TILE)), axis=1)
        by_r = tl.sum(tl.reshape(w * s, (KP, BP, TILE)), axis=0)
        _store(ds + n * K * M, tl.arange(0, KP), m, by_s, K, M)
        _store(dr + n * B * M, tl.arange(0, BP), m, by_r, B, M)
        _store(dy + n * L2 * M, l, m, _apply(g, s * r, DOT), L2, M)


@triton.jit
def _bends_kernel(
    grad, s_start, r_start, y_start, cs_start, cr_start, cy_start,
    dg, ds, dr, dy, M,
    s_atom, s_row, s_step, r_atom, r_row, r_step, y_atom, y_row, y_step,
    K: tl.constexpr, B: tl.constexpr, L2: tl.constexpr, KP: tl.constexpr, BP: tl.constexpr, LP: tl.constexpr,
    TILE: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    pair, l = tl.arange(0, KP * BP), tl.arange(0, LP)  # noqa: E741
    b = pair % BP
    k = tl.where(b < B, pair // BP, K)
    inside = (l < L2)[:, None] & (k < K)[None, :]
    where = n * (L2 * K * B) + l[:, None] * (K * B) + (k * B + b)[None, :]
    g = tl.load(grad + where, mask=inside, other=0.0)
    total = tl.zeros((LP, KP * BP), dtype=dg.dtype.element_ty)
    for first in range(0, M, TILE):
        m = first + tl.arange(0, TILE)
        s = _rows(s_start + n * s_atom, k, m, s_row, s_step, K, M)
        r = _rows(r_start + n * r_atom, b, m, r_row, r_step, B, M)
        y = _rows(y_start + n * y_atom, l, m, y_row, y_step, L2, M)
        cs = _rows(cs_start + n * K * M, k, m, M, 1, K, M)
        cr = _rows(cr_start + n * B * M, b, m, M, 1, B, M)
        cy = _rows(cy_start + n * L2 * M, l, m, M, 1, L2, M)
        w, cw = _apply(tl.trans(g), y, DOT), _apply(tl.trans(g), cy, DOT)
        product = cs * r + s * cr
        total += _outer(y, product, DOT) + _outer(cy, s * r, DOT)
        by_s = tl.sum(tl.reshape(w * cr + cw * r, (KP, BP, TILE)), axis=1)
        by_r = tl.sum(tl.reshape(w * cs + cw * s, (KP, BP, TILE)), axis=0)
        _store(ds + n * K * M, tl.arange(0, KP), m, by_s, K, M)
        _store(dr + n * B * M, tl.arange(0, BP), m, by_r, B, M)
        _store(dy + n * L2 * M, l, m, _apply(g, product, DOT), L2, M)
    tl.store(dg + where, total, mask=inside)


# --- operators --------------------------------------------------------------------------------------------------------


class _Shape(NamedTuple):
    """Sizes of one problem, and the powers of two that hold them."""

    atoms: int
    width: int
    settings: dict[str, Any]

    @classmethod
    def of(cls, kernel: str, s: Tensor, r: Tensor, y: Tensor) -> _Shape:
        (N, K, M), B, L2 = s.shape, r.shape[1], y.shape[1]
        dot = s.dtype == torch.float32
        KP, BP = triton.next_power_of_2(K), triton.next_power_of_2(B)
        LP = triton.next_power_of_2(L2)
        if dot:  # matrix units want 16 at least
            BP, LP = max(BP, 16 // KP), max(LP, 16)
        tuning = TUNING[kernel]
        settings = {"K": K, "B": B, "L2": L2, "KP": KP, "BP": BP, "LP": LP, "DOT": dot}
        settings |= {
            "TILE": tuning.tile if dot else EXACT_TILE,
            "num_warps": tuning.warps * (1 if KP * BP * LP <= 512 else 2),
        }
        return cls(N, M, settings)


def _strides(*tensors: Tensor) -> list[int]:
    return [stride for t in tensors for stride in t.stride()]


def moments(s: Tensor, r: Tensor, y: Tensor) -> Tensor:
    """T (N, L2, K B) from s (N, K, M), r (N, B, M) and y (N, L2, M), all float32 or all float64; differentiable twice.

    The compiler must not look into this before it differentiates (``nn.slots.DIFFERENTIATED`` says why).
    """
    found: Tensor = _Moments.apply(s, r, y)
    return found


@torch.library.custom_op("adatom::moments", mutates_args=(), schema="(Tensor s, Tensor r, Tensor y) -> Tensor")
def _moments(s: Tensor, r: Tensor, y: Tensor) -> Tensor:
    shape = _Shape.of("moments", s, r, y)
    out = s.new_zeros(s.shape[0], y.shape[1], s.shape[1] * r.shape[1])
    if shape.atoms:
        _moments_kernel[(shape.atoms,)](s, r, y, out, shape.width, *_strides(s, r, y), **shape.settings)
    return out


@torch.library.custom_op(
    "adatom::moment_slopes",
    mutates_args=(),
    schema="(Tensor g, Tensor s, Tensor r, Tensor y) -> (Tensor, Tensor, Tensor)",
)
def _slopes(g: Tensor, s: Tensor, r: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Derivatives of Q by s, r and y, from g (N, L2, K B)."""
    shape = _Shape.of("slopes", s, r, y)
    found = tuple(t.new_empty(t.shape) for t in (s, r, y))
    if shape.atoms:
        _slopes_kernel[(shape.atoms,)](
            g.contiguous(), s, r, y, *found, shape.width, *_strides(s, r, y), **shape.settings
        )
    return found[0], found[1], found[2]


@torch.library.custom_op(
    "adatom::moment_bends",
    mutates_args=(),
    schema="(Tensor g, Tensor s, Tensor r, Tensor y, Tensor cs, Tensor cr, Tensor cy)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
)
def _bends(
    g: Tensor, s: Tensor, r: Tensor, y: Tensor, cs: Tensor, cr: Tensor, cy: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Derivatives of B by g, s, r and y."""
    shape = _Shape.of("bends", s, r, y)
    found = tuple(t.new_empty(t.shape) for t in (g, s, r, y))
    if shape.atoms:
        given = [t.contiguous() for t in (cs, cr, cy)]
        _bends_kernel[(shape.atoms,)](
            g.contiguous(), s, r, y, *given, *found, shape.width, *_strides(s, r, y), **shape.settings
        )
    return found[0], found[1], found[2], found[3]


@_moments.register_fake
def _(s: Tensor, r: Tensor, y: Tensor) -> Tensor:
    return s.new_empty(s.shape[0], y.shape[1], s.shape[1] * r.shape[1])


@_slopes.register_fake
def _(g: Tensor, s: Tensor, r: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in (s, r, y))


@_bends.register_fake
def _(g: Tensor, s: Tensor, r: Tensor, y: Tensor, cs: Tensor, cr: Tensor, cy: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in (g, s, r, y))


class _Moments(torch.autograd.Function):
    """T; its derivatives are slopes."""

    @staticmethod
    def forward(s: Tensor, r: Tensor, y: Tensor) -> Tensor:
        found: Tensor = _moments(s, r, y)
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Any:
        return _Slopes.apply(grad[0], *ctx.saved_tensors)


class _Slopes(torch.autograd.Function):
    """Derivatives of Q; theirs are bends."""

    @staticmethod
    def forward(g: Tensor, s: Tensor, r: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found: tuple[Tensor, Tensor, Tensor] = _slopes(g, s, r, y)
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _Bends.apply(*ctx.saved_tensors, *grads)


class _Bends(torch.autograd.Function):
    """Derivatives of B; there are none of them."""

    @staticmethod
    def forward(*inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        found: tuple[Tensor, Tensor, Tensor, Tensor] = _bends(*inputs)
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError("these kernels have two derivatives; set ADATOM_KERNELS=off for more")
