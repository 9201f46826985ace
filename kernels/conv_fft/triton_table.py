"""The table of documents: which begin where, by length class, in two launches.

A document's last token knows both its ends: where the document starts, which it reads, and where it is itself. So nothing is
scanned: last tokens are counted by block and class, and placed behind those counted before them, in the order of the tokens.
"""

# Triton's decorators hide from type checkers how kernels are launched and what they return.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false
# pyright: reportAssignmentType=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _last_tokens(STARTS, BOUNDS, t, tokens, length, CLASSES: tl.constexpr, ALIGNED: tl.constexpr):
    """Of tokens t: whether each is its document's last, its document's start, shift, frame and length class."""
    inside = t < tokens
    position = t % length
    start = tl.load(STARTS + t, mask=inside, other=0)
    ends = position == length - 1
    after = tl.load(STARTS + t + 1, mask=inside & (ends == 0), other=0)
    last = inside & (ends | (after == position + 1))
    shift = start % 8 if ALIGNED else start * 0
    frame = position + 1 - start + shift
    key = tl.zeros_like(frame)
    for c in tl.static_range(CLASSES - 1):
        key += (frame > tl.load(BOUNDS + c)).to(tl.int32)
    return last, start, shift, frame, key


@triton.jit(do_not_specialize=["tokens", "length"])
def count_kernel(STARTS, BOUNDS, PARTS, tokens, length, BLOCK: tl.constexpr, CLASSES: tl.constexpr, ALIGNED: tl.constexpr):
    """Grid (blocks,): PARTS (CLASSES, blocks), how many documents of each class end in a block of tokens."""
    i_b = tl.program_id(0)
    t = i_b * BLOCK + tl.arange(0, BLOCK)
    last, _, _, _, key = _last_tokens(STARTS, BOUNDS, t, tokens, length, CLASSES, ALIGNED)
    for c in tl.static_range(CLASSES):
        tl.store(PARTS + c * tl.num_programs(0) + i_b, tl.sum((last & (key == c)).to(tl.int32), axis=0))


@triton.jit(do_not_specialize=["tokens", "length", "channels"])
def place_kernel(
    STARTS, BOUNDS, PARTS, FIRST, SHIFT, LENGTH, COUNT, tokens, length, channels,
    BLOCK: tl.constexpr, CLASSES: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """Grid (blocks,): FIRST, SHIFT, LENGTH of the documents that end in a block, and COUNT (CLASSES + 1,)."""
    i_b = tl.program_id(0)
    blocks = tl.num_programs(0)
    t = i_b * BLOCK + tl.arange(0, BLOCK)
    last, start, shift, frame, key = _last_tokens(STARTS, BOUNDS, t, tokens, length, CLASSES, ALIGNED)
    row = (t // length).to(tl.int64)
    first = row * channels * length + (start - shift)
    base = 0
    place = tl.zeros_like(key)
    for c in tl.static_range(CLASSES):
        if i_b == 0:
            tl.store(COUNT + c, base)
        before = tl.zeros((BLOCK,), tl.int32)
        total = tl.zeros((BLOCK,), tl.int32)
        for b in range(0, blocks, BLOCK):
            at = b + tl.arange(0, BLOCK)
            part = tl.load(PARTS + c * blocks + at, mask=at < blocks, other=0)
            total += part
            before += tl.where(at < i_b, part, 0)
        mine = last & (key == c)
        rank = tl.cumsum(mine.to(tl.int32), axis=0) - 1
        place = tl.where(mine, base + tl.sum(before, axis=0) + rank, place)
        base += tl.sum(total, axis=0)
    tl.store(FIRST + place, first, mask=last)
    tl.store(SHIFT + place, shift, mask=last)
    tl.store(LENGTH + place, frame, mask=last)
    if i_b == 0:
        tl.store(COUNT + CLASSES, base)


@triton.jit(do_not_specialize=["WHICH", "limit"])
def zero_tails_kernel(OUT, FIRST, LENGTH, COUNT, WHICH, row_length, limit, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Grid (channels,): zeros for what documents of a class, the last, have beyond `limit` samples of their frames."""
    i_h = tl.program_id(0).to(tl.int64)
    begin = tl.load(COUNT + WHICH)
    end = tl.load(COUNT + WHICH + 1)
    for some in range(begin, end, ROWS):
        r = some + tl.arange(0, ROWS)
        if tl.max(tl.load(LENGTH + r, mask=r < end, other=0), axis=0) > limit:
            for one in range(some, tl.minimum(some + ROWS, end)):
                length = tl.load(LENGTH + one)
                p_frame = OUT + tl.load(FIRST + one) + i_h * row_length
                for at in range(limit, length, BLOCK):
                    t = at + tl.arange(0, BLOCK)
                    tl.store(p_frame + t, tl.zeros((BLOCK,), OUT.dtype.element_ty), mask=t < length)
