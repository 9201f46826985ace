"""Softmax attention: causal or full, grouped-query heads, sliding window, packed documents; log-sum-exp for combining parts.

The fused kernels are in `forward.py` and `backward.py`; `choose` says when torch's own cuDNN kernel is the faster one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.arguments import (
    autocast,
    check_head_dim,
    check_range,
    check_same_dtype,
    check_shape,
    check_tensors,
    empty_like_rows,
)
from kernels.attention.combine import combine_lse
from kernels.differentiation import refuse_double_backward, zeros_for
from kernels.dispatch import implementation
from kernels.documents import resolve_documents

__all__ = ["Choice", "attention", "choose", "combine_lse"]


@dataclass(frozen=True)
class Choice:
    """Which implementation computes a call, "fused" (ours) or "cudnn" (torch's), and why."""

    backend: Literal["fused", "cudnn"]
    reason: str

    def __str__(self) -> str:
        return f"attention: {self.backend}: {self.reason}"


@overload
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = ...,
    window: int | None = ...,
    scale: float | None = ...,
    cu_seqlens: Tensor | None = ...,
    document_starts: Tensor | None = ...,
    return_lse: Literal[False] = ...,
    deterministic: bool = ...,
    explain: Callable[[str], Any] | None = ...,
) -> Tensor: ...
@overload
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = ...,
    window: int | None = ...,
    scale: float | None = ...,
    cu_seqlens: Tensor | None = ...,
    document_starts: Tensor | None = ...,
    return_lse: Literal[True],
    deterministic: bool = ...,
    explain: Callable[[str], Any] | None = ...,
) -> tuple[Tensor, Tensor]: ...
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = True,
    window: int | None = None,
    scale: float | None = None,
    cu_seqlens: Tensor | None = None,
    document_starts: Tensor | None = None,
    return_lse: bool = False,
    deterministic: bool = False,
    explain: Callable[[str], Any] | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """softmax(scale q kᵀ) v over the keys that each query sees (FlashAttention-2, Dao 2023, arXiv 2307.08691).

    q: (batch, heads, queries, head_dim); k, v: (batch, KV heads, keys, head_dim), heads a multiple of KV heads; any strides,
    so (batch, length, heads, head_dim) seen through `.transpose(1, 2)` is read as it lies. head_dim: a multiple of 8 up to 256.

    causal: a query sees itself and what is before it; with fewer queries than keys the last query is aligned with the last key.
    window: a query sees that many keys, itself the last of them (without `causal`: fewer than that many to either side).
    scale: 1 / sqrt(head_dim) by default, positive. cu_seqlens, document_starts: packed documents that never see each other, see
    `kernels.documents`; they need as many queries as keys.

    Returns a tensor like q; with `return_lse` also the log of each softmax's sum, (batch, heads, queries) float32, through
    which gradients flow too. A query that sees nothing gives 0 and -inf.
    The gradients of the fused kernels never depend on the order in which programs run; `deterministic` keeps to them where
    cuDNN would be faster. explain: called with one line that says which implementation runs and why (`print`, say).

    Memory: nothing of size queries x keys. ValueError on anything else than the above.
    """
    q, k, v = _autocast(q, k, v)
    _check(q, k, v, window, scale)
    B, _, queries, D = q.shape
    documents = cu_seqlens is not None or document_starts is not None
    if documents and queries != k.shape[2]:
        raise ValueError(
            f"attention: {queries} queries and {k.shape[2]} keys with documents; "
            "documents need as many queries as keys: call without documents for a cache, or pad"
        )
    starts = resolve_documents("attention", cu_seqlens, document_starts, B, queries, q.device)
    scale = 1.0 / math.sqrt(D) if scale is None else scale
    choice = choose(q, k, causal=causal, window=window, documents=documents, return_lse=return_lse, deterministic=deterministic)
    if explain is not None:
        explain(str(choice))
    if choice.backend == "cudnn":
        return _cudnn(q, k, v, causal, scale)
    o, lse = _forward(q, k, v, starts, causal, window or 0, float(scale))
    return (o, lse) if return_lse else o


