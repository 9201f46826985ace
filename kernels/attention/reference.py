"""Attention in plain torch: the whole matrix of scores, each mask written out. Any dtype up to float64."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.differentiation import vjp


def visible_keys(
    queries: int, keys: int, document_starts: Tensor | None, causal: bool, window: int, device: torch.device
) -> Tensor:
    """Which keys each query sees: bool (1 or batch, 1, queries, keys). The last query is aligned with the last key."""
    query = torch.arange(queries, device=device)[:, None] + (keys - queries)
    key = torch.arange(keys, device=device)[None, :]
    seen = torch.ones(queries, keys, dtype=torch.bool, device=device)
    if causal:
        seen = seen & (key <= query)
    if window:
        seen = seen & ((query - key).abs() < window)
    seen = seen[None, None]
    if document_starts is not None:
        seen = seen & (document_starts[:, None, :, None] == document_starts[:, None, None, :])
    return seen


def forward(
    q: Tensor, k: Tensor, v: Tensor, document_starts: Tensor | None, causal: bool, window: int, scale: float
) -> tuple[Tensor, Tensor]:
    """softmax(scale q kᵀ) v over the keys that each query sees, and the log of the softmax's sum.

    q: (B, H, Lq, D); k, v: (B, KV heads, Lk, D), H a multiple of KV heads; document_starts: (B, L) or None; window: 0 for none.
    Returns o like q and lse (B, H, Lq) in float32 (float64 for float64): 0 and -inf for a query that sees nothing.
    """
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    group = q.shape[1] // k.shape[1]
    keys, values = (x.to(wide).repeat_interleave(group, dim=1) for x in (k, v))
    scores = scale * (q.to(wide) @ keys.transpose(-1, -2))
    seen = visible_keys(q.shape[2], k.shape[2], document_starts, causal, window, q.device)
    scores = scores.masked_fill(~seen, -torch.inf)
    blind = ~seen.any(-1, keepdim=True).expand((*scores.shape[:-1], 1))
    # A row of -inf has no softmax: its gradient would be NaN even where the result is not used.
    probabilities = torch.softmax(scores.masked_fill(blind, 0.0), -1).masked_fill(blind, 0.0)
    lse = torch.logsumexp(scores.masked_fill(blind, 0.0), -1).masked_fill(blind.squeeze(-1), -torch.inf)
    return (probabilities @ values).to(q.dtype), lse


def backward(
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
    """Gradients of q, k and v, by autograd of `forward`."""
    arguments = (q, k, v, document_starts, causal, window, scale)
    dq, dk, dv = vjp(forward, arguments, (do, dlse))[:3]
    assert dq is not None and dk is not None and dv is not None
    return dq, dk, dv
