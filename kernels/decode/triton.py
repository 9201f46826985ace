"""Launches of the decoding kernels: how many splits, how many query rows in a tile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from kernels.arguments import empty_like_rows
from kernels.attention.descriptors import loadable, padded_head, rows_descriptor
from kernels.configurations import Configuration
from kernels.decode.split import decode_kernel_combine, decode_kernel_split
from kernels.decode.splits import Split, split
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
    using: tuple[Split, Split] | None = None,
) -> tuple[Tensor, Tensor]:
    """See `reference.forward`. using: other splits than those of `split` for caches and prefix, for measuring."""
    B, H, queries, D = q.shape
    o = empty_like_rows(q)
    lse = q.new_empty(B, H, queries, dtype=torch.float32)
    if q.numel() == 0:
        return o, lse
    G = H // k_cache.shape[1]
    parts = []
    if prefix_k is not None and prefix_v is not None and prefix_k.shape[1]:
        parts.append((prefix_k[None], prefix_v[None], B * G * queries, True))
    if k_cache.shape[2]:
        parts.append((k_cache, v_cache, G * queries, False))
    if not parts:
        return o.zero_(), lse.fill_(-torch.inf)
    if q.stride(3) != 1:
        q = q.contiguous()
    planned = []
    for k, v, rows, shared in parts:
        plan = using[shared] if using else split(D, q.dtype, shared)
        tile = min(max(16, int(triton.next_power_of_2(rows))), plan.rows)
        programs = k.shape[0] * k.shape[1] * triton.cdiv(rows, tile)
        # As many stretches as keep every multiprocessor busy, none shorter than two blocks of keys.
        wanted = triton.cdiv(plan.programs * _multiprocessors(q.device), programs)
        splits = max(1, min(wanted, triton.cdiv(k.shape[2], 2 * plan.keys)))
        planned.append((loadable(k), loadable(v), rows, shared, plan, tile, splits))
    slots = sum(splits for *_, splits in planned)
    parts_o = q.new_empty(slots, B, H, queries, D, dtype=torch.float32)
    parts_lse = q.new_empty(slots, B, H, queries, dtype=torch.float32)
    BD, slot = padded_head(D), 0
    for k, v, rows, shared, plan, tile, splits in planned:
        # Products on the shared prefix and reads of the sequences' own caches do not wait for each other.
        with _beside(q.device) if shared and len(planned) > 1 else nullcontext():
            _SPLIT[(splits, k.shape[1] * triton.cdiv(rows, tile), k.shape[0])](
                q, rows_descriptor(k, plan.keys, BD), rows_descriptor(v, plan.keys, BD), k, v, None if shared else lengths,
                parts_o, parts_lse, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
                B, H, queries, k.shape[2], splits, slot, window, scale * _LOG2_E,
                G=G, D=D, BM=tile, BN=plan.keys, BD=BD, SHARED=shared, HAS_LENGTHS=lengths is not None,
                HAS_WINDOW=bool(window) and not shared, STAGES=plan.stages,
                PRECISION="tf32x3" if q.dtype == torch.float32 else "tf32", DTYPE=TRITON_TYPES[q.dtype],
                num_warps=plan.warps, num_stages=plan.stages,
            )  # fmt: skip
        slot += splits
    if len(planned) > 1 and q.is_cuda:
        torch.cuda.current_stream(q.device).wait_stream(_side_stream(q.device))
    rows = B * H * queries
    _COMBINE[(rows,)](
        parts_o, parts_lse, o, lse, *o.stride()[:3], H, queries, slots, rows,
        D=D, BD=BD, SLOTS=int(triton.next_power_of_2(slots)), DTYPE=TRITON_TYPES[q.dtype], num_warps=4,
    )  # fmt: skip
    return o, lse


@contextmanager
def _beside(device: torch.device) -> Iterator[None]:
    """Launches inside run beside what the current stream does next, after what it has done; it must wait for them."""
    if device.type != "cuda":
        yield
        return
    side = _side_stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        yield


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4


def shipped() -> Iterator[Configuration]:
    """The narrow tile of one sequence's rows and the wide one of a shared prefix, and what combines them."""
    for head_dim in (128, 256):
        for shared in (False, True):
            yield _configuration(head_dim, torch.bfloat16, shared)
    yield _configuration(128, torch.float32, False)
    yield Configuration(
        "combine bf16 128",
        decode_kernel_combine,
        {"p_parts": "*fp32", "p_lses": "*fp32", "p_o": "*bf16", "p_lse": "*fp32"}
        | dict.fromkeys(("so_b", "so_h", "so_l", "H", "queries", "slots", "rows"), "i32"),
        {"D": 128, "BD": 128, "SLOTS": 32, "DTYPE": TRITON_TYPES[torch.bfloat16]},
    )


def _configuration(head_dim: int, dtype: torch.dtype, shared: bool) -> Configuration:
    kind = {torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]
    plan = split(head_dim, dtype, shared)
    BM = plan.rows if shared else 16
    keys = f"tensordesc<{kind}[1, 1, {plan.keys}, {head_dim}]>"
    signature = {"p_q": f"*{kind}", "k_desc": keys, "v_desc": keys, "p_k": f"*{kind}", "p_v": f"*{kind}", "p_lengths": "*i32"}
    signature |= {"p_o": "*fp32", "p_lse": "*fp32", "scale_log2": "fp32"}
    signature |= {f"s{tensor}_{axis}": "i32" for tensor in "qkv" for axis in "bhl"}
    signature |= dict.fromkeys(("B", "H", "queries", "capacity", "splits", "slot", "window"), "i32")
    constants = {
        "G": 4, "D": head_dim, "BM": BM, "BN": plan.keys, "BD": head_dim, "SHARED": shared, "HAS_LENGTHS": True,
        "HAS_WINDOW": False,
        "STAGES": plan.stages,
        "PRECISION": "tf32x3" if dtype == torch.float32 else "tf32", "DTYPE": TRITON_TYPES[dtype],
    }  # fmt: skip
    return Configuration(
        f"split {kind} {head_dim} {'shared' if shared else 'own'} {BM}x{plan.keys}", decode_kernel_split, signature, constants,
        num_warps=plan.warps, num_stages=plan.stages, wgmma=shared and dtype != torch.float32, spills=plan.spills,
    )  # fmt: skip
