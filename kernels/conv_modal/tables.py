"""Powers of the poles, and filters made of them: Vandermonde products and their transposes, in tiles.

A table holds the powers 0 … C of each pole as pairs, pow[c, m, n] = (Re, Im) of exp(m (decay + i frequency)), and
cpow[c, m, n] = (Re, -Im) of residue times that: the real part of a product with a state is then one dot product over pairs.
Angles are reduced to one turn in float64: an angle of a million radians has no digits left in float32.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.triton_support import narrow


@triton.jit
def _turn(turns):
    """cos and sin of 2 pi turns, -0.5 <= turns <= 0.5: Taylor series within an eighth of a turn of the nearest quarter."""
    quarter = tl.floor(4.0 * turns + 0.5)
    a = (4.0 * turns - quarter) * 1.5707963267948966
    z = a * a
    sine = a * (1.0 + z * (-1.0 / 6 + z * (1.0 / 120 + z * (-1.0 / 5040 + z * (1.0 / 362880)))))
    cosine = 1.0 + z * (-0.5 + z * (1.0 / 24 + z * (-1.0 / 720 + z * (1.0 / 40320))))
    q = quarter.to(tl.int32)
    c = tl.where(q % 2 == 0, cosine, sine)
    s = tl.where(q % 2 == 0, sine, cosine)
    return tl.where((q + 1) & 2 != 0, -c, c), tl.where(q & 2 != 0, -s, s)


@triton.jit
def _power(decay, frequency, m):
    """(Re, Im) of exp(m (decay + i frequency)) in float32, m: a whole number."""
    turns = frequency.to(tl.float64) * m.to(tl.float64) * 0.15915494309189535
    cosine, sine = _turn((turns - tl.floor(turns + 0.5)).to(tl.float32))
    size = tl.exp((decay * m.to(tl.float32)).to(tl.float32))
    return size * cosine, size * sine


@triton.jit
def _modes(p_decay, p_frequency, p_residue, c, modes, N: tl.constexpr):
    """decay, frequency, residue's parts of channel c, [N]; zero beyond its modes."""
    n = tl.arange(0, N)
    at = c.to(tl.int64) * modes + n
    decay = tl.load(p_decay + at, mask=n < modes, other=0.0)
    frequency = tl.load(p_frequency + at, mask=n < modes, other=0.0)
    real = tl.load(p_residue + 2 * at, mask=n < modes, other=0.0)
    imaginary = tl.load(p_residue + 2 * at + 1, mask=n < modes, other=0.0)
    return decay, frequency, real, imaginary


@triton.jit
def _store_powers(p_pow, p_cpow, row, pr, pi, real, imaginary, M: tl.constexpr, N: tl.constexpr):
    """Rows `row` of both tables, [M] and [M, N]; returns the real part of residue times power."""
    cr = pr * real[None, :] - pi * imaginary[None, :]
    ci = pr * imaginary[None, :] + pi * real[None, :]
    at = row[:, None] * 2 * N + tl.arange(0, 2 * N)[None, :]
    tl.store(p_pow + at, tl.reshape(tl.join(pr, pi), (M, 2 * N)))
    tl.store(p_cpow + at, tl.reshape(tl.join(cr, -ci), (M, 2 * N)))
    return cr


