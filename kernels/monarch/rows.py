"""The GLU of block-diagonal products with rows of x that stay on the SM while a program walks over all columns of its block.

The backward pass computes both products again and sums dx in registers on the way, so that the products' gradients are written
once and read once, for the weights. Gate and value lie side by side in stretches of `columns`, so that one product gives both
and halves of an accumulator are in one thread. For 16-bit tensors and blocks of 64 to 256 columns of x.
"""

# Triton's decorators hide from type checkers how kernels are launched.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.configurations import Configuration
from kernels.monarch.activations import activated, halves, joined, settled
from kernels.monarch.layouts import matrix, pack, parts
from kernels.triton_support import TRITON_TYPES, narrow, operand

# Columns of x in a block at most: dx is as wide, in registers.
WIDEST = 256
# Rows, columns of the gate and of the value, warps, stages.
FORWARD = (128, 32, 8, 2)
BACKWARD = (128, 32, 8, 2)


@triton.jit
def _products(xa, xb, wa, wb, PB: tl.constexpr):
    both = tl.dot(xa, wa.T, input_precision="tf32")
    if PB:
        both = tl.dot(xb, wb.T, both, input_precision="tf32")
    return both


@triton.jit
def glu_rows_kernel(
    xa_desc, xb_desc, wa_desc, wb_desc, y_desc, Q,
    ACTIVATION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, PA: tl.constexpr, PB: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of BM rows, blocks): y = act(gate) value of rows of x, whose columns are the first PA and the other PB."""
    row = tl.program_id(0) * BM
    block = tl.program_id(1)
    column = block * (PA + PB)
    xa = operand(xa_desc.load([row, column]), TYPE)
    xb = xa
    if PB:
        xb = operand(xb_desc.load([row, column + PA]), TYPE)
    for j in tl.range(0, Q, 2 * BN):
        q = block * Q + j
        wa = operand(wa_desc.load([2 * q, 0]), TYPE)
        va = operand(wa_desc.load([2 * (q + BN), 0]), TYPE)
        wb = wa
        vb = va
        if PB:
            wb = operand(wb_desc.load([2 * q, PA]), TYPE)
            vb = operand(wb_desc.load([2 * (q + BN), PA]), TYPE)
        first = _products(xa, xb, wa, wb, PB)
        second = _products(xa, xb, va, vb, PB)  # under way while the first activation is computed
        gate, value = halves(first, BM, BN)
        y, _ = activated(gate, ACTIVATION)
        y_desc.store([row, q], narrow(y * value, TYPE))
        gate, value = halves(second, BM, BN)
        y, _ = activated(gate, ACTIVATION)
        y_desc.store([row, q + BN], narrow(y * value, TYPE))


@triton.jit
def _gradients(both, dy, ACTIVATION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    gate, value = halves(both, BM, BN)
    y, slope = activated(gate, ACTIVATION)
    dy = dy.to(tl.float32)
    return joined(dy * value * slope, dy * y, BM, BN)


@triton.jit
def glu_rows_backward_kernel(
    dy_desc, xa_desc, xb_desc, wa_desc, wb_desc, d_desc, dxa_desc, dxb_desc, Q,
    ACTIVATION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, PA: tl.constexpr, PB: tl.constexpr, TYPE: tl.constexpr,
    LATE: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of BM rows, blocks): the gradients of both products, (T, 2 K Q), and dx, their sum over Q times weights."""
    row = tl.program_id(0) * BM
    block = tl.program_id(1)
    column = block * (PA + PB)
    xa = operand(xa_desc.load([row, column]), TYPE)
    dxa = tl.zeros((BM, PA), tl.float32)
    xb = xa
    if PB:
        xb = operand(xb_desc.load([row, column + PA]), TYPE)
        dxb = tl.zeros((BM, PB), tl.float32)
    for j in tl.range(0, Q, 2 * BN):
        q = block * Q + j
        wa = operand(wa_desc.load([2 * q, 0]), TYPE)
        va = operand(wa_desc.load([2 * (q + BN), 0]), TYPE)
        wb = wa
        vb = va
        if PB:
            wb = operand(wb_desc.load([2 * q, PA]), TYPE)
            vb = operand(wb_desc.load([2 * (q + BN), PA]), TYPE)
        # Waits for loads divide the program: with all of them here, the assembler moves activations in between products.
        dy1 = dy_desc.load([row, q])
        dy2 = dy_desc.load([row, q + BN])
        first = _products(xa, xb, wa, wb, PB)
        second = _products(xa, xb, va, vb, PB)
        d1 = _gradients(first, dy1, ACTIVATION, BM, BN)
        if not LATE:
            d_desc.store([row, 2 * q], narrow(d1, TYPE))
        e1 = operand(d1, TYPE)
        dxa = tl.dot(e1, wa, dxa, input_precision="tf32")
        if PB:
            dxb = tl.dot(e1, wb, dxb, input_precision="tf32")
        d2 = _gradients(second, dy2, ACTIVATION, BM, BN)
        if LATE:
            d_desc.store([row, 2 * q], narrow(d1, TYPE))
        d_desc.store([row, 2 * (q + BN)], narrow(d2, TYPE))
        e2 = operand(d2, TYPE)
        dxa = settled(tl.dot(e2, va, dxa, input_precision="tf32"))
        if PB:
            dxb = settled(tl.dot(e2, vb, dxb, input_precision="tf32"))
    dxa_desc.store([row, column], narrow(dxa, TYPE))
    if PB:
        dxb_desc.store([row, column + PA], narrow(dxb, TYPE))


