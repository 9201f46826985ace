"""The GLU of block-diagonal products in tiles of the output; one product gives gate and value. For 16-bit tensors."""

# Triton's decorators hide from type checkers how kernels are launched.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from kernels.configurations import Configuration
from kernels.monarch.activations import activated, halves, joined, settled
from kernels.monarch.layouts import matrix, pack
from kernels.triton_support import TRITON_TYPES, narrow, operand

# Rows, columns of the gate and of the value, depth and stages of a program's tile; warps forward and backward.
_ROWS, _COLUMNS, _DEPTH, _STAGES = 128, 64, 64, 3
_FORWARD_WARPS, _BACKWARD_WARPS = 8, 4


@triton.jit
def glu_tiles_kernel(
    x_desc, w_desc, dy_desc, out_desc, tokens, Q, P,
    ACTIVATION: tl.constexpr, BACKWARD: tl.constexpr, SETTLE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Grid (tiles, blocks): both products of a tile of x, and act(gate) value, or from dy the products' gradients, packed."""
    tiles_m = tl.cdiv(tokens, BM)
    group = 8 * (Q // BN)  # neighbours share tiles of x and the weights in the second-level cache
    first = tl.program_id(0) // group * 8
    height = tl.minimum(tiles_m - first, 8)
    row = (first + tl.program_id(0) % group % height) * BM
    block = tl.program_id(1)
    q = block * Q + tl.program_id(0) % group // height * BN
    if BACKWARD:
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
        dy = dy.to(tl.float32)
        out_desc.store([row, 2 * q], narrow(joined(dy * value * slope, dy * y, BM, BN), TYPE))
    else:
        out_desc.store([row, q], narrow(y * value, TYPE))


def glu(dy: Tensor | None, x: Tensor, gate: Tensor, value: Tensor, activation: str) -> tuple[Tensor, Tensor, int]:
    """act(x gate) (x value), or with its gradient those of both products, packed; the packed weights, and in what stretches.

    dy: (T, K Q); x: (T, K P); gate, value: (K, Q, P); P and Q are multiples of 64.
    """
    blocks, q, p = gate.shape
    columns = _COLUMNS if dy is None else 2 * _COLUMNS
    weights, out = pack(gate, value, _COLUMNS), x.new_empty(len(x), q // _COLUMNS * columns * blocks)
    if len(x):
        glu_tiles_kernel[(triton.cdiv(len(x), _ROWS) * (q // _COLUMNS), blocks)](
            matrix(x, _ROWS, _DEPTH), matrix(weights, 2 * _COLUMNS, _DEPTH),
            None if dy is None else matrix(dy, _ROWS, _COLUMNS), matrix(out, _ROWS, columns), len(x), q, p,
            ACTIVATION=activation, BACKWARD=dy is not None, SETTLE=_settle(dy is not None, p),
            BM=_ROWS, BN=_COLUMNS, BK=_DEPTH, TYPE=TRITON_TYPES[x.dtype],
            num_warps=_FORWARD_WARPS if dy is None else _BACKWARD_WARPS, num_stages=_STAGES,
        )  # fmt: skip
    return out, weights, _COLUMNS


def _settle(backward: bool, p: int) -> bool:
    """Whether to wait for each product: faster in long sums; backward the assembler would make them one at a time."""
    return backward or p >= 256


def shipped() -> Iterator[Configuration]:
    def tile(rows: int, columns: int) -> str:
        return f"tensordesc<bf16[{rows}, {columns}]>"

    sizes: dict[str, str] = dict.fromkeys(("tokens", "Q", "P"), "i32")
    sizes |= {"x_desc": tile(_ROWS, _DEPTH), "w_desc": tile(2 * _COLUMNS, _DEPTH), "dy_desc": tile(_ROWS, _COLUMNS)}
    tiles: dict[str, Any] = {"ACTIVATION": "gelu", "BM": _ROWS, "BN": _COLUMNS, "BK": _DEPTH, "TYPE": tl.bfloat16}
    for settle in (False, True):
        constants = tiles | {"BACKWARD": False, "SETTLE": settle, "dy_desc": None}
        name = f"GLU of tiles, {'long' if settle else 'short'} sums, forward"
        signature = sizes | {"out_desc": tile(_ROWS, _COLUMNS)}
        yield Configuration(name, glu_tiles_kernel, signature, constants, _FORWARD_WARPS, _STAGES, wgmma=True)
    signature, constants = sizes | {"out_desc": tile(_ROWS, 2 * _COLUMNS)}, tiles | {"BACKWARD": True, "SETTLE": True}
    yield Configuration(
        "GLU of tiles, backward", glu_tiles_kernel, signature, constants, _BACKWARD_WARPS, _STAGES, spills=8, wgmma=True
    )
