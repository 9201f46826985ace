"""A filter's spectrum as the fused kernels multiply by it, and the gradient of a spectrum back to the taps: one program a
channel.

EXACT: filters are float32 and stay so in effect, for every float16 operand comes with the float16 of what it leaves out, and a
product is the three larger of the four products of halves. Otherwise operands are rounded to float16, once before each product,
which is small beside the rounding of bfloat16 rows.
"""

# Triton's decorators hide from type checkers how kernels are launched and what they return.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false
# pyright: reportAssignmentType=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.conv_fft.triton_complex import pack, power_of_two
from kernels.conv_fft.triton_tiles import place


@triton.jit
def _halves(x):
    high = x.to(tl.float16)
    return high, (x - high.to(tl.float32)).to(tl.float16)


@triton.jit
def _product(a, a_low, b, b_low, EXACT: tl.constexpr):
    """a @ b, EXACT with what float16 leaves out of both."""
    if EXACT:
        return tl.dot(a, b, tl.dot(a_low, b, tl.dot(a, b_low)))
    else:
        return tl.dot(a, b)


@triton.jit
def _matrix(pointer, rows, columns, WIDTH: tl.constexpr, SIZE: tl.constexpr):
    """A matrix and what float16 leaves out of it, which lies SIZE further on."""
    at = pointer + rows[:, None] * WIDTH + columns[None, :]
    return tl.load(at), tl.load(at + SIZE)


