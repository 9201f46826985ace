"""Launches of the kernels for rows that one program holds, and of the filters' transforms for them."""

# Triton's decorators hide from type checkers how kernels are launched.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor

from kernels.conv_fft.rows import Rows
from kernels.conv_fft.streams import used_here
from kernels.conv_fft.transforms import Plan, exact_constants, exact_tiles, fused_matrices, thread_order, twiddles
from kernels.conv_fft.triton_filter import filter_gradient_kernel, filter_spectrum_kernel
from kernels.conv_fft.triton_filter_tiles import tile_gradient_kernel, tile_spectrum_kernel
from kernels.conv_fft.triton_fused import fused_bwd_kernel, fused_fwd_kernel
from kernels.triton_support import TRITON_TYPES

# Programs that a launch should have, some waves of the card's 132 multiprocessors.
PROGRAMS = 1024
# Blocks of taps that a program transforms one after the other.
BLOCKS = 4
# Bytes of registers that a thread may spill, by (kernel, factors): into the first-level cache, which takes less time than
# smaller tiles would. Backward kernels hold a filter's gradient (64 registers at 64 x 64) beside a transform of as many.
SPILLS: dict[tuple[str, int, int], int] = {
    ("fused backward", 128, 64): 640,
}
# Registers a thread may have, by (kernel, factors), where fewer than 255 put more programs on a multiprocessor.
REGISTERS: dict[tuple[str, int, int], int] = {
    ("fused forward", 64, 32): 128,
    ("fused backward", 64, 32): 168,
}


