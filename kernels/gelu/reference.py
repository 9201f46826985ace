"""GELU of a biased input, from torch's own."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """GELU of x + bias by its tanh approximation, in x's dtype."""
    return F.gelu(x if bias is None else (x + bias).to(x.dtype), approximate="tanh")
