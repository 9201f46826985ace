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

from kernels.conv_fft.triton_complex import pack, plus_times, power_of_two, shrunk, times, times_conjugate, unpack_wide
from kernels.conv_fft.triton_fused import edges_of, framed, matrices, samples_of, save_edges, save_whole, scaled, spectrum_of
from kernels.conv_fft.triton_tiles import store_table, table
from kernels.triton_support import narrow


@triton.jit
def _slot(token, rank, N: tl.constexpr):
    """Where the transforms of the `rank`-th document's blocks are kept, whose frame begins at a token.

    Frames overlap by up to seven samples, so two more than `rank` full blocks lie between those of documents in order.
    """
    return token // N + 2 * rank


@triton.jit
def _ranks(LENGTH, begin, end, MOST: tl.constexpr):
    """(MOST,) how many documents of the class are taken before each: the longest first."""
    if MOST == 0:
        return 0
    else:
        i = tl.arange(0, MOST)
        mine = tl.load(LENGTH + begin + i, mask=i < end - begin, other=-1)[:, None]
        others = tl.load(LENGTH + begin + i, mask=i < end - begin, other=-1)[None, :]
        before = (others > mine) | ((others == mine) & (i[None, :] < i[:, None]))
        return tl.sum(before.to(tl.int32), axis=1)


@triton.jit
def _of_rank(ranks, n, MOST: tl.constexpr):
    if MOST == 0:
        return n
    else:
        return tl.sum(tl.where(ranks == n, tl.arange(0, MOST), 0), axis=0)


