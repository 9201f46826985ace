"""Tensor descriptors: what the kernels load tiles through, by the copy engine of Hopper GPUs."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor


def padded_head(head_dim: int) -> int:
    """The columns of a tile: a power of two, and no fewer than a product of the tensor cores takes."""
    return max(16, 1 << (head_dim - 1).bit_length())


def loadable(x: Tensor) -> Tensor:
    """x, copied where a descriptor cannot read it: a last axis that is not dense, a base or strides of other than 16 bytes."""
    unit = 16 // x.element_size()
    strides = [stride for stride, size in zip(x.stride()[:3], x.shape[:3], strict=True) if size > 1]
    dense = (x.stride(3) == 1 or x.shape[3] == 1) and all(stride > 0 and stride % unit == 0 for stride in strides)
    return x if dense and x.data_ptr() % 16 == 0 and x.shape[3] % unit == 0 else x.contiguous()


def rows_descriptor(x: Tensor, rows: int, width: int) -> Any:
    """A descriptor of tiles of x's last two axes, [1, 1, rows, width]; beyond x they read zeros. x: (B, H, L, D)."""
    x = loadable(x)
    unit = 16 // x.element_size()
    strides = [stride if size > 1 else x.shape[3] * unit for stride, size in zip(x.stride()[:3], x.shape[:3], strict=True)]
    return TensorDescriptor(x, list(x.shape), [*strides, 1], [1, 1, rows, width])


def vector_descriptor(x: Tensor, rows: int) -> Any:
    """A descriptor of stretches of so many numbers of a contiguous x, in the order in which it lies."""
    return TensorDescriptor(x, [x.numel()], [1], [rows])
