"""The GLU of wide block-diagonal products in tiles of the output, and the weights' gradients of narrow ones."""

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

# Rows, columns of the gate and of the value, depth, warps, stages.
FORWARD = (128, 128, 64, 8, 3)
BACKWARD = (128, 128, 64, 8, 3)
# Numbers that a program of the sums over tokens' splits adds up.
_SUM = 1024


@triton.jit
def glu_tiles_kernel(
    x_desc, w_desc, dy_desc, out_desc, tokens, Q, P,
    ACTIVATION: tl.constexpr, BACKWARD: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, TYPE: tl.constexpr,
    EARLY: tl.constexpr, SETTLE: tl.constexpr,
):  # fmt: skip
    """Grid (tiles, blocks): both products of a tile of x, and act(gate) value, or from dy the products' gradients, packed."""
    tiles_m = tl.cdiv(tokens, BM)
    group = 8 * (Q // BN)  # neighbours share tiles of x and the weights in the second-level cache
    first = tl.program_id(0) // group * 8
    height = tl.minimum(tiles_m - first, 8)
    row = (first + tl.program_id(0) % group % height) * BM
    block = tl.program_id(1)
    q = block * Q + tl.program_id(0) % group // height * BN
    if BACKWARD and EARLY:
        dy = dy_desc.load([row, q])
    both = tl.zeros((BM, 2 * BN), tl.float32)
    for p in tl.range(0, P, BK):
        x = operand(x_desc.load([row, block * P + p]), TYPE)
        w = operand(w_desc.load([2 * q, p]), TYPE)
        both = tl.dot(x, w.T, both, input_precision="tf32")
        if SETTLE:
            both = settled(both)
    gate, value = halves(both, BM, BN)
    y, slope = activated(gate, ACTIVATION)
    if BACKWARD:
        if not EARLY:
            dy = dy_desc.load([row, q])
        dy = dy.to(tl.float32)
        out_desc.store([row, 2 * q], narrow(joined(dy * value * slope, dy * y, BM, BN), TYPE))
    else:
        out_desc.store([row, q], narrow(y * value, TYPE))


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


def glu(
    dy: Tensor | None, x: Tensor, gate: Tensor, value: Tensor, activation: str, plan=None, early=True, settle=True, maxnreg=None
) -> tuple[Tensor, Tensor, int]:
    """act(x gate) (x value), or with its gradient those of both products, packed; the packed weights, and in what stretches."""
    blocks, q, p = gate.shape
    rows, columns, depth, warps, stages = plan or (FORWARD if dy is None else BACKWARD)
    columns = min(columns, 64 if q % 128 else 128)
    weights, out = pack(gate, value, columns), x.new_empty(len(x), (1 if dy is None else 2) * blocks * q)
    if len(x):
        glu_tiles_kernel[(triton.cdiv(len(x), rows) * (q // columns), blocks)](
            matrix(x, rows, depth), matrix(weights, 2 * columns, depth), None if dy is None else matrix(dy, rows, columns),
            matrix(out, rows, columns if dy is None else 2 * columns), len(x), q, p,
            ACTIVATION=activation, BACKWARD=dy is not None, BM=rows, BN=columns, BK=depth, TYPE=TRITON_TYPES[x.dtype],
            EARLY=early, SETTLE=settle, num_warps=warps, num_stages=stages, maxnreg=maxnreg,
        )  # fmt: skip
    return out, weights, columns


def _weight_plan(p: int, both: int) -> tuple[int, int, int, int]:
    """Rows, depth, warps and stages: what of a float32 tile of P columns fits in registers."""
    return (256 if p <= 192 and both % 256 == 0 else 128), 64, 8, 3


def weight_gradients(products: Tensor, x: Tensor, shape: torch.Size, columns: int, plan=None) -> tuple[Tensor, Tensor]:
    """Gradients of gate and value, (K, Q, P) each, from those of their products, (T, 2 K Q), packed in stretches of columns.

    As many programs share a tile's tokens as give all multiprocessors something to do; their sums are added in a fixed order.
    """
    blocks, q, p = shape
    rows, depth, warps, stages = plan or _weight_plan(p, 2 * q)
    widths, tiles = parts(p), 2 * q // rows * blocks
    step = triton.cdiv(triton.cdiv(len(x), depth), max(1, processors(x) // tiles)) * depth
    splits = triton.cdiv(len(x), max(step, 1))
    shares = torch.empty(splits, blocks, 2 * q, p, dtype=torch.float32, device=x.device)
    if splits:
        weight_gradient_kernel[(2 * q // rows, blocks, splits)](
            matrix(products, depth, rows), *(matrix(x, depth, width) for width in widths), shares, len(x), 2 * q, step,
            BR=rows, BK=depth, PA=widths[0], PB=widths[1], TYPE=TRITON_TYPES[x.dtype], num_warps=warps, num_stages=stages,
        )  # fmt: skip
    gate, value = (x.new_empty(shape) for _ in range(2))
    weight_sum_kernel[(triton.cdiv(2 * gate.numel(), _SUM),)](
        shares, gate, value, splits, 2 * gate.numel(), columns * p, BLOCK=_SUM
    )
    return gate, value


def shipped() -> Iterator[Configuration]:
    def tile(*shape: int) -> str:
        return f"tensordesc<bf16[{shape[0]}, {max(shape[1], 16)}]>"

    sizes = dict.fromkeys(("tokens", "Q", "P", "Q2", "step", "splits", "N", "RUN"), "i32")
    for backward, plan in ((False, FORWARD), (True, BACKWARD)):
        rows, columns, depth, warps, stages = plan
        signature = sizes | {"x_desc": tile(rows, depth), "w_desc": tile(2 * columns, depth), "dy_desc": tile(rows, columns)}
        signature["out_desc"] = tile(rows, 2 * columns if backward else columns)
        constants: dict[str, Any] = {"ACTIVATION": "gelu", "BACKWARD": backward, "TYPE": tl.bfloat16}
        constants |= {"BM": rows, "BN": columns, "BK": depth, "EARLY": True, "SETTLE": True} | (
            {} if backward else {"dy_desc": None}
        )
        name = f"GLU of tiles, {'backward' if backward else 'forward'}"
        yield Configuration(name, glu_tiles_kernel, signature, constants, warps, stages, wgmma=True)
    for p in (64, 128, 192, 256):
        (rows, depth, warps, stages), (first, second) = _weight_plan(p, 256), parts(p)
        signature = sizes | {"d_desc": tile(depth, rows), "xa_desc": tile(depth, first), "xb_desc": tile(depth, second)}
        constants = {"BR": rows, "BK": depth, "PA": first, "PB": second, "TYPE": tl.bfloat16}
        signature["p_shares"] = "*fp32"
        yield Configuration(
            f"GLU, weights' gradients, {p} columns", weight_gradient_kernel, signature, constants, warps, stages, wgmma=True
        )
    pointers = {"p_shares": "*fp32", "p_gate": "*bf16", "p_value": "*bf16"}
    yield Configuration("GLU, weights' gradients, sums", weight_sum_kernel, sizes | pointers, {"BLOCK": _SUM})
