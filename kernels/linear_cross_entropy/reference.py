"""Cross entropy of a linear output layer, from its definition: the logits are whole."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    mean: bool = True,
    scale: float = 1.0,
    z_loss: float = 0.0,
    ignore_index: int = -100,
) -> tuple[Tensor, Tensor]:
    """(loss, token losses): hidden (tokens, width), weight (vocabulary, width), targets (tokens,); see the public function."""
    logits = F.linear(hidden, weight)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    losses = F.cross_entropy(logits, targets, reduction="none", ignore_index=ignore_index)
    share = shares(targets, weights, mean, scale, ignore_index).to(logits.dtype)
    penalised = losses + z_loss * logits.logsumexp(-1).square() if z_loss else losses
    return (penalised * share).sum(), losses.detach()


def shares(targets: Tensor, weights: Tensor | None, mean: bool, scale: float, ignore_index: int) -> Tensor:
    """What each token's loss is multiplied with: 0 where it is ignored. (tokens,) float32, or float64 as weights."""
    kept = targets != ignore_index
    share = kept.float() if weights is None else weights * kept
    if mean:
        total = share.sum()
        share = share / torch.where(total == 0, 1.0, total)  # no token at all: the loss is 0
    return share * scale
