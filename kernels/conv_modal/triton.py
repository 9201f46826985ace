"""Launches the modal scan and the Vandermonde products, and puts the gradients of poles and residues together."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from kernels.arguments import rows_last
from kernels.configurations import Configuration
from kernels.conv_modal.inputs import Inputs
from kernels.conv_modal.scan import modal_bwd_kernel, modal_fwd_kernel
from kernels.conv_modal.tables import modal_dfilter_kernel, modal_filter_kernel, modal_gradients_kernel, modal_tables_kernel
from kernels.conv_modal.tiles import modal_tiles_kernel
from kernels.conv_toeplitz.reference import segments_of
from kernels.dispatch import interpreted
from kernels.triton_support import TRITON_TYPES

# Programs that a launch should have at least: a few for each of an H200's 132 SMs.
_PROGRAMS = 792
# The filters' tiles: R chunks of C taps
_FILTER = {"C": 64, "R": 64, "num_warps": 4}
if interpreted():
    _FILTER |= {"C": 16, "R": 16}


def _hopper_kernel(u: Tensor) -> Any:
    """The backward kernel in Gluon; None without warpgroup products, or with another Triton than it was written for."""
    if not u.is_cuda or torch.version.hip is not None or not triton.__version__.startswith("3.6."):
        return None
    if torch.cuda.get_device_capability(u.device)[0] != 9:
        return None
    from kernels.conv_modal.hopper import modal_hopper_kernel

    return modal_hopper_kernel


def _aligned(*tensors: Tensor | None) -> bool:
    """Whether rows begin where whole vectors do, as copies to shared memory need."""
    there = [tensor for tensor in tensors if tensor is not None]
    return not any(of % 16 for tensor in there for of in (tensor.data_ptr(), *tensor.stride()[:2]))


class _Plan(NamedTuple):
    """Tokens of a chunk, chunks of a tile, forward's launch options, backward's kernel and its launch options."""

    chunk: int
    rows: int
    forward: Mapping[str, int]
    kernel: Any
    backward: Mapping[str, int]

    @property
    def chunk_states(self) -> bool:
        """Whether backward takes the states before each chunk from forward, or makes them from those before each tile."""
        return self.kernel is modal_tiles_kernel


def _plan(dtype: torch.dtype, padded: int) -> _Plan:
    """How the scan goes: 16-bit tensors with up to 16 modes by measurement (benchmarks/NOTES.md), the rest not timed.

    Three tf32 products for one take both halves of each operand from shared memory: in float32 chunks are as short as it needs
    to fit there (64 modes in chunks of 64 would ask for twice what there is), and as leaves few spilt registers.
    """
    if dtype == torch.float32:
        launch = {"num_warps": 4, "num_stages": 1}
        plan = _Plan(32 if padded <= 16 else 16, 32 if padded <= 32 else 16, launch, modal_bwd_kernel, launch)
    else:
        kernel, stages = (modal_tiles_kernel, 1) if padded <= 16 else (modal_bwd_kernel, 2)
        forward = {"num_warps": 4, "num_stages": 3}
        plan = _Plan(64, 64, forward, kernel, {"num_warps": 4, "num_stages": stages})
    return plan._replace(chunk=16, rows=plan.rows // 4) if interpreted() else plan


class _Tables:
    """Powers of the poles for the filters' chunks, or with `dtype` for the scan's, and then the shifts of the first taps."""

    def __init__(
        self, decay: Tensor, frequency: Tensor, residue: Tensor, skip: Tensor | None = None, dtype: torch.dtype | None = None
    ) -> None:
        self.channels, self.modes = decay.shape
        self.padded = _padded(decay)
        self.chunk = _FILTER["C"] if dtype is None else _plan(dtype, self.padded).chunk
        shape = (self.channels, self.chunk + 1, self.padded, 2)
        self.pow, self.cpow = (torch.empty(shape, dtype=torch.float32, device=decay.device) for _ in range(2))
        self.shifts = None if dtype is None else torch.empty(self.channels, 8, 2 * self.chunk, dtype=dtype, device=decay.device)
        if self.channels:
            modal_tables_kernel[(self.channels,)](
                *(decay, frequency, residue, skip, self.pow, self.cpow, self.shifts, self.modes),
                C=self.chunk,
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
                C=self.chunk,
                N=self.padded,
                HAS_TAPS=dtaps is not None,
                HAS_SKIP=skip is not None,
            )
        return ddecay, dfrequency, dresidue, dskip


def _padded(decay: Tensor) -> int:
    """Modes as kernels have them: pairs of 8 fill the smallest product."""
    return max(triton.next_power_of_2(decay.shape[1]), 8)


def kept_states(u: Tensor, decay: Tensor, keep: bool) -> Tensor:
    """An empty tensor for the states that backward goes on from: before each chunk as `modal_tiles_kernel` multiplies them, or
    before each tile in float32. (batch, channels, chunks or tiles, modes padded, 2); nothing unless `keep`."""
    padded = _padded(decay)
    plan = _plan(u.dtype, padded)
    apart, dtype = (plan.chunk, u.dtype) if plan.chunk_states else (plan.chunk * plan.rows, torch.float32)
    shape = (*u.shape[:2], triton.cdiv(u.shape[2], apart), padded, 2) if keep else (0,)
    return torch.empty(shape, dtype=dtype, device=u.device)


def _strides(*tensors: Tensor | None) -> list[int]:
    return [stride for tensor in tensors for stride in (tensor.stride()[:2] if tensor is not None else (0, 0))]


def _dense(inputs: Inputs) -> Inputs:
    """As kernels read them: sequences' last axes and parameters dense."""
    u, pregate, postgate = (rows_last(tensor) for tensor in (inputs.u, inputs.pregate, inputs.postgate))
    decay, frequency, residue = (tensor.contiguous() for tensor in inputs[1:4])
    skip = None if inputs.skip is None else inputs.skip.contiguous()
    return Inputs(u, decay, frequency, residue, skip, pregate, postgate, inputs.state, inputs.document_starts)


