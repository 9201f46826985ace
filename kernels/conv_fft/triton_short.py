"""Causal rows of up to 256 samples as products with Toeplitz matrices of 64 x 64 taps.

So short, rows take fewer operations this way than by a transform, in products that wait for nothing but each other, and no
sample moves one before it. 32 rows of a channel are a tile, X_j its samples 64 j ... 64 j + 63 (rows, samples), G_j the same of
the output's gradient times the gate, and M_d[s, t] = k[64 d + t - s]:
    y_i^T = sum_{j <= i} M_{i-j}^T X_j^T      dx_j^T = sum_{i >= j} M_{i-j} G_i^T
    dM_d^T = sum_i G_i^T X_{i-d}              dk[l]: the sum of all dM_d[s, t] where 64 d + t - s = l
Samples are rows of the products, 64 at least, and rows of data their columns, so that what is not finite stays in its row; all
rows meet in dM.

Operands are float16, each row's over a power of two that leaves its largest number in [2^14, 2^15): numbers to 2^-29 of it keep
all bits, and a louder sample elsewhere in the row, up to that, moves none.
"""

# Triton's decorators hide from type checkers how kernels are launched and what they return.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false
# pyright: reportAssignmentType=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.conv_fft.triton_fused import framed, load, save
from kernels.triton_support import INTERPRET

# Samples of a block and rows of a tile.
WIDTH = tl.constexpr(64)
ROWS = tl.constexpr(32)


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
def _shifts(p_taps, p_shifts, taps, NB: tl.constexpr):
    """Eight shifts of a filter, (8, 64 (NB + 1)) float16: of r, the tap x - r at 64 + x. Its exponent.

    Of them, all of a Toeplitz matrix comes by whole vectors. Written by a program for itself.
    """
    t = tl.arange(0, WIDTH)
    largest = tl.zeros((WIDTH,), tl.float32)
    for j in tl.static_range(NB):
        largest = tl.maximum(largest, tl.abs(tl.load(p_taps + WIDTH * j + t, mask=WIDTH * j + t < taps, other=0.0)))
    e = _exponent(tl.max(largest, axis=0))
    r = tl.arange(0, 8)[:, None]
    for j in tl.static_range(NB + 1):
        x = WIDTH * j - WIDTH + t[None, :] - r
        k = tl.load(p_taps + x, mask=(x >= 0) & (x < taps), other=0.0) * _inverse(e)
        tl.store(p_shifts + r * (WIDTH * NB + WIDTH) + WIDTH * j + t[None, :], k.to(tl.float16))
    tl.debug_barrier()
    return e


