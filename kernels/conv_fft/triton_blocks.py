"""Long documents, block by block: a causal filter cut into blocks of N taps, a document into blocks of N samples.

A right-angle transform of N points gives more than the first N samples of x * k: those that would wrap around come back in the
imaginary part, which are the next N. With X_j the transform of a document's j-th block and K_b that of the b-th block of taps,
    y_j = real part of the inverse of sum_{b <= j} G_b X_{j-b},    G_b = K_b - i K_{b-1},    K_{-1} = 0
for -i brings the imaginary part of what K_{b-1} made to the real one. So a block takes one transform and one inverse whatever
is before it, and a document is padded to a multiple of N, not to a power of two. Gradients:
    dx_j: sum_b conj(G_b) dY_{j+b}        dk_b: sum_j dY_j conj(X_{j-b} - i X_{j-b-1})
Transforms go through memory as packed float16, each block with a power of two of its own.
"""

# Triton's decorators hide from type checkers how kernels are launched and what they return.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false
# pyright: reportAssignmentType=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.conv_fft.triton_complex import pack, plus_times, shrunk, unpack_wide
from kernels.conv_fft.triton_fused import edges_of, framed, matrices, samples_of, save_edges, save_whole, scaled, spectrum_of
from kernels.conv_fft.triton_tiles import store_table, table
from kernels.triton_support import narrow


@triton.jit(do_not_specialize=["WHICH", "blocks", "slots"])
def block_items_kernel(ITEMS, STEPS, LENGTH, COUNT, WHICH, blocks, slots, N: tl.constexpr, ROWS: tl.constexpr):
    """Grid (blocks / 4,). ITEMS (slots + 1,), the class's blocks in order: which document times `blocks`, plus which block.

    STEPS (blocks / 4, slots + 1): the same without the first 0, 4, 8, ... blocks of each document, which item times `blocks`,
    plus which of its document's blocks. Both have their number at the end.
    """
    begin = tl.load(COUNT + WHICH)
    end = tl.load(COUNT + WHICH + 1)
    without = tl.program_id(0) * 4
    p_steps = STEPS + tl.program_id(0) * (slots + 1)
    items = 0
    steps = 0
    for r in range(begin, end, ROWS):
        row = r + tl.arange(0, ROWS)
        count = tl.minimum(tl.cdiv(tl.load(LENGTH + row, mask=row < end, other=0), N), blocks)
        left = tl.maximum(count - without, 0)
        item = items + tl.cumsum(count, axis=0) - count
        step = steps + tl.cumsum(left, axis=0) - left - without
        for j in range(0, blocks):
            if without == 0:
                tl.store(ITEMS + item + j, (row - begin) * blocks + j, mask=j < count)
            tl.store(p_steps + step + j, (item + j) * blocks + j, mask=(j >= without) & (j < count))
        items += tl.sum(count, axis=0)
        steps += tl.sum(left, axis=0)
    tl.store(p_steps + slots, steps)
    if without == 0:
        tl.store(ITEMS + slots, items)


@triton.jit
def _item(ITEMS, FIRST, SHIFT, LENGTH, i, begin, blocks, N: tl.constexpr):
    """Of the i-th block: its document's frame in channel 0, where it begins and ends in it, its blocks, which one this is."""
    item = tl.load(ITEMS + i)
    r = begin + item // blocks
    length = tl.load(LENGTH + r)
    return tl.load(FIRST + r), tl.load(SHIFT + r), length, tl.minimum(tl.cdiv(length, N), blocks), item % blocks


