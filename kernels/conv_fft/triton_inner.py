"""The middle pass of long rows: for each k1 of the outer transform, plain transforms of M = NA NB complex points.

Two rows of data at a time, in the tiles of `triton_tiles`. What is between the passes: Z (channels, rows, N1, M / 16, 2, 16)
float16, sixteen real parts and then their imaginary ones. A tile of BN columns has its own power-of-two scale, Z_SCALE
(channels, rows, M / BN): here a row's tiles are brought to one.
"""

# Triton's decorators hide from type checkers how kernels are launched and what they return.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.conv_fft.triton_complex import pack, power_of_two, times, times_conjugate, unpack
from kernels.conv_fft.triton_tiles import lying, of_lying, of_standing, standing, store_table, table


@triton.jit
def _matrices(G1, G2, NA: tl.constexpr, NB: tl.constexpr, C2: tl.constexpr):
    rows = tl.arange(0, 2 * NA)
    columns = tl.arange(0, 2 * C2)
    g1 = tl.load(G1 + rows[:, None] * (2 * NA) + rows[None, :])
    return g1, tl.load(G2 + tl.arange(0, 2 * NB)[:, None] * (2 * C2) + columns[None, :])


@triton.jit
def _places(NA: tl.constexpr, NB: tl.constexpr, S: tl.constexpr):
    """Of a standing tile's elements, (2 NA, 2, S, NB / S): which row of data, and where in its Z."""
    row = tl.arange(0, 2 * NA)[:, None, None, None]
    d = tl.arange(0, 2)[None, :, None, None]
    b = tl.arange(0, S)[None, None, :, None] * (NB // S) + tl.arange(0, NB // S)[None, None, None, :]
    point = (row // 16 * 8 + row % 8) * NB + b
    return d, point // 16 * 32 + row // 8 % 2 * 16 + point % 16


@triton.jit
def _fetch(
    Z, p_scale, base, step, r, count, NA: tl.constexpr, NB: tl.constexpr, S: tl.constexpr, BN: tl.constexpr
):  # fmt: skip
    """A standing tile of rows r, r + 1, brought to each row's largest scale, and these, (2,).

    S: in how many parts a line of NB columns is for its scales.
    """
    d, place = _places(NA, NB, S)
    z = tl.load(Z + (base + (r + d).to(tl.int64) * step) + place, mask=r + d < count, other=0.0)
    tiles: tl.constexpr = NA * NB // BN
    row = r + tl.arange(0, 2)
    p_row = p_scale + row[:, None] * tiles + tl.arange(0, tiles)[None, :]
    largest = tl.max(tl.load(p_row, mask=row[:, None] < count, other=1.0), axis=1)
    a = tl.arange(0, 2 * NA)[:, None, None]
    row = r + tl.arange(0, 2)[None, :, None]
    column = (a // 16 * 8 + a % 8) * NB + tl.arange(0, S)[None, None, :] * (NB // S)
    mine = tl.load(p_scale + row * tiles + column // BN, mask=row < count, other=1.0)
    ratio = (mine / largest[None, :, None]).to(tl.float16)[:, :, :, None]
    return tl.reshape(z * ratio, (2 * NA, 2 * NB)), largest


@triton.jit
def _store(Z, base, step, r, count, tile, NA: tl.constexpr, NB: tl.constexpr, S: tl.constexpr):
    d, place = _places(NA, NB, S)
    tile = tl.reshape(tile.to(tl.float16), (2 * NA, 2, S, NB // S))
    tl.store(Z + (base + (r + d).to(tl.int64) * step) + place, tile, mask=r + d < count)


@triton.jit
def _spectrum(tile, g1, g2, T, NA: tl.constexpr, NB: tl.constexpr, C2: tl.constexpr, TIME: tl.constexpr):
    """The transform of a standing tile: real and imaginary part, (NA / 8, 8, 2, C2)."""
    zr, zi = of_standing(tl.dot(g1, tile), NA, NB, 2)
    zr, zi = times(zr, zi, table(T, NA, NB, 2, 1, TIME))
    return of_lying(tl.dot(lying(zr, zi, NA, NB, 2), g2), NA, C2, 2)


@triton.jit
def _columns(zr, zi, g1, g2, T, NA: tl.constexpr, NB: tl.constexpr, C2: tl.constexpr):
    """The inverse of `_spectrum`."""
    zr, zi = of_lying(tl.dot(lying(zr, zi, NA, C2, 2), tl.trans(g2)), NA, NB, 2)
    zr, zi = times_conjugate(zr, zi, table(T, NA, NB, 2, 1, 2))
    return tl.dot(tl.trans(g1), standing(zr, zi, NA, NB, 2))


@triton.jit(do_not_specialize=["WHICH", "first_channel", "capacity"])
def inner_fwd_kernel(
    Z, Z_SCALE, K, K_INVERSE, G1, G2, T, COUNT, WHICH, first_channel, N1, capacity,
    NA: tl.constexpr, NB: tl.constexpr, C2: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Grid (N1, channels, splits): in place, each Z[channel, row, k1] convolved with the filter's spectrum.

    K (channels, N1, NA C2): packed, in thread order.
    """
    M: tl.constexpr = NA * NB
    S: tl.constexpr = NB // BN if BN < NB else 1
    i_k = tl.program_id(0)
    i_c = tl.program_id(1).to(tl.int64)
    g1, g2 = _matrices(G1, G2, NA, NB, C2)
    p_filter = K + ((i_c + first_channel) * N1 + i_k) * (NA * C2)
    k_inverse = tl.load(K_INVERSE + i_c + first_channel)
    count = tl.load(COUNT + WHICH + 1) - tl.load(COUNT + WHICH)
    p_scale = Z_SCALE + i_c * capacity * (M // BN)
    base = (i_c * capacity * N1 + i_k) * (2 * M)
    step = N1 * (2 * M)
    for r in range(tl.program_id(2) * 2, count, tl.num_programs(2) * 2):
        tile, _ = _fetch(Z, p_scale, base, step, r, count, NA, NB, S, BN)
        zr, zi = _spectrum(tile, g1, g2, T, NA, NB, C2, 0)
        zr, zi = times(zr, zi, table(p_filter, NA, C2, 2))
        tile = _columns(zr * k_inverse, zi * k_inverse, g1, g2, T, NA, NB, C2)
        _store(Z, base, step, r, count, tile, NA, NB, S)


@triton.jit(do_not_specialize=["WHICH", "first_channel", "capacity"])
def inner_bwd_kernel(
    ZX, ZX_SCALE, ZG, ZG_SCALE, DK, DK_SCALE, K, K_INVERSE, G1, G2, T, COUNT, WHICH, first_channel, N1, capacity,
    NA: tl.constexpr, NB: tl.constexpr, C2: tl.constexpr, BN: tl.constexpr, NEEDS_Y: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    """Grid (N1, channels): ZG becomes the input's gradient, ZX (NEEDS_Y) the output again; DK the spectrum's gradient.

    DK is (channels, N1, 2, NA C2) float32 in thread order; with TAPS it is transformed back over k2 already: one row in the
    form of Z, over DK_SCALE (channels, N1).
    """
    M: tl.constexpr = NA * NB
    S: tl.constexpr = NB // BN if BN < NB else 1
    i_k = tl.program_id(0)
    i_c = tl.program_id(1).to(tl.int64)
    g1, g2 = _matrices(G1, G2, NA, NB, C2)
    p_filter = K + ((i_c + first_channel) * N1 + i_k) * (NA * C2)
    k_inverse = tl.load(K_INVERSE + i_c + first_channel)
    count = tl.load(COUNT + WHICH + 1) - tl.load(COUNT + WHICH)
    scales = i_c * capacity * (M // BN)
    base = (i_c * capacity * N1 + i_k) * (2 * M)
    step = N1 * (2 * M)
    sum_r = tl.zeros((NA // 8, 8, 1, C2), tl.float32)
    sum_i = tl.zeros((NA // 8, 8, 1, C2), tl.float32)
    for r in range(0, count, 2):
        tile, x_scale = _fetch(ZX, ZX_SCALE + scales, base, step, r, count, NA, NB, S, BN)
        xr, xi = _spectrum(tile, g1, g2, T, NA, NB, C2, 0)
        spectrum = pack(xr, xi)
        tile, g_scale = _fetch(ZG, ZG_SCALE + scales, base, step, r, count, NA, NB, S, BN)
        gr, gi = _spectrum(tile, g1, g2, T, NA, NB, C2, 1)
        pr, pi = times_conjugate(gr, gi, spectrum)
        scale = (x_scale * g_scale)[None, None, :, None]
        sum_r += tl.sum(pr * scale, axis=2, keep_dims=True)
        sum_i += tl.sum(pi * scale, axis=2, keep_dims=True)
        zr, zi = times_conjugate(gr, gi, table(p_filter, NA, C2, 2))
        tile = _columns(zr * k_inverse, zi * k_inverse, g1, g2, T, NA, NB, C2)
        _store(ZG, base, step, r, count, tile, NA, NB, S)
        if NEEDS_Y:
            xr, xi = unpack(spectrum)
            zr, zi = times(xr.to(tl.float32), xi.to(tl.float32), table(p_filter, NA, C2, 2, 1, 1))
            tile = _columns(zr * k_inverse, zi * k_inverse, g1, g2, T, NA, NB, C2)
            _store(ZX, base, step, r, count, tile, NA, NB, S)
    where = (i_c + first_channel) * N1 + i_k
    if TAPS:
        largest = tl.maximum(_largest(sum_r), _largest(sum_i))
        scale, inverse = power_of_two(largest)
        zr = tl.broadcast_to(sum_r * inverse, (NA // 8, 8, 2, C2))
        zi = tl.broadcast_to(sum_i * inverse, (NA // 8, 8, 2, C2))
        tile = _columns(zr, zi, g1, g2, T, NA, NB, C2)
        _store(DK, where * (2 * M), 0, 0, 1, tile, NA, NB, S)
        tl.store(DK_SCALE + where, scale)
    else:
        p_sum = DK + where * (2 * NA * C2)
        store_table(p_sum, sum_r, NA, C2, 2)
        store_table(p_sum + NA * C2, sum_i, NA, C2, 2)


@triton.jit
def _largest(x):
    return tl.max(tl.max(tl.max(tl.max(tl.abs(x), axis=3), axis=2), axis=1), axis=0)


@triton.jit
def inner_filter_kernel(
    Z, Z_SCALE, K, K_LARGEST, G1, G2, T, COUNT, N1,
    NA: tl.constexpr, NB: tl.constexpr, C2: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Grid (N1, channels): a filter's taps after the outer transform to its spectrum K (channels, N1, NA C2), in thread order.

    K is packed, over the taps' scale; K_LARGEST (channels, N1) is its largest part. One row of data, the first of the tile's.
    """
    if tl.load(COUNT + 1) == 0:
        return  # no row is convolved with it
    M: tl.constexpr = NA * NB
    S: tl.constexpr = NB // BN if BN < NB else 1
    i_k = tl.program_id(0)
    i_c = tl.program_id(1).to(tl.int64)
    g1, g2 = _matrices(G1, G2, NA, NB, C2)
    where = i_c * N1 + i_k
    tile, _ = _fetch(Z, Z_SCALE + i_c * (M // BN), where * (2 * M), 0, 0, 1, NA, NB, S, BN)
    xr, xi = _spectrum(tile, g1, g2, T, NA, NB, C2, 0)
    xr = tl.sum(xr, axis=2, keep_dims=True)  # the other row is zeros
    xi = tl.sum(xi, axis=2, keep_dims=True)
    store_table(K + where * (NA * C2), pack(xr, xi), NA, C2, 2)
    tl.store(K_LARGEST + where, tl.maximum(_largest(xr), _largest(xi)))