@triton.jit
def modal_tables_kernel(
    p_decay, p_frequency, p_residue, p_skip, p_pow, p_cpow, p_table, modes,
    C: tl.constexpr, N: tl.constexpr, HAS_SKIP: tl.constexpr, HAS_TABLE: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Grid (channels,): powers 0 … C, and the shifts of the filter's first C taps (skip added to tap 0).

    p_table: (channels, 8, 2C), entry [r, C + x] is k[x - r], zero where there is no tap (kernels/conv_toeplitz/product.py).
    """
    c = tl.program_id(0).to(tl.int64)
    m = tl.arange(0, C)
    n = tl.arange(0, N)
    decay, frequency, real, imaginary = _modes(p_decay, p_frequency, p_residue, c, modes, N)
    p_pow += c * (C + 1) * 2 * N
    p_cpow += c * (C + 1) * 2 * N
    pr, pi = _power(decay[None, :], frequency[None, :], m[:, None])  # [C, N]
    there = (n < modes)[None, :]
    cr = _store_powers(p_pow, p_cpow, m, tl.where(there, pr, 0.0), tl.where(there, pi, 0.0), real, imaginary, C, N)
    last = C + tl.arange(0, 1)
    pr, pi = _power(decay[None, :], frequency[None, :], last[:, None])
    _store_powers(p_pow, p_cpow, last, tl.where(there, pr, 0.0), tl.where(there, pi, 0.0), real, imaginary, 1, N)
    if HAS_TABLE:
        k = tl.sum(cr, axis=1)
        if HAS_SKIP:
            k += tl.where(m == 0, tl.load(p_skip + c).to(tl.float32), 0.0)
        p_table += c * 16 * C
        k = narrow(k, DTYPE)
        for r in tl.static_range(8):
            tl.store(p_table + r * 2 * C + C + r + m, k, mask=m + r < C)
            tl.store(p_table + r * 2 * C + m, narrow(0.0 * m, DTYPE))
            if r > 0:
                tl.store(p_table + r * 2 * C + C + m, narrow(0.0 * m, DTYPE), mask=m < r)


@triton.jit
def modal_gradients_kernel(
    p_dk, p_dmode, p_pow, p_residue, p_ddecay, p_dfrequency, p_dresidue, p_dskip, modes, splits,
    C: tl.constexpr, N: tl.constexpr, HAS_TAPS: tl.constexpr, HAS_SKIP: tl.constexpr,
):  # fmt: skip
    """Grid (channels,): gradients of decay, frequency, residue and skip.

    p_dk: (channels, splits, C), parts of the gradient of the first C taps, which meet the powers here; p_dmode: (channels,
    splits, 2, N, 2), parts of the complex factors of the residue and of the pole's logarithm over the residue.
    """
    c = tl.program_id(0).to(tl.int64)
    m = tl.arange(0, C)
    n = tl.arange(0, N)
    pairs = tl.arange(0, 2 * N)
    of_residue = tl.zeros((2 * N,), tl.float32)
    of_pole = tl.zeros((2 * N,), tl.float32)
    for split in range(0, splits):
        p_part = p_dmode + (c * splits + split) * 4 * N + pairs
        of_residue += tl.load(p_part)
        of_pole += tl.load(p_part + 2 * N)
    if HAS_TAPS:
        dk = tl.zeros((C,), tl.float32)
        for split in range(0, splits):
            dk += tl.load(p_dk + (c * splits + split) * C + m)
        powers = tl.load(p_pow + (c * (C + 1) + m[:, None]) * 2 * N + pairs[None, :])
        of_residue += tl.sum(dk[:, None] * powers, axis=0)
        of_pole += tl.sum((dk * m.to(tl.float32))[:, None] * powers, axis=0)
        if HAS_SKIP:
            tl.store(p_dskip + c, tl.sum(tl.where(m == 0, dk, 0.0), axis=0))
    rr, ri = tl.split(tl.reshape(of_residue, (N, 2)))
    zr, zi = tl.split(tl.reshape(of_pole, (N, 2)))
    at = c * modes + n
    there = n < modes
    real = tl.load(p_residue + 2 * at, mask=there, other=0.0)
    imaginary = tl.load(p_residue + 2 * at + 1, mask=there, other=0.0)
    tl.store(p_dresidue + 2 * at, rr, mask=there)
    tl.store(p_dresidue + 2 * at + 1, -ri, mask=there)
    tl.store(p_ddecay + at, zr * real - zi * imaginary, mask=there)
    tl.store(p_dfrequency + at, -(zr * imaginary + zi * real), mask=there)


@triton.jit
def modal_filter_kernel(
    p_decay, p_frequency, p_residue, p_cpow, p_k, L, modes, C: tl.constexpr, R: tl.constexpr, N: tl.constexpr
):  # fmt: skip
    """Grid (channels, tiles of R * C taps): k[rC + i] = Re sum_n pole_n^(rC) residue_n pole_n^i."""
    c = tl.program_id(0)
    begin = (tl.program_id(1) * R + tl.arange(0, R)) * C
    i = tl.arange(0, C)
    pairs = tl.arange(0, 2 * N)
    decay, frequency, _, _ = _modes(p_decay, p_frequency, p_residue, c, modes, N)
    pr, pi = _power(decay[None, :], frequency[None, :], begin[:, None])  # [R, N]
    powers = tl.load(p_cpow + (c.to(tl.int64) * (C + 1) + i[:, None]) * 2 * N + pairs[None, :])  # [C, 2N]
    k = tl.dot(tl.reshape(tl.join(pr, pi), (R, 2 * N)), tl.trans(powers), input_precision="tf32x3")
    t = begin[:, None] + i[None, :]
    tl.store(p_k + c.to(tl.int64) * L + t, k, mask=t < L)


@triton.jit
def modal_dfilter_kernel(
    p_dk, p_decay, p_frequency, p_residue, p_pow, p_part, L, modes, tiles, C: tl.constexpr, R: tl.constexpr, N: tl.constexpr
):  # fmt: skip
    """Grid (channels, splits of the tiles): sums over t of dk[t] pole^t and of t dk[t] pole^t.

    p_part: (channels, splits, 2, N, 2) float32, real and imaginary parts.
    """
    c = tl.program_id(0)
    i = tl.arange(0, C)
    n = tl.arange(0, N)
    pairs = tl.arange(0, 2 * N)
    decay, frequency, _, _ = _modes(p_decay, p_frequency, p_residue, c, modes, N)
    powers = tl.load(p_pow + (c.to(tl.int64) * (C + 1) + i[:, None]) * 2 * N + pairs[None, :])  # [C, 2N]
    risen = powers * i[:, None].to(tl.float32)
    sr = tl.zeros((R, N), tl.float32)
    si = tl.zeros((R, N), tl.float32)
    tr = tl.zeros((R, N), tl.float32)
    ti = tl.zeros((R, N), tl.float32)
    for tile in range(tl.program_id(1), tiles, tl.num_programs(1)):
        begin = (tile * R + tl.arange(0, R)) * C
        t = begin[:, None] + i[None, :]
        dk = tl.load(p_dk + c.to(tl.int64) * L + t, mask=t < L, other=0.0)
        qr, qi = tl.split(tl.reshape(tl.dot(dk, powers, input_precision="tf32x3"), (R, N, 2)))
        wr, wi = tl.split(tl.reshape(tl.dot(dk, risen, input_precision="tf32x3"), (R, N, 2)))
        pr, pi = _power(decay[None, :], frequency[None, :], begin[:, None])
        sr += pr * qr - pi * qi
        si += pr * qi + pi * qr
        wr += begin[:, None].to(tl.float32) * qr
        wi += begin[:, None].to(tl.float32) * qi
        tr += pr * wr - pi * wi
        ti += pr * wi + pi * wr
    p_part += (c.to(tl.int64) * tl.num_programs(1) + tl.program_id(1)) * 4 * N
    tl.store(p_part + 2 * n, tl.sum(sr, axis=0))
    tl.store(p_part + 2 * n + 1, tl.sum(si, axis=0))
    tl.store(p_part + 2 * N + 2 * n, tl.sum(tr, axis=0))
    tl.store(p_part + 2 * N + 2 * n + 1, tl.sum(ti, axis=0))
