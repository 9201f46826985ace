"""The outer transform of 256 points: sixteen by tensor cores, sixteen in each thread's registers, with nothing exchanged between.

n1 = a 16 + b, k1 = ka + NA kb, as in `kernels.conv_fft.transforms`; a tile is all n1 of BC neighbouring columns n2, and its rows
are taken eight ka at a time. Of the product over a, real parts and imaginary ones eight rows apart, a thread has all b of its
columns; so the transform over b is one of scalars, each of them a tensor (8, BC). The same the other way round: a thread loads
all kb of its columns.
"""

# Triton's decorators hide from type checkers how kernels are launched and what they return.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false
# ruff: noqa: E741

from __future__ import annotations

import triton
import triton.language as tl

from kernels.conv_fft.triton_fused import power_of_two, save, load, times, times_conjugate
from kernels.conv_fft.triton_outer import gated_row


@triton.jit
def fft4(ar, ai, br, bi, cr, ci, dr, di, SIGN: tl.constexpr):
    """sum_n x_n (-+i)^(n k); SIGN 1: forward"""
    sr = ar + cr
    si = ai + ci
    tr = ar - cr
    ti = ai - ci
    ur = br + dr
    ui = bi + di
    vr = br - dr
    vi = bi - di
    if SIGN == 1:
        return sr + ur, si + ui, tr + vi, ti - vr, sr - ur, si - ui, tr - vi, ti + vr
    else:
        return sr + ur, si + ui, tr - vi, ti + vr, sr - ur, si - ui, tr + vi, ti - vr

@triton.jit
def turn(r, i, C: tl.constexpr, S: tl.constexpr):
    return r * C - i * S, r * S + i * C

@triton.jit
def fft16(r0, i0, r1, i1, r2, i2, r3, i3, r4, i4, r5, i5, r6, i6, r7, i7, r8, i8, r9, i9, ra, ia, rb, ib, rc, ic, rd, id, re, ie, rf, if_, SIGN: tl.constexpr):
    C1: tl.constexpr = 0.9238795325112867
    S1: tl.constexpr = -0.3826834323650898 * SIGN
    H: tl.constexpr = 0.7071067811865476
    G: tl.constexpr = -0.7071067811865476 * SIGN
    C3: tl.constexpr = 0.3826834323650898
    S3: tl.constexpr = -0.9238795325112867 * SIGN
    r0, i0, r4, i4, r8, i8, rc, ic = fft4(r0, i0, r4, i4, r8, i8, rc, ic, SIGN)
    r1, i1, r5, i5, r9, i9, rd, id = fft4(r1, i1, r5, i5, r9, i9, rd, id, SIGN)
    r2, i2, r6, i6, ra, ia, re, ie = fft4(r2, i2, r6, i6, ra, ia, re, ie, SIGN)
    r3, i3, r7, i7, rb, ib, rf, if_ = fft4(r3, i3, r7, i7, rb, ib, rf, if_, SIGN)
    r5, i5 = turn(r5, i5, C1, S1)
    r9, i9 = turn(r9, i9, H, G)
    rd, id = turn(rd, id, C3, S3)
    r6, i6 = turn(r6, i6, H, G)
    ra, ia = turn(ra, ia, 0.0, -1.0 * SIGN)
    re, ie = turn(re, ie, -H, G)
    r7, i7 = turn(r7, i7, C3, S3)
    rb, ib = turn(rb, ib, -H, G)
    rf, if_ = turn(rf, if_, -C1, -S1)
    r0, i0, r1, i1, r2, i2, r3, i3 = fft4(r0, i0, r1, i1, r2, i2, r3, i3, SIGN)
    r4, i4, r5, i5, r6, i6, r7, i7 = fft4(r4, i4, r5, i5, r6, i6, r7, i7, SIGN)
    r8, i8, r9, i9, ra, ia, rb, ib = fft4(r8, i8, r9, i9, ra, ia, rb, ib, SIGN)
    rc, ic, rd, id, re, ie, rf, if_ = fft4(rc, ic, rd, id, re, ie, rf, if_, SIGN)
    # now place 4 k1 + k2 holds X[k1 + 4 k2]
    return (r0, i0, r4, i4, r8, i8, rc, ic, r1, i1, r5, i5, r9, i9, rd, id,
            r2, i2, r6, i6, ra, ia, re, ie, r3, i3, r7, i7, rb, ib, rf, if_)

