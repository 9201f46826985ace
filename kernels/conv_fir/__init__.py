"""Causal depthwise short convolution with bias, SiLU and two gates in one pass, packed documents kept apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.arguments import autocast, check_range, check_same_dtype, check_shape, check_tensors
from kernels.differentiation import refuse_double_backward
from kernels.dispatch import implementation
from kernels.documents import resolve_documents

__all__ = ["conv_fir", "conv_fir_state"]

_LAYOUTS = ("bld", "bdl")
MAX_TAPS = 128
MAX_STATE_TAPS = 2048  # of conv_toeplitz, which goes on from the same state
# CUDA's limit on the second and third axis of a grid.
_GRID = 65535


def conv_fir(
    u: Tensor,
    weight: Tensor,
    *,
    bias: Tensor | None = None,
    silu: bool = False,
    pregate: Tensor | None = None,
    postgate: Tensor | None = None,
    state: Tensor | None = None,
    layout: str = "bld",
    cu_seqlens: Tensor | None = None,
    document_starts: Tensor | None = None,
) -> Tensor:
    """y = postgate * act(bias + sum_j weight[:, j] * (pregate * u)[t - j]), act the identity or SiLU.

    u, pregate, postgate: (batch, length, channels), or (batch, channels, length) with layout="bdl"; float32, float16, bfloat16
    or float64. weight: (channels, taps), 2 <= taps <= 128, by delay: weight[:, 0] multiplies the present token (a torch
    Conv1d's weight is this one flipped: `conv.weight[:, 0].flip(-1)`). bias: (channels,). state: (batch, taps - 1, channels),
    in "bdl" (batch, channels, taps - 1): the gated inputs before the first token, oldest first, as `conv_fir_state` returns
    them. cu_seqlens or document_starts (kernels/documents.py): boundaries that no tap crosses; a row's first document
    continues the state. Returns a dense tensor like u. Sums are kept in float32. Memory: one read of each input, one write.
    Differentiable once in every tensor. ValueError on anything else.
    """
    u, pregate, postgate, state = autocast(u, pregate, postgate, state)  # type: ignore[assignment]
    _check(u, weight, bias, layout, pregate=pregate, postgate=postgate, state=state)
    batch, length = u.shape[0], u.shape[1 if layout == "bld" else 2]
    starts = resolve_documents("conv_fir", cu_seqlens, document_starts, batch, length, u.device)
    return _forward(u, weight, bias, pregate, postgate, state, starts, silu, layout == "bld")


def conv_fir_state(
    u: Tensor,
    taps: int,
    *,
    pregate: Tensor | None = None,
    state: Tensor | None = None,
    layout: str = "bld",
    cu_seqlens: Tensor | None = None,
    document_starts: Tensor | None = None,
) -> Tensor:
    """The state after u: what `conv_fir` needs to go on with the next tokens. Arguments and shape as there; differentiable.

    taps: 2 to 2048, for `conv_toeplitz` too. Only the row's last document leaves a state; taps before its start are zero.
    ValueError on anything else.
    """
    u, pregate, state = autocast(u, pregate, state)  # type: ignore[assignment]
    _check_sequences("conv_fir_state", u, taps, MAX_STATE_TAPS, layout, pregate=pregate, state=state)
    time = 1 if layout == "bld" else 2
    length, keep = u.shape[time], taps - 1
    last = slice(max(length - keep, 0), length)
    index = (slice(None), last) if layout == "bld" else (slice(None), slice(None), last)
    v = u[index] if pregate is None else u[index] * pregate[index]
    starts = resolve_documents("conv_fir_state", cu_seqlens, document_starts, u.shape[0], length, u.device)
    shape = list(u.shape)
    shape[time] = keep
    before = u.new_zeros(shape) if state is None else state
    after = torch.cat([before, v], dim=time).narrow(time, v.shape[time], keep)
    if starts is None or length == 0:
        return after
    position = torch.arange(length - keep, length, device=u.device)
    seen = (position >= starts[:, -1:]) | (starts[:, -1:] == 0)
    return torch.where(seen[:, :, None] if layout == "bld" else seen[:, None, :], after, 0)


def _check_sequences(operator: str, u: Tensor, taps: int, most: int, layout: str, **others: Tensor | None) -> None:
    """u and what is shaped like it; a `state` among the others has taps - 1 tokens."""
    if layout not in _LAYOUTS:
        raise ValueError(
            f'{operator}: layout is {layout!r}; it may be "bld" (batch, length, channels) or "bdl" (batch, channels, length)'
        )
    tensors: dict[str, Any] = {"u": u, **others}
    check_tensors(operator, **tensors)
    check_same_dtype(operator, **tensors)
    axes = "(batch, {}, channels)" if layout == "bld" else "(batch, channels, {})"
    check_shape(operator, "u", u, (None, None, None), axes.format("length"))
    check_range(operator, "taps", taps, 2, most, "conv_toeplitz takes up to 2048, long_conv any number")
    before = list(u.shape)
    before[1 if layout == "bld" else 2] = taps - 1
    for name, tensor in others.items():
        if tensor is not None and name == "state":
            check_shape(operator, name, tensor, before, axes.format("taps - 1"))
        elif tensor is not None:
            check_shape(operator, name, tensor, u.shape, axes.format("length"))


def _check(u: Tensor, weight: Tensor, bias: Tensor | None, layout: str, **others: Tensor | None) -> None:
    check_tensors("conv_fir", u=u, weight=weight, bias=bias)
    check_shape("conv_fir", "weight", weight, (None, None), "(channels, taps)")
    _check_sequences("conv_fir", u, weight.shape[1], MAX_TAPS, layout, **others)
    batch, channels = u.shape[0], u.shape[2 if layout == "bld" else 1]
    check_shape("conv_fir", "weight", weight, (channels, None), "(channels, taps)")
    check_range("conv_fir", "sequences in a batch", batch, 0, _GRID, "split the batch, or join short sequences with cu_seqlens")
    if layout == "bdl":
        check_range("conv_fir", "channels", channels, 0, _GRID, 'split them, or use layout="bld"')
    if bias is not None:
        check_shape("conv_fir", "bias", bias, (channels,), "(channels,)")


@torch.library.custom_op("menagerie::conv_fir", mutates_args=())
def _forward(
    u: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    state: Tensor | None,
    document_starts: Tensor | None,
    silu: bool,
    channels_last: bool,
) -> Tensor:
    return implementation("conv_fir", u).forward(
        u, weight, bias, pregate, postgate, state, document_starts, silu, channels_last
    )


@_forward.register_fake
def _(u: Tensor, *rest: Any) -> Tensor:
    return u.new_empty(u.shape)


@torch.library.custom_op("menagerie::conv_fir_backward", mutates_args=())
def _backward(
    dy: Tensor,
    u: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    state: Tensor | None,
    document_starts: Tensor | None,
    silu: bool,
    channels_last: bool,
) -> list[Tensor]:
    """Gradients of those of u, weight, bias, pregate, postgate and state that are there, in this order."""
    gradients = implementation("conv_fir", u).backward(
        dy, u, weight, bias, pregate, postgate, state, document_starts, silu, channels_last
    )
    return [gradient for gradient in gradients if gradient is not None]


@_backward.register_fake
def _(dy: Tensor, *inputs: Any) -> list[Tensor]:
    return [t.new_empty(t.shape) for t in inputs[:6] if t is not None]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.silu, ctx.channels_last = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    found = iter(_backward(dy, *saved, ctx.silu, ctx.channels_last))
    return (*(None if tensor is None else next(found) for tensor in saved[:6]), None, None, None)


_forward.register_autograd(_differentiate, setup_context=_save)
refuse_double_backward(_backward, "conv_fir")
