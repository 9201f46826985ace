"""What `triton_filter` does, in the tiles of `triton_tiles`: causal filters whose first factor is 64 or 128.

A complex product is one of twice the size, results are the next product's operands as they lie in registers, and spectra and
their gradients are read and stored in the order in which threads have them. A program takes some blocks of taps one after the
other: each block's transform is part of its own G and of the next one's (see `triton_blocks`). EXACT: as in `triton_filter`.
"""

# Triton's decorators hide from type checkers how kernels are launched and what they return.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false
# pyright: reportAssignmentType=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.conv_fft.triton_complex import largest_of, pack, power_of_two
from kernels.conv_fft.triton_filter import _halves, _matrix, _product
from kernels.conv_fft.triton_tiles import lying, of_lying, of_standing, standing, store_table, table


@triton.jit
def _low(x):
    """What float16 leaves out."""
    return x - x.to(tl.float16).to(tl.float32)


@triton.jit
def _largest(real, imaginary):
    return largest_of(tl.maximum(tl.abs(real), tl.abs(imaginary)))


@triton.jit
def _matrices(G1, G2, N1: tl.constexpr, N2: tl.constexpr, C2: tl.constexpr):
    """Of both factors, and what float16 leaves out of each."""
    g1, g1_low = _matrix(G1, tl.arange(0, 2 * N1), tl.arange(0, N1), N1, 2 * N1 * N1)
    g2, g2_low = _matrix(G2, tl.arange(0, 2 * N2), tl.arange(0, 2 * C2), 2 * C2, 4 * N2 * C2)
    return g1, g1_low, g2, g2_low


@triton.jit(do_not_specialize=["WHICH", "blocks", "each"])
def tile_spectrum_kernel(
    TAPS, K, K_SCALE, G1, G2, COS, SIN, COUNT, WHICH, taps, blocks, each,
    N1: tl.constexpr, N2: tl.constexpr, C2: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Grid (channels, blocks / each): K (channels, blocks, N1 C2) packed, in thread order, to a largest part in [2, 4).

    K_SCALE (channels, blocks) what it was over. The b-th: K_b - i K_{b-1}, of the transforms of N1 N2 taps.
    """
    i_h = tl.program_id(0).to(tl.int64)
    if tl.load(COUNT + WHICH) == tl.load(COUNT + WHICH + 1):
        return  # no row is convolved with it
    begin = tl.program_id(1) * each
    end = tl.minimum(begin + each, blocks)
    sample = tl.arange(0, N1)[:, None] * N2 + tl.arange(0, N2)[None, :]
    g1, g1_low, g2, g2_low = _matrices(G1, G2, N1, N2, C2)
    before_r = tl.zeros((N1 // 16, 8, 2, C2), tl.float32)
    before_i = tl.zeros((N1 // 16, 8, 2, C2), tl.float32)
    before_scale = tl.zeros((), tl.float32)
    for b in range(tl.maximum(begin - 1, 0), end):
        lag = b * (N1 * N2) + sample
        x = tl.load(TAPS + i_h * taps + lag, mask=lag < taps, other=0.0)
        scale, inverse = power_of_two(tl.max(tl.max(tl.abs(x), axis=1), axis=0))
        high, low = _halves(x * inverse)
        ar, ai = of_standing(_product(g1, g1_low, high, low, EXACT), N1, N2, 1)
        cos = table(COS, N1, N2, 1)
        sin = table(SIN, N1, N2, 1)
        br = ar * cos - ai * sin
        bi = ar * sin + ai * cos
        high = lying(br, bi, N1, N2, 1)
        low = lying(_low(br), _low(bi), N1, N2, 1)
        xr, xi = of_lying(_product(high, low, g2, g2_low, EXACT), N1, C2, 1)
        if b >= begin:
            both = tl.maximum(scale, before_scale)
            _, inverse = power_of_two(both)
            # -i (before_r + i before_i)
            zr = xr * (scale * inverse) + before_i * (before_scale * inverse)
            zi = xi * (scale * inverse) - before_r * (before_scale * inverse)
            k_scale, k_inverse = power_of_two(_largest(zr, zi))
            k_inverse *= 2.0
            i_k = i_h * blocks + b
            store_table(K + i_k * (N1 * C2), pack(zr * k_inverse, zi * k_inverse), N1, C2, 1)
            # The matrices are unitary and a filter's transform is not.
            tl.store(K_SCALE + i_k, both * k_scale * tl.sqrt(float(N1 * N2)) * 0.5)
        before_r, before_i, before_scale = xr, xi, scale


@triton.jit(do_not_specialize=["WHICH", "parts", "blocks", "each"])
def tile_gradient_kernel(
    DK, DTAPS, G1, G2, COS, SIN, COUNT, WHICH, parts, taps, blocks, each,
    N1: tl.constexpr, N2: tl.constexpr, C2: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Grid (channels, blocks / each): add to DTAPS what the gradients of spectra are to them.

    DK (parts, channels, blocks, 2, N1 C2), in thread order: summed over parts.
    """
    i_h = tl.program_id(0).to(tl.int64)
    if tl.load(COUNT + WHICH) == tl.load(COUNT + WHICH + 1):
        return  # no row is convolved with it
    begin = tl.program_id(1) * each
    end = tl.minimum(begin + each, blocks)
    sample = tl.arange(0, N1)[:, None] * N2 + tl.arange(0, N2)[None, :]
    g1, g1_low, g2, g2_low = _matrices(G1, G2, N1, N2, C2)
    for b in range(begin, end):
        p_sum = DK + (i_h * blocks + b) * (2 * N1 * C2)
        zr = table(p_sum, N1, C2, 1)
        zi = table(p_sum + N1 * C2, N1, C2, 1)
        for _ in range(1, parts):
            p_sum += tl.num_programs(0).to(tl.int64) * blocks * (2 * N1 * C2)
            zr += table(p_sum, N1, C2, 1)
            zi += table(p_sum + N1 * C2, N1, C2, 1)
        scale, inverse = power_of_two(_largest(zr, zi))
        zr *= inverse
        zi *= inverse
        high = lying(zr, zi, N1, C2, 1)
        low = lying(_low(zr), _low(zi), N1, C2, 1)
        er, ei = of_lying(_product(high, low, tl.trans(g2), tl.trans(g2_low), EXACT), N1, N2, 1)
        cos = table(COS, N1, N2, 1)
        sin = table(SIN, N1, N2, 1)
        br = er * cos + ei * sin
        bi = ei * cos - er * sin
        high = standing(br, bi, N1, N2, 1)
        low = standing(_low(br), _low(bi), N1, N2, 1)
        x = _product(tl.trans(g1), tl.trans(g1_low), high, low, EXACT) * (scale * tl.sqrt(float(N1 * N2)))
        lag = b * (N1 * N2) + sample
        p_taps = DTAPS + i_h * taps + lag
        tl.store(p_taps, tl.load(p_taps, mask=lag < taps, other=0.0) + x, mask=lag < taps)
