"""Launches the modal scan and the Vandermonde products, and puts the gradients of poles and residues together."""

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
from kernels.conv_modal.scan import modal_bwd_kernel, modal_fwd_kernel
from kernels.conv_modal.tables import modal_dfilter_kernel, modal_filter_kernel, modal_tables_kernel
from kernels.conv_toeplitz.reference import segments_of
from kernels.conv_toeplitz.triton import shifts
from kernels.dispatch import interpreted
from kernels.triton_support import TRITON_TYPES

# Tokens of a chunk and chunks of a tile, and how they are launched; chosen by measurement (benchmarks/NOTES.md).
_CHUNK = 64
_ROWS = 64
_FORWARD = {"num_warps": 4, "num_stages": 3}
_BACKWARD = {"num_warps": 4, "num_stages": 2}
_FILTER = {"R": 64, "num_warps": 4}
# Programs that a launch should have at least: a few for each of an H200's 132 SMs.
_PROGRAMS = 792
if interpreted():
    _CHUNK, _ROWS, _FILTER = 16, 16, {"R": 16, "num_warps": 4}


class _Tables:
    """Powers of the poles for chunks of _CHUNK, and the block of the filter's first taps."""

    def __init__(self, decay: Tensor, frequency: Tensor, residue: Tensor, skip: Tensor | None) -> None:
        self.channels, self.modes = decay.shape
        self.padded = max(triton.next_power_of_2(self.modes), 8)  # pairs of 8 modes fill the smallest product
        shape = (self.channels, _CHUNK + 1, self.padded, 2)
        self.pow, self.cpow = (torch.empty(shape, dtype=torch.float32, device=decay.device) for _ in range(2))
        self.taps = torch.empty(self.channels, _CHUNK, dtype=torch.float32, device=decay.device)
        if self.channels:
            modal_tables_kernel[(self.channels, 2)](
                *(decay, frequency, residue, skip, self.pow, self.cpow, self.taps, self.modes),
                C=_CHUNK,
                N=self.padded,
                HAS_SKIP=skip is not None,
            )


def carries_shape(u: Tensor, decay: Tensor) -> tuple[int, ...]:
    """Shape of the states before each tile: (batch, channels, tiles, modes padded, 2)."""
    tiles = (u.shape[2] + _CHUNK * _ROWS - 1) // (_CHUNK * _ROWS)
    return u.shape[0], u.shape[1], tiles, max(triton.next_power_of_2(decay.shape[1]), 8), 2


def _strides(*tensors: Tensor | None) -> list[int]:
    return [stride for tensor in tensors for stride in (tensor.stride()[:2] if tensor is not None else (0, 0))]


def _flags(
    u: Tensor, pregate: Tensor | None, postgate: Tensor | None, state: Tensor | None, starts: Tensor | None
) -> dict[str, Any]:
    return {
        "C": _CHUNK,
        "R": _ROWS,
        "HAS_PRE": pregate is not None,
        "HAS_POST": postgate is not None,
        "HAS_STATE": state is not None,
        "HAS_DOCS": starts is not None,
        "DTYPE": TRITON_TYPES[u.dtype],
        "PRECISION": "tf32x3" if u.dtype == torch.float32 else "tf32",
    }


def _splits(batch: int, channels: int) -> int:
    """Over how many programs a channel's sequences are spread: tables are loaded once in each."""
    return max(min(batch, triton.cdiv(_PROGRAMS, max(channels, 1))), 1)


