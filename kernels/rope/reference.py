"""Rotary positions from their definition."""

from __future__ import annotations

import torch
from torch import Tensor


def rope(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False, inverse: bool = False) -> Tensor:
    """x (batch, heads, length, dim) with its first 2 * half components rotated; cos, sin: (batch or 1, length, half)."""
    half = cos.shape[-1]
    wide = x if x.dtype == torch.float64 else x.float()
    cos, sin = cos[:, None], (-sin if inverse else sin)[:, None]
    turned, rest = wide[..., : 2 * half], x[..., 2 * half :]
    a, b = (turned[..., 0::2], turned[..., 1::2]) if interleaved else turned.chunk(2, dim=-1)
    pair = a * cos - b * sin, b * cos + a * sin
    out = torch.stack(pair, dim=-1).flatten(-2) if interleaved else torch.cat(pair, dim=-1)
    out = out.to(x.dtype)
    return torch.cat([out, rest], dim=-1) if rest.shape[-1] else out
