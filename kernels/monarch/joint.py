from __future__ import annotations
import torch, triton
import triton.language as tl
from kernels.monarch.activations import activated
from kernels.triton_support import INTERPRET, TRITON_TYPES, narrow, operand
from kernels.monarch.fused import _matrix, parts, _waited
from kernels.configurations import Configuration

@triton.jit
def _halves(x, BM: tl.constexpr, BN: tl.constexpr):
    return tl.split(tl.permute(tl.reshape(x, (BM, 2, BN)), (0, 2, 1)))

@triton.jit
def joint_forward(xa_desc, xb_desc, wa_desc, wb_desc, y_desc, Q,
    ACTIVATION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, PA: tl.constexpr, PB: tl.constexpr, TYPE: tl.constexpr):
    row = tl.program_id(0) * BM
    block = tl.program_id(1)
    column = block * (PA + PB)
    xa = operand(xa_desc.load([row, column]), TYPE)
    if PB:
        xb = operand(xb_desc.load([row, column + PA]), TYPE)
    for j in tl.range(0, Q, BN):
        q = block * Q + j
        both = tl.dot(xa, operand(wa_desc.load([2 * q, 0]), TYPE).T, input_precision="tf32")
        if PB:
            both = tl.dot(xb, operand(wb_desc.load([2 * q, PA]), TYPE).T, both, input_precision="tf32")
        gate, value = _halves(both, BM, BN)
        y, _ = activated(gate, ACTIVATION)
        y_desc.store([row, q], narrow(y * value, TYPE))

@triton.jit
def joint_backward(dy_desc, xa_desc, xb_desc, wa_desc, wb_desc, d_desc, dxa_desc, dxb_desc, Q,
    ACTIVATION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, PA: tl.constexpr, PB: tl.constexpr, TYPE: tl.constexpr):
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
        gate, value = _halves(both, BM, BN)
        y, slope = activated(gate, ACTIVATION)
        dy = dy_desc.load([row, q]).to(tl.float32)
        d = tl.reshape(tl.permute(tl.join(dy * value * slope, dy * y), (0, 2, 1)), (BM, 2 * BN))
        d_desc.store([row, 2 * q], narrow(d, TYPE))
        d = operand(d, TYPE)
        dxa = _waited(tl.dot(d, wa, dxa, input_precision="tf32"))
        if PB:
            dxb = _waited(tl.dot(d, wb, dxb, input_precision="tf32"))
    dxa_desc.store([row, column], narrow(dxa, TYPE))
    if PB:
        dxb_desc.store([row, column + PA], narrow(dxb, TYPE))

def configuration(name, kernel, plan, p):
    rows, columns, warps, stages = plan
    first, second = parts(p)
    widths = {"xa": (rows, first), "xb": (rows, second), "dxa": (rows, first), "dxb": (rows, second),
      "wa": (2 * columns, first), "wb": (2 * columns, second), "d": (rows, 2 * columns)}
    signature = {"Q": "i32"}
    for argument in kernel.arg_names:
        if argument.endswith("_desc"):
            r, c = widths.get(argument.removesuffix("_desc"), (rows, columns))
            signature[argument] = f"tensordesc<bf16[{r}, {max(c, 16)}]>"
    constants = {"ACTIVATION": "gelu", "BM": rows, "BN": columns, "PA": first, "PB": second, "TYPE": tl.bfloat16}
    return Configuration(name, kernel, signature, constants, warps, stages, wgmma=True)