def choose(
    q: Tensor,
    k: Tensor,
    *,
    causal: bool = True,
    window: int | None = None,
    documents: bool = False,
    return_lse: bool = False,
    deterministic: bool = False,
) -> Choice:
    """Which implementation `attention` takes for such a call, from shapes, dtype and device alone."""
    queries, keys = q.shape[2], k.shape[2]
    if not q.is_cuda:
        return Choice("fused", f"{q.device.type} tensors take the reference in plain torch")
    if documents:
        return Choice("fused", "tiles of keys outside a query's document are skipped, which cuDNN through torch cannot")
    if window is not None and window < keys:
        return Choice("fused", "tiles of keys outside the window are skipped, which cuDNN through torch cannot")
    if return_lse:
        return Choice("fused", "torch's function does not return the log-sum-exp")
    if deterministic:
        return Choice("fused", "cuDNN's backward adds up in the order in which its programs run")
    if q.dtype not in (torch.float16, torch.bfloat16):
        return Choice("fused", f"cuDNN has no {str(q.dtype).removeprefix('torch.')} attention")
    if queries != keys:
        return Choice("fused", "torch aligns a causal mask with the first key where queries and keys differ in number")
    if q.shape[3] > 128:
        return Choice("fused", f"cuDNN through torch is taken for head dimensions up to 128, this is {q.shape[3]}")
    if 0 in q.shape:
        return Choice("fused", "there is nothing to compute")
    return Choice("cudnn", "dense, and cuDNN is the faster kernel there (benchmarks/kernels.py attention)")


def _cudnn(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> Tensor:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    # cuDNN wants a dense last axis, and no axis that repeats itself.
    q, k, v = (x if x.stride(3) == 1 and 0 not in x.stride() else x.contiguous() for x in (q, k, v))
    grouped = q.shape[1] != k.shape[1]
    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION], set_priority=True):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale, enable_gqa=grouped)


def _autocast(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q_, k_, v_ = autocast(q, k, v)
    assert q_ is not None and k_ is not None and v_ is not None
    return q_, k_, v_


def _check(q: Tensor, k: Tensor, v: Tensor, window: int | None, scale: float | None) -> None:
    check_tensors("attention", q=q, k=k, v=v)
    check_same_dtype("attention", q=q, k=k, v=v)
    check_shape("attention", "q", q, (None, None, None, None), "(batch, heads, queries, head_dim)")
    check_shape("attention", "k", k, (q.shape[0], None, None, q.shape[3]), "(batch, KV heads, keys, head_dim)")
    check_shape("attention", "v", v, k.shape, "k's shape, (batch, KV heads, keys, head_dim)")
    heads, groups, D = q.shape[1], k.shape[1], q.shape[3]
    check_head_dim("attention", D, q.dtype)
    if groups == 0 or heads % groups:
        raise ValueError(f"attention: {heads} query heads over {groups} KV heads; heads must be a multiple of the KV heads")
    if window is not None:
        check_range("attention", "keys in the window", window, 1, 2**31 - 1, "give None for no window")
    check_range("attention", "keys", k.shape[2], 0, 2**30, "split the sequence and join the parts with combine_lse")
    if scale is not None and not 0 < scale < math.inf:
        raise ValueError(f"attention: scale {scale}; it must be positive and finite: put the sign into q")


@torch.library.custom_op("menagerie::attention", mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor, document_starts: Tensor | None, causal: bool, window: int, scale: float
) -> tuple[Tensor, Tensor]:
    o, lse = implementation("attention", q).forward(q, k, v, document_starts, causal, window, scale)
    return _laid_out(o, q), lse


@_forward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, document_starts: Tensor | None, causal: bool, window: int, scale: float
) -> tuple[Tensor, Tensor]:
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    return empty_like_rows(q), q.new_empty(q.shape[:3], dtype=wide)


def _laid_out(result: Tensor, like: Tensor) -> Tensor:
    """The result in the order of axes in which kernels write one for `like`; the reference has its own order."""
    made = empty_like_rows(like)
    return result if result.stride() == made.stride() else made.copy_(result)


@torch.library.custom_op("menagerie::attention_backward", mutates_args=())
def _backward(
    do: Tensor,
    dlse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    document_starts: Tensor | None,
    causal: bool,
    window: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    gradients = implementation("attention", q).backward(do, dlse, q, k, v, o, lse, document_starts, causal, window, scale)
    dq, dk, dv = (_laid_out(gradient, like) for gradient, like in zip(gradients, (q, k, v), strict=True))
    return dq, dk, dv


@_backward.register_fake
def _(do: Tensor, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return empty_like_rows(q), empty_like_rows(k), empty_like_rows(v)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, document_starts, *ctx.options = inputs
    ctx.save_for_backward(q, k, v, *output, document_starts)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, do: Tensor | None, dlse: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, o, lse, document_starts = ctx.saved_tensors
    if do is None and dlse is None:
        return (None,) * 7
    gradients = _backward(zeros_for(do, o), dlse, q, k, v, o, lse, document_starts, *ctx.options)
    return *gradients, None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_keep)
refuse_double_backward(_backward, "attention")