def _flags(inputs: Inputs, padded: int) -> dict[str, Any]:
    plan = _plan(inputs.u.dtype, padded)
    return {
        "C": plan.chunk,
        "R": plan.rows,
        "N": padded,
        "HAS_PRE": inputs.pregate is not None,
        "HAS_POST": inputs.postgate is not None,
        "HAS_STATE": inputs.state is not None,
        "HAS_DOCS": inputs.document_starts is not None,
        "DTYPE": TRITON_TYPES[inputs.u.dtype],
        "PRECISION": _precision(inputs.u.dtype),
    }


def _precision(dtype: torch.dtype) -> str:
    return "tf32x3" if dtype == torch.float32 else "tf32"


def _splits(batch: int, channels: int) -> int:
    """Over how many programs a channel's sequences are spread: tables are loaded once in each."""
    return max(min(batch, triton.cdiv(_PROGRAMS, max(channels, 1))), 1)


def forward(inputs: Inputs, want_state: bool, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y, the state after the last token (if wanted), and what `kept_states` says."""
    inputs = _dense(inputs)
    u, decay, frequency, residue, skip, pregate, postgate, state, document_starts = inputs
    batch, channels, length = u.shape
    tables = _Tables(decay, frequency, residue, skip, u.dtype)
    y = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    kept, plan = kept_states(u, decay, keep), _plan(u.dtype, tables.padded)
    after = torch.empty(batch, channels, tables.padded, 2, dtype=torch.float32, device=u.device)
    before = None if state is None else _pad_modes(state, tables.padded)
    if u.numel():
        modal_fwd_kernel[(channels, _splits(batch, channels))](
            *(u, tables.pow, tables.cpow, tables.shifts, pregate, postgate, before, document_starts),
            *(None if document_starts is None else segments_of(document_starts, tables.chunk), y, kept, after),
            *(length, batch, triton.cdiv(length, plan.chunk * plan.rows), *_strides(u, pregate, postgate)),
            AFTER=want_state,
            KEEP=_keep(plan) if keep else "",
            **_flags(inputs, tables.padded),
            **plan.forward,
        )
    else:
        after = after.zero_() if before is None else before.clone()
    return y, after[:, :, : tables.modes].contiguous().to(decay.dtype) if want_state else decay.new_empty(0), kept


def _keep(plan: _Plan) -> str:
    return "chunks" if plan.chunk_states else "tiles"


def backward(dy: Tensor, inputs: Inputs, kept: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of the inputs, document_starts apart; None for what is not there."""
    dy, inputs = dy.contiguous(), _dense(inputs)
    if not kept.numel():  # differentiated after all
        _, _, kept = forward(inputs, False, True)
    u, decay, frequency, residue, skip, pregate, postgate, state, document_starts = inputs
    batch, channels, length = u.shape
    tables = _Tables(decay, frequency, residue, skip, u.dtype)

    def like(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)

    du, dpre, dpost = like(u), like(pregate), like(postgate)
    adjoint = None if state is None else decay.new_zeros(batch, channels, tables.padded, 2, dtype=torch.float32)
    # What each program leaves of the gradients of the first taps and of the modes' factors
    splits = _splits(batch, channels)
    new = torch.empty if u.numel() else torch.zeros
    dtaps = new(channels, splits, tables.chunk, dtype=torch.float32, device=u.device)
    dmode = new(channels, splits, 2, tables.padded, 2, dtype=torch.float32, device=u.device)
    if u.numel():
        plan, flags = _plan(u.dtype, tables.padded), _flags(inputs, tables.padded)
        given = (dy, u, tables.pow, tables.cpow, tables.shifts, pregate, postgate)
        made = (du, dpre, dpost, adjoint, dtaps, dmode)
        sizes = (length, batch, triton.cdiv(length, plan.chunk * plan.rows), *_strides(u, pregate, postgate))
        hopper = _hopper_kernel(u) if plan.chunk_states and document_starts is None else None
        if hopper is not None:
            flags = {name: flag for name, flag in flags.items() if name in hopper.arg_names}
            flags["WHOLE"] = length % (plan.chunk * plan.rows) == 0
            flags["AHEAD"] = flags["WHOLE"] and _aligned(dy, u, pregate, postgate, kept)
            hopper[(channels, splits)](*given, kept, *made, *sizes, **flags, num_warps=4)
        else:
            segments = None if document_starts is None else segments_of(document_starts, tables.chunk)
            plan.kernel[(channels, splits)](*given, document_starts, segments, kept, *made, *sizes, **flags, **plan.backward)
    ddecay, dfrequency, dresidue, dskip = tables.gradients(dtaps, dmode, residue, skip)
    dstate = None
    if adjoint is not None:
        factor = torch.complex(*residue.unbind(-1))[None] * torch.view_as_complex(adjoint[:, :, : tables.modes].contiguous())
        dstate = torch.view_as_real(factor.conj().resolve_conj()).contiguous()
    return du, ddecay, dfrequency, dresidue, dskip, dpre, dpost, dstate


def _pad_modes(state: Tensor, modes: int) -> Tensor:
    return torch.nn.functional.pad(state.float(), (0, 0, 0, modes - state.shape[2])).contiguous()


def filter_forward(decay: Tensor, frequency: Tensor, residue: Tensor, length: int) -> Tensor:
    decay, frequency, residue = decay.contiguous(), frequency.contiguous(), residue.contiguous()
    tables = _Tables(decay, frequency, residue)
    k = torch.empty(tables.channels, length, dtype=torch.float32, device=decay.device)
    if k.numel():
        grid = (tables.channels, triton.cdiv(length, _FILTER["C"] * _FILTER["R"]))
        modal_filter_kernel[grid](decay, frequency, residue, tables.cpow, k, length, tables.modes, N=tables.padded, **_FILTER)
    return k


def filter_backward(dk: Tensor, decay: Tensor, frequency: Tensor, residue: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    decay, frequency, residue, dk = decay.contiguous(), frequency.contiguous(), residue.contiguous(), dk.contiguous()
    tables = _Tables(decay, frequency, residue)
    tiles = triton.cdiv(dk.shape[1], _FILTER["C"] * _FILTER["R"])
    splits = max(min(tiles, triton.cdiv(_PROGRAMS, max(tables.channels, 1))), 1)
    part = torch.zeros(tables.channels, splits, 2, tables.padded, 2, dtype=torch.float32, device=dk.device)
    if dk.numel():
        modal_dfilter_kernel[(tables.channels, splits)](
            *(dk, decay, frequency, residue, tables.pow, part, dk.shape[1], tables.modes, tiles),
            N=tables.padded,
            **_FILTER,
        )
    ddecay, dfrequency, dresidue, _ = tables.gradients(None, part, residue, None)
    return ddecay, dfrequency, dresidue


# Bytes that a thread may spill, by number of modes: without documents and states, and with. Elsewhere none.
_SPILLS = {
    "forward_bfloat16": {16: (0, 240), 32: (0, 448), 64: (128, 1536)},
    "backward_bfloat16": {16: (96, 1152), 32: (1600, 2112), 64: (3904, 3840)},
    "backward_float32": {8: (448, 128), 16: (1024, 448), 32: (832, 928), 64: (2496, 2304)},
}
_ANY = 1 << 16

# Arguments that are not in the sequences' dtype
_FLOATS = "decay frequency residue skip pow cpow state after dstate k dk dmode part ddecay dfrequency dresidue dskip"
_POINTERS = {"*fp32": _FLOATS.split(), "*i32": ["start", "segment"]}
# What is None without its flag
_OPTIONAL = {
    "HAS_PRE": ("p_pre", "p_dpre"),
    "HAS_POST": ("p_post", "p_dpost"),
    "HAS_STATE": ("p_state", "p_dstate"),
    "HAS_DOCS": ("p_start", "p_segment"),
    "AFTER": ("p_after",),
}


def shipped() -> Iterator[Configuration]:
    """Tables and filters; the scan gated, alone and with documents and states, which takes most registers and memory."""
    usual = {"C": 64, "HAS_SKIP": True, "HAS_TABLE": True, "HAS_TAPS": True}
    for name, kernel, launch in (
        ("tables", modal_tables_kernel, {}),
        ("gradients", modal_gradients_kernel, {}),
        ("filter", modal_filter_kernel, _FILTER),
        ("dfilter", modal_dfilter_kernel, _FILTER),
    ):
        yield _configuration(name, kernel, torch.bfloat16, 16, usual, launch)
    for dtype, modes in ((torch.bfloat16, (16, 32, 64)), (torch.float32, (8, 16, 32, 64))):
        for count, more in product(modes, (False, True)):
            yield from _scan(dtype, count, True, True, more, more)
    for count in (16, 32, 64):  # loads that run ahead take most memory here
        yield from _scan(torch.bfloat16, count, False, True, False, True)


def variants() -> Iterator[Configuration]:
    """Every variant of the scan, to see once that a change of plans fits in shared memory; spills are `shipped`'s matter."""
    for dtype, modes in product((torch.float32, torch.bfloat16, torch.float16), (8, 16, 32, 64)):
        for flags in product((False, True), repeat=4):
            yield from (replace(each, spills=_ANY) for each in _scan(dtype, modes, *flags))


def _scan(dtype: torch.dtype, modes: int, pre: bool, post: bool, documents: bool, state: bool) -> Iterator[Configuration]:
    """Forward and backward. state: one is given and forward leaves one."""
    plan = _plan(dtype, modes)
    flags = {"HAS_PRE": pre, "HAS_POST": post, "HAS_DOCS": documents, "HAS_STATE": state}
    there = "".join(f"_{flag.removeprefix('HAS_').lower()}" for flag, on in flags.items() if on)
    flags |= {"AFTER": state, "KEEP": _keep(plan), "C": plan.chunk, "R": plan.rows}
    ways = [("forward", modal_fwd_kernel, plan.forward), ("backward", plan.kernel, plan.backward)]
    if plan.chunk_states and not documents:
        from kernels.conv_modal.hopper import modal_hopper_kernel

        for whole, ahead in ((False, False), (True, False), (True, True)):
            way = "hopper" + "_whole" * whole + "_ahead" * ahead
            ways.append((way, modal_hopper_kernel, {"num_warps": 4, "WHOLE": whole, "AHEAD": ahead}))
    for way, kernel, launch in ways:
        name = f"{way}_{str(dtype).removeprefix('torch.')}"
        spills = _SPILLS.get(name, {}).get(modes, (0, 0))[documents or state]
        yield replace(_configuration(f"{name}_{modes}{there}", kernel, dtype, modes, flags, launch), spills=spills)


def _configuration(
    name: str, kernel: Any, dtype: torch.dtype, modes: int, constants: dict[str, Any], launch: Mapping[str, int]
) -> Configuration:
    constants = constants | {"N": modes, "DTYPE": TRITON_TYPES[dtype], "PRECISION": _precision(dtype), **launch}
    for flag, pointers in _OPTIONAL.items():
        if not constants.get(flag):
            constants |= dict.fromkeys(pointers)
    signature = {arg: f"*{TRITON_TYPES[dtype]}" if arg.startswith("p_") else "i32" for arg in kernel.arg_names}
    for pointer, names in _POINTERS.items():
        signature |= {f"p_{name}": pointer for name in names}
    if constants.get("KEEP") == "tiles" or kernel is modal_bwd_kernel:
        signature["p_kept"] = "*fp32"
    return Configuration(
        name,
        kernel,
        signature,
        {k: v for k, v in constants.items() if k in kernel.arg_names},
        num_warps=launch.get("num_warps", 4),
        num_stages=launch.get("num_stages", 2),
        wgmma="HAS_DOCS" in constants and constants["R"] >= 64,
    )
