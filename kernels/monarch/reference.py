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


def block_product(x: Tensor, weight: Tensor, x2: Tensor | None, weight2: Tensor | None) -> Tensor:
    """`block_diagonal` of (T, K P), or the sum of two."""
    wide = torch.promote_types(x.dtype, torch.float32)
    y = block_diagonal(x.to(wide), weight.to(wide))
    if x2 is not None and weight2 is not None:
        y = y + block_diagonal(x2.to(wide), weight2.to(wide))
    return y.to(x.dtype)


def swap_axes(x: Tensor, rows: int) -> Tensor:
    """(T, rows, columns) to (T, columns, rows), both seen as (T, rows columns)."""
    return x.unflatten(1, (rows, x.shape[1] // rows)).transpose(1, 2).reshape(x.shape).clone()


def block_glu(x: Tensor, gate: Tensor, value: Tensor, activation: str) -> Tensor:
    return block_diagonal_glu(x, gate, value, activation)


def block_glu_backward(dy: Tensor, x: Tensor, gate: Tensor, value: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    """Gradients of the two products' results."""
    wide = torch.promote_types(x.dtype, torch.float32)
    products = [block_diagonal(x.to(wide), w.to(wide)) for w in (gate, value)]
    dgate, dvalue = vjp(lambda g, v: ACTIVATIONS[activation](g) * v, products, (dy.to(wide),))
    assert dgate is not None and dvalue is not None
    return dgate.to(x.dtype), dvalue.to(x.dtype)
