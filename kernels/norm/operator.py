"""torch.ops.menagerie.norm and its gradient: what torch.compile and autograd see."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.differentiation import refuse_double_backward

# Rows wider than this do not fit the registers of one program's backward pass.
MAX_WIDTH = 8192


@torch.library.custom_op("menagerie::norm", mutates_args=())
def norm(
    x: Tensor,
    residual: Tensor | None,
    x_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    centred: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(y, sum, mean, 1 / deviation); sum is empty without a residual, mean unless centred."""
    from kernels.norm import triton

    return triton.norm(x, residual, x_bias, weight, bias, eps, centred, dtype)


@norm.register_fake
def _(
    x: Tensor,
    residual: Tensor | None,
    x_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    centred: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = x.numel() // x.shape[-1]
    total = x.new_empty(0) if residual is None else x.new_empty(x.shape, dtype=residual.dtype)
    statistics = x.new_empty(rows, dtype=torch.float32)
    mean = torch.empty_like(statistics) if centred else statistics.new_empty(0)
    return x.new_empty(x.shape, dtype=dtype), total, mean, statistics


@torch.library.custom_op("menagerie::norm_backward", mutates_args=())
def norm_backward(
    dy: Tensor,
    dsum: Tensor | None,
    total: Tensor,
    weight: Tensor,
    mean: Tensor,
    rstd: Tensor,
    x_dtype: torch.dtype,
    centred: bool,
    has_bias: bool,
    has_x_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(dsum in total's dtype, the same in x's dtype or empty where that is total's, dweight, dbias, dx_bias)."""
    from kernels.norm import triton

    return triton.norm_backward(dy, dsum, total, weight, mean, rstd, x_dtype, centred, has_bias, has_x_bias)


@norm_backward.register_fake
def _(
    dy: Tensor,
    dsum: Tensor | None,
    total: Tensor,
    weight: Tensor,
    mean: Tensor,
    rstd: Tensor,
    x_dtype: torch.dtype,
    centred: bool,
    has_bias: bool,
    has_x_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    narrow = total.new_empty(total.shape if x_dtype != total.dtype else 0, dtype=x_dtype)
    dbias, dx_bias = (weight.new_empty(weight.shape if has else 0) for has in (has_bias, has_x_bias))
    return total.new_empty(total.shape), narrow, torch.empty_like(weight), dbias, dx_bias


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, residual, x_bias, weight, bias, _, centred, _ = inputs
    _, total, mean, rstd = output
    ctx.save_for_backward(x if residual is None else total, weight, mean, rstd)
    ctx.x_dtype, ctx.centred = x.dtype, centred
    ctx.has_residual = residual is not None
    ctx.bias_dtype, ctx.x_bias_dtype = (None if v is None else v.dtype for v in (bias, x_bias))
    ctx.mark_non_differentiable(mean, rstd, *([total] if residual is None else []))
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dy: Tensor | None, dsum: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    total, weight, mean, rstd = ctx.saved_tensors
    if dy is None:  # only the sum was used
        assert dsum is not None
        dx_bias = None if ctx.x_bias_dtype is None else dsum.flatten(0, -2).sum(0, dtype=torch.float32).to(ctx.x_bias_dtype)
        return dsum.to(ctx.x_dtype), dsum, dx_bias, None, None, None, None, None
    dtotal, narrow, dweight, dbias, dx_bias = norm_backward(
        dy, dsum, total, weight, mean, rstd, ctx.x_dtype, ctx.centred, ctx.bias_dtype is not None, ctx.x_bias_dtype is not None
    )
    return (
        dtotal if ctx.x_dtype == dtotal.dtype else narrow,
        dtotal if ctx.has_residual else None,
        None if ctx.x_bias_dtype is None else dx_bias.to(ctx.x_bias_dtype),
        dweight,
        None if ctx.bias_dtype is None else dbias.to(ctx.bias_dtype),
        None,
        None,
        None,
    )


norm.register_autograd(_backward, setup_context=_setup)
refuse_double_backward(norm_backward, "norm")
