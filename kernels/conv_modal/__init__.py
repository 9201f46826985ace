"""Convolution with filters that are sums of exponentials: the chunked modal scan, its filters, and its recurrence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.arguments import autocast, check_is_tensor, check_same_dtype, check_shape, check_tensors
from kernels.conv_modal.inputs import DIFFERENTIABLE, SCHEMA, Inputs
from kernels.differentiation import refuse_double_backward
from kernels.dispatch import implementation
from kernels.documents import resolve_documents

__all__ = ["MAX_MODES", "conv_modal", "conv_modal_state", "conv_modal_step", "modal_filter"]

MAX_MODES = 64
_MODE_DTYPES = (torch.float32, torch.float64)


def conv_modal(
    u: Tensor,
    decay: Tensor,
    frequency: Tensor,
    residue: Tensor,
    *,
    skip: Tensor | None = None,
    pregate: Tensor | None = None,
    postgate: Tensor | None = None,
    state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    document_starts: Tensor | None = None,
) -> Tensor:
    """y = postgate * (k * v + skip v), v = pregate * u, k[t] = sum_n Re(r_n exp((decay_n + i frequency_n) t)), causal.

    u, pregate, postgate: (batch, channels, length) in float32, float16, bfloat16 or float64. decay (<= 0, per token),
    frequency (radians per token): (channels, modes), modes <= 64, float32 or float64; residue: (channels, modes, 2), real and
    imaginary parts. A filter of conjugate pairs (S4D, Gu et al. 2022) has twice the residue of one of each pair. skip:
    (channels,). state: (batch, channels, modes, 2) float32, the modes' states x_n after the token before the first, as
    `conv_modal_state` and `conv_modal_step` return them. cu_seqlens or document_starts (kernels/documents.py): boundaries that
    nothing crosses; a row's first document goes on from the state. Returns a dense tensor like u.

    One read of u and the gates and one write, at every length: chunks of 64 tokens are products on the tensor cores, with
    operands in u's dtype, and modes' states pass from chunk to chunk in float32 (H3, Fu et al. 2023, section 4.2: state
    passing; LaughingHyena, Massaroli et al. 2023: modal form). Differentiable once in every tensor. ValueError on anything
    else.
    """
    inputs = Inputs(u, decay, frequency, residue, skip, pregate, postgate, state, document_starts)
    return _call(inputs, cu_seqlens, False)[0]


def conv_modal_state(
    u: Tensor,
    decay: Tensor,
    frequency: Tensor,
    residue: Tensor,
    *,
    skip: Tensor | None = None,
    pregate: Tensor | None = None,
    postgate: Tensor | None = None,
    state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    document_starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`conv_modal`'s output and the state after the last token, (batch, channels, modes, 2): the next call's or step's `state`.

    The state has no gradient: sequences that are trained through whole go through one call, of any length.
    """
    inputs = Inputs(u, decay, frequency, residue, skip, pregate, postgate, state, document_starts)
    return _call(inputs, cu_seqlens, True)


