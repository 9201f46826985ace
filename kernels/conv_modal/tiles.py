"""The modal scan's backward in one kernel, as `scan` has it, with what `lanes` has learnt.

A tile's operands are made at the end of the tile before and carried by the loop, so that they go to shared memory once and all
products take them from there; the parameters' gradients are four sums of products over all rows, which meet the powers of the
poles at the end; and the adjoint half of the work is done with before the other half begins.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.conv_modal.lanes import _element, _operands, _spread, _weighted
from kernels.conv_modal.scan import _paired, _pairs, _powers, _scan, _times
from kernels.conv_toeplitz.product import diagonals, load_toeplitz, starts_of
from kernels.triton_support import narrow, operand


@triton.jit
def modal_tiles_kernel(
    p_dy, p_u, p_pow, p_cpow, p_table, p_pre, p_post, p_start, p_segment, p_carry,
    p_du, p_dpre, p_dpost, p_dstate, p_dk, p_dmode,
    L, B, tiles, su_b, su_c, spre_b, spre_c, spost_b, spost_c,
    C: tl.constexpr, R: tl.constexpr, N: tl.constexpr, HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr,
    HAS_STATE: tl.constexpr, HAS_DOCS: tl.constexpr, DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid, arguments and results as `modal_bwd_kernel`'s."""
    h = tl.program_id(0).to(tl.int64)
    D = tl.num_programs(0)
    i = tl.arange(0, C)
    n = tl.arange(0, N)
    r = tl.arange(0, R)
    p_pow += h * (C + 1) * 2 * N
    p_cpow += h * (C + 1) * 2 * N
    T = load_toeplitz(p_table + h * 16 * C, 0, C, 2 * C, DTYPE)
    G = operand(_powers(p_pow, C - 1 - i, N), DTYPE)
    Q = operand(_powers(p_pow, i + 1, N), DTYPE)
    H = tl.trans(operand(_powers(p_cpow, C - 1 - i, N), DTYPE))
    if HAS_POST:
        O = tl.trans(operand(_powers(p_cpow, i + 1, N), DTYPE))  # noqa: E741
    lr = tl.load(p_pow + C * 2 * N + 2 * n)[None, :] + tl.zeros((R, N), tl.float32)
    li = tl.load(p_pow + C * 2 * N + 2 * n + 1)[None, :] + tl.zeros((R, N), tl.float32)
    dT = tl.zeros((C, C), tl.float32)
    dO = tl.zeros((C, 2 * N), tl.float32)
    dG = tl.zeros((C, 2 * N), tl.float32)
    zr = tl.zeros((R, N), tl.float32)
    zi = tl.zeros((R, N), tl.float32)
    adjoint_r = tl.zeros((1, N), tl.float32)
    adjoint_i = tl.zeros((1, N), tl.float32)
    at = r[:, None] * C + i[None, :]  # within a tile
    steps = (B - tl.program_id(1) + tl.num_programs(1) - 1) // tl.num_programs(1) * tiles
    b64 = tl.program_id(1) + 0 * h  # int64
    start = (tiles - 1) * (R * C)
    x, dz = _operands(
        p_u + (b64 * su_b + h * su_c + start), p_pre + (b64 * spre_b + h * spre_c + start) if HAS_PRE else p_pre,
        p_dy + ((b64 * D + h) * L + start), p_post + (b64 * spost_b + h * spost_c + start) if HAS_POST else p_post,
        at, at, at, at, at < L - start, HAS_PRE, HAS_POST, DTYPE,
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
            segment = tl.load(p_segment + b64 * L + start + at, mask=mask, other=0)
            own = starts_of(p_start, b64, start + at, mask, L, 1)
            end = starts_of(p_start, b64, tl.minimum(begin + C - 1, L - 1), begin < L, L, 1)
            given = tl.where(start + at >= end, x, 0.0)
            taken = tl.where(own < begin, dz, 0.0)
            ar = tl.where(end < begin, lr, 0.0)
            ai = tl.where(end < begin, li, 0.0)
        # Adjoint states after each chunk, and what they give
        qr, qi = _pairs(tl.dot(taken, Q, input_precision=PRECISION), R, N)
        pr, pi, adjoint_r, adjoint_i = _scan(ar, ai, qr, qi, adjoint_r, adjoint_i, R, True, HAS_DOCS)
        after = operand(_paired(pr, pi, R, N), DTYPE)
        dG = tl.dot(tl.trans(given), after, dG, input_precision=PRECISION)
        dv = tl.dot(after, H, input_precision=PRECISION)
        if HAS_DOCS:
            dv = tl.where(start + at >= end, dv, 0.0)
        dv = _spread(dv, dz, tl.trans(T), segment, segment, HAS_DOCS, DTYPE, PRECISION)
        if HAS_PRE:
            u = _element(p_u + (b64 * su_b + h * su_c + start), at, mask)
            tl.store(p_dpre + here + at, narrow(dv * u, DTYPE), mask=mask)
            dv *= _element(p_pre + (b64 * spre_b + h * spre_c + start), at, mask)
        tl.store(p_du + here + at, narrow(dv, DTYPE), mask=mask)
        # States before each chunk, as forward had them
        p_here = p_carry + (row * tiles + tile) * 2 * N + 2 * n[None, :]
        gr, gi = _pairs(tl.dot(given, G, input_precision=PRECISION), R, N)
        sr, si, _, _ = _scan(ar, ai, gr, gi, tl.load(p_here), tl.load(p_here + 1), R, False, HAS_DOCS)
        before = operand(_paired(sr, si, R, N), DTYPE)
        dO = tl.dot(tl.trans(taken), before, dO, input_precision=PRECISION)
        after_r, after_i = _times(ar, ai, sr, si, HAS_DOCS)
        zr += pr * after_r - pi * after_i
        zi += pr * after_i + pi * after_r
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
            y = _spread(y, x, T, segment, segment, HAS_DOCS, DTYPE, PRECISION)
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
            at, at, at, at, at < left, HAS_PRE, HAS_POST, DTYPE,
        )  # fmt: skip
    part = h * tl.num_programs(1) + tl.program_id(1)
    causal, _ = diagonals(dT, C)
    tl.store(p_dk + part * C + i, causal)
    rising = i.to(tl.float32)
    wr, wi = _weighted(dO, p_pow, i + 1, 1.0 + 0.0 * rising, C, N)
    ur, ui = _weighted(dO, p_pow, i + 1, 1.0 + rising, C, N)
    vr, vi = _weighted(dG, p_pow, C - 1 - i, C - 1 - rising, C, N)
    p_dmode += part * 4 * N
    tl.store(p_dmode + 2 * n, wr)
    tl.store(p_dmode + 2 * n + 1, wi)
    tl.store(p_dmode + 2 * N + 2 * n, ur + vr + C * tl.sum(zr, axis=0))
    tl.store(p_dmode + 2 * N + 2 * n + 1, ui + vi + C * tl.sum(zi, axis=0))
