"""Attention against cuDNN, FlashAttention-2, FlexAttention and torch's varlen attention: dense, packed documents, a window."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from kernels_bench import Bench, Row

_WINDOW = 1024
Call = Callable[[], Tensor]


def rows(bench: Bench) -> Iterator[Row]:
    """16,384 tokens of hidden size 2048, as FlashAttention's tables have them; useful operations only are counted."""
    for head_dim in (128, 64):
        for length in (4096, 8192, 16384):
            yield from _row(bench, head_dim, length, "causal")
        for mask in ("documents", "window"):
            yield from _row(bench, head_dim, 8192, mask)
    yield from _row(bench, 128, 8192, "documents", groups=4)


def document_starts(batch: int, length: int, mean: float = 1000.0) -> Tensor:
    """(batch, length) int32 of documents of lognormal lengths (sigma 1), the last of each row cut off."""
    generator = torch.Generator().manual_seed(0)
    starts = torch.zeros(batch, length, dtype=torch.int32)
    for row in starts:
        at = 0
        while at < length:
            size = max(1, int(torch.exp(torch.randn((), generator=generator) + math.log(mean) - 0.5)))
            row[at : at + size] = at
            at += size
    return starts


def _row(bench: Bench, head_dim: int, length: int, mask: str, groups: int = 1) -> Iterator[Row]:
    import torch._functorch.config
    from kernels_bench import Row

    from kernels.attention import attention, choose

    torch._functorch.config.donated_buffer = False  # the backward of the compiled peer runs many times
    batch, heads = 16384 // length, 2048 // head_dim

    def draw(heads: int) -> Tensor:
        return torch.randn(batch, length, heads, head_dim, device="cuda", dtype=torch.bfloat16).transpose(1, 2).requires_grad_()

    q, k, v = draw(heads), draw(heads // groups), draw(heads // groups)
    starts = document_starts(batch, length).cuda() if mask == "documents" else None
    window = _WINDOW if mask == "window" else None
    pairs = batch * length * (length + 1) / 2
    if starts is not None:
        pairs = float((torch.arange(length, device="cuda") - starts + 1).double().sum())
    elif window:
        pairs = batch * (length * window - window * (window - 1) / 2)
    operations = 4 * heads * head_dim * pairs
    work = partial(attention, q, k, v, document_starts=starts, window=window, deterministic=True)
    public = choose(q, k, window=window, documents=starts is not None)
    peers = {} if groups > 1 else _peers(mask, q, k, v, starts)
    shape = f"hd{head_dim} {mask} {batch}x{length}" + (f" groups of {groups}" if groups > 1 else "")
    for direction, factor, measure in (("forward", 1.0, _forward), ("backward", 2.5, _backward)):
        ours = bench.time(measure(work, (q, k, v)))
        theirs = {name: bench.try_time(measure(call, inputs)) for name, (call, inputs) in peers.items()}
        extra = {"tflop_per_s": factor * operations / ours / 1e9, "public function calls": public.backend}
        yield Row("attention", shape, direction, bench.operations_floor(factor * operations), ours, theirs, extra=extra)


def _forward(call: Call, inputs: tuple[Tensor, ...]) -> Callable[[], object]:
    return call


def _backward(call: Call, inputs: tuple[Tensor, ...]) -> Callable[[], object]:
    out = call()
    gradient = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, inputs, gradient, retain_graph=True)


def _peers(mask: str, q: Tensor, k: Tensor, v: Tensor, starts: Tensor | None) -> dict[str, tuple[Call, tuple[Tensor, ...]]]:
    from torch.nn.attention import SDPBackend

    if mask == "causal":
        backends = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash-attention 2": SDPBackend.FLASH_ATTENTION}
        return {name: (partial(_sdpa, backend, q, k, v), (q, k, v)) for name, backend in backends.items()}
    return {"flex": (_flex(q, k, v, starts), (q, k, v)), "varlen_attn": _varlen(q, k, v, starts)}


def _sdpa(backend: object, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    from torch.nn.attention import sdpa_kernel

    with sdpa_kernel(backend):  # type: ignore[arg-type]
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def _flex(q: Tensor, k: Tensor, v: Tensor, starts: Tensor | None) -> Call:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    batch, _, length, _ = q.shape

    def seen(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        if starts is None:
            return (query >= key) & (query - key < _WINDOW)
        return (query >= key) & (key >= starts[row, query])

    mask = create_block_mask(seen, batch if starts is not None else None, None, length, length, device="cuda")
    return partial(torch.compile(flex_attention, dynamic=False), q, k, v, block_mask=mask)  # type: ignore[arg-type]


def _varlen(q: Tensor, k: Tensor, v: Tensor, starts: Tensor | None) -> tuple[Call, tuple[Tensor, ...]]:
    from torch.nn.attention.varlen import varlen_attn

    batch, heads, length, head_dim = q.shape
    flat = tuple(x.detach().transpose(1, 2).reshape(-1, heads, head_dim).contiguous().requires_grad_() for x in (q, k, v))
    rows = torch.arange(batch, device="cuda")[:, None] * length
    first = torch.unique(rows if starts is None else starts + rows)
    cu = torch.cat([first, first.new_tensor([batch * length])]).int()
    longest = int((cu[1:] - cu[:-1]).max())
    window = (-1 if starts is not None else _WINDOW - 1, 0)
    return lambda: varlen_attn(*flat, cu, cu, longest, longest, window_size=window), flat  # type: ignore[return-value]
