"""The outer transform of 256 or 512 points: 16 or 32 by tensor cores, 16 in each thread's registers, nothing exchanged between.

n1 = a 16 + b, k1 = ka + NA kb, as in `kernels.conv_fft.transforms`; a tile is all n1 of BC neighbouring columns n2, taken eight
ka at a time. Of the product over a, real parts and imaginary ones eight rows apart, a thread has all b of its columns; so the
transform over b is one of sixteen scalars, each of them a tensor (8, BC). The same the other way round: a thread loads all kb
of its columns. Constants: `transforms.radix_constants`.
"""

# Triton's decorators hide from type checkers how kernels are launched and what they return.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false
# pyright: reportAssignmentType=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.conv_fft.triton_complex import power_of_two, times, times_conjugate
from kernels.conv_fft.triton_outer import gated_row, save_row


@triton.jit
def _four(a, b, c, d, SIGN: tl.constexpr):
    """The transform of four complex numbers, each (real, imaginary): exponents -i SIGN."""
    sr = a[0] + c[0]
    si = a[1] + c[1]
    tr = a[0] - c[0]
    ti = a[1] - c[1]
    ur = b[0] + d[0]
    ui = b[1] + d[1]
    vr = (b[0] - d[0]) * SIGN
    vi = (b[1] - d[1]) * SIGN
    return (sr + ur, si + ui), (tr + vi, ti - vr), (sr - ur, si - ui), (tr - vi, ti + vr)


@triton.jit
def _turned(x, COS: tl.constexpr, SIN: tl.constexpr):
    return x[0] * COS - x[1] * SIN, x[0] * SIN + x[1] * COS


@triton.jit
def _sixteen(x, SIGN: tl.constexpr):
    """The transform of sixteen complex numbers, times four: exponents -i SIGN."""
    C: tl.constexpr = 0.9238795325112867  # cos(pi / 8)
    H: tl.constexpr = 0.7071067811865476
    S: tl.constexpr = 0.3826834323650898
    a0, a1, a2, a3 = _four(x[0], x[4], x[8], x[12], SIGN)
    b0, b1, b2, b3 = _four(x[1], x[5], x[9], x[13], SIGN)
    c0, c1, c2, c3 = _four(x[2], x[6], x[10], x[14], SIGN)
    d0, d1, d2, d3 = _four(x[3], x[7], x[11], x[15], SIGN)
    y0, y4, y8, y12 = _four(a0, b0, c0, d0, SIGN)
    b1 = _turned(b1, C, -S * SIGN)
    c1 = _turned(c1, H, -H * SIGN)
    d1 = _turned(d1, S, -C * SIGN)
    y1, y5, y9, y13 = _four(a1, b1, c1, d1, SIGN)
    b2 = _turned(b2, H, -H * SIGN)
    c2 = _turned(c2, 0.0, -1.0 * SIGN)
    d2 = _turned(d2, -H, -H * SIGN)
    y2, y6, y10, y14 = _four(a2, b2, c2, d2, SIGN)
    b3 = _turned(b3, S, -C * SIGN)
    c3 = _turned(c3, -H, -H * SIGN)
    d3 = _turned(d3, -C, S * SIGN)
    y3, y7, y11, y15 = _four(a3, b3, c3, d3, SIGN)
    return y0, y1, y2, y3, y4, y5, y6, y7, y8, y9, y10, y11, y12, y13, y14, y15


@triton.jit
def _apart(x, BC: tl.constexpr):
    """(8, 16, BC) to sixteen (8, BC)."""
    low, high = tl.split(tl.permute(tl.reshape(x, (8, 2, 2, 2, 2, BC)), (0, 5, 4, 3, 2, 1)))
    a, b = tl.split(low)
    c, d = tl.split(high)
    x0, x2 = tl.split(a)
    x4, x6 = tl.split(b)
    x8, x10 = tl.split(c)
    x12, x14 = tl.split(d)
    return (
        tl.split(x0) + tl.split(x2) + tl.split(x4) + tl.split(x6) + tl.split(x8) + tl.split(x10) + tl.split(x12) + tl.split(x14)
    )


