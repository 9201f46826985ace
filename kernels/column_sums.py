"""Sums of what programs left of a vector's gradient, one launch for up to three vectors, in a fixed order."""

# Triton's decorators hide from type checkers how kernels are launched.
# pyright: reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.configurations import Configuration
from kernels.triton_support import narrow

_ROWS, _COLUMNS, _WARPS = 64, 32, 4


@triton.jit
def column_sums_kernel(p_shares, p_first, p_second, p_third, programs, N, BR: tl.constexpr, BN: tl.constexpr):
    """Grid (tiles of BN columns, vectors). shares: (vectors, programs, N) float32."""
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    shares = p_shares + tl.program_id(1).to(tl.int64) * programs * N
    total = tl.zeros([BR, BN], tl.float32)
    for start in range(0, programs, BR):
        r = (start + tl.arange(0, BR).to(tl.int64))[:, None]
        total += tl.load(shares + r * N + n[None, :], mask=(r < programs) & (n[None, :] < N), other=0.0)
    sums = tl.sum(total, 0)
    if tl.program_id(1) == 0:
        tl.store(p_first + n, narrow(sums, p_first.dtype.element_ty), mask=n < N)
    elif tl.program_id(1) == 1:
        tl.store(p_second + n, narrow(sums, p_second.dtype.element_ty), mask=n < N)
    else:
        tl.store(p_third + n, narrow(sums, p_third.dtype.element_ty), mask=n < N)


def column_sums(shares: Tensor, dtypes: Sequence[torch.dtype]) -> list[Tensor]:
    """The sums over programs of shares (vectors, programs, N), one to three vectors, each a tensor (N,) of its dtype."""
    vectors, programs, width = shares.shape
    assert vectors == len(dtypes) <= 3
    sums = [torch.empty(width, dtype=dtype, device=shares.device) for dtype in dtypes]
    pointers = [*sums, *[sums[0]] * (3 - vectors)]
    with torch.cuda.device_of(shares):
        column_sums_kernel[(triton.cdiv(width, _COLUMNS), vectors)](
            shares, *pointers, programs, width, BR=_ROWS, BN=_COLUMNS, num_warps=_WARPS
        )
    return sums


def shipped_sums() -> Configuration:
    pointers = {"p_shares": "*fp32", "p_first": "*bf16", "p_second": "*bf16", "p_third": "*fp32"}
    sizes = {"programs": "i32", "N": "i32"}
    return Configuration("column sums", column_sums_kernel, pointers | sizes, {"BR": _ROWS, "BN": _COLUMNS}, _WARPS)
