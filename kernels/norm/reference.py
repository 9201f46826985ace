"""RMSNorm and LayerNorm from their definitions, with the addition before them. Statistics in float32, of float64 in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def norm(
    x: Tensor,
    residual: Tensor | None,
    x_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    centred: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """(y, sum): sum = residual + x + x_bias in residual's dtype (x itself without a residual); y = its norm, in `dtype`."""
    total = x
    if residual is not None:
        total = _wide(x) + _wide(residual)
        if x_bias is not None:
            total = total + x_bias
        total = total.to(residual.dtype)
    wide = _wide(total)
    if centred:
        wide = wide - wide.mean(dim=-1, keepdim=True)
    y = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps) * weight
    return (y if bias is None else y + bias).to(dtype), total


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
