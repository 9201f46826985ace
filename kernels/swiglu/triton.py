"""SwiGLU in Triton: elementwise over rows, or over one long row where all arrays are contiguous."""

# Triton's decorators hide from type checkers how kernels are launched.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.configurations import Configuration
from kernels.rows import rows_of
from kernels.triton_support import narrow

_BLOCK, _WARPS = 1024, 4


@triton.jit
def swiglu_fwd_kernel(p_gate, p_up, p_y, N, tiles, gate_row, up_row, y_row, BN: tl.constexpr):
    """Grid (rows * tiles of BN columns,)."""
    row = (tl.program_id(0) // tiles).to(tl.int64)
    n = (tl.program_id(0) % tiles).to(tl.int64) * BN + tl.arange(0, BN)
    gate = tl.load(p_gate + row * gate_row + n, mask=n < N, other=0.0).to(tl.float32)
    up = tl.load(p_up + row * up_row + n, mask=n < N, other=0.0).to(tl.float32)
    tl.store(p_y + row * y_row + n, narrow(gate * tl.sigmoid(gate) * up, p_y.dtype.element_ty), mask=n < N)


@triton.jit
def swiglu_bwd_kernel(
    p_dy, p_gate, p_up, p_dgate, p_dup, N, tiles, dy_row, gate_row, up_row, dgate_row, dup_row, BN: tl.constexpr
):
    row = (tl.program_id(0) // tiles).to(tl.int64)
    n = (tl.program_id(0) % tiles).to(tl.int64) * BN + tl.arange(0, BN)
    dy = tl.load(p_dy + row * dy_row + n, mask=n < N, other=0.0).to(tl.float32)
    gate = tl.load(p_gate + row * gate_row + n, mask=n < N, other=0.0).to(tl.float32)
    up = tl.load(p_up + row * up_row + n, mask=n < N, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    silu = gate * sigmoid
    tl.store(
        p_dgate + row * dgate_row + n,
        narrow(dy * up * (sigmoid + silu * (1.0 - sigmoid)), p_dgate.dtype.element_ty),
        mask=n < N,
    )
    tl.store(p_dup + row * dup_row + n, narrow(dy * silu, p_dup.dtype.element_ty), mask=n < N)


def swiglu(gate: Tensor, up: Tensor | None) -> Tensor:
    """As the operator menagerie::swiglu."""
    width = gate.shape[-1] // (2 if up is None else 1)
    y = gate.new_empty((*gate.shape[:-1], width))
    if y.numel() == 0:
        return y
    gate, up = _halves(gate, up)
    _launch(swiglu_fwd_kernel, [gate, up, y.view(-1, width)])
    return y


def swiglu_backward(dy: Tensor, gate: Tensor, up: Tensor | None) -> tuple[Tensor, Tensor]:
    """As the operator menagerie::swiglu_backward."""
    dgate, dup = gate.new_empty(gate.shape), gate.new_empty(0 if up is None else up.shape)
    if dgate.numel() == 0:
        return dgate, dup
    gate_rows, up_rows = _halves(gate, up)
    outputs = _halves(dgate, None if up is None else dup)
    _launch(swiglu_bwd_kernel, [rows_of(dy), gate_rows, up_rows, *outputs])
    return dgate, dup


def _halves(gate: Tensor, up: Tensor | None) -> tuple[Tensor, Tensor]:
    if up is not None:
        return rows_of(gate), rows_of(up)
    first, second = rows_of(gate).chunk(2, dim=1)
    return first, second


def _launch(kernel: triton.JITFunction, arrays: list[Tensor]) -> None:
    rows, width = arrays[0].shape
    if all(a.is_contiguous() for a in arrays):
        arrays = [a.view(1, -1) for a in arrays]
        rows, width = 1, rows * width
    tiles = triton.cdiv(width, _BLOCK)
    if rows * tiles:
        with torch.cuda.device_of(arrays[0]):
            kernel[(rows * tiles,)](*arrays, width, tiles, *(a.stride(0) for a in arrays), BN=_BLOCK, num_warps=_WARPS)


def shipped() -> Iterator[Configuration]:
    for name, kernel in (("forward", swiglu_fwd_kernel), ("backward", swiglu_bwd_kernel)):
        arguments = [p.name for p in kernel.params if p.name != "BN"]
        signature = {a: "*bf16" if a.startswith("p_") else "i32" for a in arguments}
        yield Configuration(name, kernel, signature, {"BN": _BLOCK}, _WARPS)
