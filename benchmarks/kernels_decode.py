"""Decoding over long caches against torch's attention, and a shared prefix against decoding without sharing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from kernels_bench import Bench, Row


def rows(bench: Bench) -> Iterator[Row]:
    """bf16, head dimension 128. Steps are replayed from CUDA graphs, as a generation runs them, each over caches of its own,

    so that no cache is in L2 when its turn comes. Floor: each cache and prefix read once.
    """
    from kernels_bench import Row

    from kernels.decode import decode_attention

    for batch, heads, groups, length in ((8, 32, 8, 2048), (8, 32, 8, 4096), (1, 32, 8, 32768), (64, 16, 16, 512)):
        caches = [
            (_draw(batch, heads, 1), _draw(batch, groups, length), _draw(batch, groups, length))
            for _ in range(max(4, (1 << 30) // (512 * batch * groups * length)))
        ]
        size = 2 * caches[0][1].numel() * 2
        ours = _each(bench, [partial(decode_attention, *cache) for cache in caches])
        sdpa = [partial(F.scaled_dot_product_attention, *cache, enable_gqa=heads != groups) for cache in caches]
        yield Row(
            "decode",
            f"{batch} sequences, {heads}/{groups} heads, {length} keys, {size >> 20} MB",
            "forward",
            bench.bytes_floor(size),
            ours,
            {"torch sdpa": _each(bench, sdpa)},
            extra={"of copy bandwidth": size / ours / bench.copy},
        )
    batch, heads, groups, prefix = 64, 32, 8, 8192
    for own in (64, 128, 256):
        steps, copies = [], []
        for turn in range(12):
            q, k, v = _draw(batch, heads, 1), _draw(batch, groups, own), _draw(batch, groups, own)
            pair = {"prefix_k": _draw(groups, prefix), "prefix_v": _draw(groups, prefix)}
            steps.append(partial(decode_attention, q, k, v, **pair))
            if turn < 2:
                whole = [torch.cat([p.expand(batch, -1, -1, -1), x], 2) for p, x in zip(pair.values(), (k, v), strict=True)]
                copies.append(partial(decode_attention, q, *whole))
        yield Row(
            "decode",
            f"prefix {prefix} shared by {batch} sequences of {own}",
            "forward",
            bench.bytes_floor(2 * groups * (batch * own + prefix) * 128 * 2),
            _each(bench, steps),
            {"decode without sharing": _each(bench, copies)},
        )


def _draw(*shape: int) -> Tensor:
    return torch.randn(*shape, 128, device="cuda", dtype=torch.bfloat16)


def _each(bench: Bench, works: Sequence[Callable[[], object]]) -> float:
    """ms of one of the works, all captured in one CUDA graph: the kernels without the host."""
    for work in works:
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for work in works:
            work()
    return bench.time(graph.replay) / len(works)
