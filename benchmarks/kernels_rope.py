"""Rotary positions of queries and keys: against torch.compile, Liger-Kernel (in place) and fla."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kernels.rope import reference, rope

if TYPE_CHECKING:
    from kernels_bench import Bench, Row

BATCH, LENGTH, HEADS, DIM = 4, 4096, 16, 128


def rows(bench: Bench) -> Iterator[Row]:
    from kernels_bench import Row

    shape = (BATCH, LENGTH, HEADS, DIM)
    gradients = [torch.randn(shape, device="cuda", dtype=torch.bfloat16).transpose(1, 2) for _ in range(2)]
    # Leaves, so that nothing of the backward pass runs on the stream where they were made, outside a captured graph.
    q, k = (torch.randn(shape, device="cuda", dtype=torch.bfloat16).transpose(1, 2).requires_grad_() for _ in range(2))
    angle = torch.arange(LENGTH, device="cuda")[None, :, None] * 10_000.0 ** (
        -torch.arange(DIM // 2, device="cuda") / (DIM // 2)
    )
    cos, sin = angle.cos(), angle.sin()

    @torch.compile
    def compiled(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return reference.rope(q, cos, sin), reference.rope(k, cos, sin)

    def fla(q: Tensor, k: Tensor) -> tuple[Tensor, ...]:
        from fla.modules.rotary.ops import rotary_embedding

        narrow = cos[0].bfloat16(), sin[0].bfloat16()  # it takes no other
        return tuple(rotary_embedding(x.transpose(1, 2), *narrow).transpose(1, 2) for x in (q, k))

    def liger(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        from liger_kernel.ops import LigerRopeFunction

        return LigerRopeFunction.apply(q, k, torch.cat([cos, cos], -1), torch.cat([sin, sin], -1))

    def forward(function: Callable[..., Any]) -> Callable[[], Any]:
        return lambda: function(q.detach(), k.detach())

    def both(function: Callable[..., Any]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(function(q, k), [q, k], gradients)

    def ours(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return rope(q, k, cos, sin)

    peers: dict[str, Callable[..., Any]] = {"torch.compile": compiled, "fla": fla, "liger": liger}
    size = q.numel() * q.element_size()
    for direction, wrap, tensors in (("forward", forward, 4), ("forward+backward", both, 8)):
        times = {name: bench.try_time(wrap(peer), graph=True) for name, peer in peers.items()}
        label = f"{BATCH} x {LENGTH}, {HEADS} heads of {DIM}, q and k"
        yield Row("rope", label, direction, bench.bytes_floor(tensors * size), bench.graph_time(wrap(ours)), times)
