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
def _tables(p_shifts, NB: tl.constexpr, W: tl.constexpr):
    tables = ()
    for d in tl.static_range(NB):
        tables += (_toeplitz(p_shifts, d, NB, W),)
    return tables


@triton.jit
def _place(FIRST, SHIFT, LENGTH, r, end, offset, ALIGN: tl.constexpr):
    """Where the frames of 64 rows begin, and where in them the rows begin and end, each (64, 1)."""
    row = r + tl.arange(0, 64)
    there = row < end
    first = tl.multiple_of(tl.load(FIRST + row, mask=there, other=0) + offset, ALIGN)[:, None]
    shift = tl.load(SHIFT + row, mask=there, other=0)[:, None]
    return first, shift, tl.load(LENGTH + row, mask=there, other=0)[:, None]


@triton.jit
def _inputs(
    U, GATE, first, shift, length, NB: tl.constexpr, W: tl.constexpr, HAS_GATE: tl.constexpr, FULL: tl.constexpr,
    FRAMED: tl.constexpr,
):  # fmt: skip
    """Blocks of 64 rows' samples times their gates, NB of (64, 64) in float16, and the rows' exponents (64,)."""
    t = tl.arange(0, W)[None, :]
    top = tl.zeros((64,), tl.int32)
    found = ()
    exponents = ()
    for j in tl.static_range(NB):
        sample = W * j + t
        read = sample // 8 * 8 < length if FRAMED else (sample >= shift) & (sample < length)
        x = load(U, first + sample, read, FULL)
        if HAS_GATE:
            x *= load(GATE, first + sample, read, FULL)
        if FRAMED:
            x = framed(x, sample, shift, length)
        # A block's own exponent first: to wait for the row's, all would have to stay in float32.
        e = _exponent(tl.max(tl.abs(x), axis=1))
        top = tl.maximum(top, e)
        found += ((x * _inverse(e)[:, None]).to(tl.float16),)
        exponents += (e,)
    blocks = ()
    for j in tl.static_range(NB):
        ratio = _power(tl.maximum(127 + exponents[j] - top, 0))[:, None]
        blocks += ((found[j].to(tl.float32) * ratio).to(tl.float16),)
    return blocks, top


@triton.jit
def _nothing(NB: tl.constexpr, W: tl.constexpr):
    """Blocks for which no register is needed."""
    blocks = ()
    for _ in tl.static_range(NB):
        blocks += (tl.zeros((64, W), tl.float16),)
    return blocks


