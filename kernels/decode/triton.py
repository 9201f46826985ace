"""Launches of the decoding kernels: one for all splits, of caches and of a shared prefix, one that puts them together."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from kernels.arguments import empty_like_rows
from kernels.attention.descriptors import loadable, padded_head, rows_descriptor
from kernels.configurations import Configuration
from kernels.decode.split import decode_kernel_combine, decode_kernel_split
from kernels.decode.splits import Split, count, plan
from kernels.triton_support import TRITON_TYPES

_LOG2_E = 1.4426950408889634
# Launched with unpacked strides, which a type checker cannot count.
_SPLIT: Any = decode_kernel_split
_COMBINE: Any = decode_kernel_combine


def forward(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    lengths: Tensor | None,
    prefix_k: Tensor | None,
    prefix_v: Tensor | None,
    window: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """See `reference.forward`."""
    B, H, queries, D = q.shape
    o = empty_like_rows(q)
    lse = q.new_empty(B, H, queries, dtype=torch.float32)
    if q.numel() == 0:
        return o, lse
    KV, capacity = k_cache.shape[1], k_cache.shape[2]
    group = H // KV * queries
    if q.stride(3) != 1:
        q = q.contiguous()
    BD, processors = padded_head(D), _multiprocessors(q.device)
    has_prefix = prefix_k is not None and prefix_v is not None and prefix_k.shape[1] > 0
    chosen = plan(D, q.dtype, narrow=group <= 16 and not has_prefix)
    own, tile = chosen.own, _tile(group, chosen.own)
    tiles = B * KV * triton.cdiv(group, tile)
    k, v = loadable(k_cache), loadable(v_cache)
    splits = count(tiles, min(capacity, window + queries - 1) if window else capacity, own, processors)
    shared, shared_tile, shared_tiles, shared_splits = chosen.prefix, 16, 0, 0
    before: list[Any] = [None, None, None, None]
    if prefix_k is not None and prefix_v is not None and has_prefix:
        shared_tile = _tile(B * group, shared)
        shared_tiles = KV * triton.cdiv(B * group, shared_tile)
        shared_splits = count(shared_tiles, prefix_k.shape[1], shared, processors)
        pk, pv = loadable(prefix_k[None]), loadable(prefix_v[None])
        before = [rows_descriptor(pk, shared.keys, BD), rows_descriptor(pv, shared.keys, BD), pk, pv]
    slots = shared_splits + splits
    parts = q.new_empty(slots, B, H, queries, D, dtype=torch.float32)
    lses = q.new_empty(slots, B, H, queries, dtype=torch.float32)
    types = {"DTYPE": TRITON_TYPES[q.dtype], "OVERLAP": _overlaps(q.device)}
    _SPLIT[(shared_splits * shared_tiles + splits * tiles,)](
        q, rows_descriptor(k, own.keys, BD), rows_descriptor(v, own.keys, BD), k, v, lengths, *before, parts, lses,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *(before[2].stride()[1:3] if has_prefix else (0, 0)),
        *(before[3].stride()[1:3] if has_prefix else (0, 0)),
        B, H, queries, capacity, splits, 0 if prefix_k is None else prefix_k.shape[1], shared_splits, window, scale * _LOG2_E,
        G=H // KV, D=D, BM=tile, BN=own.keys, BD=BD, STAGES=own.stages,
        PREFIX_BM=shared_tile, PREFIX_BN=shared.keys, PREFIX_STAGES=shared.stages,
        HAS_PREFIX=has_prefix, HAS_LENGTHS=lengths is not None, HAS_WINDOW=bool(window),
        PRECISION="tf32x3" if q.dtype == torch.float32 else "tf32", num_warps=chosen.warps, **types,
    )  # fmt: skip
    rows = B * H * queries
    # Few rows of many slots: more programs, each for some of the columns.
    BC, wide = BD if rows >= processors else min(BD, 32), int(triton.next_power_of_2(slots))
    _COMBINE[(rows, triton.cdiv(D, BC))](
        parts, lses, o, lse, *o.stride()[:3], H, queries, slots, rows,
        D=D, BC=BC, SLOTS=wide, num_warps=_combine_warps(wide, BC), **types,
        **({"launch_pdl": True} if types["OVERLAP"] else {}),
    )  # fmt: skip
    return o, lse


def _combine_warps(slots: int, columns: int) -> int:
    """As few as keep a row's slots in registers: one warp sums without waiting for others."""
    return min(8, max(1, slots * columns // 2048))


def _tile(rows: int, split: Split) -> int:
    return min(max(16, int(triton.next_power_of_2(rows))), split.rows)


@cache
def _overlaps(device: torch.device) -> bool:
    """Whether a launch may begin before the one before it has ended (programmatic dependent launch, from Hopper on)."""
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (9, 0)


def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4


def shipped() -> Iterator[Configuration]:
    """The narrow tile of sequences' own rows, the same beside the wide one of a shared prefix, and what combines them."""
    for head_dim in (128, 256):
        for prefix in (False, True):
            yield _configuration(head_dim, torch.bfloat16, prefix)
    yield _configuration(128, torch.float32, False)
    yield Configuration(
        "combine bf16 128",
        decode_kernel_combine,
        {"p_parts": "*fp32", "p_lses": "*fp32", "p_o": "*bf16", "p_lse": "*fp32"}
        | dict.fromkeys(("so_b", "so_h", "so_l", "H", "queries", "slots", "rows"), "i32"),
        {"D": 128, "BC": 128, "SLOTS": 32, "OVERLAP": True, "DTYPE": TRITON_TYPES[torch.bfloat16]},
        num_warps=_combine_warps(32, 128),
    )


def _configuration(head_dim: int, dtype: torch.dtype, prefix: bool) -> Configuration:
    kind = {torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]
    chosen = plan(head_dim, dtype, narrow=not prefix)
    own, shared = chosen.own, chosen.prefix
    descriptors = {"": f"tensordesc<{kind}[1, 1, {own.keys}, {head_dim}]>"}
    descriptors["prefix_"] = f"tensordesc<{kind}[1, 1, {shared.keys}, {head_dim}]>"
    signature = {f"{which}{tensor}_desc": type_ for which, type_ in descriptors.items() for tensor in "kv"}
    signature |= dict.fromkeys(("p_q", "p_k", "p_v", "p_prefix_k", "p_prefix_v"), f"*{kind}")
    signature |= {"p_lengths": "*i32", "p_o": "*fp32", "p_lse": "*fp32", "scale_log2": "fp32"}
    signature |= {f"s{tensor}_{axis}": "i32" for tensor in ("q", "k", "v", "pk", "pv") for axis in "bhl"}
    sizes = ("B", "H", "queries", "capacity", "splits", "prefix", "prefix_splits", "window")
    signature |= dict.fromkeys(sizes, "i32")
    constants = {
        "G": 4, "D": head_dim, "BM": 16, "BN": own.keys, "BD": head_dim, "STAGES": own.stages,
        "PREFIX_BM": shared.rows, "PREFIX_BN": shared.keys, "PREFIX_STAGES": shared.stages,
        "HAS_PREFIX": prefix, "HAS_LENGTHS": True, "HAS_WINDOW": False, "OVERLAP": True,
        "PRECISION": "tf32x3" if dtype == torch.float32 else "tf32", "DTYPE": TRITON_TYPES[dtype],
    }  # fmt: skip
    if not prefix:
        constants |= dict.fromkeys(("prefix_k_desc", "prefix_v_desc", "p_prefix_k", "p_prefix_v"))
    return Configuration(
        f"split {kind} {head_dim} {own.keys} keys{f', prefix {shared.rows}x{shared.keys}' if prefix else ''}",
        decode_kernel_split, signature, constants,
        num_warps=chosen.warps, wgmma=prefix and dtype != torch.float32, spills=chosen.spills,
    )  # fmt: skip
