"""proto"""
# pyright: reportArgumentType=false
from __future__ import annotations
import triton
import triton.language as tl
from kernels.conv_modal.scan import _paired, _pairs, _powers, _scan, _times, _within
from kernels.conv_toeplitz.product import diagonals, load_toeplitz, starts_of
from kernels.triton_support import INTERPRET, narrow, operand


@triton.jit
def _element(p, at, mask):
    return tl.load(p + at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _operands(
    p_u, p_pre, p_dy, p_post, at, mask, HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, DTYPE: tl.constexpr
):  # fmt: skip
    x = _element(p_u, at, mask)
    if HAS_PRE:
        x *= _element(p_pre, at, mask)
    dz = _element(p_dy, at, mask)
    if HAS_POST:
        dz *= _element(p_post, at, mask)
    return operand(x, DTYPE), operand(dz, DTYPE)


@triton.jit
def _touch(p, line, mask):
    """Fetch the 128 bytes at p + line to L2."""
    if not INTERPRET:
        tl.inline_asm_elementwise(
            "{ .reg .pred q; setp.ne.b32 q, $2, 0; @q prefetch.global.L2 [$1]; mov.u32 $0, 0; }", "=r,l,r",
            [(p + line).to(tl.int64), mask.to(tl.int32)], dtype=tl.int32, is_pure=False, pack=1,
        )


@triton.jit
def _weighted(M, p_pow, m, weight, C: tl.constexpr, N: tl.constexpr):
    mr, mi = _pairs(M, C, N)
    ar, ai = _pairs(_powers(p_pow, m, N) * weight[:, None], C, N)
    return tl.sum(ar * mr - ai * mi, axis=0), tl.sum(ar * mi + ai * mr, axis=0)


@triton.jit
def modal_tiles_kernel(
    p_dy, p_u, p_pow, p_cpow, p_table, p_pre, p_post, p_start, p_segment, p_kept,
    p_du, p_dpre, p_dpost, p_dstate, p_dk, p_dmode,
    L, B, tiles, su_b, su_c, spre_b, spre_c, spost_b, spost_c,
    C: tl.constexpr, R: tl.constexpr, N: tl.constexpr, HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr,
    HAS_STATE: tl.constexpr, HAS_DOCS: tl.constexpr, DTYPE: tl.constexpr, PRECISION: tl.constexpr,
    EARLY: tl.constexpr = False, FETCH: tl.constexpr = False, CARRY: tl.constexpr = True,
):  # fmt: skip
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
    Q = operand(_powers(p_pow, i + 1, N), DTYPE)
    Q_rest = operand(_powers(p_pow, i + 1, N) - Q.to(tl.float32), DTYPE)
    H = tl.trans(operand(_powers(p_cpow, C - 1 - i, N), DTYPE))
    if HAS_POST:
        O = tl.trans(operand(_powers(p_cpow, i + 1, N), DTYPE))  # noqa: E741
    lr = tl.load(p_pow + C * 2 * N + 2 * n)[None, :] + tl.zeros((R, N), tl.float32)
    li = tl.load(p_pow + C * 2 * N + 2 * n + 1)[None, :] + tl.zeros((R, N), tl.float32)
    dT = tl.zeros((C, C), tl.float32)
    dO = tl.zeros((C, 2 * N), tl.float32)
    dG = tl.zeros((C, 2 * N), tl.float32)
    Z = tl.zeros((2 * N, 2 * N), tl.float32)
    adjoint_r = tl.zeros((1, N), tl.float32)
    adjoint_i = tl.zeros((1, N), tl.float32)
    at = r[:, None] * C + i[None, :]  # within a tile
    state_at = r[:, None] * 2 * N + pairs[None, :]
    steps = (B - tl.program_id(1) + tl.num_programs(1) - 1) // tl.num_programs(1) * tiles
    if CARRY:
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
        if not CARRY:
            x, dz = _operands(
                p_u + (b64 * su_b + h * su_c + start), p_pre + (b64 * spre_b + h * spre_c + start) if HAS_PRE else p_pre,
                p_dy + here, p_post + (b64 * spost_b + h * spost_c + start) if HAS_POST else p_post,
                at, mask, HAS_PRE, HAS_POST, DTYPE,
            )  # fmt: skip
        if FETCH:
            tile2 = tiles - 1 - (step + 1) % tiles
            b2 = tl.program_id(1) + ((step + 1) // tiles) * tl.num_programs(1) + 0 * h
            start2 = tile2 * (R * C)
            line = tl.arange(0, R) * C
            on = line < tl.where(step + 1 < steps, L - start2, 0)
            _touch(p_dy + ((b2 * D + h) * L + start2), line, on)
            _touch(p_u + (b2 * su_b + h * su_c + start2), line, on)
            if HAS_PRE:
                _touch(p_pre + (b2 * spre_b + h * spre_c + start2), line, on)
            if HAS_POST:
                _touch(p_post + (b2 * spost_b + h * spost_c + start2), line, on)
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
        p_here = p_kept + (row * chunks + tile * R) * 2 * N
        there = (tile * R + r < chunks)[:, None]
        if EARLY:
            before = operand(tl.load(p_here + state_at, mask=there, other=0.0), DTYPE)
        # Adjoint states after each chunk, and what they give
        q = tl.dot(taken, Q, input_precision=PRECISION)
        if DTYPE != tl.float32:
            q = tl.dot(taken, Q_rest, q, input_precision=PRECISION)
        qr, qi = _pairs(q, R, N)
        pr, pi, adjoint_r, adjoint_i = _scan(ar, ai, qr, qi, adjoint_r, adjoint_i, R, False, HAS_DOCS)
        after = operand(_paired(pr, pi, R, N), DTYPE)
        if EARLY and HAS_PRE:
            u = tl.load(p_u + (b64 * su_b + h * su_c + start) + at, mask=mask, other=0.0)
            pre = tl.load(p_pre + (b64 * spre_b + h * spre_c + start) + at, mask=mask, other=0.0)
        dG = tl.dot(tl.trans(given), after, dG, input_precision=PRECISION)
        dv = tl.dot(after, H, input_precision=PRECISION)
        if HAS_DOCS:
            dv = tl.where(start + at >= end, dv, 0.0)
        dv = _within(dv, dz, tl.trans(T), segment, HAS_DOCS, DTYPE, PRECISION)
        if HAS_PRE:
            if not EARLY:
                u = _element(p_u + (b64 * su_b + h * su_c + start), at, mask)
            tl.store(p_dpre + here + at, narrow(dv * u.to(tl.float32), DTYPE), mask=mask)
            if not EARLY:
                pre = _element(p_pre + (b64 * spre_b + h * spre_c + start), at, mask)
            dv *= pre.to(tl.float32)
        tl.store(p_du + here + at, narrow(dv, DTYPE), mask=mask)
        # States before each chunk, as forward left them
        if not EARLY:
            before = operand(tl.load(p_here + state_at, mask=there, other=0.0), DTYPE)
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
            if EARLY:
                dy = tl.load(p_dy + here + at, mask=mask, other=0.0)
            y = tl.dot(before, O, input_precision=PRECISION)
            if HAS_DOCS:
                y = tl.where(own < begin, y, 0.0)
            y = _within(y, x, T, segment, HAS_DOCS, DTYPE, PRECISION)
            if not EARLY:
                dy = _element(p_dy + here, at, mask)
            y *= dy.to(tl.float32)
            tl.store(p_dpost + here + at, narrow(y, DTYPE), mask=mask)
        if HAS_STATE:  # the last tile's stays
            tl.store(p_dstate + row * 2 * N + 2 * n[None, :], adjoint_r)
            tl.store(p_dstate + row * 2 * N + 2 * n[None, :] + 1, adjoint_i)
        # The next tile's operands
        if CARRY:
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
    # Z[2n + a, 2n + b]: sums of part a of an adjoint state and part b of a state
    same = (pairs[:, None] // 2) == (pairs[None, :] // 2)
    Z = tl.where(same, Z, 0.0)
    parts = tl.reshape(tl.sum(tl.reshape(Z, (N, 2, 2 * N)), axis=0), (2, N, 2))  # [part of adjoint, n, part of state]
    z0, z1 = tl.split(tl.permute(parts, (1, 2, 0)))  # of adjoint real, imaginary: [N, 2]
    rr, ri = tl.split(z0)
    ir, ii = tl.split(z1)
    cr = rr - ii
    ci = ri + ir
    er = tl.load(p_pow + C * 2 * N + 2 * n)
    ei = tl.load(p_pow + C * 2 * N + 2 * n + 1)
    p_dmode += part * 4 * N
    tl.store(p_dmode + 2 * n, wr)
    tl.store(p_dmode + 2 * n + 1, wi)
    tl.store(p_dmode + 2 * N + 2 * n, ur + vr + C * (er * cr - ei * ci))
    tl.store(p_dmode + 2 * N + 2 * n + 1, ui + vi + C * (er * ci + ei * cr))
