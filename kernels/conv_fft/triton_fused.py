"""One program per row, or several: the whole right-angle transform, its product with the filter and the way back, on chip.

In the tiles of `triton_tiles`: a row of data whose first factor N1 is 64 or 128; two with 32, side by side; four with 16, of
which two and two are one above the other, block-diagonal in the first factor. A *line* is N2 samples of a row, lines are
ordered as (P, N1, D). float16 operands, float32 sums. Each row is scaled by a power of two to a largest value in [1, 2).
"""

# Triton's decorators hide from type checkers how kernels are launched and what they return.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false
# pyright: reportAssignmentType=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.conv_fft.triton_complex import pack, power_of_two, times, times_conjugate, unpack_wide
from kernels.conv_fft.triton_tiles import lying, of_lying, of_standing, standing, store_table, table
from kernels.triton_support import narrow


@triton.jit
def scaled(x, P: tl.constexpr, N1: tl.constexpr, D: tl.constexpr):
    """Lines x (P N1 D, N2) in float16, each row of data over its scale; the scales, (P, D), or a scalar where there is one row.

    Rows one above the other meet zeros of each other's matrix, and zero times NaN is NaN: where a sample is not finite, zero is
    transformed, and the scale is NaN.
    """
    largest = tl.max(tl.abs(x), axis=1)
    if P * D == 1:
        scale, inverse = power_of_two(tl.max(largest, axis=0))
    else:
        scale, inverse = power_of_two(tl.max(tl.reshape(largest, (P, N1, D)), axis=1))
    if P > 1:
        broken = (tl.abs(x) < float("inf")) == 0
        x = tl.where(broken, 0.0, x)
        broken = tl.max(tl.reshape(tl.max(broken.to(tl.int32), axis=1), (P, N1, D)), axis=1)
        scale = tl.where(broken > 0, float("nan"), scale)
    return (x * by_line(inverse, P, N1, D)).to(tl.float16), scale


@triton.jit
def by_line(value, P: tl.constexpr, N1: tl.constexpr, D: tl.constexpr):
    """Each row's value at its lines, (P N1 D, 1)."""
    if P * D == 1:
        return value
    else:
        return tl.reshape(tl.broadcast_to(value[:, None, :], (P, N1, D)), (P * N1 * D, 1))


