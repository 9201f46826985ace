"""Launches of the three passes of long rows, a group of channels at a time."""

# Triton's decorators hide from type checkers how kernels are launched.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor

from kernels.conv_fft.launch_fused import split
from kernels.conv_fft.launch_outer import outer_transform
from kernels.conv_fft.rows import Rows, whole_rows
from kernels.conv_fft.spectrum import filter_gradients, filter_spectrum
from kernels.conv_fft.streams import used_here
from kernels.conv_fft.transforms import Plan, inner_matrices, inner_twiddles
from kernels.conv_fft.triton_inner import inner_bwd_kernel, inner_filter_kernel, inner_fwd_kernel
from kernels.conv_fft.workspace import groups
from kernels.triton_support import TRITON_TYPES

# Rows that a program of an outer pass takes, at most.
ROWS = 4


# Bytes of registers that a thread may spill, by (kernel, points of the inner transform).
INNER_SPILLS: dict[tuple[str, int], int] = {("inner backward", 2048): 96}
# Registers a thread may have, by the same, where fewer than 255 put more programs on a multiprocessor.
INNER_REGISTERS: dict[tuple[str, int], int] = {("inner backward", 2048): 168}


@functools.lru_cache(maxsize=64)
def _inner_constants(p: Plan, device: torch.device) -> tuple[Tensor, ...]:
    na, nb = p.factors
    return *inner_matrices(na, nb, p.keep, device), inner_twiddles(na, p.halves, nb, device)


