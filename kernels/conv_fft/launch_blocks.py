"""Launches for long documents that are convolved block by block, a group of channels at a time."""

# Triton's decorators hide from type checkers how kernels are launched.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from kernels.conv_fft.launch_fused import constants, filter_gradient, filter_spectrum
from kernels.conv_fft.rows import Rows
from kernels.conv_fft.transforms import Plan
from kernels.conv_fft.triton_blocks import block_bwd_kernel, block_filter_gradient_kernel, block_fwd_kernel
from kernels.conv_fft.workspace import groups
from kernels.rows import processors
from kernels.triton_support import TRITON_TYPES

# Factors of a block: 64 rows of data fill a tensor core's tile.
FACTORS = {1024: (64, 16), 2048: (64, 32), 4096: (64, 64)}
# Points that a program of the filter's gradient sums.
TILE = 512
# Registers a thread may have, by (kernel, factors).
REGISTERS: dict[tuple[str, int, int], int] = {
    ("block forward", 64, 32): 128,
    ("block backward", 64, 32): 128,
    ("block forward", 64, 64): 168,
    ("block backward", 64, 64): 168,
}
# Programs per multiprocessor, no fewer than fit: each takes documents until none is left.
PROGRAMS = 6
# Classes of no more documents have them taken longest first.
SORTED = 128
# Whether the next block is loaded before a block's products.
AHEAD = False


def block_plan(block: int) -> Plan:
    """The transform of a block."""
    factors = FACTORS[block]
    return Plan(block, 1, block, factors, factors[1], 0.0)


def block_options(kernel: str, p: Plan) -> dict[str, Any]:
    """Constants and launch options by factors."""
    n1, n2 = p.factors
    limit = REGISTERS.get((kernel, n1, n2))
    return {"N1": n1, "N2": n2, "C2": p.keep, "num_warps": 4, "num_stages": 1} | ({"maxnreg": limit} if limit else {})


class Blocks:
    """One class of documents, causal filters."""

    def __init__(self, u: Tensor, k: Tensor, rows: Rows, i: int) -> None:
        batch, self.channels, self.length = u.shape
        self.rows, self.i = rows, i
        size = rows.blocks[i]
        self.p = block_plan(size)
        self.blocks = triton.cdiv(min(rows.longest[i], rows.frame), size)
        self.slots = batch * self.length // size + 2 * rows.most[i] + 2
        self.constants = constants(self.p, u.device)
        self.type = TRITON_TYPES[u.dtype]
        self.exact = u.dtype == torch.float16
        self.spectrum, self.scale = filter_spectrum(k, None, self.p, rows, i, self.exact, self.blocks)

    def forward(self, u: Tensor, pre: Tensor | None, post: Tensor | None, y: Tensor) -> None:
        programs = self._programs(u, self.channels)
        z, scales = self._kept(u, programs, self.blocks)
        block_fwd_kernel[(programs,)](
            u, pre, post, y, z, scales, self._taken(u), self.spectrum, self.scale, *self.constants, *self._table(),
            self.channels, self.blocks, **self._flags(pre, post), **block_options("block forward", self.p),
        )  # fmt: skip

    def backward(
        self, dy: Tensor, u: Tensor, pre: Tensor | None, post: Tensor | None, du: Tensor, dpre: Tensor | None,
        dpost: Tensor | None, dk: Tensor,
    ) -> None:  # fmt: skip
        """Writes du, dpre, dpost and adds to dk."""
        p = self.p
        sums = dk.new_empty((1, self.channels, self.blocks, 2, p.points))
        tile = min(TILE, p.points)
        for first, channels in groups(self.channels, 8 * self.slots * p.points):
            zx, x_scales = self._kept(u, channels, self.slots)
            zg, g_scales = self._kept(u, channels, self.slots)
            where = first, channels, self.channels, self.slots, self.blocks
            block_bwd_kernel[(self._programs(u, channels),)](
                dy, u, pre, post, du, dpre, dpost, zx, x_scales, zg, g_scales, self._taken(u),
                self.spectrum, self.scale, *self.constants, *self._table(), *where,
                **self._flags(pre, post), **block_options("block backward", p),
            )  # fmt: skip
            block_filter_gradient_kernel[(p.points // tile, triton.cdiv(self.blocks, 4), channels)](
                zx, x_scales, zg, g_scales, sums, *self._table(), first, self.channels, self.slots, self.blocks,
                N=p.points, POINTS=p.points, TILE=tile, num_warps=4,
            )  # fmt: skip
        filter_gradient(sums, p, self.rows, self.i, dk, None, self.exact, self.blocks)

    def _table(self) -> tuple[Any, ...]:
        return self.rows.first, self.rows.shift, self.rows.length, self.rows.count, self.i, self.length

    def _flags(self, pre: Tensor | None, post: Tensor | None) -> dict[str, Any]:
        aligned, most = self.rows.aligned, self.rows.most[self.i]
        return {
            "HAS_PRE": pre is not None, "HAS_POST": post is not None, "ALIGN": 8 if aligned else 1, "FRAMED": aligned,
            "TYPE": self.type, "TERMS": triton.next_power_of_2(self.blocks),
            "MOST": triton.next_power_of_2(most) if most <= SORTED else 0, "AHEAD": AHEAD,
        }  # fmt: skip

    def _programs(self, u: Tensor, channels: int) -> int:
        return min(PROGRAMS * processors(u), channels * self.rows.most[self.i])

    def _taken(self, u: Tensor) -> Tensor:
        return torch.zeros(1, dtype=torch.int32, device=u.device)

    def _kept(self, u: Tensor, *shape: int) -> tuple[Tensor, Tensor]:
        """Transforms and their scales."""
        z = u.new_empty((*shape, self.p.points), dtype=torch.int32)
        return z, u.new_empty(shape, dtype=torch.float32)
