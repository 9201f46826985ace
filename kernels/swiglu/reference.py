"""SwiGLU from its definition."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def swiglu(gate: Tensor, up: Tensor | None = None) -> Tensor:
    """silu(gate) * up; without `up`, gate holds both halves along its last axis. In the inputs' dtype, as torch computes it."""
    if up is None:
        gate, up = gate.chunk(2, dim=-1)
    return F.silu(gate) * up
