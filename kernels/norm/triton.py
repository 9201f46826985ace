"""Norms in Triton: rows live in registers, so each array passes through memory once."""

# Triton's decorators hide from type checkers how kernels are launched.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.column_sums import column_sums, shipped_sums
from kernels.configurations import Configuration
from kernels.rows import processors, rows_of
from kernels.triton_support import narrow, operand


@triton.jit
def norm_fwd_kernel(
    p_x, p_residual, p_x_bias, p_weight, p_bias, p_y, p_sum, p_mean, p_rstd, rows, x_row, residual_row, eps,
    N: tl.constexpr, BR: tl.constexpr, BN: tl.constexpr,
    CENTRED: tl.constexpr, HAS_RESIDUAL: tl.constexpr, HAS_X_BIAS: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of BR rows,). x, residual: (rows, N) with a row stride; y, sum: (rows, N) contiguous."""
    r = (tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR))[:, None]  # [BR, 1]
    n = tl.arange(0, BN)[None, :]  # [1, BN]
    inside = (r < rows) & (n < N)
    x = tl.load(p_x + r * x_row + n, mask=inside, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        x += tl.load(p_residual + r * residual_row + n, mask=inside, other=0.0).to(tl.float32)
        if HAS_X_BIAS:
            x += tl.load(p_x_bias + n, mask=n < N, other=0.0).to(tl.float32)
        # Later layers read the rounded sum, so that is what is normalised.
        x = operand(x, p_sum.dtype.element_ty).to(tl.float32)
        tl.store(p_sum + r * N + n, narrow(x, p_sum.dtype.element_ty), mask=inside)
    rr = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    if CENTRED:
        mean = tl.sum(x, 1) / N
        tl.store(p_mean + rr, mean, mask=rr < rows)
        x = tl.where(n < N, x - mean[:, None], 0.0)
    rstd = 1.0 / tl.sqrt_rn(tl.sum(x * x, 1) / N + eps)
    tl.store(p_rstd + rr, rstd, mask=rr < rows)
    y = x * rstd[:, None] * tl.load(p_weight + n, mask=n < N, other=0.0).to(tl.float32)
    if HAS_BIAS:
        y += tl.load(p_bias + n, mask=n < N, other=0.0).to(tl.float32)
    tl.store(p_y + r * N + n, narrow(y, p_y.dtype.element_ty), mask=inside)


@triton.jit
def norm_bwd_kernel(
    p_dy, p_dsum, p_sum, p_weight, p_mean, p_rstd, p_ds, p_dx, p_dweight, p_dbias, p_dx_bias, rows, dy_row, dsum_row, sum_row,
    N: tl.constexpr, BR: tl.constexpr, BN: tl.constexpr, STAGES: tl.constexpr, CENTRED: tl.constexpr,
    HAS_DSUM: tl.constexpr, HAS_DX: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_X_BIAS: tl.constexpr,
):  # fmt: skip
    """Grid (programs,): each walks every programs-th tile of BR rows and leaves its share of the vectors' gradients."""
    n = tl.arange(0, BN)[None, :]
    w = tl.load(p_weight + n, mask=n < N, other=0.0).to(tl.float32)
    dw = tl.zeros([BR, BN], tl.float32)
    db = tl.zeros([BR, BN], tl.float32)
    dxb = tl.zeros([BR, BN], tl.float32)
    for tile in tl.range(tl.program_id(0), tl.cdiv(rows, BR), tl.num_programs(0), num_stages=STAGES):
        rr = tile * BR + tl.arange(0, BR).to(tl.int64)
        r = rr[:, None]
        inside = (r < rows) & (n < N)
        dy = tl.load(p_dy + r * dy_row + n, mask=inside, other=0.0).to(tl.float32)
        x = tl.load(p_sum + r * sum_row + n, mask=inside, other=0.0).to(tl.float32)
        rstd = tl.load(p_rstd + rr, mask=rr < rows, other=0.0)
        if CENTRED:
            mean = tl.load(p_mean + rr, mask=rr < rows, other=0.0)
            x = x - mean[:, None]
        x = tl.where(inside, x * rstd[:, None], 0.0)
        wdy = w * dy
        ds = wdy - x * (tl.sum(x * wdy, 1) / N)[:, None]
        if CENTRED:
            ds -= (tl.sum(wdy, 1) / N)[:, None]
        ds = ds * rstd[:, None]
        if HAS_DSUM:
            ds += tl.load(p_dsum + r * dsum_row + n, mask=inside, other=0.0).to(tl.float32)
        tl.store(p_ds + r * N + n, narrow(ds, p_ds.dtype.element_ty), mask=inside)
        if HAS_DX:
            tl.store(p_dx + r * N + n, narrow(ds, p_dx.dtype.element_ty), mask=inside)
        dw += dy * x
        if HAS_BIAS:
            db += dy
        if HAS_X_BIAS:
            dxb += tl.where(inside, ds, 0.0)
    at = tl.program_id(0).to(tl.int64) * N + tl.arange(0, BN)
    within = tl.arange(0, BN) < N
    tl.store(p_dweight + at, tl.sum(dw, 0), mask=within)
    if HAS_BIAS:
        tl.store(p_dbias + at, tl.sum(db, 0), mask=within)
    if HAS_X_BIAS:
        tl.store(p_dx_bias + at, tl.sum(dxb, 0), mask=within)


