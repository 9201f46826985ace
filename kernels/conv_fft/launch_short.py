"""Launches of the kernels for causal rows of up to 256 samples."""

# Triton's decorators hide from type checkers how kernels are launched.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor

from kernels.conv_fft.rows import Rows
from kernels.conv_fft.streams import used_here
from kernels.conv_fft.triton_short import ROWS, WIDTH, short_bwd_kernel, short_fwd_kernel, short_taps_kernel
from kernels.triton_support import TRITON_TYPES

# Rows of more samples are transformed.
LONGEST = 256
BLOCK, TILE_ROWS = WIDTH.value, ROWS.value
# Taps whose gradients a program sums.
TILE = 128
# Programs that a launch should have where they may have several tiles each.
PROGRAMS = 1024
# Registers a thread may have, for a fourth and a third program on a multiprocessor.
REGISTERS = {"short forward": 128, "short backward": 168}


def options(kernel: str, samples: int) -> dict[str, Any]:
    """Constants and launch options, by the longest row's whole blocks."""
    return {"NB": samples // BLOCK, "num_warps": 4, "num_stages": 1, "maxnreg": REGISTERS[kernel]}


def is_short(length: int, reverse: Tensor | None, fraction: float) -> bool:
    """Whether rows of a class of up to `length` samples are convolved here."""
    return length <= LONGEST and reverse is None and fraction == 1


def whole_blocks(rows: Rows, i: int) -> int:
    """Samples of a class's longest frame, in whole blocks: the kernels leave out what is beyond."""
    return BLOCK * triton.cdiv(min(rows.longest[i], rows.frame), BLOCK)


class Short:
    """One length class of rows."""

    def __init__(self, u: Tensor, k: Tensor, rows: Rows, i: int) -> None:
        self.channels, self.length = u.shape[1:]
        self.rows, self.i, self.taps = rows, i, k
        self.samples = whole_blocks(rows, i)
        self.full = rows.full and self.length == self.samples and rows.most[i] % TILE_ROWS == 0
        tiles = triton.cdiv(rows.most[i], TILE_ROWS)
        self.split = tiles if self.full else max(1, min(tiles, triton.cdiv(PROGRAMS, self.channels)))
        self.type = TRITON_TYPES[u.dtype]

    def forward(self, u: Tensor, pre: Tensor | None, post: Tensor | None, y: Tensor) -> None:
        short_fwd_kernel[(self.split, self.channels)](
            u, pre, post, y, self.taps, self._shifts(), *self._table(),
            **self._flags(pre, post), **options("short forward", self.samples),
        )  # fmt: skip

    def backward(
        self, dy: Tensor, u: Tensor, pre: Tensor | None, post: Tensor | None, du: Tensor, dpre: Tensor | None,
        dpost: Tensor | None, dk: Tensor,
    ) -> Callable[[], None]:  # fmt: skip
        """Writes du, dpre, dpost. What is returned adds to dk."""
        sums = dk.new_empty((self.split, self.channels, 4, self.samples))
        short_bwd_kernel[(self.split, self.channels)](
            dy, u, pre, post, du, dpre, dpost, sums, self.taps, self._shifts(), *self._table(),
            **self._flags(pre, post), **options("short backward", self.samples),
        )  # fmt: skip

        def add() -> None:
            used_here(sums)
            grid = triton.cdiv(self.samples, TILE), self.channels
            short_taps_kernel[grid](sums, dk, self.split, dk.shape[1], N=self.samples, TILE=TILE, num_warps=1)

        return add

    def _shifts(self) -> Tensor:
        shape = (self.split, self.channels, 8, self.samples + BLOCK)
        return torch.empty(shape, dtype=torch.float16, device=self.taps.device)

    def _table(self) -> tuple[Any, ...]:
        return self.rows.first, self.rows.shift, self.rows.length, self.rows.count, self.i, self.length, self.taps.shape[1]

    def _flags(self, pre: Tensor | None, post: Tensor | None) -> dict[str, Any]:
        return {
            "HAS_PRE": pre is not None, "HAS_POST": post is not None, "FULL": self.full,
            "ALIGN": 8 if self.rows.aligned else 1, "TYPE": self.type, "FRAMED": self.rows.aligned and not self.full,
        }  # fmt: skip
