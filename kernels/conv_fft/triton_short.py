"""Short documents by products with Toeplitz matrices: y[d, t] = sum_s x[d, s] k[t - s], documents d as rows.

Up to some hundred samples that is as many operations as a transform's, in one sum instead of a chain, and a document is padded
to a multiple of a chunk. A tile of the matrix comes from a table of eight shifts of the filter, so that whole vectors are
read from aligned addresses: table[7 - r, x] = f[x - OFF - r], f[m] = k[m], or k[-m] for the transposed product. Operands are
float16, each document and each filter over a power of two; bfloat16 for the filter's gradient, a sum over documents.
"""

# Triton's decorators hide from type checkers how kernels are launched and what they return.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false
# pyright: reportAssignmentType=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.conv_fft.triton_fused import edges_of, framed, power_of_two, save_gated
from kernels.conv_toeplitz.product import diagonals
from kernels.triton_support import operand


@triton.jit
def shifts_kernel(
    TAPS, TABLE, K_SCALE, taps, row_taps, WIDTH, OFF: tl.constexpr, TRANSPOSED: tl.constexpr, LONGEST: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (channels, 8): a row of TABLE (channels, 8, WIDTH) from TAPS (channels, row_taps), of which `taps` are read."""
    i_h = tl.program_id(0).to(tl.int64)
    i_r = tl.program_id(1)
    all_taps = tl.arange(0, LONGEST)
    k = tl.load(TAPS + i_h * row_taps + all_taps, mask=all_taps < taps, other=0.0)
    scale, inverse = power_of_two(tl.max(tl.abs(k), axis=0))
    tl.store(K_SCALE + i_h, scale)
    for at in range(0, WIDTH, BLOCK):
        x = at + tl.arange(0, BLOCK)
        lag = x - OFF - 7 + i_r
        if TRANSPOSED:
            lag = -lag
        tap = tl.load(TAPS + i_h * row_taps + lag, mask=(lag >= 0) & (lag < taps), other=0.0)
        tl.store(TABLE + (i_h * 8 + i_r) * WIDTH + x, (tap * inverse).to(tl.float16), mask=x < WIDTH)


@triton.jit
def _documents(FIRST, SHIFT, LENGTH, tile, end, h_offset, limit, R: tl.constexpr, ALIGN: tl.constexpr):
    """Where R documents' frames begin in a channel, and where they begin and end in their frames, each (R, 1).

    And the shortest frame's length, and the longest's. limit: of what is beyond it in a frame nothing is read or written.
    """
    r = tile * R + tl.arange(0, R)
    there = r < end
    first = tl.multiple_of(tl.load(FIRST + r, mask=there, other=0) + h_offset, ALIGN)[:, None]
    shift = tl.load(SHIFT + r, mask=there, other=0)[:, None]
    length = tl.minimum(tl.load(LENGTH + r, mask=there, other=0), limit)
    return first, shift, length[:, None], tl.min(length, axis=0), tl.max(length, axis=0)


@triton.jit
def _samples(X, GATE, first, shift, length, t, edge, HAS_GATE: tl.constexpr, FRAMED: tl.constexpr):
    """Gated samples t (1, columns) of documents in float32, zeros outside of them which `edge` says there may be."""
    read = (t // 8 * 8 < length) & (t >= 0) if FRAMED else (t >= shift) & (t < length)
    x = tl.load(X + first + t, mask=read, other=0.0).to(tl.float32)
    if HAS_GATE:
        x *= tl.load(GATE + first + t, mask=read, other=0.0).to(tl.float32)
    if edge:
        x = framed(x, t, shift, length, 2)
    return x


@triton.jit
def short_kernel(
    X, GATE, A, OUT_A, B, OUT_B, TABLE, K_SCALE, FIRST, SHIFT, LENGTH, COUNT, row_length, limit, WIDTH,
    R: tl.constexpr, BK: tl.constexpr, BO: tl.constexpr, OFF: tl.constexpr, TRANSPOSED: tl.constexpr,
    HAS_GATE: tl.constexpr, HAS_A: tl.constexpr, HAS_B: tl.constexpr, ALIGN: tl.constexpr, TYPE: tl.constexpr,
    FRAMED: tl.constexpr,
):  # fmt: skip
    """Grid (splits, channels): y, the convolution of X times GATE, or the transposed one; times A into OUT_A, B into OUT_B.

    Documents 0 ... COUNT[1] of the table, R at a time. TABLE (channels, 8, WIDTH) float16, over K_SCALE
    (channels,).
    """
    i_h = tl.program_id(1).to(tl.int64)
    end = tl.load(COUNT + 1)
    k_scale = tl.load(K_SCALE + i_h)
    i = tl.arange(0, BK)
    o = tl.arange(0, BO)
    p_table = TABLE + i_h * (8 * WIDTH) + (7 - i % 8)[:, None] * WIDTH + OFF + o[None, :] - (i // 8 * 8)[:, None]
    for tile in range(tl.program_id(0), tl.cdiv(end, R), tl.num_programs(0)):
        first, shift, length, shortest, longest = _documents(FIRST, SHIFT, LENGTH, tile, end, i_h * row_length, limit, R, ALIGN)
        largest = tl.zeros((R, BK), tl.float32)
        for at in range(0, longest, BK):
            x = _samples(X, GATE, first, shift, length, at + i[None, :], (at < 8) | (at + BK > shortest), HAS_GATE, FRAMED)
            largest = tl.maximum(largest, tl.abs(x))
        scale, inverse = power_of_two(tl.max(largest, axis=1, keep_dims=True))
        scale *= k_scale
        for begin in range(0, longest, BO):
            y = tl.zeros((R, BO), tl.float32)
            lo = begin if TRANSPOSED else 0
            hi = longest if TRANSPOSED else tl.minimum(begin + BO, longest)
            for at in range(lo, hi, BK):
                x = _samples(X, GATE, first, shift, length, at + i[None, :], (at < 8) | (at + BK > shortest), HAS_GATE, FRAMED)
                y = tl.dot((x * inverse).to(tl.float16), tl.load(p_table + tl.multiple_of(begin - at, BK)), y)
            y *= scale
            start = tl.zeros((R, 1), tl.int32) + begin
            head, tail = edges_of(y, start, shift, length, R, BO)
            if HAS_B:
                save_gated(OUT_B, B, first, start, shift, length, y, head, tail, True, TYPE, R, BO, FRAMED)
            save_gated(OUT_A, A, first, start, shift, length, y, head, tail, HAS_A, TYPE, R, BO, FRAMED)


@triton.jit
def short_filter_gradient_kernel(
    X, PRE, G, POST, PARTS, FIRST, SHIFT, LENGTH, COUNT, row_length, limit, blocks,
    R: tl.constexpr, C: tl.constexpr, M: tl.constexpr, HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, ALIGN: tl.constexpr,
    TYPE: tl.constexpr, FRAMED: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of lags / M, channels): sums of x_i^T g_o over chunks of C samples i, o = i + j, and their diagonals' sums.

    PARTS (channels, blocks, 2 C) float32: entry C + m of block j is the part of dk[j C + m], -C <= m < C.
    """
    first_block = M * tl.program_id(0)
    i_h = tl.program_id(1).to(tl.int64)
    end = tl.load(COUNT + 1)
    c = tl.arange(0, C)
    sums = ()
    for _ in tl.static_range(M):
        sums += (tl.zeros((C, C), tl.float32),)
    for tile in range(0, tl.cdiv(end, R)):
        first, shift, length, shortest, longest = _documents(FIRST, SHIFT, LENGTH, tile, end, i_h * row_length, limit, R, ALIGN)
        for at in range(first_block * C, longest, C):
            g = _samples(G, POST, first, shift, length, at + c[None, :], (at < 8) | (at + C > shortest), HAS_POST, FRAMED)
            g = operand(g, TYPE)
            added = ()
            for m in tl.static_range(M):
                past = at - (first_block + m) * C
                x = _samples(
                    X, PRE, first, shift, length, past + c[None, :], (past < 8) | (past + C > shortest), HAS_PRE, FRAMED
                )
                added += (tl.dot(tl.trans(operand(x, TYPE)), g, sums[m]),)
            sums = added
    p_part = PARTS + (i_h * blocks + first_block) * (2 * C) + c
    for m in tl.static_range(M):
        low, high = diagonals(sums[m], C)
        tl.store(p_part + m * 2 * C + C, low)
        tl.store(p_part + m * 2 * C, high)
