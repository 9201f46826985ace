"""Launches of the kernels: which, over how many programs, in what memory."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
import triton
from torch import Tensor

from kernels.configurations import Configuration
from kernels.conv_fft import reference
from kernels.conv_fft.rows import Rows, document_rows, whole_rows
from kernels.conv_fft.spectrum import filter_gradients, filter_spectrum
from kernels.conv_fft.transforms import (
    BACKWARD,
    FORWARD,
    INNER,
    Plan,
    exact_constants,
    kept_columns,
    plain_matrix,
    plan,
    twiddles,
    weighted_matrix,
)
from kernels.conv_fft.triton_filter import filter_gradient_kernel, filter_spectrum_kernel
from kernels.conv_fft.triton_fused import fused_bwd_kernel, fused_fwd_kernel
from kernels.conv_fft.triton_long import inner_bwd_kernel, inner_fwd_kernel, outer_fwd_kernel, outer_inv_kernel
from kernels.triton_support import TRITON_TYPES

# What the passes of a long convolution may keep between them, in bytes: channels are done in groups of this size.
WORKSPACE = 1 << 30
# Programs that a launch should have, some waves of the card's 132 multiprocessors.
PROGRAMS = 1024


def forward(
    u: Tensor, k: Tensor, reverse: Tensor | None, pre: Tensor | None, post: Tensor | None,
    document_starts: Tensor | None, fraction: float, longest: int,
) -> Tensor:  # fmt: skip
    if u.dtype == torch.float32:  # the library's FFT is the fastest there is in float32
        return reference.forward(u, k, reverse, pre, post, document_starts, fraction, longest)
    u, pre, post = _contiguous(u), _contiguous(pre), _contiguous(post)
    y = torch.empty_like(u)
    if u.numel() == 0:
        return y
    rows = _rows(u, document_starts, longest)
    for i, length in enumerate(rows.longest):
        p = plan(length, fraction, pre is not None or post is not None)
        spectrum, scale = _spectrum(k, reverse, p)
        run = _fused_forward if p.outer == 1 else _long_forward
        run(u, pre, post, y, spectrum, scale, p, rows, i)
    return y


def backward(
    dy: Tensor, u: Tensor, k: Tensor, reverse: Tensor | None, pre: Tensor | None, post: Tensor | None,
    document_starts: Tensor | None, fraction: float, longest: int,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    if u.dtype == torch.float32:
        return reference.backward(dy, u, k, reverse, pre, post, document_starts, fraction, longest)
    dy, u, pre, post = _contiguous(dy), _contiguous(u), _contiguous(pre), _contiguous(post)
    du = torch.empty_like(u)
    dpre = None if pre is None else torch.empty_like(u)
    dpost = None if post is None else torch.empty_like(u)
    dk = torch.zeros_like(k)
    dreverse = None if reverse is None else torch.zeros_like(reverse)
    if u.numel() == 0:
        return du, dk, dreverse, dpre, dpost
    rows = _rows(u, document_starts, longest)
    for i, length in enumerate(rows.longest):
        p = plan(length, fraction, pre is not None or post is not None, backward=True)
        spectrum, scale = _spectrum(k, reverse, p)
        run = _fused_backward if p.outer == 1 else _long_backward
        gradient = run(dy, u, pre, post, du, dpre, dpost, spectrum, scale, p, rows, i)
        _taps(gradient, p, dk, dreverse)
    return du, dk, dreverse, dpre, dpost


def _spectrum(k: Tensor, reverse: Tensor | None, p: Plan) -> tuple[Tensor, Tensor]:
    """(channels, outer, Na, keep) packed, (channels,) scales. Filters of long rows take the library's FFT."""
    if p.outer > 1:
        return filter_spectrum(k, reverse, p)
    k, reverse = _contiguous(k), _contiguous(reverse)
    n1, n2 = p.factors
    spectrum = k.new_empty((len(k), n1, p.keep), dtype=torch.int32)
    scale = k.new_empty(len(k), dtype=torch.float32)
    filter_spectrum_kernel[(len(k),)](
        k, reverse, spectrum, scale, *exact_constants(p.factors, p.keep, k.device), k.shape[1],
        0 if reverse is None else reverse.shape[1], N1=n1, N2=n2, C2=p.keep, TWO_SIDED=reverse is not None, num_warps=max(4, n1 // 16),
    )  # fmt: skip
    return spectrum, scale


def _taps(gradient: Tensor, p: Plan, dk: Tensor, dreverse: Tensor | None) -> None:
    """Add a spectrum's gradient (parts, channels, P, outer, Na, keep, 2) to the filters'."""
    if p.outer > 1:
        return filter_gradients(gradient.sum((0, 2)), p, dk, dreverse)
    n1, n2 = p.factors
    filter_gradient_kernel[(len(dk),)](
        gradient, dk, dreverse, *exact_constants(p.factors, p.keep, dk.device), len(gradient), dk.shape[1],
        0 if dreverse is None else dreverse.shape[1], N1=n1, N2=n2, C2=p.keep, P=p.rows_per_tile, TWO_SIDED=dreverse is not None,
        num_warps=max(4, n1 // 16),
    )  # fmt: skip


def _contiguous(tensor: Any) -> Any:
    return None if tensor is None else tensor.contiguous()


def _rows(u: Tensor, document_starts: Tensor | None, longest: int) -> Rows:
    batch, channels, length = u.shape
    if document_starts is None:
        return whole_rows(batch, channels, length, u.device)
    return document_rows(document_starts, channels, min(longest, length) if longest else length)


@functools.lru_cache(maxsize=64)
def _fused_constants(p: Plan, device: torch.device) -> tuple[Tensor, ...]:
    n1, n2 = p.factors
    return (
        *weighted_matrix(n1, p.rows_per_tile, device),
        *kept_columns(n2, p.keep, device),
        twiddles(n1, n2, True, device),
    )


@functools.lru_cache(maxsize=64)
def _inner_constants(p: Plan, device: torch.device) -> tuple[Tensor, ...]:
    na, nb = p.factors
    return (
        *plain_matrix(na, p.rows_per_tile, device),
        *kept_columns(nb, p.keep, device),
        twiddles(na, nb, False, device),
    )


# Bytes of them that a thread may spill, into the first-level cache, where that is faster than smaller tiles.
SPILLS: dict[tuple[str, int, int], int] = {}
# Registers a thread may have, by (kernel, factors), where fewer than 255 put more programs on a multiprocessor.
REGISTERS: dict[tuple[str, int, int], int] = {}


def _options(kernel: str, p: Plan) -> dict[str, Any]:
    """Constants and launch options by factors."""
    n1, n2 = p.factors
    limit = REGISTERS.get((kernel, n1, n2))
    first, second = ("N1", "N2") if kernel.startswith("fused") else ("NA", "NB")
    return {
        first: n1, second: n2, "C2": p.keep, "P": p.rows_per_tile, "num_warps": max(4, n1 // 16), "num_stages": 1,
    } | ({"maxnreg": limit} if limit else {})  # fmt: skip


def _split(rows: int, per_tile: int, channels: int) -> int:
    """Programs that share a channel's rows: enough to fill the card, each with a few tiles to spread its constants over."""
    tiles = max(1, triton.cdiv(rows, per_tile))
    return max(1, min(tiles, triton.cdiv(PROGRAMS, channels), triton.cdiv(tiles, 2)))


def _fused_forward(
    u: Tensor, pre: Tensor | None, post: Tensor | None, y: Tensor, spectrum: Tensor, scale: Tensor, p: Plan, rows: Rows, i: int
) -> None:
    channels, length = u.shape[1:]
    split = _split(rows.most[i], p.rows_per_tile, channels)
    full = rows.full and length == p.points and rows.most[i] % p.rows_per_tile == 0
    fused_fwd_kernel[(split, channels)](
        u, pre, post, y, spectrum, scale, *_fused_constants(p, u.device), rows.first, rows.length, rows.count, i, length,
        HAS_PRE=pre is not None, HAS_POST=post is not None, FULL=full, ALIGN=8 if rows.aligned else 1,
        TYPE=TRITON_TYPES[u.dtype], **_options("fused forward", p),
    )  # fmt: skip


def _fused_backward(
    dy: Tensor, u: Tensor, pre: Tensor | None, post: Tensor | None, du: Tensor, dpre: Tensor | None, dpost: Tensor | None,
    spectrum: Tensor, scale: Tensor, p: Plan, rows: Rows, i: int,
) -> Tensor:  # fmt: skip
    channels, length = u.shape[1:]
    split = _split(rows.most[i], p.rows_per_tile, channels)
    full = rows.full and length == p.points and rows.most[i] % p.rows_per_tile == 0
    n1 = p.factors[0]
    sums = u.new_empty((split, channels, p.rows_per_tile, 1, n1, p.keep, 2), dtype=torch.float32)
    fused_bwd_kernel[(split, channels)](
        dy, u, pre, post, du, dpre, dpost, sums, spectrum, scale, *_fused_constants(p, u.device),
        rows.first, rows.length, rows.count, i, length,
        HAS_PRE=pre is not None, HAS_POST=post is not None, FULL=full, ALIGN=8 if rows.aligned else 1,
        TYPE=TRITON_TYPES[u.dtype], **_options("fused backward", p),
    )  # fmt: skip
    return sums


def outer_tile(outer: int) -> dict[str, int]:
    """Rows, depth and columns of the outer transform's products."""
    block = min(64, triton.next_power_of_2(outer))
    return {"BM": block, "BK": block, "BN": {16: 256, 32: 128}.get(block, 64)}


def _groups(channels: int, bytes_per_channel: int) -> Iterator[tuple[int, int]]:
    """First channel and number of channels of each group that fits the workspace."""
    size = max(1, min(channels, WORKSPACE // bytes_per_channel))
    for first in range(0, channels, size):
        yield first, min(size, channels - first)


class _Long:
    """The three passes over one group of channels at a time, and what they share."""

    def __init__(self, u: Tensor, p: Plan, rows: Rows, i: int, spectrum: Tensor, scale: Tensor) -> None:
        self.channels, self.length = u.shape[1:]
        self.p, self.rows, self.i, self.spectrum, self.scale = p, rows, i, spectrum, scale
        self.capacity = rows.most[i]
        self.tile = outer_tile(p.outer)
        self.ends = weighted_matrix(p.outer, 1, u.device)
        self.twiddles = twiddles(p.outer, p.inner, True, u.device)
        self.middle = _inner_constants(p, u.device)
        self.type = TRITON_TYPES[u.dtype]
        self.per_program = max(1, min(4, self.capacity))
        self.bytes = 4 * self.capacity * p.points

    def grid(self, channels: int) -> tuple[int, int, int]:
        tiles = (self.p.inner // self.tile["BN"]) * triton.cdiv(self.p.outer, self.tile["BM"])
        return tiles, channels, triton.cdiv(self.capacity, self.per_program)

    def table(self, first: int) -> tuple[Any, ...]:
        return (
            self.rows.first, self.rows.length, self.rows.count, self.i, self.length, first, self.p.outer, self.capacity,
        )  # fmt: skip

    def into(self, u: Tensor, gate: Tensor | None, first: int, channels: int) -> tuple[Tensor, Tensor]:
        z = u.new_empty((channels, self.capacity, self.p.points), dtype=torch.int32)
        scales = u.new_empty((channels, self.capacity, self.p.inner // self.tile["BN"]), dtype=torch.float32)
        outer_fwd_kernel[self.grid(channels)](
            u, gate, z, scales, *self.ends, self.twiddles, *self.table(first), self.per_program,
            M=self.p.inner, HAS_PRE=gate is not None, ALIGN=8 if self.rows.aligned else 1,
            num_warps=4, num_stages=2, **self.tile,
        )  # fmt: skip
        return z, scales

    def out_of(
        self, z: Tensor, scales: Tensor, a: Tensor | None, out_a: Tensor, b: Tensor | None, out_b: Tensor | None, first: int
    ) -> None:
        outer_inv_kernel[self.grid(len(z))](
            z, scales, self.scale, a, out_a, b, out_b, *self.ends, self.twiddles, *self.table(first), self.per_program,
            M=self.p.inner, HAS_A=a is not None, HAS_B=b is not None,
            ALIGN=8 if self.rows.aligned else 1, TYPE=self.type, num_warps=4, num_stages=2, **self.tile,
        )  # fmt: skip


def _long_forward(
    u: Tensor, pre: Tensor | None, post: Tensor | None, y: Tensor, spectrum: Tensor, scale: Tensor, p: Plan, rows: Rows, i: int
) -> None:
    long = _Long(u, p, rows, i, spectrum, scale)
    for first, channels in _groups(long.channels, long.bytes):
        z, scales = long.into(u, pre, first, channels)
        split = _split(long.capacity, p.rows_per_tile, channels * p.outer)
        inner_fwd_kernel[(p.outer, channels, split)](
            z, scales, spectrum, *long.middle, rows.count, i, first, p.outer, long.capacity,
            BN=long.tile["BN"], **_options("inner forward", p),
        )  # fmt: skip
        long.out_of(z, scales, post, y, None, None, first)


def _long_backward(
    dy: Tensor, u: Tensor, pre: Tensor | None, post: Tensor | None, du: Tensor, dpre: Tensor | None, dpost: Tensor | None,
    spectrum: Tensor, scale: Tensor, p: Plan, rows: Rows, i: int,
) -> Tensor:  # fmt: skip
    long = _Long(u, p, rows, i, spectrum, scale)
    na = p.factors[0]
    sums = u.new_empty((long.channels, p.outer, p.rows_per_tile, na, p.keep, 2), dtype=torch.float32)
    for first, channels in _groups(long.channels, 2 * long.bytes):
        zx, x_scales = long.into(u, pre, first, channels)
        zg, g_scales = long.into(dy, post, first, channels)
        inner_bwd_kernel[(p.outer, channels)](
            zx, x_scales, zg, g_scales, sums[first:], spectrum, *long.middle, rows.count, i, first, p.outer, long.capacity,
            NEEDS_Y=dpost is not None, BN=long.tile["BN"], **_options("inner backward", p),
        )  # fmt: skip
        long.out_of(zg, g_scales, pre, du, u if dpre is not None else None, dpre, first)
        if dpost is not None:
            long.out_of(zx, x_scales, dy, dpost, None, None, first)
    return sums.transpose(1, 2)[None]


def shipped() -> Iterator[Configuration]:
    """Every size of the fused kernels gated, and of the passes of long convolutions, in bfloat16."""
    pointers = dict.fromkeys(("U", "PRE", "POST", "Y", "DY", "DU", "DPRE", "DPOST", "A", "OUT_A", "B", "OUT_B"), "*bf16")
    pointers |= dict.fromkeys(("F1R", "F1I", "FR", "FI", "F2R", "F2I"), "*fp16")
    pointers |= dict.fromkeys(("K", "T", "LENGTH", "COUNT", "Z", "ZX", "ZG"), "*i32")
    pointers |= dict.fromkeys(("K_SCALE", "Z_SCALE", "ZX_SCALE", "ZG_SCALE", "DK"), "*fp32") | {"FIRST": "*i64"}
    pointers |= dict.fromkeys(("WHICH", "row_length", "first_channel", "N1", "capacity", "ROWS"), "i32")
    flags = {"HAS_PRE": True, "HAS_POST": True, "FULL": True, "ALIGN": 8, "TYPE": TRITON_TYPES[torch.bfloat16]}
    for points in FORWARD:
        for name, kernel, backward in (("fused forward", fused_fwd_kernel, False), ("fused backward", fused_bwd_kernel, True)):
            yield _configuration(f"{name} {points}", name, kernel, pointers, flags, _plan(points, 1, backward))
    filters = {name: "*fp32" for name in ("TAPS", "REVERSE", "DTAPS", "DREVERSE", "COS", "SIN")} | pointers
    filters |= {name: "i32" for name in ("taps", "reverse_taps", "parts")}
    for factors in sorted({*FORWARD.values(), *BACKWARD.values()}):
        n1, n2 = factors
        constants = {"N1": n1, "N2": n2, "C2": n2, "TWO_SIDED": True}
        label = f"{n1} x {n2}"
        yield Configuration(f"filter spectrum {label}", filter_spectrum_kernel, filters, constants, max(4, n1 // 16))
        constants = constants | {"P": max(1, 64 // n1)}
        yield Configuration(f"filter gradient {label}", filter_gradient_kernel, filters, constants, max(4, n1 // 16))
    for outer in (16, 32, 64):
        tile = outer_tile(outer)
        for name, kernel, more in (
            ("forward", outer_fwd_kernel, {"HAS_PRE": True}),
            ("inverse", outer_inv_kernel, {"HAS_A": True, "HAS_B": False, "TYPE": flags["TYPE"]}),
        ):
            constants = {"M": 1024, "ALIGN": 8} | tile | more
            yield Configuration(f"outer {name} {outer}", kernel, pointers, constants, 4, 2, wgmma=outer == 64)
    for inner in INNER:
        for name, kernel, more in (
            ("inner forward", inner_fwd_kernel, {}),
            ("inner backward", inner_bwd_kernel, {"NEEDS_Y": True}),
        ):
            p = _plan(inner, 16, name == "inner backward")
            yield _configuration(f"{name} {inner}", name, kernel, pointers, more | {"BN": 256}, p)


def _plan(inner: int, outer: int, backward: bool) -> Plan:
    factors = (BACKWARD if backward else FORWARD)[inner]
    return Plan(inner * outer, outer, inner, factors, factors[1], 0.0)


def _configuration(
    label: str, name: str, kernel: Any, signature: dict[str, str], constants: dict[str, Any], p: Plan
) -> Configuration:
    options = _options(name, p)
    warps, stages, limit = options.pop("num_warps"), options.pop("num_stages"), options.pop("maxnreg", None)
    more = {"maxnreg": limit} if limit else {}
    return Configuration(
        label, kernel, signature, constants | options, warps, stages, SPILLS.get((name, *p.factors), 0), True, options=more
    )
