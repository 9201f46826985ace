"""Fused attention, backward: seven products in two kernels, so that no sum depends on the order in which programs run.

With S = scale Q Kᵀ, P = exp(S - lse) and delta = rowsum(O dO): dV = Pᵀ dO, dS = P (dO Vᵀ - delta), dK = scale dSᵀ Q and
dQ = scale dS K. One program per tile of keys makes dK and dV (over the heads that share it), one per tile of queries makes dQ;
each recomputes S and P. What is not finite is kept from who does not see it as in the forward kernel.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportIndexIssue=false
# (the bodies of kernels are Triton's language, which has another meaning of range, where and of constants)

from __future__ import annotations

import triton
import triton.language as tl

from kernels.attention.masks import CAREFUL_ROWS, finite_part, has_nan, keys_of_tile, own_tile, poison, queries_of_tile, seen_by
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
def _gather_dkdv(
    p_k, p_v, q_desc, do_desc, lse_desc, delta_desc, p_start, p_end, i_b, i_h, start_n, sk_l, sv_l,
    H, Lq, Lk, row, document_row, window, scale_log2,
    G: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_DOCUMENTS: tl.constexpr, CAREFUL: tl.constexpr,
    STAGES: tl.constexpr, PRECISION: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """dk / scale and dv [BN, BD] of the keys from start_n on, from the queries of G heads from i_h on. CAREFUL: see forward."""
    first, last, lo, hi, full_lo, full_hi = queries_of_tile(
        p_start, p_end, i_b, start_n, Lq, Lk, document_row, window, BN, BM, CAUSAL, HAS_WINDOW, HAS_DOCUMENTS
    )
    k = own_tile(p_k, sk_l, start_n, Lk, D, BN, BD, DTYPE)
    v = own_tile(p_v, sv_l, start_n, Lk, D, BN, BD, DTYPE)
    dk = tl.zeros([BN, BD], tl.float32)
    dv = tl.zeros([BN, BD], tl.float32)
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
        if CAREFUL or (start_m < full_lo) | (start_m >= full_hi):
            p = tl.where(seen_by(start_m, first, last, BM), p, 0.0)
        do = operand(do_desc.load([i_b, head, start_m, 0]).reshape(BM, BD), DTYPE)
        if CAREFUL:
            dp = tl.dot(v, do.T, input_precision=PRECISION)
            p = poison(p, seen_by(start_m, first, last, BM), do)
            dv = tl.dot(operand(p, DTYPE), finite_part(do), dv, input_precision=PRECISION)
        else:
            dv = tl.dot(operand(p, DTYPE), do, dv, input_precision=PRECISION)
            dp = tl.dot(v, do.T, input_precision=PRECISION)
        delta = delta_desc.load([(i_b * H + head) * row + start_m])
        ds = p * (dp - delta[None, :])
        if CAREFUL:
            ds = tl.where(seen_by(start_m, first, last, BM), ds, 0.0)
            q = finite_part(q)
        dk = tl.dot(operand(ds, DTYPE), q, dk, input_precision=PRECISION)
    return dk, dv


@triton.jit
def _store(p_x, x, start, stride, length, D: tl.constexpr, ROWS: tl.constexpr, BD: tl.constexpr, DTYPE: tl.constexpr):
    rows, columns = start + tl.arange(0, ROWS), tl.arange(0, BD)
    inside = (rows[:, None] < length) & (columns[None, :] < D)
    tl.store(p_x + rows[:, None].to(tl.int64) * stride + columns[None, :], narrow(x, DTYPE), mask=inside)


@triton.jit(do_not_specialize=["H", "Lq", "Lk", "row", "document_row", "window"])
def attention_bwd_kernel_dkdv(
    q_desc, p_k, p_v, do_desc, lse_desc, delta_desc, p_start, p_end, p_order, p_dk, p_dv,
    sk_b, sk_h, sk_l, sv_b, sv_h, sv_l, tk_b, tk_h, tk_l, tv_b, tv_h, tv_l,
    H, Lq, Lk, row, document_row, window, scale, scale_log2,
    G: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_DOCUMENTS: tl.constexpr,
    STAGES: tl.constexpr, PRECISION: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of keys, KV heads, B). Descriptors of blocks (1, 1, BM, BD) of q and do, (BM,) of lse and delta."""
    i_t, i_kv, i_b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if HAS_DOCUMENTS:
        i_t = tl.load(p_order + i_b * tl.num_programs(0) + i_t)  # the longest first
    start_n = i_t * BN
    p_k += i_b.to(tl.int64) * sk_b + i_kv.to(tl.int64) * sk_h
    p_v += i_b.to(tl.int64) * sv_b + i_kv.to(tl.int64) * sv_h
    dk, dv = _gather_dkdv(
        p_k, p_v, q_desc, do_desc, lse_desc, delta_desc, p_start, p_end, i_b, i_kv * G, start_n, sk_l, sv_l,
        H, Lq, Lk, row, document_row, window, scale_log2,
        G, D, BM, BN, BD, CAUSAL, HAS_WINDOW, HAS_DOCUMENTS, False, STAGES, PRECISION, DTYPE
    )  # fmt: skip
    p_dk += i_b.to(tl.int64) * tk_b + i_kv.to(tl.int64) * tk_h
    p_dv += i_b.to(tl.int64) * tv_b + i_kv.to(tl.int64) * tv_h
    if (CAUSAL or HAS_WINDOW or HAS_DOCUMENTS) and (has_nan(dk) | has_nan(dv)):
        for start in range(start_n, tl.minimum(start_n + BN, Lk), CAREFUL_ROWS):
            dk_, dv_ = _gather_dkdv(
                p_k, p_v, q_desc, do_desc, lse_desc, delta_desc, p_start, p_end, i_b, i_kv * G, start, sk_l, sv_l,
                H, Lq, Lk, row, document_row, window, scale_log2,
                G, D, BM, CAREFUL_ROWS, BD, CAUSAL, HAS_WINDOW, HAS_DOCUMENTS, True, 1, PRECISION, DTYPE
            )  # fmt: skip
            _store(p_dv, dv_, start, tv_l, Lk, D, CAREFUL_ROWS, BD, DTYPE)
            _store(p_dk, dk_ * scale, start, tk_l, Lk, D, CAREFUL_ROWS, BD, DTYPE)
    else:
        _store(p_dv, dv, start_n, tv_l, Lk, D, BN, BD, DTYPE)
        _store(p_dk, dk * scale, start_n, tk_l, Lk, D, BN, BD, DTYPE)


