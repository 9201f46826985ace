"""Short convolution of (batch, length, channels): each thread holds a few channels and walks down time with a window of rows.

A program covers BS segments of TS rows each and BD channels. Rows come from memory once (and once more at a segment's edge);
taps, window and weight gradients stay in registers.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false

from __future__ import annotations

import triton
import triton.language as tl

from kernels.triton_support import narrow, sigmoid


@triton.jit
def _load_row(
    p_u, p_pre, p_state, row, t, d, L, D, su_t, sp_t, K: tl.constexpr, HAS_PRE: tl.constexpr, HAS_STATE: tl.constexpr
):
    """v = u * pregate at rows t of the sequence, [BS, BD]; `row` is t from p_u on; the state where t < 0; else zero."""
    there = ((t >= 0) & (t < L))[:, None] & (d < D)[None, :]
    x = tl.load(p_u + row[:, None] * su_t + d[None, :], mask=there, other=0.0).to(tl.float32)
    if HAS_PRE:
        x *= tl.load(p_pre + row[:, None] * sp_t + d[None, :], mask=there, other=0.0).to(tl.float32)
    if HAS_STATE:
        before = ((t < 0) & (t > -K))[:, None] & (d < D)[None, :]
        x += tl.load(p_state + (K - 1 + t)[:, None] * D + d[None, :], mask=before, other=0.0).to(tl.float32)
    return x


@triton.jit
def _document(p_start, row, t, L, K: tl.constexpr):
    """First position that the token at t may see, [BS]. A row's first document sees the state before it too."""
    start = tl.load(p_start + row, mask=(t >= 0) & (t < L), other=0)
    return tl.where(start == 0, -K, start)