@triton.jit
def joint_tiles(DY, x_desc, w_desc, OUT, tokens, Q, P, blocks, dy_desc, out_desc,
    ACTIVATION: tl.constexpr, BACKWARD: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, TYPE: tl.constexpr):
    """Grid (tiles, blocks)."""
    tiles_m = tl.cdiv(tokens, BM)
    tiles_n = Q // BN
    group = 8 * tiles_n
    first = tl.program_id(0) // group * 8
    height = tl.minimum(tiles_m - first, 8)
    row = (first + tl.program_id(0) % group % height) * BM
    j = tl.program_id(0) % group // height * BN
    block = tl.program_id(1)
    q = block * Q + j
    both = tl.zeros((BM, 2 * BN), tl.float32)
    for p in tl.range(0, P, BK):
        x = operand(x_desc.load([row, block * P + p]), TYPE)
        w = operand(w_desc.load([2 * q, p]), TYPE)
        both = _waited(tl.dot(x, w.T, both, input_precision="tf32"))
    gate, value = _halves(both, BM, BN)
    y, slope = activated(gate, ACTIVATION)
    if BACKWARD:
        dy = dy_desc.load([row, q]).to(tl.float32)
        d = tl.reshape(tl.permute(tl.join(dy * value * slope, dy * y), (0, 2, 1)), (BM, 2 * BN))
        out_desc.store([row, 2 * q], narrow(d, TYPE))
    else:
        out_desc.store([row, q], narrow(y * value, TYPE))


@triton.jit
def joint_weights(d_desc, xa_desc, xb_desc, SHARES, tokens, Q2, P, step,
    BR: tl.constexpr, BK: tl.constexpr, PA: tl.constexpr, PB: tl.constexpr, TYPE: tl.constexpr):
    """Grid (tiles of BR rows, blocks, splits): SHARES (splits, K, 2 Q, P) = sums over step tokens of d^T x."""
    r = tl.program_id(0) * BR
    block = tl.program_id(1)
    start = tl.program_id(2) * step
    a = tl.zeros((BR, PA), tl.float32)
    if PB:
        b = tl.zeros((BR, PB), tl.float32)
    for t in tl.range(start, tl.minimum(start + step, tokens), BK):
        d = operand(d_desc.load([t, block * Q2 + r]), TYPE).T
        a = tl.dot(d, operand(xa_desc.load([t, block * P]), TYPE), a, input_precision="tf32")
        if PB:
            b = tl.dot(d, operand(xb_desc.load([t, block * P + PA]), TYPE), b, input_precision="tf32")
    rows = (tl.program_id(2) * tl.num_programs(1) + block).to(tl.int64) * Q2 + r + tl.arange(0, BR)
    tl.store(SHARES + rows[:, None] * P + tl.arange(0, PA)[None, :], a)
    if PB:
        tl.store(SHARES + rows[:, None] * P + PA + tl.arange(0, PB)[None, :], b)


