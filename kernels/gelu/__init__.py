"""GELU by its tanh approximation (Hendrycks & Gimpel, 2016), as in GPT-2, with the bias before it and its gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.arguments import check_shape, check_tensors
from kernels.differentiation import refuse_double_backward
from kernels.dispatch import interpreted
from kernels.gelu import reference

__all__ = ["gelu"]


def gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """z (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))) / 2 with z = x + bias.

    x: (..., width); bias: (width,), of any floating dtype. Returns a tensor like x. The backward pass reads x and the
    gradient once and sums the bias's gradient on the way, in a fixed order. ValueError on anything else.
    """
    check_tensors("gelu", x=x, bias=bias)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"gelu: x has shape {tuple(x.shape)}; it must be (..., width) with width of at least 1")
    if bias is not None:
        check_shape("gelu", "bias", bias, (x.shape[-1],), "(width,)")
    if not (x.is_cuda or interpreted()) or x.dtype == torch.float64:
        return reference.gelu(x, bias)
    return _gelu(x, bias)


@torch.library.custom_op("menagerie::gelu", mutates_args=())
def _gelu(x: Tensor, bias: Tensor | None) -> Tensor:
    from kernels.gelu import triton

    return triton.gelu(x, bias)


@_gelu.register_fake
def _(x: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("menagerie::gelu_backward", mutates_args=())
def _gelu_backward(dy: Tensor, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """(dx, dbias); dbias is empty without a bias."""
    from kernels.gelu import triton

    return triton.gelu_backward(dy, x, bias)


@_gelu_backward.register_fake
def _(dy: Tensor, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(0) if bias is None else bias.new_empty(bias.shape)


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor | None], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor | None]:
    x, bias = ctx.saved_tensors
    dx, dbias = _gelu_backward(dy, x, bias)
    return dx, None if bias is None else dbias


_gelu.register_autograd(_backward, setup_context=_setup)
refuse_double_backward(_gelu_backward, "gelu")
