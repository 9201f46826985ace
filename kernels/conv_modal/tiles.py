"""The modal scan's backward for 16-bit tensors and up to 16 modes: what `scan` computes, held where products take it from.

States before each chunk are forward's, so that only the adjoint scan is left; rows are chunks from the last to the first, for a
scan from the first row to the last takes half of the shuffles. A tile's operands are made at the end of the tile before and
carried by the loop, so that they go to shared memory once and all products take them from there. The parameters' gradients are
four sums of products over all rows, which meet the powers of the poles at the end: dT, dO and dG of the tables' entries, and Z
of states and adjoint states, whose sum over one mode is that of the pole's power between chunks.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.conv_modal.scan import _between_chunks, _documents, _dot_halves, _halves, _paired, _pairs, _powers, _scan, _within
from kernels.conv_toeplitz.product import diagonals, load_toeplitz
from kernels.triton_support import narrow, operand


@triton.jit
def _element(p, at, mask):
    return tl.load(p + at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _operands(
    p_u, p_pre, p_dy, p_post, at, mask, HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, DTYPE: tl.constexpr
):  # fmt: skip
    """A tile's gated inputs and gated gradients, as products take them."""
    x = _element(p_u, at, mask)
    if HAS_PRE:
        x *= _element(p_pre, at, mask)
    dz = _element(p_dy, at, mask)
    if HAS_POST:
        dz *= _element(p_post, at, mask)
    return operand(x, DTYPE), operand(dz, DTYPE)


@triton.jit
def _weighted(M, p_pow, m, weight, C: tl.constexpr, N: tl.constexpr):
    """Sums over rows of weight pole^m M, M complex in pairs [C, 2N]; real and imaginary parts, [N]."""
    mr, mi = _pairs(M, C, N)
    ar, ai = _pairs(_powers(p_pow, m, N) * weight[:, None], C, N)
    return tl.sum(ar * mr - ai * mi, axis=0), tl.sum(ar * mi + ai * mr, axis=0)