@triton.jit
def _loaded_block(
    X, GATE, first, shift, length, j,
    N1: tl.constexpr, N2: tl.constexpr, HAS_GATE: tl.constexpr, FRAMED: tl.constexpr,
):  # fmt: skip
    """The j-th block of a row, (N1, N2), and its gate's, or the same again."""
    sample = ((tl.arange(0, N1) + j * N1) * N2)[:, None] + tl.arange(0, N2)[None, :]
    mask = (sample // 8 * 8 < length) if FRAMED else (sample >= shift) & (sample < length)
    x = tl.load(X + first + sample, mask=mask, other=0.0)
    if HAS_GATE:
        return x, tl.load(GATE + first + sample, mask=mask, other=0.0)
    else:
        return x, x


@triton.jit
def _scaled_block(
    x, gate, shift, length, j, last, N1: tl.constexpr, N2: tl.constexpr, HAS_GATE: tl.constexpr, FRAMED: tl.constexpr
):  # fmt: skip
    """The j-th block of a row times its gate, (N1, N2) float16 over its scale, and that. last: the row's last block."""
    x = x.to(tl.float32)
    if HAS_GATE:
        x *= gate.to(tl.float32)
    if FRAMED:
        if (j == 0) | (j == last):
            sample = ((tl.arange(0, N1) + j * N1) * N2)[:, None] + tl.arange(0, N2)[None, :]
            x = framed(x, sample, shift, length)
    return scaled(x, 1, N1, 1)


@triton.jit
def _sum_of_products(
    xr, xi, x_scale, Z, Z_SCALE, K, K_SCALE, j, terms,
    N1: tl.constexpr, C2: tl.constexpr, MOST: tl.constexpr, CONJUGATE: tl.constexpr,
):  # fmt: skip
    """Sum over b < terms of G_b X_{j-b}, or CONJUGATE of conj(G_b) X_{j+b}, over a power of two, and that.

    xr, xi, x_scale: X_j. Z, Z_SCALE: the others of the document, from its first block. MOST: more than there are terms.
    """
    STEP: tl.constexpr = 1 if CONJUGATE else -1
    # The power of two that the products are brought to: no less than the largest of them.
    b = tl.arange(0, MOST)
    earlier = (b > 0) & (b < terms)
    scales = tl.load(Z_SCALE + j + STEP * b, mask=earlier, other=0.0) * tl.load(K_SCALE + b, mask=earlier, other=0.0)
    factor = x_scale * tl.load(K_SCALE)
    scale, inverse = power_of_two(tl.maximum(tl.max(scales, axis=0), factor))
    filter = shrunk(table(K, N1, C2, 1), factor * inverse)
    if CONJUGATE:
        zr, zi = times_conjugate(xr, xi, filter)
    else:
        zr, zi = times(xr, xi, filter)
    for i in range(1, terms):
        other = j + STEP * i
        factor = tl.load(Z_SCALE + other) * tl.load(K_SCALE + i) * inverse
        filter = shrunk(table(K + i * (N1 * C2), N1, C2, 1), factor)
        other_r, other_i = unpack_wide(table(Z + other * (N1 * C2), N1, C2, 1))
        zr, zi = plus_times(zr, zi, other_r, other_i, filter, CONJUGATE)
    return zr, zi, scale


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
            tl.store(B + first + sample, narrow(y * tl.load(B_GATE + first + sample, mask=mask, other=0.0).to(tl.float32), TYPE), mask=mask)
        if HAS_A:
            y *= tl.load(A_GATE + first + sample, mask=mask, other=0.0).to(tl.float32)
        tl.store(A + first + sample, narrow(y, TYPE), mask=mask)


@triton.jit(do_not_specialize=["WHICH", "channels", "blocks"])
def block_fwd_kernel(
    U, PRE, POST, Y, Z, Z_SCALE, TAKEN, K, K_SCALE, G1, G2, T, FIRST, SHIFT, LENGTH, COUNT, WHICH, row_length,
    channels, blocks,
    N1: tl.constexpr, N2: tl.constexpr, C2: tl.constexpr, TERMS: tl.constexpr, MOST: tl.constexpr,
    HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, ALIGN: tl.constexpr, TYPE: tl.constexpr, FRAMED: tl.constexpr,
    AHEAD: tl.constexpr,
):  # fmt: skip
    """Grid (programs,): each takes document after document, channel by channel, and walks over its blocks.

    Z (programs, blocks, N1 C2), Z_SCALE (programs, blocks): transforms of a program's document, packed in thread order. TAKEN:
    a zero, how many documents were taken. K (channels, blocks, N1 C2): G, packed. TERMS: no less than blocks. MOST: no less
    than the documents of the class, or zero, to take them as they lie.
    """
    N: tl.constexpr = N1 * N2
    begin = tl.load(COUNT + WHICH)
    end = tl.load(COUNT + WHICH + 1)
    documents = end - begin
    if documents == 0:
        return
    g1, g2 = matrices(G1, G2, N1, N2, C2)
    ranks = _ranks(LENGTH, begin, end, MOST)
    kept = tl.program_id(0).to(tl.int64) * blocks
    z_scale = Z_SCALE + kept
    z = Z + kept * (N1 * C2)
    taken = tl.program_id(0)
    while taken < documents * channels:
        i_h = (taken // documents).to(tl.int64)
        r = begin + _of_rank(ranks, taken % documents, MOST)
        first = tl.multiple_of(tl.load(FIRST + r) + i_h * row_length, ALIGN)
        shift = tl.load(SHIFT + r)
        length = tl.load(LENGTH + r)
        p_filter = K + i_h * blocks * (N1 * C2)
        p_k_scale = K_SCALE + i_h * blocks
        count = tl.minimum(tl.cdiv(length, N), blocks)
        if AHEAD:
            u, gate = _loaded_block(U, PRE, first, shift, length, 0, N1, N2, HAS_PRE, FRAMED)
        for j in range(0, count):
            if not AHEAD:
                u, gate = _loaded_block(U, PRE, first, shift, length, j, N1, N2, HAS_PRE, FRAMED)
            x, scale = _scaled_block(u, gate, shift, length, j, count - 1, N1, N2, HAS_PRE, FRAMED)
            if AHEAD:
                u, gate = _loaded_block(U, PRE, first, shift, length, j + 1, N1, N2, HAS_PRE, FRAMED)
            xr, xi = spectrum_of(x, g1, g2, T, N1, N2, C2, 1, 1, 0)
            store_table(z + j * (N1 * C2), pack(xr, xi), N1, C2, 1)
            tl.store(z_scale + j, scale)
            tl.debug_barrier()  # what a thread stores, others load
            zr, zi, scale = _sum_of_products(
                xr, xi, scale, z, z_scale, p_filter, p_k_scale, j, j + 1, N1, C2, TERMS, False
            )
            y = samples_of(zr, zi, g1, g2, T, N1, N2, C2, 1, 1) * scale
            _save_block(Y, POST, None, None, first, shift, length, j, count - 1, y, N1, N2, HAS_POST, False, TYPE, FRAMED)
        taken = tl.num_programs(0) + tl.atomic_add(TAKEN, 1)


@triton.jit(do_not_specialize=["WHICH", "first_channel", "group", "slots", "blocks", "channels"])
def block_bwd_kernel(
    DY, U, PRE, POST, DU, DPRE, DPOST, ZX, X_SCALE, ZG, G_SCALE, TAKEN, K, K_SCALE, G1, G2, T,
    FIRST, SHIFT, LENGTH, COUNT, WHICH, row_length, first_channel, group, channels, slots, blocks,
    N1: tl.constexpr, N2: tl.constexpr, C2: tl.constexpr, TERMS: tl.constexpr, MOST: tl.constexpr,
    HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, ALIGN: tl.constexpr, TYPE: tl.constexpr, FRAMED: tl.constexpr,
    AHEAD: tl.constexpr,
):  # fmt: skip
    """Grid (programs,), for `group` channels: of each document dx from the last block to the first, then y again from the first.

    ZX, ZG (group, slots, N1 C2) packed in thread order, X_SCALE, G_SCALE (group, slots): transforms of inputs and of gradients,
    kept for `block_filter_gradient_kernel`.
    """
    N: tl.constexpr = N1 * N2
    begin = tl.load(COUNT + WHICH)
    end = tl.load(COUNT + WHICH + 1)
    documents = end - begin
    if documents == 0:
        return
    g1, g2 = matrices(G1, G2, N1, N2, C2)
    ranks = _ranks(LENGTH, begin, end, MOST)
    taken = tl.program_id(0)
    while taken < documents * group:
        i_c = (taken // documents).to(tl.int64)
        rank = _of_rank(ranks, taken % documents, MOST)
        r = begin + rank
        first = tl.load(FIRST + r)
        token = first // (channels * row_length) * row_length + first % row_length
        at = i_c * slots + _slot(token, rank, N)
        zx = ZX + at * (N1 * C2)
        zg = ZG + at * (N1 * C2)
        x_scale = X_SCALE + at
        g_scale = G_SCALE + at
        i_h = i_c + first_channel
        first = tl.multiple_of(first + i_h * row_length, ALIGN)
        shift = tl.load(SHIFT + r)
        length = tl.load(LENGTH + r)
        p_filter = K + i_h * blocks * (N1 * C2)
        p_k_scale = K_SCALE + i_h * blocks
        count = tl.minimum(tl.cdiv(length, N), blocks)
        if AHEAD:
            dy, gate = _loaded_block(DY, POST, first, shift, length, count - 1, N1, N2, HAS_POST, FRAMED)
        for i in range(0, count):
            j = count - 1 - i
            if not AHEAD:
                dy, gate = _loaded_block(DY, POST, first, shift, length, j, N1, N2, HAS_POST, FRAMED)
            g, scale = _scaled_block(dy, gate, shift, length, j, count - 1, N1, N2, HAS_POST, FRAMED)
            if AHEAD:
                dy, gate = _loaded_block(DY, POST, first, shift, length, tl.maximum(j - 1, 0), N1, N2, HAS_POST, FRAMED)
            gr, gi = spectrum_of(g, g1, g2, T, N1, N2, C2, 1, 1, 0)
            store_table(zg + j * (N1 * C2), pack(gr, gi), N1, C2, 1)
            tl.store(g_scale + j, scale)
            tl.debug_barrier()  # what a thread stores, others load
            zr, zi, scale = _sum_of_products(gr, gi, scale, zg, g_scale, p_filter, p_k_scale, j, i + 1, N1, C2, TERMS, True)
            dx = samples_of(zr, zi, g1, g2, T, N1, N2, C2, 1, 1) * scale
            _save_block(DU, PRE, DPRE, U, first, shift, length, j, count - 1, dx, N1, N2, HAS_PRE, HAS_PRE, TYPE, FRAMED)
        if AHEAD:
            u, gate = _loaded_block(U, PRE, first, shift, length, 0, N1, N2, HAS_PRE, FRAMED)
        for j in range(0, count):
            if not AHEAD:
                u, gate = _loaded_block(U, PRE, first, shift, length, j, N1, N2, HAS_PRE, FRAMED)
            x, scale = _scaled_block(u, gate, shift, length, j, count - 1, N1, N2, HAS_PRE, FRAMED)
            if AHEAD:
                u, gate = _loaded_block(U, PRE, first, shift, length, j + 1, N1, N2, HAS_PRE, FRAMED)
            xr, xi = spectrum_of(x, g1, g2, T, N1, N2, C2, 1, 1, 0)
            store_table(zx + j * (N1 * C2), pack(xr, xi), N1, C2, 1)
            tl.store(x_scale + j, scale)
            if HAS_POST:
                tl.debug_barrier()
                zr, zi, scale = _sum_of_products(
                    xr, xi, scale, zx, x_scale, p_filter, p_k_scale, j, j + 1, N1, C2, TERMS, False
                )
                y = samples_of(zr, zi, g1, g2, T, N1, N2, C2, 1, 1) * scale
                _save_block(DPOST, DY, None, None, first, shift, length, j, count - 1, y, N1, N2, True, False, TYPE, FRAMED)
        taken = tl.num_programs(0) + tl.atomic_add(TAKEN, 1)


@triton.jit(do_not_specialize=["WHICH", "first_channel", "channels", "slots", "blocks"])
def block_filter_gradient_kernel(
    ZX, X_SCALE, ZG, G_SCALE, DK, FIRST, SHIFT, LENGTH, COUNT, WHICH, row_length, first_channel, channels, slots, blocks,
    N: tl.constexpr, POINTS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Grid (POINTS / TILE, blocks / 4, channels of the group): DK (channels, blocks, 2, POINTS), the gradient of K.

    Of four blocks of taps at a time, so that each transform of a gradient meets four of inputs, each of which is loaded once.
    """
    b = tl.program_id(1) * 4
    i_c = tl.program_id(2).to(tl.int64)
    point = tl.program_id(0) * TILE + tl.arange(0, TILE)
    zero = tl.zeros((TILE,), tl.float32)
    s0r, s0i, s1r, s1i, s2r, s2i, s3r, s3i = zero, zero, zero, zero, zero, zero, zero, zero
    begin = tl.load(COUNT + WHICH)
    end = tl.load(COUNT + WHICH + 1)
    for r in range(begin, end):
        first = tl.load(FIRST + r)
        token = first // (channels * row_length) * row_length + first % row_length
        count = tl.minimum(tl.cdiv(tl.load(LENGTH + r), N), blocks)
        at = i_c * slots + _slot(token, r - begin, N)
        before_r, before_i = zero, zero  # X_{j-b-1}
        # X_{j-b} - i X_{j-b-1} for four b
        w0r, w0i, w1r, w1i, w2r, w2i, w3r, w3i = zero, zero, zero, zero, zero, zero, zero, zero
        # A step's loads are waited for in the step after it.
        x, x_scale = _block_of(ZX, X_SCALE, at, point, b < count, POINTS)
        g, g_scale = _block_of(ZG, G_SCALE, at + b, point, b < count, POINTS)
        for j in range(b, count):
            xr, xi = unpack_wide(x)
            gr, gi = unpack_wide(g)
            this_x, this_g = x_scale, g_scale
            x, x_scale = _block_of(ZX, X_SCALE, at + j + 1 - b, point, j + 1 < count, POINTS)
            g, g_scale = _block_of(ZG, G_SCALE, at + j + 1, point, j + 1 < count, POINTS)
            xr *= this_x
            xi *= this_x
            gr *= this_g
            gi *= this_g
            w3r, w3i, w2r, w2i, w1r, w1i = w2r, w2i, w1r, w1i, w0r, w0i
            w0r = xr + before_i
            w0i = xi - before_r
            before_r, before_i = xr, xi
            s0r += gr * w0r + gi * w0i
            s0i += gi * w0r - gr * w0i
            s1r += gr * w1r + gi * w1i
            s1i += gi * w1r - gr * w1i
            s2r += gr * w2r + gi * w2i
            s2i += gi * w2r - gr * w2i
            s3r += gr * w3r + gi * w3i
            s3i += gi * w3r - gr * w3i
    p_sum = DK + ((i_c + first_channel) * blocks + b) * (2 * POINTS) + point
    _save_sum(p_sum, s0r, s0i, b < blocks, POINTS)
    _save_sum(p_sum + 2 * POINTS, s1r, s1i, b + 1 < blocks, POINTS)
    _save_sum(p_sum + 4 * POINTS, s2r, s2i, b + 2 < blocks, POINTS)
    _save_sum(p_sum + 6 * POINTS, s3r, s3i, b + 3 < blocks, POINTS)


@triton.jit
def _block_of(Z, Z_SCALE, at, point, there, POINTS: tl.constexpr):
    """A block's transform at some points, packed, and its scale; zeros where it is not there."""
    return tl.load(Z + at * POINTS + point, mask=there, other=0), tl.load(Z_SCALE + at, mask=there, other=0.0)


@triton.jit
def _save_sum(pointer, real, imaginary, there, POINTS: tl.constexpr):
    tl.store(pointer, real, mask=there)
    tl.store(pointer + POINTS, imaginary, mask=there)
