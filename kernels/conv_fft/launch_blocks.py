"""Launches for long documents that are convolved block by block, a group of channels at a time."""

# Triton's decorators hide from type checkers how kernels are launched.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor

from kernels.conv_fft.launch_fused import constants, filter_gradient, filter_spectrum
from kernels.conv_fft.rows import Rows
from kernels.conv_fft.streams import used_here
from kernels.conv_fft.transforms import Plan
from kernels.conv_fft.triton_blocks import (
    block_filter_gradient_kernel,
    block_items_kernel,
    block_product_kernel,
    block_spectra_kernel,
)
from kernels.conv_fft.workspace import groups
from kernels.triton_support import TRITON_TYPES

# Factors of a block: 64 rows of data fill a tensor core's tile.
FACTORS = {1024: (64, 16), 2048: (64, 32), 4096: (64, 64)}
# Of the filter's gradient: points that a program sums, blocks of transforms that are loaded ahead.
TILE, STAGES = 512, 6
# Registers a thread may have, by (kernel, factors).
REGISTERS: dict[tuple[str, int, int], int] = {
    ("block spectra", 64, 32): 128,
    ("block product", 64, 32): 128,
    ("block product", 64, 64): 168,
}
# Programs that a launch should have, some waves of a card's multiprocessors.
PROGRAMS = 6144


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
        # Frames have up to seven samples more than their documents, and each fills its last block.
        self.slots = (batch * self.length + 7 * rows.most[i]) // size + rows.most[i] + 1
        self.kept = 4 * self.slots * self.p.points  # bytes of a channel's transforms
        self.constants = constants(self.p, u.device)
        self.exact = u.dtype == torch.float16
        self.items = torch.empty(self.slots + 1, dtype=torch.int32, device=u.device)
        self.steps = self.items.new_empty((triton.cdiv(self.blocks, 4), self.slots + 1))
        block_items_kernel[(len(self.steps),)](
            self.items, self.steps, rows.length, rows.count, i, self.blocks, self.slots, N=size, ROWS=256
        )
        self.spectrum, self.scale = filter_spectrum(k, None, self.p, rows, i, self.exact, self.blocks)

    def forward(self, u: Tensor, pre: Tensor | None, post: Tensor | None, y: Tensor) -> None:
        for first, channels in groups(self.channels, self.kept):
            z, scales = self._transformed(u, pre, first, channels)
            self._convolved(z, scales, first, False, (post, y), (None, None))

    def backward(
        self, dy: Tensor, u: Tensor, pre: Tensor | None, post: Tensor | None, du: Tensor, dpre: Tensor | None,
        dpost: Tensor | None, dk: Tensor,
    ) -> Callable[[], None]:  # fmt: skip
        """Writes du, dpre, dpost. What is returned adds to dk."""
        p = self.p
        sums = dk.new_empty((1, self.channels, self.blocks, 2, p.points))
        tile = min(TILE, p.points)
        for first, channels in groups(self.channels, 2 * self.kept):
            zx, x_scales = self._transformed(u, pre, first, channels)
            zg, g_scales = self._transformed(dy, post, first, channels)
            self._convolved(zg, g_scales, first, True, (pre, du), (None if dpre is None else u, dpre))
            if dpost is not None:
                self._convolved(zx, x_scales, first, False, (dy, dpost), (None, None))
            block_filter_gradient_kernel[(p.points // tile, len(self.steps), channels)](
                zx, x_scales, zg, g_scales, sums, self.steps, first, self.slots, self.blocks,
                POINTS=p.points, TILE=tile, STAGES=STAGES, num_warps=4,
            )  # fmt: skip

        def add() -> None:
            used_here(sums)
            filter_gradient(sums, p, self.rows, self.i, dk, None, self.exact, self.blocks)

        return add

    def _table(self, first: int) -> tuple[Any, ...]:
        rows = self.rows
        table = rows.first, rows.shift, rows.length, rows.count, self.i, self.length
        return self.items, *table, first, self.slots, self.blocks

    def _grid(self, channels: int) -> tuple[int, int]:
        return max(1, min(self.slots, triton.cdiv(PROGRAMS, channels))), channels

    def _transformed(self, u: Tensor, gate: Tensor | None, first: int, channels: int) -> tuple[Tensor, Tensor]:
        z = u.new_empty((channels, self.slots, self.p.points), dtype=torch.int32)
        scales = u.new_empty((channels, self.slots), dtype=torch.float32)
        aligned = self.rows.aligned
        block_spectra_kernel[self._grid(channels)](
            u, gate, z, scales, *self.constants, *self._table(first),
            HAS_PRE=gate is not None, ALIGN=8 if aligned else 1, FRAMED=aligned, **block_options("block spectra", self.p),
        )  # fmt: skip
        return z, scales

    def _convolved(
        self, z: Tensor, scales: Tensor, first: int, conjugate: bool, a: tuple[Tensor | None, Tensor],
        b: tuple[Tensor | None, Tensor | None],
    ) -> None:  # fmt: skip
        """The convolution times the first of `a` into its second, and the same for `b`."""
        aligned = self.rows.aligned
        block_product_kernel[self._grid(len(z))](
            z, scales, self.spectrum, self.scale, *a, *b, *self.constants, *self._table(first),
            TERMS=triton.next_power_of_2(self.blocks), CONJUGATE=conjugate, HAS_A=a[0] is not None, HAS_B=b[0] is not None,
            ALIGN=8 if aligned else 1, TYPE=TRITON_TYPES[a[1].dtype], FRAMED=aligned, **block_options("block product", self.p),
        )  # fmt: skip
