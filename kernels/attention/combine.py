"""Attention over parts of the keys, put together exactly: each part brings its output and the log of its softmax's sum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def combine_lse(outputs: Sequence[Tensor], lses: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """softmax over all keys from softmaxes over parts of them: o = sum exp(lse_i - lse) o_i, lse = log sum exp(lse_i).

    outputs: each (..., head_dim); lses: each (...), float32 (or float64); -inf for a part in which the query sees nothing.
    Returns (o, lse), o in the outputs' dtype; a query that sees nothing in any part gives 0 and -inf. The sums are taken in
    the lses' dtype, in order. Differentiable in everything, any number of times. Juravsky et al. 2024, "Hydragen", section 3.2.
    ValueError where the parts do not fit together.
    """
    if not outputs or len(outputs) != len(lses):
        raise ValueError(f"combine_lse: {len(outputs)} outputs and {len(lses)} lses; give one lse for each output")
    for part, (output, lse) in enumerate(zip(outputs, lses, strict=True)):
        if output.shape != outputs[0].shape or lse.shape != output.shape[:-1]:
            raise ValueError(
                f"combine_lse: part {part} is an output of shape {tuple(output.shape)} and an lse of shape {tuple(lse.shape)}; "
                f"they must be {tuple(outputs[0].shape)} and {tuple(outputs[0].shape[:-1])}"
            )
    stacked = torch.stack(tuple(lses))
    peak = stacked.detach().amax(0)
    blind = peak == -torch.inf
    weights = torch.exp(stacked - torch.where(blind, 0.0, peak))
    total = weights.sum(0)
    total = torch.where(blind, 1.0, total)
    lse = torch.where(blind, -torch.inf, peak + torch.log(total))
    o = (weights[0] / total)[..., None] * outputs[0]
    for weight, output in zip(weights[1:], outputs[1:], strict=True):
        o = o + (weight / total)[..., None] * output
    return o.to(outputs[0].dtype), lse
