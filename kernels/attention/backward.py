"""Fused attention, backward: seven products in two kernels, so that no sum depends on the order in which programs run.

With S = scale Q Kᵀ, P = exp(S - lse) and delta = rowsum(O dO): dV = Pᵀ dO, dS = P (dO Vᵀ - delta), dK = scale dSᵀ Q and
dQ = scale dS K. One program per tile of keys makes dK and dV (over the heads that share it), one per tile of queries makes dQ;
each recomputes S and P.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportIndexIssue=false
# (the bodies of kernels are Triton's language, which has another meaning of range, where and of constants)

from __future__ import annotations

import triton
import triton.language as tl

from kernels.attention.forward import hide, keys_seen, own_tile
from kernels.triton_support import narrow, operand


@triton.jit(do_not_specialize=["H", "Lq", "row"])
def attention_bwd_kernel_rows(
    p_o, p_do, p_lse, p_dlse, p_lse2, p_delta, so_b, so_h, so_l, sd_b, sd_h, sd_l, H, Lq, row,
    D: tl.constexpr, BD: tl.constexpr, BM: tl.constexpr, HAS_DLSE: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of queries, H, B): lse in base 2 (+inf for a query that saw nothing: then P is 0) and delta, (B, H, row)."""
    i_t, i_h, i_b = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    rows = i_t * BM + tl.arange(0, BM)
    columns = tl.arange(0, BD)
    inside = (rows[:, None] < Lq) & (columns[None, :] < D)
    at = rows[:, None].to(tl.int64)
    o = tl.load(p_o + i_b * so_b + i_h * so_h + at * so_l + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    do = tl.load(p_do + i_b * sd_b + i_h * sd_h + at * sd_l + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    delta = tl.sum(o * do, 1)
    unpadded = (i_b * H + i_h) * Lq + rows
    lse = tl.load(p_lse + unpadded, mask=rows < Lq, other=-float("inf"))
    if HAS_DLSE:
        delta -= tl.load(p_dlse + unpadded, mask=rows < Lq, other=0.0)
    lse = tl.where(lse == -float("inf"), float("inf"), lse * 1.4426950408889634)
    padded = (i_b * H + i_h) * row + rows
    tl.store(p_lse2 + padded, lse, mask=rows < row)
    tl.store(p_delta + padded, delta, mask=rows < row)


@triton.jit
def _queries_seeing(
    keys, document_start, document_end, Lq, Lk, window,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_DOCUMENTS: tl.constexpr,
):  # fmt: skip
    """First and last query that sees each key: what `keys_seen` says, turned around."""
    position = keys - (Lk - Lq)
    first = position * 0
    last = first + (Lq - 1)
    if CAUSAL:
        first = tl.maximum(position, first)
    if HAS_WINDOW:
        last = tl.minimum(last, position + window - 1)
        if not CAUSAL:
            first = tl.maximum(first, position - window + 1)
    if HAS_DOCUMENTS:
        last = tl.minimum(last, document_end - 1)
        if not CAUSAL:
            first = tl.maximum(first, document_start)
    return first, last


@triton.jit
def _gather_dkdv(
    dk, dv, k, v, q_desc, do_desc, lse_desc, delta_desc, i_b, i_h, H, row, lo, hi, full_lo, full_hi,
    first, last, scale_log2, G: tl.constexpr,
    BM: tl.constexpr, BD: tl.constexpr, MASKED: tl.constexpr, STAGES: tl.constexpr,
    PRECISION: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Adds what the queries [lo, hi) of the G heads from i_h on give to one tile of keys. dk, dv: [BN, BD]."""
    blocks = tl.cdiv(tl.maximum(hi - lo, 0), BM)
    for step in tl.range(0, G * blocks, num_stages=STAGES):
        if G == 1:
            head = i_h
            start_m = lo + step * BM
        else:
            head = i_h + step // blocks
            start_m = lo + step % blocks * BM
        q = operand(q_desc.load([i_b, head, start_m, 0]).reshape(BM, BD), DTYPE)
        lse = lse_desc.load([(i_b * H + head) * row + start_m])
        s = tl.dot(k, q.T, input_precision=PRECISION)  # transposed: [BN, BM]
        p = tl.exp2(s * scale_log2 - lse[None, :])
        if MASKED == "all":
            p = hide(p, start_m, first, last, BM, 0.0)
        elif MASKED == "outside":  # noqa: SIM102, known when compiled
            if (start_m < full_lo) | (start_m >= full_hi):
                p = hide(p, start_m, first, last, BM, 0.0)
        do = operand(do_desc.load([i_b, head, start_m, 0]).reshape(BM, BD), DTYPE)
        dv = tl.dot(operand(p, DTYPE), do, dv, input_precision=PRECISION)
        dp = tl.dot(v, do.T, input_precision=PRECISION)
        delta = delta_desc.load([(i_b * H + head) * row + start_m])
        ds = p * (dp - delta[None, :])
        dk = tl.dot(operand(ds, DTYPE), q, dk, input_precision=PRECISION)
    return dk, dv


@triton.jit(do_not_specialize=["H", "Lq", "Lk", "row", "document_row", "window"])
def attention_bwd_kernel_dkdv(
    q_desc, p_k, p_v, do_desc, lse_desc, delta_desc, p_start, p_end, p_order, p_dk, p_dv,
    sk_b, sk_h, sk_l, sv_b, sv_h, sv_l, tk_b, tk_h, tk_l, tv_b, tv_h, tv_l,
    H, Lq, Lk, row, document_row, window, scale, scale_log2,
    G: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_DOCUMENTS: tl.constexpr,
    ONE_LOOP: tl.constexpr, STAGES: tl.constexpr, PRECISION: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of keys, KV heads, B). Descriptors of blocks (1, 1, BM, BD) of q and do, (BM,) of lse and delta."""
    i_t, i_kv, i_b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if HAS_DOCUMENTS:
        i_t = tl.load(p_order + i_b * tl.num_programs(0) + i_t)  # the longest first
    start_n = i_t * BN
    keys = start_n + tl.arange(0, BN)
    bottom = tl.minimum(start_n + BN, Lk) - 1
    starts, ends = keys, keys
    top_start, top_end, bottom_start, bottom_end = start_n, start_n, start_n, start_n
    if HAS_DOCUMENTS:
        p_end += i_b.to(tl.int64) * document_row
        ends = tl.load(p_end + tl.minimum(keys, document_row - 1))
        top_end, bottom_end = tl.load(p_end + start_n), tl.load(p_end + bottom)
        if not CAUSAL:
            p_start += i_b.to(tl.int64) * document_row
            starts = tl.load(p_start + tl.minimum(keys, document_row - 1))
            top_start, bottom_start = tl.load(p_start + start_n), tl.load(p_start + bottom)
    first, last = _queries_seeing(keys, starts, ends, Lq, Lk, window, CAUSAL, HAS_WINDOW, HAS_DOCUMENTS)
    lo, full_hi = _queries_seeing(start_n, top_start, top_end, Lq, Lk, window, CAUSAL, HAS_WINDOW, HAS_DOCUMENTS)
    full_lo, hi = _queries_seeing(bottom, bottom_start, bottom_end, Lq, Lk, window, CAUSAL, HAS_WINDOW, HAS_DOCUMENTS)
    lo = lo // BM * BM  # descriptors of one row of numbers start at multiples of 16 bytes
    hi = hi + 1

    p_k += i_b.to(tl.int64) * sk_b + i_kv.to(tl.int64) * sk_h
    p_v += i_b.to(tl.int64) * sv_b + i_kv.to(tl.int64) * sv_h
    k = own_tile(p_k, sk_l, start_n, Lk, D, BN, BD, DTYPE)
    v = own_tile(p_v, sv_l, start_n, Lk, D, BN, BD, DTYPE)
    dk = tl.zeros([BN, BD], tl.float32)
    dv = tl.zeros([BN, BD], tl.float32)
    i_h = i_kv * G
    full_lo = tl.minimum(lo + tl.cdiv(tl.maximum(full_lo - lo, 0), BM) * BM, tl.maximum(lo, hi))
    # In a dense mask every later query sees every key, and rows beyond the last are padding that sees none.
    whole = full_lo + tl.maximum(full_hi + 1 - full_lo, 0) // BM * BM
    full_hi = whole if HAS_WINDOW or HAS_DOCUMENTS else hi
    if ONE_LOOP:
        dk, dv = _gather_dkdv(
            dk, dv, k, v, q_desc, do_desc, lse_desc, delta_desc, i_b, i_h, H, row, lo, hi, full_lo, full_hi,
            first, last, scale_log2, G, BM, BD, "outside", STAGES, PRECISION, DTYPE
        )  # fmt: skip
    else:
        if CAUSAL or HAS_WINDOW or HAS_DOCUMENTS:
            dk, dv = _gather_dkdv(
                dk, dv, k, v, q_desc, do_desc, lse_desc, delta_desc, i_b, i_h, H, row, lo, full_lo, full_lo, full_hi,
                first, last, scale_log2, G, BM, BD, "all", STAGES, PRECISION, DTYPE
            )  # fmt: skip
        dk, dv = _gather_dkdv(
            dk, dv, k, v, q_desc, do_desc, lse_desc, delta_desc, i_b, i_h, H, row, full_lo, full_hi, full_lo, full_hi,
            first, last, scale_log2, G, BM, BD, "none", STAGES, PRECISION, DTYPE
        )  # fmt: skip
        if HAS_WINDOW or HAS_DOCUMENTS:
            dk, dv = _gather_dkdv(
                dk, dv, k, v, q_desc, do_desc, lse_desc, delta_desc, i_b, i_h, H, row, full_hi, hi, full_lo, full_hi,
                first, last, scale_log2, G, BM, BD, "all", STAGES, PRECISION, DTYPE
            )  # fmt: skip

    columns = tl.arange(0, BD)
    inside = (keys[:, None] < Lk) & (columns[None, :] < D)
    at = keys[:, None].to(tl.int64)
    i_b, i_kv = i_b.to(tl.int64), i_kv.to(tl.int64)
    tl.store(p_dv + i_b * tv_b + i_kv * tv_h + at * tv_l + columns[None, :], narrow(dv, DTYPE), mask=inside)
    tl.store(p_dk + i_b * tk_b + i_kv * tk_h + at * tk_l + columns[None, :], narrow(dk * scale, DTYPE), mask=inside)


@triton.jit
def _gather_dq(
    dq, q, do, lse, delta, k_desc, v_desc, i_b, i_kv, lo, hi, full_lo, full_hi, first, last, scale_log2,
    BN: tl.constexpr, BD: tl.constexpr, MASKED: tl.constexpr, STAGES: tl.constexpr,
    PRECISION: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Adds what the keys [lo, hi) give to one tile of queries. dq: [BM, BD]."""
    for start_n in tl.range(lo, hi, BN, num_stages=STAGES):
        k = operand(k_desc.load([i_b, i_kv, start_n, 0]).reshape(BN, BD), DTYPE)
        s = tl.dot(q, k.T, input_precision=PRECISION)  # [BM, BN]
        p = tl.exp2(s * scale_log2 - lse[:, None])
        if MASKED == "all":
            p = hide(p, start_n, first, last, BN, 0.0)
        elif MASKED == "outside":  # noqa: SIM102, known when compiled
            if (start_n < full_lo) | (start_n >= full_hi):
                p = hide(p, start_n, first, last, BN, 0.0)
        v = operand(v_desc.load([i_b, i_kv, start_n, 0]).reshape(BN, BD), DTYPE)
        dp = tl.dot(do, v.T, input_precision=PRECISION)
        ds = p * (dp - delta[:, None])
        dq = tl.dot(operand(ds, DTYPE), k, dq, input_precision=PRECISION)
    return dq


@triton.jit(do_not_specialize=["H", "Lq", "Lk", "row", "document_row", "window"])
def attention_bwd_kernel_dq(
    p_q, k_desc, v_desc, p_do, p_lse2, p_delta, p_start, p_end, p_order, p_dq,
    sq_b, sq_h, sq_l, sd_b, sd_h, sd_l, tq_b, tq_h, tq_l,
    H, Lq, Lk, row, document_row, window, scale, scale_log2,
    G: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_DOCUMENTS: tl.constexpr,
    ONE_LOOP: tl.constexpr, STAGES: tl.constexpr, PRECISION: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of queries, H, B). Descriptors of blocks (1, 1, BN, BD) of k and v."""
    i_t, i_h, i_b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if HAS_DOCUMENTS:
        i_t = tl.load(p_order + i_b * tl.num_programs(0) + i_t)
    elif CAUSAL:
        i_t = tl.num_programs(0) - 1 - i_t
    i_kv = i_h // G
    start_m = i_t * BM
    rows = start_m + tl.arange(0, BM)
    bottom = tl.minimum(start_m + BM, Lq) - 1
    starts, ends = rows, rows
    top_start, top_end, bottom_start, bottom_end = start_m, start_m, start_m, start_m
    if HAS_DOCUMENTS:
        p_start += i_b.to(tl.int64) * document_row
        starts = tl.load(p_start + tl.minimum(rows, document_row - 1))
        top_start, bottom_start = tl.load(p_start + start_m), tl.load(p_start + bottom)
        if not CAUSAL:
            p_end += i_b.to(tl.int64) * document_row
            ends = tl.load(p_end + tl.minimum(rows, document_row - 1))
            top_end, bottom_end = tl.load(p_end + start_m), tl.load(p_end + bottom)
    first, last = keys_seen(rows, starts, ends, Lq, Lk, window, CAUSAL, HAS_WINDOW, HAS_DOCUMENTS)
    lo, full_hi = keys_seen(start_m, top_start, top_end, Lq, Lk, window, CAUSAL, HAS_WINDOW, HAS_DOCUMENTS)
    full_lo, hi = keys_seen(bottom, bottom_start, bottom_end, Lq, Lk, window, CAUSAL, HAS_WINDOW, HAS_DOCUMENTS)
    hi = hi + 1

    p_q += i_b.to(tl.int64) * sq_b + i_h.to(tl.int64) * sq_h
    p_do += i_b.to(tl.int64) * sd_b + i_h.to(tl.int64) * sd_h
    q = own_tile(p_q, sq_l, start_m, Lq, D, BM, BD, DTYPE)
    do = own_tile(p_do, sd_l, start_m, Lq, D, BM, BD, DTYPE)
    stretch = (i_b.to(tl.int64) * H + i_h) * row
    lse = tl.load(p_lse2 + stretch + rows)
    delta = tl.load(p_delta + stretch + rows)
    dq = tl.zeros([BM, BD], tl.float32)
    full_lo = tl.minimum(lo + tl.cdiv(tl.maximum(full_lo - lo, 0), BN) * BN, tl.maximum(lo, hi))
    full_hi = full_lo + tl.maximum(full_hi + 1 - full_lo, 0) // BN * BN
    if ONE_LOOP:
        dq = _gather_dq(
            dq, q, do, lse, delta, k_desc, v_desc, i_b, i_kv, lo, hi, full_lo, full_hi, first, last, scale_log2,
            BN, BD, "outside", STAGES, PRECISION, DTYPE
        )  # fmt: skip
    else:
        if HAS_WINDOW or HAS_DOCUMENTS:
            dq = _gather_dq(
                dq, q, do, lse, delta, k_desc, v_desc, i_b, i_kv, lo, full_lo, full_lo, full_hi, first, last, scale_log2,
                BN, BD, "all", STAGES, PRECISION, DTYPE
            )  # fmt: skip
        dq = _gather_dq(
            dq, q, do, lse, delta, k_desc, v_desc, i_b, i_kv, full_lo, full_hi, full_lo, full_hi, first, last, scale_log2,
            BN, BD, "none", STAGES, PRECISION, DTYPE
        )  # fmt: skip
        dq = _gather_dq(
            dq, q, do, lse, delta, k_desc, v_desc, i_b, i_kv, full_hi, hi, full_lo, full_hi, first, last, scale_log2,
            BN, BD, "all", STAGES, PRECISION, DTYPE
        )  # fmt: skip

    columns = tl.arange(0, BD)
    out = p_dq + i_b.to(tl.int64) * tq_b + i_h.to(tl.int64) * tq_h + rows[:, None].to(tl.int64) * tq_l + columns[None, :]
    tl.store(out, narrow(dq * scale, DTYPE), mask=(rows[:, None] < Lq) & (columns[None, :] < D))
