"""Launches of the kernels for causal rows of up to 512 samples."""

# Triton's decorators hide from type checkers how kernels are launched.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from kernels.conv_fft.rows import Rows
from kernels.conv_fft.triton_short import short_bwd_kernel, short_fwd_kernel
from kernels.triton_support import TRITON_TYPES

# Rows of more samples are transformed, by kernel.
LONGEST: dict[str, int] = {"short forward": 512, "short backward": 512}
# Samples of a block, and rows of a tile.
BLOCK = 64
# Programs that a launch should have, some waves of the card's 132 multiprocessors.
PROGRAMS = 1024


# Samples of a block, and registers a thread may have, by kernel.
WIDTH: dict[str, int] = {"short forward": 64, "short backward": 64}
REGISTERS: dict[str, int] = {}


def options(kernel: str, samples: int) -> dict[str, Any]:
    """Constants and launch options, by the longest row."""
    width = WIDTH[kernel]
    limit = REGISTERS.get(kernel)
    found = {"NB": triton.cdiv(samples, width), "W": width, "num_warps": 4, "num_stages": 1}
    return found | ({"maxnreg": limit} if limit else {})


def is_short(kernel: str, length: int, reverse: Tensor | None, fraction: float) -> bool:
    """Whether rows of a class of up to `length` samples are convolved here."""
    return length <= LONGEST[kernel] and reverse is None and fraction == 1


def whole_blocks(rows: Rows, i: int) -> int:
    """Samples of a class's longest frame, in whole blocks: the kernels leave out what is beyond."""
    return BLOCK * triton.cdiv(min(rows.longest[i], rows.frame), BLOCK)


class Short:
    """One length class of rows."""

    def __init__(self, u: Tensor, k: Tensor, rows: Rows, i: int) -> None:
        self.channels, self.length = u.shape[1:]
        self.rows, self.i = rows, i
        self.longest = min(rows.longest[i], rows.frame)
        tiles = triton.cdiv(rows.most[i], 64)
        self.split = max(1, min(tiles, triton.cdiv(PROGRAMS, self.channels)))
        self.taps = k
        self.type = TRITON_TYPES[u.dtype]

    def forward(self, u: Tensor, pre: Tensor | None, post: Tensor | None, y: Tensor) -> None:
        chosen = options("short forward", self.longest)
        short_fwd_kernel[(self.split, self.channels)](
            u, pre, post, y, self.taps, self._shifts(chosen), *self._table(), **self._flags(pre, post, chosen), **chosen
        )  # fmt: skip

    def backward(
        self, dy: Tensor, u: Tensor, pre: Tensor | None, post: Tensor | None, du: Tensor, dpre: Tensor | None,
        dpost: Tensor | None, dk: Tensor,
    ) -> None:  # fmt: skip
        """Writes du, dpre, dpost and adds to dk."""
        chosen = options("short backward", self.longest)
        sums = dk.new_empty((self.split, self.channels, chosen["W"] * chosen["NB"]))
        short_bwd_kernel[(self.split, self.channels)](
            dy, u, pre, post, du, dpre, dpost, sums, self.taps, self._shifts(chosen), *self._table(),
            **self._flags(pre, post, chosen), **chosen,
        )  # fmt: skip
        most = min(dk.shape[1], sums.shape[2])
        dk[:, :most] += (sums.sum(0) if self.split > 1 else sums[0])[:, :most]

    def _shifts(self, chosen: dict[str, Any]) -> Tensor:
        shape = (self.split, self.channels, 8, chosen["W"] * (chosen["NB"] + 1))
        return torch.empty(shape, dtype=torch.float16, device=self.taps.device)

    def _table(self) -> tuple[Any, ...]:
        return self.rows.first, self.rows.shift, self.rows.length, self.rows.count, self.i, self.length, self.taps.shape[1]

    def _flags(self, pre: Tensor | None, post: Tensor | None, chosen: dict[str, Any]) -> dict[str, Any]:
        full = self.rows.full and self.length == chosen["W"] * chosen["NB"] and self.rows.most[self.i] % 64 == 0
        return {
            "HAS_PRE": pre is not None, "HAS_POST": post is not None, "FULL": full, "ALIGN": 8 if self.rows.aligned else 1,
            "TYPE": self.type, "FRAMED": self.rows.aligned and not full,
        }  # fmt: skip
