"""What decoding is checked with on a real device."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from kernels.decode import decode_attention
from kernels.decode.reference import forward
from kernels.verification import Case


def case(
    name: str,
    dtype: torch.dtype,
    shape: tuple[int, int, int, int, int, int],
    *,
    prefix: int = 0,
    window: int | None = None,
    lengths: tuple[int, ...] | None = None,
) -> Case:
    """shape: batch, heads, KV heads, queries, capacity, head_dim. Beyond its length a cache holds large numbers."""
    batch, heads, groups, queries, capacity, head_dim = shape
    generator = torch.Generator().manual_seed(sum(shape))
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    arguments: dict[str, Tensor | None] = {
        "q": draw(batch, heads, queries, head_dim),
        "k_cache": draw(batch, groups, capacity, head_dim),
        "v_cache": draw(batch, capacity, groups, head_dim).transpose(1, 2),
        "lengths": torch.tensor(lengths, dtype=torch.int32) if lengths else None,
        "prefix_k": draw(groups, prefix, head_dim) if prefix else None,
        "prefix_v": draw(groups, prefix, head_dim) if prefix else None,
    }
    for row, length in enumerate(lengths or ()):
        for cache in ("k_cache", "v_cache"):
            arguments[cache][row, :, length:] = 1e4  # type: ignore[index]
    ours, exact = partial(_outputs, window=window), partial(_exact, window=window)
    return Case("decode", name, ours, exact, arguments, dtype, backward=False)


def cases() -> Iterator[Case]:
    """Groups, several new tokens, lengths from one token to a full cache, a window, prefixes, each head dimension."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        yield case("groups of 4", dtype, (4, 32, 8, 1, 1000, 128), lengths=(1, 517, 64, 1000))
        yield case("5 new tokens", dtype, (3, 8, 2, 5, 300, 64), lengths=(5, 6, 300))
        yield case("window 130", dtype, (2, 4, 4, 2, 700, 96), window=130, lengths=(100, 700))
        yield case("prefix 1000, 40 sequences", dtype, (40, 8, 2, 1, 100, 128), prefix=1000, lengths=tuple(range(1, 41)))
        yield case("prefix 70, 3 new tokens", dtype, (3, 4, 1, 3, 40, 256), prefix=70)
    yield case("one sequence, 32768 keys", torch.bfloat16, (1, 16, 4, 1, 32768, 128))


def _outputs(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    lengths: Tensor | None,
    prefix_k: Tensor | None,
    prefix_v: Tensor | None,
    window: int | None,
) -> tuple[Tensor, Tensor]:
    return decode_attention(q, k_cache, v_cache, lengths, prefix_k=prefix_k, prefix_v=prefix_v, window=window, return_lse=True)


def _exact(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    lengths: Tensor | None,
    prefix_k: Tensor | None,
    prefix_v: Tensor | None,
    window: int | None,
) -> tuple[Tensor, Tensor]:
    return forward(q, k_cache, v_cache, lengths, prefix_k, prefix_v, window or 0, q.shape[3] ** -0.5)
