"""Short convolution of (batch, channels, length): each thread holds 8 neighbours in time and reads 8 before (and after) them.

Loads and stores stay whole vectors; the shift by one tap happens between registers, for which a vector is split into its 8
elements. So at most 9 taps.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.triton_support import narrow, sigmoid


@triton.jit
def unzip8(x):
    """[BC, NV, 8] -> eight [BC, NV], in order."""
    even, odd = tl.split(tl.reshape(x, (x.shape[0], x.shape[1], 2, 2, 2)))
    x04, x26 = tl.split(even)
    x15, x37 = tl.split(odd)
    x0, x4 = tl.split(x04)
    x2, x6 = tl.split(x26)
    x1, x5 = tl.split(x15)
    x3, x7 = tl.split(x37)
    return (x0, x1, x2, x3, x4, x5, x6, x7)


@triton.jit
def zip8(x, A: tl.constexpr = 0):
    """Eight [BC, NV], from the A-th of x on -> [BC, NV, 8]."""
    even = tl.join(tl.join(x[A], x[A + 4]), tl.join(x[A + 2], x[A + 6]))
    odd = tl.join(tl.join(x[A + 1], x[A + 5]), tl.join(x[A + 3], x[A + 7]))
    return tl.reshape(tl.join(even, odd), (x[A].shape[0], x[A].shape[1], 8))


@triton.jit
def _vectors(c, t, D, L):
    """Mask of [BC, NV, 8] elements at channels c and times t, t: [NV, 8]."""
    return (c < D)[:, None, None] & ((t >= 0) & (t < L))[None, :, :]


@triton.jit
def _load_inputs(p_u, p_pre, p_state, c, t, D, L, su_c, sp_c, K: tl.constexpr, HAS_PRE: tl.constexpr, HAS_STATE: tl.constexpr):
    """v = u * pregate at times t, and the state where t < 0: eight [BC, NV]."""
    there = _vectors(c, t, D, L)
    x = tl.load(p_u + c.to(tl.int64)[:, None, None] * su_c + t[None, :, :], mask=there, other=0.0).to(tl.float32)
    if HAS_PRE:
        x *= tl.load(p_pre + c.to(tl.int64)[:, None, None] * sp_c + t[None, :, :], mask=there, other=0.0).to(tl.float32)
    if HAS_STATE:
        before = (c < D)[:, None, None] & ((t < 0) & (t > -K))[None, :, :]
        x += tl.load(p_state + c[:, None, None] * (K - 1) + (K - 1 + t)[None, :, :], mask=before, other=0.0).to(tl.float32)
    return unzip8(x)


@triton.jit
def _load_starts(p_start, t, L, K: tl.constexpr):
    """First position that each token may see: eight [1, NV]. A row's first document sees the state before it too."""
    start = tl.load(p_start + t, mask=(t >= 0) & (t < L), other=0)
    return unzip8(tl.where(start == 0, -K, start)[None, :, :])


