"""The GLU of block-diagonal products with rows of x that stay on the SM: one program walks over all columns of its block.

Its backward pass sums dx in registers on the way, so that the products' gradients are written for the weights alone. For 16-bit
tensors and blocks of 64, 128, 192 or 256 columns of x, whose dx fits in registers.
"""

# Triton's decorators hide from type checkers how kernels are launched.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels.configurations import Configuration
from kernels.monarch.activations import activated
from kernels.triton_support import INTERPRET, TRITON_TYPES, narrow, operand

# Rows, columns of the gate and of the value, warps, stages, by direction.
FORWARD = (128, 64, 8, 2)
BACKWARD = (128, 64, 8, 2)


@triton.jit
def glu_rows_kernel(
    xa_desc, xb_desc, gate_a_desc, gate_b_desc, value_a_desc, value_b_desc, y_desc, Q,
    ACTIVATION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, PA: tl.constexpr, PB: tl.constexpr, TYPE: tl.constexpr,
    WS: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of BM rows, blocks): y = act(gate) value of rows of x, whose columns come as the first PA and the other PB."""
    row = tl.program_id(0) * BM
    block = tl.program_id(1)
    column = block * (PA + PB)
    xa = operand(xa_desc.load([row, column]), TYPE)
    if PB:
        xb = operand(xb_desc.load([row, column + PA]), TYPE)
    for j in tl.range(0, Q, BN, warp_specialize=WS):
        q = block * Q + j
        gate = tl.dot(xa, operand(gate_a_desc.load([q, 0]), TYPE).T, input_precision="tf32")
        if PB:
            gate = tl.dot(xb, operand(gate_b_desc.load([q, PA]), TYPE).T, gate, input_precision="tf32")
        value = tl.dot(xa, operand(value_a_desc.load([q, 0]), TYPE).T, input_precision="tf32")
        if PB:
            value = tl.dot(xb, operand(value_b_desc.load([q, PA]), TYPE).T, value, input_precision="tf32")
        y, _ = activated(gate, ACTIVATION)
        y_desc.store([row, q], narrow(y * value, TYPE))


@triton.jit
def _waited(x):
    """x, used here by no instruction: products that are under way when a loop starts over are run one by one by the assembler."""
    if INTERPRET:
        return x
    else:
        return tl.inline_asm_elementwise("", "=f,0", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def glu_rows_backward_kernel(
    dy_desc, xa_desc, xb_desc, gate_a_desc, gate_b_desc, value_a_desc, value_b_desc, d_desc, dxa_desc, dxb_desc, Q,
    ACTIVATION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, PA: tl.constexpr, PB: tl.constexpr, TYPE: tl.constexpr,
    WS: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of BM rows, blocks): the gradients of both products, (T, K, 2, Q), and dx, their sum over Q times weights."""
    row = tl.program_id(0) * BM
    block = tl.program_id(1)
    column = block * (PA + PB)
    xa = operand(xa_desc.load([row, column]), TYPE)
    dxa = tl.zeros((BM, PA), tl.float32)
    if PB:
        xb = operand(xb_desc.load([row, column + PA]), TYPE)
        dxb = tl.zeros((BM, PB), tl.float32)
    for j in tl.range(0, Q, BN, warp_specialize=WS):
        q = block * Q + j
        gate_a = operand(gate_a_desc.load([q, 0]), TYPE)
        value_a = operand(value_a_desc.load([q, 0]), TYPE)
        gate = tl.dot(xa, gate_a.T, input_precision="tf32")
        value = tl.dot(xa, value_a.T, input_precision="tf32")
        if PB:
            gate_b = operand(gate_b_desc.load([q, PA]), TYPE)
            value_b = operand(value_b_desc.load([q, PA]), TYPE)
            gate = tl.dot(xb, gate_b.T, gate, input_precision="tf32")
            value = tl.dot(xb, value_b.T, value, input_precision="tf32")
        y, slope = activated(gate, ACTIVATION)
        dy = dy_desc.load([row, q]).to(tl.float32)
        dgate = dy * value * slope
        dvalue = dy * y
        d_desc.store([row, block * 2 * Q + j], narrow(dgate, TYPE))
        d_desc.store([row, block * 2 * Q + Q + j], narrow(dvalue, TYPE))
        dgate = operand(dgate, TYPE)
        dvalue = operand(dvalue, TYPE)
        dxa = tl.dot(dgate, gate_a, dxa, input_precision="tf32")
        dxa = tl.dot(dvalue, value_a, dxa, input_precision="tf32")
        if PB:
            dxb = tl.dot(dgate, gate_b, dxb, input_precision="tf32")
            dxb = _waited(tl.dot(dvalue, value_b, dxb, input_precision="tf32"))
        dxa = _waited(dxa)
    dxa_desc.store([row, column], narrow(dxa, TYPE))
    if PB:
        dxb_desc.store([row, column + PA], narrow(dxb, TYPE))


