"""Decoding over long caches against torch's attention, and a shared prefix against decoding without sharing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from kernels_bench import Bench, Row


def rows(bench: Bench) -> Iterator[Row]:
    """bf16, head dimension 128; steps are replayed from CUDA graphs, as a generation runs them. Floor: the cache, read once."""
    from kernels_bench import Row

    from kernels.decode import decode_attention

    for batch, heads, groups, length in ((8, 32, 8, 4096), (1, 32, 8, 32768), (64, 16, 16, 512), (8, 32, 8, 32768)):
        q, k, v = _draw(batch, heads, 1), _draw(batch, groups, length), _draw(batch, groups, length)
        sdpa = partial(F.scaled_dot_product_attention, q, k, v, enable_gqa=True)
        ours = bench.time(_graph(partial(decode_attention, q, k, v)))
        size = 2 * k.numel() * k.element_size()
        yield Row(
            "decode",
            f"{batch} sequences, {heads}/{groups} heads, {length} keys, {size >> 20} MB",
            "forward",
            bench.bytes_floor(size),
            ours,
            {"torch sdpa": bench.try_time(_graph(sdpa))},
            extra={"of copy bandwidth": size / ours / bench.copy},
        )
    batch, heads, groups, prefix = 64, 32, 8, 8192
    for own in (128, 256):
        q, k, v = _draw(batch, heads, 1), _draw(batch, groups, own), _draw(batch, groups, own)
        prefix_k, prefix_v = _draw(groups, prefix), _draw(groups, prefix)
        copied = [torch.cat([p.expand(batch, -1, -1, -1), x], 2) for p, x in ((prefix_k, k), (prefix_v, v))]
        ours = bench.time(_graph(partial(decode_attention, q, k, v, prefix_k=prefix_k, prefix_v=prefix_v)))
        yield Row(
            "decode",
            f"prefix {prefix} shared by {batch} sequences of {own}",
            "forward",
            bench.bytes_floor(2 * (k.numel() + prefix_k.numel()) * k.element_size()),
            ours,
            {"decode without sharing": bench.time(_graph(partial(decode_attention, q, *copied)))},
        )


def _draw(*shape: int) -> Tensor:
    return torch.randn(*shape, 128, device="cuda", dtype=torch.bfloat16)


def _graph(work: Callable[[], object]) -> Callable[[], object]:
    """The work's kernels without the host: captured once, replayed."""
    work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay
