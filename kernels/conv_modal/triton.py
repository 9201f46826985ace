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
from kernels.conv_modal.lanes import modal_adjoint_kernel, modal_lanes_kernel
from kernels.conv_modal.scan import modal_bwd_kernel, modal_fwd_kernel
from kernels.conv_modal.tables import modal_dfilter_kernel, modal_filter_kernel, modal_gradients_kernel, modal_tables_kernel
from kernels.conv_modal.tiles import modal_tiles_kernel
from kernels.conv_toeplitz.reference import segments_of
from kernels.dispatch import interpreted
from kernels.triton_support import TRITON_TYPES

# The backward of 16-bit tensors with up to 16 modes: "scan" or "tiles", one kernel, or "lanes", two (modules of these names).
BACKWARD = "scan"

# Tokens of a chunk and chunks of a tile, and how they are launched; chosen by measurement (benchmarks/NOTES.md).
_CHUNK = 64
_ROWS = 64
_FORWARD = {"num_warps": 4, "num_stages": 3}
_BACKWARD = {"num_warps": 4, "num_stages": 2}
_TILES = {"num_warps": 4, "num_stages": 1}
_ADJOINT = {"num_warps": 4, "num_stages": 2, "maxnreg": 80}
# R lanes of S chunks, of which W columns are put out at a time.
_LANES = {"R": 64, "S": 16, "W": 64, "EARLY": False, "num_warps": 4, "num_stages": 1}
_FILTER = {"R": 64, "num_warps": 4}
# Programs that a launch should have at least: a few for each of an H200's 132 SMs.
_PROGRAMS = 792
_LANE_PROGRAMS = 792
if interpreted():
    _CHUNK, _ROWS, _FILTER = 16, 16, {"R": 16, "num_warps": 4}
    _LANES |= {"R": 16, "S": 4, "W": 8}


