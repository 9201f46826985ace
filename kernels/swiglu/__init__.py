"""SwiGLU (Shazeer, "GLU Variants Improve Transformer", 2020): silu(gate) * up, one pass; the backward pass recomputes silu."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.arguments import autocast, check_same_dtype, check_tensors
from kernels.differentiation import refuse_double_backward
from kernels.dispatch import interpreted
from kernels.swiglu import reference

__all__ = ["swiglu"]


def swiglu(gate: Tensor, up: Tensor | None = None) -> Tensor:
    """silu(gate) * up.

    gate, up: (..., width), of one shape and dtype; without `up`, gate is (..., 2 * width) and holds both, gate first: the
    output of one matrix product for the two. Returns (..., width). Rows may be strided. ValueError on anything else.
    """
    check_tensors("swiglu", gate=gate, up=up)
    check_same_dtype("swiglu", gate=gate, up=up)
    if gate.ndim == 0:
        raise ValueError("swiglu: gate is a scalar; it must be (..., width)")
    if up is None and gate.shape[-1] % 2:
        raise ValueError(f"swiglu: gate has shape {tuple(gate.shape)}; without up it must be (..., 2 * width), of even width")
    if up is not None and up.shape != gate.shape:
        raise ValueError(f"swiglu: up has shape {tuple(up.shape)}; it must be gate's {tuple(gate.shape)}")
    gate_, up = autocast(gate, up)
    assert gate_ is not None
    if not (gate.is_cuda or interpreted()) or gate_.dtype == torch.float64:
        return reference.swiglu(gate_, up)
    return _swiglu(gate_, up)


@torch.library.custom_op("menagerie::swiglu", mutates_args=())
def _swiglu(gate: Tensor, up: Tensor | None) -> Tensor:
    from kernels.swiglu import triton

    return triton.swiglu(gate, up)


@_swiglu.register_fake
def _(gate: Tensor, up: Tensor | None) -> Tensor:
    width = gate.shape[-1] // (2 if up is None else 1)
    return gate.new_empty((*gate.shape[:-1], width))


@torch.library.custom_op("menagerie::swiglu_backward", mutates_args=())
def _swiglu_backward(dy: Tensor, gate: Tensor, up: Tensor | None) -> tuple[Tensor, Tensor]:
    """(dgate, dup); without `up` the first holds both and the second is empty."""
    from kernels.swiglu import triton

    return triton.swiglu_backward(dy, gate, up)


@_swiglu_backward.register_fake
def _(dy: Tensor, gate: Tensor, up: Tensor | None) -> tuple[Tensor, Tensor]:
    return gate.new_empty(gate.shape), gate.new_empty(0 if up is None else up.shape)


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor | None], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor | None]:
    gate, up = ctx.saved_tensors
    dgate, dup = _swiglu_backward(dy, gate, up)
    return dgate, None if up is None else dup


_swiglu.register_autograd(_backward, setup_context=_setup)
refuse_double_backward(_swiglu_backward, "swiglu")
