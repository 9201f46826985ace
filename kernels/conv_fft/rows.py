"""The rows that kernels convolve: a table of where each begins and how long it is, for whole rows and for packed documents.

Documents are independent rows, each with the transform of its own length: nothing of one reaches another. They are sorted by
transform length on the device, without synchronisation with the host.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.conv_fft.transforms import FORWARD


@dataclass(frozen=True)
class Rows:
    """A row is a frame of samples, of which those from `shift` on are its own: zeros stand for the others.

    first: (rows,) int64, offset of each frame's first sample in channel 0. shift, length: (rows,) int32, where in the frame the
    row begins and ends. count: (classes + 1,) int32, where each length class begins in the table. longest, most: by class, the
    longest frame and how many rows there can be. aligned: frames begin at multiples of 8 samples, so that they are read
    eight at a time. full: rows are whole, and exactly as long as `longest`.
    """

    first: Tensor
    shift: Tensor
    length: Tensor
    count: Tensor
    longest: tuple[int, ...]
    most: tuple[int, ...]
    aligned: bool
    full: bool


@functools.lru_cache(maxsize=64)
def whole_rows(batch: int, channels: int, length: int, device: torch.device) -> Rows:
    """Each row of a (batch, channels, length) tensor, whole."""
    first = torch.arange(batch, device=device, dtype=torch.int64) * (channels * length)
    lengths = torch.full((batch,), length, device=device, dtype=torch.int32)
    count = torch.tensor([0, batch], dtype=torch.int32).to(device)
    return Rows(first, torch.zeros_like(lengths), lengths, count, (length,), (batch,), length % 8 == 0, True)


def length_classes(length: int) -> tuple[int, ...]:
    """Powers of two, the smallest transform's points first, up to the first that holds `length`."""
    classes = [min(FORWARD)]
    while classes[-1] < length:
        classes.append(2 * classes[-1])
    return tuple(classes)


@functools.lru_cache(maxsize=64)
def _bounds(classes: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(classes[:-1], dtype=torch.int32).to(device)


def document_rows(starts: Tensor, channels: int, longest: int) -> Rows:
    """The documents of a (batch, channels, length) tensor, by length class.

    starts: (batch, length) int32, for each sample where its document starts in its row. longest: no document is longer.
    """
    batch, length = starts.shape
    device = starts.device
    position = torch.arange(length, device=device, dtype=torch.int32)
    begins = starts == position
    # The end of the document that begins at t is the next beginning after t, or the row's end.
    later = torch.where(begins, position, length)
    later = torch.cat([later[:, 1:], later.new_full((batch, 1), length)], dim=1)
    ends = later.flip(1).cummin(dim=1).values.flip(1)
    # The frame: from the multiple of eight before the document, where rows begin at multiples of eight.
    aligned = length % 8 == 0
    shift = position % 8 if aligned else torch.zeros_like(position)
    lengths = (ends - position + shift).to(torch.int32)
    classes = length_classes(min(longest + 7, length) if aligned else longest)
    key = torch.where(begins, torch.bucketize(lengths, _bounds(classes, device)), len(classes)).flatten().to(torch.int32)
    key, order = torch.sort(key, stable=True)
    count = torch.searchsorted(key, torch.arange(len(classes) + 1, device=device, dtype=torch.int32)).to(torch.int32)
    at = order % length
    shift = shift[at]
    first = order // length * (channels * length) + at - shift
    shortest = (1, *(c - 6 for c in classes[:-1]))
    most = tuple(batch * (length // s) for s in shortest)
    return Rows(first, shift, lengths.flatten()[order], count, classes, most, aligned, False)