class _Tables:
    """Powers of the poles for chunks of _CHUNK, and with `dtype` the shifts of the filter's first taps."""

    def __init__(
        self, decay: Tensor, frequency: Tensor, residue: Tensor, skip: Tensor | None = None, dtype: torch.dtype | None = None
    ) -> None:
        self.channels, self.modes = decay.shape
        self.padded = _padded(decay)
        shape = (self.channels, _CHUNK + 1, self.padded, 2)
        self.pow, self.cpow = (torch.empty(shape, dtype=torch.float32, device=decay.device) for _ in range(2))
        self.shifts = None if dtype is None else torch.empty(self.channels, 8, 2 * _CHUNK, dtype=dtype, device=decay.device)
        if self.channels:
            modal_tables_kernel[(self.channels,)](
                *(decay, frequency, residue, skip, self.pow, self.cpow, self.shifts, self.modes),
                C=_CHUNK,
                N=self.padded,
                HAS_SKIP=skip is not None,
                HAS_TABLE=dtype is not None,
                DTYPE=TRITON_TYPES[dtype or torch.float32],
            )

    def gradients(
        self, dtaps: Tensor | None, dmode: Tensor, residue: Tensor, skip: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Those of decay, frequency, residue and skip from the parts (channels, splits, …) that programs left."""
        ddecay, dfrequency = (residue.new_empty(residue.shape[:2]) for _ in range(2))
        dresidue, dskip = torch.empty_like(residue), None if skip is None else torch.empty_like(skip)
        if self.channels:
            modal_gradients_kernel[(self.channels,)](
                *(dtaps, dmode, self.pow, residue, ddecay, dfrequency, dresidue, dskip, self.modes, dmode.shape[1]),
                C=_CHUNK,
                N=self.padded,
                HAS_TAPS=dtaps is not None,
                HAS_SKIP=skip is not None,
            )
        return ddecay, dfrequency, dresidue, dskip


def _padded(decay: Tensor) -> int:
    """Modes as kernels have them: pairs of 8 fill the smallest product."""
    return max(triton.next_power_of_2(decay.shape[1]), 8)


def _way(u: Tensor, decay: Tensor) -> str:
    """How backward goes: more modes or wider operands than BACKWARD is made for take "scan"."""
    return BACKWARD if u.dtype != torch.float32 and _padded(decay) <= 16 else "scan"


def _step(u: Tensor, decay: Tensor) -> int:
    """Chunks from one of the states that forward leaves for backward to the next."""
    return _LANES["S"] if _way(u, decay) == "lanes" else _ROWS


def carries_shape(u: Tensor, decay: Tensor) -> tuple[int, ...]:
    """Shape of the states that backward goes on from: (batch, channels, lanes or tiles, modes padded, 2)."""
    return u.shape[0], u.shape[1], triton.cdiv(u.shape[2], _CHUNK * _step(u, decay)), _padded(decay), 2


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
    """y, the state after the last token (if wanted), and the states for backward, shaped as `carries_shape` says."""
    u, pregate, postgate = rows_last(u), rows_last(pregate), rows_last(postgate)  # type: ignore[assignment]
    decay, frequency, residue = decay.contiguous(), frequency.contiguous(), residue.contiguous()
    batch, channels, length = u.shape
    tables = _Tables(decay, frequency, residue, skip, u.dtype)
    y = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    carries = torch.empty(carries_shape(u, decay), dtype=torch.float32, device=u.device)
    after = torch.empty(batch, channels, tables.padded, 2, dtype=torch.float32, device=u.device)
    before = None if state is None else _pad_modes(state, tables.padded)
    if u.numel():
        modal_fwd_kernel[(channels, _splits(batch, channels))](
            *(u, tables.pow, tables.cpow, tables.shifts, pregate, postgate, before, document_starts),
            *(None if document_starts is None else segments_of(document_starts, _CHUNK), y, carries, after),
            *(length, batch, triton.cdiv(length, _CHUNK * _ROWS), carries.shape[2], *_strides(u, pregate, postgate)),
            S=_step(u, decay),
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
    batch, channels, _ = u.shape
    tables = _Tables(decay, frequency, residue, skip, u.dtype)

    def like(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)

    du, dpre, dpost = like(u), like(pregate), like(postgate)
    adjoint = None if state is None else carries.new_zeros(batch, channels, tables.padded, 2)
    segments = None if document_starts is None else segments_of(document_starts, _CHUNK)
    flags = _flags(u, pregate, postgate, state, document_starts) | {"N": tables.padded}
    inputs = (dy, u, tables, pregate, postgate, document_starts, segments, carries)
    outputs, way = (du, dpre, dpost, adjoint), _way(u, decay)
    if way == "lanes":
        dtaps, dmode = _backward_lanes(inputs, outputs, flags)
    elif way == "tiles":
        dtaps, dmode = _backward_one(modal_tiles_kernel, _TILES, inputs, outputs, flags)
    else:
        dtaps, dmode = _backward_one(modal_bwd_kernel, _BACKWARD, inputs, outputs, flags)
    ddecay, dfrequency, dresidue, dskip = tables.gradients(dtaps, dmode, residue, skip)
    dstate = None
    if adjoint is not None:
        factor = torch.view_as_complex(residue)[None] * torch.view_as_complex(adjoint[:, :, : tables.modes].contiguous())
        dstate = torch.view_as_real(factor.conj().resolve_conj()).contiguous()
    return du, ddecay, dfrequency, dresidue, dskip, dpre, dpost, dstate


def _parts(u: Tensor, splits: int, modes: int) -> tuple[Tensor, Tensor]:
    """What each program leaves of the gradients of the first taps and of the modes' factors."""
    new = torch.empty if u.numel() else torch.zeros
    taps = new(u.shape[1], splits, _CHUNK, dtype=torch.float32, device=u.device)
    return taps, new(u.shape[1], splits, 2, modes, 2, dtype=torch.float32, device=u.device)


def _backward_one(
    kernel: Any, launch: dict[str, Any], inputs: tuple[Any, ...], outputs: tuple[Any, ...], flags: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    dy, u, tables, pregate, postgate, starts, segments, carries = inputs
    batch, channels, length = u.shape
    splits = _splits(batch, channels)
    dtaps, dmode = _parts(u, splits, tables.padded)
    if u.numel():
        kernel[(channels, splits)](
            *(dy, u, tables.pow, tables.cpow, tables.shifts, pregate, postgate, starts, segments, carries),
            *(*outputs, dtaps, dmode),
            *(length, batch, triton.cdiv(length, _CHUNK * _ROWS), *_strides(u, pregate, postgate)),
            **flags,
            **launch,
        )
    return dtaps, dmode


def _narrow(dy: Tensor, u: Tensor, pregate: Tensor | None, postgate: Tensor | None, lanes: int) -> bool:
    """Whether the elements that a block of lanes works on are within 2^31 of each other."""
    rows = min(u.shape[0] - 1, _LANES["R"] // lanes + 1)
    step = max(tensor.stride(0) for tensor in (dy, u, pregate, postgate) if tensor is not None)
    return rows * step + u.shape[2] + _LANES["S"] * _CHUNK < 2**31


def _backward_lanes(inputs: tuple[Any, ...], outputs: tuple[Any, ...], flags: dict[str, Any]) -> tuple[Tensor, Tensor]:
    dy, u, tables, pregate, postgate, starts, segments, carries = inputs
    du, dpre, dpost, adjoint = outputs
    batch, channels, length = u.shape
    chunks, lanes = triton.cdiv(length, _CHUNK), carries.shape[2]
    blocks = triton.cdiv(batch * lanes, _LANES["R"])
    splits = max(min(blocks, triton.cdiv(_LANE_PROGRAMS, max(channels, 1))), 1)
    dtaps, dmode = _parts(u, splits, tables.padded)
    if u.numel():
        adjoints = u.new_empty(batch, channels, chunks, tables.padded, 2)
        without = {"HAS_PRE", "R"}
        modal_adjoint_kernel[(channels, _splits(batch, channels))](
            *(dy, tables.pow, postgate, starts, adjoints, adjoint),
            *(length, batch, triton.cdiv(length, _CHUNK * _ROWS), chunks, *_strides(postgate)),
            R=_ROWS,
            **{name: flag for name, flag in flags.items() if name not in without},
            **_ADJOINT,
        )
        without = {"HAS_STATE", "R"}
        modal_lanes_kernel[(channels, splits)](
            *(dy, u, tables.pow, tables.cpow, tables.shifts, pregate, postgate, starts, segments, carries, adjoints),
            *(du, dpre, dpost, dtaps, dmode),
            *(length, batch * lanes, blocks, lanes, chunks, min(chunks, _LANES["S"]), *_strides(u, pregate, postgate)),
            ALIKE=all(gate is None or gate.stride() == u.stride() for gate in (pregate, postgate)),
            DENSE=u.is_contiguous(),
            NARROW=_narrow(dy, u, pregate, postgate, lanes),
            **{name: flag for name, flag in flags.items() if name not in without},
            **_LANES,
        )
    return dtaps, dmode


def _pad_modes(state: Tensor, modes: int) -> Tensor:
    return torch.nn.functional.pad(state.float(), (0, 0, 0, modes - state.shape[2])).contiguous()


def filter_forward(decay: Tensor, frequency: Tensor, residue: Tensor, length: int) -> Tensor:
    decay, frequency, residue = decay.contiguous(), frequency.contiguous(), residue.contiguous()
    tables = _Tables(decay, frequency, residue)
    k = torch.empty(tables.channels, length, dtype=torch.float32, device=decay.device)
    if k.numel():
        grid = (tables.channels, triton.cdiv(length, _CHUNK * _FILTER["R"]))
        modal_filter_kernel[grid](
            decay, frequency, residue, tables.cpow, k, length, tables.modes, C=_CHUNK, N=tables.padded, **_FILTER
        )
    return k


def filter_backward(dk: Tensor, decay: Tensor, frequency: Tensor, residue: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    decay, frequency, residue, dk = decay.contiguous(), frequency.contiguous(), residue.contiguous(), dk.contiguous()
    tables = _Tables(decay, frequency, residue)
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
    ddecay, dfrequency, dresidue, _ = tables.gradients(None, part, residue, None)
    return ddecay, dfrequency, dresidue


# Bytes. The backward scan spills with 4 warps and is faster than with 8, which do not.
_SPILLS = {"backward_gated": 384, "tiles_gated": 64, "lanes_gated": 192}


def shipped() -> Iterator[Configuration]:
    """16 modes in bfloat16, gated; tables and filters."""
    bf16 = ("p_u", "p_dy", "p_table", "p_pre", "p_post", "p_y", "p_du", "p_dpre", "p_dpost", "p_adjoint")
    fp32 = ("p_decay", "p_frequency", "p_residue", "p_skip", "p_pow", "p_cpow", "p_state", "p_carry", "p_after", "p_dstate")
    fp32 += ("p_k", "p_dk", "p_dmode", "p_part", "p_ddecay", "p_dfrequency", "p_dresidue", "p_dskip")
    numbers = ("L", "B", "tiles", "lanes", "modes", "chunks", "total", "blocks", "steps", "splits")
    signature = dict.fromkeys(bf16, "*bf16") | dict.fromkeys(fp32, "*fp32") | dict.fromkeys(numbers, "i32")
    signature |= dict.fromkeys(("p_start", "p_segment"), "*i32")
    signature |= {f"s{tensor}_{axis}": "i32" for tensor in ("u", "pre", "post") for axis in "bc"}
    flags = dict.fromkeys(("HAS_STATE", "HAS_DOCS", "AFTER"), False) | dict.fromkeys(("ALIKE", "DENSE", "NARROW"), True)
    flags |= dict.fromkeys(("HAS_PRE", "HAS_POST", "HAS_SKIP", "HAS_TABLE", "HAS_TAPS"), True)
    usual = {"C": _CHUNK, "R": _ROWS, "N": 16, "DTYPE": TRITON_TYPES[torch.bfloat16], "PRECISION": "tf32"} | flags
    backward: dict[str, list[tuple[str, Any, dict[str, Any]]]] = {
        "scan": [("backward_gated", modal_bwd_kernel, _BACKWARD)],
        "tiles": [("tiles_gated", modal_tiles_kernel, _TILES)],
        "lanes": [("adjoint_gated", modal_adjoint_kernel, _ADJOINT), ("lanes_gated", modal_lanes_kernel, _LANES)],
    }
    variants: list[tuple[str, Any, dict[str, Any]]] = [
        ("forward_gated", modal_fwd_kernel, _FORWARD | {"S": _LANES["S"] if BACKWARD == "lanes" else _ROWS}),
        *backward[BACKWARD],
        ("tables", modal_tables_kernel, {}),
        ("gradients", modal_gradients_kernel, {}),
        ("filter", modal_filter_kernel, {}),
        ("dfilter", modal_dfilter_kernel, {}),
    ]
    absent = {
        "p_state": "HAS_STATE",
        "p_start": "HAS_DOCS",
        "p_segment": "HAS_DOCS",
        "p_after": "AFTER",
        "p_dstate": "HAS_STATE",
    }
    for name, kernel, launch in variants:
        constants = usual | {p: None for p, flag in absent.items() if not usual[flag]} | launch
        yield Configuration(
            name,
            kernel,
            signature,
            {k: v for k, v in constants.items() if k in kernel.arg_names},
            num_warps=launch.get("num_warps", 4),
            num_stages=launch.get("num_stages", 2),
            options={k: v for k, v in launch.items() if k == "maxnreg"},
            wgmma="gated" in name,
            spills=_SPILLS.get(name, 0),
        )
