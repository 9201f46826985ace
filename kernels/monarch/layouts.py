"""How the GLU's kernels see tensors: matrices in tiles, gate and value side by side."""

from __future__ import annotations

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor


def matrix(x: Tensor, rows: int, columns: int) -> TensorDescriptor:
    """Tiles of so many rows and columns of a contiguous tensor seen as a matrix; beyond its last row they read zeros."""
    width = x.shape[-1]
    return TensorDescriptor(x, [x.numel() // width, width], [width, 1], [rows, max(columns, 16)])


def parts(columns: int) -> tuple[int, int]:
    """A block's columns as two powers of two, or one and none."""
    first = 1 << (columns.bit_length() - 1)
    return first, columns - first


def pack(gate: Tensor, value: Tensor, columns: int) -> Tensor:
    """(K, 2 Q, P) of two (K, Q, P): stretches of so many rows of the gate and of the value in turn."""
    blocks, q, p = gate.shape
    shape = (blocks, q // columns, columns, p)
    return torch.stack((gate.reshape(shape), value.reshape(shape)), 2).view(blocks, 2 * q, p)


def unpack(packed: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """Gate and value, (K, Q, P) each, of what `pack` made."""
    blocks, both, p = packed.shape
    of_two = packed.view(blocks, both // (2 * columns), 2, columns, p).unbind(2)
    gate, value = (w.clone(memory_format=torch.contiguous_format).view(blocks, both // 2, p) for w in of_two)
    return gate, value
