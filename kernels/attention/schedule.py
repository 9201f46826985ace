"""Where documents lie, for kernels that work tile by tile: made on the device by one small kernel, without waiting for it."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportIndexIssue=false
# (the bodies of kernels are Triton's language, which has another meaning of range, where and of constants)

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """starts, ends: (batch, row) int32, of each token's document, rows padded to whole descriptors.

    query_order, key_order: (batch, tiles) int32, the tiles of one row of the batch from the longest to the shortest: the
    last programs to start should be short ones.
    """

    starts: Tensor
    ends: Tensor
    query_order: Tensor
    key_order: Tensor


@triton.jit
def _end_of(document, p_row, length, STEPS: tl.constexpr):
    """The first position whose document starts after `document`: a binary search in a row of document starts."""
    low = document * 0
    high = low + length
    for _ in tl.static_range(STEPS):
        middle = (low + high) // 2
        within = tl.minimum(middle, length - 1)
        after = tl.load(p_row + within) > document
        searching = low < high
        high = tl.where(searching & after, middle, high)
        low = tl.where(searching & (after == 0), middle + 1, low)
    return low


@triton.jit(do_not_specialize=["length", "row"])
def attention_schedule_kernel(
    p_document, p_starts, p_ends, p_query_order, p_key_order, length, row, query_tiles, key_tiles, stride, window,
    CAUSAL: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, TILES: tl.constexpr, STEPS: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """Grid (2 + tokens / BT, batch): programs 0 and 1 order the tiles of queries and keys, the others find documents' ends."""
    i_t, i_b = tl.program_id(0), tl.program_id(1)
    p_row = p_document + i_b.to(tl.int64) * stride
    if i_t >= 2:
        token = (i_t - 2) * BT + tl.arange(0, BT)
        start = tl.load(p_row + token, mask=token < length, other=0)
        end = _end_of(start, p_row, length, STEPS)
        out = i_b.to(tl.int64) * row + token
        tl.store(p_starts + out, start, mask=token < row)
        tl.store(p_ends + out, end, mask=token < row)
    else:
        tile = tl.arange(0, TILES)
        size = tl.where(i_t == 0, BQ, BK)
        tiles = tl.where(i_t == 0, query_tiles, key_tiles)
        top = tl.minimum(tile * size, length - 1)
        bottom = tl.minimum(tile * size + size, length) - 1
        bottom = tl.maximum(bottom, top)
        first = tl.load(p_row + top)
        last = _end_of(tl.load(p_row + bottom), p_row, length, STEPS)
        if CAUSAL:  # a query looks back to its document's start, a key is seen to its document's end
            first = tl.where(i_t == 0, first, top)
            last = tl.where(i_t == 0, bottom + 1, last)
        first = tl.maximum(first, top - window + 1)
        last = tl.minimum(last, bottom + window)
        work = tl.where(tile < tiles, last - first, -1)
        # Longest first; tiles of equal length in order, so that the schedule is the same each time.
        keys = (work.to(tl.int64) << 32) | (TILES - 1 - tile).to(tl.int64)
        order = TILES - 1 - (tl.sort(keys, descending=True) & 0xFFFFFFFF).to(tl.int32)
        if i_t == 0:
            tl.store(p_query_order + i_b * query_tiles + tile, order, mask=tile < tiles)
        else:
            tl.store(p_key_order + i_b * key_tiles + tile, order, mask=tile < tiles)


def schedule(document_starts: Tensor, causal: bool, window: int, query_tile: int, key_tile: int) -> Schedule:
    """document_starts: (batch, length) int32; tiles of so many queries and keys. window: 0 for none."""
    batch, length = document_starts.shape
    row = -(-length // 16) * 16
    query_tiles, key_tiles = -(-length // query_tile), -(-length // key_tile)
    empty = document_starts.new_empty
    made = Schedule(empty(batch, row), empty(batch, row), empty(batch, query_tiles), empty(batch, key_tiles))
    block = 256
    if document_starts.stride(1) != 1:
        document_starts = document_starts.contiguous()
    kernel: Any = attention_schedule_kernel
    kernel[(2 + triton.cdiv(row, block), batch)](
        document_starts, made.starts, made.ends, made.query_order, made.key_order,
        length, row, query_tiles, key_tiles, document_starts.stride(0), window or length,
        CAUSAL=causal, BQ=query_tile, BK=key_tile, TILES=max(2, int(triton.next_power_of_2(max(query_tiles, key_tiles)))),
        STEPS=length.bit_length() + 1, BT=block, num_warps=4,
    )  # fmt: skip
    return made
