"""What attention is checked with on a real device."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kernels.attention import attention
from kernels.attention.reference import forward, visible_keys
from kernels.documents import document_starts_of
from kernels.verification import Case

# Lengths of packed documents: of one token, of none, shorter and longer than a tile, and across the rows' ends.
_DOCUMENTS = (1, 0, 5, 300, 127, 129, 64, 1, 1, 511, 3)


def packed(batch: int, length: int) -> Tensor:
    """document_starts (batch, length) of documents of many lengths, repeated until the rows are full."""
    sizes, total = [], 0
    while total < batch * length:
        size = min(_DOCUMENTS[len(sizes) % len(_DOCUMENTS)], batch * length - total)
        sizes.append(size)
        total += size
    return document_starts_of(torch.tensor([0, *sizes]).cumsum(0), batch, length)


def plain(
    q: Tensor, k: Tensor, v: Tensor, document_starts: Tensor | None, causal: bool, window: int | None
) -> tuple[Tensor, Tensor]:
    """The same in torch's own operators, each in the tensors' dtype."""
    group = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    seen = visible_keys(q.shape[2], k.shape[2], document_starts, causal, window or 0, q.device)
    sees = seen.any(-1, keepdim=True)
    scores = (q @ k.transpose(-1, -2) * q.shape[3] ** -0.5).masked_fill(~seen, -1e4)
    return torch.softmax(scores, -1) * sees @ v, torch.logsumexp(scores.float(), -1) * sees[..., 0]


def case(
    name: str,
    dtype: torch.dtype,
    shape: tuple[int, int, int, int, int, int],
    *,
    causal: bool = True,
    window: int | None = None,
    documents: bool = False,
    size: float = 1.0,
    **options: Any,
) -> Case:
    """shape: batch, heads, KV heads, queries, keys, head_dim; size: of q and k. The log-sum-exp is checked too."""
    batch, heads, groups, queries, keys, head_dim = shape
    generator = torch.Generator().manual_seed(sum(shape))
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    starts = packed(batch, queries) if documents else None
    arguments = {
        "q": size * draw(batch, queries, heads, head_dim).transpose(1, 2),
        "k": size * draw(batch, groups, keys, head_dim),
        "v": draw(batch, keys, groups, head_dim).transpose(1, 2),
        "document_starts": starts,
    }
    chosen = {"causal": causal, "window": window}
    return Case(
        "attention",
        name,
        partial(_outputs, **chosen, **options),
        partial(_exact, **chosen),
        arguments,
        dtype,
        plain=partial(plain, **chosen),
    )


def cases() -> Iterator[Case]:
    """Every head dimension and mask, odd lengths, groups, fewer queries than keys and more, one token, large numbers."""
    for dtype in (torch.bfloat16, torch.float16):
        for head_dim in (64, 96, 128, 256):
            yield case(f"causal, {head_dim}", dtype, (2, 4, 4, 1000, 1000, head_dim), deterministic=True)
            yield case(f"documents, 4 heads a group, {head_dim}", dtype, (3, 8, 2, 777, 777, head_dim), documents=True)
            yield case(f"window 200, {head_dim}", dtype, (1, 2, 2, 1025, 1025, head_dim), window=200)
            both = {"window": 100, "documents": True, "causal": False}
            yield case(f"documents, window 100, full, {head_dim}", dtype, (2, 2, 1, 700, 700, head_dim), **both)
            yield case(f"full, {head_dim}", dtype, (1, 2, 2, 513, 513, head_dim), causal=False, deterministic=True)
    for dtype in (torch.bfloat16, torch.float32):
        yield case("fewer queries than keys", dtype, (2, 4, 2, 100, 333, 64))
        yield case("more queries than keys, window 50", dtype, (2, 4, 2, 333, 100, 64), window=50)
        yield case("one token", dtype, (3, 2, 1, 1, 1, 128), deterministic=True)
        yield case("two tokens, 8", dtype, (3, 3, 3, 2, 2, 8), deterministic=True)
        yield case("large scores", dtype, (1, 2, 2, 300, 300, 64), size=4.0, deterministic=True)
        yield case("zeros", dtype, (1, 2, 2, 300, 300, 64), size=0.0, deterministic=True)
        yield case("documents, 128", dtype, (2, 2, 2, 400, 400, 128), documents=True)


def _outputs(q: Tensor, k: Tensor, v: Tensor, document_starts: Tensor | None, **options: Any) -> tuple[Tensor, Tensor]:
    o, lse = attention(q, k, v, document_starts=document_starts, return_lse=True, **options)
    return o, torch.where(lse == -torch.inf, 0.0, lse)


def _exact(
    q: Tensor, k: Tensor, v: Tensor, document_starts: Tensor | None, causal: bool, window: int | None
) -> tuple[Tensor, Tensor]:
    o, lse = forward(q, k, v, document_starts, causal, window or 0, q.shape[3] ** -0.5)
    return o, torch.where(lse == -torch.inf, 0.0, lse)