@triton.jit
def sixteen(x):
    """(A, 16, C) to sixteen of (A, C)."""
    A: tl.constexpr = x.shape[0]
    C: tl.constexpr = x.shape[2]
    x = tl.permute(tl.reshape(x, (A, 2, 2, 2, 2, C)), (0, 5, 4, 3, 2, 1))  # (A, C, b0, b1, b2, b3)
    l, h = tl.split(x)   # b3: 0 / 8
    l0, l4 = tl.split(l)   # b2
    h8, hc = tl.split(h)
    a0, a2 = tl.split(l0)
    a4, a6 = tl.split(l4)
    a8, aa = tl.split(h8)
    ac, ae = tl.split(hc)
    x0, x1 = tl.split(a0)
    x2, x3 = tl.split(a2)
    x4, x5 = tl.split(a4)
    x6, x7 = tl.split(a6)
    x8, x9 = tl.split(a8)
    xa, xb = tl.split(aa)
    xc, xd = tl.split(ac)
    xe, xf = tl.split(ae)
    return x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, xa, xb, xc, xd, xe, xf

@triton.jit
def joined(x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, xa, xb, xc, xd, xe, xf):
    """sixteen of (A, C) to (A, 16, C)"""
    A: tl.constexpr = x0.shape[0]
    C: tl.constexpr = x0.shape[1]
    l = tl.join(tl.join(tl.join(x0, x1), tl.join(x2, x3)), tl.join(tl.join(x4, x5), tl.join(x6, x7)))  # (A, C, b0, b1, b2)
    h = tl.join(tl.join(tl.join(x8, x9), tl.join(xa, xb)), tl.join(tl.join(xc, xd), tl.join(xe, xf)))
    x = tl.join(l, h)
    return tl.reshape(tl.permute(x, (0, 5, 4, 3, 2, 1)), (A, 16, C))

@triton.jit
def transformed(xr, xi, SIGN: tl.constexpr):
    r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, ra, rb, rc, rd, re, rf = sixteen(xr)
    i0, i1, i2, i3, i4, i5, i6, i7, i8, i9, ia, ib, ic, id, ie, if_ = sixteen(xi)
    r0, i0, r1, i1, r2, i2, r3, i3, r4, i4, r5, i5, r6, i6, r7, i7, r8, i8, r9, i9, ra, ia, rb, ib, rc, ic, rd, id, re, ie, rf, if_ = fft16(
        r0, i0, r1, i1, r2, i2, r3, i3, r4, i4, r5, i5, r6, i6, r7, i7, r8, i8, r9, i9, ra, ia, rb, ib, rc, ic, rd, id, re, ie, rf, if_, SIGN)
    return joined(r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, ra, rb, rc, rd, re, rf), joined(i0, i1, i2, i3, i4, i5, i6, i7, i8, i9, ia, ib, ic, id, ie, if_)

