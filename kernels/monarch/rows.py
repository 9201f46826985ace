"""The GLU's backward pass for narrow blocks: rows of x stay on the SM while a program walks over all columns of its block.

It computes both products again and sums dx in registers on the way, so that the products' gradients are written once and read
once, for the weights. For 16-bit tensors.
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
from kernels.rows import processors
from kernels.triton_support import TRITON_TYPES, narrow, operand

# Columns of x in a block: dx is as wide, in registers.
WIDTHS = (192, 256)
# Rows, columns of the gate and of the value, warps, stages.
_BACKWARD = (128, 32, 8, 3)
# Tokens that a program of the weights' gradients reads at a time, warps, stages; numbers that one of their sums adds up.
_DEPTH, _WARPS, _STAGES = 64, 8, 3
_SUM = 1024


@triton.jit
def glu_rows_kernel(
    dy_desc, xa_desc, xb_desc, wa_desc, wb_desc, d_desc, dxa_desc, dxb_desc, Q,
    ACTIVATION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, PA: tl.constexpr, PB: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of BM rows, blocks): the gradients of both products, packed, and dx, their sum over Q times weights.

    A block's columns are its first PA and the other PB.
    """
    row = tl.program_id(0) * BM
    block = tl.program_id(1)
    column = block * (PA + PB)
    xa = operand(xa_desc.load([row, column]), TYPE)
    dxa = tl.zeros((BM, PA), tl.float32)
    if PB:
        xb = operand(xb_desc.load([row, column + PA]), TYPE)
        dxb = tl.zeros((BM, PB), tl.float32)
    for j in tl.range(0, Q, BN):
        q = block * Q + j
        wa = operand(wa_desc.load([2 * q, 0]), TYPE)
        both = tl.dot(xa, wa.T, input_precision="tf32")
        if PB:
            wb = operand(wb_desc.load([2 * q, PA]), TYPE)
            both = tl.dot(xb, wb.T, both, input_precision="tf32")
        gate, value = halves(both, BM, BN)
        y, slope = activated(gate, ACTIVATION)
        dy = dy_desc.load([row, q]).to(tl.float32)
        d = joined(dy * value * slope, dy * y, BM, BN)
        d_desc.store([row, 2 * q], narrow(d, TYPE))
        d = operand(d, TYPE)
        dxa = settled(tl.dot(d, wa, dxa, input_precision="tf32"))
        if PB:
            dxb = settled(tl.dot(d, wb, dxb, input_precision="tf32"))
    dxa_desc.store([row, column], narrow(dxa, TYPE))
    if PB:
        dxb_desc.store([row, column + PA], narrow(dxb, TYPE))


@triton.jit
def weight_gradient_kernel(
    d_desc, xa_desc, xb_desc, p_shares, tokens, Q2, step,
    BR: tl.constexpr, BK: tl.constexpr, PA: tl.constexpr, PB: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of BR rows, blocks, splits): shares (splits, K, 2 Q, P), sums over `step` tokens of d transposed times x."""
    r = tl.program_id(0) * BR
    block = tl.program_id(1)
    column = block * (PA + PB)
    start = tl.program_id(2) * step
    a = tl.zeros((BR, PA), tl.float32)
    if PB:
        b = tl.zeros((BR, PB), tl.float32)
    for t in tl.range(start, tl.minimum(start + step, tokens), BK):
        d = operand(d_desc.load([t, block * Q2 + r]), TYPE).T
        a = tl.dot(d, operand(xa_desc.load([t, column]), TYPE), a, input_precision="tf32")
        if PB:
            b = tl.dot(d, operand(xb_desc.load([t, column + PA]), TYPE), b, input_precision="tf32")
    rows = (tl.program_id(2) * tl.num_programs(1) + block).to(tl.int64) * Q2 + r + tl.arange(0, BR)
    p_rows = p_shares + rows[:, None] * (PA + PB)
    tl.store(p_rows + tl.arange(0, PA)[None, :], a)
    if PB:
        tl.store(p_rows + PA + tl.arange(0, PB)[None, :], b)


@triton.jit
def weight_sum_kernel(p_shares, p_gate, p_value, splits, N, RUN, BLOCK: tl.constexpr):
    """Grid (tiles): sums of N numbers over splits, in order; runs of RUN numbers are the gate's and the value's in turn."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    p_share = p_shares + i
    for _ in range(splits):
        total += tl.load(p_share, mask=i < N, other=0.0)
        p_share += N
    run = i // RUN
    at = run // 2 * RUN + i % RUN
    tl.store(p_gate + at, narrow(total, p_gate.dtype.element_ty), mask=(i < N) & (run % 2 == 0))
    tl.store(p_value + at, narrow(total, p_value.dtype.element_ty), mask=(i < N) & (run % 2 == 1))


