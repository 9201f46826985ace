"""Forward and backward on a GPU, one length class of rows after the other."""

# Triton's decorators hide from type checkers how kernels are launched.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from kernels.configurations import Configuration
from kernels.conv_fft import reference
from kernels.conv_fft.document_kernels import document_configurations, short_configurations
from kernels.conv_fft.launch_blocks import Blocks
from kernels.conv_fft.launch_fused import SPILLS, Fused, options
from kernels.conv_fft.launch_long import INNER_SPILLS, Long, inner_options, writes_taps
from kernels.conv_fft.launch_outer import SPILLS as OUTER_SPILLS
from kernels.conv_fft.launch_outer import outer_kernels, outer_options
from kernels.conv_fft.launch_short import Short, is_short, whole_blocks
from kernels.conv_fft.rows import Rows, document_rows, whole_rows
from kernels.conv_fft.streams import side_by_side
from kernels.conv_fft.transforms import BACKWARD, FORWARD, INNER, Plan, plan
from kernels.conv_fft.triton_filter import filter_gradient_kernel, filter_spectrum_kernel
from kernels.conv_fft.triton_fused import fused_bwd_kernel, fused_fwd_kernel
from kernels.conv_fft.triton_inner import inner_bwd_kernel, inner_filter_kernel, inner_fwd_kernel
from kernels.conv_fft.triton_table import zero_tails_kernel
from kernels.triton_support import TRITON_TYPES


def forward(
    u: Tensor, k: Tensor, reverse: Tensor | None, pre: Tensor | None, post: Tensor | None,
    document_starts: Tensor | None, fraction: float, longest: int, table: Tensor | None = None,
) -> Tensor:  # fmt: skip
    if u.dtype == torch.float32:  # the library's FFT is the fastest there is in float32
        return reference.forward(u, k, reverse, pre, post, document_starts, fraction, longest)
    u, k, reverse, pre, post = (_contiguous(t) for t in (u, k, reverse, pre, post))
    y = torch.empty_like(u)
    if u.numel() == 0:
        return y
    table_rows = _rows(u, document_starts, longest, table, reverse is None)

    def convolve(i: int, length: int) -> None:
        if table_rows.blocks[i]:
            return Blocks(u, k, table_rows, i).forward(u, pre, post, y)
        if is_short(length, reverse, fraction):
            return Short(u, k, table_rows, i).forward(u, pre, post, y)
        p = plan(length, fraction, pre is not None or post is not None, documents=document_starts is not None)
        return (Fused if p.outer == 1 else Long)(u, k, reverse, p, table_rows, i).forward(u, pre, post, y)

    side_by_side(u, [functools.partial(convolve, *number) for number in enumerate(table_rows.longest)])
    if document_starts is not None and longest:
        _zero_tails(table_rows, is_short(table_rows.longest[-1], reverse, fraction), y)
    return y


