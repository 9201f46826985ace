"""Convolution with sums of exponentials as the recurrence that it is, in plain torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kernels.conv_modal.inputs import DIFFERENTIABLE, Inputs
from kernels.differentiation import vjp


def modal_filter(decay: Tensor, frequency: Tensor, residue: Tensor, length: int) -> Tensor:
    """k[c, t] = sum_n Re(r_n exp((decay_n + i frequency_n) t)), (channels, length); decay, frequency: (channels, modes)."""
    time = torch.arange(length, device=decay.device, dtype=torch.float64)
    size = torch.exp(decay.double()[..., None] * time)
    turns = frequency.double()[..., None] * time / (2 * math.pi)
    angle = 2 * math.pi * (turns - torch.round(turns).detach())
    real, imaginary = residue.double().unbind(-1)
    k = (size * (real[..., None] * torch.cos(angle) - imaginary[..., None] * torch.sin(angle))).sum(1)
    return k.to(decay.dtype)


def conv_modal(
    u: Tensor,
    decay: Tensor,
    frequency: Tensor,
    residue: Tensor,
    skip: Tensor | None = None,
    pregate: Tensor | None = None,
    postgate: Tensor | None = None,
    state: Tensor | None = None,
    document_starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """What `kernels.conv_modal.conv_modal` computes, token after token: outputs and the state after the last token."""
    dtype, wide = u.dtype, torch.promote_types(u.dtype, torch.float32)
    v = u.to(wide) if pregate is None else u.to(wide) * pregate.to(wide)
    pole = torch.exp(torch.complex(decay.to(wide), frequency.to(wide)))  # (channels, modes)
    weight = torch.complex(*residue.to(wide).unbind(-1))
    if state is None:
        x = torch.zeros(u.shape[0], *decay.shape, dtype=pole.dtype, device=u.device)
    else:
        x = torch.complex(*state.to(wide).unbind(-1))
    outputs = []
    for t in range(u.shape[2]):
        if document_starts is not None:  # a row's first document goes on from the state
            begins = (document_starts[:, t] == t) & (document_starts[:, t] != 0)
            x = torch.where(begins[:, None, None], torch.zeros_like(x), x)
        x = pole * x + v[:, :, t, None]
        outputs.append((weight * x).real.sum(-1))
    # Without tokens a product with nothing, so that every input has a gradient
    y = torch.stack(outputs, dim=2) if outputs else v * (weight * pole * x).real.sum(-1, keepdim=True)
    if skip is not None:
        y = y + skip.to(wide)[:, None] * v
    if postgate is not None:
        y = y * postgate.to(wide)
    return y.to(dtype), torch.view_as_real(x)


def forward(inputs: Inputs, want_state: bool, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    y, after = conv_modal(*inputs)
    # Without tokens the state is the given one, and a custom operator may not return what it was given
    after = after.to(inputs.decay.dtype, copy=True) if want_state else inputs.decay.new_empty(0)
    return y, after, kept_states(inputs.u, inputs.decay, keep)


def kept_states(u: Tensor, decay: Tensor, keep: bool) -> Tensor:
    """The reference keeps no states for backward."""
    return u.new_empty(0)


def backward(dy: Tensor, inputs: Inputs, kept: Tensor) -> list[Tensor | None]:
    """Gradients of the inputs, document_starts apart; None for what is not there."""
    return vjp(conv_modal, inputs, [dy, None])[:DIFFERENTIABLE]


def filter_forward(decay: Tensor, frequency: Tensor, residue: Tensor, length: int) -> Tensor:
    return modal_filter(decay, frequency, residue, length)


def filter_backward(dk: Tensor, decay: Tensor, frequency: Tensor, residue: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    ddecay, dfrequency, dresidue, _ = vjp(modal_filter, (decay, frequency, residue, dk.shape[1]), [dk])
    assert ddecay is not None and dfrequency is not None and dresidue is not None
    return ddecay, dfrequency, dresidue