@triton.jit
def fir_bld_fwd_kernel(
    p_u, p_w, p_bias, p_pre, p_post, p_state, p_start, p_y, L, D, TS, su_b, su_t, spre_b, spre_t, spost_b, spost_t,
    K: tl.constexpr, U: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
    HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, HAS_STATE: tl.constexpr, HAS_DOCS: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of BS * TS rows times blocks of BD channels, B). TS: rows of a segment, a multiple of U."""
    blocks = tl.cdiv(D, BD)
    d = tl.program_id(0) % blocks * BD + tl.arange(0, BD)
    i_t = tl.program_id(0) // blocks
    i_b = tl.program_id(1).to(tl.int64)
    t0 = i_t * BS * TS
    p_u += i_b * su_b + t0.to(tl.int64) * su_t
    p_y += (i_b * L + t0) * D
    if HAS_PRE:
        p_pre += i_b * spre_b + t0.to(tl.int64) * spre_t
    if HAS_POST:
        p_post += i_b * spost_b + t0.to(tl.int64) * spost_t
    if HAS_STATE:
        p_state += i_b * (K - 1) * D
    if HAS_DOCS:
        p_start += i_b * L + t0
    segment = tl.arange(0, BS) * TS
    bias = tl.zeros((1, BD), tl.float32)
    if HAS_BIAS:
        bias = tl.load(p_bias + d, mask=d < D, other=0.0).to(tl.float32)[None, :]
    taps = ()
    for j in tl.static_range(K):
        taps += (tl.load(p_w + d * K + j, mask=d < D, other=0.0).to(tl.float32)[None, :],)
    window = ()
    for i in tl.static_range(K - 1):
        row = segment + i - (K - 1)
        window += (_load_row(p_u, p_pre, p_state, row, t0 + row, d, L, D, su_t, spre_t, K, HAS_PRE, HAS_STATE),)
    for first in range(0, TS, U):
        rows = window
        for i in tl.static_range(U):
            row = segment + first + i
            rows += (_load_row(p_u, p_pre, p_state, row, t0 + row, d, L, D, su_t, spre_t, K, HAS_PRE, False),)
        # All loads come before the first store, behind which the compiler could not move them
        posts = ()
        sees = ()
        for i in tl.static_range(U):
            row = segment + first + i
            there = (t0 + row < L)[:, None] & (d < D)[None, :]
            if HAS_POST:
                posts += (tl.load(p_post + row[:, None] * spost_t + d[None, :], mask=there, other=0.0),)
            if HAS_DOCS:
                sees += (_document(p_start, row, t0 + row, L, K),)
        for i in tl.static_range(U):
            row = segment + first + i
            t = t0 + row
            there = (t < L)[:, None] & (d < D)[None, :]
            if HAS_DOCS:
                start = sees[i]
            z = tl.zeros((BS, BD), tl.float32) + bias
            for j in tl.static_range(K):
                x = rows[i + K - 1 - j]
                if HAS_DOCS and j > 0:
                    x = tl.where((start <= t - j)[:, None], x, 0.0)
                z += x * taps[j]
            if SILU:
                z *= sigmoid(z)
            if HAS_POST:
                z *= posts[i].to(tl.float32)
            tl.store(p_y + row[:, None] * D + d[None, :], narrow(z, DTYPE), mask=there)
        window = ()
        for i in tl.static_range(K - 1):
            window += (rows[U + i],)


@triton.jit
def fir_bld_bwd_kernel(
    p_dy, p_u, p_w, p_bias, p_pre, p_post, p_state, p_start, p_du, p_dw, p_dbias, p_dpre, p_dpost, p_dstate,
    L, D, TS, su_b, su_t, spre_b, spre_t, spost_b, spost_t,
    K: tl.constexpr, U: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr,
    HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, HAS_STATE: tl.constexpr, HAS_DOCS: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Grid as forward's. TS + K - 1 is a multiple of U: the row at time t gives du at t - (K - 1), once its dz is there.

    p_dw: (programs of one channel block, K, D) float32, p_dbias: (the same, D): partial sums. With a state, time begins at
    -(K - 1).
    """
    EARLY: tl.constexpr = K - 1 if HAS_STATE else 0
    blocks = tl.cdiv(D, BD)
    d = tl.program_id(0) % blocks * BD + tl.arange(0, BD)
    i_t = tl.program_id(0) // blocks
    i_b = tl.program_id(1).to(tl.int64)
    i_part = i_b * (tl.num_programs(0) // blocks) + i_t
    t0 = i_t * BS * TS - EARLY
    p_u += i_b * su_b + t0.to(tl.int64) * su_t
    p_dy += (i_b * L + t0) * D
    p_du += (i_b * L + t0) * D
    if HAS_PRE:
        p_pre += i_b * spre_b + t0.to(tl.int64) * spre_t
        p_dpre += (i_b * L + t0) * D
    if HAS_POST:
        p_post += i_b * spost_b + t0.to(tl.int64) * spost_t
        p_dpost += (i_b * L + t0) * D
    if HAS_STATE:
        p_state += i_b * (K - 1) * D
        p_dstate += i_b * (K - 1) * D
    if HAS_DOCS:
        p_start += i_b * L + t0
    segment = tl.arange(0, BS) * TS
    bias = tl.zeros((1, BD), tl.float32)
    if HAS_BIAS:
        bias = tl.load(p_bias + d, mask=d < D, other=0.0).to(tl.float32)[None, :]
    taps = ()
    dtaps = ()
    for j in tl.static_range(K):
        taps += (tl.load(p_w + d * K + j, mask=d < D, other=0.0).to(tl.float32)[None, :],)
        dtaps += (tl.zeros((BS, BD), tl.float32),)
    dbias = tl.zeros((BS, BD), tl.float32)
    window = ()
    dwindow = ()  # dz of the K - 1 rows before
    starts = ()  # and the first position that each of them sees
    for i in tl.static_range(K - 1):
        row = segment + i - (K - 1)
        window += (_load_row(p_u, p_pre, p_state, row, t0 + row, d, L, D, su_t, spre_t, K, HAS_PRE, HAS_STATE),)
        dwindow += (tl.zeros((BS, BD), tl.float32),)
        starts += (segment,)
    for first in range(0, TS + K - 1, U):
        rows = window
        drows = dwindow
        if HAS_DOCS:
            sees = starts
        for i in tl.static_range(U):
            row = segment + first + i
            rows += (_load_row(p_u, p_pre, p_state, row, t0 + row, d, L, D, su_t, spre_t, K, HAS_PRE, HAS_STATE),)
        # All loads come before the first store, behind which the compiler could not move them
        given = ()
        posts = ()
        us = ()
        pres = ()
        for i in tl.static_range(U):
            row = segment + first + i
            t = t0 + row
            there = ((t >= 0) & (t < L))[:, None] & (d < D)[None, :]
            given += (tl.load(p_dy + row[:, None] * D + d[None, :], mask=there, other=0.0),)
            if HAS_POST:
                posts += (tl.load(p_post + row[:, None] * spost_t + d[None, :], mask=there, other=0.0),)
            if HAS_DOCS:
                sees += (_document(p_start, row, t, L, K),)
            if HAS_PRE:
                row -= K - 1
                t -= K - 1
                there = ((t >= 0) & (t < L))[:, None] & (d < D)[None, :]
                us += (tl.load(p_u + row[:, None] * su_t + d[None, :], mask=there, other=0.0),)
                pres += (tl.load(p_pre + row[:, None] * spre_t + d[None, :], mask=there, other=0.0),)
        for i in tl.static_range(U):
            row = segment + first + i
            t = t0 + row
            mine = first + i < TS  # later rows belong to the next segment; here they only give du
            there = ((t >= 0) & (t < L))[:, None] & (d < D)[None, :]
            dz = given[i].to(tl.float32)
            if HAS_DOCS:
                start = sees[K - 1 + i]
            if SILU or HAS_POST:
                z = tl.zeros((BS, BD), tl.float32) + bias
                for j in tl.static_range(K):
                    x = rows[i + K - 1 - j]
                    if HAS_DOCS and j > 0:
                        x = tl.where((start <= t - j)[:, None], x, 0.0)
                    z += x * taps[j]
                if SILU:
                    gate = sigmoid(z)
                if HAS_POST:
                    dpost = dz * (z * gate if SILU else z)
                    tl.store(p_dpost + row[:, None] * D + d[None, :], narrow(dpost, DTYPE), mask=there & mine)
                    dz *= posts[i].to(tl.float32)
                if SILU:
                    dz *= gate + gate * (z - z * gate)
            own = tl.where(mine, dz, 0.0)
            dbias += own
            sums = ()
            for j in tl.static_range(K):
                x = rows[i + K - 1 - j]
                if HAS_DOCS and j > 0:
                    x = tl.where((start <= t - j)[:, None], x, 0.0)
                sums += (dtaps[j] + own * x,)
            dtaps = sums
            drows += (dz,)
            # du of the row K - 1 before
            row -= K - 1
            t -= K - 1
            dv = tl.zeros((BS, BD), tl.float32)
            for j in tl.static_range(K):
                later = drows[i + j]
                if HAS_DOCS and j > 0:
                    later = tl.where((sees[i + j] <= t)[:, None], later, 0.0)
                dv += later * taps[j]
            ready = first + i >= K - 1
            there = ((t >= 0) & (t < L))[:, None] & (d < D)[None, :] & ready
            if HAS_STATE:
                before = ((t < 0) & (t > -K))[:, None] & (d < D)[None, :] & ready
                tl.store(p_dstate + (K - 1 + t)[:, None] * D + d[None, :], narrow(dv, DTYPE), mask=before)
            if HAS_PRE:
                tl.store(p_dpre + row[:, None] * D + d[None, :], narrow(dv * us[i].to(tl.float32), DTYPE), mask=there)
                dv *= pres[i].to(tl.float32)
            tl.store(p_du + row[:, None] * D + d[None, :], narrow(dv, DTYPE), mask=there)
        window = ()
        dwindow = ()
        if HAS_DOCS:
            starts = ()
        for i in tl.static_range(K - 1):
            window += (rows[U + i],)
            dwindow += (drows[U + i],)
            if HAS_DOCS:
                starts += (sees[U + i],)
    for j in tl.static_range(K):
        tl.store(p_dw + (i_part * K + j) * D + d, tl.sum(dtaps[j], axis=0), mask=d < D)
    if HAS_BIAS:
        tl.store(p_dbias + i_part * D + d, tl.sum(dbias, axis=0), mask=d < D)
