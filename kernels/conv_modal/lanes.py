"""The modal scan's backward in two kernels, so that each holds little: the adjoint states alone, then everything else.

The first reads dy and the postgate, scans from the last chunk to the first and leaves the adjoint state after each chunk, in
the operands' dtype. The second needs no scan: its rows are lanes, pieces of S chunks of one sequence whose first state forward
left, and a step takes the next chunk of R lanes, S_{r+1} = pole^C S_r + x_r G, registers only. With P_r the adjoint states,
y_r = x_r T + Re(S_r O) and dv_r = dz_r T^T + Re(P_r H) as in `scan`; the parameters' gradients are sums over all rows of
x_r^T dz_r, dz_r^T S_r, x_r^T P_r and pole^C P_r S_r, which meet the powers of the poles once, at the end.

Per sample and gate pair: 10 tensors and two states of N / 32 tensors each, where one kernel would take 7.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.conv_modal.scan import _load, _paired, _pairs, _powers, _scan, _times
from kernels.conv_toeplitz.product import diagonals, starts_of
from kernels.triton_support import narrow, operand


@triton.jit
def modal_adjoint_kernel(
    p_dy, p_pow, p_post, p_start, p_adjoint, p_dstate,
    L, B, tiles, chunks, spost_b, spost_c,
    C: tl.constexpr, R: tl.constexpr, N: tl.constexpr, HAS_POST: tl.constexpr, HAS_STATE: tl.constexpr, HAS_DOCS: tl.constexpr,
    DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (channels, splits of the batch). p_adjoint: (B, D, chunks, N, 2), the adjoint state after each chunk; p_dstate:
    (B, D, N, 2) float32, that at the first token, without the residue.

    Rows are chunks from the last to the first: a scan in the other direction would shuffle more than twice as much.
    """
    h = tl.program_id(0).to(tl.int64)
    D = tl.num_programs(0)
    i = tl.arange(0, C)
    n = tl.arange(0, N)
    r = tl.arange(0, R)
    pairs = tl.arange(0, 2 * N)
    p_pow += h * (C + 1) * 2 * N
    Q = operand(_powers(p_pow, i + 1, N), DTYPE)
    lr = tl.load(p_pow + C * 2 * N + 2 * n)[None, :] + tl.zeros((R, N), tl.float32)
    li = tl.load(p_pow + C * 2 * N + 2 * n + 1)[None, :] + tl.zeros((R, N), tl.float32)
    adjoint_r = tl.zeros((1, N), tl.float32)
    adjoint_i = tl.zeros((1, N), tl.float32)
    mine = (B - tl.program_id(1) + tl.num_programs(1) - 1) // tl.num_programs(1)
    for step in range(0, mine * tiles):
        tile = tiles - 1 - step % tiles
        b64 = tl.program_id(1) + (step // tiles) * tl.num_programs(1) + 0 * h  # int64
        row = b64 * D + h
        adjoint_r = tl.where(tile == tiles - 1, 0.0, adjoint_r)
        adjoint_i = tl.where(tile == tiles - 1, 0.0, adjoint_i)
        chunk = tile * R + R - 1 - r
        begin = chunk * C
        t = begin[:, None] + i[None, :]
        dz = _load(p_dy + row * L, t, L)
        if HAS_POST:
            dz *= _load(p_post + b64 * spost_b + h * spost_c, t, L)
        ar = lr
        ai = li
        if HAS_DOCS:
            own = starts_of(p_start, b64, t, t < L, L, 1)
            end = starts_of(p_start, b64, tl.minimum(begin + C - 1, L - 1), begin < L, L, 1)
            dz = tl.where(own < begin[:, None], dz, 0.0)
            ar = tl.where((end < begin)[:, None], lr, 0.0)
            ai = tl.where((end < begin)[:, None], li, 0.0)
        qr, qi = _pairs(tl.dot(operand(dz, DTYPE), Q, input_precision=PRECISION), R, N)
        pr, pi, adjoint_r, adjoint_i = _scan(ar, ai, qr, qi, adjoint_r, adjoint_i, R, False, HAS_DOCS)
        p_here = p_adjoint + (row * chunks + chunk[:, None]) * 2 * N + pairs[None, :]
        tl.store(p_here, narrow(_paired(pr, pi, R, N), DTYPE), mask=(begin < L)[:, None])
        if HAS_STATE:  # the last tile's stays
            tl.store(p_dstate + row * 2 * N + 2 * n[None, :], adjoint_r)
            tl.store(p_dstate + row * 2 * N + 2 * n[None, :] + 1, adjoint_i)


@triton.jit
def _weighted(M, p_pow, m, weight, C: tl.constexpr, N: tl.constexpr):
    """Sums over rows of weight pole^m M, M complex in pairs [C, 2N]; real and imaginary parts, [N]."""
    mr, mi = _pairs(M, C, N)
    ar, ai = _pairs(_powers(p_pow, m, N) * weight[:, None], C, N)
    return tl.sum(ar * mr - ai * mi, axis=0), tl.sum(ar * mi + ai * mr, axis=0)


@triton.jit
def _spread(y, x, T, segment, part, HAS_DOCS: tl.constexpr, DTYPE: tl.constexpr, PRECISION: tl.constexpr):
    """y + x T, documents apart: `segment` of x's tokens, `part` of y's."""
    if HAS_DOCS:
        for s in range(0, tl.max(segment) + 1):
            one = tl.dot(tl.where(segment == s, x, 0.0), T, input_precision=PRECISION)
            y += tl.where(part == s, one, 0.0)
    else:
        y = tl.dot(x, T, y, input_precision=PRECISION)
    return y


@triton.jit
def _element(p, at, mask):
    return tl.load(p + at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _operands(
    p_u, p_pre, p_dy, p_post, at, at_pre, at_post, dense, mask,
    HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """A step's gated inputs and gated gradients, as products take them."""
    x = _element(p_u, at, mask)
    if HAS_PRE:
        x *= _element(p_pre, at_pre, mask)
    dz = _element(p_dy, dense, mask)
    if HAS_POST:
        dz *= _element(p_post, at_post, mask)
    return operand(x, DTYPE), operand(dz, DTYPE)


@triton.jit
def _toeplitz_part(p_table, i, o, C: tl.constexpr, DTYPE: tl.constexpr):
    """T[i, o] of `load_toeplitz`."""
    return operand(tl.load(p_table + (i % 8)[:, None] * 2 * C + C + o[None, :] - (i // 8)[:, None] * 8), DTYPE)


@triton.jit
def modal_lanes_kernel(
    p_dy, p_u, p_pow, p_cpow, p_table, p_pre, p_post, p_start, p_segment, p_carry, p_adjoint,
    p_du, p_dpre, p_dpost, p_dk, p_dmode,
    L, total, blocks, lanes, chunks, steps, su_b, su_c, spre_b, spre_c, spost_b, spost_c,
    C: tl.constexpr, R: tl.constexpr, N: tl.constexpr, S: tl.constexpr, W: tl.constexpr, EARLY: tl.constexpr,
    HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, HAS_DOCS: tl.constexpr, ALIKE: tl.constexpr, DENSE: tl.constexpr,
    NARROW: tl.constexpr, DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (channels, splits of the blocks of R lanes). p_carry: (B, D, lanes, N, 2) float32, states before each lane.

    total: lanes of all sequences of a channel; steps: chunks of a lane that sequences have, S at most. W: columns of a chunk
    that are put out at a time. EARLY: whether the next step's loads go before this step's work. ALIKE: the gates' strides are
    u's; DENSE: u's are dy's; NARROW: a block's elements are within 2^31 of each other. p_dk, p_dmode as `modal_bwd_kernel`'s.

    A step's operands are made in the step before: carried by the loop, they go to shared memory once, and all products take
    them from there. Offsets are carried too: computed from the step, they would be one pointer per array.
    """
    # From the last channel: the second-level cache still has what the kernel before read last
    h = (tl.num_programs(0) - 1 - tl.program_id(0)).to(tl.int64)
    D = tl.num_programs(0) if NARROW else tl.num_programs(0).to(tl.int64)
    i = tl.arange(0, C)
    w = tl.arange(0, W)
    n = tl.arange(0, N)
    r = tl.arange(0, R)
    pairs = tl.arange(0, 2 * N)
    p_pow += h * (C + 1) * 2 * N
    p_cpow += h * (C + 1) * 2 * N
    p_table += h * 16 * C
    G = operand(_powers(p_pow, C - 1 - i, N), DTYPE)
    # For each part of the columns: of T, of T^T, of O and of H
    forward_blocks = ()
    backward_blocks = ()
    forward_maps = ()
    backward_maps = ()
    for k in tl.static_range(C // W):
        forward_blocks += (_toeplitz_part(p_table, i, k * W + w, C, DTYPE),)
        backward_blocks += (tl.trans(_toeplitz_part(p_table, k * W + w, i, C, DTYPE)),)
        forward_maps += (tl.trans(operand(_powers(p_cpow, k * W + w + 1, N), DTYPE)),)
        backward_maps += (tl.trans(operand(_powers(p_cpow, C - 1 - k * W - w, N), DTYPE)),)
    lr = tl.load(p_pow + C * 2 * N + 2 * n)[None, :]
    li = tl.load(p_pow + C * 2 * N + 2 * n + 1)[None, :]
    dT = tl.zeros((C, C), tl.float32)
    dO = tl.zeros((C, 2 * N), tl.float32)
    dG = tl.zeros((C, 2 * N), tl.float32)
    zr = tl.zeros((R, N), tl.float32)
    zi = tl.zeros((R, N), tl.float32)
    for block in range(tl.program_id(1), blocks, tl.num_programs(1)):
        lane = block * R + r
        b64 = (lane // lanes).to(tl.int64)[:, None]
        first = tl.where(lane < total, lane % lanes * (S * C), L)
        p_here = p_carry + ((b64 * D + h) * lanes + (lane % lanes)[:, None]) * 2 * N + 2 * n[None, :]
        sr = tl.load(p_here, mask=(lane < total)[:, None], other=0.0)
        si = tl.load(p_here + 1, mask=(lane < total)[:, None], other=0.0)
        # Rows' offsets, from the first row of the block
        b0 = (block * R // lanes).to(tl.int64)
        rows = (lane // lanes - block * R // lanes)[:, None]
        if not NARROW:
            rows = rows.to(tl.int64)
        u_here = p_u + (b0 * su_b + h * su_c)
        pre_here = p_pre + (b0 * spre_b + h * spre_c) if HAS_PRE else p_pre
        post_here = p_post + (b0 * spost_b + h * spost_c) if HAS_POST else p_post
        here = (b0 * D + h) * L
        P_here = p_adjoint + (b0 * D + h) * chunks * 2 * N
        at = rows * su_b + first[:, None]
        # Those that are alike are one
        own_pre = at if ALIKE else rows * spre_b + first[:, None]
        own_post = at if ALIKE else rows * spost_b + first[:, None]
        own_dense = at if DENSE else rows * (D * L) + first[:, None]
        at_P = (rows * (D * chunks) + (lane % lanes * S)[:, None]) * 2 * N
        left = (L - first)[:, None]  # tokens from a lane's next chunk to the end
        x, dz = _operands(
            u_here, pre_here, p_dy + here, post_here,
            at + i[None, :], own_pre + i[None, :], own_post + i[None, :], own_dense + i[None, :],
            i[None, :] < left, HAS_PRE, HAS_POST, DTYPE,
        )  # fmt: skip
        P = operand(_element(P_here, at_P + pairs[None, :], left > 0), DTYPE)
        for j in range(0, steps):
            at_pre = at if ALIKE else own_pre
            at_post = at if ALIKE else own_post
            dense = at if DENSE else own_dense
            ahead = tl.where(j < steps - 1, left - C, 0)  # after a lane's end comes nothing
            if EARLY:
                x_next, dz_next = _operands(
                    u_here, pre_here, p_dy + here, post_here,
                    at + (C + i)[None, :], at_pre + (C + i)[None, :], at_post + (C + i)[None, :], dense + (C + i)[None, :],
                    i[None, :] < ahead, HAS_PRE, HAS_POST, DTYPE,
                )  # fmt: skip
                P_next = operand(_element(P_here, at_P + (2 * N + pairs)[None, :], ahead > 0), DTYPE)
            given = x
            taken = dz
            ar = lr
            ai = li
            segment = i[None, :] < left
            if HAS_DOCS:
                begin = L - left
                t = begin + i[None, :]
                inside = i[None, :] < left
                segment = tl.load(p_segment + b64 * L + t, mask=inside, other=0)
                own = starts_of(p_start, b64, t, inside, L, 1)
                end = starts_of(p_start, b64, tl.minimum(begin + C - 1, L - 1), left > 0, L, 1)
                given = tl.where(t >= end, x, 0.0)
                taken = tl.where(own < begin, dz, 0.0)
                ar = tl.where(end < begin, lr, 0.0)
                ai = tl.where(end < begin, li, 0.0)
            before = operand(_paired(sr, si, R, N), DTYPE)
            dO = tl.dot(tl.trans(taken), before, dO, input_precision=PRECISION)
            dG = tl.dot(tl.trans(given), P, dG, input_precision=PRECISION)
            if HAS_DOCS:
                for s in range(0, tl.max(segment) + 1):
                    xs = tl.where(segment == s, x, 0.0)
                    dT = tl.dot(tl.trans(xs), tl.where(segment == s, dz, 0.0), dT, input_precision=PRECISION)
            else:
                dT = tl.dot(tl.trans(x), dz, dT, input_precision=PRECISION)
            gr, gi = _pairs(tl.dot(given, G, input_precision=PRECISION), R, N)
            pr, pi = _pairs(P.to(tl.float32), R, N)
            after_r, after_i = _times(ar, ai, sr, si, HAS_DOCS)
            zr += pr * after_r - pi * after_i
            zi += pr * after_i + pi * after_r
            sr = after_r + gr
            si = after_i + gi
            for k in tl.static_range(C // W):
                o = (k * W + w)[None, :]
                mask = o < left
                part = segment
                if HAS_DOCS:
                    part = tl.load(p_segment + b64 * L + begin + o, mask=mask, other=0)
                if HAS_POST:
                    y = tl.dot(before, forward_maps[k], input_precision=PRECISION)
                    if HAS_DOCS:
                        y = tl.where(starts_of(p_start, b64, begin + o, mask, L, 1) < begin, y, 0.0)
                    y = _spread(y, x, forward_blocks[k], segment, part, HAS_DOCS, DTYPE, PRECISION)
                    y *= _element(p_dy + here, dense + o, mask)
                    tl.store(p_dpost + here + dense + o, narrow(y, DTYPE), mask=mask)
                dv = tl.dot(P, backward_maps[k], input_precision=PRECISION)
                if HAS_DOCS:
                    dv = tl.where(begin + o >= end, dv, 0.0)
                dv = _spread(dv, dz, backward_blocks[k], segment, part, HAS_DOCS, DTYPE, PRECISION)
                if HAS_PRE:
                    tl.store(p_dpre + here + dense + o, narrow(dv * _element(u_here, at + o, mask), DTYPE), mask=mask)
                    dv *= _element(pre_here, at_pre + o, mask)
                tl.store(p_du + here + dense + o, narrow(dv, DTYPE), mask=mask)
            left -= C
            at += C
            if not ALIKE:
                own_pre += C
                own_post += C
            if not DENSE:
                own_dense += C
            at_P += 2 * N
            if not EARLY:
                at_pre = at if ALIKE else own_pre
                at_post = at if ALIKE else own_post
                dense = at if DENSE else own_dense
                x_next, dz_next = _operands(
                    u_here, pre_here, p_dy + here, post_here,
                    at + i[None, :], at_pre + i[None, :], at_post + i[None, :], dense + i[None, :],
                    i[None, :] < ahead, HAS_PRE, HAS_POST, DTYPE,
                )  # fmt: skip
                P_next = operand(_element(P_here, at_P + pairs[None, :], ahead > 0), DTYPE)
            x = x_next
            dz = dz_next
            P = P_next
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
