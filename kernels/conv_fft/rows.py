"""The rows that kernels convolve: a table of where each begins and how long it is, for whole rows and for packed documents.

Documents are independent rows, each with the transform of its own length: nothing of one reaches another. They are sorted by
transform length on the device, without synchronisation with the host.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.conv_fft.transforms import FORWARD


@dataclass(frozen=True)
class Scheme:
    """How documents of which lengths are convolved; all others are rows of a power of two.

    short: those of up to so many samples by products with Toeplitz matrices, causal filters in bfloat16 only, a multiple of 64
    (see `kernels.conv_fft.triton_short`); 0: none. blocks: those of more samples than the first number, up to the second, in
    blocks of the third, causal filters only (see `kernels.conv_fft.triton_blocks`). frames: how the ends of other documents are
    masked (see `load` and `save_framed` in `kernels.conv_fft.triton_fused`), 1 or 2.
    """

    short: int = 0
    blocks: tuple[tuple[int, int, int], ...] = ()
    frames: int = 1


POWERS_OF_TWO = Scheme()
BY_LENGTH = Scheme(1024, ((4096, 8192, 2048), (8192, 65536, 4096)), 2)
# The one that is used.
SCHEME = POWERS_OF_TWO

# Short documents lie in the table by length in steps of this many samples, so that those of one tile are about as long.
_STEP = 64
# Tokens of a program that makes the table of documents.
_TOKENS = 1024


@dataclass(frozen=True)
class Rows:
    """A row is a frame of samples, of which those from `shift` on are its own: zeros stand for the others.

    first: (rows,) int64, offset of each frame's first sample in channel 0. shift, length: (rows,) int32, where in the frame the
    row begins and ends. count: (classes + 1,) int32, where each length class begins in the table. longest, most: by class, the
    longest frame and how many rows there can be. aligned: frames begin at multiples of 8 samples, so that they are read
    eight at a time. full: rows are whole, and exactly as long as `longest`. blocks: by class, the samples of a block where its
    rows are convolved block by block, else 0. frame: no frame is longer. short: whether the first class is that of short
    documents; its rows begin the table, and `count` begins with another number.
    """

    first: Tensor
    shift: Tensor
    length: Tensor
    count: Tensor
    longest: tuple[int, ...]
    most: tuple[int, ...]
    aligned: bool
    full: bool
    blocks: tuple[int, ...]
    frame: int
    short: bool


@functools.lru_cache(maxsize=64)
def whole_rows(batch: int, channels: int, length: int, device: torch.device) -> Rows:
    """Each row of a (batch, channels, length) tensor, whole."""
    first = torch.arange(batch, device=device, dtype=torch.int64) * (channels * length)
    lengths = torch.full((batch,), length, device=device, dtype=torch.int32)
    count = torch.tensor([0, batch], dtype=torch.int32).to(device)
    return Rows(
        first, torch.zeros_like(lengths), lengths, count, (length,), (batch,), length % 8 == 0, True, (0,), length, False
    )


def table_kind(dtype: torch.dtype, causal: bool, length: int) -> int:
    """Which classes a table has: 0: those that any filter takes, 1: with blocks, for causal ones, 2: with short ones too.

    Short ones where rows begin at multiples of eight samples: single samples would take more registers than there are.
    """
    return int(causal) * (2 if dtype == torch.bfloat16 and length % 8 == 0 else 1)


def length_classes(length: int, kind: int = 0) -> tuple[int, ...]:
    """The longest frame of each class, up to the first that holds `length`.

    Powers of two, the smallest transform's points first, but where the scheme takes more together.
    """
    steps = {more: most for more, most, _ in SCHEME.blocks} if kind else {}
    classes = [SCHEME.short if kind == 2 and SCHEME.short else min(FORWARD)]
    while classes[-1] < length:
        classes.append(steps.get(classes[-1], 1 << classes[-1].bit_length()))
    return tuple(classes)


def _divided(classes: tuple[int, ...], kind: int) -> tuple[int, ...]:
    """The classes as they are counted: with a class for each step of short documents."""
    return (*range(_STEP, SCHEME.short, _STEP), *classes) if kind == 2 else classes


@functools.lru_cache(maxsize=64)
def _bounds(classes: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(classes, dtype=torch.int32).to(device)


def document_table(starts: Tensor, channels: int, longest: int, kind: int = 0) -> Tensor:
    """The table of `document_rows` in one int64 tensor: first; then shift, length and count, two int32 in each.

    starts: (batch, length) int32, for each sample where its document starts in its row. No synchronisation with the host.
    """
    from kernels.conv_fft.triton_table import count_kernel, place_kernel  # this module is of use without Triton

    tokens, length = starts.numel(), starts.shape[1]
    classes = _divided(length_classes(_longest_frame(length, longest), kind), kind)
    table = torch.empty(table_size(*starts.shape, longest, kind), dtype=torch.int64, device=starts.device)
    first, shift, lengths, count = _columns(table, tokens, len(classes))
    blocks = math.ceil(tokens / _TOKENS)
    parts = torch.empty((len(classes), blocks), dtype=torch.int32, device=starts.device)
    bounds = _bounds(classes, starts.device)
    constants = {"BLOCK": _TOKENS, "CLASSES": len(classes), "ALIGNED": length % 8 == 0}
    starts = starts.contiguous()
    with torch.cuda.device_of(starts):
        count_kernel[(blocks,)](starts, bounds, parts, tokens, length, **constants)
        place_kernel[(blocks,)](starts, bounds, parts, first, shift, lengths, count, tokens, length, channels, **constants)
    return table


def table_size(batch: int, length: int, longest: int, kind: int) -> int:
    """Entries of `document_table`'s tensor."""
    tokens = batch * length
    classes = _divided(length_classes(_longest_frame(length, longest), kind), kind)
    return 2 * (tokens + tokens % 2) + len(classes) // 2 + 1


def _longest_frame(length: int, longest: int) -> int:
    """Frames begin up to seven samples before their documents, where rows begin at multiples of eight."""
    return min(longest + 7, length) if length % 8 == 0 else longest


def _columns(table: Tensor, tokens: int, classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    capacity = tokens + tokens % 2
    words = table[capacity:].view(torch.int32)
    return table[:tokens], words[:tokens], words[capacity : capacity + tokens], words[2 * capacity :][: classes + 1]


def document_rows(starts: Tensor, channels: int, longest: int, table: Tensor | None = None, kind: int = 0) -> Rows:
    """The documents of a (batch, channels, length) tensor, by length class.

    starts: (batch, length) int32, for each sample where its document starts in its row. longest: no document is longer. table:
    what `document_table` made of the same arguments, if it did already. kind: see `table_kind`.
    """
    batch, length = starts.shape
    if table is None:
        table = document_table(starts, channels, longest, kind)
    frame = _longest_frame(length, longest)
    classes = length_classes(frame, kind)
    divided = _divided(classes, kind)
    first, shift, lengths, count = _columns(table, batch * length, len(divided))
    count = count[len(divided) - len(classes) :]
    shortest = (1, *(c - 6 for c in classes[:-1]))
    most = tuple(batch * (length // s) for s in shortest)
    sizes = {most: size for _, most, size in SCHEME.blocks} if kind else {}
    blocks = tuple(sizes.get(c, 0) for c in classes)
    short = kind == 2 and SCHEME.short > 0
    return Rows(first, shift, lengths, count, classes, most, length % 8 == 0, False, blocks, frame, short)
