"""Attention among all atoms of a structure, weighted by their distances, without a matrix in memory.

    W_ij = sum over images of (1 - (r_ij / R)^2)^3 for r_ij < R           as ``nn.images.fading_sum``
    out_i = sum_j W_ij e^s_ij v_j / (e^c + sum_j W_ij e^s_ij),   s_ij = q_i k_j / sqrt(D)

Distances are taken in float64 and weights in float32, tile by tile; tiles of atoms that are too far apart for any image
are passed over. One derivative, for dynamics:

    p_ij = W_ij e^s_ij / (e^c + sum ...),   t_ij = p_ij (g_i v_j - g_i out_i),   g = dL/dout
    dL/dq_i = sum_j t_ij k_j / sqrt(D),   dL/dk_j = sum_i t_ij q_i / sqrt(D),   dL/dv_j = sum_i p_ij g_i
    dL/dW_ij = t_ij / W_ij, summed over heads, and by W to places and cell

This file needs Triton; it may be imported where there is no card (``TRITON_INTERPRET=1`` runs the kernels anywhere).

Shapes: S structures, H heads, K atoms per structure (padded), D channels of a head, I images.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from adatom.nn.images import Images

TILE, WARPS = 32, 4  # atoms of a tile; by the registers that the compiler needs, not yet by time
FAR, CLOSE = -1e30, 1e-8  # no logit; the square of no distance


# --- kernels ----------------------------------------------------------------------------------------------------------


@triton.jit
def _place(places, s, rows, K, n):
    """Coordinates of atoms of a structure."""
    start = places + (s * K + rows) * 3
    inside = rows < n
    x = tl.load(start, mask=inside, other=0.0)
    y = tl.load(start + 1, mask=inside, other=0.0)
    z = tl.load(start + 2, mask=inside, other=0.0)
    return x, y, z


@triton.jit
def _gap(a, b, shift, inside_a, inside_b):
    """How far two sets of numbers are apart, the second one moved."""
    low_a, high_a = tl.min(tl.where(inside_a, a, 1e30)), tl.max(tl.where(inside_a, a, -1e30))
    low_b, high_b = tl.min(tl.where(inside_b, b, 1e30)) + shift, tl.max(tl.where(inside_b, b, -1e30)) + shift
    return tl.maximum(tl.maximum(low_b - high_a, low_a - high_b), 0.0)


@triton.jit
def _image(shifts, valid, s, t, images, xi, yi, zi, xj, yj, zj, near_i, near_j, square):
    """Translation t of structure s, and whether any pair may be within reach."""
    start = shifts + (s * images + t) * 3
    sx, sy, sz = tl.load(start), tl.load(start + 1), tl.load(start + 2)
    gx, gy, gz = _gap(xi, xj, sx, near_i, near_j), _gap(yi, yj, sy, near_i, near_j), _gap(zi, zj, sz, near_i, near_j)
    here = (tl.load(valid + s * images + t) > 0) & (gx * gx + gy * gy + gz * gz < square)
    return sx, sy, sz, here


@triton.jit
def _apart(xi, yi, zi, xj, yj, zj, sx, sy, sz, near_i, near_j, square, CLOSE: tl.constexpr):
    """Vectors from i to j by the reach, and 1 - (r / R)^2 of each pair, zero beyond; all in float32."""
    dx = (xj[None, :] - xi[:, None] + sx).to(tl.float32)
    dy = (yj[None, :] - yi[:, None] + sy).to(tl.float32)
    dz = (zj[None, :] - zi[:, None] + sz).to(tl.float32)
    r = dx * dx + dy * dy + dz * dz
    left = 1 - r / square
    left = tl.where((left > 0) & (r > CLOSE) & near_i[:, None] & near_j[None, :], left, 0.0)
    return dx, dy, dz, left


@triton.jit
def _weights(
    shifts, valid, s, images, xi, yi, zi, xj, yj, zj, near_i, near_j, square, TILE: tl.constexpr, CLOSE: tl.constexpr,
):  # fmt: skip
    """W of a tile."""
    weights = tl.zeros((TILE, TILE), dtype=tl.float32)
    for t in range(images):
        sx, sy, sz, here = _image(shifts, valid, s, t, images, xi, yi, zi, xj, yj, zj, near_i, near_j, square)
        if here:
            _dx, _dy, _dz, left = _apart(xi, yi, zi, xj, yj, zj, sx, sy, sz, near_i, near_j, square, CLOSE)
            weights += left * left * left
    return weights


@triton.jit
def _pulls(
    slope, shifts, valid, s, images, xi, yi, zi, xj, yj, zj, near_i, near_j, square, by_image,
    AXIS: tl.constexpr, IMAGES: tl.constexpr, TILE: tl.constexpr, CLOSE: tl.constexpr,
):  # fmt: skip
    """Derivatives by the vectors from i to j, from those by W, summed over one axis; by image as well if IMAGES."""
    px, py, pz = tl.zeros((TILE,), tl.float32), tl.zeros((TILE,), tl.float32), tl.zeros((TILE,), tl.float32)
    for t in range(images):
        sx, sy, sz, here = _image(shifts, valid, s, t, images, xi, yi, zi, xj, yj, zj, near_i, near_j, square)
        if here:
            dx, dy, dz, left = _apart(xi, yi, zi, xj, yj, zj, sx, sy, sz, near_i, near_j, square, CLOSE)
            pull = slope * left * left * (-6 / square)
            ux, uy, uz = tl.sum(pull * dx, axis=AXIS), tl.sum(pull * dy, axis=AXIS), tl.sum(pull * dz, axis=AXIS)
            px, py, pz = px + ux, py + uy, pz + uz
            if IMAGES:
                at = by_image + t * 3
                tl.store(at, tl.load(at) + tl.sum(ux))
                tl.store(at + 1, tl.load(at + 1) + tl.sum(uy))
                tl.store(at + 2, tl.load(at + 2) + tl.sum(uz))
    return px, py, pz


@triton.jit
def _rows(start, rows, n, D: tl.constexpr, DP: tl.constexpr):
    """Rows of a matrix (n, D), zero outside of it."""
    d = tl.arange(0, DP)
    inside = (rows < n)[:, None] & (d < D)[None, :]
    return tl.load(start + rows[:, None] * D + d[None, :], mask=inside, other=0.0)


@triton.jit
def _store(start, rows, values, n, D: tl.constexpr, DP: tl.constexpr):
    d = tl.arange(0, DP)
    tl.store(start + rows[:, None] * D + d[None, :], values, mask=(rows < n)[:, None] & (d < D)[None, :])


@triton.jit
def _store_place(start, rows, x, y, z, n):
    tl.store(start + rows * 3, x, mask=rows < n)
    tl.store(start + rows * 3 + 1, y, mask=rows < n)
    tl.store(start + rows * 3 + 2, z, mask=rows < n)


@triton.jit
def _forward_kernel(
    q_start, k_start, v_start, bottom, places, lengths, shifts, valid, out, level, K, images, scale, square,
    H: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, TILE: tl.constexpr, FAR: tl.constexpr, CLOSE: tl.constexpr,
):  # fmt: skip
    sh = tl.program_id(1).to(tl.int64)
    s = sh // H
    n = tl.load(lengths + s)
    i = tl.program_id(0) * TILE + tl.arange(0, TILE)
    near_i = i < n
    xi, yi, zi = _place(places, s, i, K, n)
    q = _rows(q_start + sh * K * D, i, n, D, DP)
    top = tl.zeros((TILE,), tl.float32) + tl.load(bottom + sh % H)
    total, mixed = tl.zeros((TILE,), tl.float32) + 1, tl.zeros((TILE, DP), tl.float32)
    for first in range(0, n, TILE):
        j = first + tl.arange(0, TILE)
        near_j = j < n
        xj, yj, zj = _place(places, s, j, K, n)
        weights = _weights(shifts, valid, s, images, xi, yi, zi, xj, yj, zj, near_i, near_j, square, TILE, CLOSE)
        if tl.max(weights) > 0:
            k, v = _rows(k_start + sh * K * D, j, n, D, DP), _rows(v_start + sh * K * D, j, n, D, DP)
            logits = tl.where(weights > 0, tl.dot(q, tl.trans(k), input_precision="ieee") * scale, FAR)
            higher = tl.maximum(top, tl.max(logits, axis=1))
            p = weights * tl.exp(logits - higher[:, None])
            fewer = tl.exp(top - higher)
            total = total * fewer + tl.sum(p, axis=1)
            mixed = mixed * fewer[:, None] + tl.dot(p, v, input_precision="ieee")
            top = higher
    _store(out + sh * K * D, i, mixed / total[:, None], n, D, DP)
    tl.store(level + sh * K + i, top + tl.log(total), mask=near_i)


@triton.jit
def _queries_kernel(
    q_start, k_start, v_start, g_start, delta, level, places, lengths, shifts, valid, dq, pulls, by_image,
    K, images, scale, square,
    H: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, TILE: tl.constexpr, CLOSE: tl.constexpr,
):  # fmt: skip
    sh = tl.program_id(1).to(tl.int64)
    s = sh // H
    n = tl.load(lengths + s)
    i = tl.program_id(0) * TILE + tl.arange(0, TILE)
    near_i = i < n
    xi, yi, zi = _place(places, s, i, K, n)
    q, g = _rows(q_start + sh * K * D, i, n, D, DP), _rows(g_start + sh * K * D, i, n, D, DP)
    less, height = (
        tl.load(delta + sh * K + i, mask=near_i, other=0.0),
        tl.load(level + sh * K + i, mask=near_i, other=0.0),
    )
    found = tl.zeros((TILE, DP), tl.float32)
    px, py, pz = tl.zeros((TILE,), tl.float32), tl.zeros((TILE,), tl.float32), tl.zeros((TILE,), tl.float32)
    mine = by_image + (sh * tl.num_programs(0) + tl.program_id(0)) * images * 3
    for first in range(0, n, TILE):
        j = first + tl.arange(0, TILE)
        near_j = j < n
        xj, yj, zj = _place(places, s, j, K, n)
        weights = _weights(shifts, valid, s, images, xi, yi, zi, xj, yj, zj, near_i, near_j, square, TILE, CLOSE)
        if tl.max(weights) > 0:
            k, v = _rows(k_start + sh * K * D, j, n, D, DP), _rows(v_start + sh * K * D, j, n, D, DP)
            logits = tl.dot(q, tl.trans(k), input_precision="ieee") * scale - height[:, None]
            bare = tl.where(weights > 0, tl.exp(tl.where(weights > 0, logits, 0.0)), 0.0)
            slope = bare * (tl.dot(g, tl.trans(v), input_precision="ieee") - less[:, None])
            found += tl.dot(slope * weights, k, input_precision="ieee") * scale
            ux, uy, uz = _pulls(
                slope,
                shifts,
                valid,
                s,
                images,
                xi,
                yi,
                zi,
                xj,
                yj,
                zj,
                near_i,
                near_j,
                square,
                mine,
                1,
                True,
                TILE,
                CLOSE,
            )
            px, py, pz = px - ux, py - uy, pz - uz
    _store(dq + sh * K * D, i, found, n, D, DP)
    _store_place(pulls + sh * K * 3, i, px, py, pz, n)


@triton.jit
def _keys_kernel(
    q_start, k_start, v_start, g_start, delta, level, places, lengths, shifts, valid, dk, dv, pulls,
    K, images, scale, square,
    H: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, TILE: tl.constexpr, CLOSE: tl.constexpr,
):  # fmt: skip
    sh = tl.program_id(1).to(tl.int64)
    s = sh // H
    n = tl.load(lengths + s)
    j = tl.program_id(0) * TILE + tl.arange(0, TILE)
    near_j = j < n
    xj, yj, zj = _place(places, s, j, K, n)
    k, v = _rows(k_start + sh * K * D, j, n, D, DP), _rows(v_start + sh * K * D, j, n, D, DP)
    by_k, by_v = tl.zeros((TILE, DP), tl.float32), tl.zeros((TILE, DP), tl.float32)
    px, py, pz = tl.zeros((TILE,), tl.float32), tl.zeros((TILE,), tl.float32), tl.zeros((TILE,), tl.float32)
    for first in range(0, n, TILE):
        i = first + tl.arange(0, TILE)
        near_i = i < n
        xi, yi, zi = _place(places, s, i, K, n)
        weights = _weights(shifts, valid, s, images, xi, yi, zi, xj, yj, zj, near_i, near_j, square, TILE, CLOSE)
        if tl.max(weights) > 0:
            q, g = _rows(q_start + sh * K * D, i, n, D, DP), _rows(g_start + sh * K * D, i, n, D, DP)
            less = tl.load(delta + sh * K + i, mask=near_i, other=0.0)
            height = tl.load(level + sh * K + i, mask=near_i, other=0.0)
            logits = tl.dot(q, tl.trans(k), input_precision="ieee") * scale - height[:, None]
            bare = tl.where(weights > 0, tl.exp(tl.where(weights > 0, logits, 0.0)), 0.0)
            slope = bare * (tl.dot(g, tl.trans(v), input_precision="ieee") - less[:, None])
            by_v += tl.dot(tl.trans(bare * weights), g, input_precision="ieee")
            by_k += tl.dot(tl.trans(slope * weights), q, input_precision="ieee") * scale
            ux, uy, uz = _pulls(
                slope,
                shifts,
                valid,
                s,
                images,
                xi,
                yi,
                zi,
                xj,
                yj,
                zj,
                near_i,
                near_j,
                square,
                places,
                0,
                False,
                TILE,
                CLOSE,
            )
            px, py, pz = px + ux, py + uy, pz + uz
    _store(dk + sh * K * D, j, by_k, n, D, DP)
    _store(dv + sh * K * D, j, by_v, n, D, DP)
    _store_place(pulls + sh * K * 3, j, px, py, pz, n)


# --- operator ---------------------------------------------------------------------------------------------------------


class Crowd(NamedTuple):
    """Which atoms there are, and which of their images matter."""

    lengths: Tensor  # (S,)  int64, atoms of each structure: they come before the padding
    images: Images
    reach: float  # R, Å


def fading_attention(
    q: Tensor, k: Tensor, v: Tensor, bottom: Tensor, places: Tensor, cell: Tensor, crowd: Crowd
) -> Tensor:
    """The attention above: (S, H, K, D) each and out, float32; bottom (H,) is c; places (S, K, 3) and cell in float64.

    Differentiable once. What stands in padding is zero.
    """
    shifts = crowd.images.counts.to(cell.dtype) @ cell  # (S, I, 3)
    found: Tensor = _Attention.apply(q, k, v, bottom, places, shifts, crowd)
    return found


class _Attention(torch.autograd.Function):
    """All three kernels."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, bottom: Tensor, places: Tensor, shifts: Tensor, crowd: Crowd
    ) -> Tensor:
        q, k, v, bottom, places, shifts = (t.contiguous() for t in (q, k, v, bottom, places, shifts))
        S, H, K, D = q.shape
        out, level = torch.zeros_like(q), q.new_zeros(S, H, K)
        given = (places, crowd.lengths, shifts, crowd.images.valid.contiguous())
        sizes = (K, shifts.shape[1], 1 / math.sqrt(D), crowd.reach**2)
        fixed = {"H": H, "D": D, "DP": max(16, triton.next_power_of_2(D)), "TILE": TILE, "CLOSE": CLOSE}
        grid = (triton.cdiv(K, TILE), S * H)
        _forward_kernel[grid](q, k, v, bottom, *given, out, level, *sizes, **fixed, FAR=FAR, num_warps=WARPS)
        ctx.save_for_backward(q, k, v, bottom, out, level, *given)
        ctx.launch = grid, sizes, fixed
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        q, k, v, bottom, out, level, *given = ctx.saved_tensors
        grid, sizes, fixed = ctx.launch
        g = grads[0].contiguous()
        delta = (g * out).sum(3)  # (S, H, K)
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        S, H, K, _ = q.shape
        pulls = q.new_zeros(2, S, H, K, 3)
        by_image = q.new_zeros(S, H, grid[0], sizes[1], 3)
        seen = (q, k, v, g, delta, level, *given)
        _queries_kernel[grid](*seen, dq, pulls[0], by_image, *sizes, **fixed, num_warps=WARPS)
        _keys_kernel[grid](*seen, dk, dv, pulls[1], *sizes, **fixed, num_warps=WARPS)
        by_bottom = -(torch.exp(bottom.view(1, -1, 1) - level) * delta).sum((0, 2))
        double = given[0].dtype
        return dq, dk, dv, by_bottom, pulls.to(double).sum((0, 2)), by_image.to(double).sum((1, 2)), None