def backward(
    dy: Tensor, u: Tensor, k: Tensor, reverse: Tensor | None, pre: Tensor | None, post: Tensor | None,
    document_starts: Tensor | None, fraction: float, longest: int, table: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    if u.dtype == torch.float32:
        return reference.backward(dy, u, k, reverse, pre, post, document_starts, fraction, longest)
    dy, u, k, reverse, pre, post = (_contiguous(t) for t in (dy, u, k, reverse, pre, post))
    du = torch.empty_like(u)
    dpre = None if pre is None else torch.empty_like(u)
    dpost = None if post is None else torch.empty_like(u)
    dreverse = None if reverse is None else torch.zeros_like(reverse)
    if u.numel() == 0:
        return du, torch.zeros_like(k), dreverse, dpre, dpost
    table_rows = _rows(u, document_starts, longest, table, reverse is None)
    plans = [plan(n, fraction, pre is not None or post is not None, backward=True) for n in table_rows.longest]
    dk = (torch.empty_like if writes_taps(plans[0], table_rows, u, k, reverse) else torch.zeros_like)(k)

    def differentiate(i: int, p: Plan) -> Callable[[], None]:
        if table_rows.blocks[i]:
            return Blocks(u, k, table_rows, i).backward(dy, u, pre, post, du, dpre, dpost, dk)
        if is_short(table_rows.longest[i], reverse, fraction):
            return Short(u, k, table_rows, i).backward(dy, u, pre, post, du, dpre, dpost, dk)
        rows = (Fused if p.outer == 1 else Long)(u, k, reverse, p, table_rows, i)
        return rows.backward(dy, u, pre, post, du, dpre, dpost, dk, dreverse)

    for add in side_by_side(u, [functools.partial(differentiate, *number) for number in enumerate(plans)]):
        add()
    if document_starts is not None and longest:
        _zero_tails(table_rows, is_short(table_rows.longest[-1], reverse, fraction), du, dpre, dpost)
    return du, dk, dreverse, dpre, dpost


def _zero_tails(table_rows: Rows, short: bool, *results: Tensor | None) -> None:
    """Zeros where a document is longer than the caller said, and the kernels leave it out. short: the last class is."""
    last = len(table_rows.longest) - 1
    limit = table_rows.longest[last]
    if table_rows.blocks[last]:
        limit = min(limit, table_rows.frame)
    elif short:
        limit = whole_blocks(table_rows, last)
    for result in results:
        if result is not None:
            zero_tails_kernel[(result.shape[1],)](
                result, table_rows.first, table_rows.length, table_rows.count, last, result.shape[2], limit,
                ROWS=1024, BLOCK=1024,
            )  # fmt: skip


def _contiguous(tensor: Any) -> Any:
    return None if tensor is None else tensor.contiguous()


def _rows(u: Tensor, document_starts: Tensor | None, longest: int, table: Tensor | None, causal: bool) -> Rows:
    batch, channels, length = u.shape
    if document_starts is None:
        return whole_rows(batch, channels, length, u.device)
    return document_rows(document_starts, channels, min(longest, length) if longest else length, causal, table)


def shipped() -> Iterator[Configuration]:
    """The sizes that need most of a multiprocessor, bfloat16: others are the same code with smaller tiles."""
    pointers = dict.fromkeys(("U", "PRE", "POST", "Y", "DY", "DU", "DPRE", "DPOST", "A", "OUT_A", "B", "OUT_B"), "*bf16")
    pointers |= dict.fromkeys(("F1R", "F1I", "F2R", "F2I", "G", "G1", "G2", "Z", "ZX", "ZG"), "*fp16")
    pointers |= dict.fromkeys(("K", "T", "T1", "SHIFT", "LENGTH", "COUNT"), "*i32")
    pointers |= dict.fromkeys(
        ("K_SCALE", "K_INVERSE", "K_LARGEST", "Z_SCALE", "ZX_SCALE", "ZG_SCALE", "DK", "DK_SCALE"), "*fp32"
    ) | {"FIRST": "*i64"}
    pointers |= dict.fromkeys(("WHICH", "row_length", "first_channel", "N1", "capacity", "ROWS"), "i32")
    flags = {"HAS_PRE": True, "HAS_POST": True, "FULL": True, "FRAMED": False, "ALIGN": 8, "TYPE": TRITON_TYPES[torch.bfloat16]}
    for points in (4096, 8192):
        for name, kernel, backward in (("fused forward", fused_fwd_kernel, False), ("fused backward", fused_bwd_kernel, True)):
            factors = (BACKWARD if backward else FORWARD)[points]
            p = Plan(points, 1, points, factors, factors[1], 0.0)
            allowed = SPILLS.get((name, *p.factors), 0)
            yield _configuration(f"{name} {points}", kernel, pointers, flags, options(name, p), allowed, True)
    filters = dict.fromkeys(("TAPS", "REVERSE", "DTAPS", "DREVERSE", "COS", "SIN"), "*fp32") | pointers
    filters |= dict.fromkeys(("taps", "reverse_taps", "parts"), "i32")
    for factors in ((128, 64),):
        n1, n2 = factors
        constants = {"N1": n1, "N2": n2, "C2": n2, "TWO_SIDED": True, "EXACT": True}
        label = f"{n1} x {n2}"
        yield Configuration(f"filter spectrum {label}", filter_spectrum_kernel, filters, constants, max(4, n1 // 16))
        constants = constants | {"P": max(1, 64 // n1)}
        yield Configuration(f"filter gradient {label}", filter_gradient_kernel, filters, constants, max(4, n1 // 16))
    inverse = {"HAS_A": True, "HAS_B": False, "SCALE_BY_K1": False, "TYPE": flags["TYPE"]}
    for points in (16, 64, 128, 256, 512, 1024):
        for name, kernel, more in zip(
            ("outer forward", "outer inverse"), outer_kernels(points), ({"HAS_PRE": True}, inverse), strict=True
        ):
            constants = {"M": 2048, "ALIGN": 8, "ALIGN_END": 8} | more
            launch = outer_options(name, points)
            allowed = OUTER_SPILLS.get((name, points), 0)
            yield _configuration(f"{name} {points}", kernel, pointers, constants, launch, allowed, points in (64, 128))
    for inner in (1024, 2048, 4096):
        for name, kernel, more in (
            ("inner forward", inner_fwd_kernel, {}),
            ("inner backward", inner_bwd_kernel, {"NEEDS_Y": True, "TAPS": True}),
            ("inner filter", inner_filter_kernel, {}),
        ):
            p = Plan(inner * 64, 64, inner, INNER[inner], INNER[inner][1], 0.0)
            allowed = INNER_SPILLS.get((name, inner), 0)
            launch = inner_options(name, p)
            yield _configuration(f"{name} {inner}", kernel, pointers, more | {"BN": 16}, launch, allowed, True)

    yield from short_configurations(True)
    yield from document_configurations()


def _configuration(
    name: str,
    kernel: Any,
    signature: dict[str, str],
    constants: dict[str, Any],
    launch: dict[str, Any],
    spills: int,
    wgmma: bool,
) -> Configuration:
    launch = dict(launch)
    warps, stages, limit = launch.pop("num_warps"), launch.pop("num_stages"), launch.pop("maxnreg", None)
    more = {"maxnreg": limit} if limit else {}
    return Configuration(name, kernel, signature, constants | launch, warps, stages, spills, wgmma, options=more)