@triton.jit(do_not_specialize=["WHICH"])
def filter_spectrum_kernel(
    TAPS, REVERSE, K, K_SCALE, F1R, F1I, F2R, F2I, COS, SIN, COUNT, WHICH, taps, reverse_taps,
    N1: tl.constexpr, N2: tl.constexpr, C2: tl.constexpr, TWO_SIDED: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Grid (channels,): K (channels, N1 C2) packed, in thread order, to a largest part in [2, 4). K_SCALE: what it was over."""
    i_h = tl.program_id(0).to(tl.int64)
    if tl.load(COUNT + WHICH) == tl.load(COUNT + WHICH + 1):
        return  # no row is convolved with it
    n1 = tl.arange(0, N1)
    n2 = tl.arange(0, N2)
    c2 = tl.arange(0, C2)
    f1r, f1r_low = _matrix(F1R, n1, n1, N1, N1 * N1)
    f1i, f1i_low = _matrix(F1I, n1, n1, N1, N1 * N1)
    f2r, f2r_low = _matrix(F2R, n2, c2, C2, N2 * C2)
    f2i, f2i_low = _matrix(F2I, n2, c2, C2, N2 * C2)
    sample = n1[:, None] * N2 + n2[None, :]
    x = tl.load(TAPS + i_h * taps + sample, mask=sample < taps, other=0.0)
    largest = tl.max(tl.max(tl.abs(x), axis=1), axis=0)
    if TWO_SIDED:
        before = N1 * N2 - 1 - sample  # lag -(t + 1) is at points - 1 - t, with a minus, in the imaginary part
        w = -tl.load(REVERSE + i_h * reverse_taps + before, mask=(before < reverse_taps) & (sample > 0), other=0.0)
        largest = tl.maximum(largest, tl.max(tl.max(tl.abs(w), axis=1), axis=0))
    scale, inverse = power_of_two(largest)
    high, low = _halves(x * inverse)
    ar = _product(f1r, f1r_low, high, low, EXACT)
    ai = _product(f1i, f1i_low, high, low, EXACT)
    if TWO_SIDED:
        high, low = _halves(w * inverse)
        ar -= _product(f1i, f1i_low, high, low, EXACT)
        ai += _product(f1r, f1r_low, high, low, EXACT)
    cos = tl.load(COS + sample)
    sin = tl.load(SIN + sample)
    br, br_low = _halves(ar * cos - ai * sin)
    bi, bi_low = _halves(ar * sin + ai * cos)
    xr = _product(br, br_low, f2r, f2r_low, EXACT) - _product(bi, bi_low, f2i, f2i_low, EXACT)
    xi = _product(br, br_low, f2i, f2i_low, EXACT) + _product(bi, bi_low, f2r, f2r_low, EXACT)
    largest = tl.maximum(tl.max(tl.max(tl.abs(xr), axis=1), axis=0), tl.max(tl.max(tl.abs(xi), axis=1), axis=0))
    k_scale, k_inverse = power_of_two(largest)
    k_inverse *= 2.0
    p_k = K + i_h * (N1 * C2) + place(n1[:, None], c2[None, :], N1, C2, 2 if N1 < 64 else 1)
    tl.store(p_k, pack(xr * k_inverse, xi * k_inverse))
    # The matrices are unitary and a filter's transform is not.
    tl.store(K_SCALE + i_h, scale * k_scale * tl.sqrt(float(N1 * N2)) * 0.5)


@triton.jit(do_not_specialize=["WHICH", "parts"])
def filter_gradient_kernel(
    DK, DTAPS, DREVERSE, F1R, F1I, F2R, F2I, COS, SIN, COUNT, WHICH, parts, taps, reverse_taps,
    N1: tl.constexpr, N2: tl.constexpr, C2: tl.constexpr, P: tl.constexpr, TWO_SIDED: tl.constexpr,
    EXACT: tl.constexpr,
):  # fmt: skip
    """Grid (channels,): add to DTAPS, DREVERSE what the gradient of a spectrum is to them.

    DK (parts, channels, P, 2, N1 C2), in thread order: summed over parts and P.
    """
    i_h = tl.program_id(0).to(tl.int64)
    channels = tl.num_programs(0)
    if tl.load(COUNT + WHICH) == tl.load(COUNT + WHICH + 1):
        return  # no row is convolved with it
    n1 = tl.arange(0, N1)
    n2 = tl.arange(0, N2)
    c2 = tl.arange(0, C2)
    inside = place(n1[:, None], c2[None, :], N1, C2, 2 if N1 < 64 else 1)
    zr = tl.zeros((N1, C2), tl.float32)
    zi = tl.zeros((N1, C2), tl.float32)
    for s in range(parts):
        for p in tl.static_range(P):
            at = DK + ((s * channels + i_h) * P + p) * (2 * N1 * C2) + inside
            zr += tl.load(at)
            zi += tl.load(at + N1 * C2)
    largest = tl.maximum(tl.max(tl.max(tl.abs(zr), axis=1), axis=0), tl.max(tl.max(tl.abs(zi), axis=1), axis=0))
    scale, inverse = power_of_two(largest)
    scale *= tl.sqrt(float(N1 * N2))
    f2r, f2r_low = _matrix(F2R, n2, c2, C2, N2 * C2)
    f2i, f2i_low = _matrix(F2I, n2, c2, C2, N2 * C2)
    zr, zr_low = _halves(zr * inverse)
    zi, zi_low = _halves(zi * inverse)
    f2r, f2r_low = tl.trans(f2r), tl.trans(f2r_low)
    f2i, f2i_low = tl.trans(f2i), tl.trans(f2i_low)
    er = _product(zr, zr_low, f2r, f2r_low, EXACT) + _product(zi, zi_low, f2i, f2i_low, EXACT)
    ei = _product(zi, zi_low, f2r, f2r_low, EXACT) - _product(zr, zr_low, f2i, f2i_low, EXACT)
    sample = n1[:, None] * N2 + n2[None, :]
    cos = tl.load(COS + sample)
    sin = tl.load(SIN + sample)
    zr, zr_low = _halves(er * cos + ei * sin)
    zi, zi_low = _halves(ei * cos - er * sin)
    f1r, f1r_low = _matrix(F1R, n1, n1, N1, N1 * N1)
    f1i, f1i_low = _matrix(F1I, n1, n1, N1, N1 * N1)
    f1r = tl.trans(f1r)
    f1i = tl.trans(f1i)
    f1r_low = tl.trans(f1r_low)
    f1i_low = tl.trans(f1i_low)
    x = (_product(f1r, f1r_low, zr, zr_low, EXACT) + _product(f1i, f1i_low, zi, zi_low, EXACT)) * scale
    p_taps = DTAPS + i_h * taps + sample
    there = sample < taps
    tl.store(p_taps, tl.load(p_taps, mask=there, other=0.0) + x, mask=there)
    if TWO_SIDED:
        x = (_product(f1r, f1r_low, zi, zi_low, EXACT) - _product(f1i, f1i_low, zr, zr_low, EXACT)) * scale
        before = N1 * N2 - 1 - sample
        there = (before < reverse_taps) & (sample > 0)
        p_taps = DREVERSE + i_h * reverse_taps + before
        tl.store(p_taps, tl.load(p_taps, mask=there, other=0.0) - x, mask=there)
