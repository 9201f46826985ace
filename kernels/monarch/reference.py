"""Block-diagonal and Monarch products in plain torch, any dtype up to float64."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.differentiation import vjp

ACTIVATIONS = {"gelu": torch.nn.functional.gelu, "silu": torch.nn.functional.silu, "sigmoid": torch.sigmoid}


def block_diagonal(x: Tensor, weight: Tensor) -> Tensor:
    """(..., K P) by (K, Q, P): block k of the input times weight[k] transposed is block k of the output, (..., K Q)."""
    blocks, rows, columns = weight.shape
    return torch.einsum("...kp,kqp->...kq", x.unflatten(-1, (blocks, columns)), weight).reshape(*x.shape[:-1], blocks * rows)


def block_diagonal_glu(x: Tensor, gate: Tensor, value: Tensor, activation: str) -> Tensor:
    """activation(x gate) * (x value), in float32 after the products."""
    wide = torch.promote_types(x.dtype, torch.float32)
    gated = ACTIVATIONS[activation](block_diagonal(x.to(wide), gate.to(wide)))
    return (gated * block_diagonal(x.to(wide), value.to(wide))).to(x.dtype)


def monarch(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Block-diagonal, permute, block-diagonal, permute: first (K, Q, P), second (L, S, R) with K Q = L R."""
    blocks, rows, inner = second.shape
    middle = block_diagonal(x, first).unflatten(-1, (inner, blocks))
    return torch.einsum("...rl,lsr->...sl", middle, second).reshape(*x.shape[:-1], rows * blocks)


def block_product(x: Tensor, weight: Tensor) -> Tensor:
    """`block_diagonal` of (T, K P)."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return block_diagonal(x.to(wide), weight.to(wide)).to(x.dtype)


def weight_gradient(dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """(K, Q, P): the library's batched product, which sums over tokens in float32."""
    blocks, rows, columns = weight.shape
    dy, x = dy.view(len(dy), blocks, rows), x.view(len(x), blocks, columns)
    return torch.bmm(dy.permute(1, 2, 0), x.transpose(0, 1)).to(weight.dtype)


def swap_axes(x: Tensor, rows: int) -> Tensor:
    """(T, rows, columns) to (T, columns, rows), both seen as (T, rows columns)."""
    return x.unflatten(1, (rows, x.shape[1] // rows)).transpose(1, 2).reshape(x.shape).clone()


def block_glu(x: Tensor, gate: Tensor, value: Tensor, activation: str) -> Tensor:
    return block_diagonal_glu(x, gate, value, activation)


def block_glu_backward(dy: Tensor, x: Tensor, gate: Tensor, value: Tensor, activation: str) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, gate and value."""
    wide = torch.promote_types(x.dtype, torch.float32)
    inputs = [t.to(wide) for t in (x, gate, value)]
    dx, dgate, dvalue = vjp(lambda x, g, v: block_diagonal_glu(x, g, v, activation), inputs, (dy.to(wide),))
    assert dx is not None and dgate is not None and dvalue is not None
    return dx.to(x.dtype), dgate.to(gate.dtype), dvalue.to(value.dtype)
