"""SwiGLU: against torch.compile, Liger-Kernel and fla; GPT-2's GELU with its bias against torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kernels.gelu import gelu
from kernels.gelu import reference as gelu_reference
from kernels.swiglu import reference, swiglu

if TYPE_CHECKING:
    from kernels_bench import Bench, Row


def rows(bench: Bench) -> Iterator[Row]:
    gate, up, dy = (torch.randn(16384, 5632, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    packed = torch.cat([gate, up], dim=1).requires_grad_()
    halves = [gate.requires_grad_(), up.requires_grad_()]

    def liger(gate: Tensor, up: Tensor) -> Tensor:
        from liger_kernel.ops import LigerSiLUMulFunction

        return LigerSiLUMulFunction.apply(gate, up)

    def fla(gate: Tensor, up: Tensor) -> Tensor:
        from fla.modules.activations import swiglu

        return swiglu(gate, up)

    def liger_packed(both: Tensor) -> Tensor:
        from liger_kernel.ops import LigerFusedGateUpSiLUMulFunction

        return LigerFusedGateUpSiLUMulFunction.apply(both)

    compiled = torch.compile(reference.swiglu)
    # Liger's backward pass writes over its inputs: it goes last.
    peers: dict[str, Callable[..., Any]] = {"torch.compile": compiled, "fla": fla, "liger": liger}
    yield from _measured(bench, "swiglu", "SwiGLU 16384 x 5632", swiglu, peers, halves, dy, 3, 8)
    peers = {"torch.compile": torch.compile(lambda both: reference.swiglu(both)), "liger": liger_packed}
    yield from _measured(bench, "swiglu", "SwiGLU 16384 x 2 x 5632, packed", swiglu, peers, [packed], dy, 3, 8)
    x, dy = (torch.randn(65536, 3072, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    bias = torch.randn(3072, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    peers = {"torch.compile": torch.compile(gelu_reference.gelu)}
    yield from _measured(bench, "gelu", "bias + GELU 65536 x 3072", gelu, peers, [x.requires_grad_(), bias], dy, 2, 5)


def _measured(
    bench: Bench,
    operator: str,
    shape: str,
    ours: Callable[..., Tensor],
    peers: dict[str, Callable[..., Any]],
    inputs: list[Tensor],
    dy: Tensor,
    forward_tensors: int,
    both_tensors: int,
) -> Iterator[Row]:
    from kernels_bench import Row

    def forward(function: Callable[..., Any]) -> Callable[[], Any]:
        return lambda: function(*inputs)

    def both(function: Callable[..., Any]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(function(*inputs), inputs, dy)

    size = dy.numel() * dy.element_size()
    for direction, wrap, tensors in (("forward", forward, forward_tensors), ("forward+backward", both, both_tensors)):
        measured = bench.graph_time(wrap(ours))
        times = {name: bench.try_time(wrap(peer), graph=True) for name, peer in peers.items()}
        yield Row(operator, shape, direction, bench.bytes_floor(tensors * size), measured, times)