def block_glu(x: Tensor, gate: Tensor, value: Tensor, activation: str, plan=None) -> Tensor:
    """act(x gate) (x value), (T, K Q)."""
    blocks, q, p = gate.shape
    rows, columns, warps, stages = plan or FORWARD
    widths = parts(p)
    y, weights = x.new_empty(len(x), blocks * q), pack(gate, value, columns)
    if len(x):
        glu_rows_kernel[(triton.cdiv(len(x), rows), blocks)](
            *(matrix(x, rows, width) for width in widths), *(matrix(weights, 2 * columns, width) for width in widths),
            matrix(y, rows, columns), q,
            ACTIVATION=activation, BM=rows, BN=columns, PA=widths[0], PB=widths[1], TYPE=TRITON_TYPES[x.dtype],
            num_warps=warps, num_stages=stages,
        )  # fmt: skip
    return y


def block_glu_backward(
    dy: Tensor, x: Tensor, gate: Tensor, value: Tensor, activation: str, plan=None, late: bool = False
) -> tuple[Tensor, Tensor, int]:
    """dx, the gradients of both products packed, (T, 2 K Q), and the stretches in which they are."""
    blocks, q, p = gate.shape
    rows, columns, warps, stages = plan or BACKWARD
    widths = parts(p)
    dx, products, weights = torch.empty_like(x), x.new_empty(len(x), 2 * blocks * q), pack(gate, value, columns)
    if len(x):
        glu_rows_backward_kernel[(triton.cdiv(len(x), rows), blocks)](
            matrix(dy, rows, columns), *(matrix(x, rows, width) for width in widths),
            *(matrix(weights, 2 * columns, width) for width in widths), matrix(products, rows, 2 * columns),
            *(matrix(dx, rows, width) for width in widths), q,
            ACTIVATION=activation, BM=rows, BN=columns, PA=widths[0], PB=widths[1], TYPE=TRITON_TYPES[x.dtype], LATE=late,
            num_warps=warps, num_stages=stages,
        )  # fmt: skip
    return dx, products, columns


def shipped() -> Iterator[Configuration]:
    for kernel, (rows, columns, warps, stages) in ((glu_rows_kernel, FORWARD), (glu_rows_backward_kernel, BACKWARD)):
        for p in (64, 128, 192, 256):
            first, second = parts(p)
            shapes = {"dy": (rows, columns), "y": (rows, columns), "d": (rows, 2 * columns)}
            for part, width in (("a", first), ("b", second)):
                shapes |= {f"{name}{part}": (rows, width) for name in ("x", "dx")} | {f"w{part}": (2 * columns, width)}
            signature: dict[str, str] = {"Q": "i32"}
            signature |= {f"{name}_desc": f"tensordesc<bf16[{r}, {max(c, 16)}]>" for name, (r, c) in shapes.items()}
            constants: dict[str, Any] = {"ACTIVATION": "gelu", "BM": rows, "BN": columns, "TYPE": tl.bfloat16}
            constants |= {"PA": first, "PB": second}
            direction = "forward"
            if kernel is glu_rows_backward_kernel:
                constants["LATE"], direction = False, "backward"
            yield Configuration(
                f"GLU of rows, {p} columns, {direction}", kernel, signature, constants, warps, stages, wgmma=True
            )
