"""Sums over neighbours of what they send, radial functions and harmonics, without the products in memory.

    T_lkb = sum_m s_km r_bm y_lm                                                    for each atom
    Q(g; s, r, y) = sum g_lkb T_lkb(s, r, y)

T is linear in each of s, r and y, so that all derivatives are sums of this kind: ``moment_slopes`` are those of Q by s,
r and y, ``moment_bends`` those of the slopes times given (s', r', y'):

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

    tile: int  # neighbours at a time
    warps: int


TUNING = {"moments": Tuning(32, 2), "slopes": Tuning(32, 2), "bends": Tuning(16, 2)}
EXACT_TILE = 4  # in float64, which goes without matrix units


# --- kernels ----------------------------------------------------------------------------------------------------------


@triton.jit  # type: ignore[untyped-decorator]
def _outer(a: Any, b: Any, DOT: tl.constexpr) -> Any:
    """(P, T) and (Q, T) -> (P, Q), summed over T."""
    if DOT:
        found = tl.dot(a, tl.trans(b), input_precision="ieee")
    else:
        found = tl.sum(a[:, None, :] * b[None, :, :], axis=2)
    return found


@triton.jit  # type: ignore[untyped-decorator]
def _apply(a: Any, b: Any, DOT: tl.constexpr) -> Any:
    """(P, Q) and (Q, T) -> (P, T)."""
    if DOT:
        found = tl.dot(a, b, input_precision="ieee")
    else:
        found = tl.sum(a[:, :, None] * b[None, :, :], axis=1)
    return found


@triton.jit  # type: ignore[untyped-decorator]
def _rows(start: Any, row: Any, column: Any, stride: Any, step: Any, ROWS: tl.constexpr, COLUMNS: Any) -> Any:
    """Rows of a matrix, zero outside of it."""
    inside = (row < ROWS)[:, None] & (column < COLUMNS)[None, :]
    return tl.load(start + row[:, None] * stride + column[None, :] * step, mask=inside, other=0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _store(start: Any, row: Any, column: Any, values: Any, ROWS: tl.constexpr, COLUMNS: Any) -> Any:
    """Rows of a matrix that lie within it; one row after the other in memory."""
    inside = (row < ROWS)[:, None] & (column < COLUMNS)[None, :]
    tl.store(start + row[:, None] * COLUMNS + column[None, :], values, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _moments_kernel(
    s_start: Any, r_start: Any, y_start: Any, out: Any, M: Any,
    s_atom: Any, s_row: Any, s_step: Any, r_atom: Any, r_row: Any, r_step: Any, y_atom: Any, y_row: Any, y_step: Any,
    K: tl.constexpr, B: tl.constexpr, L2: tl.constexpr, KP: tl.constexpr, BP: tl.constexpr, LP: tl.constexpr,
    TILE: tl.constexpr, DOT: tl.constexpr,
) -> None:  # fmt: skip
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


@triton.jit  # type: ignore[untyped-decorator]
def _slopes_kernel(
    grad: Any, s_start: Any, r_start: Any, y_start: Any, ds: Any, dr: Any, dy: Any, M: Any,
    s_atom: Any, s_row: Any, s_step: Any, r_atom: Any, r_row: Any, r_step: Any, y_atom: Any, y_row: Any, y_step: Any,
    K: tl.constexpr, B: tl.constexpr, L2: tl.constexpr, KP: tl.constexpr, BP: tl.constexpr, LP: tl.constexpr,
    TILE: tl.constexpr, DOT: tl.constexpr,
) -> None:  # fmt: skip
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


@triton.jit  # type: ignore[untyped-decorator]
def _bends_kernel(
    grad: Any, s_start: Any, r_start: Any, y_start: Any, cs_start: Any, cr_start: Any, cy_start: Any,
    dg: Any, ds: Any, dr: Any, dy: Any, M: Any,
    s_atom: Any, s_row: Any, s_step: Any, r_atom: Any, r_row: Any, r_step: Any, y_atom: Any, y_row: Any, y_step: Any,
    K: tl.constexpr, B: tl.constexpr, L2: tl.constexpr, KP: tl.constexpr, BP: tl.constexpr, LP: tl.constexpr,
    TILE: tl.constexpr, DOT: tl.constexpr,
) -> None:  # fmt: skip
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
        settings |= {"TILE": tuning.tile if dot else EXACT_TILE, "num_warps": tuning.warps}
        return cls(N, M, settings)


def _strides(*tensors: Tensor) -> list[int]:
    return [stride for t in tensors for stride in t.stride()]


@torch.library.custom_op("adatom::moments", mutates_args=(), schema="(Tensor s, Tensor r, Tensor y) -> Tensor")
def moments(s: Tensor, r: Tensor, y: Tensor) -> Tensor:
    """T (N, L2, K B) from s (N, K, M), r (N, B, M) and y (N, L2, M); float32 or float64, of one type."""
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
def moment_slopes(g: Tensor, s: Tensor, r: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
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
def moment_bends(
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


@moments.register_fake
def _(s: Tensor, r: Tensor, y: Tensor) -> Tensor:
    return s.new_empty(s.shape[0], y.shape[1], s.shape[1] * r.shape[1])


@moment_slopes.register_fake
def _(g: Tensor, s: Tensor, r: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in (s, r, y))


@moment_bends.register_fake
def _(
    g: Tensor, s: Tensor, r: Tensor, y: Tensor, cs: Tensor, cr: Tensor, cy: Tensor
) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in (g, s, r, y))


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _of_moments(ctx: Any, grad: Tensor) -> Any:
    return moment_slopes(grad, *ctx.saved_tensors)


def _of_slopes(ctx: Any, *grads: Tensor) -> Any:
    return moment_bends(*ctx.saved_tensors, *grads)


moments.register_autograd(_of_moments, setup_context=_keep)
moment_slopes.register_autograd(_of_slopes, setup_context=_keep)
