"""The middle pass of long rows: for each k1 of the outer transform, plain transforms of M = NA C NB complex points.

In the tiles of `triton_tiles`: two rows of data at a time (C = 1), or the halves of one (C = 2). Of the latter n2 = (a C + c)
NB + b, and the transform over c takes two sums in a thread, and twiddles, between those over a and b: k2 = ka + NA (kc + C kb).
What is between the passes: Z (channels, rows, N1, M / 16, 2, 16) float16, sixteen real parts and then their imaginary ones. A
tile of BN columns has its own power-of-two scale, Z_SCALE (channels, rows, M / BN): here a row's tiles are brought to one.
"""

# Triton's decorators hide from type checkers how kernels are launched and what they return.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false
# pyright: reportAssignmentType=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.conv_fft.triton_complex import largest_of, pack, power_of_two, times, times_conjugate, unpack_wide
from kernels.conv_fft.triton_tiles import lying, of_lying, of_standing, standing, store_table, table


@triton.jit
def _matrices(G1, G2, NA: tl.constexpr, NB: tl.constexpr, C2: tl.constexpr):
    rows = tl.arange(0, 2 * NA)
    columns = tl.arange(0, 2 * C2)
    g1 = tl.load(G1 + rows[:, None] * (2 * NA) + rows[None, :])
    return g1, tl.load(G2 + tl.arange(0, 2 * NB)[:, None] * (2 * C2) + columns[None, :])


