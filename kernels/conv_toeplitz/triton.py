"""Launches the Toeplitz products: table of shifts, chunk size, how rows are split over programs."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
from torch import Tensor

from kernels.arguments import rows_last
from kernels.configurations import Configuration
from kernels.conv_toeplitz.product import toeplitz_dfilter_kernel, toeplitz_kernel
from kernels.conv_toeplitz.reference import segments_of
from kernels.dispatch import interpreted
from kernels.triton_support import TRITON_TYPES

# Programs that a launch should have at least: a few for each of an H200's 132 SMs.
_PROGRAMS = 1056
# Blocks of 64 beyond the first that may stay in shared memory; blocks of 128 are too large.
_RESIDENT = 2
# Rows of a tile and warps, by chunk size; chosen by measurement (benchmarks/NOTES.md).
_SHAPES = {64: {"R": 64, "num_warps": 4, "num_stages": 2}, 128: {"R": 128, "num_warps": 8, "num_stages": 3}}
# With documents, dz or float32 there is more to hold.
_SMALL_SHAPES = {64: {"R": 64, "num_warps": 4, "num_stages": 2}, 128: {"R": 64, "num_warps": 8, "num_stages": 2}}
_FILTER_SHAPES = {64: {"R": 64, "num_warps": 4, "num_stages": 2}, 128: {"R": 64, "num_warps": 8, "num_stages": 2}}
if interpreted():
    _SHAPES = _SMALL_SHAPES = _FILTER_SHAPES = {16: {"R": 16, "num_warps": 4, "num_stages": 2}}


def chunk_size(taps: int, dtype: torch.dtype) -> int:
    """64 where three blocks of it hold the filter, or where blocks of 128 would fill shared memory (float32); else 128."""
    if interpreted():
        return 16
    return 64 if taps <= 129 or dtype == torch.float32 else 128


def shifts(filter: Tensor, chunk: int, blocks: int, dtype: torch.dtype) -> Tensor:
    """(filters, 8, (blocks + 2) chunk): entry [f, r, chunk + x] is filter[f, x - r], zero outside."""
    width = (blocks + 2) * chunk
    padded = torch.nn.functional.pad(filter.to(dtype), (chunk + 7, width - chunk - filter.shape[1]))
    return torch.stack([padded[:, 7 - r : 7 - r + width] for r in range(8)], dim=1)


class _Plan:
    """Sizes and flags that a call's three launches share."""

    def __init__(self, u: Tensor, filter: Tensor, pregate: Tensor | None, state: Tensor | None, starts: Tensor | None) -> None:
        self.batch, self.channels, self.length = u.shape
        self.filters, self.taps = filter.shape
        self.chunk = chunk_size(self.taps, u.dtype)
        self.blocks = max(triton.cdiv(self.taps - 1, self.chunk), 1)
        self.segments = None if starts is None else segments_of(starts, self.chunk)
        self.group = self.channels // self.filters
        self.flags: dict[str, Any] = {
            "C": self.chunk,
            "HAS_PRE": pregate is not None,
            "HAS_STATE": state is not None,
            "HAS_DOCS": starts is not None,
            "DTYPE": TRITON_TYPES[u.dtype],
            "PRECISION": "tf32x3" if u.dtype == torch.float32 else "tf32",
        }

    def rows(self, rows: int, early: int = 0) -> tuple[int, int, int, int]:
        """Chunks of a sequence, rows of a filter, tiles of rows, and over how many programs a filter's tiles are split."""
        chunks = triton.cdiv(self.length, self.chunk) + early
        total = chunks * self.batch * self.group
        tiles = triton.cdiv(total, rows)
        return chunks, total, tiles, min(tiles, triton.cdiv(_PROGRAMS, self.filters))


def _strides(tensor: Tensor | None) -> tuple[int, int]:
    return (0, 0) if tensor is None else (tensor.stride(0), tensor.stride(1))