class Plan(NamedTuple):
    """How a width is run: rows per tile, columns of the tile, warps; stages and programs per SM of the backward walk."""

    rows: int
    columns: int
    warps: int
    stages: int = 1
    per_sm: int = 1


def forward_plan(width: int) -> Plan:
    columns = triton.next_power_of_2(width)
    rows = max(1, 2048 // columns)
    return Plan(rows, columns, max(rows * columns // 512, 1))


def backward_plan(width: int) -> Plan:
    columns = triton.next_power_of_2(width)
    if columns <= 1024:
        return Plan(1024 // columns, columns, 4, 3, 4)
    return {2048: Plan(1, 2048, 8, 3, 2), 4096: Plan(1, 4096, 8, 4, 1), 8192: Plan(1, 8192, 16, 3, 1)}[columns]


def _fitting(plan: Plan, *read: Tensor | None) -> Plan:
    """The plan, without its stages where a multiprocessor has too little shared memory for them (other cards than Hopper's)."""
    tile = plan.rows * plan.columns * sum(x.element_size() for x in read if x is not None)
    device = read[0].device if read[0] is not None else None
    if device is None or device.type != "cuda":
        return plan
    there = torch.cuda.get_device_properties(device).shared_memory_per_block_optin
    return plan if plan.stages * tile <= there else plan._replace(stages=1)


def norm(
    x: Tensor, residual: Tensor | None, x_bias: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float, centred: bool,
    dtype: torch.dtype, plan: Plan | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """As the operator menagerie::norm. plan: for benchmarks; None: the one that ships."""
    width = x.shape[-1]
    flat, flat_residual = rows_of(x), None if residual is None else rows_of(residual)
    rows = flat.shape[0]
    y = torch.empty(x.shape, dtype=dtype, device=x.device)
    total = y.new_empty(0, dtype=x.dtype) if residual is None else torch.empty(x.shape, dtype=residual.dtype, device=x.device)
    rstd = torch.empty(rows, dtype=torch.float32, device=x.device)
    mean = torch.empty_like(rstd) if centred else rstd.new_empty(0)
    plan = plan or forward_plan(width)
    if rows:
        with torch.cuda.device_of(x):
            norm_fwd_kernel[(triton.cdiv(rows, plan.rows),)](
                flat, flat_residual, _vector(x_bias), _vector(weight), _vector(bias), y, total, mean, rstd,
                rows, flat.stride(0), 0 if flat_residual is None else flat_residual.stride(0), eps,
                N=width, BR=plan.rows, BN=plan.columns, CENTRED=centred, HAS_RESIDUAL=residual is not None,
                HAS_X_BIAS=x_bias is not None, HAS_BIAS=bias is not None, num_warps=plan.warps,
            )  # fmt: skip
    return y, total, mean, rstd


def norm_backward(
    dy: Tensor, dsum: Tensor | None, total: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, x_dtype: torch.dtype,
    centred: bool, has_bias: bool, has_x_bias: bool, plan: Plan | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """As the operator menagerie::norm_backward."""
    width = total.shape[-1]
    plan = plan or _fitting(backward_plan(width), dy, dsum, total)
    gradient, flat = rows_of(dy), rows_of(total)
    flat_dsum = None if dsum is None else rows_of(dsum)
    rows = flat.shape[0]
    ds = torch.empty(total.shape, dtype=total.dtype, device=total.device)
    dx = torch.empty(total.shape if x_dtype != total.dtype else (0,), dtype=x_dtype, device=total.device)
    programs = min(triton.cdiv(rows, plan.rows), plan.per_sm * processors(total))
    shares = torch.empty(1 + has_bias + has_x_bias, programs, width, dtype=torch.float32, device=total.device)
    if rows:
        with torch.cuda.device_of(total):
            norm_bwd_kernel[(programs,)](
                gradient, flat_dsum, flat, _vector(weight), mean, rstd, ds, dx,
                shares[0], shares[1] if has_bias else None, shares[1 + has_bias] if has_x_bias else None,
                rows, gradient.stride(0), 0 if flat_dsum is None else flat_dsum.stride(0), flat.stride(0),
                N=width, BR=plan.rows, BN=plan.columns, STAGES=plan.stages, CENTRED=centred, HAS_DSUM=dsum is not None,
                HAS_DX=x_dtype != total.dtype, HAS_BIAS=has_bias, HAS_X_BIAS=has_x_bias, num_warps=plan.warps,
            )  # fmt: skip
    vectors = column_sums(shares, [weight.dtype] * (1 + has_bias + has_x_bias))
    dbias = vectors[1] if has_bias else weight.new_empty(0)
    return ds, dx, vectors[0], dbias, vectors[-1] if has_x_bias else weight.new_empty(0)


def _vector(v: Tensor | None) -> Tensor | None:
    return None if v is None else v.contiguous()


def shipped() -> Iterator[Configuration]:
    """Every width class in bfloat16, with all that can be fused, which takes the most registers; one with nothing."""
    yield shipped_sums()
    for width in (768, 2048, 4096, 8192):
        forward, backward = forward_plan(width), backward_plan(width)
        tensor = {"p_x": "*bf16", "p_residual": "*fp32", "p_x_bias": "*fp32", "p_y": "*bf16", "p_sum": "*fp32"}
        floats = dict.fromkeys(("p_weight", "p_bias", "p_mean", "p_rstd"), "*fp32")
        flags: dict[str, Any] = {"CENTRED": True, "HAS_BIAS": True, "HAS_X_BIAS": True}
        sizes = {"rows": "i32", "x_row": "i32", "residual_row": "i32", "eps": "fp32"}
        shape = {"N": width, "BR": forward.rows, "BN": forward.columns, "HAS_RESIDUAL": True}
        yield Configuration(f"forward {width}", norm_fwd_kernel, tensor | floats | sizes, shape | flags, forward.warps)
        tensor = {"p_dy": "*bf16", "p_dsum": "*fp32", "p_sum": "*fp32", "p_ds": "*fp32", "p_dx": "*bf16"}
        floats |= dict.fromkeys(("p_dweight", "p_dbias", "p_dx_bias"), "*fp32")
        sizes = dict.fromkeys(("rows", "dy_row", "dsum_row", "sum_row"), "i32")
        shape = {"N": width, "BR": backward.rows, "BN": backward.columns, "STAGES": backward.stages}
        flags |= {"HAS_DSUM": True, "HAS_DX": True}
        yield Configuration(f"backward {width}", norm_bwd_kernel, tensor | floats | sizes, shape | flags, backward.warps)
        if width != 2048:
            continue
        plain = shape | {"CENTRED": False, "HAS_BIAS": False, "HAS_X_BIAS": False, "HAS_DSUM": True, "HAS_DX": False}
        tensor |= {"p_dsum": "*bf16", "p_sum": "*bf16", "p_ds": "*bf16"}
        yield Configuration(f"backward {width} RMSNorm", norm_bwd_kernel, tensor | floats | sizes, plain, backward.warps)