def options(kernel: str, p: Plan) -> dict[str, Any]:
    """Constants and launch options by factors."""
    n1, n2 = p.factors
    limit = REGISTERS.get((kernel, n1, n2))
    return {
        "N1": n1, "N2": n2, "C2": p.keep, "D": p.side_by_side, "P": p.rows_per_tile // p.side_by_side,
        "num_warps": max(4, n1 // 16), "num_stages": 1,
    } | ({"maxnreg": limit} if limit else {})  # fmt: skip


def split(rows: int, per_tile: int, channels: int) -> int:
    """Programs that share a channel's rows: enough to fill the card, each with a few tiles to spread its constants over."""
    tiles = max(1, triton.cdiv(rows, per_tile))
    return max(1, min(tiles, triton.cdiv(PROGRAMS, channels), triton.cdiv(tiles, 2)))


@functools.lru_cache(maxsize=64)
def constants(p: Plan, device: torch.device) -> tuple[Tensor, ...]:
    """G1, G2 and T."""
    n1, n2 = p.factors
    matrices = fused_matrices(n1, n2, p.keep, p.rows_per_tile // p.side_by_side, device)
    return *matrices, thread_order(twiddles(n1, n2, True, torch.device("cpu")), p.side_by_side).contiguous().to(device)


class Fused:
    """One length class of rows, each in one program."""

    def __init__(self, u: Tensor, k: Tensor, reverse: Tensor | None, p: Plan, table: Rows, i: int) -> None:
        self.channels, self.length = u.shape[1:]
        self.p, self.rows, self.i = p, table, i
        self.split = split(table.most[i], p.rows_per_tile, self.channels)
        self.constants = constants(p, u.device)
        self.type = TRITON_TYPES[u.dtype]
        self.exact = u.dtype == torch.float16
        self.spectrum, self.scale = filter_spectrum(k, reverse, p, table, i, self.exact)

    def forward(self, u: Tensor, pre: Tensor | None, post: Tensor | None, y: Tensor) -> None:
        fused_fwd_kernel[(self.split, self.channels)](
            u, pre, post, y, self.spectrum, self.scale, *self.constants, *self._table(),
            **self._flags(pre, post), **options("fused forward", self.p),
        )  # fmt: skip

    def backward(
        self, dy: Tensor, u: Tensor, pre: Tensor | None, post: Tensor | None, du: Tensor, dpre: Tensor | None,
        dpost: Tensor | None, dk: Tensor, dreverse: Tensor | None,
    ) -> Callable[[], None]:  # fmt: skip
        """Writes du, dpre, dpost. What is returned adds to dk, dreverse."""
        p = self.p
        sums = dk.new_empty((self.split, self.channels, p.rows_per_tile // p.side_by_side, 2, p.factors[0] * p.keep))
        fused_bwd_kernel[(self.split, self.channels)](
            dy, u, pre, post, du, dpre, dpost, sums, self.spectrum, self.scale, *self.constants, *self._table(),
            **self._flags(pre, post), **options("fused backward", p),
        )  # fmt: skip

        def add() -> None:
            used_here(sums)
            filter_gradient(sums, p, self.rows, self.i, dk, dreverse, self.exact)

        return add

    def _table(self) -> tuple[Any, ...]:
        return self.rows.first, self.rows.shift, self.rows.length, self.rows.count, self.i, self.length

    def _flags(self, pre: Tensor | None, post: Tensor | None) -> dict[str, Any]:
        full = self.rows.full and self.length == self.p.points and self.rows.most[self.i] % self.p.rows_per_tile == 0
        return {
            "HAS_PRE": pre is not None, "HAS_POST": post is not None, "FULL": full, "ALIGN": 8 if self.rows.aligned else 1,
            "TYPE": self.type, "FRAMED": self.rows.aligned and not full,
        }  # fmt: skip


def _in_tiles(p: Plan, reverse: Tensor | None, exact: bool) -> bool:
    """Whether the kernels of `triton_filter_tiles` take such filters: twice 128 x 128 and more do not fit."""
    return reverse is None and (p.factors[0] == 64 or (p.factors[0] > 64 and not exact))


def filter_spectrum(
    k: Tensor, reverse: Tensor | None, p: Plan, rows: Rows, i: int, exact: bool, blocks: int = 0
) -> tuple[Tensor, Tensor]:
    """(channels, N1 keep) packed, in thread order, and (channels,) the power of two that it is over.

    exact: for float16 rows, whose rounding is as small as a rounded filter's. With blocks: (channels, blocks, N1 keep) and
    (channels, blocks), those of `kernels.conv_fft.triton_blocks`.
    """
    n1, n2 = p.factors
    several = (blocks,) if blocks else ()
    spectrum = k.new_empty((len(k), *several, n1 * p.keep), dtype=torch.int32)
    scale = k.new_empty((len(k), *several), dtype=torch.float32)
    if _in_tiles(p, reverse, exact):
        tile_spectrum_kernel[(len(k), triton.cdiv(max(1, blocks), BLOCKS))](
            k, spectrum, scale, *exact_tiles(p.factors, p.keep, k.device), rows.count, i, k.shape[1], max(1, blocks), BLOCKS,
            N1=n1, N2=n2, C2=p.keep, EXACT=exact, num_warps=n1 // 16, num_stages=2,
        )  # fmt: skip
        return spectrum, scale
    assert not blocks
    filter_spectrum_kernel[(len(k),)](
        k, reverse, spectrum, scale, *exact_constants(p.factors, p.keep, k.device), rows.count, i, k.shape[1],
        0 if reverse is None else reverse.shape[1],
        N1=n1, N2=n2, C2=p.keep, TWO_SIDED=reverse is not None, EXACT=exact, num_warps=max(4, n1 // 16),
    )  # fmt: skip
    return spectrum, scale


def filter_gradient(
    sums: Tensor, p: Plan, rows: Rows, i: int, dk: Tensor, dreverse: Tensor | None, exact: bool, blocks: int = 1
) -> None:
    """Add a spectrum's gradient (parts, channels, P, 2, N1 keep), or that of blocks of taps in place of P, to the taps'."""
    n1, n2 = p.factors
    if _in_tiles(p, dreverse, exact):
        tile_gradient_kernel[(len(dk), triton.cdiv(blocks, BLOCKS))](
            sums, dk, *exact_tiles(p.factors, p.keep, dk.device), rows.count, i, len(sums), dk.shape[1], blocks, BLOCKS,
            N1=n1, N2=n2, C2=p.keep, EXACT=exact, num_warps=n1 // 16, num_stages=2,
        )  # fmt: skip
        return
    assert blocks == 1
    filter_gradient_kernel[(len(dk),)](
        sums, dk, dreverse, *exact_constants(p.factors, p.keep, dk.device), rows.count, i, len(sums), dk.shape[1],
        0 if dreverse is None else dreverse.shape[1],
        N1=n1, N2=n2, C2=p.keep, P=p.rows_per_tile // p.side_by_side, TWO_SIDED=dreverse is not None,
        EXACT=exact, num_warps=max(4, n1 // 16),
    )  # fmt: skip
