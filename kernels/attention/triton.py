"""Launches of the fused attention kernels: tiles for each case, strides, descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from kernels.arguments import empty_like_rows
from kernels.attention.backward import attention_bwd_kernel_dkdv, attention_bwd_kernel_dq, attention_bwd_kernel_rows
from kernels.attention.descriptors import loadable, padded_head, rows_descriptor, vector_descriptor
from kernels.attention.forward import attention_fwd_kernel
from kernels.attention.schedule import Schedule, schedule
from kernels.attention.shipped import shipped
from kernels.attention.tiles import Tile, Tiles, tiles
from kernels.triton_support import TRITON_TYPES

__all__ = ["backward", "forward", "shipped"]

_LOG2_E = 1.4426950408889634
# Launched with unpacked strides, which a type checker cannot count.
_ROWS: Any = attention_bwd_kernel_rows
_FORWARD: Any = attention_fwd_kernel
_DKDV: Any = attention_bwd_kernel_dkdv
_DQ: Any = attention_bwd_kernel_dq


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    document_starts: Tensor | None,
    causal: bool,
    window: int,
    scale: float,
    using: Tiles | None = None,
) -> tuple[Tensor, Tensor]:
    """See `reference.forward`. using: other tiles than those of `tiles`, for measuring."""
    B, H, Lq, D = q.shape
    Lk = k.shape[2]
    o = empty_like_rows(q)
    lse = q.new_empty(B, H, Lq, dtype=torch.float32)
    if o.numel() == 0 or Lk == 0:
        return o.zero_(), lse.fill_(-torch.inf)
    window = _useful(window, Lq, Lk)
    tile = (using or tiles(D, q.dtype, bool(window) or document_starts is not None)).forward
    BM, BN, BD = tile.queries, tile.keys, padded_head(D)
    made = None if document_starts is None else schedule(document_starts, causal, window, BM, BN)
    q = loadable(q)
    _FORWARD[(triton.cdiv(Lq, BM), H, B)](
        q, rows_descriptor(k, BN, BD), rows_descriptor(v, BN, BD), o, lse, *_documents(made, "query_order"),
        *q.stride()[:3], *o.stride()[:3], H, Lq, Lk, made.starts.shape[1] if made else 0, window, scale * _LOG2_E,
        G=H // k.shape[1], BM=BM, BN=BN, **_constants(q, BD, causal, window, made, tile),
    )  # fmt: skip
    return o, lse


def backward(
    do: Tensor, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor,
    document_starts: Tensor | None, causal: bool, window: int, scale: float, using: Tiles | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """See `reference.backward`."""
    B, H, Lq, D = q.shape
    G, Lk = k.shape[1], k.shape[2]
    dq, dk, dv = empty_like_rows(q), empty_like_rows(k), empty_like_rows(v)
    if q.numel() == 0 or k.numel() == 0:
        return dq.zero_(), dk.zero_(), dv.zero_()
    window = _useful(window, Lq, Lk)
    used = using or tiles(D, q.dtype, bool(window) or document_starts is not None)
    BD = padded_head(D)
    q, k, v, do = (loadable(x) for x in (q, k, v, do))
    # Rows padded to whole tiles: descriptors need rows of 16 bytes, and padding that says "sees nothing" needs no mask.
    row = -(-Lq // 128) * 128
    lse2, delta = lse.new_empty(B, H, row), lse.new_empty(B, H, row)
    _ROWS[(row // 64, H, B)](
        o, do, lse.contiguous(), None if dlse is None else dlse.contiguous(), lse2, delta,
        *o.stride()[:3], *do.stride()[:3], H, Lq, row,
        D=D, BD=BD, BM=64, HAS_DLSE=dlse is not None,
    )  # fmt: skip
    made = None if document_starts is None else schedule(document_starts, causal, window, used.dq.queries, used.dkdv.keys)
    lengths = (H, Lq, Lk, row, made.starts.shape[1] if made else 0, window, scale, scale * _LOG2_E)

    tile = used.dkdv
    BM, BN = tile.queries, tile.keys
    _DKDV[(triton.cdiv(Lk, BN), G, B)](
        rows_descriptor(q, BM, BD), k, v, rows_descriptor(do, BM, BD),
        vector_descriptor(lse2, BM), vector_descriptor(delta, BM), *_documents(made, "key_order"), dk, dv,
        *k.stride()[:3], *v.stride()[:3], *dk.stride()[:3], *dv.stride()[:3], *lengths,
        G=H // G, BM=BM, BN=BN, **_constants(q, BD, causal, window, made, tile),
    )  # fmt: skip
    tile = used.dq
    BM, BN = tile.queries, tile.keys
    _DQ[(triton.cdiv(Lq, BM), H, B)](
        q, rows_descriptor(k, BN, BD), rows_descriptor(v, BN, BD), do, lse2, delta, *_documents(made, "query_order"), dq,
        *q.stride()[:3], *do.stride()[:3], *dq.stride()[:3], *lengths,
        G=H // G, BM=BM, BN=BN, **_constants(q, BD, causal, window, made, tile),
    )  # fmt: skip
    return dq, dk, dv


def _useful(window: int, queries: int, keys: int) -> int:
    """0 for a window that hides nothing."""
    return 0 if window >= max(queries, keys) else window


def _constants(q: Tensor, BD: int, causal: bool, window: int, made: Schedule | None, tile: Tile) -> dict[str, Any]:
    return {
        "D": q.shape[3], "BD": BD, "CAUSAL": causal, "HAS_WINDOW": bool(window), "HAS_DOCUMENTS": made is not None,
        "STAGES": tile.stages,
        "PRECISION": "tf32x3" if q.dtype == torch.float32 else "tf32", "DTYPE": TRITON_TYPES[q.dtype],
        "num_warps": tile.warps, "num_stages": tile.stages,
    }  # fmt: skip


def _documents(made: Schedule | None, order: str) -> Sequence[Tensor | None]:
    return (None, None, None) if made is None else (made.starts, made.ends, getattr(made, order))
