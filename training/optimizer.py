"""AdamW with decay on matrices only, the learning rate of each step, and clipping."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from training.config import OptimizerConfig, ScheduleConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over a model's parameters: matrices (the embedding too) decay, vectors (norms) do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    fused = all(p.is_cuda for p in parameters)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)


def learning_rate(config: ScheduleConfig, peak: float, step: int, steps: int) -> float:
    """The rate of `step` (from 0) of `steps`: linear warm-up to the peak, then the schedule's shape down to floor * peak."""
    if step < config.warmup:
        return peak * (step + 1) / config.warmup
    low = config.floor * peak
    if config.kind == "cosine":
        share = (step - config.warmup) / max(steps - config.warmup - 1, 1)
        return low + (peak - low) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    if config.kind == "wsd":  # warm-up, stable, decay (Hu et al., "MiniCPM", 2024)
        falling = max(round(config.decay * steps), 1)
        return low + (peak - low) * min(1.0, (steps - 1 - step) / falling)
    return peak


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_gradients(model: nn.Module, largest: float) -> Tensor:
    """Scale the gradient down to norm `largest` (0: leave it). Returns its norm before, over all processes."""
    norm = nn.utils.clip_grad_norm_(model.parameters(), largest or math.inf)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # type: ignore[operator]
