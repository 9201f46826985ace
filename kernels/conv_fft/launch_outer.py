"""Which kernels transform the outer factor of long rows, and what they are launched with."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from kernels.conv_fft.transforms import (
    OUTER,
    RADIX,
    plain_matrix,
    radix_constants,
    twiddles,
    twiddles_in_two,
    weighted_matrix,
)
from kernels.conv_fft.triton_long import outer_fwd_kernel, outer_inv_kernel
from kernels.conv_fft.triton_outer import outer_two_fwd_kernel, outer_two_inv_kernel
from kernels.conv_fft.triton_radix import outer_radix_fwd_kernel, outer_radix_inv_kernel

# Launches of the outer transforms in registers: there, and back.
RADIX_LAUNCHES: dict[tuple[str, int], dict[str, int]] = {
    ("outer forward", 256): {"BC": 32, "num_warps": 4},
    ("outer inverse", 256): {"BC": 32, "KA": 8, "num_warps": 4},
    ("outer forward", 512): {"BC": 32, "num_warps": 4},
    ("outer inverse", 512): {"BC": 32, "KA": 16, "num_warps": 8},
}
# Bytes of registers that a thread may spill, by (kernel, points).
SPILLS = {("outer forward", 128): 160, ("outer forward", 1024): 224, ("outer inverse", 1024): 352}
# Registers a thread may have, by (kernel, points), where fewer than 255 put more programs on a multiprocessor.
REGISTERS = {
    (kernel, points): 168 if points <= 64 else 128 for kernel in ("outer forward", "outer inverse") for points in (64, 128)
}


@dataclass(frozen=True)
class Outer:
    """The outer transform of `points` points over M columns, and its inverse, each a kernel, constants and a launch.

    columns: those of a tile, which share a scale. high: programs that share a tile's columns. arguments: what the kernels take
    before `capacity`, beside their rows.
    """

    points: int
    columns: int
    high: int
    arguments: tuple[int, ...]
    forward: tuple[Any, tuple[Tensor, ...], dict[str, Any]]
    inverse: tuple[Any, tuple[Tensor, ...], dict[str, Any]]


def outer_tile(points: int) -> dict[str, int]:
    """Rows, depth and columns of the outer transform's products, and their warps."""
    block = min(64, triton.next_power_of_2(points))
    tall = points > 64
    columns = {16: 256, 32: 128}.get(block, 64)
    return {"BM": 128 if tall else block, "BK": block, "BN": columns, "num_warps": 8 if tall else 4, "num_stages": 2}


def outer_options(kernel: str, points: int) -> dict[str, Any]:
    """Constants and launch options of the outer transform."""
    if points in RADIX:
        launch: dict[str, Any] = {"NA": RADIX[points], "num_stages": 1} | RADIX_LAUNCHES[kernel, points]
    elif points in OUTER:
        na, nb = OUTER[points]
        launch = {"NA": na, "NB": nb, "BC": 16, "num_warps": 16, "num_stages": 1}
    else:
        launch = outer_tile(points)
        if kernel == "outer forward":
            launch["ONE_BLOCK"] = points <= launch["BK"]
    limit = REGISTERS.get((kernel, points))
    return launch | ({"maxnreg": limit} if limit else {})


def outer_kernels(points: int) -> tuple[Any, Any]:
    """The kernel of the outer transform and that of its inverse."""
    if points in RADIX:
        return outer_radix_fwd_kernel, outer_radix_inv_kernel
    return (outer_two_fwd_kernel, outer_two_inv_kernel) if points in OUTER else (outer_fwd_kernel, outer_inv_kernel)


@functools.lru_cache(maxsize=64)
def outer_transform(points: int, m: int, device: torch.device) -> Outer:
    """The outer transform of rows of points * m samples."""
    launches = outer_options("outer forward", points), outer_options("outer inverse", points)
    kernels = outer_kernels(points)
    if points in RADIX:
        columns, high, arguments = launches[0]["BC"], 1, ()
        constants = radix_constants(RADIX[points], m, columns, launches[1]["KA"], device)
    elif points in OUTER:
        columns, high, arguments = launches[0]["BC"], 1, ()
        na, nb = OUTER[points]
        between = twiddles(na, nb, True, device), twiddles_in_two((na, nb), m, device)
        constants = ((*weighted_matrix(na, device), *plain_matrix(nb, device), *between),) * 2
    else:
        columns, high, arguments = launches[0]["BN"], triton.cdiv(points, launches[0]["BM"]), (points,)
        constants = ((*weighted_matrix(points, device), twiddles(points, m, True, device)),) * 2
    forward, inverse = zip(kernels, constants, launches, strict=True)
    return Outer(points, columns, high, arguments, forward, inverse)
