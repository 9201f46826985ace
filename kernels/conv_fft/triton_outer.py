"""The outer transform of long rows when it has many points: in two factors itself, so that it costs no more than its traffic.

n1 = a NB + b, k1 = ka + NA kb, as in `kernels.conv_fft.transforms`; a tile is all n1 of BC neighbouring columns n2. The
twiddles between the outer and the inner transform lie as (NA, M, NB) here, in the order in which this tile has them.
"""

# Triton's decorators hide from type checkers how kernels are launched.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.conv_fft.triton_complex import pack, power_of_two, times, times_conjugate, unpack
from kernels.conv_fft.triton_fused import load, save


@triton.jit
def _times_matrix(ar, ai, fr, fi):
    """(ar + i ai) @ (fr + i fi): float16 operands, float32 sums."""
    ar = ar.to(tl.float16)
    ai = ai.to(tl.float16)
    cr = tl.dot(ar, fr)
    ci = tl.dot(ar, fi)
    cr = tl.dot(-ai, fi, cr)
    ci = tl.dot(ai, fr, ci)
    return cr, ci


@triton.jit
def _times_conjugate_matrix(ar, ai, fr, fi):
    """(ar + i ai) @ (fr - i fi): float16 operands, float32 sums."""
    ar = ar.to(tl.float16)
    ai = ai.to(tl.float16)
    cr = tl.dot(ar, fr)
    ci = tl.dot(ai, fr)
    cr = tl.dot(ai, fi, cr)
    ci = tl.dot(-ar, fi, ci)
    return cr, ci


@triton.jit
def _columns_last(x, NA: tl.constexpr, NB: tl.constexpr, BC: tl.constexpr):
    """(NA, NB BC) to (NA BC, NB)."""
    return tl.reshape(tl.permute(tl.reshape(x, (NA, NB, BC)), (0, 2, 1)), (NA * BC, NB))


@triton.jit
def _matrices(F1R, F1I, F2R, F2I, NA: tl.constexpr, NB: tl.constexpr):
    a = tl.arange(0, NA)
    b = tl.arange(0, NB)
    first = a[:, None] * NA + a[None, :]
    second = b[:, None] * NB + b[None, :]
    return tl.load(F1R + first), tl.load(F1I + first), tl.load(F2R + second), tl.load(F2I + second)


@triton.jit
def gated_row(
    U, PRE, sample, FIRST, SHIFT, LENGTH, r, offset, HAS_PRE: tl.constexpr, ALIGN: tl.constexpr, ALIGN_END: tl.constexpr
):  # fmt: skip
    """Gated samples of row r."""
    first = tl.multiple_of(tl.load(FIRST + r) + offset, ALIGN)
    length = tl.multiple_of(tl.load(LENGTH + r), ALIGN_END)
    mask = (sample >= tl.multiple_of(tl.load(SHIFT + r), ALIGN_END)) & (sample < length)
    x = load(U, first + sample, mask, False)
    if HAS_PRE:
        x *= load(PRE, first + sample, mask, False)
    return x