def _launch(
    plan: _Plan,
    x: Tensor,
    table: Tensor,
    bias: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    state: Tensor | None,
    starts: Tensor | None,
    *,
    silu: bool = False,
    dy: Tensor | None = None,
    u: Tensor | None = None,
    out: Tensor,
    extra: Tensor | None = None,
    dstate: Tensor | None = None,
    transposed: bool = False,
) -> None:
    small = starts is not None or dy is not None or x.dtype == torch.float32
    shape = (_SMALL_SHAPES if small else _SHAPES)[plan.chunk]
    early = triton.cdiv(plan.taps - 1, plan.chunk) if transposed and state is not None else 0
    chunks, total, tiles, splits = plan.rows(shape["R"], early)
    if not total:
        return
    toeplitz_kernel[(plan.filters, splits)](
        *(x, table, bias, pregate, postgate, state, starts, plan.segments, dy, u, out, extra, dstate),
        *(plan.length, plan.batch, chunks, plan.group, total, tiles, plan.blocks, plan.taps, table.shape[2]),
        *(*_strides(x), *_strides(pregate), *_strides(postgate), *_strides(u)),
        RESIDENT=plan.blocks if plan.blocks <= _RESIDENT and plan.chunk <= 64 else 0,
        TRANSPOSED=transposed,
        HAS_BIAS=bias is not None,
        SILU=silu,
        HAS_POST=postgate is not None,
        GRADIENT=dy is not None,
        **plan.flags,
        **shape,
    )


def forward(
    u: Tensor,
    filter: Tensor,
    bias: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    state: Tensor | None,
    document_starts: Tensor | None,
    silu: bool,
) -> Tensor:
    u, pregate, postgate = rows_last(u), rows_last(pregate), rows_last(postgate)  # type: ignore[assignment]
    bias, state = (None if t is None else t.contiguous() for t in (bias, state))
    plan = _Plan(u, filter, pregate, state, document_starts)
    y = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    table = shifts(filter, plan.chunk, plan.blocks, u.dtype)
    _launch(plan, u, table, bias, pregate, postgate, state, document_starts, silu=silu, out=y)
    return y


def backward(
    dy: Tensor,
    u: Tensor,
    filter: Tensor,
    bias: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    state: Tensor | None,
    document_starts: Tensor | None,
    silu: bool,
) -> tuple[Tensor | None, ...]:
    """Gradients of u, filter, bias, pregate, postgate and state; None for what is not there."""
    dy = dy.contiguous()
    u, pregate, postgate = rows_last(u), rows_last(pregate), rows_last(postgate)  # type: ignore[assignment]
    bias, state = (None if t is None else t.contiguous() for t in (bias, state))
    plan = _Plan(u, filter, pregate, state, document_starts)
    table = shifts(filter, plan.chunk, plan.blocks, u.dtype)

    def like(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)

    dz, dpost = dy, like(postgate)
    if silu or postgate is not None:
        dz = torch.empty_like(dy)
        _launch(plan, u, table, bias, pregate, postgate, state, document_starts, silu=silu, dy=dy, out=dz, extra=dpost)
    du, dpre, dstate = torch.empty(u.shape, dtype=u.dtype, device=u.device), like(pregate), like(state)
    _launch(
        plan, dz, table, None, pregate, None, state, document_starts, u=u, out=du, extra=dpre, dstate=dstate, transposed=True
    )
    dfilter = _filter_gradient(plan, dz, u, pregate, state, document_starts)
    dbias = None if bias is None else dz.sum((0, 2), dtype=torch.float32).to(bias.dtype)
    return du, dfilter.to(filter.dtype), dbias, dpre, dpost, dstate


def _filter_gradient(
    plan: _Plan, dz: Tensor, u: Tensor, pregate: Tensor | None, state: Tensor | None, starts: Tensor | None
) -> Tensor:
    shape = _FILTER_SHAPES[plan.chunk]
    chunks, total, tiles, splits = plan.rows(shape["R"])
    group = 3 if plan.blocks == 2 else 2  # blocks that one program sums
    groups = plan.blocks // group + 1
    if not total:
        return dz.new_zeros(plan.filters, plan.taps, dtype=torch.float32)
    part = torch.empty(plan.filters, splits, group * groups, 2 * plan.chunk, dtype=torch.float32, device=u.device)
    toeplitz_dfilter_kernel[(plan.filters, groups, splits)](
        *(dz, u, pregate, state, starts, plan.segments, part),
        *(plan.length, plan.batch, chunks, plan.group, total, tiles, plan.blocks, plan.taps, *_strides(u), *_strides(pregate)),
        M=group,
        **plan.flags,
        **shape,
    )
    part = part.sum(1)
    by_delay = part.new_zeros(plan.filters, (group * groups + 1) * plan.chunk)  # from delay -chunk
    for j in range(group * groups):
        by_delay[:, j * plan.chunk : (j + 2) * plan.chunk] += part[:, j]
    return by_delay[:, plan.chunk : plan.chunk + plan.taps]


