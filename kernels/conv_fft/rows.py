"""The rows that kernels convolve: a table of where each begins and how long it is, for whole rows and for packed documents.

Documents are independent rows, each with transforms by its own length: nothing of one reaches another. They are sorted by
transform length on the device, without synchronisation with the host.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.conv_fft.transforms import FORWARD

# Documents of more samples than the first number, up to the second, are convolved in blocks of the third where filters are
# causal (see `kernels.conv_fft.triton_blocks`); all others are rows of a power of two.
BLOCKS = ((4096, 32768, 2048), (32768, 65536, 4096))
# Tokens of a program that makes the table of documents.
_TOKENS = 1024


@dataclass(frozen=True)
class Rows:
    """A row is a frame of samples, of which those from `shift` on are its own: zeros stand for the others.

    first: (rows,) int64, offset of each frame's first sample in channel 0. shift, length: (rows,) int32, where in the frame the
    row begins and ends. count: (classes + 1,) int32, where each length class begins in the table. longest, most: by class, the
    longest frame and how many rows there can be. aligned: frames begin at multiples of 8 samples, so that they are read
    eight at a time. full: rows are whole, and exactly as long as `longest`. blocks: by class, the samples of a block where its
    rows are convolved block by block, else 0. frame: no frame is longer.
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


@functools.lru_cache(maxsize=64)
def whole_rows(batch: int, channels: int, length: int, device: torch.device) -> Rows:
    """Each row of a (batch, channels, length) tensor, whole."""
    # Made on the host: what one stream's kernels fill could be read by another stream, which finds it here, before.
    first = (torch.arange(batch, dtype=torch.int64) * (channels * length)).to(device)
    lengths = torch.full((batch,), length, dtype=torch.int32)
    count = torch.tensor([0, batch], dtype=torch.int32).to(device)
    return Rows(
        first,
        torch.zeros_like(lengths).to(device),
        lengths.to(device),
        count,
        (length,),
        (batch,),
        length % 8 == 0,
        True,
        (0,),
        length,
    )


def length_classes(length: int, causal: bool) -> tuple[int, ...]:
    """The longest frame of each class, up to the first that holds `length`.

    Powers of two, the smallest transform's points first, but where causal filters' blocks take more together.
    """
    steps = {more: most for more, most, _ in BLOCKS} if causal else {}
    classes = [min(FORWARD)]
    while classes[-1] < length:
        classes.append(steps.get(classes[-1], 1 << classes[-1].bit_length()))
    return tuple(classes)


@functools.lru_cache(maxsize=64)
def _bounds(classes: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(classes, dtype=torch.int32).to(device)


def document_table(starts: Tensor, channels: int, longest: int, causal: bool) -> Tensor:
    """The table of `document_rows` in one int64 tensor: first; then shift, length and count, two int32 in each.

    starts: (batch, length) int32, for each sample where its document starts in its row. causal: the classes are those of causal
    filters. No synchronisation with the host.
    """
    from kernels.conv_fft.triton_table import count_kernel, place_kernel  # this module is of use without Triton

    tokens, length = starts.numel(), starts.shape[1]
    classes = length_classes(_longest_frame(length, longest), causal)
    table = torch.empty(table_size(starts.shape[0], length, longest, causal), dtype=torch.int64, device=starts.device)
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


def table_size(batch: int, length: int, longest: int, causal: bool) -> int:
    """Entries of `document_table`'s tensor."""
    tokens = batch * length
    classes = length_classes(_longest_frame(length, longest), causal)
    return 2 * (tokens + tokens % 2) + len(classes) // 2 + 1


def _longest_frame(length: int, longest: int) -> int:
    """Frames begin up to seven samples before their documents, where rows begin at multiples of eight."""
    return min(longest + 7, length) if length % 8 == 0 else longest


def _columns(table: Tensor, tokens: int, classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    capacity = tokens + tokens % 2
    words = table[capacity:].view(torch.int32)
    return table[:tokens], words[:tokens], words[capacity : capacity + tokens], words[2 * capacity :][: classes + 1]


def document_rows(starts: Tensor, channels: int, longest: int, causal: bool, table: Tensor | None = None) -> Rows:
    """The documents of a (batch, channels, length) tensor, by length class.

    starts: (batch, length) int32, for each sample where its document starts in its row. longest: no document is longer. causal:
    filters have no reverse part. table: what `document_table` made of the same arguments, if it did already.
    """
    batch, length = starts.shape
    if table is None:
        table = document_table(starts, channels, longest, causal)
    frame = _longest_frame(length, longest)
    classes = length_classes(frame, causal)
    first, shift, lengths, count = _columns(table, batch * length, len(classes))
    shortest = (1, *(c - 6 for c in classes[:-1]))
    most = tuple(batch * (length // s) for s in shortest)
    sizes = {most: size for _, most, size in BLOCKS} if causal else {}
    blocks = tuple(sizes.get(c, 0) for c in classes)
    return Rows(first, shift, lengths, count, classes, most, length % 8 == 0, False, blocks, frame)
