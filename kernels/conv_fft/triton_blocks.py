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

from kernels.conv_fft.triton_complex import pack, power_of_two, times, times_conjugate, unpack
from kernels.conv_fft.triton_fused import edges_of, framed, matrices, samples_of, save_gated, scaled, spectrum_of
from kernels.conv_fft.triton_tiles import store_table, table


@triton.jit
def _document(FIRST, SHIFT, LENGTH, r, rank, row_length, channels, N: tl.constexpr, blocks):
    """A document's frame in channel 0, where it begins and ends in it, its blocks, and where its transforms are kept.

    Frames overlap by up to seven samples, so two more than `rank` full blocks lie between those of documents in order.
    """
    first = tl.load(FIRST + r)
    shift = tl.load(SHIFT + r)
    length = tl.load(LENGTH + r)
    token = first // (channels * row_length) * row_length + first % row_length
    return first, shift, length, tl.minimum(tl.cdiv(length, N), blocks), token // N + 2 * rank


@triton.jit(do_not_specialize=["WHICH", "first_channel", "channels", "slots", "blocks"])
def block_spectra_kernel(
    U, PRE, Z, Z_SCALE, G1, G2, T, FIRST, SHIFT, LENGTH, COUNT, WHICH, row_length,
    first_channel, channels, slots, blocks,
    N1: tl.constexpr, N2: tl.constexpr, C2: tl.constexpr, HAS_PRE: tl.constexpr, ALIGN: tl.constexpr, FRAMED: tl.constexpr,
):  # fmt: skip
    """Grid (blocks, channels of the group, splits): Z (channels, slots, N1 C2) packed, in thread order.

    Z_SCALE (channels, slots).
    """
    i_c = tl.program_id(1).to(tl.int64)
    N: tl.constexpr = N1 * N2
    begin = tl.load(COUNT + WHICH)
    end = tl.load(COUNT + WHICH + 1)
    if begin + tl.program_id(2) >= end:
        return
    g1, g2 = matrices(G1, G2, N1, N2, C2)
    line = tl.arange(0, N1)[:, None] * N2
    for r in range(begin + tl.program_id(2), end, tl.num_programs(2)):
        first, shift, length, count, slot = _document(FIRST, SHIFT, LENGTH, r, r - begin, row_length, channels, N, blocks)
        first = tl.multiple_of(first + (i_c + first_channel) * row_length, ALIGN)
        for j in range(tl.program_id(0), count, tl.num_programs(0)):
            sample = line + tl.arange(0, N2)[None, :] + j * N
            mask = (sample // 8 * 8 < length) if FRAMED else (sample >= shift) & (sample < length)
            x = tl.load(U + first + sample, mask=mask, other=0.0).to(tl.float32)
            if HAS_PRE:
                x *= tl.load(PRE + first + sample, mask=mask, other=0.0).to(tl.float32)
            x = framed(x, sample, shift, length)
            x, scale = scaled(x, 1, N1, 1)
            xr, xi = spectrum_of(x, g1, g2, T, N1, N2, C2, 1, 1, 0)
            at = i_c * slots + slot + j
            store_table(Z + at * (N1 * C2), pack(xr, xi), N1, C2, 1)
            tl.store(Z_SCALE + at, scale)


@triton.jit
def _scale_of(p_scale, p_k_scale, j, count, CONJUGATE: tl.constexpr):
    """The power of two that the products of a block's sum are brought to: no less than the largest of them."""
    largest = tl.full((), 1.1754943508222875e-38, tl.float32)  # 2^-126, the smallest there is
    if CONJUGATE:
        for b in range(0, count - j):
            largest = tl.maximum(largest, tl.load(p_scale + j + b) * tl.load(p_k_scale + b))
    else:
        for b in range(0, j + 1):
            largest = tl.maximum(largest, tl.load(p_scale + j - b) * tl.load(p_k_scale + b))
    return power_of_two(largest)


@triton.jit(do_not_specialize=["WHICH", "first_channel", "channels", "slots", "blocks"])
def block_product_kernel(
    Z, Z_SCALE, K, K_SCALE, A, OUT_A, B, OUT_B, G1, G2, T, FIRST, SHIFT, LENGTH, COUNT, WHICH, row_length,
    first_channel, channels, slots, blocks,
    N1: tl.constexpr, N2: tl.constexpr, C2: tl.constexpr, CONJUGATE: tl.constexpr, HAS_A: tl.constexpr, HAS_B: tl.constexpr,
    ALIGN: tl.constexpr, TYPE: tl.constexpr, FRAMED: tl.constexpr,
):  # fmt: skip
    """Grid (blocks, channels of the group, splits): y times A into OUT_A, times B into OUT_B.

    y: the filter's convolution, or CONJUGATE the transposed one, for gradients. K (channels, blocks, N1 C2): G, packed.
    """
    i_c = tl.program_id(1).to(tl.int64)
    i_h = i_c + first_channel
    N: tl.constexpr = N1 * N2
    begin = tl.load(COUNT + WHICH)
    end = tl.load(COUNT + WHICH + 1)
    if begin + tl.program_id(2) >= end:
        return
    g1, g2 = matrices(G1, G2, N1, N2, C2)
    line = tl.arange(0, N1)[:, None] * N2
    p_k_scale = K_SCALE + i_h * blocks
    for r in range(begin + tl.program_id(2), end, tl.num_programs(2)):
        first, shift, length, count, slot = _document(FIRST, SHIFT, LENGTH, r, r - begin, row_length, channels, N, blocks)
        first = tl.multiple_of(first + i_h * row_length, ALIGN)
        at = i_c * slots + slot
        for j in range(tl.program_id(0), count, tl.num_programs(0)):
            scale, inverse = _scale_of(Z_SCALE + at, p_k_scale, j, count, CONJUGATE)
            zr = tl.zeros((N1 // 16, 8, 2, C2), tl.float32)
            zi = tl.zeros((N1 // 16, 8, 2, C2), tl.float32)
            terms = count - j if CONJUGATE else j + 1
            for b in range(0, terms):
                other = at + (j + b if CONJUGATE else j - b)
                factor = tl.load(Z_SCALE + other) * tl.load(p_k_scale + b) * inverse
                xr, xi = unpack(table(Z + other * (N1 * C2), N1, C2, 1))
                filter = table(K + (i_h * blocks + b) * (N1 * C2), N1, C2, 1)
                if CONJUGATE:
                    pr, pi = times_conjugate(xr.to(tl.float32), xi.to(tl.float32), filter)
                else:
                    pr, pi = times(xr.to(tl.float32), xi.to(tl.float32), filter)
                zr += pr * factor
                zi += pi * factor
            y = samples_of(zr, zi, g1, g2, T, N1, N2, C2, 1, 1) * scale
            start = line + j * N
            shifts = tl.zeros((N1, 1), tl.int32) + shift
            lengths = tl.zeros((N1, 1), tl.int32) + length
            head, tail = edges_of(y, start, shifts, lengths, N1, N2)
            if HAS_B:
                save_gated(OUT_B, B, first, start, shifts, lengths, y, head, tail, True, TYPE, N1, N2, FRAMED)
            save_gated(OUT_A, A, first, start, shifts, lengths, y, head, tail, HAS_A, TYPE, N1, N2, FRAMED)


@triton.jit(do_not_specialize=["WHICH", "first_channel", "channels", "slots", "blocks"])
def block_filter_gradient_kernel(
    ZX, ZX_SCALE, ZG, ZG_SCALE, DK, FIRST, SHIFT, LENGTH, COUNT, WHICH, row_length, first_channel, channels, slots, blocks,
    N: tl.constexpr, POINTS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Grid (POINTS / TILE, blocks, channels of the group): DK (channels, blocks, 2, POINTS), the gradient of K."""
    i_b = tl.program_id(1)
    i_c = tl.program_id(2).to(tl.int64)
    point = tl.program_id(0) * TILE + tl.arange(0, TILE)
    sum_r = tl.zeros((TILE,), tl.float32)
    sum_i = tl.zeros((TILE,), tl.float32)
    begin = tl.load(COUNT + WHICH)
    end = tl.load(COUNT + WHICH + 1)
    for r in range(begin, end):
        _, _, _, count, slot = _document(FIRST, SHIFT, LENGTH, r, r - begin, row_length, channels, N, blocks)
        at = i_c * slots + slot
        before_r = tl.zeros((TILE,), tl.float32)  # X_{j-b-1}
        before_i = tl.zeros((TILE,), tl.float32)
        for j in range(i_b, count):
            x_scale = tl.load(ZX_SCALE + at + j - i_b)
            g_scale = tl.load(ZG_SCALE + at + j)
            xr, xi = unpack(tl.load(ZX + (at + j - i_b) * POINTS + point))
            gr, gi = unpack(tl.load(ZG + (at + j) * POINTS + point))
            xr = xr.to(tl.float32) * x_scale
            xi = xi.to(tl.float32) * x_scale
            gr = gr.to(tl.float32) * g_scale
            gi = gi.to(tl.float32) * g_scale
            # X_{j-b} - i X_{j-b-1}
            wr = xr + before_i
            wi = xi - before_r
            sum_r += gr * wr + gi * wi
            sum_i += gi * wr - gr * wi
            before_r = xr
            before_i = xi
    p_sum = DK + ((i_c + first_channel) * blocks + i_b) * (2 * POINTS) + point
    tl.store(p_sum, sum_r)
    tl.store(p_sum + POINTS, sum_i)