@triton.jit
def _toeplitz(p_shifts, d: tl.constexpr, NB: tl.constexpr):
    """M_d, (64, 64) float16."""
    s = tl.arange(0, WIDTH)[:, None]
    at = s % 8 * (WIDTH * NB + WIDTH) + (WIDTH + WIDTH * d - s // 8 * 8) + tl.arange(0, WIDTH)[None, :]
    return tl.load(p_shifts + at)


@triton.jit
def _convolved(p_shifts, x, NB: tl.constexpr, TRANSPOSED: tl.constexpr):
    """Of NB blocks (rows, samples), as many (samples, rows) float32: y_i^T, or if TRANSPOSED, dx_i^T.

    One M_d is in shared memory at a time, and all sums are in registers.
    """
    sums = ()
    for _ in tl.static_range(NB):
        sums += (tl.zeros((WIDTH, ROWS), tl.float32),)
    for d in tl.static_range(NB):
        m = _toeplitz(p_shifts, d, NB)
        found = ()
        for i in tl.static_range(NB):
            if TRANSPOSED and i + d < NB:
                found += (tl.dot(m, tl.trans(x[i + d]), sums[i]),)
            elif not TRANSPOSED and i >= d:
                found += (tl.dot(tl.trans(m), tl.trans(x[i - d]), sums[i]),)
            else:
                found += (sums[i],)
        sums = found
    return sums


@triton.jit
def _place(FIRST, SHIFT, LENGTH, r, end, offset, ALIGN: tl.constexpr):
    """Where the frames of a tile's rows begin, and where in them the rows begin and end, each (32, 1)."""
    row = r + tl.arange(0, ROWS)
    there = row < end
    first = tl.multiple_of(tl.load(FIRST + row, mask=there, other=0) + offset, ALIGN)[:, None]
    shift = tl.load(SHIFT + row, mask=there, other=0)[:, None]
    return first, shift, tl.load(LENGTH + row, mask=there, other=0)[:, None]


@triton.jit
def _fetch(pointer, first, length, BLOCKS: tl.constexpr):
    """Ask for rows, by 32 bytes, long before they are loaded: what follows waits for the second-level cache, not for memory."""
    if not INTERPRET:
        start = 16 * tl.arange(0, 4 * BLOCKS)[None, :]
        address = (pointer + (first + tl.where(start < length, start, 0))).to(tl.int64)
        tl.inline_asm_elementwise(
            "prefetch.global.L2 [$1]; mov.b32 $0, 0;", "=r,l", [address], dtype=tl.int32, is_pure=False, pack=1
        )


@triton.jit
def _inputs(
    U, GATE, first, shift, length, NB: tl.constexpr, HAS_GATE: tl.constexpr, FULL: tl.constexpr, FRAMED: tl.constexpr
):  # fmt: skip
    """Blocks of rows' samples times their gates, NB of (32, 64) in float16, and the rows' exponents (32,)."""
    t = tl.arange(0, WIDTH)[None, :]
    largest = tl.zeros((ROWS,), tl.float32)
    products = ()
    for j in tl.static_range(NB):
        sample = WIDTH * j + t
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
    FULL: tl.constexpr, FRAMED: tl.constexpr,
):  # fmt: skip
    """Block j of rows, times a gate."""
    sample = WIDTH * j + tl.arange(0, WIDTH)[None, :]
    mask = (sample >= shift) & (sample < length)
    if HAS_GATE:
        value *= load(GATE, first + sample, sample // 8 * 8 < length if FRAMED else mask, FULL, True)
    if FRAMED:  # whole groups of eight, and one by one what is left of the first and the last
        eighth = sample // 8 * 8
        whole = (eighth >= shift) & (eighth + 8 <= length)
        save(pointer, first + sample, whole, value, False, TYPE)
        mask = mask & (whole == 0)
    save(pointer, first + sample, mask, value, FULL, TYPE)


@triton.jit
def _halves_apart(x):
    """Samples (rows, 64) in another order: as rows of a product, the first 32 and those 32 further on are in one thread."""
    return tl.reshape(tl.permute(tl.reshape(x, (ROWS, 2, 4, 8)), (0, 2, 1, 3)), (ROWS, WIDTH))


@triton.jit
def _lags(m, after):
    """Sums over t - s = l of m (64 t, 64 s) where t >= s, and over t - s = l - 64 of `after` where t < s.

    Rows t are in the order of `_halves_apart`. Four parts of each sum, one a warp, (4, 32): of l < 32, and of others. First
    halves of t and of s are added, which are in one thread; a quarter of the numbers is left to turn by their row.
    """
    row = tl.arange(0, 64)[:, None]
    t = row // 8 % 2 * 32 + row // 16 * 8 + row % 8
    both = tl.where(t >= tl.arange(0, 64)[None, :], m, after)
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
def _add(p_sum, part, several, N: tl.constexpr):
    """Four parts of 32 sums, added to those before, if any."""
    at = p_sum + tl.arange(0, 4)[:, None] * N + tl.arange(0, 32)[None, :]
    tl.store(at, part + tl.load(at, mask=tl.zeros((4, 32), tl.int1) | several, other=0.0))


@triton.jit
def _forward_tile(
    r, begin, end, U, PRE, POST, Y, p_shifts, k_scale, FIRST, SHIFT, LENGTH, offset,
    NB: tl.constexpr, HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, FULL: tl.constexpr, ALIGN: tl.constexpr,
    TYPE: tl.constexpr, FRAMED: tl.constexpr,
):  # fmt: skip
    """y of rows r ... r + 31."""
    first, shift, length = _place(FIRST, SHIFT, LENGTH, r, end, offset, ALIGN)
    x, e = _inputs(U, PRE, first, shift, length, NB, HAS_PRE, FULL, FRAMED)
    y = _convolved(p_shifts, x, NB, False)
    scale = _scale(e)[:, None] * k_scale  # first: of extreme numbers either alone would overflow
    for i in tl.static_range(NB):
        _store(Y, POST, first, i, shift, length, tl.trans(y[i]) * scale, HAS_POST, TYPE, FULL, FRAMED)


@triton.jit
def _backward_tile(
    r, begin, end, DY, U, PRE, POST, DU, DPRE, DPOST, p_sum, p_shifts, k_scale, FIRST, SHIFT, LENGTH, offset,
    NB: tl.constexpr, HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, FULL: tl.constexpr, ALIGN: tl.constexpr,
    TYPE: tl.constexpr, FRAMED: tl.constexpr,
):  # fmt: skip
    """Gradients of rows r ... r + 31; the taps' is added to what the program's tiles before left there, from row `begin` on."""
    first, shift, length = _place(FIRST, SHIFT, LENGTH, r, end, offset, ALIGN)
    x, x_e = _inputs(U, PRE, first, shift, length, NB, HAS_PRE, FULL, FRAMED)
    if HAS_POST:
        y = _convolved(p_shifts, x, NB, False)
        scale = _scale(x_e)[:, None] * k_scale
        for i in tl.static_range(NB):
            _store(DPOST, DY, first, i, shift, length, tl.trans(y[i]) * scale, True, TYPE, FULL, FRAMED)
    g, g_e = _inputs(DY, POST, first, shift, length, NB, HAS_POST, FULL, FRAMED)
    # Rows meet in the taps' gradient: they are brought to one scale, that of the loudest.
    both = x_e + g_e
    top = tl.max(both, axis=0)
    ratio = _power(tl.maximum(127 + both - top, 0)).to(tl.float16)[:, None]
    half = (top - 282) // 2  # in two steps: their product may be no number of float32
    one = _power(127 + half)
    other = _power(127 + top - 282 - half)
    left = ()
    for i in tl.static_range(NB):
        left += (tl.trans(_halves_apart(g[i] * ratio)),)
    after = tl.zeros((WIDTH, WIDTH), tl.float32)
    for d in tl.static_range(NB - 1, -1, -1):
        m = tl.zeros((WIDTH, WIDTH), tl.float32)
        for j in tl.static_range(NB - d):
            m = tl.dot(left[j + d], x[j], m)
        low, high = _lags(m, after)
        after = m
        _add(p_sum + WIDTH * d, low * one * other, r > begin, WIDTH * NB)
        _add(p_sum + WIDTH * d + 32, high * one * other, r > begin, WIDTH * NB)
    dx = _convolved(p_shifts, g, NB, True)
    scale = _scale(g_e)[:, None] * k_scale
    for j in tl.static_range(NB):
        z = tl.trans(dx[j]) * scale
        if HAS_PRE:
            _store(DPRE, U, first, j, shift, length, z, True, TYPE, FULL, FRAMED)
        _store(DU, PRE, first, j, shift, length, z, HAS_PRE, TYPE, FULL, FRAMED)


@triton.jit
def _begun(
    begin, end, DY, U, PRE, POST, TAPS, SHIFTS, i_s, i_h, FIRST, SHIFT, LENGTH, offset, taps,
    NB: tl.constexpr, HAS_DY: tl.constexpr, HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    """Before a program's tiles: asks for its first rows, writes the filter's shifts. Where they are, and the taps' scale."""
    BLOCKS: tl.constexpr = NB if NB < 3 else 4
    first, _, length = _place(FIRST, SHIFT, LENGTH, begin, end, offset, ALIGN)
    _fetch(U, first, length, BLOCKS)
    if HAS_DY:
        _fetch(DY, first, length, BLOCKS)
    if HAS_PRE:
        _fetch(PRE, first, length, BLOCKS)
    if HAS_POST:
        _fetch(POST, first, length, BLOCKS)
    p_shifts = SHIFTS + (i_s * tl.num_programs(1) + i_h) * (8 * (WIDTH * NB + WIDTH))
    return p_shifts, _scale(_shifts(TAPS + i_h * taps, p_shifts, taps, NB))


# For loops over tiles, which are called: what is inlined there the compiler computes in part before the loop, addresses in
# shared memory above all, and keeps in registers that are not there.
_forward_apart = triton.jit(noinline=True)(_forward_tile.fn)
_backward_apart = triton.jit(noinline=True)(_backward_tile.fn)


# What varies from launch to launch: no kernel is compiled for its values.
@triton.jit(do_not_specialize=["WHICH", "taps"])
def short_fwd_kernel(
    U, PRE, POST, Y, TAPS, SHIFTS, FIRST, SHIFT, LENGTH, COUNT, WHICH, row_length, taps,
    NB: tl.constexpr, HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, FULL: tl.constexpr, ALIGN: tl.constexpr,
    TYPE: tl.constexpr, FRAMED: tl.constexpr,
):  # fmt: skip
    """Grid (splits, channels). Rows COUNT[WHICH] ... COUNT[WHICH + 1] of the table FIRST, SHIFT, LENGTH, 32 at a time.

    SHIFTS (splits, channels, 8, 64 (NB + 1)) float16 is scratch. FULL: rows have 64 NB samples each and fill tiles, and each
    program has one. FRAMED: others, whose frames begin at multiples of eight.
    """
    i_s = tl.program_id(0)
    i_h = tl.program_id(1).to(tl.int64)
    begin = tl.load(COUNT + WHICH) + i_s * ROWS
    end = tl.load(COUNT + WHICH + 1)
    if begin >= end:
        return
    offset = i_h * row_length
    p_shifts, k_scale = _begun(
        begin, end, None, U, PRE, POST, TAPS, SHIFTS, i_s, i_h, FIRST, SHIFT, LENGTH, offset, taps,
        NB, False, HAS_PRE, HAS_POST, ALIGN,
    )  # fmt: skip
    if FULL:
        _forward_tile(
            begin, begin, end, U, PRE, POST, Y, p_shifts, k_scale, FIRST, SHIFT, LENGTH, offset,
            NB, HAS_PRE, HAS_POST, FULL, ALIGN, TYPE, FRAMED,
        )  # fmt: skip
    else:
        for r in range(begin, end, tl.num_programs(0) * ROWS):
            _forward_apart(
                r, begin, end, U, PRE, POST, Y, p_shifts, k_scale, FIRST, SHIFT, LENGTH, offset,
                NB, HAS_PRE, HAS_POST, FULL, ALIGN, TYPE, FRAMED,
            )  # fmt: skip


# What varies from launch to launch: no kernel is compiled for its values.
@triton.jit(do_not_specialize=["WHICH", "taps"])
def short_bwd_kernel(
    DY, U, PRE, POST, DU, DPRE, DPOST, SUMS, TAPS, SHIFTS, FIRST, SHIFT, LENGTH, COUNT, WHICH, row_length, taps,
    NB: tl.constexpr, HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, FULL: tl.constexpr, ALIGN: tl.constexpr,
    TYPE: tl.constexpr, FRAMED: tl.constexpr,
):  # fmt: skip
    """Gradients; that of taps in SUMS (splits, channels, 4, 64 NB) float32, sums over a program's rows in four parts."""
    i_s = tl.program_id(0)
    i_h = tl.program_id(1).to(tl.int64)
    begin = tl.load(COUNT + WHICH) + i_s * ROWS
    end = tl.load(COUNT + WHICH + 1)
    p_sum = SUMS + (i_s * tl.num_programs(1) + i_h) * (4 * WIDTH * NB)
    if begin >= end:
        for d in tl.static_range(4 * NB):
            tl.store(p_sum + WIDTH * d + tl.arange(0, WIDTH), tl.zeros((WIDTH,), tl.float32))
        return
    offset = i_h * row_length
    p_shifts, k_scale = _begun(
        begin, end, DY, U, PRE, POST, TAPS, SHIFTS, i_s, i_h, FIRST, SHIFT, LENGTH, offset, taps,
        NB, True, HAS_PRE, HAS_POST, ALIGN,
    )  # fmt: skip
    if FULL:
        _backward_tile(
            begin, begin, end, DY, U, PRE, POST, DU, DPRE, DPOST, p_sum, p_shifts, k_scale, FIRST, SHIFT, LENGTH, offset,
            NB, HAS_PRE, HAS_POST, FULL, ALIGN, TYPE, FRAMED,
        )  # fmt: skip
    else:
        for r in range(begin, end, tl.num_programs(0) * ROWS):
            _backward_apart(
                r, begin, end, DY, U, PRE, POST, DU, DPRE, DPOST, p_sum, p_shifts, k_scale, FIRST, SHIFT, LENGTH, offset,
                NB, HAS_PRE, HAS_POST, FULL, ALIGN, TYPE, FRAMED,
            )  # fmt: skip


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
