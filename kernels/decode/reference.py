"""Decoding in plain torch: every sequence's prefix and cache laid side by side, and attention over them."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.attention.combine import combine_lse


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
    """The last `queries` tokens of each sequence attend to all before them and to themselves.

    q: (B, H, queries, D); caches: (B, KV heads, capacity, D); lengths: (B,) keys that count in each cache, None for all;
    prefixes: (KV heads, P, D) before every sequence. Returns o like q and lse (B, H, queries).
    """
    queries, capacity = q.shape[2], k_cache.shape[2]
    if lengths is None:
        lengths = torch.full((q.shape[0],), capacity, device=q.device)
    # Caches need not hold numbers beyond their lengths.
    holds = torch.arange(capacity, device=q.device) < lengths[:, None]
    k_cache, v_cache = (torch.where(holds[:, None, :, None], x, 0.0) for x in (k_cache, v_cache))
    last = lengths[:, None] - queries + torch.arange(queries, device=q.device)  # (B, queries)
    key = torch.arange(capacity, device=q.device)
    seen = key <= last[..., None]
    if window:
        seen = seen & (key > last[..., None] - window)
    own = _attend(q, k_cache, v_cache, seen[:, None], scale)
    if prefix_k is None or prefix_v is None:
        return own
    everything = torch.ones(1, 1, queries, prefix_k.shape[1], dtype=torch.bool, device=q.device)
    shared = _attend(q, prefix_k.expand(len(q), -1, -1, -1), prefix_v.expand(len(q), -1, -1, -1), everything, scale)
    return combine_lse([shared[0], own[0]], [shared[1], own[1]])


def _attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    keys, values = (x.to(wide).repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = (scale * (q.to(wide) @ keys.transpose(-1, -2))).masked_fill(~seen, -torch.inf)
    lse = torch.logsumexp(scores, -1)
    probabilities = torch.exp(scores - torch.where(lse == -torch.inf, 0.0, lse)[..., None])
    return (probabilities @ values).to(q.dtype), lse
