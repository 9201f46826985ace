"""Kernels that do not depend on each other, on streams side by side: the ends of one fill with another."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")

# Streams for the length classes of a batch's documents, the current one included.
STREAMS = 2


def side_by_side(like: Tensor, works: Sequence[Callable[[], Result]]) -> list[Result]:
    """What each of the works returns, launched on streams in turn if `like` is on a GPU.

    The last work is on the current stream, whose memory is the caller's: it is the one to keep most between its kernels. All
    begin after what is on the current stream, which goes on after the last of them. What another work allocates belongs to its
    stream: `used_here` before it is used on the current one.
    """
    if not like.is_cuda or len(works) < 2:
        return [work() for work in works]
    current = torch.cuda.current_stream(like.device)
    streams = _streams(like.device, current.cuda_stream)[: len(works) - 1]
    for stream in streams:
        stream.wait_stream(current)
    turns = itertools.cycle([current, *streams])
    results = []
    try:
        for work in reversed(works):
            with torch.cuda.stream(next(turns)):
                results.append(work())
    finally:  # a work that fails leaves others' kernels behind, which still write
        for stream in streams:
            current.wait_stream(stream)
    return results[::-1]


def used_here(*tensors: Tensor) -> None:
    """The current stream uses tensors of another: their memory is not given away before it has done so."""
    for tensor in tensors:
        if tensor.is_cuda:
            tensor.record_stream(torch.cuda.current_stream(tensor.device))


@functools.lru_cache(maxsize=64)
def _streams(device: torch.device, current: int) -> list[torch.cuda.Stream]:
    """Side streams of a stream. torch has a few of them, which it hands out in turn: others may have the same, and wait."""
    return [torch.cuda.Stream(device) for _ in range(STREAMS - 1)]