def conv_modal_step(
    u: Tensor,
    decay: Tensor,
    frequency: Tensor,
    residue: Tensor,
    state: Tensor,
    *,
    skip: Tensor | None = None,
    pregate: Tensor | None = None,
    postgate: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One token of `conv_modal` as a recurrence, x = pole x + v, y = Re sum_n r_n x_n: the same numbers, O(modes) per channel.

    u, pregate, postgate: (batch, channels); state: (batch, channels, modes, 2) as `conv_modal_state` returns it. Returns y like
    u and the new state. Plain torch, differentiable any number of times. ValueError on wrong shapes.
    """
    operator = "conv_modal_step"
    for name, tensor in (("u", u), ("pregate", pregate), ("postgate", postgate), ("state", state)):
        if tensor is not None:
            check_is_tensor(operator, name, tensor)
    u, pregate, postgate = autocast(u, pregate, postgate)  # type: ignore[assignment]
    check_same_dtype(operator, u=u, pregate=pregate, postgate=postgate)
    _check_mode_shapes(operator, decay, frequency, residue)
    check_shape(operator, "u", u, (None, decay.shape[0]), "(batch, channels)")
    _check_others(operator, Inputs(u, decay, frequency, residue, skip, pregate, postgate, state), "(batch, channels)")
    v = u if pregate is None else u * pregate
    size = torch.exp(decay)
    real, imaginary = size * torch.cos(frequency), size * torch.sin(frequency)
    before_r, before_i = state.unbind(-1)
    after_r = real * before_r - imaginary * before_i + v[..., None].to(state.dtype)
    after_i = real * before_i + imaginary * before_r
    y = (residue[..., 0] * after_r - residue[..., 1] * after_i).sum(-1)
    if skip is not None:
        y = y + skip * v
    y = y.to(u.dtype)
    return y if postgate is None else y * postgate, torch.stack([after_r, after_i], dim=-1)


def modal_filter(decay: Tensor, frequency: Tensor, residue: Tensor, length: int) -> Tensor:
    """The filter of `conv_modal`, (channels, length) in decay's dtype: what conv_fft or a plot takes.

    A Vandermonde product in tiles: pole^(rC + i) = pole^(rC) pole^i, so that nothing of size channels x modes x length is ever
    stored, forward or backward, and angles are reduced in float64. Differentiable once. ValueError on wrong shapes.
    """
    _check_modes("modal_filter", decay, frequency, residue)
    if length < 0:
        raise ValueError(f"modal_filter: length is {length}; it must be 0 or more")
    return _filter(decay, frequency, residue, length)


def _check_modes(operator: str, decay: Tensor, frequency: Tensor, residue: Tensor, **others: Tensor | None) -> None:
    check_tensors(operator, dtypes=_MODE_DTYPES, decay=decay, frequency=frequency, residue=residue, **others)
    check_same_dtype(operator, decay=decay, frequency=frequency, residue=residue, **others)
    _check_mode_shapes(operator, decay, frequency, residue)
    if not 1 <= decay.shape[1] <= MAX_MODES:
        raise ValueError(
            f"{operator}: {decay.shape[1]} modes; it takes 1 to {MAX_MODES}: sum several calls, or conv_fft with the filter"
        )


def _check_mode_shapes(operator: str, decay: Tensor, frequency: Tensor, residue: Tensor) -> None:
    for name, tensor in (("decay", decay), ("frequency", frequency), ("residue", residue)):
        check_is_tensor(operator, name, tensor)
    check_shape(operator, "decay", decay, (None, None), "(channels, modes)")
    check_shape(operator, "frequency", frequency, decay.shape, "(channels, modes)")
    check_shape(operator, "residue", residue, (*decay.shape, 2), "(channels, modes, real and imaginary part)")


def _check_others(operator: str, given: Inputs, axes: str) -> None:
    """Shapes of the gates, which are u's, skip and state. axes: u's."""
    for name, gate in (("pregate", given.pregate), ("postgate", given.postgate)):
        if gate is not None:
            check_shape(operator, name, gate, given.u.shape, axes)
    if given.skip is not None:
        check_is_tensor(operator, "skip", given.skip)
        check_shape(operator, "skip", given.skip, (given.u.shape[1],), "(channels,)")
    if given.state is not None:
        expected = (given.u.shape[0], *given.residue.shape)
        check_shape(operator, "state", given.state, expected, "(batch, channels, modes, real and imaginary part)")


def _call(inputs: Inputs, cu_seqlens: Tensor | None, want_state: bool) -> tuple[Tensor, Tensor]:
    u, pregate, postgate = autocast(inputs.u, inputs.pregate, inputs.postgate)
    inputs = inputs._replace(u=u, pregate=pregate, postgate=postgate)
    u, decay, frequency, residue, skip, pregate, postgate, state, document_starts = inputs
    check_tensors("conv_modal", u=u, pregate=pregate, postgate=postgate)
    check_same_dtype("conv_modal", u=u, pregate=pregate, postgate=postgate)
    _check_modes("conv_modal", decay, frequency, residue, skip=skip, state=state)
    check_tensors("conv_modal", u=u, decay=decay)
    check_shape("conv_modal", "u", u, (None, decay.shape[0], None), "(batch, channels, length)")
    _check_others("conv_modal", inputs, "(batch, channels, length)")
    starts = resolve_documents("conv_modal", cu_seqlens, document_starts, u.shape[0], u.shape[2], u.device)
    keep = torch.is_grad_enabled() and any(given is not None and given.requires_grad for given in inputs[:DIFFERENTIABLE])
    y, after, _ = _forward(*inputs._replace(document_starts=starts), want_state, keep)
    return y, after.detach()


@torch.library.custom_op(
    "menagerie::conv_modal", mutates_args=(), schema=f"({SCHEMA}, bool want_state, bool keep) -> (Tensor, Tensor, Tensor)"
)
def _forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """y; the state after the last token, if wanted; states that backward goes on from, if kept (it makes them again if not)."""
    *tensors, want_state, keep = arguments
    inputs = Inputs(*tensors)
    return implementation("conv_modal", inputs.u).forward(inputs, want_state, keep)


@_forward.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *tensors, want_state, keep = arguments
    u, decay, _, residue, *_ = tensors
    after = decay.new_empty(u.shape[0], *residue.shape) if want_state else decay.new_empty(0)
    return u.new_empty(u.shape), after, implementation("conv_modal", u).kept_states(u, decay, keep)


@torch.library.custom_op(
    "menagerie::conv_modal_backward", mutates_args=(), schema=f"(Tensor dy, {SCHEMA}, Tensor kept) -> Tensor[]"
)
def _backward(dy: Tensor, *saved: Any) -> list[Tensor]:
    """Gradients of those of the inputs that are there, document_starts apart, in their order."""
    *tensors, kept = saved
    inputs = Inputs(*tensors)
    gradients = implementation("conv_modal", inputs.u).backward(dy, inputs, kept)
    return [gradient for gradient in gradients if gradient is not None]


@_backward.register_fake
def _(dy: Tensor, *saved: Any) -> list[Tensor]:
    return [tensor.new_empty(tensor.shape) for tensor in saved[:DIFFERENTIABLE] if tensor is not None]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:-2], output[2])


def _differentiate(ctx: Any, dy: Tensor, *others: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    found = iter(_backward(dy, *saved))
    return (*(None if tensor is None else next(found) for tensor in saved[:DIFFERENTIABLE]), None, None, None)


_forward.register_autograd(_differentiate, setup_context=_save)
refuse_double_backward(_backward, "conv_modal")


@torch.library.custom_op("menagerie::modal_filter", mutates_args=())
def _filter(decay: Tensor, frequency: Tensor, residue: Tensor, length: int) -> Tensor:
    return implementation("conv_modal", decay).filter_forward(decay, frequency, residue, length)


@_filter.register_fake
def _(decay: Tensor, frequency: Tensor, residue: Tensor, length: int) -> Tensor:
    return decay.new_empty(decay.shape[0], length)


@torch.library.custom_op("menagerie::modal_filter_backward", mutates_args=())
def _filter_backward(dk: Tensor, decay: Tensor, frequency: Tensor, residue: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return implementation("conv_modal", decay).filter_backward(dk, decay, frequency, residue)


@_filter_backward.register_fake
def _(dk: Tensor, decay: Tensor, frequency: Tensor, residue: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return decay.new_empty(decay.shape), decay.new_empty(decay.shape), decay.new_empty(residue.shape)


def _differentiate_filter(ctx: Any, dk: Tensor) -> tuple[Tensor | None, ...]:
    return (*_filter_backward(dk, *ctx.saved_tensors), None)


_filter.register_autograd(_differentiate_filter, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs[:3]))
refuse_double_backward(_filter_backward, "conv_modal")
