"""GELU in Triton: programs walk down a band of columns, so that the bias's gradient is summed in registers."""

# Triton's decorators hide from type checkers how kernels are launched.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.column_sums import column_sums
from kernels.configurations import Configuration
from kernels.rows import processors, rows_of
from kernels.triton_support import narrow

# Rows, columns and warps of a program, forward and backward; programs per multiprocessor that share the rows of a band.
_FORWARD, _BACKWARD = (4, 1024, 8), (4, 256, 4)
_PROGRAMS_PER_SM = 8


@triton.jit
def _sigmoid_of_gelu(z):
    """1/2 + tanh(t)/2 = sigmoid(2 t), and the derivative of 2 t."""
    square = z * z
    return tl.sigmoid(
        z * (1.5957691216057308 + 0.07135481282553125 * square)
    ), 1.5957691216057308 + 0.21406443847659375 * square


@triton.jit
def gelu_fwd_kernel(p_x, p_bias, p_y, rows, N, x_row, HAS_BIAS: tl.constexpr, BR: tl.constexpr, BN: tl.constexpr):
    """Grid (tiles of BR rows, tiles of BN columns)."""
    r = (tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR))[:, None]
    n = (tl.program_id(1) * BN + tl.arange(0, BN))[None, :]
    inside = (r < rows) & (n < N)
    z = tl.load(p_x + r * x_row + n, mask=inside, other=0.0).to(tl.float32)
    if HAS_BIAS:
        z += tl.load(p_bias + n, mask=n < N, other=0.0).to(tl.float32)
    sigmoid, _ = _sigmoid_of_gelu(z)
    tl.store(p_y + r * N + n, narrow(z * sigmoid, p_y.dtype.element_ty), mask=inside)


@triton.jit
def gelu_bwd_kernel(
    p_dy, p_x, p_bias, p_dx, p_dbias, rows, N, dy_row, x_row, HAS_BIAS: tl.constexpr, BR: tl.constexpr, BN: tl.constexpr
):
    """Grid (bands of columns, programs of a band): each walks every programs-th tile of BR rows."""
    n = (tl.program_id(0) * BN + tl.arange(0, BN))[None, :]
    total = tl.zeros([BR, BN], tl.float32)
    if HAS_BIAS:
        bias = tl.load(p_bias + n, mask=n < N, other=0.0).to(tl.float32)
    for tile in tl.range(tl.program_id(1), tl.cdiv(rows, BR), tl.num_programs(1)):
        r = (tile * BR + tl.arange(0, BR).to(tl.int64))[:, None]
        inside = (r < rows) & (n < N)
        dy = tl.load(p_dy + r * dy_row + n, mask=inside, other=0.0).to(tl.float32)
        z = tl.load(p_x + r * x_row + n, mask=inside, other=0.0).to(tl.float32)
        if HAS_BIAS:
            z += bias
        sigmoid, slope = _sigmoid_of_gelu(z)
        dx = dy * sigmoid * (1.0 + z * slope * (1.0 - sigmoid))
        tl.store(p_dx + r * N + n, narrow(dx, p_dx.dtype.element_ty), mask=inside)
        if HAS_BIAS:
            total += dx
    if HAS_BIAS:
        columns = tl.program_id(0) * BN + tl.arange(0, BN)
        tl.store(p_dbias + tl.program_id(1).to(tl.int64) * N + columns, tl.sum(total, 0), mask=columns < N)


def gelu(x: Tensor, bias: Tensor | None) -> Tensor:
    """As the operator menagerie::gelu."""
    y = x.new_empty(x.shape)
    flat = rows_of(x)
    rows, width = flat.shape
    tall, wide, warps = _FORWARD
    if rows:
        with torch.cuda.device_of(x):
            gelu_fwd_kernel[(triton.cdiv(rows, tall), triton.cdiv(width, wide))](
                flat, _vector(bias), y, rows, width, flat.stride(0),
                HAS_BIAS=bias is not None, BR=tall, BN=wide, num_warps=warps,
            )  # fmt: skip
    return y


def gelu_backward(dy: Tensor, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """As the operator menagerie::gelu_backward."""
    dx = x.new_empty(x.shape)
    gradient, flat = rows_of(dy), rows_of(x)
    rows, width = flat.shape
    tall, wide, warps = _BACKWARD
    bands = triton.cdiv(width, wide)
    programs = min(triton.cdiv(rows, tall), triton.cdiv(_PROGRAMS_PER_SM * processors(x), bands))
    shares = torch.empty(1, programs, width if bias is not None else 0, dtype=torch.float32, device=x.device)
    if rows:
        with torch.cuda.device_of(x):
            gelu_bwd_kernel[(bands, programs)](
                gradient, flat, _vector(bias), dx, shares, rows, width, gradient.stride(0), flat.stride(0),
                HAS_BIAS=bias is not None, BR=tall, BN=wide, num_warps=warps,
            )  # fmt: skip
    return dx, x.new_empty(0) if bias is None else column_sums(shares, [bias.dtype])[0]


def _vector(v: Tensor | None) -> Tensor | None:
    return None if v is None else v.contiguous()


def shipped() -> Iterator[Configuration]:
    for name, kernel, plan in (("forward", gelu_fwd_kernel, _FORWARD), ("backward", gelu_bwd_kernel, _BACKWARD)):
        constants = {"HAS_BIAS": True, "BR": plan[0], "BN": plan[1]}
        arguments = [p.name for p in kernel.params if p.name not in constants]
        signature = {a: ("*fp32" if "bias" in a else "*bf16") if a.startswith("p_") else "i32" for a in arguments}
        yield Configuration(name, kernel, signature, constants, plan[2])
