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
    half, full = torch.bfloat16, {"causal": False}
    yield case("causal, 128", half, (2, 4, 4, 1000, 1000, 128), deterministic=True)
    yield case("documents, groups of 4, 128", half, (3, 8, 2, 777, 777, 128), documents=True)
    yield case("window 200, 64", half, (1, 2, 2, 1025, 1025, 64), window=200)
    yield case("documents, window 100, full, 64", half, (2, 2, 1, 700, 700, 64), window=100, documents=True, **full)
    yield case("full, 96", half, (1, 2, 2, 513, 513, 96), deterministic=True, **full)
    yield case("documents, 256", half, (2, 2, 2, 400, 400, 256), documents=True)
    yield case("fewer queries than keys, 64", half, (2, 4, 2, 100, 333, 64))
    yield case("more queries than keys, window 50, 64", half, (2, 4, 2, 333, 100, 64), window=50)
    yield case("one token, 128", half, (3, 2, 2, 1, 1, 128), deterministic=True)
    yield case("documents, 8", half, (2, 2, 2, 200, 200, 8), documents=True)
    yield case("large scores, 128", half, (1, 2, 2, 300, 300, 128), size=4.0, deterministic=True)
    yield case("zeros, 128", half, (1, 2, 2, 300, 300, 128), size=0.0, deterministic=True)
    yield case("causal, 64", torch.float16, (2, 4, 4, 1000, 1000, 64), deterministic=True)
    yield case("documents, 64", torch.float32, (2, 2, 2, 400, 400, 64), documents=True)
    yield case("causal, 256", torch.float32, (1, 2, 1, 200, 200, 256), deterministic=True)


def _outputs(q: Tensor, k: Tensor, v: Tensor, document_starts: Tensor | None, **options: Any) -> tuple[Tensor, Tensor]:
    o, lse = attention(q, k, v, document_starts=document_starts, return_lse=True, **options)
    return o, torch.where(lse == -torch.inf, 0.0, lse)


def _exact(
    q: Tensor, k: Tensor, v: Tensor, document_starts: Tensor | None, causal: bool, window: int | None
) -> tuple[Tensor, Tensor]:
    o, lse = forward(q, k, v, document_starts, causal, window or 0, q.shape[3] ** -0.5)
    return o, torch.where(lse == -torch.inf, 0.0, lse)