def inner_options(kernel: str, p: Plan) -> dict[str, Any]:
    """Constants and launch options of the inner transform."""
    na, nb = p.factors
    launch = {"NA": na, "NB": nb, "C": p.halves, "C2": p.keep, "num_warps": na // 8, "num_stages": 1}
    limit = INNER_REGISTERS.get((kernel, p.inner))
    return launch | ({"maxnreg": limit} if limit else {})


def _alignment(rows: Rows) -> dict[str, int]:
    """Of what rows' first samples, and their ends, are multiples."""
    return {"ALIGN": 8 if rows.aligned else 1, "ALIGN_END": 8 if rows.aligned and rows.full else 1}


def filter_is_row(u: Tensor, reverse: Tensor | None) -> bool:
    """Whether the filter takes the passes too."""
    return u.dtype == torch.bfloat16 and reverse is None


def writes_taps(p: Plan, rows: Rows, u: Tensor, k: Tensor, reverse: Tensor | None) -> bool:
    """Whether `Long.backward` writes all of dk: of whole rows, of which there is one class, whose filter takes the passes."""
    return rows.full and p.outer > 1 and filter_is_row(u, reverse) and k.shape[1] <= p.points


class Long:
    """One length class of rows, through the three passes.

    In bfloat16 a causal filter takes the passes too, as a row of its own: what float16 operands leave out of its spectrum is
    small beside the rounding of the output. Otherwise it takes the library's FFT in float32.
    """

    def __init__(self, u: Tensor, k: Tensor, reverse: Tensor | None, p: Plan, rows: Rows, i: int) -> None:
        self.channels, self.length = u.shape[1:]
        self.p, self.rows, self.i = p, rows, i
        self.capacity = rows.most[i]
        self.kept = 4 * self.capacity * p.points  # bytes of a channel's transforms
        self.outer = outer_transform(p.outer, p.inner, u.device)
        self.middle = _inner_constants(p, u.device)
        self.type = TRITON_TYPES[u.dtype]
        self.taps = None
        if filter_is_row(u, reverse):
            self.taps = whole_rows(1, self.channels, k.shape[1], k.device)
            if not rows.full:  # a filter that no document is convolved with is no row
                there = (rows.count[i + 1] > rows.count[i]).to(torch.int32)
                self.taps = dataclasses.replace(self.taps, count=self.taps.count * there)
        if self.taps is None:
            self.spectrum, self.scale = filter_spectrum(k, reverse, p)
            self.inverse = torch.ones_like(self.scale)
        else:
            self.spectrum, self.inverse, self.scale = self._spectrum(k, self.taps)

    def forward(self, u: Tensor, pre: Tensor | None, post: Tensor | None, y: Tensor) -> None:
        p = self.p
        for first, channels in groups(self.channels, self.kept):
            z, scales = self._into(u, pre, self.rows, self.i, first, channels)
            inner_fwd_kernel[(p.outer, channels, split(self.capacity, 2 // p.halves, channels * p.outer))](
                z, scales, self.spectrum, self.inverse, *self.middle, self.rows.count, self.i, first, p.outer, self.capacity,
                BN=self.outer.columns, **inner_options("inner forward", p),
            )  # fmt: skip
            self._out_of(z, scales, self.scale, self.rows, self.i, first, (post, y), (None, None))

    def backward(
        self, dy: Tensor, u: Tensor, pre: Tensor | None, post: Tensor | None, du: Tensor, dpre: Tensor | None,
        dpost: Tensor | None, dk: Tensor, dreverse: Tensor | None,
    ) -> Callable[[], None]:  # fmt: skip
        """Writes du, dpre, dpost. What is returned adds to dk, dreverse; where `writes_taps`, it writes dk."""
        p = self.p
        if self.taps is None:
            sums = dk.new_empty((self.channels, p.outer, 2, p.factors[0] * p.halves * p.keep))
        else:
            sums = dk.new_empty((self.channels, p.outer, p.inner // 16, 2, 16), dtype=torch.float16)
        sums_scale = dk.new_empty((self.channels, p.outer))
        for first, channels in groups(self.channels, 2 * self.kept):
            zx, x_scales = self._into(u, pre, self.rows, self.i, first, channels)
            zg, g_scales = self._into(dy, post, self.rows, self.i, first, channels)
            inner_bwd_kernel[(p.outer, channels)](
                zx, x_scales, zg, g_scales, sums, sums_scale, self.spectrum, self.inverse, *self.middle,
                self.rows.count, self.i, first, p.outer, self.capacity,
                NEEDS_Y=dpost is not None, TAPS=self.taps is not None, BN=self.outer.columns,
                **inner_options("inner backward", p),
            )  # fmt: skip
            gates = (None, None) if dpre is None else (u, dpre)
            self._out_of(zg, g_scales, self.scale, self.rows, self.i, first, (pre, du), gates)
            if dpost is not None:
                self._out_of(zx, x_scales, self.scale, self.rows, self.i, first, (dy, dpost), (None, None))

        def add() -> None:
            used_here(sums, sums_scale)
            if self.taps is None:
                return filter_gradients(sums, p, dk, dreverse)
            used_here(self.taps.count)
            # The matrices are unitary and a filter's transform is not.
            scale = torch.full((self.channels,), math.sqrt(p.points), device=dk.device)
            # To the taps of whole rows, which are one class, nothing is added; those beyond the row are zeros there already.
            taps = dk if self.rows.full else torch.zeros_like(dk)
            self._out_of(sums[:, None], sums_scale, scale, self.taps, 0, 0, (None, taps), (None, None), by_k1=True)
            if taps is not dk:
                dk.add_(taps)
            return None

        return add

    def _grid(self, rows: Rows, i: int, channels: int) -> tuple[tuple[int, int, int], int]:
        """Programs, and how many rows each takes."""
        each = max(1, min(ROWS, rows.most[i]))
        tiles = self.p.inner // self.outer.columns * self.outer.high
        return (tiles, channels, triton.cdiv(rows.most[i], each)), each

    def _table(self, rows: Rows, i: int, length: int, first: int, each: int) -> tuple[Any, ...]:
        return rows.first, rows.shift, rows.length, rows.count, i, length, first, *self.outer.arguments, rows.most[i], each

    def _into(self, u: Tensor, gate: Tensor | None, rows: Rows, i: int, first: int, channels: int) -> tuple[Tensor, Tensor]:
        """The outer transform of gated rows: packed, and the scales of its tiles."""
        z = u.new_empty((channels, rows.most[i], self.p.outer, self.p.inner // 16, 2, 16), dtype=torch.float16)
        scales = u.new_empty((channels, rows.most[i], self.p.inner // self.outer.columns), dtype=torch.float32)
        grid, each = self._grid(rows, i, channels)
        kernel, constants, launch = self.outer.forward
        kernel[grid](
            u, gate, z, scales, *constants, *self._table(rows, i, u.shape[-1], first, each),
            M=self.p.inner, HAS_PRE=gate is not None, **_alignment(rows), **launch,
        )  # fmt: skip
        return z, scales

    def _out_of(
        self, z: Tensor, scales: Tensor, k_scale: Tensor, rows: Rows, i: int, first: int,
        a: tuple[Tensor | None, Tensor], b: tuple[Tensor | None, Tensor | None], by_k1: bool = False,
    ) -> None:  # fmt: skip
        """The outer inverse, times the first of `a` into its second, and the same for `b`."""
        grid, each = self._grid(rows, i, len(z))
        kernel, constants, launch = self.outer.inverse
        kernel[grid](
            z, scales, k_scale, *a, *b, *constants, *self._table(rows, i, a[1].shape[-1], first, each),
            M=self.p.inner, HAS_A=a[0] is not None, HAS_B=b[0] is not None, SCALE_BY_K1=by_k1,
            **_alignment(rows), TYPE=TRITON_TYPES[a[1].dtype], **launch,
        )  # fmt: skip

    def _spectrum(self, k: Tensor, taps: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """(channels, outer, Na C keep) packed, in thread order.

        (channels,) what brings its largest part to [2, 4), and what that is over.
        """
        p = self.p
        z, scales = self._into(k, None, taps, 0, 0, self.channels)
        spectrum = k.new_empty((self.channels, p.outer, p.factors[0] * p.halves * p.keep), dtype=torch.int32)
        largest = k.new_empty((self.channels, p.outer))
        inner_filter_kernel[(p.outer, self.channels)](
            z,
            scales,
            spectrum,
            largest,
            *self.middle,
            taps.count,
            p.outer,
            BN=self.outer.columns,
            **inner_options("inner filter", p),
        )
        _, exponent = torch.frexp(largest.amax(1))
        one = torch.ones_like(largest[:, 0])
        inverse = torch.ldexp(one, 2 - exponent)
        return spectrum, inverse, scales.amax((1, 2)) * torch.ldexp(one, exponent - 2) * math.sqrt(p.points)