@triton.jit
def _places(NA: tl.constexpr, NB: tl.constexpr, C: tl.constexpr, S: tl.constexpr):
    """Of a standing tile's elements, (2 NA, 2, S, NB / S): which row of data, and where in its Z."""
    line = tl.arange(0, 2 * NA)[:, None, None, None]
    d = tl.arange(0, 2)[None, :, None, None]
    b = tl.arange(0, S)[None, None, :, None] * (NB // S) + tl.arange(0, NB // S)[None, None, None, :]
    point = (line // 16 * 8 + line % 8) * (C * NB) + d % C * NB + b
    return d // C, point // 16 * 32 + line // 8 % 2 * 16 + point % 16


@triton.jit
def _fetch(
    Z, p_scale, base, step, r, count,
    NA: tl.constexpr, NB: tl.constexpr, C: tl.constexpr, S: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """A standing tile of rows r, r + 1, or of row r, brought to each row's largest scale, and these, (2,).

    S: in how many parts a line of NB columns is for its scales.
    """
    d, place = _places(NA, NB, C, S)
    z = tl.load(Z + (base + (r + d).to(tl.int64) * step) + place, mask=r + d < count, other=0.0)
    tiles: tl.constexpr = NA * C * NB // BN
    row = r + tl.arange(0, 2) // C
    p_row = p_scale + row[:, None] * tiles + tl.arange(0, tiles)[None, :]
    largest = tl.max(tl.load(p_row, mask=row[:, None] < count, other=1.0), axis=1)
    line = tl.arange(0, 2 * NA)[:, None, None]
    d = tl.arange(0, 2)[None, :, None]
    row = r + d // C
    column = (line // 16 * 8 + line % 8) * (C * NB) + d % C * NB + tl.arange(0, S)[None, None, :] * (NB // S)
    mine = tl.load(p_scale + row * tiles + column // BN, mask=row < count, other=1.0)
    ratio = (mine / largest[None, :, None]).to(tl.float16)[:, :, :, None]
    return tl.reshape(z * ratio, (2 * NA, 2 * NB)), largest


@triton.jit
def _store(Z, base, step, r, count, tile, NA: tl.constexpr, NB: tl.constexpr, C: tl.constexpr, S: tl.constexpr):
    d, place = _places(NA, NB, C, S)
    tile = tl.reshape(tile.to(tl.float16), (2 * NA, 2, S, NB // S))
    tl.store(Z + (base + (r + d).to(tl.int64) * step) + place, tile, mask=r + d < count)


@triton.jit
def _table(pointer, NA: tl.constexpr, NB: tl.constexpr, C: tl.constexpr, TIME: tl.constexpr = 0):
    """Of (NA C, NB) numbers in thread order."""
    return table(pointer, C * NA, NB, 2 // C, 1, TIME)


@triton.jit
def _sum_and_difference(x):
    first, second = tl.split(tl.permute(x, (0, 1, 3, 2)))
    return first + second, first - second


@triton.jit
def _in_turn(first, second):
    return tl.permute(tl.join(first, second), (0, 1, 3, 2))


@triton.jit
def _spectrum(
    tile, g1, g2, T, NA: tl.constexpr, NB: tl.constexpr, C: tl.constexpr, C2: tl.constexpr, TIME: tl.constexpr
):  # fmt: skip
    """The transform of a standing tile: real and imaginary part, (NA / 8, 8, 2, C2)."""
    zr, zi = of_standing(tl.dot(g1, tile), NA, NB, 2)
    zr, zi = times(zr, zi, _table(T, NA, NB, C, TIME))
    if C == 2:
        zr, yr = _sum_and_difference(zr)
        zi, yi = _sum_and_difference(zi)
        yr, yi = times(yr, yi, _turns(T, NA, NB, TIME))
        zr = _in_turn(zr, yr)
        zi = _in_turn(zi, yi)
    return of_lying(tl.dot(lying(zr, zi, NA, NB, 2), g2), NA, C2, 2)


@triton.jit
def _turns(T, NA: tl.constexpr, NB: tl.constexpr, TIME: tl.constexpr):
    """The twiddles of kc = 1, (NA / 8, 8, NB): they lie behind the others."""
    return tl.reshape(table(T + 2 * NA * NB, NA, NB, 2, 1, TIME), (NA // 8, 8, NB))


@triton.jit
def _columns(zr, zi, g1, g2, T, NA: tl.constexpr, NB: tl.constexpr, C: tl.constexpr, C2: tl.constexpr):
    """The inverse of `_spectrum`."""
    zr, zi = of_lying(tl.dot(lying(zr, zi, NA, C2, 2), tl.trans(g2)), NA, NB, 2)
    if C == 2:
        zr, yr = tl.split(tl.permute(zr, (0, 1, 3, 2)))
        zi, yi = tl.split(tl.permute(zi, (0, 1, 3, 2)))
        yr, yi = times_conjugate(yr, yi, _turns(T, NA, NB, 2))
        zr = _in_turn(zr + yr, zr - yr)
        zi = _in_turn(zi + yi, zi - yi)
    zr, zi = times_conjugate(zr, zi, _table(T, NA, NB, C, 2))
    return tl.dot(tl.trans(g1), standing(zr, zi, NA, NB, 2))


@triton.jit(do_not_specialize=["WHICH", "first_channel", "capacity"])
def inner_fwd_kernel(
    Z, Z_SCALE, K, K_INVERSE, G1, G2, T, COUNT, WHICH, first_channel, N1, capacity,
    NA: tl.constexpr, NB: tl.constexpr, C: tl.constexpr, C2: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Grid (N1, channels, splits): in place, each Z[channel, row, k1] convolved with the filter's spectrum.

    K (channels, N1, NA C C2): packed, in thread order.
    """
    M: tl.constexpr = NA * C * NB
    S: tl.constexpr = NB // BN if BN < NB else 1
    i_k = tl.program_id(0)
    i_c = tl.program_id(1).to(tl.int64)
    g1, g2 = _matrices(G1, G2, NA, NB, C2)
    p_filter = K + ((i_c + first_channel) * N1 + i_k) * (NA * C * C2)
    k_inverse = tl.load(K_INVERSE + i_c + first_channel)
    count = tl.load(COUNT + WHICH + 1) - tl.load(COUNT + WHICH)
    p_scale = Z_SCALE + i_c * capacity * (M // BN)
    base = (i_c * capacity * N1 + i_k) * (2 * M)
    step = N1 * (2 * M)
    for r in range(tl.program_id(2) * (2 // C), count, tl.num_programs(2) * (2 // C)):
        tile, _ = _fetch(Z, p_scale, base, step, r, count, NA, NB, C, S, BN)
        zr, zi = _spectrum(tile, g1, g2, T, NA, NB, C, C2, 0)
        zr, zi = times(zr, zi, _table(p_filter, NA, C2, C))
        tile = _columns(zr * k_inverse, zi * k_inverse, g1, g2, T, NA, NB, C, C2)
        _store(Z, base, step, r, count, tile, NA, NB, C, S)


@triton.jit(do_not_specialize=["WHICH", "first_channel", "capacity"])
def inner_bwd_kernel(
    ZX, ZX_SCALE, ZG, ZG_SCALE, DK, DK_SCALE, K, K_INVERSE, G1, G2, T, COUNT, WHICH, first_channel, N1, capacity,
    NA: tl.constexpr, NB: tl.constexpr, C: tl.constexpr, C2: tl.constexpr, BN: tl.constexpr,
    NEEDS_Y: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    """Grid (N1, channels): ZG becomes the input's gradient, ZX (NEEDS_Y) the output again; DK the spectrum's gradient.

    DK is (channels, N1, 2, NA C C2) float32 in thread order; with TAPS it is transformed back over k2 already: one row in the
    form of Z, over DK_SCALE (channels, N1).
    """
    M: tl.constexpr = NA * C * NB
    S: tl.constexpr = NB // BN if BN < NB else 1
    i_k = tl.program_id(0)
    i_c = tl.program_id(1).to(tl.int64)
    g1, g2 = _matrices(G1, G2, NA, NB, C2)
    p_filter = K + ((i_c + first_channel) * N1 + i_k) * (NA * C * C2)
    k_inverse = tl.load(K_INVERSE + i_c + first_channel)
    count = tl.load(COUNT + WHICH + 1) - tl.load(COUNT + WHICH)
    scales = i_c * capacity * (M // BN)
    base = (i_c * capacity * N1 + i_k) * (2 * M)
    step = N1 * (2 * M)
    sum_r = tl.zeros((NA // 8, 8, C, C2), tl.float32)
    sum_i = tl.zeros((NA // 8, 8, C, C2), tl.float32)
    for r in range(0, count, 2 // C):
        tile, x_scale = _fetch(ZX, ZX_SCALE + scales, base, step, r, count, NA, NB, C, S, BN)
        xr, xi = _spectrum(tile, g1, g2, T, NA, NB, C, C2, 0)
        spectrum = pack(xr, xi)
        tile, g_scale = _fetch(ZG, ZG_SCALE + scales, base, step, r, count, NA, NB, C, S, BN)
        gr, gi = _spectrum(tile, g1, g2, T, NA, NB, C, C2, 1)
        pr, pi = times_conjugate(gr, gi, spectrum)
        scale = (x_scale * g_scale)[None, None, :, None]
        sum_r += _over_rows(pr * scale, C)
        sum_i += _over_rows(pi * scale, C)
        zr, zi = times_conjugate(gr, gi, _table(p_filter, NA, C2, C))
        tile = _columns(zr * k_inverse, zi * k_inverse, g1, g2, T, NA, NB, C, C2)
        _store(ZG, base, step, r, count, tile, NA, NB, C, S)
        if NEEDS_Y:
            xr, xi = unpack_wide(spectrum)
            zr, zi = times(xr, xi, _table(p_filter, NA, C2, C, 1))
            tile = _columns(zr * k_inverse, zi * k_inverse, g1, g2, T, NA, NB, C, C2)
            _store(ZX, base, step, r, count, tile, NA, NB, C, S)
    where = (i_c + first_channel) * N1 + i_k
    if TAPS:
        largest = tl.maximum(largest_of(tl.abs(sum_r)), largest_of(tl.abs(sum_i)))
        scale, inverse = power_of_two(largest)
        zr = tl.broadcast_to(sum_r * inverse, (NA // 8, 8, 2, C2))
        zi = tl.broadcast_to(sum_i * inverse, (NA // 8, 8, 2, C2))
        tile = _columns(zr, zi, g1, g2, T, NA, NB, C, C2)
        _store(DK, where * (2 * M), 0, 0, 1, tile, NA, NB, C, S)
        tl.store(DK_SCALE + where, scale)
    else:
        p_sum = DK + where * (2 * NA * C * C2)
        store_table(p_sum, sum_r, C * NA, C2, 2 // C)
        store_table(p_sum + NA * C * C2, sum_i, C * NA, C2, 2 // C)


@triton.jit
def _over_rows(x, C: tl.constexpr):
    """Summed over the rows of data that a thread has."""
    if C == 2:
        return x
    else:
        return tl.sum(x, axis=2, keep_dims=True)


@triton.jit
def inner_filter_kernel(
    Z, Z_SCALE, K, K_LARGEST, G1, G2, T, COUNT, N1,
    NA: tl.constexpr, NB: tl.constexpr, C: tl.constexpr, C2: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Grid (N1, channels): a filter's taps after the outer transform to its spectrum K (channels, N1, NA C C2).

    K is packed, in thread order, over the taps' scale; K_LARGEST (channels, N1) is its largest part. One row of data, the first
    of the tile's.
    """
    if tl.load(COUNT + 1) == 0:
        return  # no row is convolved with it
    M: tl.constexpr = NA * C * NB
    S: tl.constexpr = NB // BN if BN < NB else 1
    i_k = tl.program_id(0)
    i_c = tl.program_id(1).to(tl.int64)
    g1, g2 = _matrices(G1, G2, NA, NB, C2)
    where = i_c * N1 + i_k
    tile, _ = _fetch(Z, Z_SCALE + i_c * (M // BN), where * (2 * M), 0, 0, 1, NA, NB, C, S, BN)
    xr, xi = _spectrum(tile, g1, g2, T, NA, NB, C, C2, 0)
    xr = _over_rows(xr, C)  # the other row is zeros
    xi = _over_rows(xi, C)
    store_table(K + where * (NA * C * C2), pack(xr, xi), C * NA, C2, 2 // C)
    tl.store(K_LARGEST + where, tl.maximum(largest_of(tl.abs(xr)), largest_of(tl.abs(xi))))
