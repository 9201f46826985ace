"""The attention kernels' configurations as data, for the gate that compiles what is shipped without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from kernels.attention.backward import attention_bwd_kernel_dkdv, attention_bwd_kernel_dq, attention_bwd_kernel_rows
from kernels.attention.descriptors import padded_head
from kernels.attention.forward import attention_fwd_kernel
from kernels.attention.schedule import attention_schedule_kernel
from kernels.attention.tiles import Tile, tiles
from kernels.configurations import Configuration
from kernels.triton_support import TRITON_TYPES

_NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
_KERNELS = {"forward": attention_fwd_kernel, "dkdv": attention_bwd_kernel_dkdv, "dq": attention_bwd_kernel_dq}


def configuration(
    kernel: str, tile: Tile, head_dim: int, dtype: torch.dtype, causal: bool, window: bool, documents: bool, group: int = 1
) -> Configuration:
    """One of "forward", "dkdv" and "dq" with a tile."""
    kind, BD, BM, BN = _NAMES[dtype], padded_head(head_dim), tile.queries, tile.keys
    passing = BM if kernel == "dkdv" else BN  # rows of the blocks that come past a program's own tile
    signature = dict.fromkeys(("q_desc", "k_desc", "v_desc", "do_desc"), f"tensordesc<{kind}[1, 1, {passing}, {BD}]>")
    signature |= dict.fromkeys(("lse_desc", "delta_desc"), f"tensordesc<fp32[{BM}]>")
    signature |= dict.fromkeys(("p_start", "p_end", "p_order"), "*i32")
    signature |= dict.fromkeys(("p_q", "p_k", "p_v", "p_o", "p_do", "p_dq", "p_dk", "p_dv"), f"*{kind}")
    signature |= dict.fromkeys(("p_lse", "p_lse2", "p_delta"), "*fp32")
    signature |= {f"{what}{tensor}_{axis}": "i64" for what in "st" for tensor in "oqkvd" for axis in "bhl"}
    signature |= dict.fromkeys(("H", "Lq", "Lk", "row", "document_row", "window"), "i32") | dict.fromkeys(
        ("scale", "scale_log2"), "fp32"
    )
    constants: dict[str, Any] = {
        "G": group, "D": head_dim, "BM": BM, "BN": BN, "BD": BD, "CAUSAL": causal,
        "HAS_WINDOW": window, "HAS_DOCUMENTS": documents,
        "STAGES": tile.stages, "PRECISION": "tf32x3" if dtype == torch.float32 else "tf32",
        "DTYPE": TRITON_TYPES[dtype],
    }  # fmt: skip
    if not documents:  # absent arguments are None, which is a constant
        constants |= dict.fromkeys(("p_start", "p_end", "p_order"))
    shape = f"{BM}x{BN}"
    mask = "".join(
        (" causal" if causal else " full", " window" * window, " documents" * documents, f" groups of {group}" * (group > 1))
    )
    return Configuration(
        name=f"{kernel} {kind} {head_dim}{mask} {shape}", kernel=_KERNELS[kernel], signature=signature, constants=constants,
        num_warps=tile.warps, num_stages=tile.stages, wgmma=dtype != torch.float32,
        spills=tile.spills,
    )  # fmt: skip


def shipped() -> Iterator[Configuration]:
    """Each head dimension with all masks at once, the densest case, and what goes before them; in bfloat16, float32 once."""
    for kernel in _KERNELS:
        for head_dim in (64, 128, 256):
            sparse = getattr(tiles(head_dim, torch.bfloat16, True), kernel)
            yield configuration(kernel, sparse, head_dim, torch.bfloat16, True, True, True, group=4)
        for head_dim in (64, 128) if kernel != "dkdv" else (128,):  # of 64, dkdv has one tile for all masks
            dense = getattr(tiles(head_dim, torch.bfloat16, False), kernel)
            yield configuration(kernel, dense, head_dim, torch.bfloat16, True, False, False)
    widest = tiles(256, torch.float32, False).dkdv
    yield configuration("dkdv", widest, 256, torch.float32, True, False, False)
    yield Configuration(
        "rows bf16 128",
        attention_bwd_kernel_rows,
        dict.fromkeys(("p_o", "p_do"), "*bf16")
        | dict.fromkeys(("p_lse", "p_dlse", "p_lse2", "p_delta"), "*fp32")
        | {f"s{tensor}_{axis}": "i64" for tensor in "od" for axis in "bhl"}
        | dict.fromkeys(("H", "Lq", "row"), "i32"),
        {"D": 128, "BD": 128, "BM": 64, "HAS_DLSE": True},
    )
    yield Configuration(
        "schedule",
        attention_schedule_kernel,
        {f"p_{name}": "*i32" for name in ("document", "starts", "ends", "query_order", "key_order")}
        | {str(name): "i32" for name in ("length", "row", "query_tiles", "key_tiles", "stride", "window")},
        {"CAUSAL": True, "BQ": 128, "BK": 128, "TILES": 64, "STEPS": 14, "BT": 256},
    )