@triton.jit
def save_row(
    y, A, OUT_A, B, OUT_B, sample, FIRST, SHIFT, LENGTH, r, offset, HAS_A: tl.constexpr, HAS_B: tl.constexpr,
    ALIGN: tl.constexpr, ALIGN_END: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Store samples y of row r: times A in OUT_A and, where there is a B, times B in OUT_B."""
    first = tl.multiple_of(tl.load(FIRST + r) + offset, ALIGN)
    mask = (sample >= tl.multiple_of(tl.load(SHIFT + r), ALIGN_END)) & (sample < tl.multiple_of(tl.load(LENGTH + r), ALIGN_END))
    if HAS_B:
        save(OUT_B, first + sample, mask, y * load(B, first + sample, mask, False), False, TYPE)
    if HAS_A:
        y *= load(A, first + sample, mask, False)
    save(OUT_A, first + sample, mask, y, False, TYPE)


@triton.jit(do_not_specialize=["WHICH", "first_channel", "capacity", "ROWS"])
def outer_two_fwd_kernel(
    U, PRE, Z, Z_SCALE, F1R, F1I, F2R, F2I, T1, T, FIRST, SHIFT, LENGTH, COUNT, WHICH, row_length,
    first_channel, capacity, ROWS,
    M: tl.constexpr, NA: tl.constexpr, NB: tl.constexpr, BC: tl.constexpr,
    HAS_PRE: tl.constexpr, ALIGN: tl.constexpr, ALIGN_END: tl.constexpr,
):  # fmt: skip
    """Grid (M / BC, channels, splits): Z (channels, rows, NA NB, M / 16, 2, 16), Z_SCALE (channels, rows, M / BC)."""
    tiles: tl.constexpr = M // BC
    i_n = tl.program_id(0)
    i_c = tl.program_id(1).to(tl.int64)
    i_h = i_c + first_channel
    f1r, f1i, f2r, f2i = _matrices(F1R, F1I, F2R, F2I, NA, NB)
    a = tl.arange(0, NA)
    bc = tl.arange(0, NB * BC)
    sample = (a[:, None] * NB + bc[None, :] // BC) * M + i_n * BC + bc[None, :] % BC
    p_between = T1 + a[:, None] * NB + bc[None, :] // BC
    ac = tl.arange(0, NA * BC)
    p_twiddle = T + ((ac // BC) * M + i_n * BC + ac % BC)[:, None] * NB + tl.arange(0, NB)[None, :]
    column = i_n * BC + tl.arange(0, BC)
    out = tl.arange(0, NA * NB)[:, None] * (2 * M) + (column // 16 * 32 + column % 16)[None, :]
    begin = tl.load(COUNT + WHICH)
    end = tl.load(COUNT + WHICH + 1)
    lo = begin + tl.program_id(2) * ROWS
    for r in range(lo, tl.minimum(lo + ROWS, end)):
        x = gated_row(U, PRE, sample, FIRST, SHIFT, LENGTH, r, i_h * row_length, HAS_PRE, ALIGN, ALIGN_END)
        scale, inverse = power_of_two(tl.max(tl.max(tl.abs(x), axis=1), axis=0))
        x = (x * inverse).to(tl.float16)
        ar = tl.dot(f1r, x)
        ai = tl.dot(f1i, x)
        ar, ai = times(ar, ai, tl.load(p_between), True)
        ar = _columns_last(ar.to(tl.float16), NA, NB, BC)
        ai = _columns_last(ai.to(tl.float16), NA, NB, BC)
        yr, yi = _times_matrix(ar, ai, f2r, f2i)
        yr, yi = times(yr, yi, tl.load(p_twiddle), True)
        z = tl.permute(tl.reshape(pack(yr, yi), (NA, BC, NB)), (2, 0, 1))
        where = i_c * capacity + (r - begin)
        zr, zi = unpack(tl.reshape(z, (NA * NB, BC)))
        tl.store(Z + where * (2 * NA * NB * M) + out, zr)
        tl.store(Z + where * (2 * NA * NB * M) + out + 16, zi)
        tl.store(Z_SCALE + where * tiles + i_n, scale)


@triton.jit(do_not_specialize=["WHICH", "first_channel", "capacity", "ROWS"])
def outer_two_inv_kernel(
    Z, Z_SCALE, K_SCALE, A, OUT_A, B, OUT_B, F1R, F1I, F2R, F2I, T1, T, FIRST, SHIFT, LENGTH, COUNT, WHICH, row_length,
    first_channel, capacity, ROWS,
    M: tl.constexpr, NA: tl.constexpr, NB: tl.constexpr, BC: tl.constexpr,
    HAS_A: tl.constexpr, HAS_B: tl.constexpr, SCALE_BY_K1: tl.constexpr,
    ALIGN: tl.constexpr, ALIGN_END: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Grid (M / BC, channels, splits): as `outer_inv_kernel` of `triton_long`."""
    tiles: tl.constexpr = M // BC
    N1: tl.constexpr = NA * NB
    i_n = tl.program_id(0)
    i_c = tl.program_id(1).to(tl.int64)
    i_h = i_c + first_channel
    f1r, f1i, f2r, f2i = _matrices(F1R, F1I, F2R, F2I, NA, NB)
    a = tl.arange(0, NA)
    bc = tl.arange(0, NB * BC)
    sample = (a[:, None] * NB + bc[None, :] // BC) * M + i_n * BC + bc[None, :] % BC
    ac = tl.arange(0, NA * BC)
    b = tl.arange(0, NB)
    p_between = T1 + (ac // BC)[:, None] * NB + b[None, :]
    p_twiddle = T + ((ac // BC) * M + i_n * BC + ac % BC)[:, None] * NB + b[None, :]
    column = i_n * BC + tl.arange(0, BC)
    source = tl.arange(0, N1)[:, None] * (2 * M) + (column // 16 * 32 + column % 16)[None, :]
    k_scale = tl.load(K_SCALE + i_h)
    begin = tl.load(COUNT + WHICH)
    end = tl.load(COUNT + WHICH + 1)
    lo = begin + tl.program_id(2) * ROWS
    for r in range(lo, tl.minimum(lo + ROWS, end)):
        where = i_c * capacity + (r - begin)
        p_z = Z + where * (2 * N1 * M) + source
        z = pack(tl.load(p_z), tl.load(p_z + 16))  # exchanged in words
        z = tl.permute(tl.reshape(z, (NB, NA, BC)), (1, 2, 0))
        zr, zi = unpack(tl.reshape(z, (NA * BC, NB)))
        zr, zi = times_conjugate(zr.to(tl.float32), zi.to(tl.float32), tl.load(p_twiddle), True)
        if SCALE_BY_K1:
            scale = tl.max(tl.load(Z_SCALE + where * N1 + tl.arange(0, N1)), axis=0)
            ratio = tl.load(Z_SCALE + where * N1 + b[None, :] * NA + (ac // BC)[:, None]) / scale
            zr *= ratio
            zi *= ratio
        else:
            scale = tl.max(tl.load(Z_SCALE + where * tiles + tl.arange(0, tiles)), axis=0)
        er, ei = _times_conjugate_matrix(zr, zi, f2r, f2i)
        er, ei = times_conjugate(er, ei, tl.load(p_between), True)
        er = tl.permute(tl.reshape(er.to(tl.float16), (NA, BC, NB)), (0, 2, 1))
        ei = tl.permute(tl.reshape(ei.to(tl.float16), (NA, BC, NB)), (0, 2, 1))
        y = tl.dot(tl.trans(f1r), tl.reshape(er, (NA, NB * BC)))
        y = tl.dot(tl.trans(f1i), tl.reshape(ei, (NA, NB * BC)), y) * (scale * k_scale)
        save_row(y, A, OUT_A, B, OUT_B, sample, FIRST, SHIFT, LENGTH, r, i_h * row_length, HAS_A, HAS_B, ALIGN, ALIGN_END, TYPE)
