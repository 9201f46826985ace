"""Rows that no program can hold: an outer transform through memory around the one of `triton_fused`, in three passes.

n = n1 M + n2, k = k1 + N1 k2. `outer_fwd_kernel` transforms over n1 (real to complex), `inner_*_kernel` convolves over n2
for each k1 (plain transforms of M points), `outer_inv_kernel` transforms back over k1 (complex to real). What goes between
them is packed float16, 4 bytes per sample. A tile of columns n2 has its own power-of-two scale: the inner kernel brings a
row's tiles to one.
"""

# Triton's decorators hide from type checkers how kernels are launched and what they return.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false
# pyright: reportAssignmentType=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.conv_fft.triton_fused import (
    load,
    load_table,
    pack,
    power_of_two,
    save,
    times,
    times_conjugate,
    times_conjugate_matrix,
    times_matrix,
    unpack,
)


@triton.jit(do_not_specialize=["WHICH", "first_channel", "capacity", "ROWS"])
def outer_fwd_kernel(
    U, PRE, Z, Z_SCALE, F1R, F1I, T, FIRST, SHIFT, LENGTH, COUNT, WHICH, row_length, first_channel, N1, capacity, ROWS,
    M: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, BN: tl.constexpr, ONE_BLOCK: tl.constexpr,
    HAS_PRE: tl.constexpr, ALIGN: tl.constexpr, ALIGN_END: tl.constexpr,
):  # fmt: skip
    """Grid (M / BN * ceil(N1 / BM), channels, splits): Z (channels, rows, N1, M) packed, Z_SCALE (channels, rows, M / BN).

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
        ar, ai = times(ar, ai, tl.load(p_twiddle, mask=in_k1, other=0))
        where = i_c * capacity + (r - begin)
        tl.store(Z + where * N1 * M + k1[:, None] * M + n2[None, :], pack(ar, ai), mask=in_k1)
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


@triton.jit
def _column_scale(
    p_scale, rows, valid, i_r, NB: tl.constexpr, P: tl.constexpr, NA: tl.constexpr, M: tl.constexpr, BN: tl.constexpr
):
    """Of each place of the tile: the scale of its columns over its data row's largest, (P NA, 1 or NB).

    The largest, (P NA, 1).
    """
    tiles: tl.constexpr = M // BN
    row = i_r + rows // NA
    every = tl.arange(0, tiles)
    there = row[:, None] < valid
    p_row = p_scale + row[:, None] * tiles
    largest = tl.max(tl.load(p_row + every[None, :], mask=there, other=1.0), axis=1, keep_dims=True)
    if BN % NB == 0:
        mine = tl.load(p_row + ((rows % NA) * NB // BN)[:, None], mask=there, other=1.0)
    else:
        column = (rows % NA)[:, None] * NB + tl.arange(0, NB)[None, :]
        mine = tl.load(p_row + column // BN, mask=there, other=1.0)
    return mine / largest, largest


@triton.jit(do_not_specialize=["WHICH", "first_channel", "capacity"])
def inner_fwd_kernel(
    Z, Z_SCALE, K, K_INVERSE, FR, FI, F2R, F2I, T, COUNT, WHICH, first_channel, N1, capacity,
    NA: tl.constexpr, NB: tl.constexpr, C2: tl.constexpr, P: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Grid (N1, channels, splits): in place, each Z[channel, row, k1] convolved with the filter's spectrum."""
    BM: tl.constexpr = P * NA
    M: tl.constexpr = NA * NB
    i_k = tl.program_id(0)
    i_c = tl.program_id(1).to(tl.int64)
    rows = tl.arange(0, BM)
    matrix = rows[:, None] * BM + rows[None, :]
    fr = tl.load(FR + matrix)
    fi = tl.load(FI + matrix)
    nb = tl.arange(0, NB)
    c2 = tl.arange(0, C2)
    f2r = tl.load(F2R + nb[:, None] * C2 + c2[None, :])
    f2i = tl.load(F2I + nb[:, None] * C2 + c2[None, :])
    a = (rows % NA)[:, None]
    p_filter = K + ((i_c + first_channel) * N1 + i_k) * (NA * C2) + a * C2 + c2[None, :]
    p_twiddle = T + a * NB + nb[None, :]
    k_inverse = tl.load(K_INVERSE + i_c + first_channel)
    count = tl.load(COUNT + WHICH + 1) - tl.load(COUNT + WHICH)
    p_scale = Z_SCALE + i_c * capacity * (M // BN)
    for r in range(tl.program_id(2) * P, count, tl.num_programs(2) * P):
        row = r + rows // NA
        there = row[:, None] < count
        p_z = Z + ((i_c * capacity + row[:, None]) * N1 + i_k) * M + a * NB + nb[None, :]
        ratio, _ = _column_scale(p_scale, rows, count, r, NB, P, NA, M, BN)
        zr, zi = unpack(tl.load(p_z, mask=there, other=0))
        zr = (zr.to(tl.float32) * ratio).to(tl.float16)
        zi = (zi.to(tl.float32) * ratio).to(tl.float16)
        zr, zi = _spectrum(zr, zi, fr, fi, p_twiddle, f2r, f2i, 0)
        zr, zi = times(zr, zi, tl.load(p_filter))
        zr *= k_inverse
        zi *= k_inverse
        zr, zi = _columns(zr, zi, fr, fi, p_twiddle, f2r, f2i)
        tl.store(p_z, pack(zr, zi), mask=there)


@triton.jit
def _spectrum(zr, zi, fr, fi, p_twiddle, f2r, f2i, TIME: tl.constexpr):
    """The plain transform of M complex points: (P NA, NB) to (P NA, C2)."""
    ar = tl.dot(fr, zr)
    ai = tl.dot(fi, zr)
    ar = tl.dot(fi, -zi, ar)
    ai = tl.dot(fr, zi, ai)
    ar, ai = times(ar, ai, load_table(p_twiddle, TIME))
    return times_matrix(ar, ai, f2r, f2i)


@triton.jit
def _columns(zr, zi, fr, fi, p_twiddle, f2r, f2i):
    """The inverse of `_spectrum`."""
    er, ei = times_conjugate_matrix(zr, zi, tl.trans(f2r), tl.trans(f2i))
    er, ei = times_conjugate(er, ei, load_table(p_twiddle, 2))
    er = er.to(tl.float16)
    ei = ei.to(tl.float16)
    yr = tl.dot(fr, er)
    yi = tl.dot(fr, ei)
    yr = tl.dot(fi, ei, yr)
    yi = tl.dot(fi, -er, yi)
    return yr, yi


@triton.jit(do_not_specialize=["WHICH", "first_channel", "capacity"])
def inner_bwd_kernel(
    ZX, ZX_SCALE, ZG, ZG_SCALE, DK, DK_SCALE, K, K_INVERSE, FR, FI, F2R, F2I, T, COUNT, WHICH, first_channel, N1, capacity,
    NA: tl.constexpr, NB: tl.constexpr, C2: tl.constexpr, P: tl.constexpr, BN: tl.constexpr,
    NEEDS_Y: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    """Grid (N1, channels): ZG becomes the input's gradient, ZX (NEEDS_Y) the output again; DK the spectrum's gradient.

    DK is (channels, N1, P NA, C2, 2) float32; with TAPS it is transformed back over k2 already: (channels, N1, M) packed, over
    DK_SCALE (channels, N1).
    """
    BM: tl.constexpr = P * NA
    M: tl.constexpr = NA * NB
    i_k = tl.program_id(0)
    i_c = tl.program_id(1).to(tl.int64)
    rows = tl.arange(0, BM)
    matrix = rows[:, None] * BM + rows[None, :]
    fr = tl.load(FR + matrix)
    fi = tl.load(FI + matrix)
    nb = tl.arange(0, NB)
    c2 = tl.arange(0, C2)
    f2r = tl.load(F2R + nb[:, None] * C2 + c2[None, :])
    f2i = tl.load(F2I + nb[:, None] * C2 + c2[None, :])
    a = (rows % NA)[:, None]
    p_filter = K + ((i_c + first_channel) * N1 + i_k) * (NA * C2) + a * C2 + c2[None, :]
    p_twiddle = T + a * NB + nb[None, :]
    k_inverse = tl.load(K_INVERSE + i_c + first_channel)
    count = tl.load(COUNT + WHICH + 1) - tl.load(COUNT + WHICH)
    scales = i_c * capacity * (M // BN)
    sum_r = tl.zeros((BM, C2), tl.float32)
    sum_i = tl.zeros((BM, C2), tl.float32)
    for r in range(0, count, P):
        row = r + rows // NA
        there = row[:, None] < count
        offset = ((i_c * capacity + row[:, None]) * N1 + i_k) * M + a * NB + nb[None, :]
        ratio, x_scale = _column_scale(ZX_SCALE + scales, rows, count, r, NB, P, NA, M, BN)
        zr, zi = unpack(tl.load(ZX + offset, mask=there, other=0))
        zr = (zr.to(tl.float32) * ratio).to(tl.float16)
        zi = (zi.to(tl.float32) * ratio).to(tl.float16)
        xr, xi = _spectrum(zr, zi, fr, fi, p_twiddle, f2r, f2i, 0)
        spectrum = pack(xr, xi)
        ratio, g_scale = _column_scale(ZG_SCALE + scales, rows, count, r, NB, P, NA, M, BN)
        zr, zi = unpack(tl.load(ZG + offset, mask=there, other=0))
        zr = (zr.to(tl.float32) * ratio).to(tl.float16)
        zi = (zi.to(tl.float32) * ratio).to(tl.float16)
        gr, gi = _spectrum(zr, zi, fr, fi, p_twiddle, f2r, f2i, 1)
        pr, pi = times_conjugate(gr, gi, spectrum)
        sum_r += pr * (x_scale * g_scale)
        sum_i += pi * (x_scale * g_scale)
        zr, zi = times_conjugate(gr, gi, load_table(p_filter, 0))
        zr *= k_inverse
        zi *= k_inverse
        zr, zi = _columns(zr, zi, fr, fi, p_twiddle, f2r, f2i)
        tl.store(ZG + offset, pack(zr, zi), mask=there)
        if NEEDS_Y:
            xr, xi = unpack(spectrum)
            zr, zi = times(xr.to(tl.float32), xi.to(tl.float32), load_table(p_filter, 1))
            zr *= k_inverse
            zi *= k_inverse
            zr, zi = _columns(zr, zi, fr, fi, p_twiddle, f2r, f2i)
            tl.store(ZX + offset, pack(zr, zi), mask=there)
    if TAPS:
        sum_r = _every_row(sum_r, P, NA, C2)
        sum_i = _every_row(sum_i, P, NA, C2)
        largest = tl.maximum(tl.max(tl.abs(sum_r), axis=1), tl.max(tl.abs(sum_i), axis=1))
        scale, inverse = power_of_two(tl.max(largest, axis=0))
        zr, zi = _columns(sum_r * inverse, sum_i * inverse, fr, fi, p_twiddle, f2r, f2i)
        where = (i_c + first_channel) * N1 + i_k
        tl.store(DK + where * M + a * NB + nb[None, :], pack(zr, zi), mask=rows[:, None] < NA)
        tl.store(DK_SCALE + where, scale)
    else:
        where = (i_c + first_channel) * N1 + i_k
        p_sum = DK + (where * (BM * C2) + rows[:, None] * C2 + c2[None, :]) * 2
        tl.store(p_sum, sum_r)
        tl.store(p_sum + 1, sum_i)


@triton.jit
def _every_row(x, P: tl.constexpr, NA: tl.constexpr, C2: tl.constexpr):
    """The sum over a tile's P data rows, in each of them: (P NA, C2)."""
    if P == 1:
        return x
    else:
        total = tl.sum(tl.reshape(x, (P, NA, C2)), axis=0, keep_dims=True)
        return tl.reshape(tl.broadcast_to(total, (P, NA, C2)), (P * NA, C2))


@triton.jit
def inner_filter_kernel(
    Z, Z_SCALE, K, K_LARGEST, FR, FI, F2R, F2I, T, COUNT, N1,
    NA: tl.constexpr, NB: tl.constexpr, C2: tl.constexpr, P: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Grid (N1, channels): a filter's taps after the outer transform to its spectrum K (channels, N1, NA, C2) packed.

    K is over the taps' scale; K_LARGEST (channels, N1) is its largest part. One data row, in the first of the tile's.
    """
    if tl.load(COUNT + 1) == 0:
        return  # no row is convolved with it
    BM: tl.constexpr = P * NA
    M: tl.constexpr = NA * NB
    i_k = tl.program_id(0)
    i_c = tl.program_id(1).to(tl.int64)
    rows = tl.arange(0, BM)
    matrix = rows[:, None] * BM + rows[None, :]
    nb = tl.arange(0, NB)
    c2 = tl.arange(0, C2)
    f2r = tl.load(F2R + nb[:, None] * C2 + c2[None, :])
    f2i = tl.load(F2I + nb[:, None] * C2 + c2[None, :])
    there = rows[:, None] < NA
    a = (rows % NA)[:, None]
    where = i_c * N1 + i_k
    ratio, _ = _column_scale(Z_SCALE + i_c * (M // BN), rows, 1, 0, NB, P, NA, M, BN)
    zr, zi = unpack(tl.load(Z + where * M + a * NB + nb[None, :], mask=there, other=0))
    zr = (zr.to(tl.float32) * ratio).to(tl.float16)
    zi = (zi.to(tl.float32) * ratio).to(tl.float16)
    xr, xi = _spectrum(zr, zi, tl.load(FR + matrix), tl.load(FI + matrix), T + a * NB + nb[None, :], f2r, f2i, 0)
    tl.store(K + where * (NA * C2) + a * C2 + c2[None, :], pack(xr, xi), mask=there)
    largest = tl.maximum(tl.max(tl.abs(xr), axis=1), tl.max(tl.abs(xi), axis=1))
    tl.store(K_LARGEST + where, tl.max(largest, axis=0))


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
            zr, zi = unpack(tl.load(Z + where * N1 * M + k1[:, None] * M + n2[None, :], mask=in_k1, other=0))
            twiddle = tl.load(T + k1[:, None].to(tl.int64) * M + n2[None, :], mask=in_k1, other=0)
            zr, zi = times_conjugate(zr.to(tl.float32), zi.to(tl.float32), twiddle)
            if SCALE_BY_K1:
                ratio = (tl.load(Z_SCALE + where * N1 + k1, mask=k1 < N1, other=0.0) / scale)[:, None]
                zr *= ratio
                zi *= ratio
            fr, fi = _matrix_block(F1R, F1I, k1, n1, N1)
            y = tl.dot(tl.trans(fr), zr.to(tl.float16), y)
            y = tl.dot(tl.trans(fi), zi.to(tl.float16), y)
        y *= scale * k_scale
        first = tl.multiple_of(tl.load(FIRST + r) + i_h * row_length, ALIGN)
        mask = (sample >= tl.multiple_of(tl.load(SHIFT + r), ALIGN_END)) & (
            sample < tl.multiple_of(tl.load(LENGTH + r), ALIGN_END)
        )
        if HAS_B:
            save(OUT_B, first + sample, mask, y * load(B, first + sample, mask, False), False, TYPE)
        if HAS_A:
            y *= load(A, first + sample, mask, False)
        save(OUT_A, first + sample, mask, y, False, TYPE)