def parts(columns: int) -> tuple[int, int]:
    """Columns of a block as two powers of two, or one and none."""
    first = 1 << (columns.bit_length() - 1)
    return first, columns - first


def fits(x: Tensor, gate: Tensor, value: Tensor, *others: Tensor) -> bool:
    """Whether the kernels take this: 16-bit tensors, whole tiles of columns, bases that descriptors take."""
    _, q, p = gate.shape
    return (
        x.dtype in (torch.float16, torch.bfloat16)
        and p in (64, 128, 192, 256)
        and q % max(FORWARD[1], BACKWARD[1]) == 0
        and all(t.data_ptr() % 16 == 0 for t in (x, gate, value, *others))
    )


def _matrix(x: Tensor, rows: int, columns: int) -> TensorDescriptor:
    """Tiles of so many rows and columns of a contiguous tensor seen as a matrix."""
    width = x.shape[-1]
    return TensorDescriptor(x, [x.numel() // width, width], [width, 1], [rows, max(columns, 16)])


def _inputs(x: Tensor, gate: Tensor, value: Tensor, rows: int, columns: int) -> list[TensorDescriptor]:
    first, second = parts(gate.shape[2])
    return [_matrix(x, rows, p) for p in (first, second)] + [_matrix(w, columns, p) for w in (gate, value) for p in (first, second)]


def block_glu(x: Tensor, gate: Tensor, value: Tensor, activation: str, plan=None, ws=False) -> Tensor:
    blocks, q, p = gate.shape
    rows, columns, warps, stages = plan or FORWARD
    first, second = parts(p)
    y = x.new_empty(len(x), blocks * q)
    if len(x):
        glu_rows_kernel[(triton.cdiv(len(x), rows), blocks)](
            *_inputs(x, gate, value, rows, columns), _matrix(y, rows, columns), q,
            ACTIVATION=activation, BM=rows, BN=columns, PA=first, PB=second, TYPE=TRITON_TYPES[x.dtype], WS=ws,
            num_warps=warps, num_stages=stages,
        )  # fmt: skip
    return y


def block_glu_backward(
    dy: Tensor, x: Tensor, gate: Tensor, value: Tensor, activation: str, plan=None, ws=False
) -> tuple[Tensor, Tensor]:
    """dx and the gradients of both products, (T, K 2 Q)."""
    blocks, q, p = gate.shape
    rows, columns, warps, stages = plan or BACKWARD
    first, second = parts(p)
    dx, products = torch.empty_like(x), x.new_empty(len(x), 2 * blocks * q)
    if len(x):
        glu_rows_backward_kernel[(triton.cdiv(len(x), rows), blocks)](
            _matrix(dy, rows, columns), *_inputs(x, gate, value, rows, columns), _matrix(products, rows, columns),
            *(_matrix(dx, rows, part) for part in (first, second)), q,
            ACTIVATION=activation, BM=rows, BN=columns, PA=first, PB=second, TYPE=TRITON_TYPES[x.dtype], WS=ws,
            num_warps=warps, num_stages=stages,
        )  # fmt: skip
    return dx, products


def configuration(name: str, kernel, plan, p: int, ws: bool = False) -> Configuration:
    rows, columns, warps, stages = plan
    first, second = parts(p)
    widths = {"xa": (rows, first), "xb": (rows, second), "dxa": (rows, first), "dxb": (rows, second)}
    for w in ("gate", "value"):
        widths |= {f"{w}_a": (columns, first), f"{w}_b": (columns, second)}
    signature = {"Q": "i32"}
    for argument in kernel.arg_names:
        if argument.endswith("_desc"):
            r, c = widths.get(argument.removesuffix("_desc"), (rows, columns))
            signature[argument] = f"tensordesc<bf16[{r}, {max(c, 16)}]>"
    constants = {"ACTIVATION": "gelu", "BM": rows, "BN": columns, "PA": first, "PB": second, "TYPE": tl.bfloat16, "WS": ws}
    return Configuration(name, kernel, signature, constants, warps, stages, wgmma=True)


def shipped() -> Iterator[Configuration]:
    for p in (192, 256):
        yield configuration(f"GLU of rows, {p} columns, forward", glu_rows_kernel, FORWARD, p)
        yield configuration(f"GLU of rows, {p} columns, backward", glu_rows_backward_kernel, BACKWARD, p)
