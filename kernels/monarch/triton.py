"""Block-diagonal products, with a GLU or a permutation in the same pass: what a call takes, and kernels for any sizes."""

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
from kernels.monarch import rows, tiles
from kernels.monarch.activations import activated
from kernels.monarch.layouts import pack, unpack
from kernels.monarch.reference import weight_gradient
from kernels.triton_support import INTERPRET, TRITON_TYPES, narrow, operand

# Rows and columns of a block from which the library's batched product is the faster one.
_LIBRARY = 64


@triton.jit
def _tile(tokens, columns, BM: tl.constexpr, BN: tl.constexpr):
    """This program's rows and columns: neighbours share tiles of x and the weights in the second-level cache."""
    tiles_m = tl.cdiv(tokens, BM)
    tiles_n = tl.cdiv(columns, BN)
    group = 8 * tiles_n
    first = tl.program_id(0) // group * 8
    height = tl.minimum(tiles_m - first, 8)
    i_m = first + tl.program_id(0) % group % height
    i_n = tl.program_id(0) % group // height
    return i_m.to(tl.int64) * BM + tl.arange(0, BM), i_n * BN + tl.arange(0, BN)


@triton.jit
def block_product_kernel(
    X, W, Y, tokens, Q, P, blocks, w_block, w_row, w_column,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, TYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (tiles, blocks): Y[t, k, q] = sum_p X[t, k, p] W[k, q, p]."""
    i_k = tl.program_id(1).to(tl.int64)
    t, q = _tile(tokens, Q, BM, BN)
    p_x = X + i_k * P + t[:, None] * (blocks * P)
    p_w = W + i_k * w_block + q[None, :] * w_row
    y = tl.zeros((BM, BN), tl.float32)
    for start in range(0, P, BK):
        p = start + tl.arange(0, BK)
        x = tl.load(p_x + p[None, :], mask=(t[:, None] < tokens) & (p[None, :] < P), other=0.0)
        w = tl.load(p_w + p[:, None] * w_column, mask=(q[None, :] < Q) & (p[:, None] < P), other=0.0)
        y = tl.dot(_widened(x, TYPE), _widened(w, TYPE), y, input_precision=PRECISION)
    at = Y + i_k * Q + t[:, None] * (blocks * Q) + q[None, :]
    tl.store(at, narrow(y, TYPE), mask=(t[:, None] < tokens) & (q[None, :] < Q))


@triton.jit
def swap_axes_kernel(X, Y, rows, columns, BR: tl.constexpr, BC: tl.constexpr):
    """Grid (tokens, tiles of rows, tiles of columns): Y[t, c, r] = X[t, r, c]."""
    start = tl.program_id(0).to(tl.int64) * rows * columns
    r = tl.program_id(1) * BR + tl.arange(0, BR)
    c = tl.program_id(2) * BC + tl.arange(0, BC)
    x = tl.load(X + start + r[:, None] * columns + c[None, :], mask=(r[:, None] < rows) & (c[None, :] < columns))
    tl.store(Y + start + c[:, None] * rows + r[None, :], tl.trans(x), mask=(c[:, None] < columns) & (r[None, :] < rows))


@triton.jit
def _widened(x, TYPE: tl.constexpr):
    if INTERPRET and tl.bfloat16 == TYPE:
        return operand(x.to(tl.float32), TYPE)
    else:
        return x


@triton.jit
def block_glu_kernel(
    DY, X, GATE, VALUE, OUT, tokens, Q, P, blocks,
    ACTIVATION: tl.constexpr, BACKWARD: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, TYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (tiles, blocks): both products of a tile of x, and OUT = act(gate) value, or from DY

    the products' gradients, (T, K, 2, Q).
    """
    i_k = tl.program_id(1).to(tl.int64)
    t, q = _tile(tokens, Q, BM, BN)
    p_x = X + i_k * P + t[:, None] * (blocks * P)
    weight = i_k * Q * P + q[None, :] * P
    gate = tl.zeros((BM, BN), tl.float32)
    value = tl.zeros((BM, BN), tl.float32)
    for start in range(0, P, BK):
        p = start + tl.arange(0, BK)
        x = tl.load(p_x + p[None, :], mask=(t[:, None] < tokens) & (p[None, :] < P), other=0.0)
        inside = (q[None, :] < Q) & (p[:, None] < P)
        wg = tl.load(GATE + weight + p[:, None], mask=inside, other=0.0)
        wv = tl.load(VALUE + weight + p[:, None], mask=inside, other=0.0)
        x = _widened(x, TYPE)
        gate = tl.dot(x, _widened(wg, TYPE), gate, input_precision=PRECISION)
        value = tl.dot(x, _widened(wv, TYPE), value, input_precision=PRECISION)
    y, slope = activated(gate, ACTIVATION)
    at = t[:, None] * (blocks * Q) + i_k * Q + q[None, :]
    mask = (t[:, None] < tokens) & (q[None, :] < Q)
    if BACKWARD:
        dy = tl.load(DY + at, mask=mask, other=0.0).to(tl.float32)
        at += t[:, None] * (blocks * Q) + i_k * Q
        tl.store(OUT + at, narrow(dy * value * slope, TYPE), mask=mask)
        tl.store(OUT + at + Q, narrow(dy * y, TYPE), mask=mask)
    else:
        tl.store(OUT + at, narrow(y * value, TYPE), mask=mask)


def _tiles(tokens: int, columns: int, depth: int, products: int) -> dict[str, int]:
    """Rows, columns and depth of a program's tile; two accumulators take half the columns each."""
    wide = 128 if products == 1 else 64
    return {
        "BM": 128 if tokens > 64 else 64, "BN": wide if columns > wide // 2 else 32, "BK": 64 if depth > 32 else 32,
        "num_warps": 8 if tokens > 64 else 4, "num_stages": 3,
    }  # fmt: skip


def _precision(dtype: torch.dtype) -> str:
    return "tf32x3" if dtype == torch.float32 else "tf32"


def block_product(x: Tensor, weight: Tensor) -> Tensor:
    blocks, q, p = weight.shape
    y = x.new_empty(x.shape[0], blocks * q)
    if x.is_cuda and x.dtype != torch.float32 and min(p, q) >= _LIBRARY and p % 8 == q % 8 == 0:
        inputs, outputs = x.view(len(x), blocks, p).transpose(0, 1), y.view(len(x), blocks, q).transpose(0, 1)
        torch.bmm(inputs, weight.transpose(1, 2), out=outputs)
        return y
    tile = _tiles(len(x), q, p, 1)
    if x.dtype == torch.float32:
        tile |= {"BN": min(tile["BN"], 64), "BK": 32, "num_stages": 2}
    block_product_kernel[(triton.cdiv(len(x), tile["BM"]) * triton.cdiv(q, tile["BN"]), blocks)](
        x, weight, y, len(x), q, p, blocks, *weight.stride(),
        TYPE=TRITON_TYPES[x.dtype], PRECISION=_precision(x.dtype), **tile,
    )  # fmt: skip
    return y


def swap_axes(x: Tensor, rows: int) -> Tensor:
    y, columns = torch.empty_like(x), x.shape[1] // rows
    height, width = (min(64, max(16, triton.next_power_of_2(n))) for n in (rows, columns))
    swap_axes_kernel[(len(x), triton.cdiv(rows, height), triton.cdiv(columns, width))](x, y, rows, columns, BR=height, BC=width)
    return y


def _glu(dy: Tensor | None, x: Tensor, gate: Tensor, value: Tensor, activation: str) -> Tensor:
    """The result, or with its gradient those of both products, (T, K 2 Q)."""
    blocks, q, p = gate.shape
    tile = _tiles(len(x), q, p, 2)
    if x.dtype == torch.float32:
        tile |= {"BM": 64, "BK": 32, "num_stages": 2}
    out = x.new_empty(len(x), (1 if dy is None else 2) * blocks * q)
    block_glu_kernel[(triton.cdiv(len(x), tile["BM"]) * triton.cdiv(q, tile["BN"]), blocks)](
        dy, x, gate.contiguous(), value.contiguous(), out, len(x), q, p, blocks,
        ACTIVATION=activation, BACKWARD=dy is not None, TYPE=TRITON_TYPES[x.dtype], PRECISION=_precision(x.dtype), **tile,
    )  # fmt: skip
    return out


def _in_tiles(x: Tensor, gate: Tensor) -> bool:
    """Whether the copy engine can load this in whole tiles: 16-bit tensors, sizes in multiples of 64, an aligned base."""
    _, q, p = gate.shape
    return x.dtype in (torch.float16, torch.bfloat16) and q % 64 == 0 and p % 64 == 0 and x.data_ptr() % 16 == 0


def block_glu(x: Tensor, gate: Tensor, value: Tensor, activation: str) -> Tensor:
    return tiles.glu(None, x, gate, value, activation)[0] if _in_tiles(x, gate) else _glu(None, x, gate, value, activation)


def block_glu_backward(dy: Tensor, x: Tensor, gate: Tensor, value: Tensor, activation: str) -> tuple[Tensor, Tensor, Tensor]:
    _, q, p = gate.shape
    if not _in_tiles(x, gate) or dy.data_ptr() % 16 != 0:
        products, weights, columns = _glu(dy, x, gate, value, activation), pack(gate, value, q), q
    elif p in rows.WIDTHS:
        return rows.backward(dy, x, gate, value, activation)
    else:
        products, weights, columns = tiles.glu(dy, x, gate, value, activation)
    dx = block_product(products, weights.transpose(1, 2))
    return dx, *unpack(weight_gradient(products, x, weights), columns)


def shipped() -> Iterator[Configuration]:
    signature: dict[str, str] = dict.fromkeys(("X", "W", "Y", "DY", "GATE", "VALUE", "OUT"), "*bf16")
    signature |= dict.fromkeys(("tokens", "Q", "P", "blocks", "w_block", "w_row", "w_column", "rows", "columns"), "i32")
    number: dict[str, Any] = {"TYPE": tl.bfloat16, "PRECISION": "tf32"}
    tile = _tiles(4096, 1024, 1024, 1)
    warps, stages = tile.pop("num_warps"), tile.pop("num_stages")
    for name, dense in (("rows", "w_column"), ("columns", "w_row")):
        constants = number | tile | {dense: 1}
        name = f"block product, weights dense in {name}"
        yield Configuration(name, block_product_kernel, signature, constants, warps, stages, wgmma=True)
    yield Configuration("swap axes", swap_axes_kernel, signature, {"BR": 64, "BC": 64})
    tile = _tiles(4096, 1024, 1024, 2)
    warps, stages = tile.pop("num_warps"), tile.pop("num_stages")
    for backward in (False, True):
        constants = number | tile | {"ACTIVATION": "gelu", "BACKWARD": backward}
        name = "block GLU, " + ("backward" if backward else "forward")
        yield Configuration(name, block_glu_kernel, signature, constants, warps, stages, wgmma=True)
    yield from rows.shipped()
    yield from tiles.shipped()