def backward(dy: Tensor, x: Tensor, gate: Tensor, value: Tensor, activation: str) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, gate and value. dy: (T, K Q); x: (T, K P), P of `WIDTHS`; gate, value: (K, Q, P), Q a multiple of 64."""
    blocks, q, p = gate.shape
    rows, columns, warps, stages = _BACKWARD
    widths = parts(p)
    dx, products, weights = torch.empty_like(x), x.new_empty(len(x), 2 * blocks * q), pack(gate, value, columns)
    if len(x):
        glu_rows_kernel[(triton.cdiv(len(x), rows), blocks)](
            matrix(dy, rows, columns), *(matrix(x, rows, width) for width in widths),
            *(matrix(weights, 2 * columns, width) for width in widths), matrix(products, rows, 2 * columns),
            *(matrix(dx, rows, width) for width in widths), q,
            ACTIVATION=activation, BM=rows, BN=columns, PA=widths[0], PB=widths[1], TYPE=TRITON_TYPES[x.dtype],
            num_warps=warps, num_stages=stages,
        )  # fmt: skip
    return dx, *_weight_gradients(products, x, gate.shape, columns)


def _weight_rows(p: int, q: int) -> int:
    """Rows of a tile of the weights' gradients; as many as fit in registers."""
    return 256 if p <= 192 and q % 128 == 0 else 128


def _weight_gradients(products: Tensor, x: Tensor, shape: torch.Size, columns: int) -> tuple[Tensor, Tensor]:
    """Gradients of gate and value, (K, Q, P) each, from those of their products, (T, 2 K Q), packed in stretches of columns.

    As many programs share a tile's tokens as give all multiprocessors something to do; their sums are added in a fixed order.
    """
    blocks, q, p = shape
    rows, widths = _weight_rows(p, q), parts(p)
    tiles = 2 * q // rows * blocks
    step = triton.cdiv(triton.cdiv(len(x), _DEPTH), max(1, processors(x) // tiles)) * _DEPTH
    splits = triton.cdiv(len(x), max(step, 1))
    shares = torch.empty(splits, blocks, 2 * q, p, dtype=torch.float32, device=x.device)
    if splits:
        weight_gradient_kernel[(2 * q // rows, blocks, splits)](
            matrix(products, _DEPTH, rows), *(matrix(x, _DEPTH, width) for width in widths), shares, len(x), 2 * q, step,
            BR=rows, BK=_DEPTH, PA=widths[0], PB=widths[1], TYPE=TRITON_TYPES[x.dtype], num_warps=_WARPS, num_stages=_STAGES,
        )  # fmt: skip
    gate, value = (x.new_empty(shape) for _ in range(2))
    weight_sum_kernel[(triton.cdiv(2 * gate.numel(), _SUM),)](
        shares, gate, value, splits, 2 * gate.numel(), columns * p, BLOCK=_SUM
    )
    return gate, value


def shipped() -> Iterator[Configuration]:
    def tile(rows: int, columns: int) -> str:
        return f"tensordesc<bf16[{rows}, {max(columns, 16)}]>"

    rows, columns, warps, stages = _BACKWARD
    sizes: dict[str, str] = dict.fromkeys(("Q", "tokens", "Q2", "step", "splits", "N", "RUN"), "i32")
    pointers = {"p_shares": "*fp32", "p_gate": "*bf16", "p_value": "*bf16"}
    for p in WIDTHS:
        widths: dict[str, Any] = dict(zip(("PA", "PB"), parts(p), strict=True)) | {"TYPE": tl.bfloat16}
        signature = sizes | {"dy_desc": tile(rows, columns), "d_desc": tile(rows, 2 * columns)}
        for part, width in zip("ab", parts(p), strict=True):
            signature |= dict.fromkeys((f"x{part}_desc", f"dx{part}_desc"), tile(rows, width))
            signature[f"w{part}_desc"] = tile(2 * columns, width)
        constants = widths | {"ACTIVATION": "gelu", "BM": rows, "BN": columns}
        yield Configuration(f"GLU of rows, {p} columns", glu_rows_kernel, signature, constants, warps, stages, wgmma=True)
        tall = _weight_rows(p, 128)
        signature = sizes | pointers | {"d_desc": tile(_DEPTH, tall)}
        signature |= {f"x{part}_desc": tile(_DEPTH, width) for part, width in zip("ab", parts(p), strict=True)}
        yield Configuration(
            f"GLU's weights, {p} columns", weight_gradient_kernel, signature, widths | {"BR": tall, "BK": _DEPTH},
            _WARPS, _STAGES, wgmma=True,
        )  # fmt: skip
    yield Configuration("GLU's weights, sums", weight_sum_kernel, sizes | pointers, {"BLOCK": _SUM})