def forward(
    u: Tensor,
    decay: Tensor,
    frequency: Tensor,
    residue: Tensor,
    skip: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    state: Tensor | None,
    document_starts: Tensor | None,
    want_state: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the state after the last token (if wanted), and the states before each tile, shaped as `carries_shape` says."""
    u, pregate, postgate = rows_last(u), rows_last(pregate), rows_last(postgate)  # type: ignore[assignment]
    decay, frequency, residue = decay.contiguous(), frequency.contiguous(), residue.contiguous()
    batch, channels, length = u.shape
    tables = _Tables(decay, frequency, residue, skip)
    y = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    carries = torch.empty(carries_shape(u, decay), dtype=torch.float32, device=u.device)
    after = torch.empty(batch, channels, tables.padded, 2, dtype=torch.float32, device=u.device)
    before = None if state is None else _pad_modes(state, tables.padded)
    if u.numel():
        modal_fwd_kernel[(channels, _splits(batch, channels))](
            *(u, tables.pow, tables.cpow, shifts(tables.taps, _CHUNK, 0, u.dtype), pregate, postgate, before, document_starts),
            *(None if document_starts is None else segments_of(document_starts, _CHUNK), y, carries, after),
            *(length, batch, carries.shape[2], *_strides(u, pregate, postgate)),
            N=tables.padded,
            AFTER=want_state,
            **_flags(u, pregate, postgate, state, document_starts),
            **_FORWARD,
        )
    else:
        after = after.zero_() if before is None else before.clone()
    return y, after[:, :, : tables.modes].contiguous() if want_state else decay.new_empty(0), carries


def backward(
    dy: Tensor,
    u: Tensor,
    decay: Tensor,
    frequency: Tensor,
    residue: Tensor,
    skip: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    state: Tensor | None,
    document_starts: Tensor | None,
    carries: Tensor,
) -> tuple[Tensor | None, ...]:
    """Gradients of u, decay, frequency, residue, skip, pregate, postgate and state; None for what is not there."""
    dy = dy.contiguous()
    u, pregate, postgate = rows_last(u), rows_last(pregate), rows_last(postgate)  # type: ignore[assignment]
    decay, frequency, residue = decay.contiguous(), frequency.contiguous(), residue.contiguous()
    batch, channels, length = u.shape
    tables = _Tables(decay, frequency, residue, skip)
    splits = _splits(batch, channels)

    def like(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)

    du, dpre, dpost = like(u), like(pregate), like(postgate)
    adjoint = torch.zeros(batch, channels, tables.padded, 2, dtype=torch.float32, device=u.device)
    dtaps = torch.zeros(channels, splits, _CHUNK, dtype=torch.float32, device=u.device)
    dmode = torch.zeros(channels, splits, 2, tables.padded, 2, dtype=torch.float32, device=u.device)
    if u.numel():
        modal_bwd_kernel[(channels, splits)](
            *(dy, u, tables.pow, tables.cpow, shifts(tables.taps, _CHUNK, 0, u.dtype), pregate, postgate, document_starts),
            *(None if document_starts is None else segments_of(document_starts, _CHUNK), carries),
            *(du, dpre, dpost, adjoint, dtaps, dmode),
            *(length, batch, triton.cdiv(length, _CHUNK * _ROWS), *_strides(u, pregate, postgate)),
            N=tables.padded,
            **_flags(u, pregate, postgate, state, document_starts),
            **_BACKWARD,
        )
    ddecay, dfrequency, dresidue, dtaps = _mode_gradients(tables, residue, dtaps.sum(1), dmode.sum(1))
    dskip = None if skip is None else dtaps[:, 0].contiguous().to(skip.dtype)
    dstate = None
    if state is not None:
        factor = torch.view_as_complex(residue)[None] * torch.view_as_complex(adjoint[:, :, : tables.modes].contiguous())
        dstate = torch.view_as_real(factor.conj().resolve_conj()).contiguous()
    return du, ddecay, dfrequency, dresidue, dskip, dpre, dpost, dstate


def _mode_gradients(tables: _Tables, residue: Tensor, dtaps: Tensor, dmode: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of decay, frequency and residue: from pairs of chunks, and from the first taps through their powers."""
    powers = tables.pow[:, :_CHUNK].flatten(2)  # (channels, chunk, pairs)
    risen = dtaps * torch.arange(_CHUNK, dtype=torch.float32, device=dtaps.device)
    within = torch.stack([dtaps, risen], dim=1)
    total = dmode + (within[..., None] * powers[:, None]).sum(2).view(dmode.shape)
    return *factors_to_gradients(total[:, :, : tables.modes].contiguous(), residue), dtaps


def factors_to_gradients(factors: Tensor, residue: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """ddecay, dfrequency, dresidue of complex factors (channels, 2, modes, 2): of the residue and of residue * log(pole)."""
    of_residue, of_pole = torch.view_as_complex(factors).unbind(1)
    of_pole = of_pole * torch.view_as_complex(residue)
    dresidue = torch.view_as_real(of_residue.conj().resolve_conj()).contiguous()
    return of_pole.real.contiguous(), -of_pole.imag, dresidue


def _pad_modes(state: Tensor, modes: int) -> Tensor:
    return torch.nn.functional.pad(state.float(), (0, 0, 0, modes - state.shape[2])).contiguous()


def filter_forward(decay: Tensor, frequency: Tensor, residue: Tensor, length: int) -> Tensor:
    decay, frequency, residue = decay.contiguous(), frequency.contiguous(), residue.contiguous()
    tables = _Tables(decay, frequency, residue, None)
    k = torch.empty(tables.channels, length, dtype=torch.float32, device=decay.device)
    if k.numel():
        grid = (tables.channels, triton.cdiv(length, _CHUNK * _FILTER["R"]))
        modal_filter_kernel[grid](
            decay, frequency, residue, tables.cpow, k, length, tables.modes, C=_CHUNK, N=tables.padded, **_FILTER
        )
    return k


def filter_backward(dk: Tensor, decay: Tensor, frequency: Tensor, residue: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    decay, frequency, residue, dk = decay.contiguous(), frequency.contiguous(), residue.contiguous(), dk.contiguous()
    tables = _Tables(decay, frequency, residue, None)
    tiles = triton.cdiv(dk.shape[1], _CHUNK * _FILTER["R"])
    splits = max(min(tiles, triton.cdiv(_PROGRAMS, max(tables.channels, 1))), 1)
    part = torch.zeros(tables.channels, splits, 2, tables.padded, 2, dtype=torch.float32, device=dk.device)
    if dk.numel():
        modal_dfilter_kernel[(tables.channels, splits)](
            *(dk, decay, frequency, residue, tables.pow, part, dk.shape[1], tables.modes, tiles),
            C=_CHUNK,
            N=tables.padded,
            **_FILTER,
        )
    return factors_to_gradients(part.sum(1)[:, :, : tables.modes].contiguous(), residue)


# Bytes. The backward scan spills with 4 warps and is faster than with 8, which do not; the rest is sine's and cosine's stack.
_SPILLS = {"backward_gated": 384}


def shipped() -> Iterator[Configuration]:
    """16 modes in bfloat16: gated, plain, with documents and states; tables and filters."""
    bf16 = ("p_u", "p_dy", "p_table", "p_pre", "p_post", "p_y", "p_du", "p_dpre", "p_dpost")
    fp32 = (
        "p_decay",
        "p_frequency",
        "p_residue",
        "p_skip",
        "p_pow",
        "p_cpow",
        "p_k",
        "p_state",
        "p_carry",
        "p_after",
        "p_dstate",
    )
    signature = dict.fromkeys(bf16, "*bf16") | dict.fromkeys((*fp32, "p_dk", "p_dmode", "p_part"), "*fp32")
    signature |= dict.fromkeys(("p_start", "p_segment"), "*i32") | dict.fromkeys(("L", "B", "tiles", "modes"), "i32")
    signature |= {f"s{tensor}_{axis}": "i32" for tensor in ("u", "pre", "post") for axis in "bc"}
    sizes = {"C": _CHUNK, "R": _ROWS, "N": 16}
    flags = dict.fromkeys(("HAS_PRE", "HAS_POST", "HAS_STATE", "HAS_DOCS"), False) | {"AFTER": False}
    usual = sizes | flags | {"DTYPE": TRITON_TYPES[torch.bfloat16], "PRECISION": "tf32", "HAS_SKIP": True}
    gated = {"HAS_PRE": True, "HAS_POST": True}
    variants: list[tuple[str, Any, dict[str, Any], dict[str, int]]] = [
        ("forward_gated", modal_fwd_kernel, gated, _FORWARD),
        ("backward_gated", modal_bwd_kernel, gated, _BACKWARD),
        ("tables", modal_tables_kernel, {}, {}),
        ("filter", modal_filter_kernel, {}, {}),
        ("dfilter", modal_dfilter_kernel, {}, {}),
    ]
    absent = {"p_pre": "HAS_PRE", "p_post": "HAS_POST", "p_state": "HAS_STATE", "p_start": "HAS_DOCS", "p_segment": "HAS_DOCS"}
    absent |= {"p_after": "AFTER", "p_dpre": "HAS_PRE", "p_dpost": "HAS_POST", "p_dstate": "HAS_STATE"}
    for name, kernel, variant, launch in variants:
        constants = usual | variant
        constants |= {p: None for p, flag in absent.items() if not constants[flag]}
        constants = {k: v for k, v in constants.items() if k in kernel.arg_names}
        scan = kernel in (modal_fwd_kernel, modal_bwd_kernel)
        yield Configuration(
            name,
            kernel,
            signature,
            constants,
            **{"num_warps": 4, "num_stages": 2} | launch,
            wgmma=scan,
            spills=_SPILLS.get(name, 48),
        )
