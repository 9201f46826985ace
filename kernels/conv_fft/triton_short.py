"""Causal rows of up to 512 samples as products with Toeplitz matrices of 64 x 64 taps.

So short, they take fewer operations than a transform, one instruction chain without exchanges between threads, and nothing of a
sample reaches one before it. 64 rows of a channel are a tile, X_j its samples 64 j ... 64 j + 63, G_j the same of the output's
gradient times the gate, and M_d[s, t] = k[64 d + t - s]:
    y_i = sum_{j <= i} X_j M_{i-j}      dx_j = sum_{i >= j} G_i M_{i-j}^T
    dM_d = sum_i X_{i-d}^T G_i          dk[l]: the sum of dM_d[s, t] where 64 d + t - s = l
Rows are rows of the left operand, so that what is not finite stays in its row, but for dk.

Operands are float16, each row's over a power of two that leaves its largest number in [2^14, 2^15): numbers to 2^-29 of it keep
all bits, and a louder sample elsewhere in the row, up to that, moves none.
"""

# Triton's decorators hide from type checkers how kernels are launched and what they return.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false
# pyright: reportAssignmentType=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.conv_fft.triton_fused import edges_of, framed, load, save, save_framed


@triton.jit
def _exponent(largest):
    """The biased exponent of numbers up to `largest`, not negative, where 2^14 more and less are in range."""
    e = (largest.to(tl.int32, bitcast=True) >> 23) & 0xFF
    return tl.minimum(tl.maximum(e, 16), 253)


@triton.jit
def _power(e):
    """2^(e - 127)."""
    return (e << 23).to(tl.float32, bitcast=True)


@triton.jit
def _scale(e):
    """What numbers of exponent e are over as operands."""
    return _power(e - 14)


@triton.jit
def _inverse(e):
    return _power(268 - e)


@triton.jit
def _shifts(p_taps, p_shifts, taps, NB: tl.constexpr, W: tl.constexpr):
    """Eight shifts of a filter, (8, W (NB + 1)) float16: of r, the tap x - r at W + x. Its exponent.

    Of them, all of a Toeplitz matrix comes by whole vectors. Written by a program for itself.
    """
    t = tl.arange(0, W)
    largest = tl.zeros((W,), tl.float32)
    for j in tl.static_range(NB):
        largest = tl.maximum(largest, tl.abs(tl.load(p_taps + W * j + t, mask=W * j + t < taps, other=0.0)))
    e = _exponent(tl.max(largest, axis=0))
    r = tl.arange(0, 8)[:, None]
    for j in tl.static_range(NB + 1):
        x = W * j - W + t[None, :] - r
        k = tl.load(p_taps + x, mask=(x >= 0) & (x < taps), other=0.0) * _inverse(e)
        tl.store(p_shifts + r * (W * NB + W) + W * j + t[None, :], k.to(tl.float16))
    tl.debug_barrier()
    return e