@triton.jit
def _within_modes(Z, N: tl.constexpr):
    """Sums of products of complex numbers, mode by mode, [N], from those of all their parts, [2N of one, 2N of the other]."""
    pairs = tl.arange(0, 2 * N)
    Z = tl.where((pairs[:, None] // 2) == (pairs[None, :] // 2), Z, 0.0)
    parts = tl.reshape(tl.sum(tl.reshape(Z, (N, 2, 2 * N)), axis=0), (2, N, 2))
    with_real, with_imaginary = tl.split(tl.permute(parts, (1, 2, 0)))
    rr, ri = tl.split(with_real)
    ir, ii = tl.split(with_imaginary)
    return rr - ii, ri + ir


@triton.jit
def modal_tiles_kernel(
    p_dy, p_u, p_pow, p_cpow, p_table, p_pre, p_post, p_start, p_segment, p_kept,
    p_du, p_dpre, p_dpost, p_dstate, p_dk, p_dmode,
    L, B, tiles, su_b, su_c, spre_b, spre_c, spost_b, spost_c,
    C: tl.constexpr, R: tl.constexpr, N: tl.constexpr, HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr,
    HAS_STATE: tl.constexpr, HAS_DOCS: tl.constexpr, DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid, arguments and results as `modal_bwd_kernel`'s, but p_kept has states before each chunk, (B, D, chunks, N, 2)."""
    h = tl.program_id(0).to(tl.int64)
    D = tl.num_programs(0)
    i = tl.arange(0, C)
    n = tl.arange(0, N)
    pairs = tl.arange(0, 2 * N)
    r = R - 1 - tl.arange(0, R)  # chunks from the last to the first
    chunks = (L + C - 1) // C
    p_pow += h * (C + 1) * 2 * N
    p_cpow += h * (C + 1) * 2 * N
    T = load_toeplitz(p_table + h * 16 * C, 0, C, 2 * C, DTYPE)
    Q, Q_rest = _halves(_powers(p_pow, i + 1, N), DTYPE)
    H = tl.trans(operand(_powers(p_cpow, C - 1 - i, N), DTYPE))
    if HAS_POST:
        O = tl.trans(operand(_powers(p_cpow, i + 1, N), DTYPE))  # noqa: E741
    lr, li = _between_chunks(p_pow, C, R, N)
    dT = tl.zeros((C, C), tl.float32)
    dO = tl.zeros((C, 2 * N), tl.float32)
    dG = tl.zeros((C, 2 * N), tl.float32)
    Z = tl.zeros((2 * N, 2 * N), tl.float32)
    adjoint_r = tl.zeros((1, N), tl.float32)
    adjoint_i = tl.zeros((1, N), tl.float32)
    at = r[:, None] * C + i[None, :]  # within a tile
    state_at = r[:, None] * 2 * N + pairs[None, :]
    steps = (B - tl.program_id(1) + tl.num_programs(1) - 1) // tl.num_programs(1) * tiles
    b64 = tl.program_id(1) + 0 * h  # int64
    start = (tiles - 1) * (R * C)
    x, dz = _operands(
        p_u + (b64 * su_b + h * su_c + start), p_pre + (b64 * spre_b + h * spre_c + start) if HAS_PRE else p_pre,
        p_dy + ((b64 * D + h) * L + start), p_post + (b64 * spost_b + h * spost_c + start) if HAS_POST else p_post,
        at, at < L - start, HAS_PRE, HAS_POST, DTYPE,
    )  # fmt: skip
    for step in range(0, steps):
        tile = tiles - 1 - step % tiles
        b64 = tl.program_id(1) + (step // tiles) * tl.num_programs(1) + 0 * h
        row = b64 * D + h
        start = tile * (R * C)
        here = row * L + start
        mask = at < L - start
        adjoint_r = tl.where(tile == tiles - 1, 0.0, adjoint_r)
        adjoint_i = tl.where(tile == tiles - 1, 0.0, adjoint_i)
        given = x
        taken = dz
        ar = lr
        ai = li
        segment = mask
        if HAS_DOCS:
            begin = (start + r * C)[:, None]
            segment, own, end = _documents(p_start, p_segment, b64, begin, start + at, L, C)
            given = tl.where(start + at >= end, x, 0.0)
            taken = tl.where(own < begin, dz, 0.0)
            ar = tl.where(end < begin, lr, 0.0)
            ai = tl.where(end < begin, li, 0.0)
        # Adjoint states after each chunk, and what they give
        qr, qi = _pairs(_dot_halves(taken, Q, Q_rest, DTYPE, PRECISION), R, N)
        pr, pi, adjoint_r, adjoint_i = _scan(ar, ai, qr, qi, adjoint_r, adjoint_i, R, False, HAS_DOCS)
        after = operand(_paired(pr, pi, R, N), DTYPE)
        dG = tl.dot(tl.trans(given), after, dG, input_precision=PRECISION)
        dv = tl.dot(after, H, input_precision=PRECISION)
        if HAS_DOCS:
            dv = tl.where(start + at >= end, dv, 0.0)
        dv = _within(dv, dz, tl.trans(T), segment, HAS_DOCS, DTYPE, PRECISION)
        if HAS_PRE:
            u = _element(p_u + (b64 * su_b + h * su_c + start), at, mask)
            tl.store(p_dpre + here + at, narrow(dv * u, DTYPE), mask=mask)
            dv *= _element(p_pre + (b64 * spre_b + h * spre_c + start), at, mask)
        tl.store(p_du + here + at, narrow(dv, DTYPE), mask=mask)
        # States before each chunk, as forward left them
        there = (tile * R + r < chunks)[:, None]
        before = operand(tl.load(p_kept + (row * chunks + tile * R) * 2 * N + state_at, mask=there, other=0.0), DTYPE)
        dO = tl.dot(tl.trans(taken), before, dO, input_precision=PRECISION)
        passed = after
        if HAS_DOCS:
            passed = operand(tl.where(end < begin, after.to(tl.float32), 0.0), DTYPE)
        Z = tl.dot(tl.trans(passed), before, Z, input_precision=PRECISION)
        # Within a chunk
        if HAS_DOCS:
            for s in range(0, tl.max(segment) + 1):
                xs = tl.where(segment == s, x, 0.0)
                dT = tl.dot(tl.trans(xs), tl.where(segment == s, dz, 0.0), dT, input_precision=PRECISION)
        else:
            dT = tl.dot(tl.trans(x), dz, dT, input_precision=PRECISION)
        if HAS_POST:
            y = tl.dot(before, O, input_precision=PRECISION)
            if HAS_DOCS:
                y = tl.where(own < begin, y, 0.0)
            y = _within(y, x, T, segment, HAS_DOCS, DTYPE, PRECISION)
            y *= _element(p_dy + here, at, mask)
            tl.store(p_dpost + here + at, narrow(y, DTYPE), mask=mask)
        if HAS_STATE:  # the last tile's stays
            tl.store(p_dstate + row * 2 * N + 2 * n[None, :], adjoint_r)
            tl.store(p_dstate + row * 2 * N + 2 * n[None, :] + 1, adjoint_i)
        # The next tile's operands
        tile = tiles - 1 - (step + 1) % tiles
        b64 = tl.program_id(1) + ((step + 1) // tiles) * tl.num_programs(1) + 0 * h
        start = tile * (R * C)
        left = tl.where(step + 1 < steps, L - start, 0)
        x, dz = _operands(
            p_u + (b64 * su_b + h * su_c + start), p_pre + (b64 * spre_b + h * spre_c + start) if HAS_PRE else p_pre,
            p_dy + ((b64 * D + h) * L + start), p_post + (b64 * spost_b + h * spost_c + start) if HAS_POST else p_post,
            at, at < left, HAS_PRE, HAS_POST, DTYPE,
        )  # fmt: skip
    part = h * tl.num_programs(1) + tl.program_id(1)
    causal, _ = diagonals(dT, C)
    tl.store(p_dk + part * C + i, causal)
    rising = i.to(tl.float32)
    wr, wi = _weighted(dO, p_pow, i + 1, 1.0 + 0.0 * rising, C, N)
    ur, ui = _weighted(dO, p_pow, i + 1, 1.0 + rising, C, N)
    vr, vi = _weighted(dG, p_pow, C - 1 - i, C - 1 - rising, C, N)
    zr, zi = _within_modes(Z, N)
    er = tl.load(p_pow + C * 2 * N + 2 * n)
    ei = tl.load(p_pow + C * 2 * N + 2 * n + 1)
    p_dmode += part * 4 * N
    tl.store(p_dmode + 2 * n, wr)
    tl.store(p_dmode + 2 * n + 1, wi)
    tl.store(p_dmode + 2 * N + 2 * n, ur + vr + C * (er * zr - ei * zi))
    tl.store(p_dmode + 2 * N + 2 * n + 1, ui + vi + C * (er * zi + ei * zr))