def shipped() -> Iterator[Configuration]:
    """Both chunk sizes in bfloat16: plain, and gated with documents; multi-block; the filter's gradient."""
    pointers = dict.fromkeys(("p_start", "p_segment"), "*i32") | {"p_part": "*fp32", "p_bias": "*fp32"}
    names = ("p_x", "p_table", "p_pre", "p_post", "p_state", "p_dy", "p_dz", "p_u", "p_out", "p_extra", "p_dstate")
    sizes = ("L", "B", "NC", "PER", "total", "tiles", "J", "K", "P")
    signature = pointers | dict.fromkeys(names, "*bf16") | dict.fromkeys(sizes, "i32")
    signature |= {f"s{tensor}_{axis}": "i32" for tensor in ("x", "pre", "post", "u") for axis in "bc"}
    flags = ("HAS_BIAS", "SILU", "HAS_PRE", "HAS_POST", "HAS_STATE", "HAS_DOCS", "GRADIENT", "TRANSPOSED")
    plain = dict.fromkeys(flags, False) | {"DTYPE": TRITON_TYPES[torch.bfloat16], "PRECISION": "tf32"}
    gated = {"HAS_PRE": True, "HAS_POST": True}
    variants: dict[str, dict[str, Any]] = {
        "two_stage_forward": {"C": 64, "RESIDENT": 1} | gated,
        "two_stage_documents": {"C": 64, "RESIDENT": 2, "HAS_DOCS": True} | gated,
        "two_stage_dz": {"C": 64, "RESIDENT": 2, "GRADIENT": True, "SILU": True} | gated,
        "two_stage_transposed": {"C": 64, "RESIDENT": 2, "TRANSPOSED": True, "HAS_PRE": True},
        "blocks_forward": {"C": 128, "RESIDENT": 0} | gated,
        "blocks_dz": {"C": 128, "RESIDENT": 0, "GRADIENT": True, "SILU": True} | gated,
        "blocks_documents": {"C": 128, "RESIDENT": 0, "HAS_DOCS": True} | gated,
    }
    for name, variant in variants.items():
        shapes = _SMALL_SHAPES if "HAS_DOCS" in variant or "GRADIENT" in variant else _SHAPES
        yield _configuration(name, toeplitz_kernel, signature, plain | variant, shapes)
    for chunk in (64, 128):
        yield _configuration(
            f"{chunk}_dfilter",
            toeplitz_dfilter_kernel,
            signature,
            plain | {"C": chunk, "M": 3 if chunk == 64 else 2, "HAS_PRE": True},
            _FILTER_SHAPES,
        )


def _configuration(
    name: str, kernel: Any, signature: dict[str, str], constants: dict[str, Any], shapes: dict[int, dict[str, int]]
) -> Configuration:
    shape = shapes[constants["C"]]
    absent = {"p_bias": "HAS_BIAS", "p_pre": "HAS_PRE", "p_post": "HAS_POST", "p_state": "HAS_STATE", "p_start": "HAS_DOCS"}
    absent |= {"p_segment": "HAS_DOCS", "p_dy": "GRADIENT", "p_dstate": "HAS_STATE", "p_u": "TRANSPOSED"}
    nothing = {
        p: None for p, flag in absent.items() if not constants[flag] and not (p == "p_u" and kernel is not toeplitz_kernel)
    }
    constants = constants | nothing | {"R": shape["R"]}
    return Configuration(
        name,
        kernel,
        signature,
        {k: v for k, v in constants.items() if k in kernel.arg_names},
        num_warps=shape["num_warps"],
        num_stages=shape["num_stages"],
        spills=128 if constants["C"] == 128 else 0,  # a few, of tiles of 128: measured not to matter
        wgmma=True,
    )
