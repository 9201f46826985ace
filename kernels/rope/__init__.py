"""Rotary positions (Su et al., "RoFormer", 2021, section 3.4.2) of queries and keys: one read and one write of each.

The gradient is the rotation by the opposite angles, so it is the same operator and can be differentiated any number of times.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.arguments import check_tensors
from kernels.dispatch import interpreted
from kernels.rope import reference

__all__ = ["rope"]


def rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False) -> tuple[Tensor, Tensor]:
    """Queries and keys, each plane of two components rotated by its position's angle.

    q, k: (batch, heads, length, dim), each with its own number of heads and any strides that step by one along dim, such as
    slices of one projection seen as heads. cos, sin: (batch or 1, length, half), half <= dim / 2; they are constants, no
    gradient reaches them. Components i and half + i form a plane, or 2 i and 2 i + 1 if `interleaved`; components from
    2 * half on pass unchanged. Returns tensors like q and k. Packed documents: give each token the angles of its position in
    its document. ValueError on other shapes, dtypes and devices.
    """
    check_tensors("rope", q=q, k=k, cos=cos, sin=sin)
    for name, x in (("q", q), ("k", k)):
        if x.ndim != 4:
            raise ValueError(f"rope: {name} has shape {tuple(x.shape)}; it must be (batch, heads, length, dim)")
    if q.dtype != k.dtype:
        raise ValueError(f"rope: k is {k.dtype} and q is {q.dtype}; convert k with .to(q.dtype)")
    batch, _, length, dim = q.shape
    if (k.shape[0], k.shape[2], k.shape[3]) != (batch, length, dim):
        raise ValueError(f"rope: k has shape {tuple(k.shape)}; apart from the number of heads it must be q's {tuple(q.shape)}")
    for name, x in (("cos", cos), ("sin", sin)):
        if (
            x.ndim != 3
            or x.shape[0] not in (1, batch)
            or x.shape[1] != length
            or not 1 <= x.shape[2] <= dim // 2
            or x.shape != cos.shape
        ):
            raise ValueError(
                f"rope: {name} has shape {tuple(x.shape)}; it must be (batch or 1, length, half) with half <= dim / 2, "
                f"here ({batch} or 1, {length}, up to {dim // 2}), and cos and sin alike"
            )
    cos, sin = cos.detach(), sin.detach()
    if not (q.is_cuda or interpreted()) or q.dtype == torch.float64:
        return reference.rope(q, cos, sin, interleaved), reference.rope(k, cos, sin, interleaved)
    return _rope(q, k, cos, sin, interleaved, False)


@torch.library.custom_op("menagerie::rope", mutates_args=())
def _rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, interleaved: bool, inverse: bool) -> tuple[Tensor, Tensor]:
    from kernels.rope import triton

    return triton.rope(q, k, cos, sin, interleaved, inverse)


@_rope.register_fake
def _(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, interleaved: bool, inverse: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, _, cos, sin, ctx.interleaved, ctx.inverse = inputs
    ctx.save_for_backward(cos, sin)


def _backward(ctx: Any, dq: Tensor, dk: Tensor) -> tuple[Tensor | None, ...]:
    cos, sin = ctx.saved_tensors
    return *_rope(dq, dk, cos, sin, ctx.interleaved, not ctx.inverse), None, None, None, None


_rope.register_autograd(_backward, setup_context=_setup)
