"""Fused attention, forward: one program per tile of queries walks the tile of keys that any of its rows may see.

Masks cost only the blocks that need them, see `masks.py`. In those, a key that a query does not see has the weight 0, and
0 x NaN is NaN: a program whose result has a NaN does its work once more, with care for what each query sees. So what is not
finite reaches only those who see it, and finite numbers cost one look at the result.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportIndexIssue=false
# (the bodies of kernels are Triton's language, which has another meaning of range, where and of constants)

from __future__ import annotations

import triton
import triton.language as tl

from kernels.attention.masks import CAREFUL_ROWS, finite_part, has_nan, keys_of_tile, own_tile, poison, seen_by
from kernels.triton_support import narrow, operand


@triton.jit
def _attend(
    p_q, k_desc, v_desc, p_start, p_end, i_b, i_kv, start_m, sq_l, Lq, Lk, document_row, window, scale_log2,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_DOCUMENTS: tl.constexpr, CAREFUL: tl.constexpr,
    STAGES: tl.constexpr, PRECISION: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """o [BM, BD] and lse [BM] of the queries from start_m on, by online softmax over the keys, a block of BN at a time.

    CAREFUL: keys and values that are not finite move only the queries that see them.
    """
    first, last, lo, hi, full_lo, full_hi = keys_of_tile(
        p_start, p_end, i_b, start_m, Lq, Lk, document_row, window, BM, BN, CAUSAL, HAS_WINDOW, HAS_DOCUMENTS
    )
    peak = tl.full([BM], -1.0e30, tl.float32)  # finite: a block in which a row sees nothing leaves it unchanged
    total = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, BD], tl.float32)
    q = own_tile(p_q, sq_l, start_m, Lq, D, BM, BD, DTYPE)
    for start_n in tl.range(lo, hi, BN, num_stages=STAGES):
        k = operand(k_desc.load([i_b, i_kv, start_n, 0]).reshape(BN, BD), DTYPE)
        s = tl.dot(q, k.T, input_precision=PRECISION)  # [BM, BN]
        if CAREFUL or (start_n < full_lo) | (start_n >= full_hi):
            s = tl.where(seen_by(start_n, first, last, BN), s, -float("inf"))
        higher = tl.maximum(peak, tl.max(s, 1) * scale_log2)
        p = tl.exp2(s * scale_log2 - higher[:, None])
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(p, 1)
        acc = acc * shrink[:, None]
        v = operand(v_desc.load([i_b, i_kv, start_n, 0]).reshape(BN, BD), DTYPE)
        if CAREFUL:
            p = poison(p, seen_by(start_n, first, last, BN), v)
            v = finite_part(v)
        acc = tl.dot(operand(p, DTYPE), v, acc, input_precision=PRECISION)
        peak = higher
    blind = total == 0.0  # sees no key: 0, and no mass
    total = tl.where(blind, 1.0, total)
    return acc * (1.0 / total)[:, None], tl.where(blind, -float("inf"), (peak + tl.log2(total)) * 0.6931471805599453)


@triton.jit
def _store(p_o, p_lse, o, lse, start_m, so_l, Lq, D: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr, DTYPE: tl.constexpr):
    rows, columns = start_m + tl.arange(0, BM), tl.arange(0, BD)
    tl.store(p_lse + rows, lse, mask=rows < Lq)
    inside = (rows[:, None] < Lq) & (columns[None, :] < D)
    tl.store(p_o + rows[:, None].to(tl.int64) * so_l + columns[None, :], narrow(o, DTYPE), mask=inside)


@triton.jit(do_not_specialize=["H", "Lq", "Lk", "document_row", "window"])
def attention_fwd_kernel(
    p_q, k_desc, v_desc, p_o, p_lse, p_start, p_end, p_order, sq_b, sq_h, sq_l, so_b, so_h, so_l,
    H, Lq, Lk, document_row, window, scale_log2,
    G: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_DOCUMENTS: tl.constexpr,
    STAGES: tl.constexpr, PRECISION: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of queries, H, B). Descriptors of blocks (1, 1, BN, BD) of k and v; o: q's shape; lse: (B, H, Lq)."""
    i_t, i_h, i_b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if HAS_DOCUMENTS:
        i_t = tl.load(p_order + i_b * tl.num_programs(0) + i_t)  # the longest first
    elif CAUSAL:
        i_t = tl.num_programs(0) - 1 - i_t
    i_kv = i_h // G
    start_m = i_t * BM
    p_q += i_b.to(tl.int64) * sq_b + i_h.to(tl.int64) * sq_h
    o, lse = _attend(
        p_q, k_desc, v_desc, p_start, p_end, i_b, i_kv, start_m, sq_l, Lq, Lk, document_row, window, scale_log2,
        D, BM, BN, BD, CAUSAL, HAS_WINDOW, HAS_DOCUMENTS, False, STAGES, PRECISION, DTYPE
    )  # fmt: skip
    p_o += i_b.to(tl.int64) * so_b + i_h.to(tl.int64) * so_h
    p_lse += (i_b.to(tl.int64) * H + i_h) * Lq
    if (CAUSAL or HAS_WINDOW or HAS_DOCUMENTS) and has_nan(o):
        for start in range(start_m, tl.minimum(start_m + BM, Lq), CAREFUL_ROWS):
            o_, lse_ = _attend(
                p_q, k_desc, v_desc, p_start, p_end, i_b, i_kv, start, sq_l, Lq, Lk, document_row, window, scale_log2,
                D, CAREFUL_ROWS, BN, BD, CAUSAL, HAS_WINDOW, HAS_DOCUMENTS, True, 1, PRECISION, DTYPE
            )  # fmt: skip
            _store(p_o, p_lse, o_, lse_, start, so_l, Lq, D, CAREFUL_ROWS, BD, DTYPE)
    else:
        _store(p_o, p_lse, o, lse, start_m, so_l, Lq, D, BM, BD, DTYPE)
