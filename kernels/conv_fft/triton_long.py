"""Rows that no program can hold: an outer transform through memory around the one of `triton_inner`, in three passes.

n = n1 M + n2, k = k1 + N1 k2. `outer_fwd_kernel` transforms over n1 (real to complex), `inner_*_kernel` convolves over n2
for each k1 (plain transforms of M points), `outer_inv_kernel` transforms back over k1 (complex to real). What goes between
them, Z, is float16, 4 bytes per sample: see `triton_inner`.
"""

# Triton's decorators hide from type checkers how kernels are launched and what they return.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false
# pyright: reportAssignmentType=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.conv_fft.triton_complex import power_of_two, times, times_conjugate
from kernels.conv_fft.triton_fused import load
from kernels.conv_fft.triton_outer import save_row


@triton.jit(do_not_specialize=["WHICH", "first_channel", "capacity", "ROWS"])
def outer_fwd_kernel(
    U, PRE, Z, Z_SCALE, F1R, F1I, T, FIRST, SHIFT, LENGTH, COUNT, WHICH, row_length, first_channel, N1, capacity, ROWS,
    M: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, BN: tl.constexpr, ONE_BLOCK: tl.constexpr,
    HAS_PRE: tl.constexpr, ALIGN: tl.constexpr, ALIGN_END: tl.constexpr,
):  # fmt: skip
    """Grid (M / BN * ceil(N1 / BM), channels, splits): Z (channels, rows, N1, M / 16, 2, 16), Z_SCALE (channels, rows, M / BN).

    ONE_BLOCK: N1 <= BK. Otherwise sums are brought to each block's scale where it is larger, as far as the columns are read.
    """
    tiles: tl.constexpr = M // BN
    i_n = tl.program_id(0) % tiles
    i_m = tl.program_id(0) // tiles
    i_c = tl.program_id(1).to(tl.int64)
    i_h = i_c + first_channel
    n2 = i_n * BN + tl.arange(0, BN)
    k1 = i_m * BM + tl.arange(0, BM)
    in_k1 = k1[:, None] < N1
    p_twiddle = T + k1[:, None].to(tl.int64) * M + n2[None, :]
    begin = tl.load(COUNT + WHICH)
    end = tl.load(COUNT + WHICH + 1)
    lo = begin + tl.program_id(2) * ROWS
    for r in range(lo, tl.minimum(lo + ROWS, end)):
        first = tl.multiple_of(tl.load(FIRST + r) + i_h * row_length, ALIGN)
        shift = tl.multiple_of(tl.load(SHIFT + r), ALIGN_END)
        length = tl.multiple_of(tl.load(LENGTH + r), ALIGN_END)
        if ONE_BLOCK:
            x = _block(U, PRE, first, shift, length, 0, n2, M, BK, HAS_PRE)
            scale, inverse = power_of_two(tl.max(tl.max(tl.abs(x), axis=1), axis=0))
            x = (x * inverse).to(tl.float16)
            fr, fi = _matrix_block(F1R, F1I, k1, tl.arange(0, BK), N1)
            ar = tl.dot(fr, x)
            ai = tl.dot(fi, x)
        else:
            scale = tl.full((), 1.1754943508222875e-38, tl.float32)  # 2^-126, the smallest there is
            ar = tl.zeros((BM, BN), tl.float32)
            ai = tl.zeros((BM, BN), tl.float32)
            for n in range(0, N1, BK):
                x = _block(U, PRE, first, shift, length, n, n2, M, BK, HAS_PRE)
                larger, inverse = power_of_two(tl.maximum(scale, tl.max(tl.max(tl.abs(x), axis=1), axis=0)))
                ar *= scale * inverse
                ai *= scale * inverse
                scale = larger
                x = (x * inverse).to(tl.float16)
                fr, fi = _matrix_block(F1R, F1I, k1, n + tl.arange(0, BK), N1)
                ar = tl.dot(fr, x, ar)
                ai = tl.dot(fi, x, ai)
        ar, ai = times(ar, ai, tl.load(p_twiddle, mask=in_k1, other=0), True)
        where = i_c * capacity + (r - begin)
        p_z = Z + where * N1 * (2 * M) + k1[:, None] * (2 * M) + (n2 // 16 * 32 + n2 % 16)[None, :]
        tl.store(p_z, ar.to(tl.float16), mask=in_k1)
        tl.store(p_z + 16, ai.to(tl.float16), mask=in_k1)
        if i_m == 0:
            tl.store(Z_SCALE + where * tiles + i_n, scale)


@triton.jit
def _block(U, PRE, first, shift, length, n, n2, M: tl.constexpr, BK: tl.constexpr, HAS_PRE: tl.constexpr):
    """Gated samples of columns n2 from row n of a data row seen as (N1, M)."""
    sample = (n + tl.arange(0, BK))[:, None] * M + n2[None, :]
    mask = (sample >= shift) & (sample < length)
    x = load(U, first + sample, mask, False)
    if HAS_PRE:
        x *= load(PRE, first + sample, mask, False)
    return x


@triton.jit
def _matrix_block(F1R, F1I, k1, n1, N1):
    inside = (k1[:, None] < N1) & (n1[None, :] < N1)
    at = k1[:, None] * N1 + n1[None, :]
    return tl.load(F1R + at, mask=inside, other=0.0), tl.load(F1I + at, mask=inside, other=0.0)


@triton.jit(do_not_specialize=["WHICH", "first_channel", "capacity", "ROWS"])
def outer_inv_kernel(
    Z, Z_SCALE, K_SCALE, A, OUT_A, B, OUT_B, F1R, F1I, T, FIRST, SHIFT, LENGTH, COUNT, WHICH, row_length,
    first_channel, N1, capacity, ROWS,
    M: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, BN: tl.constexpr,
    HAS_A: tl.constexpr, HAS_B: tl.constexpr, SCALE_BY_K1: tl.constexpr,
    ALIGN: tl.constexpr, ALIGN_END: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Grid (M / BN * ceil(N1 / BM), channels, splits): OUT_A = y A (or y), and OUT_B = y B (HAS_B), y the real inverse of Z.

    Z_SCALE is by columns, (channels, rows, M / BN), of which the largest holds, or (SCALE_BY_K1) by k1, (channels, rows, N1).
    """
    tiles: tl.constexpr = M // BN
    i_n = tl.program_id(0) % tiles
    i_m = tl.program_id(0) // tiles
    i_c = tl.program_id(1).to(tl.int64)
    i_h = i_c + first_channel
    n2 = i_n * BN + tl.arange(0, BN)
    n1 = i_m * BM + tl.arange(0, BM)
    sample = n1[:, None] * M + n2[None, :]
    k_scale = tl.load(K_SCALE + i_h)
    begin = tl.load(COUNT + WHICH)
    end = tl.load(COUNT + WHICH + 1)
    lo = begin + tl.program_id(2) * ROWS
    for r in range(lo, tl.minimum(lo + ROWS, end)):
        where = i_c * capacity + (r - begin)
        if SCALE_BY_K1:
            largest = tl.zeros((BK,), tl.float32)
            for k in range(0, N1, BK):
                k1 = k + tl.arange(0, BK)
                largest = tl.maximum(largest, tl.load(Z_SCALE + where * N1 + k1, mask=k1 < N1, other=0.0))
            scale = tl.max(largest, axis=0)
        else:
            scale = tl.max(tl.load(Z_SCALE + where * tiles + tl.arange(0, tiles)), axis=0)
        y = tl.zeros((BM, BN), tl.float32)
        for k in range(0, N1, BK):
            k1 = k + tl.arange(0, BK)
            in_k1 = k1[:, None] < N1
            p_z = Z + where * N1 * (2 * M) + k1[:, None] * (2 * M) + (n2 // 16 * 32 + n2 % 16)[None, :]
            zr = tl.load(p_z, mask=in_k1, other=0.0)
            zi = tl.load(p_z + 16, mask=in_k1, other=0.0)
            twiddle = tl.load(T + k1[:, None].to(tl.int64) * M + n2[None, :], mask=in_k1, other=0)
            zr, zi = times_conjugate(zr.to(tl.float32), zi.to(tl.float32), twiddle, True)
            if SCALE_BY_K1:
                ratio = (tl.load(Z_SCALE + where * N1 + k1, mask=k1 < N1, other=0.0) / scale)[:, None]
                zr *= ratio
                zi *= ratio
            fr, fi = _matrix_block(F1R, F1I, k1, n1, N1)
            y = tl.dot(tl.trans(fr), zr.to(tl.float16), y)
            y = tl.dot(tl.trans(fi), zi.to(tl.float16), y)
        y *= scale * k_scale
        save_row(y, A, OUT_A, B, OUT_B, sample, FIRST, SHIFT, LENGTH, r, i_h * row_length, HAS_A, HAS_B, ALIGN, ALIGN_END, TYPE)