@triton.jit
def _store(
    pointer, GATE, first, j: tl.constexpr, shift, length, value, HAS_GATE: tl.constexpr, TYPE: tl.constexpr,
    FULL: tl.constexpr, FRAMED: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Block j of rows, times a gate."""
    if FRAMED:
        start = tl.zeros((64, 1), tl.int32) + W * j
        head, tail = edges_of(value, start, shift, length, 64, W)
        save_framed(pointer, GATE, first, start, shift, length, value, head, tail, HAS_GATE, TYPE, 64, W)
    else:
        sample = W * j + tl.arange(0, W)[None, :]
        mask = (sample >= shift) & (sample < length)
        if HAS_GATE:
            value *= load(GATE, first + sample, mask, FULL, True)
        save(pointer, first + sample, mask, value, FULL, TYPE)


@triton.jit
def _diagonals(M, W: tl.constexpr):
    """Sums of a (W, W) matrix's diagonals t - s = l: of l = 0 ... W - 1 and of l - W, both (W,)."""
    s = tl.arange(0, W)[:, None]
    lag = tl.arange(0, W)[None, :]
    turned = tl.gather(M, (s + lag) % W, axis=1)
    return tl.sum(tl.where(s + lag < W, turned, 0.0), axis=0), tl.sum(tl.where(s + lag >= W, turned, 0.0), axis=0)


# What varies from launch to launch: no kernel is compiled for its values.
@triton.jit(do_not_specialize=["WHICH", "taps"])
def short_fwd_kernel(
    U, PRE, POST, Y, TAPS, SHIFTS, FIRST, SHIFT, LENGTH, COUNT, WHICH, row_length, taps,
    NB: tl.constexpr, W: tl.constexpr, HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, FULL: tl.constexpr,
    ALIGN: tl.constexpr, TYPE: tl.constexpr, FRAMED: tl.constexpr,
):  # fmt: skip
    """Grid (splits, channels). Rows COUNT[WHICH] ... COUNT[WHICH + 1] of the table FIRST, SHIFT, LENGTH, 64 at a time.

    SHIFTS (splits, channels, 8, W (NB + 1)) float16 is scratch. FULL: rows have W NB samples each, and fill tiles. FRAMED:
    others, whose frames begin at multiples of eight.
    """
    i_s = tl.program_id(0)
    i_h = tl.program_id(1).to(tl.int64)
    begin = tl.load(COUNT + WHICH) + i_s * 64
    end = tl.load(COUNT + WHICH + 1)
    if begin >= end:
        return
    step = tl.num_programs(0) * 64
    offset = i_h * row_length
    p_shifts = SHIFTS + (i_s * tl.num_programs(1) + i_h) * (8 * (W * NB + W))
    k_scale = _scale(_shifts(TAPS + i_h * taps, p_shifts, taps, NB, W))
    for r in range(begin, end, step):
        first, shift, length = _place(FIRST, SHIFT, LENGTH, r, end, offset, ALIGN)
        x, e = _inputs(U, PRE, first, shift, length, NB, W, HAS_PRE, FULL, FRAMED)
        m = _tables(p_shifts, NB, W)
        scale = _scale(e)[:, None]
        for i in tl.static_range(NB):
            y = tl.dot(x[i], m[0])
            for d in tl.static_range(1, i + 1):
                y = tl.dot(x[i - d], m[d], y)
            _store(Y, POST, first, i, shift, length, y * scale * k_scale, HAS_POST, TYPE, FULL, FRAMED, W)


# What varies from launch to launch: no kernel is compiled for its values.
@triton.jit(do_not_specialize=["WHICH", "taps"])
def short_bwd_kernel(
    DY, U, PRE, POST, DU, DPRE, DPOST, DK, TAPS, SHIFTS, FIRST, SHIFT, LENGTH, COUNT, WHICH, row_length, taps,
    NB: tl.constexpr, W: tl.constexpr, HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, FULL: tl.constexpr,
    ALIGN: tl.constexpr, TYPE: tl.constexpr, FRAMED: tl.constexpr,
):  # fmt: skip
    """Gradients. DK (splits, channels, W NB) float32: sums over a program's rows."""
    i_s = tl.program_id(0)
    i_h = tl.program_id(1).to(tl.int64)
    begin = tl.load(COUNT + WHICH) + i_s * 64
    end = tl.load(COUNT + WHICH + 1)
    t = tl.arange(0, W)
    p_sum = DK + (i_s * tl.num_programs(1) + i_h) * (W * NB)
    if begin >= end:
        for d in tl.static_range(NB):
            tl.store(p_sum + W * d + t, tl.zeros((W,), tl.float32))
        return
    step = tl.num_programs(0) * 64
    offset = i_h * row_length
    p_shifts = SHIFTS + (i_s * tl.num_programs(1) + i_h) * (8 * (W * NB + W))
    k_scale = _scale(_shifts(TAPS + i_h * taps, p_shifts, taps, NB, W))
    first, shift, length = _place(FIRST, SHIFT, LENGTH, begin, end, offset, ALIGN)
    x, x_e = _inputs(U, PRE, first, shift, length, NB, W, HAS_PRE, FULL, FRAMED)
    sums = ()
    for _ in tl.static_range(NB):
        sums += (tl.zeros((W,), tl.float32),)
    for r in range(begin, end, step):
        g, g_e = _inputs(DY, POST, first, shift, length, NB, W, HAS_POST, FULL, FRAMED)
        # Rows meet in the taps' gradient: they are brought to one scale, that of the loudest.
        both = x_e + g_e
        top = tl.max(both, axis=0)
        ratio = _power(tl.maximum(127 + both - top, 0)).to(tl.float16)[:, None]
        level = ()
        for j in tl.static_range(NB):
            level += (g[j] * ratio,)
        half = (top - 282) // 2  # in two steps: their product may be no number of float32
        one = _power(127 + half)
        other = _power(127 + top - 282 - half)
        parts = ()
        for d in tl.static_range(NB):
            dm = tl.dot(tl.trans(x[0]), level[d])
            for j in tl.static_range(1, NB - d):
                dm = tl.dot(tl.trans(x[j]), level[j + d], dm)
            ahead, behind = _diagonals(dm, W)
            if d > 0:
                parts = parts[:-1] + (parts[d - 1] + behind * one * other,)
            parts += (sums[d] + ahead * one * other,)
        sums = parts
        m = _tables(p_shifts, NB, W)
        if HAS_POST:
            scale = _scale(x_e)[:, None]
            for i in tl.static_range(NB):
                y = tl.dot(x[i], m[0])
                for d in tl.static_range(1, i + 1):
                    y = tl.dot(x[i - d], m[d], y)
                _store(DPOST, DY, first, i, shift, length, y * scale * k_scale, True, TYPE, FULL, FRAMED, W)
        scale = _scale(g_e)[:, None]
        for j in tl.static_range(NB):
            dx = tl.dot(g[j], tl.trans(m[0]))
            for d in tl.static_range(1, NB - j):
                dx = tl.dot(g[j + d], tl.trans(m[d]), dx)
            dx = dx * scale * k_scale
            if HAS_PRE:
                _store(DPRE, U, first, j, shift, length, dx, True, TYPE, FULL, FRAMED, W)
            _store(DU, PRE, first, j, shift, length, dx, HAS_PRE, TYPE, FULL, FRAMED, W)
        if r + step < end:
            first, shift, length = _place(FIRST, SHIFT, LENGTH, r + step, end, offset, ALIGN)
            x, x_e = _inputs(U, PRE, first, shift, length, NB, W, HAS_PRE, FULL, FRAMED)
        else:
            x = _nothing(NB, W)
    for d in tl.static_range(NB):
        tl.store(p_sum + W * d + t, sums[d])