@triton.jit(do_not_specialize=["WHICH", "first_channel", "capacity", "ROWS"])
def outer_radix_fwd_kernel(U, PRE, Z, Z_SCALE, G, T1, T, FIRST, SHIFT, LENGTH, COUNT, WHICH, row_length, first_channel, capacity, ROWS,
    M: tl.constexpr, NA: tl.constexpr, BC: tl.constexpr,
    HAS_PRE: tl.constexpr, ALIGN: tl.constexpr, ALIGN_END: tl.constexpr):
    tiles: tl.constexpr = M // BC
    N1: tl.constexpr = NA * 16
    i_n = tl.program_id(0)
    i_c = tl.program_id(1).to(tl.int64)
    i_h = i_c + first_channel
    a = tl.arange(0, NA)
    bc = tl.arange(0, 16 * BC)
    sample = (a[:, None] * 16 + bc[None, :] // BC) * M + i_n * BC + bc[None, :] % BC
    begin = tl.load(COUNT + WHICH)
    end = tl.load(COUNT + WHICH + 1)
    lo = begin + tl.program_id(2) * ROWS
    hi = tl.minimum(lo + ROWS, end)
    ka = tl.arange(0, 8)
    kb = tl.arange(0, 16)
    column = i_n * BC + tl.arange(0, BC)
    out = (ka[:, None, None] + NA * kb[None, :, None]) * (2 * M) + (column // 16 * 32 + column % 16)[None, None, :]
    m16 = tl.arange(0, 16)
    g = G + m16[:, None] * NA + a[None, :]
    for r in range(lo, hi):
        x = gated_row(U, PRE, sample, FIRST, SHIFT, LENGTH, r, True, i_h * row_length, HAS_PRE, ALIGN, ALIGN_END)
        scale, inverse = power_of_two(tl.max(tl.max(tl.abs(x), axis=1), axis=0))
        x = (x * inverse).to(tl.float16)
        where = i_c * capacity + (r - begin)
        for m in tl.static_range(NA // 8):
            acc = tl.dot(tl.load(g + m * 16 * NA), x)
            ar, ai = tl.split(tl.permute(tl.reshape(acc, (2, 8, 16, BC)), (1, 2, 3, 0)))
            t = tl.load(T1 + (m * 8 + ka)[:, None] * 16 + kb[None, :])
            ar, ai = times(ar, ai, t[:, :, None])
            yr, yi = transformed(ar, ai, 1)
            t = tl.load(T + ((i_n * (NA // 8) + m) * (128 * BC)) + tl.arange(0, 128 * BC))
            t = tl.permute(tl.reshape(t, (8, BC // 8, 8, 4, 2, 2)), (2, 0, 4, 1, 3, 5))
            yr, yi = times(yr, yi, tl.reshape(t, (8, 16, BC)))
            p = Z + where * (2 * N1 * M) + m * (16 * M) + out
            tl.store(p, yr.to(tl.float16))
            tl.store(p + 16, yi.to(tl.float16))
        tl.store(Z_SCALE + where * tiles + i_n, scale)

@triton.jit
def _line(p, t, p_scale, scale, M: tl.constexpr, NA: tl.constexpr, BC: tl.constexpr, KB: tl.constexpr, SCALE_BY_K1: tl.constexpr):
    zr = tl.load(p + KB * NA * 2 * M).to(tl.float32)
    zi = tl.load(p + (KB * NA * 2 * M + 16)).to(tl.float32)
    zr, zi = times_conjugate(zr, zi, tl.load(t + KB * 8 * BC))
    if SCALE_BY_K1:
        ratio = tl.load(p_scale + KB * NA) / scale
        zr *= ratio[:, None]
        zi *= ratio[:, None]
    return zr, zi

@triton.jit
def _between(r, i, p, KB: tl.constexpr):
    t = tl.load(p + KB)
    r, i = times_conjugate(r, i, t[:, None])
    return tl.join(r.to(tl.float16), i.to(tl.float16))

@triton.jit
def joined2(x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, xa, xb, xc, xd, xe, xf):
    """sixteen of (A, C, 2) to (2 A, 16 C), standing"""
    A: tl.constexpr = x0.shape[0]
    C: tl.constexpr = x0.shape[1]
    l = tl.join(tl.join(tl.join(x0, x1), tl.join(x2, x3)), tl.join(tl.join(x4, x5), tl.join(x6, x7)))  # (A, C, 2, b0, b1, b2)
    h = tl.join(tl.join(tl.join(x8, x9), tl.join(xa, xb)), tl.join(tl.join(xc, xd), tl.join(xe, xf)))
    x = tl.join(l, h)
    return tl.reshape(tl.permute(x, (2, 0, 6, 5, 4, 3, 1)), (2 * A, 16 * C))

@triton.jit(do_not_specialize=["WHICH", "first_channel", "capacity", "ROWS"])
def outer_radix_inv_kernel(Z, Z_SCALE, K_SCALE, A, OUT_A, B, OUT_B, G, T1, T, FIRST, SHIFT, LENGTH, COUNT, WHICH, row_length, first_channel, capacity, ROWS,
    M: tl.constexpr, NA: tl.constexpr, BC: tl.constexpr,
    HAS_A: tl.constexpr, HAS_B: tl.constexpr, SCALE_BY_K1: tl.constexpr, ALIGN: tl.constexpr, ALIGN_END: tl.constexpr, TYPE: tl.constexpr):
    tiles: tl.constexpr = M // BC
    N1: tl.constexpr = NA * 16
    i_n = tl.program_id(0)
    i_c = tl.program_id(1).to(tl.int64)
    i_h = i_c + first_channel
    a = tl.arange(0, NA)
    bc = tl.arange(0, 16 * BC)
    sample = (a[:, None] * 16 + bc[None, :] // BC) * M + i_n * BC + bc[None, :] % BC
    begin = tl.load(COUNT + WHICH)
    end = tl.load(COUNT + WHICH + 1)
    lo = begin + tl.program_id(2) * ROWS
    hi = tl.minimum(lo + ROWS, end)
    ka = tl.arange(0, 8)
    c = tl.arange(0, BC)
    column = i_n * BC + c
    source = ka[:, None] * (2 * M) + (column // 16 * 32 + column % 16)[None, :]
    m16 = tl.arange(0, 16)
    g = G + m16[None, :] * NA + a[:, None]
    k_scale = tl.load(K_SCALE + i_h)
    for r in range(lo, hi):
        where = i_c * capacity + (r - begin)
        if SCALE_BY_K1:
            scale = tl.max(tl.load(Z_SCALE + where * N1 + tl.arange(0, N1)), axis=0)
        else:
            scale = tl.max(tl.load(Z_SCALE + where * tiles + tl.arange(0, tiles)), axis=0)
        y = tl.zeros((NA, 16 * BC), tl.float32)
        for m in tl.static_range(NA // 8):
            p = Z + where * (2 * N1 * M) + m * (16 * M) + source
            t = T + (i_n * (NA // 8) + m) * (128 * BC) + ka[:, None] * BC + c[None, :]
            s = Z_SCALE + where * N1 + m * 8 + ka
            r0, i0 = _line(p, t, s, scale, M, NA, BC, 0, SCALE_BY_K1)
            r1, i1 = _line(p, t, s, scale, M, NA, BC, 1, SCALE_BY_K1)
            r2, i2 = _line(p, t, s, scale, M, NA, BC, 2, SCALE_BY_K1)
            r3, i3 = _line(p, t, s, scale, M, NA, BC, 3, SCALE_BY_K1)
            r4, i4 = _line(p, t, s, scale, M, NA, BC, 4, SCALE_BY_K1)
            r5, i5 = _line(p, t, s, scale, M, NA, BC, 5, SCALE_BY_K1)
            r6, i6 = _line(p, t, s, scale, M, NA, BC, 6, SCALE_BY_K1)
            r7, i7 = _line(p, t, s, scale, M, NA, BC, 7, SCALE_BY_K1)
            r8, i8 = _line(p, t, s, scale, M, NA, BC, 8, SCALE_BY_K1)
            r9, i9 = _line(p, t, s, scale, M, NA, BC, 9, SCALE_BY_K1)
            ra, ia = _line(p, t, s, scale, M, NA, BC, 10, SCALE_BY_K1)
            rb, ib = _line(p, t, s, scale, M, NA, BC, 11, SCALE_BY_K1)
            rc, ic = _line(p, t, s, scale, M, NA, BC, 12, SCALE_BY_K1)
            rd, id = _line(p, t, s, scale, M, NA, BC, 13, SCALE_BY_K1)
            re, ie = _line(p, t, s, scale, M, NA, BC, 14, SCALE_BY_K1)
            rf, if_ = _line(p, t, s, scale, M, NA, BC, 15, SCALE_BY_K1)
            r0, i0, r1, i1, r2, i2, r3, i3, r4, i4, r5, i5, r6, i6, r7, i7, r8, i8, r9, i9, ra, ia, rb, ib, rc, ic, rd, id, re, ie, rf, if_ = fft16(
        r0, i0, r1, i1, r2, i2, r3, i3, r4, i4, r5, i5, r6, i6, r7, i7, r8, i8, r9, i9, ra, ia, rb, ib, rc, ic, rd, id, re, ie, rf, if_, -1)
            p = T1 + (m * 8 + ka) * 16
            x0 = _between(r0, i0, p, 0)
            x1 = _between(r1, i1, p, 1)
            x2 = _between(r2, i2, p, 2)
            x3 = _between(r3, i3, p, 3)
            x4 = _between(r4, i4, p, 4)
            x5 = _between(r5, i5, p, 5)
            x6 = _between(r6, i6, p, 6)
            x7 = _between(r7, i7, p, 7)
            x8 = _between(r8, i8, p, 8)
            x9 = _between(r9, i9, p, 9)
            xa = _between(ra, ia, p, 10)
            xb = _between(rb, ib, p, 11)
            xc = _between(rc, ic, p, 12)
            xd = _between(rd, id, p, 13)
            xe = _between(re, ie, p, 14)
            xf = _between(rf, if_, p, 15)
            e = joined2(x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, xa, xb, xc, xd, xe, xf)
            y = tl.dot(tl.load(g + m * 16 * NA), e, y)
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