@triton.jit
def joint_sum(SHARES, DGATE, DVALUE, splits, n, N: tl.constexpr, BLOCK: tl.constexpr):
    """Grid (2 K Q P / BLOCK): sums over splits; runs of N = BN P numbers are the gate's and the value's in turn."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for s in range(splits):
        total += tl.load(SHARES + s * n + i, mask=i < n, other=0.0)
    run = i // N
    at = run // 2 * N + i % N
    tl.store(DGATE + at, narrow(total, DGATE.dtype.element_ty), mask=(i < n) & (run % 2 == 0))
    tl.store(DVALUE + at, narrow(total, DVALUE.dtype.element_ty), mask=(i < n) & (run % 2 == 1))


def pack(gate, value, columns):
    """(K, 2 Q, P): stretches of so many rows of the gate and of the value in turn."""
    blocks, q, p = gate.shape
    shape = (blocks, q // columns, columns, p)
    return torch.stack((gate.view(shape), value.view(shape)), 2).view(blocks, 2 * q, p)

def unpack(w, columns):
    blocks, q, p = w.shape
    return tuple(h.reshape(blocks, q // 2, p) for h in w.view(blocks, q // 2 // columns, 2, columns, p).unbind(2))

def rows_forward(x, gate, value, activation, plan):
    blocks, q, p = gate.shape
    rows, columns, warps, stages = plan
    first, second = parts(p)
    y = x.new_empty(len(x), blocks * q)
    w = pack(gate, value, columns)
    joint_forward[(triton.cdiv(len(x), rows), blocks)](
        *(_matrix(x, rows, c) for c in (first, second)), *(_matrix(w, 2 * columns, c) for c in (first, second)),
        _matrix(y, rows, columns), q, ACTIVATION=activation, BM=rows, BN=columns, PA=first, PB=second, TYPE=TRITON_TYPES[x.dtype],
        num_warps=warps, num_stages=stages)
    return y

def rows_backward(dy, x, gate, value, activation, plan):
    blocks, q, p = gate.shape
    rows, columns, warps, stages = plan
    first, second = parts(p)
    dx, d = torch.empty_like(x), x.new_empty(len(x), 2 * blocks * q)
    w = pack(gate, value, columns)
    joint_backward[(triton.cdiv(len(x), rows), blocks)](
        _matrix(dy, rows, columns),
        *(_matrix(x, rows, c) for c in (first, second)), *(_matrix(w, 2 * columns, c) for c in (first, second)),
        _matrix(d, rows, 2 * columns), *(_matrix(dx, rows, c) for c in (first, second)), q,
        ACTIVATION=activation, BM=rows, BN=columns, PA=first, PB=second, TYPE=TRITON_TYPES[x.dtype],
        num_warps=warps, num_stages=stages)
    return dx, d

def tiles(dy, x, gate, value, activation, plan, w=None):
    blocks, q, p = gate.shape
    rows, columns, depth, warps, stages = plan
    w = pack(gate, value, columns) if w is None else w
    out = x.new_empty(len(x), (1 if dy is None else 2) * blocks * q)
    joint_tiles[(triton.cdiv(len(x), rows) * (q // columns), blocks)](
        None, _matrix(x, rows, depth), _matrix(w, 2 * columns, depth), None, len(x), q, p, blocks,
        None if dy is None else _matrix(dy, rows, columns), _matrix(out, rows, columns * (1 if dy is None else 2)),
        ACTIVATION=activation, BACKWARD=dy is not None, BM=rows, BN=columns, BK=depth, TYPE=TRITON_TYPES[x.dtype],
        num_warps=warps, num_stages=stages)
    return out

def weights_bmm(d, x, shape, columns):
    blocks, q, p = shape
    w = torch.bmm(d.view(len(d), blocks, 2 * q).permute(1, 2, 0), x.view(len(x), blocks, p).transpose(0, 1))
    return unpack(w, columns)

def weights_split(d, x, shape, columns, plan, maxnreg=None):
    blocks, q, p = shape
    rows, depth, splits, warps, stages = plan
    first, second = parts(p)
    step = triton.cdiv(triton.cdiv(len(x), depth), splits) * depth
    splits = triton.cdiv(len(x), step)
    shares = torch.empty(splits, blocks, 2 * q, p, dtype=torch.float32, device=x.device)
    joint_weights[(2 * q // rows, blocks, splits)](
        _matrix(d, depth, rows), *(_matrix(x, depth, c) for c in (first, second)), shares, len(x), 2 * q, p, step,
        BR=rows, BK=depth, PA=first, PB=second, TYPE=TRITON_TYPES[x.dtype], num_warps=warps, num_stages=stages, maxnreg=maxnreg)
    dgate, dvalue = (x.new_empty(shape) for _ in range(2))
    n = 2 * blocks * q * p
    joint_sum[(triton.cdiv(n, 1024),)](shares, dgate, dvalue, splits, n, N=columns * p, BLOCK=1024)
    return dgate, dvalue

def input_bmm(d, w, x):
    blocks, q2, p = w.shape
    dx = torch.empty_like(x)
    torch.bmm(d.view(len(d), blocks, q2).transpose(0, 1), w, out=dx.view(len(x), blocks, p).transpose(0, 1))
    return dx
