"""Causal FIR convolution with filters that groups of channels share, in plain torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.conv_fir.reference import conv_fir
from kernels.differentiation import vjp


def conv_toeplitz(
    u: Tensor,
    filter: Tensor,
    bias: Tensor | None = None,
    pregate: Tensor | None = None,
    postgate: Tensor | None = None,
    state: Tensor | None = None,
    document_starts: Tensor | None = None,
    silu: bool = False,
) -> Tensor:
    """What `kernels.conv_toeplitz.conv_toeplitz` computes, one tap after another."""
    weight = filter.repeat_interleave(u.shape[1] // max(filter.shape[0], 1), dim=0)
    return conv_fir(u, weight, bias, pregate, postgate, state, document_starts, silu, channels_last=False)


forward = conv_toeplitz


def backward(dy: Tensor, *inputs: Any) -> tuple[Tensor | None, ...]:
    """Gradients of the first six of `conv_toeplitz`'s inputs; None for what is not there."""
    return tuple(vjp(conv_toeplitz, inputs, [dy])[:6])


def segments_of(document_starts: Tensor, chunk: int) -> Tensor:
    """(batch, length) int32: how many documents begin between the first token of a token's chunk and it."""
    batch, length = document_starts.shape
    position = torch.arange(length, device=document_starts.device)
    begins = ((document_starts == position) & (position % chunk != 0)).to(torch.int32)
    padded = torch.nn.functional.pad(begins, (0, -length % chunk))
    return padded.view(batch, -1, chunk).cumsum(2, dtype=torch.int32).view(batch, -1)[:, :length].contiguous()
