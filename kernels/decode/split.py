"""Split-KV decoding (Flash-Decoding, Dao et al. 2023) and what puts the splits together.

The few queries of a step do not fill a GPU, so programs share out the keys: each takes one stretch of one cache, for all query
rows that read it, and leaves an unfinished softmax. Heads of one group read the same keys, and so do all sequences on a shared
prefix (Hydragen, Juravsky et al. 2024): their queries are the rows of one tile, and the keys are read once.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportIndexIssue=false
# (the bodies of kernels are Triton's language, which has another meaning of range, where and of constants)

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from kernels.triton_support import narrow, operand


@triton.jit
def _attend_to(
    acc, total, peak, q, k, v, first, last, n, scale_log2, MASKED: tl.constexpr, PRECISION: tl.constexpr, DTYPE: tl.constexpr
):  # fmt: skip
    """One block of keys into the running softmax of the query rows. q: [BM, BD]; k, v: [BN, BD]."""
    s = tl.dot(q, k.T, input_precision=PRECISION)
    if MASKED:
        s = tl.where((n[None, :] >= first[:, None]) & (n[None, :] <= last[:, None]), s, -float("inf"))
    higher = tl.maximum(peak, tl.max(s, 1) * scale_log2)
    p = tl.exp2(s * scale_log2 - higher[:, None])
    shrink = tl.exp2(peak - higher)
    acc = tl.dot(operand(p, DTYPE), v, acc * shrink[:, None], input_precision=PRECISION)
    return acc, total * shrink + tl.sum(p, 1), higher


@triton.jit
def _split(
    i_s, i_t, i_b, p_q, k_desc, v_desc, p_k, p_v, p_lengths, p_o, p_lse, sq_b, sq_h, sq_l, sk_b, sk_h, sk_l, sv_b, sv_h, sv_l,
    B, H, queries, capacity, splits, slot, window, scale_log2,
    G: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
    SHARED: tl.constexpr, HAS_LENGTHS: tl.constexpr, HAS_WINDOW: tl.constexpr, STAGES: tl.constexpr,
    PRECISION: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Split i_s of `splits` for tile i_t (of KV heads x tiles of rows) and sequence i_b, 0 if SHARED: its slot of o and lse.

    A row is one query of one head of the group; if SHARED, of any sequence. lse is in base 2, -inf where a split holds nothing.
    """
    rows = G * queries
    if SHARED:
        rows = rows * B
    tiles = tl.cdiv(rows, BM)
    i_kv = i_t // tiles
    row = i_t % tiles * BM + tl.arange(0, BM)
    real = row < rows
    head = i_kv * G + row // queries % G
    query = row % queries
    if SHARED:
        sequence = row // (G * queries)
        length = capacity
        last = query * 0 + (capacity - 1)
    else:
        sequence = query * 0 + i_b
        length = capacity
        if HAS_LENGTHS:
            length = tl.minimum(tl.load(p_lengths + i_b), capacity)  # no more than is there, whatever it says
        last = length - queries + query
    first = query * 0
    lo = 0
    if HAS_WINDOW:
        first = tl.maximum(last - window + 1, 0)
        lo = tl.maximum(length - queries - window + 1, 0)
    stretch = tl.cdiv(tl.cdiv(length - lo, splits), BN) * BN
    lo = lo + i_s * stretch
    hi = tl.minimum(lo + stretch, length)
    # What every query of a sequence sees needs no mask: all before the first of them; but a window starts elsewhere for each.
    full = hi
    if not SHARED:
        full = tl.minimum(hi, length - queries + 1)
        if HAS_WINDOW:
            full = tl.where(queries == 1, full, lo)
    full = lo + tl.maximum(full - lo, 0) // BN * BN

    columns = tl.arange(0, BD)
    p_k += i_b.to(tl.int64) * sk_b + i_kv.to(tl.int64) * sk_h
    p_v += i_b.to(tl.int64) * sv_b + i_kv.to(tl.int64) * sv_h
    at = sequence.to(tl.int64) * sq_b + head.to(tl.int64) * sq_h + query * sq_l
    q = tl.load(p_q + at[:, None] + columns[None, :], mask=real[:, None] & (columns[None, :] < D), other=0.0)
    q = operand(q, DTYPE)
    peak = tl.full([BM], -1.0e30, tl.float32)
    total = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, BD], tl.float32)
    for start in tl.range(lo, full, BN, num_stages=STAGES):
        k = operand(k_desc.load([i_b, i_kv, start, 0]).reshape(BN, BD), DTYPE)
        v = operand(v_desc.load([i_b, i_kv, start, 0]).reshape(BN, BD), DTYPE)
        acc, total, peak = _attend_to(acc, total, peak, q, k, v, first, last, columns, scale_log2, False, PRECISION, DTYPE)
    # The rest by masked loads: beyond its length a cache may hold anything, and 0 x NaN is NaN.
    for start in tl.range(full, hi, BN, num_stages=1):
        n = start + tl.arange(0, BN)
        inside = (n[:, None] < hi) & (columns[None, :] < D)
        k = operand(tl.load(p_k + n[:, None].to(tl.int64) * sk_l + columns[None, :], mask=inside, other=0.0), DTYPE)
        v = operand(tl.load(p_v + n[:, None].to(tl.int64) * sv_l + columns[None, :], mask=inside, other=0.0), DTYPE)
        acc, total, peak = _attend_to(
            acc, total, peak, q, k, v, first, tl.minimum(last, hi - 1), n, scale_log2, True, PRECISION, DTYPE
        )

    blind = total == 0.0
    total = tl.where(blind, 1.0, total)
    lse = tl.where(blind, -float("inf"), peak + tl.log2(total))
    out = (((slot + i_s).to(tl.int64) * B + sequence) * H + head) * queries + query
    tl.store(p_lse + out, lse, mask=real)
    tl.store(p_o + out[:, None] * D + columns[None, :], acc / total[:, None], mask=real[:, None] & (columns[None, :] < D))