@triton.jit
def fir_bdl_fwd_kernel(
    p_u, p_w, p_bias, p_pre, p_post, p_state, p_start, p_y, L, D, su_b, su_c, spre_b, spre_c, spost_b, spost_c,
    K: tl.constexpr, BC: tl.constexpr, NV: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr, HAS_PRE: tl.constexpr,
    HAS_POST: tl.constexpr, HAS_STATE: tl.constexpr, HAS_DOCS: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of NV vectors in time, blocks of BC channels, B)."""
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    i_b = tl.program_id(2).to(tl.int64)
    first = (tl.program_id(0) * NV + tl.arange(0, NV)) * 8
    t = first[:, None] + tl.arange(0, 8)[None, :]
    p_u += i_b * su_b
    p_y += i_b * D * L
    if HAS_PRE:
        p_pre += i_b * spre_b
    if HAS_POST:
        p_post += i_b * spost_b
    if HAS_STATE:
        p_state += i_b * D * (K - 1)
    if HAS_DOCS:
        starts = _load_starts(p_start + i_b * L, t, L, K)
    x = _load_inputs(p_u, p_pre, p_state, c, t - 8, D, L, su_c, spre_c, K, HAS_PRE, HAS_STATE)
    x += _load_inputs(p_u, p_pre, p_state, c, t, D, L, su_c, spre_c, K, HAS_PRE, False)
    bias = tl.zeros((BC, 1), tl.float32)
    if HAS_BIAS:
        bias = tl.load(p_bias + c, mask=c < D, other=0.0).to(tl.float32)[:, None]
    taps = ()
    for j in tl.static_range(K):
        taps += (tl.load(p_w + c * K + j, mask=c < D, other=0.0).to(tl.float32)[:, None],)
    out = ()
    for i in tl.static_range(8):
        z = tl.zeros((BC, NV), tl.float32) + bias
        for j in tl.static_range(K):
            v = x[8 + i - j]
            if HAS_DOCS and j > 0:
                v = tl.where(starts[i] <= (first + (i - j))[None, :], v, 0.0)
            z += v * taps[j]
        if SILU:
            z *= sigmoid(z)
        out += (z,)
    y = zip8(out)
    there = _vectors(c, t, D, L)
    if HAS_POST:
        y *= tl.load(p_post + c.to(tl.int64)[:, None, None] * spost_c + t[None, :, :], mask=there, other=0.0).to(tl.float32)
    tl.store(p_y + c.to(tl.int64)[:, None, None] * L + t[None, :, :], narrow(y, DTYPE), mask=there)


@triton.jit
def fir_bdl_bwd_kernel(
    p_dy, p_u, p_w, p_bias, p_pre, p_post, p_state, p_start, p_du, p_dw, p_dbias, p_dpre, p_dpost, p_dstate,
    L, D, blocks, su_b, su_c, spre_b, spre_c, spost_b, spost_c,
    K: tl.constexpr, BC: tl.constexpr, NV: tl.constexpr, W: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
    HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, HAS_STATE: tl.constexpr, HAS_DOCS: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Grid (spans of `blocks` blocks of NV times W vectors in time, blocks of BC channels, B). A thread holds W neighbours.

    p_dw: (B * spans, K, D) float32, p_dbias: (B * spans, D): partial sums. With a state, time begins at -8.
    """
    EARLY: tl.constexpr = 8 if HAS_STATE else 0
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    c64 = c.to(tl.int64)[:, None, None]
    i_b = tl.program_id(2).to(tl.int64)
    i_part = i_b * tl.num_programs(0) + tl.program_id(0)
    p_u += i_b * su_b
    p_dy += i_b * D * L
    p_du += i_b * D * L
    if HAS_PRE:
        p_pre += i_b * spre_b
        p_dpre += i_b * D * L
    if HAS_POST:
        p_post += i_b * spost_b
        p_dpost += i_b * D * L
    if HAS_STATE:
        p_state += i_b * D * (K - 1)
        p_dstate += i_b * D * (K - 1)
    if HAS_DOCS:
        p_start += i_b * L
    bias = tl.zeros((BC, 1), tl.float32)
    if HAS_BIAS:
        bias = tl.load(p_bias + c, mask=c < D, other=0.0).to(tl.float32)[:, None]
    taps = ()
    dtaps = ()
    for j in tl.static_range(K):
        taps += (tl.load(p_w + c * K + j, mask=c < D, other=0.0).to(tl.float32)[:, None],)
        dtaps += (tl.zeros((BC, NV), tl.float32),)
    dbias = tl.zeros((BC, NV), tl.float32)
    for block in range(0, blocks):
        first = ((tl.program_id(0) * blocks + block) * NV + tl.arange(0, NV)) * (8 * W) - EARLY
        t = first[:, None] + tl.arange(0, 8)[None, :]
        x = _load_inputs(p_u, p_pre, p_state, c, t - 8, D, L, su_c, spre_c, K, HAS_PRE, HAS_STATE)
        dz = ()
        starts = ()
        posts = ()
        # The vectors that are this thread's and the one after them, whose first dz act on the last own inputs
        for w in tl.static_range(W + 1):
            there = _vectors(c, t + 8 * w, D, L)
            if SILU or HAS_POST or w < W:
                x += _load_inputs(p_u, p_pre, p_state, c, t + 8 * w, D, L, su_c, spre_c, K, HAS_PRE, HAS_STATE)
            dz += unzip8(tl.load(p_dy + c64 * L + (t + 8 * w)[None, :, :], mask=there, other=0.0).to(tl.float32))
            if HAS_DOCS:
                starts += _load_starts(p_start, t + 8 * w, L, K)
            if HAS_POST:
                at = c64 * spost_c + (t + 8 * w)[None, :, :]
                posts += unzip8(tl.load(p_post + at, mask=there, other=0.0).to(tl.float32))
        if SILU or HAS_POST:
            dzs = ()
            dposts = ()
            for i in tl.static_range(8 * W + K - 1):
                z = tl.zeros((BC, NV), tl.float32) + bias
                if SILU or i < 8 * W:
                    for j in tl.static_range(K):
                        v = x[8 + i - j]
                        if HAS_DOCS and j > 0:
                            v = tl.where(starts[i] <= (first + (i - j))[None, :], v, 0.0)
                        z += v * taps[j]
                g = dz[i]
                if SILU:
                    gate = sigmoid(z)
                if HAS_POST:
                    if i < 8 * W:
                        dposts += (g * (z * gate if SILU else z),)
                    g *= posts[i]
                if SILU:
                    g *= gate + gate * (z - z * gate)
                dzs += (g,)
            dz = dzs
            if HAS_POST:
                for w in tl.static_range(W):
                    there = _vectors(c, t + 8 * w, D, L)
                    tl.store(p_dpost + c64 * L + (t + 8 * w)[None, :, :], narrow(zip8(dposts, 8 * w), DTYPE), mask=there)
        sums = ()
        for j in tl.static_range(K):
            total = dtaps[j]
            for i in tl.static_range(8 * W):
                v = x[8 + i - j]
                if HAS_DOCS and j > 0:
                    v = tl.where(starts[i] <= (first + (i - j))[None, :], v, 0.0)
                total += dz[i] * v
            sums += (total,)
        dtaps = sums
        out = ()
        for i in tl.static_range(8 * W):
            dbias += dz[i]
            dv = tl.zeros((BC, NV), tl.float32)
            for j in tl.static_range(K):
                later = dz[i + j]
                if HAS_DOCS and j > 0:
                    later = tl.where(starts[i + j] <= (first + i)[None, :], later, 0.0)
                dv += later * taps[j]
            out += (dv,)
        for w in tl.static_range(W):
            du = zip8(out, 8 * w)
            tw = t + 8 * w
            there = _vectors(c, tw, D, L)
            if HAS_STATE and w == 0:
                before = (c < D)[:, None, None] & ((t < 0) & (t > -K))[None, :, :]
                tl.store(p_dstate + c[:, None, None] * (K - 1) + (K - 1 + t)[None, :, :], narrow(du, DTYPE), mask=before)
            if HAS_PRE:
                u = tl.load(p_u + c64 * su_c + tw[None, :, :], mask=there, other=0.0).to(tl.float32)
                pre = tl.load(p_pre + c64 * spre_c + tw[None, :, :], mask=there, other=0.0).to(tl.float32)
                tl.store(p_dpre + c64 * L + tw[None, :, :], narrow(du * u, DTYPE), mask=there)
                du *= pre
            tl.store(p_du + c64 * L + tw[None, :, :], narrow(du, DTYPE), mask=there)
    for j in tl.static_range(K):
        tl.store(p_dw + (i_part * K + j) * D + c, tl.sum(dtaps[j], axis=1), mask=c < D)
    if HAS_BIAS:
        tl.store(p_dbias + i_part * D + c, tl.sum(dbias, axis=1), mask=c < D)
