"""Attention of a generation's next tokens over long caches of keys and values; one prefix may be shared by a batch."""

from __future__ import annotations

import math
from typing import Any, Literal, NoReturn, overload

import torch
from torch import Tensor

from kernels.arguments import (
    autocast,
    check_head_dim,
    check_is_tensor,
    check_range,
    check_same_dtype,
    check_shape,
    check_tensors,
    empty_like_rows,
)
from kernels.dispatch import implementation

__all__ = ["decode_attention"]


@overload
def decode_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    lengths: Tensor | None = ...,
    *,
    prefix_k: Tensor | None = ...,
    prefix_v: Tensor | None = ...,
    window: int | None = ...,
    scale: float | None = ...,
    return_lse: Literal[False] = ...,
) -> Tensor: ...
@overload
def decode_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    lengths: Tensor | None = ...,
    *,
    prefix_k: Tensor | None = ...,
    prefix_v: Tensor | None = ...,
    window: int | None = ...,
    scale: float | None = ...,
    return_lse: Literal[True],
) -> tuple[Tensor, Tensor]: ...
def decode_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    lengths: Tensor | None = None,
    *,
    prefix_k: Tensor | None = None,
    prefix_v: Tensor | None = None,
    window: int | None = None,
    scale: float | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The last tokens of each sequence attend to what is before them and to themselves (Flash-Decoding, Dao et al. 2023).

    q: (batch, heads, queries, head_dim), queries the newest tokens of each sequence, 1 to 64; k_cache, v_cache: (batch, KV
    heads, capacity, head_dim), any strides, the newest tokens' keys and values already in them. lengths: (batch,) int32, how
    many keys of each cache count, at most the capacity; all of them by default. What lies beyond is never read.

    prefix_k, prefix_v: (KV heads, prefix, head_dim), keys and values that precede every sequence of the batch. They are read
    once for all sequences and combined exactly with each sequence's own (Hydragen, Juravsky et al. 2024, arXiv 2402.05099).
    window: a query sees that many keys, itself the last; not with a prefix. scale: 1 / sqrt(head_dim) by default.

    Returns a tensor like q; with `return_lse` also the log of each softmax's sum, (batch, heads, queries) float32. A query
    that sees nothing gives 0 and -inf. Forward only: `kernels.attention` is for training. ValueError on anything else.
    """
    q, k_cache, v_cache, prefix_k, prefix_v = autocast(q, k_cache, v_cache, prefix_k, prefix_v)  # type: ignore[assignment]
    _check(q, k_cache, v_cache, lengths, prefix_k, prefix_v, window, scale)
    scale = 1.0 / math.sqrt(q.shape[3]) if scale is None else float(scale)
    useful = window if window is not None and window < k_cache.shape[2] else 0
    o, lse = _forward(q, k_cache, v_cache, lengths, prefix_k, prefix_v, useful, scale)
    return (o, lse) if return_lse else o


def _check(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    lengths: Tensor | None,
    prefix_k: Tensor | None,
    prefix_v: Tensor | None,
    window: int | None,
    scale: float | None,
) -> None:
    name = "decode_attention"
    check_tensors(name, q=q, k_cache=k_cache, v_cache=v_cache, prefix_k=prefix_k, prefix_v=prefix_v)
    check_same_dtype(name, q=q, k_cache=k_cache, v_cache=v_cache, prefix_k=prefix_k, prefix_v=prefix_v)
    check_shape(name, "q", q, (None, None, None, None), "(batch, heads, queries, head_dim)")
    B, H, queries, D = q.shape
    check_shape(name, "k_cache", k_cache, (B, None, None, D), "(batch, KV heads, capacity, head_dim)")
    check_shape(name, "v_cache", v_cache, k_cache.shape, "k_cache's shape, (batch, KV heads, capacity, head_dim)")
    KV, capacity = k_cache.shape[1], k_cache.shape[2]
    if KV == 0 or H % KV:
        raise ValueError(f"{name}: {H} query heads over {KV} KV heads; heads must be a multiple of the KV heads")
    check_range(name, "queries per sequence", queries, 1, 64, "kernels.attention is made for more")
    check_head_dim(name, D, q.dtype)
    if capacity < queries:
        raise ValueError(
            f"{name}: {queries} queries and a cache of {capacity} keys; the newest tokens' keys belong in it: append them first"
        )
    if lengths is not None:
        check_is_tensor(name, "lengths", lengths)
        if lengths.shape != (B,) or lengths.dtype != torch.int32 or lengths.device != q.device:
            raise ValueError(
                f"{name}: lengths is {str(lengths.dtype).removeprefix('torch.')} {tuple(lengths.shape)} on {lengths.device}; "
                f"it must be int32 ({B},) on {q.device}"
            )
        known = lengths.device.type == "cpu" and not torch.compiler.is_compiling() and lengths.numel() > 0
        if known and not 0 <= int(lengths.min()) <= int(lengths.max()) <= capacity:
            raise ValueError(
                f"{name}: lengths are {int(lengths.min())} to {int(lengths.max())}; they must be 0 to the capacity, {capacity}"
            )
    if (prefix_k is None) != (prefix_v is None):
        raise ValueError(f"{name}: prefix_k and prefix_v go together; give both or neither")
    if prefix_k is not None and prefix_v is not None:
        check_shape(name, "prefix_k", prefix_k, (KV, None, D), "(KV heads, prefix, head_dim)")
        check_shape(name, "prefix_v", prefix_v, prefix_k.shape, "prefix_k's shape, (KV heads, prefix, head_dim)")
        if window is not None:
            raise ValueError(
                f"{name}: a window and a shared prefix; put the part of the prefix that is in the window into the caches"
            )
    if window is not None:
        check_range(name, "keys in the window", window, 1, 2**31 - 1, "give None for no window")
    if scale is not None and not 0 < scale < math.inf:
        raise ValueError(f"{name}: scale {scale}; it must be positive and finite: put the sign into q")


@torch.library.custom_op("menagerie::decode_attention", mutates_args=())
def _forward(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    lengths: Tensor | None,
    prefix_k: Tensor | None,
    prefix_v: Tensor | None,
    window: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    return implementation("decode", q).forward(q, k_cache, v_cache, lengths, prefix_k, prefix_v, window, scale)


@_forward.register_fake
def _(q: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    return empty_like_rows(q), q.new_empty(q.shape[:3], dtype=wide)


def _refuse(ctx: Any, *gradients: Tensor) -> NoReturn:
    raise RuntimeError("decode_attention: it has no gradient; train with kernels.attention")


_forward.register_autograd(_refuse)
