"""Causal FIR convolution as products with Toeplitz blocks on the tensor cores.

A sequence is cut into chunks of C. With x_c the c-th chunk as a row, y_c = sum_j x_{c-j} T_j, T_j[i, o] = k[jC + o - i]
(StripedHyena 2's two-stage form where k has at most C + 1 taps: j is 0 or 1). All sequences that share a filter give the rows
of one product: rows = (channel of the group, batch, chunk), R of them at once. The transposed product, x_c = sum_j y_{c+j}
T_j^T, is the backward's.

T_j is read from a table of the filter's 8 shifts, so that whole vectors come from aligned addresses:
table[r, C + x] = k[x - r], hence T_j[i, o] = table[i % 8, C + jC + o - 8 (i // 8)].

Documents: inside a chunk, row by row, one product for each document that the chunk has, its inputs and outputs masked; between
chunks only the document that spans the boundary goes through, masked on both sides. Masked terms are exact zeros.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.triton_support import narrow, operand


@triton.jit
def load_toeplitz(p_table, j, C: tl.constexpr, P, DTYPE: tl.constexpr):
    """T_j, [C in, C out]."""
    i = tl.arange(0, C)[:, None]
    o = tl.arange(0, C)[None, :]
    return operand(tl.load(p_table + (i % 8) * P + C + j * C + o - (i // 8) * 8), DTYPE)


@triton.jit
def _rows(tile, R: tl.constexpr, C: tl.constexpr, NC, B, total, EARLY):
    """Of R rows: batch, channel within the group, first time of the chunk, whether the row is there. All [R]."""
    r = tile * R + tl.arange(0, R)
    c = r % NC - EARLY
    bh = r // NC
    return bh % B, bh // B, c * C, r < total


@triton.jit
def _load(p, base, t, there, L):
    """[R, C] of float32 at base + t, zero outside of the sequence."""
    return tl.load(p + base[:, None] + t, mask=there[:, None] & (t >= 0) & (t < L), other=0.0).to(tl.float32)


@triton.jit
def _load_inputs(
    p_u, p_pre, p_state, base, pre_base, state_base, t, there, L, K, HAS_PRE: tl.constexpr, HAS_STATE: tl.constexpr
):
    x = _load(p_u, base, t, there, L)
    if HAS_PRE:
        x *= _load(p_pre, pre_base, t, there, L)
    if HAS_STATE:
        before = there[:, None] & (t < 0) & (t > -K)
        x += tl.load(p_state + state_base[:, None] + (K - 1 + t), mask=before, other=0.0).to(tl.float32)
    return x


@triton.jit
def starts_of(p_start, b, t, there, L, K):
    """First position that tokens t may see; a row's first document sees the state before it too, down to -K."""
    start = tl.load(p_start + b.to(tl.int64) * L + t, mask=there & (t >= 0) & (t < L), other=0)
    return tl.where(start == 0, -K, start)


