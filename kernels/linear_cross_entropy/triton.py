"""Chunked cross entropy: cuBLAS for the products, Triton for what lies between them."""

# Triton's decorators hide from type checkers how kernels are launched.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.configurations import Configuration
from kernels.linear_cross_entropy.reference import shares
from kernels.triton_support import narrow

_BLOCK, _WARPS = 16384, 16
_WIDTH_BLOCK = 1024
_SCALE_BLOCK = 4096
_IGNORED = -1


@triton.jit
def _add_block(p_row, n, mask, peak, total):
    """The running maximum, and the sum of exponentials relative to it, with a block more."""
    if mask is None:
        x = tl.load(p_row + n, eviction_policy="evict_last").to(tl.float32)
    else:
        x = tl.load(p_row + n, mask=mask, other=-float("inf"), eviction_policy="evict_last").to(tl.float32)
    higher = tl.maximum(peak, tl.max(x))
    # The difference first: products with log2(e), one fused with the difference, differ by lost digits, large for huge x.
    return higher, total * tl.exp(peak - higher) + tl.sum(tl.exp(x - higher))


@triton.jit
def _write_block(p_row, n, mask, lse, pull):
    if mask is None:
        x = tl.load(p_row + n, eviction_policy="evict_first").to(tl.float32)
    else:
        x = tl.load(p_row + n, mask=mask, other=0.0, eviction_policy="evict_first").to(tl.float32)
    # lse is no less than x but for its rounding, which is large for huge x.
    below = tl.minimum(x - lse, 0.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(p_row + n, narrow(pull * tl.exp(below), p_row.dtype.element_ty), mask=mask)


@triton.jit
def softmax_gradient_kernel(
    p_logits, p_hidden, p_weight, p_target, p_share, p_loss, p_lse, V, D, logits_row, hidden_row, weight_row, z_loss,
    GRADIENT: tl.constexpr, BV: tl.constexpr, TAIL: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Grid (tokens,). Reads a row of logits twice, the second time from L2, and writes their gradient over them.

    Blocks of BV columns need no mask; what is left of a row is one block of TAIL, 0 if nothing is.
    """
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(p_target + row)
    logits = p_logits + row * logits_row
    dtype = p_logits.dtype.element_ty
    whole = V // BV * BV
    tail = whole + tl.arange(0, TAIL if TAIL > 0 else 1)
    if target == -1:
        tl.store(p_loss + row, 0.0)
        tl.store(p_lse + row, 0.0)
        if GRADIENT:
            for start in range(0, whole, BV):
                tl.store(logits + start + tl.arange(0, BV), tl.zeros([BV], tl.float32).to(dtype))
            if TAIL > 0:
                tl.store(logits + tail, tl.zeros([TAIL], tl.float32).to(dtype), mask=tail < V)
    else:
        known = (target >= 0) & (target < V)
        products = tl.zeros([BD], tl.float32)
        for start in range(0, D, BD):
            d = start + tl.arange(0, BD)
            hidden = tl.load(p_hidden + row * hidden_row + d, mask=d < D, other=0.0).to(tl.float32)
            products += hidden * tl.load(p_weight + target * weight_row + d, mask=(d < D) & known, other=0.0).to(tl.float32)
        exact = tl.sum(products)
        rounded = tl.load(logits + target, mask=known, other=0.0).to(tl.float32)
        peak = tl.maximum(exact, rounded)
        total = 0.0
        for start in range(0, whole, BV):
            peak, total = _add_block(logits, start + tl.arange(0, BV), None, peak, total)
        if TAIL > 0:
            peak, total = _add_block(logits, tail, tail < V, peak, total)
        # The target's own logit counts as it is, not as it was rounded.
        rest = tl.maximum(total - tl.exp(rounded - peak), 0.0, propagate_nan=tl.PropagateNan.ALL)
        total = rest + tl.exp(exact - peak)
        # No less than the target's own, where it outweighs all others so far that its rounding took their sum with it.
        lse = tl.where(total == 0.0, exact, peak + tl.log(total))
        share = tl.load(p_share + row)
        tl.store(p_loss + row, tl.where(known, lse - exact, float("nan")))
        tl.store(p_lse + row, lse)
        if GRADIENT:
            pull = share * (1.0 + 2.0 * z_loss * lse)
            for start in range(0, whole, BV):
                _write_block(logits, start + tl.arange(0, BV), None, lse, pull)
            if TAIL > 0:
                _write_block(logits, tail, tail < V, lse, pull)
            tl.debug_barrier()  # the target's column was written by another thread
            own = pull * tl.exp(exact - lse) - share
            tl.store(logits + target, narrow(own, dtype), mask=known)


@triton.jit
def scale_kernel(p_x, p_factor, count, BLOCK: tl.constexpr):
    factor = tl.load(p_factor)
    if factor != 1.0:
        i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        x = tl.load(p_x + i, mask=i < count).to(tl.float32)
        tl.store(p_x + i, narrow(x * factor, p_x.dtype.element_ty), mask=i < count)


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor | None, mean: bool, scale: float, z_loss: float,
    ignore_index: int, chunk: int, accumulate: torch.dtype, hidden_gradient: bool, weight_gradient: bool,
    block: int = _BLOCK, warps: int = _WARPS,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """As the operator menagerie::linear_cross_entropy. block, warps: for benchmarks."""
    tokens, width = hidden.shape
    vocabulary = weight.shape[0]
    dtype, gradient = hidden.dtype, hidden_gradient or weight_gradient
    matrix = weight.to(dtype)
    matrix = matrix if matrix.stride(1) == 1 else matrix.contiguous()
    hidden = hidden.contiguous()
    share = shares(targets, weights, mean, scale, ignore_index).float()
    factor = torch.ones((), dtype=torch.float32, device=hidden.device)
    inner = share
    if dtype == torch.float16:  # shares of 1 / tokens would vanish in it, so they wait for the end
        inner = shares(targets, weights, False, 1.0, ignore_index).float()
        factor = shares(targets, weights, mean, scale, ignore_index).sum().float() / _or_one(inner.sum())
    targets = torch.where(targets == ignore_index, _IGNORED, torch.where(targets == _IGNORED, vocabulary, targets))
    losses, lse = (torch.empty(tokens, dtype=torch.float32, device=hidden.device) for _ in range(2))
    dhidden = torch.empty(tokens if hidden_gradient else 0, width, dtype=dtype, device=hidden.device)
    total = torch.empty(weight.shape if weight_gradient else 0, dtype=accumulate, device=hidden.device)
    chunk = min(chunk, max(tokens, 1))
    # Rows start at multiples of 128 bytes, whatever the vocabulary.
    buffer = torch.empty(chunk, -(-vocabulary // 64) * 64, dtype=dtype, device=hidden.device)[:, :vocabulary]
    logits = buffer
    for start in range(0, tokens, chunk):
        part = slice(start, min(start + chunk, tokens))
        count = part.stop - start
        logits = buffer[:count]
        torch.mm(hidden[part], matrix.t(), out=logits)
        with torch.cuda.device_of(hidden):
            softmax_gradient_kernel[(count,)](
                logits, hidden[part], matrix, targets[part], inner[part], losses[part], lse[part],
                vocabulary, width, logits.stride(0), hidden.stride(0), matrix.stride(0), z_loss,
                GRADIENT=gradient, BV=block, TAIL=_tail(vocabulary, block), BD=_WIDTH_BLOCK, num_warps=warps,
            )  # fmt: skip
        if hidden_gradient:
            torch.mm(logits, matrix, out=dhidden[part])
        if weight_gradient:
            _add_product(total, logits.t(), hidden[part], first=start == 0)
    if tokens == 0:
        total.zero_()
    del buffer, logits  # before the gradient is narrowed, which takes memory too
    # Without a penalty its square must not come in: of huge logits it is infinite, and nothing of infinity is NaN.
    loss = torch.sum(share * (losses + z_loss * lse.square() if z_loss else losses))
    dhidden = dhidden if hidden_gradient else dhidden.view(0)
    return loss, losses, dhidden, total.to(weight.dtype), factor


def _add_product(total: Tensor, a: Tensor, b: Tensor, first: bool) -> None:
    """total += a @ b, summed in total's dtype; total = a @ b at first."""
    if total.dtype == a.dtype:
        total.addmm_(a, b, beta=0 if first else 1)
    elif a.is_cuda:  # cuBLAS reads narrow factors and adds to float32
        torch.ops.aten.addmm.dtype_out(total, a, b, total.dtype, beta=0 if first else 1, out=total)
    else:
        total.addmm_(a.to(total.dtype), b.to(total.dtype), beta=0 if first else 1)


def _tail(vocabulary: int, block: int) -> int:
    rest = vocabulary % block
    return triton.next_power_of_2(rest) if rest else 0


def _or_one(x: Tensor) -> Tensor:
    return torch.where(x == 0, 1.0, x)


def scale(gradient: Tensor, factor: Tensor) -> None:
    """gradient *= factor (a scalar on the device), in place; no memory traffic where it is 1."""
    count = gradient.numel()
    if count:
        with torch.cuda.device_of(gradient):
            scale_kernel[(triton.cdiv(count, _SCALE_BLOCK),)](gradient, factor, count, BLOCK=_SCALE_BLOCK, num_warps=8)


def shipped() -> Iterator[Configuration]:
    for gradient in (True, False):
        pointers = dict.fromkeys(("p_logits", "p_hidden", "p_weight"), "*bf16") | dict.fromkeys(
            ("p_share", "p_loss", "p_lse"), "*fp32"
        )
        sizes = dict.fromkeys(("V", "D", "logits_row", "hidden_row", "weight_row"), "i32")
        signature = pointers | {"p_target": "*i64", "z_loss": "fp32"} | sizes
        constants = {"GRADIENT": gradient, "BV": _BLOCK, "TAIL": _tail(50304, _BLOCK), "BD": _WIDTH_BLOCK}
        yield Configuration(f"gradient {gradient}", softmax_gradient_kernel, signature, constants, _WARPS)
    yield Configuration(
        "scale", scale_kernel, {"p_x": "*bf16", "p_factor": "*fp32", "count": "i32"}, {"BLOCK": _SCALE_BLOCK}, 8
    )
