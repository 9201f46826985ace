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


@triton.jit
def _power(decay, frequency, m):
    """(Re, Im) of exp(m (decay + i frequency)) in float32, m: a whole number."""
    turns = frequency.to(tl.float64) * m.to(tl.float64) * 0.15915494309189535
    angle = (turns - tl.floor(turns)).to(tl.float32) * 6.283185307179586
    size = tl.exp(decay * m.to(tl.float32))
    return size * tl.cos(angle), size * tl.sin(angle)


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
def modal_tables_kernel(
    p_decay, p_frequency, p_residue, p_skip, p_pow, p_cpow, p_k, modes, C: tl.constexpr, N: tl.constexpr, HAS_SKIP: tl.constexpr
):  # fmt: skip
    """Grid (channels, 2): powers 0 … C - 1 and the filter's first C taps (skip added to tap 0), then power C."""
    c = tl.program_id(0)
    m = tl.program_id(1) * C + tl.arange(0, C)
    n = tl.arange(0, N)
    decay, frequency, real, imaginary = _modes(p_decay, p_frequency, p_residue, c, modes, N)
    pr, pi = _power(decay[None, :], frequency[None, :], m[:, None])  # [C, N]
    there = (n < modes)[None, :]
    pr = tl.where(there, pr, 0.0)
    pi = tl.where(there, pi, 0.0)
    cr = pr * real[None, :] - pi * imaginary[None, :]
    ci = pr * imaginary[None, :] + pi * real[None, :]
    at = (c.to(tl.int64) * (C + 1) + m[:, None]) * 2 * N + 2 * n[None, :]
    keep = (m <= C)[:, None]
    tl.store(p_pow + at, pr, mask=keep)
    tl.store(p_pow + at + 1, pi, mask=keep)
    tl.store(p_cpow + at, cr, mask=keep)
    tl.store(p_cpow + at + 1, -ci, mask=keep)
    k = tl.sum(cr, axis=1)
    if HAS_SKIP:
        k += tl.where(m == 0, tl.load(p_skip + c).to(tl.float32), 0.0)
    tl.store(p_k + c.to(tl.int64) * C + m, k, mask=m < C)


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