@triton.jit
def _toeplitz(p_shifts, d: tl.constexpr, NB: tl.constexpr, W: tl.constexpr):
    """M_d, (W, W) float16."""
    s = tl.arange(0, W)[:, None]
    return tl.load(p_shifts + s % 8 * (W * NB + W) + (W + W * d - s // 8 * 8) + tl.arange(0, W)[None, :])


@triton.jit
def _zeros(NB: tl.constexpr, W: tl.constexpr, R: tl.constexpr):
    sums = ()
    for _ in tl.static_range(NB):
        sums += (tl.zeros((W, R), tl.float32),)
    return sums


@triton.jit
def _convolved(p_shifts, x, NB: tl.constexpr, W: tl.constexpr, R: tl.constexpr, TRANSPOSED: tl.constexpr):
    """Blocks (W, R) of samples by rows: y_i, or dx_i."""
    sums = _zeros(NB, W, R)
    for d in tl.static_range(NB):
        m = _toeplitz(p_shifts, d, NB, W)
        found = ()
        for i in tl.static_range(NB):
            if TRANSPOSED:
                if i + d < NB:
                    found += (tl.dot(m, tl.trans(x[i + d]), sums[i]),)
                else:
                    found += (sums[i],)
            else:
                if i >= d:
                    found += (tl.dot(tl.trans(m), tl.trans(x[i - d]), sums[i]),)
                else:
                    found += (sums[i],)
        sums = found
    return sums


@triton.jit
def _place(FIRST, SHIFT, LENGTH, r, end, offset, ALIGN: tl.constexpr, R: tl.constexpr):
    """Where the frames of 64 rows begin, and where in them the rows begin and end, each (64, 1)."""
    row = r + tl.arange(0, R)
    there = row < end
    first = tl.multiple_of(tl.load(FIRST + row, mask=there, other=0) + offset, ALIGN)[:, None]
    shift = tl.load(SHIFT + row, mask=there, other=0)[:, None]
    return first, shift, tl.load(LENGTH + row, mask=there, other=0)[:, None]


@triton.jit
def _inputs(
    U, GATE, first, shift, length, NB: tl.constexpr, W: tl.constexpr, HAS_GATE: tl.constexpr, FULL: tl.constexpr,
    FRAMED: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """Blocks of 64 rows' samples times their gates, NB of (64, 64) in float16, and the rows' exponents (64,)."""
    t = tl.arange(0, W)[None, :]
    largest = tl.zeros((R,), tl.float32)
    products = ()
    for j in tl.static_range(NB):
        sample = W * j + t
        read = sample // 8 * 8 < length if FRAMED else (sample >= shift) & (sample < length)
        x = load(U, first + sample, read, FULL)
        if HAS_GATE:
            x *= load(GATE, first + sample, read, FULL)
        if FRAMED:
            x = framed(x, sample, shift, length)
        largest = tl.maximum(largest, tl.max(tl.abs(x), axis=1))
        products += (x,)
    e = _exponent(largest)
    inverse = _inverse(e)[:, None]
    blocks = ()
    for j in tl.static_range(NB):
        blocks += ((products[j] * inverse).to(tl.float16),)
    return blocks, e


@triton.jit
def _store(
    pointer, GATE, first, j: tl.constexpr, shift, length, value, HAS_GATE: tl.constexpr, TYPE: tl.constexpr,
    FULL: tl.constexpr, FRAMED: tl.constexpr, W: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """Block j of rows, times a gate."""
    if FRAMED:
        start = tl.zeros((R, 1), tl.int32) + W * j
        head, tail = edges_of(value, start, shift, length, R, W)
        save_framed(pointer, GATE, first, start, shift, length, value, head, tail, HAS_GATE, TYPE, R, W)
    else:
        sample = W * j + tl.arange(0, W)[None, :]
        mask = (sample >= shift) & (sample < length)
        if HAS_GATE:
            value *= load(GATE, first + sample, mask, FULL, True)
        save(pointer, first + sample, mask, value, FULL, TYPE)


@triton.jit
def _halves_apart(x, R: tl.constexpr):
    """Samples (R, 64) in the order in which a thread gets each of the first 32, and the one 32 further on, as rows of a product."""
    return tl.reshape(tl.permute(tl.reshape(x, (R, 2, 4, 8)), (0, 2, 1, 3)), (R, 64))


@triton.jit
def _lags(M, after):
    """Sums (64,) over t - s = l of M (64 t, 64 s) where t >= s, and over t - s = l - 64 of `after` where t < s: l < 32, and on.

    Rows t are in the order of `_halves_apart`. Halves of t first, for they are in one thread; so are halves of s.
    """
    row = tl.arange(0, 64)[:, None]
    t = row // 8 % 2 * 32 + row // 16 * 8 + row % 8
    both = tl.where(t >= tl.arange(0, 64)[None, :], M, after)
    parts = tl.permute(tl.reshape(both, (4, 2, 8, 2, 32)), (0, 2, 4, 1, 3))  # t / 8 % 4, t % 8, s % 32, t / 32, s / 32
    early, late = tl.split(parts)
    a, b = tl.split(early)
    c, d = tl.split(late)
    near = tl.reshape(a + d, (32, 32))
    far = tl.reshape(b + c, (32, 32))
    t = tl.arange(0, 32)[:, None]
    s = tl.arange(0, 32)[None, :]
    low = tl.gather(tl.where(t >= s, near, far), (t - s) & 31, axis=1)
    high = tl.gather(tl.where(t >= s, far, near), (t - s) & 31, axis=1)
    return tl.sum(tl.reshape(low, (8, 4, 32)), axis=0), tl.sum(tl.reshape(high, (8, 4, 32)), axis=0)


@triton.jit
def _add(p_sum, part, several, WIDTH: tl.constexpr):
    """Four parts of 32 sums, added to those before, if any."""
    at = p_sum + tl.arange(0, 4)[:, None] * WIDTH + tl.arange(0, 32)[None, :]
    tl.store(at, part + tl.load(at, mask=tl.zeros((4, 32), tl.int1) | several, other=0.0))


# What varies from launch to launch: no kernel is compiled for its values.
@triton.jit(do_not_specialize=["WHICH", "taps"])
def short_fwd_kernel(
    U, PRE, POST, Y, TAPS, SHIFTS, FIRST, SHIFT, LENGTH, COUNT, WHICH, row_length, taps,
    NB: tl.constexpr, W: tl.constexpr, R: tl.constexpr, HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, FULL: tl.constexpr,
    ALIGN: tl.constexpr, TYPE: tl.constexpr, FRAMED: tl.constexpr,
):  # fmt: skip
    i_s = tl.program_id(0)
    i_h = tl.program_id(1).to(tl.int64)
    begin = tl.load(COUNT + WHICH) + i_s * R
    end = tl.load(COUNT + WHICH + 1)
    if begin >= end:
        return
    step = tl.num_programs(0) * R
    offset = i_h * row_length
    p_shifts = SHIFTS + (i_s * tl.num_programs(1) + i_h) * (8 * (W * NB + W))
    k_scale = _scale(_shifts(TAPS + i_h * taps, p_shifts, taps, NB, W))
    for r in range(begin, end, step):
        first, shift, length = _place(FIRST, SHIFT, LENGTH, r, end, offset, ALIGN, R)
        x, e = _inputs(U, PRE, first, shift, length, NB, W, HAS_PRE, FULL, FRAMED, R)
        y = _convolved(p_shifts, x, NB, W, R, False)
        scale = _scale(e)[:, None]
        for i in tl.static_range(NB):
            _store(Y, POST, first, i, shift, length, tl.trans(y[i]) * scale * k_scale, HAS_POST, TYPE, FULL, FRAMED, W, R)


# What varies from launch to launch: no kernel is compiled for its values.
@triton.jit(do_not_specialize=["WHICH", "taps"])
def short_bwd_kernel(
    DY, U, PRE, POST, DU, DPRE, DPOST, DK, TAPS, SHIFTS, FIRST, SHIFT, LENGTH, COUNT, WHICH, row_length, taps,
    NB: tl.constexpr, W: tl.constexpr, R: tl.constexpr, HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, FULL: tl.constexpr,
    ALIGN: tl.constexpr, TYPE: tl.constexpr, FRAMED: tl.constexpr,
):  # fmt: skip
    """Gradients. DK (splits, channels, 4, W NB) float32: sums over a program's rows, in four parts."""
    i_s = tl.program_id(0)
    i_h = tl.program_id(1).to(tl.int64)
    begin = tl.load(COUNT + WHICH) + i_s * R
    end = tl.load(COUNT + WHICH + 1)
    p_sum = DK + (i_s * tl.num_programs(1) + i_h) * (4 * W * NB)
    if begin >= end:
        for d in tl.static_range(4 * NB):
            tl.store(p_sum + W * d + tl.arange(0, W), tl.zeros((W,), tl.float32))
        return
    step = tl.num_programs(0) * R
    offset = i_h * row_length
    p_shifts = SHIFTS + (i_s * tl.num_programs(1) + i_h) * (8 * (W * NB + W))
    k_scale = _scale(_shifts(TAPS + i_h * taps, p_shifts, taps, NB, W))
    for r in range(begin, end, step):
        first, shift, length = _place(FIRST, SHIFT, LENGTH, r, end, offset, ALIGN, R)
        x, x_e = _inputs(U, PRE, first, shift, length, NB, W, HAS_PRE, FULL, FRAMED, R)
        if HAS_POST:
            y = _convolved(p_shifts, x, NB, W, R, False)
            scale = _scale(x_e)[:, None]
            for i in tl.static_range(NB):
                _store(DPOST, DY, first, i, shift, length, tl.trans(y[i]) * scale * k_scale, True, TYPE, FULL, FRAMED, W, R)
        g, g_e = _inputs(DY, POST, first, shift, length, NB, W, HAS_POST, FULL, FRAMED, R)
        # Rows meet in the taps' gradient: they are brought to one scale, that of the loudest.
        both = x_e + g_e
        top = tl.max(both, axis=0)
        ratio = _power(tl.maximum(127 + both - top, 0)).to(tl.float16)[:, None]
        half = (top - 282) // 2  # in two steps: their product may be no number of float32
        one = _power(127 + half)
        other = _power(127 + top - 282 - half)
        left = ()
        for j in tl.static_range(NB):
            left += (tl.trans(_halves_apart(g[j] * ratio, R)),)
        after = tl.zeros((W, W), tl.float32)
        for d in tl.static_range(NB - 1, -1, -1):
            dm = tl.zeros((W, W), tl.float32)
            for j in tl.static_range(NB - d):
                dm = tl.dot(left[j + d], x[j], dm)
            low, high = _lags(dm, after)
            after = dm
            _add(p_sum + W * d, low * one * other, r > begin, W * NB)
            _add(p_sum + W * d + W // 2, high * one * other, r > begin, W * NB)
        dx = _convolved(p_shifts, g, NB, W, R, True)
        scale = _scale(g_e)[:, None]
        for j in tl.static_range(NB):
            z = tl.trans(dx[j]) * scale * k_scale
            if HAS_PRE:
                _store(DPRE, U, first, j, shift, length, z, True, TYPE, FULL, FRAMED, W, R)
            _store(DU, PRE, first, j, shift, length, z, HAS_PRE, TYPE, FULL, FRAMED, W, R)


@triton.jit(do_not_specialize=["parts", "taps"])
def short_taps_kernel(SUMS, DK, parts, taps, N: tl.constexpr, TILE: tl.constexpr):
    """Grid (tiles, channels): add to DK (channels, taps) the sums (parts, channels, 4, N), in a fixed order."""
    i_h = tl.program_id(1).to(tl.int64)
    lag = tl.program_id(0) * TILE + tl.arange(0, TILE)
    there = (lag < taps) & (lag < N)
    total = tl.load(DK + i_h * taps + lag, mask=there, other=0.0)
    for i in range(parts):
        p_sum = SUMS + (i * tl.num_programs(1) + i_h) * (4 * N) + lag
        for w in tl.static_range(4):
            total += tl.load(p_sum + w * N, mask=there, other=0.0)
    tl.store(DK + i_h * taps + lag, total, mask=there)
