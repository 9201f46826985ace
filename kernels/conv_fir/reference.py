"""Causal depthwise convolution as a sum over taps, in plain torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.differentiation import vjp


def conv_fir(
    u: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pregate: Tensor | None = None,
    postgate: Tensor | None = None,
    state: Tensor | None = None,
    document_starts: Tensor | None = None,
    silu: bool = False,
    channels_last: bool = True,
) -> Tensor:
    """What `kernels.conv_fir.conv_fir` computes, one tap after another; sums of 16-bit inputs in float32."""
    dtype, wide = u.dtype, torch.promote_types(u.dtype, torch.float32)
    weight, bias = weight.to(wide), None if bias is None else bias.to(wide)
    inputs = [None if t is None else t.to(wide) for t in (u, pregate, postgate, state)]
    if channels_last:
        inputs = [None if t is None else t.transpose(1, 2) for t in inputs]
    u, pregate, postgate, state = inputs  # type: ignore[assignment]
    taps, length = weight.shape[1], u.shape[2]
    v = u if pregate is None else u * pregate
    before = v.new_zeros(v.shape[0], v.shape[1], taps - 1) if state is None else state
    padded = torch.cat([before, v], dim=2)
    z = torch.zeros_like(v) if bias is None else bias[None, :, None].expand_as(v)
    time = torch.arange(length, device=u.device)
    for delay in range(taps):
        past = padded[:, :, taps - 1 - delay : taps - 1 - delay + length]
        if document_starts is not None:  # a row's first document goes on from the state
            seen = (document_starts <= time - delay) | (document_starts == 0)
            past = torch.where(seen[:, None, :], past, 0)
        z = z + weight[:, delay][None, :, None] * past
    y = torch.nn.functional.silu(z) if silu else z
    y = y if postgate is None else y * postgate
    return (y.transpose(1, 2) if channels_last else y).contiguous().to(dtype)


forward = conv_fir


def backward(dy: Tensor, *inputs: Any) -> tuple[Tensor | None, ...]:
    """Gradients of the first six of `conv_fir`'s inputs; None for what is not there."""
    return tuple(vjp(conv_fir, inputs, [dy])[:6])