@triton.jit(do_not_specialize=["B", "H", "queries", "capacity", "splits", "prefix", "prefix_splits", "window"])
def decode_kernel_split(
    p_q, k_desc, v_desc, p_k, p_v, p_lengths, prefix_k_desc, prefix_v_desc, p_prefix_k, p_prefix_v, p_o, p_lse,
    sq_b, sq_h, sq_l, sk_b, sk_h, sk_l, sv_b, sv_h, sv_l, spk_h, spk_l, spv_h, spv_l,
    B, H, queries, capacity, splits, prefix, prefix_splits, window, scale_log2,
    G: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
    STAGES: tl.constexpr,
    PREFIX_BM: tl.constexpr, PREFIX_BN: tl.constexpr, PREFIX_STAGES: tl.constexpr,
    HAS_PREFIX: tl.constexpr, HAS_LENGTHS: tl.constexpr, HAS_WINDOW: tl.constexpr, OVERLAP: tl.constexpr,
    PRECISION: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Grid (prefix_splits x tiles of the prefix + splits x tiles x B,). Leaves o (slots, B, H, queries, D) and lse, both fp32.

    The prefix has the first slots and the first programs: products take longest, and the reads of caches fill the gaps.
    OVERLAP: what follows in the stream may start to launch as soon as all programs run; it must wait for the results.
    """
    if OVERLAP:
        gdc_launch_dependents()
    i = tl.program_id(0)
    first = 0
    if HAS_PREFIX:
        first = prefix_splits * (H // G * tl.cdiv(B * G * queries, PREFIX_BM))
        if i < first:
            _split(
                i % prefix_splits, i // prefix_splits, i * 0, p_q, prefix_k_desc, prefix_v_desc, p_prefix_k, p_prefix_v, None,
                p_o, p_lse, sq_b, sq_h, sq_l, 0, spk_h, spk_l, 0, spv_h, spv_l, B, H, queries, prefix, prefix_splits, 0, 0,
                scale_log2, G, D, PREFIX_BM, PREFIX_BN, BD, True, False, False, PREFIX_STAGES, PRECISION, DTYPE
            )  # fmt: skip
    if i >= first:
        i -= first
        tiles = H // G * tl.cdiv(G * queries, BM)
        _split(
            i % splits, i // splits % tiles, i // splits // tiles, p_q, k_desc, v_desc, p_k, p_v, p_lengths,
            p_o, p_lse, sq_b, sq_h, sq_l, sk_b, sk_h, sk_l, sv_b, sv_h, sv_l, B, H, queries, capacity, splits, prefix_splits,
            window, scale_log2, G, D, BM, BN, BD, False, HAS_LENGTHS, HAS_WINDOW, STAGES, PRECISION, DTYPE
        )  # fmt: skip


@triton.jit(do_not_specialize=["slots", "rows"])
def decode_kernel_combine(
    p_parts, p_lses, p_o, p_lse, so_b, so_h, so_l, H, queries, slots, rows,
    D: tl.constexpr, BC: tl.constexpr, SLOTS: tl.constexpr, OVERLAP: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Grid (B x H x queries, blocks of BC columns): the exact softmax of one row from its slots' unfinished ones, in fp32.

    lse leaves in base e. OVERLAP: launched before its slots are there.
    """
    row = tl.program_id(0)
    columns = tl.program_id(1) * BC + tl.arange(0, BC)
    slot = tl.arange(0, SLOTS)
    at = (slot.to(tl.int64) * rows + row)[:, None] * D + columns[None, :]
    i_b, i_h, i_q = row // queries // H, row // queries % H, row % queries
    out = p_o + i_b.to(tl.int64) * so_b + i_h.to(tl.int64) * so_h + i_q * so_l
    if OVERLAP:
        gdc_wait()
    lses = tl.load(p_lses + slot.to(tl.int64) * rows + row, mask=slot < slots, other=-float("inf"))
    parts = tl.load(p_parts + at, mask=(slot[:, None] < slots) & (columns[None, :] < D), other=0.0)
    peak = tl.max(lses, 0)
    blind = peak == -float("inf")
    weights = tl.exp2(lses - tl.where(blind, 0.0, peak))
    total = tl.where(blind, 1.0, tl.sum(weights, 0))
    o = tl.sum(parts * (weights / total)[:, None], 0)
    tl.store(out + columns, narrow(o, DTYPE), mask=columns < D)
    if tl.program_id(1) == 0:
        tl.store(p_lse + row, tl.where(blind, -float("inf"), (peak + tl.log2(total)) * 0.6931471805599453))
