"""RMSNorm with and without the residual addition, LayerNorm: against torch.compile, Liger-Kernel and fla."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.norm import add_layer_norm, add_rms_norm, rms_norm

if TYPE_CHECKING:
    from kernels_bench import Bench, Row

TOKENS = 16384


def rows(bench: Bench) -> Iterator[Row]:
    for width in (2048, 8192):
        yield from _rms(bench, width)
        yield from _add_rms(bench, width)
    yield from _layer_norm(bench, 768, 4 * TOKENS)


def _rms(bench: Bench, width: int) -> Iterator[Row]:
    x, weight, dy = _tensors(TOKENS, width)

    def compiled(x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (width,), weight, 1e-5)

    def liger(x: Tensor, weight: Tensor) -> Tensor:
        from liger_kernel.ops import LigerRMSNormFunction

        return LigerRMSNormFunction.apply(x, weight, 1e-5, 0.0, "llama", False)

    def fla(x: Tensor, weight: Tensor) -> Tensor:
        from fla.modules.norm.layernorm import rms_norm

        return rms_norm(x, weight, None, eps=1e-5)

    peers = {"torch.compile": torch.compile(compiled), "liger": liger, "fla": fla}
    yield from _measured(bench, f"RMSNorm {TOKENS} x {width}", rms_norm, peers, [x, weight], [dy], 2, 5)


def _add_rms(bench: Bench, width: int) -> Iterator[Row]:
    x, weight, dy = _tensors(TOKENS, width)
    residual, dsum = x.detach().clone().requires_grad_(), dy.clone()

    def ours(x: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return add_rms_norm(x, residual, weight)

    def compiled(x: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        total = x + residual
        return F.rms_norm(total, (width,), weight, 1e-5), total

    def liger(x: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        from liger_kernel.ops import LigerFusedAddRMSNormFunction

        return LigerFusedAddRMSNormFunction.apply(x, residual, weight, 1e-5, 0.0, "llama", False)

    def fla(x: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        from fla.modules.norm.layernorm import rms_norm

        return rms_norm(x, weight, None, residual=residual, prenorm=True)

    peers = {"torch.compile": torch.compile(compiled), "liger": liger, "fla": fla}
    shape = f"add + RMSNorm {TOKENS} x {width}"
    yield from _measured(bench, shape, ours, peers, [x, residual, weight], [dy, dsum], 4, 8)


def _layer_norm(bench: Bench, width: int, tokens: int) -> Iterator[Row]:
    x, weight, dy = _tensors(tokens, width)
    residual, dsum = x.detach().clone().requires_grad_(), dy.clone()
    bias = torch.randn(width, device="cuda", dtype=torch.bfloat16, requires_grad=True)

    def ours(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        return add_layer_norm(x, residual, weight, bias)

    def compiled(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        total = x + residual
        return F.layer_norm(total, (width,), weight, bias, 1e-5), total

    def fla(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        from fla.modules.norm.layernorm import layer_norm

        return layer_norm(x, weight, bias, residual=residual, prenorm=True)

    shape = f"add + LayerNorm {tokens} x {width}"
    peers = {"torch.compile": torch.compile(compiled), "fla": fla}
    yield from _measured(bench, shape, ours, peers, [x, residual, weight, bias], [dy, dsum], 4, 8)


def _tensors(tokens: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    x, dy = (torch.randn(tokens, width, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    weight = torch.randn(width, device="cuda", dtype=torch.bfloat16)
    return x.requires_grad_(), weight.requires_grad_(), dy


def _measured(
    bench: Bench,
    shape: str,
    ours: Callable[..., Any],
    peers: dict[str, Callable[..., Any]],
    inputs: list[Tensor],
    gradients: list[Tensor],
    forward_tensors: int,
    both_tensors: int,
) -> Iterator[Row]:
    """Forward, and forward and backward; the floor: each tensor of the input's size once."""
    from kernels_bench import Row

    def forward(function: Callable[..., Any]) -> Callable[[], Any]:
        return lambda: function(*inputs)

    def both(function: Callable[..., Any]) -> Callable[[], Any]:
        def work() -> Any:
            out = function(*inputs)
            return torch.autograd.grad([out] if isinstance(out, Tensor) else list(out), inputs, gradients)

        return work

    size = inputs[0].numel() * inputs[0].element_size()
    for direction, wrap, tensors in (("forward", forward, forward_tensors), ("forward+backward", both, both_tensors)):
        times = {name: bench.try_time(wrap(peer), graph=True) for name, peer in peers.items()}
        yield Row("norm", shape, direction, bench.bytes_floor(tensors * size), bench.graph_time(wrap(ours)), times)