@triton.jit
def _together(x):
    """Sixteen (8, BC, ...) to (8, BC, ..., 2, 2, 2, 2): the number's bits, the lowest first."""
    a = tl.join(tl.join(x[0], x[1]), tl.join(x[2], x[3]))
    b = tl.join(tl.join(x[4], x[5]), tl.join(x[6], x[7]))
    c = tl.join(tl.join(x[8], x[9]), tl.join(x[10], x[11]))
    d = tl.join(tl.join(x[12], x[13]), tl.join(x[14], x[15]))
    return tl.join(tl.join(a, b), tl.join(c, d))


@triton.jit
def _line(
    p, t, p_scale, scale,
    M: tl.constexpr, NA: tl.constexpr, KA: tl.constexpr, BC: tl.constexpr, KB: tl.constexpr, SCALE_BY_K1: tl.constexpr,
):  # fmt: skip
    """Of one kb, the numbers of all ka and columns, times the twiddles."""
    zr = tl.load(p + KB * NA * 2 * M).to(tl.float32)
    zi = tl.load(p + (KB * NA * 2 * M + 16)).to(tl.float32)
    zr, zi = times_conjugate(zr, zi, tl.load(t + KB * KA * BC), True)
    if SCALE_BY_K1:
        ratio = tl.load(p_scale + KB * NA) / scale
        zr *= ratio[:, None]
        zi *= ratio[:, None]
    return zr, zi


@triton.jit
def _between(x, p_between):
    zr, zi = times_conjugate(x[0], x[1], tl.load(p_between)[:, None], True)
    return tl.join(zr.to(tl.float16), zi.to(tl.float16))


