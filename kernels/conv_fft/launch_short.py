"""Launches for short documents, convolved by products with Toeplitz matrices."""

# Triton's decorators hide from type checkers how kernels are launched.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from kernels.conv_fft.rows import Rows
from kernels.conv_fft.triton_short import shifts_kernel, short_filter_gradient_kernel, short_kernel
from kernels.triton_support import TRITON_TYPES

# Programs that a launch should have, some waves of the card's 132 multiprocessors.
PROGRAMS = 3072
# Documents of a tile, samples of a product's depth and of its outputs.
TILE = {"R": 64, "BK": 64, "BO": 128, "num_warps": 4, "num_stages": 2}
# Documents, samples of a chunk, and blocks of lags of a program, for the filter's gradient.
GRADIENT_TILE = {"R": 64, "C": 64, "M": 4, "num_warps": 8, "num_stages": 1, "maxnreg": 128}


class Short:
    """The class of short documents, causal filters, bfloat16."""

    def __init__(self, u: Tensor, k: Tensor, rows: Rows) -> None:
        self.channels, self.length = u.shape[1:]
        self.rows, self.longest = rows, rows.longest[0]
        self.k = k
        self.flags = {
            "ALIGN": 8 if rows.aligned else 1, "FRAMED": rows.aligned, "TYPE": TRITON_TYPES[u.dtype],
        }  # fmt: skip

    def forward(self, u: Tensor, pre: Tensor | None, post: Tensor | None, y: Tensor) -> None:
        self._convolved(u, pre, False, (post, y), (None, None))

    def backward(
        self, dy: Tensor, u: Tensor, pre: Tensor | None, post: Tensor | None, du: Tensor, dpre: Tensor | None,
        dpost: Tensor | None, dk: Tensor,
    ) -> None:  # fmt: skip
        """Writes du, dpre, dpost and adds to dk."""
        self._convolved(dy, post, True, (pre, du), (None if dpre is None else u, dpre))
        if dpost is not None:
            self._convolved(u, pre, False, (dy, dpost), (None, None))
        tile = GRADIENT_TILE
        chunk = tile["C"]
        blocks = triton.cdiv(self.longest, chunk)
        blocks += -blocks % tile["M"]
        parts = dk.new_empty((self.channels, blocks, 2 * chunk))
        short_filter_gradient_kernel[(blocks // tile["M"], self.channels)](
            u, pre, dy, post, parts, *self._table(), blocks,
            HAS_PRE=pre is not None, HAS_POST=post is not None, **self.flags, **tile,
        )  # fmt: skip
        taps = min(dk.shape[1], self.longest)
        parts[:, :-1, chunk:] += parts[:, 1:, :chunk]
        dk[:, :taps] += parts[:, :, chunk:].reshape(self.channels, -1)[:, :taps]

    def _convolved(
        self, x: Tensor, gate: Tensor | None, transposed: bool, a: tuple[Tensor | None, Tensor],
        b: tuple[Tensor | None, Tensor | None],
    ) -> None:  # fmt: skip
        """The convolution times the first of `a` into its second, and the same for `b`."""
        off = _offset(self.longest, transposed)
        table, scale = shifts(self.k, self.longest, transposed)
        splits = max(1, min(triton.cdiv(self.rows.most[0], TILE["R"]), triton.cdiv(PROGRAMS, self.channels)))
        short_kernel[(splits, self.channels)](
            x, gate, *a, *b, table, scale, *self._table(), table.shape[2], OFF=off, TRANSPOSED=transposed,
            HAS_GATE=gate is not None, HAS_A=a[0] is not None, HAS_B=b[0] is not None, **self.flags, **TILE,
        )  # fmt: skip

    def _table(self) -> tuple[Any, ...]:
        rows = self.rows
        return rows.first, rows.shift, rows.length, rows.count, self.length, self.longest


def _offset(longest: int, transposed: bool) -> int:
    """Where lag 0 is in the table of shifts: lags before it are read down to the farthest input after an output."""
    deep = triton.cdiv(longest, TILE["BK"]) * TILE["BK"] if transposed else TILE["BO"]
    return deep + TILE["BK"]


def shifts(k: Tensor, longest: int, transposed: bool) -> tuple[Tensor, Tensor]:
    """The table of eight shifts (channels, 8, width) of a filter (channels, taps), and (channels,) what it is over.

    Of its first `longest` taps, or of their mirror image if transposed.
    """
    off = _offset(longest, transposed)
    outputs = 0 if transposed else triton.cdiv(longest, TILE["BO"]) * TILE["BO"]
    width = off + outputs + TILE["BO"]
    channels, taps = k.shape
    table = k.new_empty((channels, 8, width), dtype=torch.float16)
    scale = k.new_empty(channels)
    shifts_kernel[(channels, 8)](
        k, table, scale, min(taps, longest), taps, width, OFF=off, TRANSPOSED=transposed,
        LONGEST=triton.next_power_of_2(longest), BLOCK=1024, num_warps=4,
    )  # fmt: skip
    return table, scale
