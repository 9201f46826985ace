"""Which keys a query sees, for the forward and the backward kernels: one interval of keys for each query, and the reverse.

Causality moves an interval's end, a sliding window and a document's start move its beginning. Both grow with the query, so the
outer bounds of a tile of queries come from its first and last row, and blocks of keys between the last beginning and the first
end need no mask at all.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportIndexIssue=false
# (the bodies of kernels are Triton's language, which has another meaning of range, where and of constants)

from __future__ import annotations

import triton
import triton.language as tl

from kernels.triton_support import operand

# Rows at a time where a tile is worked on with care: few, so that the kernel needs no more registers for it.
CAREFUL_ROWS = tl.constexpr(16)


@triton.jit
def _keys_seen(
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
def _queries_seeing(
    keys, document_start, document_end, Lq, Lk, window,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_DOCUMENTS: tl.constexpr,
):  # fmt: skip
    """First and last query that sees each key: what `_keys_seen` says, turned around."""
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
def _of_tile(p_x, i_b, start, rows, bottom, document_row, READ: tl.constexpr):
    """A number for each token of a row of x (batch, document_row): those of `rows`, of `start` and of `bottom`; if not READ,

    where nobody asks for it, the tokens themselves.
    """
    if READ:
        p_x += i_b.to(tl.int64) * document_row
        return tl.load(p_x + tl.minimum(rows, document_row - 1)), tl.load(p_x + start), tl.load(p_x + bottom)
    else:
        return rows, start, start


@triton.jit
def keys_of_tile(
    p_start, p_end, i_b, start, Lq, Lk, document_row, window, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_DOCUMENTS: tl.constexpr,
):  # fmt: skip
    """What the ROWS queries from `start` on see: first and last key of each; [lo, hi), what any of them sees; and of the blocks

    of BLOCK keys from lo on those that each of them sees whole, [full_lo, full_hi).
    """
    rows = start + tl.arange(0, ROWS)
    bottom = tl.minimum(start + ROWS, Lq) - 1
    starts, top_start, bottom_start = _of_tile(p_start, i_b, start, rows, bottom, document_row, HAS_DOCUMENTS)
    ends, top_end, bottom_end = _of_tile(p_end, i_b, start, rows, bottom, document_row, HAS_DOCUMENTS and not CAUSAL)
    first, last = _keys_seen(rows, starts, ends, Lq, Lk, window, CAUSAL, HAS_WINDOW, HAS_DOCUMENTS)
    lo, full_hi = _keys_seen(start, top_start, top_end, Lq, Lk, window, CAUSAL, HAS_WINDOW, HAS_DOCUMENTS)
    full_lo, hi = _keys_seen(bottom, bottom_start, bottom_end, Lq, Lk, window, CAUSAL, HAS_WINDOW, HAS_DOCUMENTS)
    hi = hi + 1
    full_lo = tl.minimum(lo + tl.cdiv(tl.maximum(full_lo - lo, 0), BLOCK) * BLOCK, tl.maximum(lo, hi))
    full_hi = full_lo + tl.maximum(full_hi + 1 - full_lo, 0) // BLOCK * BLOCK
    return first, last, lo, hi, full_lo, full_hi


@triton.jit
def queries_of_tile(
    p_start, p_end, i_b, start, Lq, Lk, document_row, window, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_DOCUMENTS: tl.constexpr,
):  # fmt: skip
    """What sees the ROWS keys from `start` on: as `keys_of_tile`, of queries, in blocks of BLOCK from a multiple of it on."""
    keys = start + tl.arange(0, ROWS)
    bottom = tl.minimum(start + ROWS, Lk) - 1
    ends, top_end, bottom_end = _of_tile(p_end, i_b, start, keys, bottom, document_row, HAS_DOCUMENTS)
    starts, top_start, bottom_start = _of_tile(p_start, i_b, start, keys, bottom, document_row, HAS_DOCUMENTS and not CAUSAL)
    first, last = _queries_seeing(keys, starts, ends, Lq, Lk, window, CAUSAL, HAS_WINDOW, HAS_DOCUMENTS)
    lo, full_hi = _queries_seeing(start, top_start, top_end, Lq, Lk, window, CAUSAL, HAS_WINDOW, HAS_DOCUMENTS)
    full_lo, hi = _queries_seeing(bottom, bottom_start, bottom_end, Lq, Lk, window, CAUSAL, HAS_WINDOW, HAS_DOCUMENTS)
    lo = lo // BLOCK * BLOCK  # descriptors of one row of numbers start at multiples of 16 bytes
    hi = hi + 1
    full_lo = tl.minimum(lo + tl.cdiv(tl.maximum(full_lo - lo, 0), BLOCK) * BLOCK, tl.maximum(lo, hi))
    # In a dense mask every later query sees every key, and rows beyond the last are padding that sees none.
    whole = full_lo + tl.maximum(full_hi + 1 - full_lo, 0) // BLOCK * BLOCK
    full_hi = whole if HAS_WINDOW or HAS_DOCUMENTS else hi
    return first, last, lo, hi, full_lo, full_hi


@triton.jit
def own_tile(p_x, stride, start, length, D: tl.constexpr, ROWS: tl.constexpr, BD: tl.constexpr, DTYPE: tl.constexpr):
    """Rows [start, start + ROWS) of a matrix (length, D), those that a program works on: [ROWS, BD], zeros beyond it."""
    rows, columns = start + tl.arange(0, ROWS), tl.arange(0, BD)
    inside = (rows[:, None] < length) & (columns[None, :] < D)
    return operand(tl.load(p_x + rows[:, None].to(tl.int64) * stride + columns[None, :], mask=inside, other=0.0), DTYPE)


@triton.jit
def seen_by(start, first, last, BLOCK: tl.constexpr):
    """[rows, BLOCK]: which of the columns from `start` on are in each row's [first, last]."""
    n = start + tl.arange(0, BLOCK)
    return (n[None, :] >= first[:, None]) & (n[None, :] <= last[:, None])


@triton.jit
def has_nan(x):
    """Whether any of x is not a number."""
    return tl.max(tl.max((x != x).to(tl.int32), 1), 0) > 0


@triton.jit
def _finite(x):
    return tl.abs(x) < float("inf")


@triton.jit
def finite_part(x):
    """x, zero where it is NaN or infinite: what a product may take with weights of 0."""
    return tl.where(_finite(x), x, 0.0).to(x.dtype)


@triton.jit
def poison(p, seen, x):
    """p [rows, BLOCK], NaN where a row sees a row of x [BLOCK, BD] that is not finite; x's `finite_part` can go with it."""
    broken = tl.max((_finite(x) == 0).to(tl.int32), 1) > 0
    return tl.where(seen & broken[None, :], float("nan"), p)
