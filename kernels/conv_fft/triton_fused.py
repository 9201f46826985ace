"""One program per row, or several: the whole right-angle transform, its product with the filter and the way back, on chip.

The rows of a tile are `P` rows of data by N1 (P N1 = 64 or 128), block-diagonal in the first factor, so that every product has a
tensor-core tile's height. float16 operands, float32 sums. Each row is scaled by a power of two to a largest value in [1, 2).
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.triton_support import narrow


@triton.jit
def unpack(z):
    """Real and imaginary part (float16) of complex numbers packed in int32."""
    real = (z & 0xFFFF).to(tl.int16).to(tl.float16, bitcast=True)
    imaginary = (z >> 16).to(tl.int16).to(tl.float16, bitcast=True)
    return real, imaginary


@triton.jit
def pack(real, imaginary):
    low = real.to(tl.float16).to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF
    high = imaginary.to(tl.float16).to(tl.int16, bitcast=True).to(tl.int32) << 16
    return low | high


@triton.jit
def times(ar, ai, packed):
    """(ar + i ai) times packed complex numbers, in float32."""
    br, bi = unpack(packed)
    br = br.to(tl.float32)
    bi = bi.to(tl.float32)
    return ar * br - ai * bi, ar * bi + ai * br


@triton.jit
def times_conjugate(ar, ai, packed):
    """(ar + i ai) times the conjugate of packed complex numbers, in float32."""
    br, bi = unpack(packed)
    br = br.to(tl.float32)
    bi = bi.to(tl.float32)
    return ar * br + ai * bi, ai * br - ar * bi


@triton.jit
def times_matrix(ar, ai, fr, fi):
    """(ar + i ai) @ (fr + i fi): float16 operands, float32 sums."""
    ar = ar.to(tl.float16)
    ai = ai.to(tl.float16)
    cr = tl.dot(ar, fr)
    ci = tl.dot(ar, fi)
    cr = tl.dot(-ai, fi, cr)
    ci = tl.dot(ai, fr, ci)
    return cr, ci


@triton.jit
def times_conjugate_matrix(ar, ai, fr, fi):
    """(ar + i ai) @ (fr - i fi): float16 operands, float32 sums."""
    ar = ar.to(tl.float16)
    ai = ai.to(tl.float16)
    cr = tl.dot(ar, fr)
    ci = tl.dot(ai, fr)
    cr = tl.dot(ai, fi, cr)
    ci = tl.dot(-ar, fi, ci)
    return cr, ci


@triton.jit
def power_of_two(largest):
    """The power of two in (largest / 2, largest], and its inverse: exact to multiply by. 2^-126 for zero, capped at 2^126."""
    bits = largest.to(tl.int32, bitcast=True) & 0x7F800000
    bits = tl.minimum(tl.maximum(bits, 1 << 23), 253 << 23)
    return bits.to(tl.float32, bitcast=True), ((254 << 23) - bits).to(tl.float32, bitcast=True)


@triton.jit
def row_scale(x, P: tl.constexpr, N1: tl.constexpr):
    """For each of the P rows of data in the tile x (P N1, N2): scale and inverse, each (P N1, 1)."""
    largest = tl.max(tl.abs(x), axis=1)
    if P == 1:
        scale, inverse = power_of_two(tl.max(largest, axis=0))
        return tl.full((N1, 1), 1.0, tl.float32) * scale, tl.full((N1, 1), 1.0, tl.float32) * inverse
    else:
        largest = tl.max(tl.reshape(largest, (P, N1)), axis=1, keep_dims=True)
        scale, inverse = power_of_two(tl.broadcast_to(largest, (P, N1)))
        return tl.reshape(scale, (P * N1, 1)), tl.reshape(inverse, (P * N1, 1))


@triton.jit
def load(pointer, offset, mask, FULL: tl.constexpr):
    if FULL:
        return tl.load(pointer + offset).to(tl.float32)
    else:
        return tl.load(pointer + offset, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def save(pointer, offset, mask, value, FULL: tl.constexpr, TYPE: tl.constexpr):
    if FULL:
        tl.store(pointer + offset, narrow(value, TYPE))
    else:
        tl.store(pointer + offset, narrow(value, TYPE), mask=mask)


@triton.jit
def spectrum_of(x, f1r, f1i, twiddle, f2r, f2i):
    """The right-angle transform of real float16 rows: (P N1, N2) to (P N1, C2), float32 real and imaginary parts."""
    ar, ai = times(tl.dot(f1r, x), tl.dot(f1i, x), twiddle)
    return times_matrix(ar, ai, f2r, f2i)


@triton.jit
def samples_of(zr, zi, g1r, g1i, twiddle, f2r, f2i):
    """The real part of the inverse transform: (P N1, C2) to (P N1, N2), float32."""
    er, ei = times_conjugate_matrix(zr, zi, f2r, f2i)
    er, ei = times_conjugate(er, ei, twiddle)
    return tl.dot(g1i, ei.to(tl.float16), tl.dot(g1r, er.to(tl.float16)))


@triton.jit
def fused_fwd_kernel(
    U, PRE, POST, Y, K, K_SCALE, F1R, F1I, G1R, G1I, F2R, F2I, T, FIRST, LENGTH, COUNT, WHICH, row_length,
    N1: tl.constexpr, N2: tl.constexpr, C2: tl.constexpr, P: tl.constexpr, SPLIT: tl.constexpr,
    HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, FULL: tl.constexpr, ALIGN: tl.constexpr, TYPE: tl.constexpr,
    HOIST: tl.constexpr,
):  # fmt: skip
    """Grid (SPLIT, channels). Rows COUNT[WHICH] ... COUNT[WHICH + 1] of the table FIRST, LENGTH, P at a time."""
    i_s = tl.program_id(0)
    i_h = tl.program_id(1).to(tl.int64)
    begin = tl.load(COUNT + WHICH)
    end = tl.load(COUNT + WHICH + 1)
    if begin + i_s * P >= end:
        return
    BM: tl.constexpr = P * N1
    rows = tl.arange(0, BM)
    matrix = rows[:, None] * BM + rows[None, :]
    f1r = tl.load(F1R + matrix)
    f1i = tl.load(F1I + matrix)
    g1r = tl.load(G1R + matrix)
    g1i = tl.load(G1I + matrix)
    n2 = tl.arange(0, N2)
    c2 = tl.arange(0, C2)
    f2r = tl.load(F2R + n2[:, None] * C2 + c2[None, :])
    f2i = tl.load(F2I + n2[:, None] * C2 + c2[None, :])
    p_twiddle = T + (rows % N1)[:, None] * N2 + n2[None, :]
    p_filter = K + i_h * (N1 * C2) + (rows % N1)[:, None] * C2 + c2[None, :]
    k_scale = tl.load(K_SCALE + i_h)
    if HOIST:
        twiddle = tl.load(p_twiddle)
        filter = tl.load(p_filter)
    sample = (rows % N1)[:, None] * N2 + n2[None, :]
    for r in range(begin + i_s * P, end, SPLIT * P):
        if P == 1:
            first = tl.multiple_of(tl.load(FIRST + r) + i_h * row_length, ALIGN)
            mask = sample < tl.load(LENGTH + r)
        else:
            row = r + rows // N1
            there = row < end
            first = tl.multiple_of(tl.load(FIRST + row, mask=there, other=0) + i_h * row_length, ALIGN)[:, None]
            mask = sample < tl.load(LENGTH + row, mask=there, other=0)[:, None]
        offset = first + sample
        x = load(U, offset, mask, FULL)
        if HAS_PRE:
            x *= load(PRE, offset, mask, FULL)
        scale, inverse = row_scale(x, P, N1)
        if not HOIST:
            twiddle = tl.load(p_twiddle)
            filter = tl.load(p_filter)
        xr, xi = spectrum_of((x * inverse).to(tl.float16), f1r, f1i, twiddle, f2r, f2i)
        zr, zi = times(xr, xi, filter)
        if not HOIST:
            twiddle = tl.load(p_twiddle)
        y = samples_of(zr, zi, g1r, g1i, twiddle, tl.trans(f2r), tl.trans(f2i)) * (scale * k_scale)
        if HAS_POST:
            y *= load(POST, offset, mask, FULL)
        save(Y, offset, mask, y, FULL, TYPE)


@triton.jit
def fused_bwd_kernel(
    DY, U, PRE, POST, DU, DPRE, DPOST, DK, K, K_SCALE, F1R, F1I, G1R, G1I, F2R, F2I, T, FIRST, LENGTH, COUNT, WHICH,
    row_length,
    N1: tl.constexpr, N2: tl.constexpr, C2: tl.constexpr, P: tl.constexpr, SPLIT: tl.constexpr,
    HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, FULL: tl.constexpr, ALIGN: tl.constexpr, TYPE: tl.constexpr,
    HOIST: tl.constexpr,
):  # fmt: skip
    """Gradients; the transform of the input is computed again. DK (SPLIT, channels, P N1, C2, 2): sums over a program's rows."""
    i_s = tl.program_id(0)
    i_h = tl.program_id(1).to(tl.int64)
    BM: tl.constexpr = P * N1
    rows = tl.arange(0, BM)
    matrix = rows[:, None] * BM + rows[None, :]
    f1r = tl.load(F1R + matrix)
    f1i = tl.load(F1I + matrix)
    g1r = tl.load(G1R + matrix)
    g1i = tl.load(G1I + matrix)
    n2 = tl.arange(0, N2)
    c2 = tl.arange(0, C2)
    f2r = tl.load(F2R + n2[:, None] * C2 + c2[None, :])
    f2i = tl.load(F2I + n2[:, None] * C2 + c2[None, :])
    p_twiddle = T + (rows % N1)[:, None] * N2 + n2[None, :]
    p_filter = K + i_h * (N1 * C2) + (rows % N1)[:, None] * C2 + c2[None, :]
    k_scale = tl.load(K_SCALE + i_h)
    if HOIST:
        twiddle = tl.load(p_twiddle)
    sample = (rows % N1)[:, None] * N2 + n2[None, :]
    begin = tl.load(COUNT + WHICH)
    end = tl.load(COUNT + WHICH + 1)
    sum_r = tl.zeros((BM, C2), tl.float32)
    sum_i = tl.zeros((BM, C2), tl.float32)
    for r in range(begin + i_s * P, end, SPLIT * P):
        if P == 1:
            first = tl.multiple_of(tl.load(FIRST + r) + i_h * row_length, ALIGN)
            mask = sample < tl.load(LENGTH + r)
        else:
            row = r + rows // N1
            there = row < end
            first = tl.multiple_of(tl.load(FIRST + row, mask=there, other=0) + i_h * row_length, ALIGN)[:, None]
            mask = sample < tl.load(LENGTH + row, mask=there, other=0)[:, None]
        offset = first + sample
        x = load(U, offset, mask, FULL)
        if HAS_PRE:
            x *= load(PRE, offset, mask, FULL)
        x_scale, inverse = row_scale(x, P, N1)
        if not HOIST:
            twiddle = tl.load(p_twiddle)
        xr, xi = spectrum_of((x * inverse).to(tl.float16), f1r, f1i, twiddle, f2r, f2i)
        spectrum = pack(xr, xi)
        g = load(DY, offset, mask, FULL)
        if HAS_POST:
            g *= load(POST, offset, mask, FULL)
        g_scale, inverse = row_scale(g, P, N1)
        gr, gi = spectrum_of((g * inverse).to(tl.float16), f1r, f1i, twiddle, f2r, f2i)
        pr, pi = times_conjugate(gr, gi, spectrum)
        sum_r += pr * (x_scale * g_scale)
        sum_i += pi * (x_scale * g_scale)
        filter = tl.load(p_filter)
        zr, zi = times_conjugate(gr, gi, filter)
        dx = samples_of(zr, zi, g1r, g1i, twiddle, tl.trans(f2r), tl.trans(f2i)) * (g_scale * k_scale)
        if HAS_PRE:
            save(DPRE, offset, mask, dx * load(U, offset, mask, FULL), FULL, TYPE)
            dx *= load(PRE, offset, mask, FULL)
        save(DU, offset, mask, dx, FULL, TYPE)
        if HAS_POST:
            xr, xi = unpack(spectrum)
            zr, zi = times(xr.to(tl.float32), xi.to(tl.float32), filter)
            y = samples_of(zr, zi, g1r, g1i, twiddle, tl.trans(f2r), tl.trans(f2i)) * (x_scale * k_scale)
            save(DPOST, offset, mask, y * load(DY, offset, mask, FULL), FULL, TYPE)
    p_sum = DK + ((i_s * tl.num_programs(1) + i_h) * (BM * C2) + rows[:, None] * C2 + c2[None, :]) * 2
    tl.store(p_sum, sum_r)
    tl.store(p_sum + 1, sum_i)
