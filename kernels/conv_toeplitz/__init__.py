"""Causal FIR convolution with up to 2048 taps as Toeplitz products on the tensor cores; packed documents kept apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.arguments import autocast, check_range, check_same_dtype, check_shape, check_tensors
from kernels.differentiation import refuse_double_backward
from kernels.dispatch import implementation
from kernels.documents import resolve_documents

__all__ = ["MAX_TAPS", "conv_toeplitz"]

MAX_TAPS = 2048


def conv_toeplitz(
    u: Tensor,
    filter: Tensor,
    *,
    bias: Tensor | None = None,
    silu: bool = False,
    pregate: Tensor | None = None,
    postgate: Tensor | None = None,
    state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    document_starts: Tensor | None = None,
) -> Tensor:
    """y = postgate * act(bias + sum_j filter[:, j] * (pregate * u)[t - j]), act the identity or SiLU.

    u, pregate, postgate: (batch, channels, length) in float32, float16, bfloat16 or float64. filter: (filters, taps), 2 <=
    taps <= 2048; channels is a multiple of filters, and channel c uses filter c // (channels // filters). bias: (channels,).
    state: (batch, channels, taps - 1), the gated inputs before the first token, oldest first (`conv_fir_state(...,
    layout="bdl")` makes it). cu_seqlens or document_starts (kernels/documents.py): boundaries that no tap crosses. Returns a
    dense tensor like u.

    Products take the filter in u's dtype and sum in float32 (float32: three tf32 products). Differentiable once in every
    tensor. Up to 129 taps one read of u from memory and one write (StripedHyena 2, Ku et al. 2025, section 3.2: two-stage
    blocked convolution); beyond, operations: 2 (taps / 128 + 1) 128 per sample. ValueError on anything else.
    """
    u, pregate, postgate, state = autocast(u, pregate, postgate, state)  # type: ignore[assignment]
    check_tensors("conv_toeplitz", u=u, filter=filter, bias=bias, pregate=pregate, postgate=postgate, state=state)
    check_shape("conv_toeplitz", "u", u, (None, None, None), "(batch, channels, length)")
    check_shape("conv_toeplitz", "filter", filter, (None, None), "(filters, taps)")
    check_range("conv_toeplitz", "taps", filter.shape[1], 2, MAX_TAPS, "conv_fft takes longer filters, long_conv any length")
    if not filter.shape[0] or u.shape[1] % filter.shape[0]:
        raise ValueError(
            f"conv_toeplitz: {u.shape[1]} channels and {filter.shape[0]} filters; "
            "channels must be a multiple of filters, so that each filter serves a group"
        )
    check_same_dtype("conv_toeplitz", u=u, pregate=pregate, postgate=postgate, state=state)
    for name, gate in (("pregate", pregate), ("postgate", postgate)):
        if gate is not None:
            check_shape("conv_toeplitz", name, gate, u.shape, "(batch, channels, length)")
    if bias is not None:
        check_shape("conv_toeplitz", "bias", bias, (u.shape[1],), "(channels,)")
    if state is not None:
        expected = (u.shape[0], u.shape[1], filter.shape[1] - 1)
        check_shape("conv_toeplitz", "state", state, expected, "(batch, channels, taps - 1)")
    starts = resolve_documents("conv_toeplitz", cu_seqlens, document_starts, u.shape[0], u.shape[2], u.device)
    return _forward(u, filter, bias, pregate, postgate, state, starts, silu)


@torch.library.custom_op("menagerie::conv_toeplitz", mutates_args=())
def _forward(
    u: Tensor,
    filter: Tensor,
    bias: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    state: Tensor | None,
    document_starts: Tensor | None,
    silu: bool,
) -> Tensor:
    return implementation("conv_toeplitz", u).forward(u, filter, bias, pregate, postgate, state, document_starts, silu)


@_forward.register_fake
def _(u: Tensor, *rest: Any) -> Tensor:
    return u.new_empty(u.shape)


@torch.library.custom_op("menagerie::conv_toeplitz_backward", mutates_args=())
def _backward(
    dy: Tensor,
    u: Tensor,
    filter: Tensor,
    bias: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    state: Tensor | None,
    document_starts: Tensor | None,
    silu: bool,
) -> list[Tensor]:
    """Gradients of those of u, filter, bias, pregate, postgate and state that are there, in this order."""
    gradients = implementation("conv_toeplitz", u).backward(
        dy, u, filter, bias, pregate, postgate, state, document_starts, silu
    )
    return [gradient for gradient in gradients if gradient is not None]


@_backward.register_fake
def _(dy: Tensor, *inputs: Any) -> list[Tensor]:
    return [t.new_empty(t.shape) for t in inputs[:6] if t is not None]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.silu = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    found = iter(_backward(dy, *saved, ctx.silu))
    return (*(None if tensor is None else next(found) for tensor in saved[:6]), None, None)


_forward.register_autograd(_differentiate, setup_context=_save)
refuse_double_backward(_backward, "conv_toeplitz")