@triton.jit
def _gather_dq(
    p_q, p_do, p_lse2, p_delta, k_desc, v_desc, p_start, p_end, i_b, i_kv, start_m, sq_l, sd_l,
    Lq, Lk, document_row, window, scale_log2,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_DOCUMENTS: tl.constexpr, CAREFUL: tl.constexpr,
    STAGES: tl.constexpr, PRECISION: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """dq / scale [BM, BD] of the queries from start_m on. CAREFUL: see forward."""
    first, last, lo, hi, full_lo, full_hi = keys_of_tile(
        p_start, p_end, i_b, start_m, Lq, Lk, document_row, window, BM, BN, CAUSAL, HAS_WINDOW, HAS_DOCUMENTS
    )
    q = own_tile(p_q, sq_l, start_m, Lq, D, BM, BD, DTYPE)
    do = own_tile(p_do, sd_l, start_m, Lq, D, BM, BD, DTYPE)
    rows = start_m + tl.arange(0, BM)
    lse = tl.load(p_lse2 + rows)
    delta = tl.load(p_delta + rows)
    dq = tl.zeros([BM, BD], tl.float32)
    for start_n in tl.range(lo, hi, BN, num_stages=STAGES):
        k = operand(k_desc.load([i_b, i_kv, start_n, 0]).reshape(BN, BD), DTYPE)
        s = tl.dot(q, k.T, input_precision=PRECISION)  # [BM, BN]
        p = tl.exp2(s * scale_log2 - lse[:, None])
        if CAREFUL or (start_n < full_lo) | (start_n >= full_hi):
            p = tl.where(seen_by(start_n, first, last, BN), p, 0.0)
        v = operand(v_desc.load([i_b, i_kv, start_n, 0]).reshape(BN, BD), DTYPE)
        dp = tl.dot(do, v.T, input_precision=PRECISION)
        ds = p * (dp - delta[:, None])
        if CAREFUL:
            ds = tl.where(seen_by(start_n, first, last, BN), ds, 0.0)
            k = finite_part(k)
        dq = tl.dot(operand(ds, DTYPE), k, dq, input_precision=PRECISION)
    return dq


@triton.jit(do_not_specialize=["H", "Lq", "Lk", "row", "document_row", "window"])
def attention_bwd_kernel_dq(
    p_q, k_desc, v_desc, p_do, p_lse2, p_delta, p_start, p_end, p_order, p_dq,
    sq_b, sq_h, sq_l, sd_b, sd_h, sd_l, tq_b, tq_h, tq_l,
    H, Lq, Lk, row, document_row, window, scale, scale_log2,
    G: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_DOCUMENTS: tl.constexpr,
    STAGES: tl.constexpr, PRECISION: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of queries, H, B). Descriptors of blocks (1, 1, BN, BD) of k and v."""
    i_t, i_h, i_b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if HAS_DOCUMENTS:
        i_t = tl.load(p_order + i_b * tl.num_programs(0) + i_t)
    elif CAUSAL:
        i_t = tl.num_programs(0) - 1 - i_t
    i_kv = i_h // G
    start_m = i_t * BM
    p_q += i_b.to(tl.int64) * sq_b + i_h.to(tl.int64) * sq_h
    p_do += i_b.to(tl.int64) * sd_b + i_h.to(tl.int64) * sd_h
    p_lse2 += (i_b.to(tl.int64) * H + i_h) * row
    p_delta += (i_b.to(tl.int64) * H + i_h) * row
    dq = _gather_dq(
        p_q, p_do, p_lse2, p_delta, k_desc, v_desc, p_start, p_end, i_b, i_kv, start_m, sq_l, sd_l,
        Lq, Lk, document_row, window, scale_log2,
        D, BM, BN, BD, CAUSAL, HAS_WINDOW, HAS_DOCUMENTS, False, STAGES, PRECISION, DTYPE
    )  # fmt: skip
    p_dq += i_b.to(tl.int64) * tq_b + i_h.to(tl.int64) * tq_h
    if (CAUSAL or HAS_WINDOW or HAS_DOCUMENTS) and has_nan(dq):
        for start in range(start_m, tl.minimum(start_m + BM, Lq), CAREFUL_ROWS):
            dq_ = _gather_dq(
                p_q, p_do, p_lse2, p_delta, k_desc, v_desc, p_start, p_end, i_b, i_kv, start, sq_l, sd_l,
                Lq, Lk, document_row, window, scale_log2,
                D, CAREFUL_ROWS, BN, BD, CAUSAL, HAS_WINDOW, HAS_DOCUMENTS, True, 1, PRECISION, DTYPE
            )  # fmt: skip
            _store(p_dq, dq_ * scale, start, tq_l, Lq, D, CAREFUL_ROWS, BD, DTYPE)
    else:
        _store(p_dq, dq * scale, start_m, tq_l, Lq, D, BM, BD, DTYPE)