@triton.jit
def toeplitz_kernel(
    p_x, p_table, p_bias, p_pre, p_post, p_state, p_start, p_segment, p_dy, p_u, p_out, p_extra, p_dstate,
    L, B, NC, PER, total, tiles, J, K, P, sx_b, sx_c, spre_b, spre_c, spost_b, spost_c, su_b, su_c,
    C: tl.constexpr, R: tl.constexpr, RESIDENT: tl.constexpr, TRANSPOSED: tl.constexpr, HAS_BIAS: tl.constexpr,
    SILU: tl.constexpr, HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, HAS_STATE: tl.constexpr, HAS_DOCS: tl.constexpr,
    GRADIENT: tl.constexpr, DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (filters, splits of the tiles of rows). One of three:

    forward: out = post * act(bias + conv(x * pre)); GRADIENT: with dy, out = dz = dy * post * act'(z) and extra = dpost = dy *
    act(z); TRANSPOSED: out = du = dv * pre and extra = dpre = dv * u, dv the transposed convolution of x = dz. J: blocks
    beyond the first; RESIDENT: J where all blocks stay in shared memory, else 0. PER: channels of a filter. p_segment: rank of
    a token's document in its chunk.
    """
    g = tl.program_id(0)
    D = tl.num_programs(0) * PER
    EARLY = (K - 1 + C - 1) // C if HAS_STATE and TRANSPOSED else 0
    p_table += g.to(tl.int64) * 8 * P
    i = tl.arange(0, C)
    blocks = ()
    if RESIDENT > 0:
        for j in tl.static_range(RESIDENT + 1):
            T = load_toeplitz(p_table, j, C, P, DTYPE)
            blocks += (tl.trans(T) if TRANSPOSED else T,)
    for tile in range(tl.program_id(1), tiles, tl.num_programs(1)):
        b, hc, begin, there = _rows(tile, R, C, NC, B, total, EARLY)
        h = g * PER + hc
        b64 = b.to(tl.int64)
        h64 = h.to(tl.int64)
        base = b64 * sx_b + h64 * sx_c
        dense = (b64 * D + h64) * L
        pre_base = b64 * spre_b + h64 * spre_c
        post_base = b64 * spost_b + h64 * spost_c
        u_base = b64 * su_b + h64 * su_c
        state_base = (b64 * D + h64) * (K - 1)
        t = begin[:, None] + i[None, :]
        X_PRE: tl.constexpr = HAS_PRE and not TRANSPOSED
        X_STATE: tl.constexpr = HAS_STATE and not TRANSPOSED
        # Other chunks' part
        if HAS_DOCS:
            edge = tl.minimum(begin + C - 1, L - 1) if TRANSPOSED else begin  # this chunk's token at the boundary
            edge_start = starts_of(p_start, b, edge, there, L, K)
            own_start = starts_of(p_start, b[:, None], t, there[:, None], L, K)
        acc = tl.zeros((R, C), tl.float32)
        if RESIDENT > 0:
            for j in tl.static_range(1, RESIDENT + 1):
                other = t + j * C if TRANSPOSED else t - j * C
                x = _load_inputs(p_x, p_pre, p_state, base, pre_base, state_base, other, there, L, K, X_PRE, X_STATE)
                if HAS_DOCS:
                    if TRANSPOSED:
                        x = tl.where(starts_of(p_start, b[:, None], other, there[:, None], L, K) < (begin + C)[:, None], x, 0.0)
                    else:
                        x = tl.where(other >= edge_start[:, None], x, 0.0)
                acc = tl.dot(operand(x, DTYPE), blocks[j], acc, input_precision=PRECISION)
        else:
            for j in range(1, J + 1):
                other = t + j * C if TRANSPOSED else t - j * C
                x = _load_inputs(p_x, p_pre, p_state, base, pre_base, state_base, other, there, L, K, X_PRE, X_STATE)
                if HAS_DOCS:
                    if TRANSPOSED:
                        x = tl.where(starts_of(p_start, b[:, None], other, there[:, None], L, K) < (begin + C)[:, None], x, 0.0)
                    else:
                        x = tl.where(other >= edge_start[:, None], x, 0.0)
                T = load_toeplitz(p_table, j, C, P, DTYPE)
                if TRANSPOSED:
                    T = tl.trans(T)
                acc = tl.dot(operand(x, DTYPE), T, acc, input_precision=PRECISION)
        # This chunk's part
        x = _load_inputs(p_x, p_pre, p_state, base, pre_base, state_base, t, there, L, K, X_PRE, X_STATE)
        if RESIDENT > 0:
            T0 = blocks[0]
        else:
            T0 = load_toeplitz(p_table, 0, C, P, DTYPE)
            if TRANSPOSED:
                T0 = tl.trans(T0)
        if HAS_DOCS:
            acc = tl.where(t >= edge_start[:, None] if TRANSPOSED else own_start < begin[:, None], acc, 0.0)
            inside = there[:, None] & (t >= 0) & (t < L)
            segment = tl.load(p_segment + b64[:, None] * L + t, mask=inside, other=0)
            for s in range(0, tl.max(segment) + 1):
                one = tl.dot(operand(tl.where(segment == s, x, 0.0), DTYPE), T0, input_precision=PRECISION)
                acc += tl.where(segment == s, one, 0.0)
        else:
            acc = tl.dot(operand(x, DTYPE), T0, acc, input_precision=PRECISION)
        keep = there[:, None] & (t >= 0) & (t < L)
        if TRANSPOSED:
            if HAS_STATE:
                before = there[:, None] & (t < 0) & (t > -K)
                tl.store(p_dstate + state_base[:, None] + (K - 1 + t), narrow(acc, DTYPE), mask=before)
            if HAS_PRE:
                u = _load(p_u, u_base, t, there, L)
                tl.store(p_extra + dense[:, None] + t, narrow(acc * u, DTYPE), mask=keep)
                acc *= _load(p_pre, pre_base, t, there, L)
        else:
            if HAS_BIAS:
                acc += tl.load(p_bias + h, mask=there, other=0.0).to(tl.float32)[:, None]
            if GRADIENT:
                dz = _load(p_dy, dense, t, there, L)
                if SILU:
                    gate = 1.0 / (1.0 + tl.exp(-acc))
                if HAS_POST:
                    tl.store(p_extra + dense[:, None] + t, narrow(dz * (acc * gate if SILU else acc), DTYPE), mask=keep)
                    dz *= _load(p_post, post_base, t, there, L)
                if SILU:
                    dz *= gate * (1.0 + acc * (1.0 - gate))
                acc = dz
            else:
                if SILU:
                    acc = acc / (1.0 + tl.exp(-acc))
                if HAS_POST:
                    acc *= _load(p_post, post_base, t, there, L)
        tl.store(p_out + dense[:, None] + t, narrow(acc, DTYPE), mask=keep)


@triton.jit
def diagonals(M, C: tl.constexpr):
    """Sums of a [C, C] matrix's diagonals o - i = delay: those of delay m and of delay m - C, m = 0 … C - 1, both [C]."""
    i = tl.arange(0, C)[:, None]
    m = tl.arange(0, C)[None, :]
    turned = tl.gather(M, (i + m) % C, axis=1)
    return tl.sum(tl.where(i + m < C, turned, 0.0), axis=0), tl.sum(tl.where(i + m >= C, turned, 0.0), axis=0)


@triton.jit
def toeplitz_dfilter_kernel(
    p_dz, p_u, p_pre, p_state, p_start, p_segment, p_part,
    L, B, NC, PER, total, tiles, J, K, su_b, su_c, spre_b, spre_c,
    C: tl.constexpr, R: tl.constexpr, M: tl.constexpr, HAS_PRE: tl.constexpr, HAS_STATE: tl.constexpr, HAS_DOCS: tl.constexpr,
    DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (filters, groups of M blocks, splits of the tiles). dT_j = sum over rows of x_{c-j}^T dz_c, and its diagonals' sums.

    p_part: (filters, splits, J + 1 rounded up to groups, 2C) float32; entry C + m of block j is the part of dk[jC + m], -C <=
    m < C.
    """
    g = tl.program_id(0)
    D = tl.num_programs(0) * PER
    first = M * tl.program_id(1)
    i = tl.arange(0, C)
    dblocks = ()
    for _ in tl.static_range(M):
        dblocks += (tl.zeros((C, C), tl.float32),)
    for tile in range(tl.program_id(2), tiles, tl.num_programs(2)):
        b, hc, begin, there = _rows(tile, R, C, NC, B, total, 0)
        b64 = b.to(tl.int64)
        h64 = (g * PER + hc).to(tl.int64)
        base = b64 * su_b + h64 * su_c
        dense = (b64 * D + h64) * L
        pre_base = b64 * spre_b + h64 * spre_c
        state_base = (b64 * D + h64) * (K - 1)
        t = begin[:, None] + i[None, :]
        dz = _load(p_dz, dense, t, there, L)
        crossing = dz
        if HAS_DOCS:
            edge_start = starts_of(p_start, b, begin, there, L, K)
            crossing = tl.where(starts_of(p_start, b[:, None], t, there[:, None], L, K) < begin[:, None], dz, 0.0)
        sums = ()
        for m in tl.static_range(M):
            past = t - (first + m) * C
            x = _load_inputs(p_u, p_pre, p_state, base, pre_base, state_base, past, there, L, K, HAS_PRE, HAS_STATE)
            dT = dblocks[m]
            if HAS_DOCS:
                if first + m == 0:
                    inside = there[:, None] & (t >= 0) & (t < L)
                    segment = tl.load(p_segment + b64[:, None] * L + t, mask=inside, other=0)
                    for s in range(0, tl.max(segment) + 1):
                        xs = operand(tl.where(segment == s, x, 0.0), DTYPE)
                        dzs = operand(tl.where(segment == s, dz, 0.0), DTYPE)
                        dT = tl.dot(tl.trans(xs), dzs, dT, input_precision=PRECISION)
                else:
                    x = tl.where(past >= edge_start[:, None], x, 0.0)
                    dT = tl.dot(tl.trans(operand(x, DTYPE)), operand(crossing, DTYPE), dT, input_precision=PRECISION)
            else:
                dT = tl.dot(tl.trans(operand(x, DTYPE)), operand(dz, DTYPE), dT, input_precision=PRECISION)
            sums += (dT,)
        dblocks = sums
    p_part += ((g * tl.num_programs(2) + tl.program_id(2)).to(tl.int64) * M * tl.num_programs(1) + first) * 2 * C
    for m in tl.static_range(M):
        low, high = diagonals(dblocks[m], C)
        tl.store(p_part + m * 2 * C + C + i, low)
        tl.store(p_part + m * 2 * C + i, high)