@triton.jit
def by_number(value, P: tl.constexpr, N1: tl.constexpr, D: tl.constexpr):
    """Each row's value at the numbers of its transform, (W, 1, 2, 1)."""
    if P * D == 1:
        return value
    else:
        return tl.reshape(tl.broadcast_to(value[:, None, :], (P, N1 // 8, D)), (P * N1 // 8, D))[:, None, :, None]


# What was loaded before is loaded again rather than kept: registers are what these kernels lack, and the first-level cache
# has it. The compiler takes two loads of one address for one, unless they differ in something; `AGAIN` gives them another
# cache modifier.


@triton.jit
def load(pointer, offset, mask, FULL: tl.constexpr, AGAIN: tl.constexpr = False):
    """Samples in float32, zero outside the mask."""
    modifier: tl.constexpr = ".ca" if AGAIN else ""
    if FULL:
        return tl.load(pointer + offset, cache_modifier=modifier).to(tl.float32)
    else:
        return tl.load(pointer + offset, mask=mask, other=0.0, cache_modifier=modifier).to(tl.float32)


@triton.jit
def save(pointer, offset, mask, value, FULL: tl.constexpr, TYPE: tl.constexpr):
    """Store samples of the mask."""
    if FULL:
        tl.store(pointer + offset, narrow(value, TYPE))
    else:
        tl.store(pointer + offset, narrow(value, TYPE), mask=mask)


@triton.jit
def framed(x, sample, shift, length):
    """What is loaded as whole groups of eight, without what is not the document's: shift <= sample < length."""
    inside = (sample - shift).to(tl.uint32, bitcast=True) < (length - shift).to(tl.uint32, bitcast=True)
    return tl.where(inside, x, 0.0)


@triton.jit
def edges_of(value, start, shift, length, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """The first eight samples of a frame and its last group of eight, each (ROWS, 8), zeros in rows that have none of them.

    value (ROWS, WIDTH): its row is samples start ... start + WIDTH - 1 of the frame, start (ROWS, 1) a multiple of eight. Taken
    as products leave it, before gates, for then a row's groups are in one thread.
    """
    groups = tl.reshape(value, (ROWS, WIDTH // 8, 8))
    number = tl.arange(0, WIDTH // 8)[None, :, None]
    place = tl.reshape((length // 8 * 8 - start) // 8, (ROWS, 1, 1))
    return tl.sum(tl.where(number == 0, groups, 0.0), axis=1), tl.sum(tl.where(number == place, groups, 0.0), axis=1)


@triton.jit
def save_framed(
    pointer, GATE, first, start, shift, length, value, head, tail, HAS_GATE: tl.constexpr, TYPE: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Store samples shift ... length - 1 of frames at `first`, times the gate, whole groups of eight first.

    What is left of the first group and the last comes from `edges_of`: of the tile it would take a store for each sample.
    """
    save_whole(pointer, GATE, first, start, shift, length, value, HAS_GATE, TYPE, WIDTH)
    save_edges(pointer, GATE, first, start, shift, length, head, tail, HAS_GATE, TYPE, WIDTH)


@triton.jit
def save_whole(
    pointer, GATE, first, start, shift, length, value, HAS_GATE: tl.constexpr, TYPE: tl.constexpr, WIDTH: tl.constexpr
):  # fmt: skip
    """What of that is in whole groups of eight."""
    column = tl.arange(0, WIDTH)[None, :]
    eighth = start + column // 8 * 8
    whole = (eighth >= shift) & (eighth + 8 <= length)
    at = first + start + column
    if HAS_GATE:
        value *= tl.load(GATE + at, mask=whole, other=0.0, cache_modifier=".ca").to(tl.float32)
    tl.store(pointer + at, narrow(value, TYPE), mask=whole)


@triton.jit
def save_edges(
    pointer, GATE, first, start, shift, length, head, tail, HAS_GATE: tl.constexpr, TYPE: tl.constexpr, WIDTH: tl.constexpr
):  # fmt: skip
    """The rest."""
    inner = tl.arange(0, 8)[None, :]
    sample = length // 8 * 8 + inner
    there = (sample >= start + inner) & (sample < start + WIDTH) & (sample >= shift) & (sample < length)
    _save_edge(pointer, GATE, first + sample, tail, there, HAS_GATE, TYPE)
    there = (start == 0) & (shift > 0) & (length >= 8) & (inner >= shift)
    _save_edge(pointer, GATE, first + start + inner, head, there, HAS_GATE, TYPE)


@triton.jit
def _save_edge(pointer, GATE, at, value, mask, HAS_GATE: tl.constexpr, TYPE: tl.constexpr):
    if HAS_GATE:
        value *= tl.load(GATE + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(pointer + at, narrow(value, TYPE), mask=mask)


@triton.jit
def matrices(G1, G2, BM: tl.constexpr, N2: tl.constexpr, C2: tl.constexpr):
    """(2 BM, BM) and (2 N2, 2 C2) float16."""
    columns = tl.arange(0, 2 * C2)
    g1 = tl.load(G1 + tl.arange(0, 2 * BM)[:, None] * BM + tl.arange(0, BM)[None, :])
    return g1, tl.load(G2 + tl.arange(0, 2 * N2)[:, None] * (2 * C2) + columns[None, :])


@triton.jit
def spectrum_of(
    x, g1, g2, T, N1: tl.constexpr, N2: tl.constexpr, C2: tl.constexpr, D: tl.constexpr, P: tl.constexpr, TIME: tl.constexpr
):  # fmt: skip
    """The right-angle transform of real float16 lines, (P N1 D, N2): real and imaginary parts, (W, 8, 2, C2)."""
    BM: tl.constexpr = P * N1
    ar, ai = of_standing(tl.dot(g1, tl.reshape(x, (BM, D * N2))), BM, N2, D)
    ar, ai = times(ar, ai, table(T, N1, N2, D, P, TIME))
    return of_lying(tl.dot(lying(ar, ai, BM, N2, D), g2), BM, C2, D)


@triton.jit
def samples_of(
    zr, zi, g1, g2, T, N1: tl.constexpr, N2: tl.constexpr, C2: tl.constexpr, D: tl.constexpr, P: tl.constexpr
):  # fmt: skip
    """The real part of the inverse transform: lines (P N1 D, N2), float32."""
    BM: tl.constexpr = P * N1
    er, ei = of_lying(tl.dot(lying(zr, zi, BM, C2, D), tl.trans(g2)), BM, N2, D)
    er, ei = times_conjugate(er, ei, table(T, N1, N2, D, P, 2))
    return tl.reshape(tl.dot(tl.trans(g1), standing(er, ei, BM, N2, D)), (BM * D, N2))


# What varies from launch to launch: no kernel is compiled for its values.
@triton.jit(do_not_specialize=["WHICH"])
def fused_fwd_kernel(
    U, PRE, POST, Y, K, K_SCALE, G1, G2, T, FIRST, SHIFT, LENGTH, COUNT, WHICH, row_length,
    N1: tl.constexpr, N2: tl.constexpr, C2: tl.constexpr, D: tl.constexpr, P: tl.constexpr,
    HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, FULL: tl.constexpr, ALIGN: tl.constexpr, TYPE: tl.constexpr,
    FRAMED: tl.constexpr,
):  # fmt: skip
    """Grid (splits, channels). Rows COUNT[WHICH] ... COUNT[WHICH + 1] of the table FIRST, LENGTH, P at a time.

    FULL: rows have N1 N2 samples each. FRAMED: others, whose frames begin at multiples of eight.
    """
    i_s = tl.program_id(0)
    i_h = tl.program_id(1).to(tl.int64)
    begin = tl.load(COUNT + WHICH)
    end = tl.load(COUNT + WHICH + 1)
    if begin + i_s * (P * D) >= end:
        return
    LINES: tl.constexpr = P * N1 * D
    g1, g2 = matrices(G1, G2, P * N1, N2, C2)
    p_filter = K + i_h * (N1 * C2)
    k_scale = tl.load(K_SCALE + i_h)
    line = tl.arange(0, LINES)
    start = (line // D % N1)[:, None] * N2
    sample = start + tl.arange(0, N2)[None, :]
    eighth = sample // 8 * 8
    none = tl.zeros((LINES, 1), tl.int32)  # where all lines of the tile are one frame's
    for r in range(begin + i_s * (P * D), end, tl.num_programs(0) * (P * D)):
        if P * D == 1:
            first = tl.multiple_of(tl.load(FIRST + r) + i_h * row_length, ALIGN)
            shift = tl.load(SHIFT + r)
            length = tl.load(LENGTH + r)
        else:
            row = r + line // (N1 * D) * D + line % D
            there = row < end
            first = tl.multiple_of(tl.load(FIRST + row, mask=there, other=0) + i_h * row_length, ALIGN)[:, None]
            shift = tl.load(SHIFT + row, mask=there, other=0)[:, None]
            length = tl.load(LENGTH + row, mask=there, other=0)[:, None]
        mask = (sample >= shift) & (sample < length)
        read = eighth < length if FRAMED else mask
        offset = first + sample
        x = load(U, offset, read, FULL)
        if HAS_PRE:
            x *= load(PRE, offset, read, FULL)
        if FRAMED:
            x = framed(x, sample, shift, length)
        x, scale = scaled(x, P, N1, D)
        xr, xi = spectrum_of(x, g1, g2, T, N1, N2, C2, D, P, 0)
        zr, zi = times(xr, xi, table(p_filter, N1, C2, D, P))
        y = samples_of(zr, zi, g1, g2, T, N1, N2, C2, D, P) * by_line(scale * k_scale, P, N1, D)
        if FRAMED:
            head, tail = edges_of(y, start, shift + none, length + none, LINES, N2)
            save_framed(Y, POST, first, start, shift + none, length + none, y, head, tail, HAS_POST, TYPE, LINES, N2)
        else:
            if HAS_POST:
                y *= load(POST, offset, mask, FULL)
            save(Y, offset, mask, y, FULL, TYPE)


# What varies from launch to launch: no kernel is compiled for its values.
@triton.jit(do_not_specialize=["WHICH"])
def fused_bwd_kernel(
    DY, U, PRE, POST, DU, DPRE, DPOST, DK, K, K_SCALE, G1, G2, T, FIRST, SHIFT, LENGTH, COUNT, WHICH,
    row_length,
    N1: tl.constexpr, N2: tl.constexpr, C2: tl.constexpr, D: tl.constexpr, P: tl.constexpr,
    HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, FULL: tl.constexpr, ALIGN: tl.constexpr, TYPE: tl.constexpr,
    FRAMED: tl.constexpr,
):  # fmt: skip
    """Gradients; the transform of the input is computed again.

    DK (splits, channels, P, 2, N1 C2) in thread order: sums over a program's rows, every P-th pair (or row).
    """
    i_s = tl.program_id(0)
    i_h = tl.program_id(1).to(tl.int64)
    LINES: tl.constexpr = P * N1 * D
    g1, g2 = matrices(G1, G2, P * N1, N2, C2)
    p_filter = K + i_h * (N1 * C2)
    k_scale = tl.load(K_SCALE + i_h)
    line = tl.arange(0, LINES)
    start = (line // D % N1)[:, None] * N2
    sample = start + tl.arange(0, N2)[None, :]
    eighth = sample // 8 * 8
    none = tl.zeros((LINES, 1), tl.int32)  # where all lines of the tile are one frame's
    begin = tl.load(COUNT + WHICH)
    end = tl.load(COUNT + WHICH + 1)
    sum_r = tl.zeros((LINES // 16, 8, 2 // D, C2), tl.float32)
    sum_i = tl.zeros((LINES // 16, 8, 2 // D, C2), tl.float32)
    for r in range(begin + i_s * (P * D), end, tl.num_programs(0) * (P * D)):
        if P * D == 1:
            first = tl.multiple_of(tl.load(FIRST + r) + i_h * row_length, ALIGN)
            shift = tl.load(SHIFT + r)
            length = tl.load(LENGTH + r)
        else:
            row = r + line // (N1 * D) * D + line % D
            there = row < end
            first = tl.multiple_of(tl.load(FIRST + row, mask=there, other=0) + i_h * row_length, ALIGN)[:, None]
            shift = tl.load(SHIFT + row, mask=there, other=0)[:, None]
            length = tl.load(LENGTH + row, mask=there, other=0)[:, None]
        mask = (sample >= shift) & (sample < length)
        read = eighth < length if FRAMED else mask
        offset = first + sample
        x = load(U, offset, read, FULL)
        if HAS_PRE:
            x *= load(PRE, offset, read, FULL)
        if FRAMED:
            x = framed(x, sample, shift, length)
        x, x_scale = scaled(x, P, N1, D)
        xr, xi = spectrum_of(x, g1, g2, T, N1, N2, C2, D, P, 0)
        spectrum = pack(xr, xi)
        g = load(DY, offset, read, FULL)
        if HAS_POST:
            g *= load(POST, offset, read, FULL)
        if FRAMED:
            g = framed(g, sample, shift, length)
        g, g_scale = scaled(g, P, N1, D)
        gr, gi = spectrum_of(g, g1, g2, T, N1, N2, C2, D, P, 1)
        pr, pi = times_conjugate(gr, gi, spectrum)
        both = by_number(x_scale * g_scale, P, N1, D)
        sum_r += _over_rows(pr * both, D)
        sum_i += _over_rows(pi * both, D)
        zr, zi = times_conjugate(gr, gi, table(p_filter, N1, C2, D, P))
        dx = samples_of(zr, zi, g1, g2, T, N1, N2, C2, D, P) * by_line(g_scale * k_scale, P, N1, D)
        if FRAMED:
            head, tail = edges_of(dx, start, shift + none, length + none, LINES, N2)
            if HAS_PRE:
                save_framed(DPRE, U, first, start, shift + none, length + none, dx, head, tail, True, TYPE, LINES, N2)
            save_framed(DU, PRE, first, start, shift + none, length + none, dx, head, tail, HAS_PRE, TYPE, LINES, N2)
        else:
            if HAS_PRE:
                save(DPRE, offset, mask, dx * load(U, offset, mask, FULL, True), FULL, TYPE)
                dx *= load(PRE, offset, mask, FULL, True)
            save(DU, offset, mask, dx, FULL, TYPE)
        if HAS_POST:
            xr, xi = unpack_wide(spectrum)
            zr, zi = times(xr, xi, table(p_filter, N1, C2, D, P, 1))
            y = samples_of(zr, zi, g1, g2, T, N1, N2, C2, D, P) * by_line(x_scale * k_scale, P, N1, D)
            if FRAMED:
                head, tail = edges_of(y, start, shift + none, length + none, LINES, N2)
                save_framed(DPOST, DY, first, start, shift + none, length + none, y, head, tail, True, TYPE, LINES, N2)
            else:
                save(DPOST, offset, mask, y * load(DY, offset, mask, FULL, True), FULL, TYPE)
    p_sum = DK + (i_s * tl.num_programs(1) + i_h) * (2 * P * N1 * C2)
    store_table(p_sum, sum_r, N1, C2, D, P, 2 * N1 * C2)
    store_table(p_sum + N1 * C2, sum_i, N1, C2, D, P, 2 * N1 * C2)


@triton.jit
def _over_rows(values, D: tl.constexpr):
    """Summed over the two rows of data that a thread has."""
    if D == 1:
        return values
    else:
        return tl.sum(values, axis=2, keep_dims=True)
