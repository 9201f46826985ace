"""Launches the short convolution's kernels, and hands longer filters to the Toeplitz kernels."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
from torch import Tensor

from kernels.arguments import rows_last
from kernels.configurations import Configuration
from kernels.conv_fir.channels_first import fir_bdl_bwd_kernel, fir_bdl_fwd_kernel
from kernels.conv_fir.channels_last import fir_bld_bwd_kernel, fir_bld_fwd_kernel
from kernels.conv_toeplitz import triton as toeplitz
from kernels.dispatch import interpreted
from kernels.triton_support import TRITON_TYPES

MOST_TAPS = 8  # of the kernels that keep all taps in registers

# Shapes of programs, chosen by measurement (benchmarks/NOTES.md).
# (B, L, D), without and with gates: U rows at once, BS segments of about ROWS rows, BD channels.
_BLD_FORWARD = {gates: {"U": 8, "BS": 4, "BD": 256, "num_warps": 8 if gates else 4} for gates in (False, True)}
_BLD_BACKWARD = {gates: {"U": 4, "BS": 1, "BD": 128, "num_warps": 1 if gates else 2} for gates in (False, True)}
_BLD_ROWS = {"forward": 16, "backward": 128}
# (B, D, L): BC channels, NV times W vectors of 8 in time, W = 2 where sigmoids alone are what takes time, of which W neighbours
# share more; the backward takes up to SPAN blocks in one program.
_BDL_FORWARD = {"BC": 1, "NV": 128, "num_warps": 4}
_BDL_BACKWARD = {sigmoids: {"BC": 1, "NV": 128, "W": 2 if sigmoids else 1, "num_warps": 4} for sigmoids in (False, True)}
_BDL_SPAN = 8
if interpreted():  # which takes as long for a large block as for a small one
    _BLD_FORWARD = _BLD_BACKWARD = {gates: {"U": 4, "BS": 8, "BD": 32, "num_warps": 4} for gates in (False, True)}
    _BDL_FORWARD = {"BC": 32, "NV": 4, "num_warps": 4}
    _BDL_BACKWARD = {sigmoids: _BDL_FORWARD | {"W": 2 if sigmoids else 1} for sigmoids in (False, True)}
    _BLD_ROWS = {"forward": 4, "backward": 4}


def _flags(
    weight: Tensor,
    bias: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    state: Tensor | None,
    starts: Tensor | None,
    silu: bool,
    dtype: torch.dtype,
) -> dict[str, object]:
    return {
        "K": weight.shape[1],
        "HAS_BIAS": bias is not None,
        "SILU": silu,
        "HAS_PRE": pregate is not None,
        "HAS_POST": postgate is not None,
        "HAS_STATE": state is not None,
        "HAS_DOCS": starts is not None,
        "DTYPE": TRITON_TYPES[dtype],
    }


def _strides(*tensors: Tensor | None) -> list[int]:
    return [stride for tensor in tensors for stride in (tensor.stride()[:2] if tensor is not None else (0, 0))]


def _channels_first(channels_last: bool, *tensors: Tensor | None) -> list[Tensor | None]:
    """The tensors with their last two axes swapped, if they are channels last; the same function leads back."""
    return [t if t is None or not channels_last else t.transpose(1, 2).contiguous() for t in tensors]


def _segment_rows(direction: str, length: int, step: int, extra: int, segments: int) -> int:
    """Rows of a segment, so that rows + extra is a multiple of the step: about _BLD_ROWS, fewer for a short sequence."""
    wanted = min(_BLD_ROWS[direction], triton.cdiv(length, segments))
    return max(triton.cdiv(wanted + extra, step) * step - extra, 1)


def forward(
    u: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    state: Tensor | None,
    document_starts: Tensor | None,
    silu: bool,
    channels_last: bool,
) -> Tensor:
    if weight.shape[1] > MOST_TAPS:
        u, pregate, postgate, state = _channels_first(channels_last, u, pregate, postgate, state)  # type: ignore[assignment]
        y = toeplitz.forward(u, weight, bias, pregate, postgate, state, document_starts, silu)
        return y.transpose(1, 2).contiguous() if channels_last else y
    u, pregate, postgate = rows_last(u), rows_last(pregate), rows_last(postgate)  # type: ignore[assignment]
    weight, bias, state = (None if t is None else t.contiguous() for t in (weight, bias, state))
    batch, length = u.shape[0], u.shape[1 if channels_last else 2]
    channels = u.shape[2 if channels_last else 1]
    y = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    if y.numel() == 0:
        return y
    flags = _flags(weight, bias, pregate, postgate, state, document_starts, silu, u.dtype)
    inputs = (u, weight, bias, pregate, postgate, state, document_starts, y, length, channels)
    if channels_last:
        shape = _BLD_FORWARD[pregate is not None or postgate is not None]
        rows = _segment_rows("forward", length, shape["U"], 0, shape["BS"])
        grid = (triton.cdiv(channels, shape["BD"]) * triton.cdiv(length, rows * shape["BS"]), batch)
        fir_bld_fwd_kernel[grid](*inputs, rows, *_strides(u, pregate, postgate), **flags, **shape)
    else:
        shape = _BDL_FORWARD
        grid = (triton.cdiv(length, 8 * shape["NV"]), triton.cdiv(channels, shape["BC"]), batch)
        fir_bdl_fwd_kernel[grid](*inputs, *_strides(u, pregate, postgate), **flags, **shape)
    return y


def backward(
    dy: Tensor,
    u: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    state: Tensor | None,
    document_starts: Tensor | None,
    silu: bool,
    channels_last: bool,
) -> tuple[Tensor | None, ...]:
    """Gradients of u, weight, bias, pregate, postgate and state; None for what is not there."""
    if weight.shape[1] > MOST_TAPS:
        dy, u, pregate, postgate, state = _channels_first(channels_last, dy, u, pregate, postgate, state)  # type: ignore[assignment]
        found = toeplitz.backward(dy, u, weight, bias, pregate, postgate, state, document_starts, silu)
        du, dpre, dpost, dstate = _channels_first(channels_last, found[0], *found[3:])
        return du, found[1], found[2], dpre, dpost, dstate
    dy = dy.contiguous()
    u, pregate, postgate = rows_last(u), rows_last(pregate), rows_last(postgate)  # type: ignore[assignment]
    weight, bias, state = (None if t is None else t.contiguous() for t in (weight, bias, state))
    batch, length = u.shape[0], u.shape[1 if channels_last else 2]
    channels, taps = weight.shape

    def like(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)

    du, dpre, dpost, dstate = like(u), like(pregate), like(postgate), like(state)
    early = 0 if state is None else (taps - 1 if channels_last else 8)
    if channels_last:
        shape = _BLD_BACKWARD[pregate is not None or postgate is not None]
        rows = _segment_rows("backward", length + early, shape["U"], taps - 1, shape["BS"])
        spans = triton.cdiv(length + early, rows * shape["BS"])
        grid = (triton.cdiv(channels, shape["BD"]) * spans, batch)
        kernel, size = fir_bld_bwd_kernel, rows
    else:
        shape = _BDL_BACKWARD[silu and all(t is None for t in (pregate, postgate, state, document_starts))]
        blocks = triton.cdiv(length + early, 8 * shape["W"] * shape["NV"])
        spans = triton.cdiv(blocks, _BDL_SPAN)
        grid = (spans, triton.cdiv(channels, shape["BC"]), batch)
        kernel, size = fir_bdl_bwd_kernel, triton.cdiv(blocks, spans) if spans else 0
    dw = torch.empty(batch * spans, taps, channels, dtype=torch.float32, device=u.device)
    db = None if bias is None else torch.empty(batch * spans, channels, dtype=torch.float32, device=u.device)
    if u.numel():
        flags = _flags(weight, bias, pregate, postgate, state, document_starts, silu, u.dtype)
        inputs = (dy, u, weight, bias, pregate, postgate, state, document_starts, du, dw, db, dpre, dpost, dstate)
        kernel[grid](*inputs, length, channels, size, *_strides(u, pregate, postgate), **flags, **shape)
    dweight = dw.sum(0).t().contiguous().to(weight.dtype)
    dbias = None if bias is None or db is None else db.sum(0).to(bias.dtype)
    return du, dweight, dbias, dpre, dpost, dstate


def shipped() -> Iterator[Configuration]:
    """Both layouts and directions in bfloat16 with everything fused, and with SiLU alone where programs have another shape."""
    pointers = {"p_w": "*fp32", "p_bias": "*fp32", "p_start": "*i32", "p_dw": "*fp32", "p_dbias": "*fp32"}
    names = ("p_dy", "p_u", "p_pre", "p_post", "p_state", "p_y", "p_du", "p_dpre", "p_dpost", "p_dstate")
    signature = pointers | dict.fromkeys(names, "*bf16") | dict.fromkeys(("L", "D", "TS", "blocks"), "i32")
    signature |= {f"s{tensor}_{axis}": "i32" for tensor in ("u", "pre", "post") for axis in "btc"}
    everything = ("HAS_BIAS", "SILU", "HAS_PRE", "HAS_POST", "HAS_STATE", "HAS_DOCS")
    for name, kernel, shape, present in (
        ("bld_forward", fir_bld_fwd_kernel, _BLD_FORWARD[False], everything[:2]),
        ("bld_forward_fused", fir_bld_fwd_kernel, _BLD_FORWARD[True], everything),
        ("bld_backward", fir_bld_bwd_kernel, _BLD_BACKWARD[False], everything[:2]),
        ("bld_backward_fused", fir_bld_bwd_kernel, _BLD_BACKWARD[True], everything),
        ("bdl_forward_fused", fir_bdl_fwd_kernel, _BDL_FORWARD, everything),
        ("bdl_backward", fir_bdl_bwd_kernel, _BDL_BACKWARD[True], everything[:2]),
        ("bdl_backward_fused", fir_bdl_bwd_kernel, _BDL_BACKWARD[False], everything),
    ):
        absent = [] if present == everything else ["p_pre", "p_post", "p_state", "p_start", "p_dpre", "p_dpost", "p_dstate"]
        constants = {flag: flag in present for flag in everything} | {k: v for k, v in shape.items() if k != "num_warps"}
        constants |= {"K": 4, "DTYPE": TRITON_TYPES[torch.bfloat16]} | {p: None for p in absent if p in kernel.arg_names}
        yield Configuration(name, kernel, signature, constants, num_warps=shape["num_warps"])
