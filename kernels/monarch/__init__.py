"""Structured matrix products: block-diagonal, block-diagonal with a GLU, and Monarch (Dao et al.

2022; Monarch Mixer, Fu et al. 2023).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.arguments import autocast, check_same_dtype, check_shape, check_tensors
from kernels.differentiation import refuse_double_backward
from kernels.dispatch import implementation
from kernels.monarch.reference import ACTIVATIONS, weight_gradient

__all__ = ["block_diagonal", "block_diagonal_glu", "monarch"]


def block_diagonal(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply the last axis by a block-diagonal matrix.

    x: (..., K P). weight: (K, Q, P), x's dtype. Returns (..., K Q): y[..., k, q] = sum_p weight[k, q, p] x[..., k, p].
    Sums are float32. ValueError on anything else.
    """
    x, weight = autocast(x, weight)  # type: ignore[assignment]
    _check("block_diagonal", x, "weight", weight)
    return _block_product(_rows(x), weight).view(*x.shape[:-1], weight.shape[0] * weight.shape[1])


def monarch(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Multiply the last axis by a Monarch matrix: block-diagonal, permutation, block-diagonal, permutation.

    x: (..., K P). first: (K, Q, P). second: (L, S, R) with L R = K Q. Returns (..., S L):
    y[..., s, l] = sum_r second[l, s, r] m[..., r, l], m = block_diagonal(x, first) seen as (..., R, L).
    Both products and both permutations read and write whole rows, in order; m is rounded.
    ValueError on anything else.
    """
    x, first, second = autocast(x, first, second)  # type: ignore[assignment]
    _check("monarch", x, "first", first)
    check_tensors("monarch", x=x, second=second)
    check_same_dtype("monarch", x=x, second=second)
    check_shape("monarch", "second", second, (None, None, None), "(blocks, rows, columns)")
    if second.shape[0] * second.shape[2] != first.shape[0] * first.shape[1]:
        raise ValueError(
            f"monarch: first {tuple(first.shape)} gives {first.shape[0] * first.shape[1]} features and second "
            f"{tuple(second.shape)} takes {second.shape[0] * second.shape[2]}; blocks times rows of first must be blocks times "
            "columns of second"
        )
    middle = _block_product(_rows(x), first)
    middle = _block_product(_swap_axes(middle, second.shape[2]), second)
    return _swap_axes(middle, second.shape[0]).view(*x.shape[:-1], second.shape[0] * second.shape[1])


def block_diagonal_glu(x: Tensor, gate: Tensor, value: Tensor, *, activation: str = "gelu") -> Tensor:
    """activation(block_diagonal(x, gate)) * block_diagonal(x, value) in one pass: Monarch Mixer's channel mixing.

    x: (..., K P). gate, value: (K, Q, P). activation: gelu (exact), silu or sigmoid. Returns (..., K Q). The products are not
    stored but computed again in the backward pass. ValueError on anything else.
    """
    x, gate, value = autocast(x, gate, value)  # type: ignore[assignment]
    _check("block_diagonal_glu", x, "gate", gate)
    check_tensors("block_diagonal_glu", x=x, value=value)
    check_same_dtype("block_diagonal_glu", x=x, value=value)
    check_shape("block_diagonal_glu", "value", value, gate.shape, "gate's shape")
    if activation not in ACTIVATIONS:
        raise ValueError(f"block_diagonal_glu: activation is {activation!r}; it may be {', '.join(ACTIVATIONS)}")
    return _block_glu(_rows(x), gate, value, activation).view(*x.shape[:-1], gate.shape[0] * gate.shape[1])


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1]).contiguous()


def _check(operator: str, x: Tensor, name: str, weight: Tensor) -> None:
    both: dict[str, Any] = {"x": x, name: weight}
    check_tensors(operator, **both)
    check_same_dtype(operator, **both)
    check_shape(operator, name, weight, (None, None, None), "(blocks, rows, columns)")
    if x.ndim == 0 or x.shape[-1] != weight.shape[0] * weight.shape[2] or not weight.numel():
        raise ValueError(
            f"{operator}: x has shape {tuple(x.shape)} and {name} {tuple(weight.shape)}; x's last axis must be blocks times "
            f"columns of {name} = {weight.shape[0] * weight.shape[2]}, and no axis of {name} empty"
        )


@torch.library.custom_op("menagerie::block_product", mutates_args=())
def _block_product(x: Tensor, weight: Tensor) -> Tensor:
    return implementation("monarch", x).block_product(x, weight)


@_block_product.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0] * weight.shape[1])


@torch.library.custom_op("menagerie::block_product_backward", mutates_args=())
def _block_product_backward(dy: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    dy = dy.contiguous()
    dx = implementation("monarch", x).block_product(dy, weight.transpose(1, 2))
    return dx, weight_gradient(dy, x, weight)


@_block_product_backward.register_fake
def _(dy: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), weight.new_empty(weight.shape)


@torch.library.custom_op("menagerie::swap_axes", mutates_args=())
def _swap_axes(x: Tensor, rows: int) -> Tensor:
    """(T, rows, columns) to (T, columns, rows), both seen as (T, rows columns)."""
    return implementation("monarch", x).swap_axes(x.contiguous(), rows)


@_swap_axes.register_fake
def _(x: Tensor, rows: int) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("menagerie::block_glu", mutates_args=())
def _block_glu(x: Tensor, gate: Tensor, value: Tensor, activation: str) -> Tensor:
    return implementation("monarch", x).block_glu(x, gate, value, activation)


@_block_glu.register_fake
def _(x: Tensor, gate: Tensor, value: Tensor, activation: str) -> Tensor:
    return x.new_empty(x.shape[0], gate.shape[0] * gate.shape[1])


@torch.library.custom_op("menagerie::block_glu_backward", mutates_args=())
def _block_glu_backward(dy: Tensor, x: Tensor, gate: Tensor, value: Tensor, activation: str) -> tuple[Tensor, Tensor, Tensor]:
    return implementation("monarch", x).block_glu_backward(dy.contiguous(), x, gate, value, activation)


@_block_glu_backward.register_fake
def _(dy: Tensor, x: Tensor, gate: Tensor, value: Tensor, activation: str) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), gate.new_empty(gate.shape), value.new_empty(value.shape)


def _setup_product(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _setup_swap(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, rows = inputs
    ctx.columns = x.shape[1] // rows


def _setup_glu(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.activation = inputs[3]


_block_product.register_autograd(lambda ctx, dy: _block_product_backward(dy, *ctx.saved_tensors), setup_context=_setup_product)
_swap_axes.register_autograd(lambda ctx, dy: (_swap_axes(dy, ctx.columns), None), setup_context=_setup_swap)
_block_glu.register_autograd(
    lambda ctx, dy: (*_block_glu_backward(dy, *ctx.saved_tensors, ctx.activation), None), setup_context=_setup_glu
)
refuse_double_backward(_block_product_backward, "monarch")
refuse_double_backward(_block_glu_backward, "monarch")