@triton.jit(do_not_specialize=["WHICH", "first_channel", "capacity", "ROWS"])
def outer_radix_fwd_kernel(
    U, PRE, Z, Z_SCALE, G, T1, T, FIRST, SHIFT, LENGTH, COUNT, WHICH, row_length, first_channel, capacity, ROWS,
    M: tl.constexpr, NA: tl.constexpr, BC: tl.constexpr, HAS_PRE: tl.constexpr, ALIGN: tl.constexpr, ALIGN_END: tl.constexpr,
):  # fmt: skip
    """Grid (M / BC, channels, splits): as `outer_fwd_kernel` of `triton_long`."""
    tiles: tl.constexpr = M // BC
    i_n = tl.program_id(0)
    i_c = tl.program_id(1).to(tl.int64)
    i_h = i_c + first_channel
    a = tl.arange(0, NA)
    b = tl.arange(0, 16)
    bc = tl.arange(0, 16 * BC)
    sample = (a[:, None] * 16 + bc[None, :] // BC) * M + i_n * BC + bc[None, :] % BC
    ka = tl.arange(0, 8)
    column = i_n * BC + tl.arange(0, BC)
    out = (ka[:, None, None] + NA * b[None, :, None]) * (2 * M) + (column // 16 * 32 + column % 16)[None, None, :]
    begin = tl.load(COUNT + WHICH)
    lo = begin + tl.program_id(2) * ROWS
    for r in range(lo, tl.minimum(lo + ROWS, tl.load(COUNT + WHICH + 1))):
        x = gated_row(U, PRE, sample, FIRST, SHIFT, LENGTH, r, i_h * row_length, HAS_PRE, ALIGN, ALIGN_END)
        scale, inverse = power_of_two(tl.max(tl.max(tl.abs(x), axis=1), axis=0))
        x = (x * inverse).to(tl.float16)
        where = i_c * capacity + (r - begin)
        for m in tl.static_range(NA // 8):
            g = tl.load(G + m * (16 * NA) + b[:, None] * NA + a[None, :])
            ar, ai = tl.split(tl.permute(tl.reshape(tl.dot(g, x), (2, 8, 16, BC)), (1, 2, 3, 0)))
            ar, ai = times(ar, ai, tl.load(T1 + (m * 8 + ka)[:, None] * 16 + b[None, :])[:, :, None], True)
            ar = _apart(ar, BC)
            ai = _apart(ai, BC)
            y = ((ar[0], ai[0]),)
            for kb in tl.static_range(1, 16):
                y = y + ((ar[kb], ai[kb]),)  # noqa: RUF005
            y = _sixteen(y, 1)
            yr = (y[0][0],)
            yi = (y[0][1],)
            for kb in tl.static_range(1, 16):
                yr = yr + (y[kb][0],)  # noqa: RUF005
                yi = yi + (y[kb][1],)  # noqa: RUF005
            yr = tl.reshape(tl.permute(_together(yr), (0, 5, 4, 3, 2, 1)), (8, 16, BC))
            yi = tl.reshape(tl.permute(_together(yi), (0, 5, 4, 3, 2, 1)), (8, 16, BC))
            t = tl.load(T + (i_n * (NA // 8) + m) * (128 * BC) + tl.arange(0, 128 * BC))
            t = tl.permute(tl.reshape(t, (8, BC // 8, 8, 4, 2, 2)), (2, 0, 4, 1, 3, 5))
            yr, yi = times(yr, yi, tl.reshape(t, (8, 16, BC)), True)
            p_z = Z + where * (32 * NA * M) + m * (16 * M) + out
            tl.store(p_z, yr.to(tl.float16))
            tl.store(p_z + 16, yi.to(tl.float16))
        tl.store(Z_SCALE + where * tiles + i_n, scale)


@triton.jit(do_not_specialize=["WHICH", "first_channel", "capacity", "ROWS"])
def outer_radix_inv_kernel(
    Z, Z_SCALE, K_SCALE, A, OUT_A, B, OUT_B, G, T1, T, FIRST, SHIFT, LENGTH, COUNT, WHICH, row_length,
    first_channel, capacity, ROWS,
    M: tl.constexpr, NA: tl.constexpr, KA: tl.constexpr, BC: tl.constexpr,
    HAS_A: tl.constexpr, HAS_B: tl.constexpr, SCALE_BY_K1: tl.constexpr,
    ALIGN: tl.constexpr, ALIGN_END: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Grid (M / BC, channels, splits): as `outer_inv_kernel` of `triton_long`. KA ka at a time."""
    tiles: tl.constexpr = M // BC
    i_n = tl.program_id(0)
    i_c = tl.program_id(1).to(tl.int64)
    i_h = i_c + first_channel
    a = tl.arange(0, NA)
    k = tl.arange(0, 2 * KA)
    bc = tl.arange(0, 16 * BC)
    sample = (a[:, None] * 16 + bc[None, :] // BC) * M + i_n * BC + bc[None, :] % BC
    ka = tl.arange(0, KA)
    column = i_n * BC + tl.arange(0, BC)
    source = ka[:, None] * (2 * M) + (column // 16 * 32 + column % 16)[None, :]
    k_scale = tl.load(K_SCALE + i_h)
    begin = tl.load(COUNT + WHICH)
    lo = begin + tl.program_id(2) * ROWS
    for r in range(lo, tl.minimum(lo + ROWS, tl.load(COUNT + WHICH + 1))):
        where = i_c * capacity + (r - begin)
        if SCALE_BY_K1:
            scale = tl.max(tl.load(Z_SCALE + where * (16 * NA) + tl.arange(0, 16 * NA)), axis=0)
        else:
            scale = tl.max(tl.load(Z_SCALE + where * tiles + tl.arange(0, tiles)), axis=0)
        y = tl.zeros((NA, 16 * BC), tl.float32)
        for m in tl.static_range(NA // KA):
            p = Z + where * (32 * NA * M) + m * (2 * KA * M) + source
            t = T + (i_n * (NA // KA) + m) * (16 * KA * BC) + ka[:, None] * BC + tl.arange(0, BC)[None, :]
            p_scale = Z_SCALE + where * (16 * NA) + m * KA + ka
            z = (_line(p, t, p_scale, scale, M, NA, KA, BC, 0, SCALE_BY_K1),)
            for kb in tl.static_range(1, 16):
                z = z + (_line(p, t, p_scale, scale, M, NA, KA, BC, kb, SCALE_BY_K1),)  # noqa: RUF005
            z = _sixteen(z, -1)
            p_between = T1 + (m * KA + ka) * 16
            e = (_between(z[0], p_between),)
            for b in tl.static_range(1, 16):
                e = e + (_between(z[b], p_between + b),)  # noqa: RUF005
            e = tl.reshape(tl.permute(_together(e), (2, 0, 6, 5, 4, 3, 1)), (2 * KA, 16 * BC))
            y = tl.dot(tl.load(G + m * (2 * KA * NA) + k[None, :] * NA + a[:, None]), e, y)
        y *= scale * k_scale
        save_row(y, A, OUT_A, B, OUT_B, sample, FIRST, SHIFT, LENGTH, r, i_h * row_length, HAS_A, HAS_B, ALIGN, ALIGN_END, TYPE)