@triton.jit(do_not_specialize=["WHICH", "first_channel", "slots", "blocks"])
def block_spectra_kernel(
    U, PRE, Z, Z_SCALE, G1, G2, T, ITEMS, FIRST, SHIFT, LENGTH, COUNT, WHICH, row_length, first_channel, slots, blocks,
    N1: tl.constexpr, N2: tl.constexpr, C2: tl.constexpr, HAS_PRE: tl.constexpr, ALIGN: tl.constexpr, FRAMED: tl.constexpr,
):  # fmt: skip
    """Grid (splits, channels of the group): Z (channels, slots, N1 C2) packed, in thread order. Z_SCALE (channels, slots)."""
    i_c = tl.program_id(1).to(tl.int64)
    N: tl.constexpr = N1 * N2
    begin = tl.load(COUNT + WHICH)
    total = tl.load(ITEMS + slots)
    if tl.program_id(0) >= total:
        return
    g1, g2 = matrices(G1, G2, N1, N2, C2)
    for i in range(tl.program_id(0), total, tl.num_programs(0)):
        first, shift, length, count, j = _item(ITEMS, FIRST, SHIFT, LENGTH, i, begin, blocks, N)
        first = tl.multiple_of(first + (i_c + first_channel) * row_length, ALIGN)
        sample = ((tl.arange(0, N1) + j * N1) * N2)[:, None] + tl.arange(0, N2)[None, :]
        mask = (sample // 8 * 8 < length) if FRAMED else (sample >= shift) & (sample < length)
        x = tl.load(U + first + sample, mask=mask, other=0.0).to(tl.float32)
        if HAS_PRE:
            x *= tl.load(PRE + first + sample, mask=mask, other=0.0).to(tl.float32)
        if FRAMED:  # noqa: SIM102, one is the compiler's, one the kernel's
            if (j == 0) | (j == count - 1):
                x = framed(x, sample, shift, length)
        x, scale = scaled(x, 1, N1, 1)
        xr, xi = spectrum_of(x, g1, g2, T, N1, N2, C2, 1, 1, 0)
        at = i_c * slots + i
        store_table(Z + at * (N1 * C2), pack(xr, xi), N1, C2, 1)
        tl.store(Z_SCALE + at, scale)


@triton.jit
def _save_block(
    A, A_GATE, B, B_GATE, first, shift, length, j, last, y,
    N1: tl.constexpr, N2: tl.constexpr, HAS_A: tl.constexpr, HAS_B: tl.constexpr, TYPE: tl.constexpr, FRAMED: tl.constexpr,
):  # fmt: skip
    """A block of results times the one gate into A, times the other into B. last: the row's last block."""
    start = ((tl.arange(0, N1) + j * N1) * N2)[:, None]
    if FRAMED:
        if (j == 0) | (j == last):
            shifts = tl.zeros((N1, 1), tl.int32) + shift
            lengths = tl.zeros((N1, 1), tl.int32) + length
            head, tail = edges_of(y, start, shifts, lengths, N1, N2)
            if HAS_B:
                save_edges(B, B_GATE, first, start, shifts, lengths, head, tail, True, TYPE, N2)
            save_edges(A, A_GATE, first, start, shifts, lengths, head, tail, HAS_A, TYPE, N2)
        if HAS_B:
            save_whole(B, B_GATE, first, start, shift, length, y, True, TYPE, N2)
        save_whole(A, A_GATE, first, start, shift, length, y, HAS_A, TYPE, N2)
    else:
        sample = start + tl.arange(0, N2)[None, :]
        mask = (sample >= shift) & (sample < length)
        if HAS_B:
            gate = tl.load(B_GATE + first + sample, mask=mask, other=0.0).to(tl.float32)
            tl.store(B + first + sample, narrow(y * gate, TYPE), mask=mask)
        if HAS_A:
            y *= tl.load(A_GATE + first + sample, mask=mask, other=0.0).to(tl.float32)
        tl.store(A + first + sample, narrow(y, TYPE), mask=mask)


@triton.jit
def _largest(scales):
    """The largest scale of a sum's terms and its inverse: times that, all are powers of two (see `tile_spectrum_kernel`)."""
    largest = tl.minimum(tl.maximum(tl.max(scales, axis=0), 1.1754943508222875e-38), 8.507059173023462e37)  # 2^-126, 2^126
    return largest, 1.0 / largest


@triton.jit(do_not_specialize=["WHICH", "first_channel", "slots", "blocks"])
def block_product_kernel(
    Z, Z_SCALE, K, K_SCALE, A, OUT_A, B, OUT_B, G1, G2, T, ITEMS, FIRST, SHIFT, LENGTH, COUNT, WHICH, row_length,
    first_channel, slots, blocks,
    N1: tl.constexpr, N2: tl.constexpr, C2: tl.constexpr, TERMS: tl.constexpr, CONJUGATE: tl.constexpr,
    HAS_A: tl.constexpr, HAS_B: tl.constexpr, ALIGN: tl.constexpr, TYPE: tl.constexpr, FRAMED: tl.constexpr,
):  # fmt: skip
    """Grid (splits, channels of the group): y times A into OUT_A, times B into OUT_B.

    y: the filter's convolution, or CONJUGATE the transposed one, for gradients. K (channels, blocks, N1 C2): G, packed. TERMS:
    no less than blocks.
    """
    i_c = tl.program_id(1).to(tl.int64)
    i_h = i_c + first_channel
    N: tl.constexpr = N1 * N2
    STEP: tl.constexpr = 1 if CONJUGATE else -1
    begin = tl.load(COUNT + WHICH)
    total = tl.load(ITEMS + slots)
    if tl.program_id(0) >= total:
        return
    g1, g2 = matrices(G1, G2, N1, N2, C2)
    p_k_scale = K_SCALE + i_h * blocks
    term = tl.arange(0, TERMS)
    for i in range(tl.program_id(0), total, tl.num_programs(0)):
        first, shift, length, count, j = _item(ITEMS, FIRST, SHIFT, LENGTH, i, begin, blocks, N)
        first = tl.multiple_of(first + i_h * row_length, ALIGN)
        terms = count - j if CONJUGATE else j + 1
        at = i_c * slots + i
        there = term < terms
        scales = tl.load(Z_SCALE + at + STEP * term, mask=there, other=0.0) * tl.load(p_k_scale + term, mask=there, other=0.0)
        scale, inverse = _largest(scales)
        zr = tl.zeros((N1 // 16, 8, 2, C2), tl.float32)
        zi = tl.zeros((N1 // 16, 8, 2, C2), tl.float32)
        for b in range(0, terms):
            other = at + STEP * b
            factor = tl.load(Z_SCALE + other) * tl.load(p_k_scale + b) * inverse
            xr, xi = unpack_wide(table(Z + other * (N1 * C2), N1, C2, 1))
            filter = shrunk(table(K + (i_h * blocks + b) * (N1 * C2), N1, C2, 1), factor)
            zr, zi = plus_times(zr, zi, xr, xi, filter, CONJUGATE)
        y = samples_of(zr, zi, g1, g2, T, N1, N2, C2, 1, 1) * scale
        _save_block(OUT_A, A, OUT_B, B, first, shift, length, j, count - 1, y, N1, N2, HAS_A, HAS_B, TYPE, FRAMED)


@triton.jit(do_not_specialize=["first_channel", "slots", "blocks"])
def block_filter_gradient_kernel(
    ZX, X_SCALE, ZG, G_SCALE, DK, STEPS, first_channel, slots, blocks, POINTS: tl.constexpr, TILE: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """Grid (POINTS / TILE, blocks / 4, channels of the group): DK (channels, blocks, 2, POINTS), the gradient of K.

    Of four blocks of taps at a time, so that each transform of a gradient meets four of inputs, each of which is loaded once.
    """
    b = tl.program_id(1) * 4
    i_c = tl.program_id(2).to(tl.int64)
    point = tl.program_id(0) * TILE + tl.arange(0, TILE)
    # Tensors of their own: variables of a loop that only exchange one value are taken for unchanged by the compiler.
    before_r, before_i = _zero(TILE), _zero(TILE)  # X_{j-b-1}
    # X_{j-b} - i X_{j-b-1} for four b
    w0r, w0i, w1r, w1i, w2r, w2i, w3r, w3i = (
        _zero(TILE), _zero(TILE), _zero(TILE), _zero(TILE), _zero(TILE), _zero(TILE), _zero(TILE), _zero(TILE)
    )  # fmt: skip
    s0r, s0i, s1r, s1i, s2r, s2i, s3r, s3i = (
        _zero(TILE), _zero(TILE), _zero(TILE), _zero(TILE), _zero(TILE), _zero(TILE), _zero(TILE), _zero(TILE)
    )  # fmt: skip
    p_steps = STEPS + tl.program_id(1) * (slots + 1)
    for i in tl.range(0, tl.load(p_steps + slots), num_stages=STAGES):
        step = tl.load(p_steps + i)
        at = i_c * slots + step // blocks
        x_scale = tl.load(X_SCALE + at - b)
        g_scale = tl.load(G_SCALE + at)
        xr, xi = unpack_wide(tl.load(ZX + (at - b) * POINTS + point))
        gr, gi = unpack_wide(tl.load(ZG + at * POINTS + point))
        xr *= x_scale
        xi *= x_scale
        gr *= g_scale
        gi *= g_scale
        w3r, w3i, w2r, w2i, w1r, w1i = w2r, w2i, w1r, w1i, w0r, w0i
        w0r = xr + before_i
        w0i = xi - before_r
        if step % blocks == b:  # a document's first
            w0r, w0i = xr, xi
            w1r, w1i, w2r, w2i, w3r, w3i = _zero(TILE), _zero(TILE), _zero(TILE), _zero(TILE), _zero(TILE), _zero(TILE)
        before_r = xr
        before_i = xi
        # One sum after the other: fused multiplications and additions.
        s0r = s0r + gr * w0r + gi * w0i
        s0i = s0i + gi * w0r - gr * w0i
        s1r = s1r + gr * w1r + gi * w1i
        s1i = s1i + gi * w1r - gr * w1i
        s2r = s2r + gr * w2r + gi * w2i
        s2i = s2i + gi * w2r - gr * w2i
        s3r = s3r + gr * w3r + gi * w3i
        s3i = s3i + gi * w3r - gr * w3i
    p_sum = DK + ((i_c + first_channel) * blocks + b) * (2 * POINTS) + point
    _save_sum(p_sum, s0r, s0i, b < blocks, POINTS)
    _save_sum(p_sum + 2 * POINTS, s1r, s1i, b + 1 < blocks, POINTS)
    _save_sum(p_sum + 4 * POINTS, s2r, s2i, b + 2 < blocks, POINTS)
    _save_sum(p_sum + 6 * POINTS, s3r, s3i, b + 3 < blocks, POINTS)


@triton.jit
def _zero(TILE: tl.constexpr):
    return tl.zeros((TILE,), tl.float32)


@triton.jit
def _save_sum(pointer, real, imaginary, there, POINTS: tl.constexpr):
    tl.store(pointer, real, mask=there)
    tl.store(pointer + POINTS, imaginary, mask=there)
