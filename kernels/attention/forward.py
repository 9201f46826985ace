"""Fused attention, forward: one program per tile of queries walks the tile of keys that any of its rows may see.

Every mask is one interval of keys per query row, `[first, last]`: causality moves `last`, a sliding window and a document's
start move `first`. Both grow with the row, so a tile's outer bounds come from its first and last row, and blocks of keys
between the last `first` and the first `last` need no mask at all.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportIndexIssue=false
# (the bodies of kernels are Triton's language, which has another meaning of range, where and of constants)

from __future__ import annotations

import triton
import triton.language as tl

from kernels.triton_support import narrow, operand


@triton.jit
def keys_seen(
    rows, document_start, document_end, Lq, Lk, window,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_DOCUMENTS: tl.constexpr,
):  # fmt: skip
    """First and last key that each query row sees; last < first: none. The last query is aligned with the last key."""
    position = rows + (Lk - Lq)
    first = position * 0
    last = first + (Lk - 1)
    if CAUSAL:
        last = tl.minimum(position, last)
    if HAS_WINDOW:
        first = tl.maximum(first, position - window + 1)
        if not CAUSAL:
            last = tl.minimum(last, position + window - 1)
    if HAS_DOCUMENTS:
        first = tl.maximum(first, document_start)
        if not CAUSAL:
            last = tl.minimum(last, document_end - 1)
    return first, last


@triton.jit
def own_tile(p_x, stride, start, length, D: tl.constexpr, ROWS: tl.constexpr, BD: tl.constexpr, DTYPE: tl.constexpr):
    """Rows [start, start + ROWS) of a matrix (length, D), those that a program works on: [ROWS, BD], zeros beyond it."""
    rows, columns = start + tl.arange(0, ROWS), tl.arange(0, BD)
    inside = (rows[:, None] < length) & (columns[None, :] < D)
    return operand(tl.load(p_x + rows[:, None].to(tl.int64) * stride + columns[None, :], mask=inside, other=0.0), DTYPE)


@triton.jit
def hide(s, start, first, last, BLOCK: tl.constexpr, value: tl.constexpr):
    """s [rows, BLOCK] with `value` in the columns from `start` on that are outside each row's [first, last]."""
    n = start + tl.arange(0, BLOCK)
    return tl.where((n[None, :] >= first[:, None]) & (n[None, :] <= last[:, None]), s, value)


@triton.jit
def _attend(
    acc, total, peak, q, k_desc, v_desc, i_b, i_kv, lo, hi, full_lo, full_hi, first, last, scale_log2,
    BN: tl.constexpr, BD: tl.constexpr, MASKED: tl.constexpr, STAGES: tl.constexpr,
    PRECISION: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Online softmax over the keys [lo, hi), a block of BN at a time. acc: [BM, BD]; total, peak: [BM], peak in base 2.

    MASKED: "all" blocks, "none", or only those "outside" [full_lo, full_hi).
    """
    for start_n in tl.range(lo, hi, BN, num_stages=STAGES):
        k = operand(k_desc.load([i_b, i_kv, start_n, 0]).reshape(BN, BD), DTYPE)
        s = tl.dot(q, k.T, input_precision=PRECISION)  # [BM, BN]
        if MASKED == "all":
            s = hide(s, start_n, first, last, BN, -float("inf"))
        elif MASKED == "outside":  # noqa: SIM102, known when compiled
            if (start_n < full_lo) | (start_n >= full_hi):
                s = hide(s, start_n, first, last, BN, -float("inf"))
        higher = tl.maximum(peak, tl.max(s, 1) * scale_log2)
        p = tl.exp2(s * scale_log2 - higher[:, None])
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(p, 1)
        acc = acc * shrink[:, None]
        v = operand(v_desc.load([i_b, i_kv, start_n, 0]).reshape(BN, BD), DTYPE)
        acc = tl.dot(operand(p, DTYPE), v, acc, input_precision=PRECISION)
        peak = higher
    return acc, total, peak


@triton.jit(do_not_specialize=["H", "Lq", "Lk", "document_row", "window"])
def attention_fwd_kernel(
    p_q, k_desc, v_desc, p_o, p_lse, p_start, p_end, p_order, sq_b, sq_h, sq_l, so_b, so_h, so_l,
    H, Lq, Lk, document_row, window, scale_log2,
    G: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_DOCUMENTS: tl.constexpr,
    ONE_LOOP: tl.constexpr, STAGES: tl.constexpr, PRECISION: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of queries, H, B). Descriptors of blocks (1, 1, BN, BD) of k and v; o: q's shape; lse: (B, H, Lq)."""
    i_t, i_h, i_b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if HAS_DOCUMENTS:
        i_t = tl.load(p_order + i_b * tl.num_programs(0) + i_t)  # the longest first
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

    peak = tl.full([BM], -1.0e30, tl.float32)  # finite: a block in which a row sees nothing leaves it unchanged
    total = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, BD], tl.float32)
    q = own_tile(p_q + i_b.to(tl.int64) * sq_b + i_h.to(tl.int64) * sq_h, sq_l, start_m, Lq, D, BM, BD, DTYPE)
    full_lo = tl.minimum(lo + tl.cdiv(tl.maximum(full_lo - lo, 0), BN) * BN, tl.maximum(lo, hi))
    full_hi = full_lo + tl.maximum(full_hi + 1 - full_lo, 0) // BN * BN
    if ONE_LOOP:
        acc, total, peak = _attend(
            acc, total, peak, q, k_desc, v_desc, i_b, i_kv, lo, hi, full_lo, full_hi, first, last, scale_log2,
            BN, BD, "outside", STAGES, PRECISION, DTYPE
        )  # fmt: skip
    else:
        if HAS_WINDOW or HAS_DOCUMENTS:
            acc, total, peak = _attend(
                acc, total, peak, q, k_desc, v_desc, i_b, i_kv, lo, full_lo, full_lo, full_hi, first, last, scale_log2,
                BN, BD, "all", STAGES, PRECISION, DTYPE
            )  # fmt: skip
        acc, total, peak = _attend(
            acc, total, peak, q, k_desc, v_desc, i_b, i_kv, full_lo, full_hi, full_lo, full_hi, first, last, scale_log2,
            BN, BD, "none", STAGES, PRECISION, DTYPE
        )  # fmt: skip
        acc, total, peak = _attend(
            acc, total, peak, q, k_desc, v_desc, i_b, i_kv, full_hi, hi, full_lo, full_hi, first, last, scale_log2,
            BN, BD, "all", STAGES, PRECISION, DTYPE
        )  # fmt: skip

    blind = total == 0.0  # sees no key: 0, and no mass
    total = tl.where(blind, 1.0, total)
    acc = acc * (1.0 / total)[:, None]
    lse = tl.where(blind, -float("inf"), (peak + tl.log2(total)) * 0.6931471805599453)
    tl.store(p_lse + (i_b.to(tl.int64) * H + i_h) * Lq + rows, lse, mask=rows < Lq)
    columns = tl.arange(0, BD)
    out = p_o + i_b.to(tl.int64) * so_b + i_h.to(tl.int64) * so_h + rows[:, None].to(tl.int64) * so_l + columns[None, :]
    tl.store(out, narrow(acc, DTYPE), mask=(rows[:, None] < Lq) & (columns[None, :] < D))
