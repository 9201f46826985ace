"""RMSNorm (Zhang & Sennrich, 2019) and LayerNorm (Ba et al., 2016), each also fused with the residual addition before it.

Forward: one read of each input and one write of each output. Backward: one read of the gradients and of the sum, one write; the
gradients of weight and biases are summed over rows in registers, then over programs, in a fixed order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.arguments import FLOATS, check_shape, check_tensors
from kernels.dispatch import interpreted
from kernels.norm import operator as _operator  # registers torch.ops.menagerie.norm
from kernels.norm import reference
from kernels.norm.operator import MAX_WIDTH

__all__ = ["MAX_WIDTH", "add_layer_norm", "add_rms_norm", "layer_norm", "rms_norm"]


def rms_norm(x: Tensor, weight: Tensor, *, eps: float = 1e-5, dtype: torch.dtype | None = None) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis.

    x: (..., width); weight: (width,). Returns a tensor of x's shape in `dtype`: by default autocast's where it is on, else x's.
    Statistics are in float32. ValueError on other shapes, dtypes and devices.
    """
    return _norm("rms_norm", x, None, None, weight, None, eps, False, dtype)[0]


def add_rms_norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    *,
    x_bias: Tensor | None = None,
    eps: float = 1e-5,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """RMSNorm of residual + x + x_bias, and that sum.

    x, residual: (..., width), their dtypes may differ; weight, x_bias: (width,). Returns (y, sum), sum in residual's dtype,
    y as rms_norm's. What is normalised is the sum as it was rounded to its dtype. ValueError as in rms_norm.
    """
    return _norm("add_rms_norm", x, residual, x_bias, weight, None, eps, False, dtype)


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, eps: float = 1e-5, dtype: torch.dtype | None = None
) -> Tensor:
    """(x - mean(x)) / sqrt(var(x) + eps) * weight + bias over the last axis, var without Bessel's correction.

    Shapes, dtypes and errors as in rms_norm; bias: (width,).
    """
    return _norm("layer_norm", x, None, None, weight, bias, eps, True, dtype)[0]


def add_layer_norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    x_bias: Tensor | None = None,
    eps: float = 1e-5,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """LayerNorm of residual + x + x_bias, and that sum: as add_rms_norm."""
    return _norm("add_layer_norm", x, residual, x_bias, weight, bias, eps, True, dtype)


def _norm(
    name: str,
    x: Tensor,
    residual: Tensor | None,
    x_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    centred: bool,
    dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor]:
    check_tensors(name, x=x, residual=residual, x_bias=x_bias, weight=weight, bias=bias)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"{name}: x has shape {tuple(x.shape)}; it must be (..., width) with width of at least 1")
    if residual is not None and residual.shape != x.shape:
        raise ValueError(f"{name}: residual has shape {tuple(residual.shape)}; it must be x's {tuple(x.shape)}")
    for what, vector in (("weight", weight), ("bias", bias), ("x_bias", x_bias)):
        if vector is not None:
            check_shape(name, what, vector, (x.shape[-1],), "(width,)")
    if not eps >= 0:
        raise ValueError(f"{name}: eps is {eps}; it must be 0 or more")
    if dtype is not None and dtype not in FLOATS:
        raise ValueError(f"{name}: dtype is {dtype}; the result may be float32, float16, bfloat16 or float64")
    if dtype is None:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) and x.dtype != torch.float64 else x.dtype
    kernel = (x.is_cuda or interpreted()) and x.dtype != torch.float64
    if not kernel or x.shape[-1] > MAX_WIDTH:
        return reference.norm(x, residual, x_bias, weight, bias, eps, centred, dtype)
    y, total, _, _ = _operator.norm(x, residual, x_bias, weight, bias, eps, centred, dtype)
    return y, x if residual is None else total
