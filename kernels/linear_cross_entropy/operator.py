"""torch.ops.menagerie.linear_cross_entropy and its gradient: what torch.compile and autograd see."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.differentiation import refuse_double_backward

# Bytes of logits that exist at a time: an eighth of them all, within these. Each chunk adds to the whole gradient of the
# weight, which costs as much as some hundred tokens' products.
_LOGITS_BYTES = (224 << 20, 1 << 30)


def chunk_tokens(tokens: int, vocabulary: int, dtype: torch.dtype) -> int:
    """Tokens whose logits exist at a time: a multiple of 256, in chunks of nearly equal size."""
    row = vocabulary * dtype.itemsize
    least, most = _LOGITS_BYTES
    most = max(min(max(tokens * row // 8, least), most) // row // 256 * 256, 256)
    chunks = max(-(-tokens // most), 1)
    return max(min(-(-tokens // chunks // 256) * 256, most, tokens), 1)


@torch.library.custom_op("menagerie::linear_cross_entropy", mutates_args=())
def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    weights: Tensor | None,
    mean: bool,
    scale: float,
    z_loss: float,
    ignore_index: int,
    chunk: int,
    accumulate: torch.dtype,
    hidden_gradient: bool,
    weight_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(loss, token losses, dhidden, dweight, factor): gradients still to be multiplied with factor; empty where not wanted."""
    from kernels.linear_cross_entropy import triton

    return triton.linear_cross_entropy(
        hidden, weight, targets, weights, mean, scale, z_loss, ignore_index, chunk, accumulate, hidden_gradient, weight_gradient
    )


@linear_cross_entropy.register_fake
def _(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    weights: Tensor | None,
    mean: bool,
    scale: float,
    z_loss: float,
    ignore_index: int,
    chunk: int,
    accumulate: torch.dtype,
    hidden_gradient: bool,
    weight_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    scalar = hidden.new_empty((), dtype=torch.float32)
    losses = hidden.new_empty(hidden.shape[0], dtype=torch.float32)
    dhidden = hidden.new_empty(hidden.shape if hidden_gradient else 0)
    dweight = weight.new_empty(weight.shape if weight_gradient else 0)
    return scalar, losses, dhidden, dweight, torch.empty_like(scalar)


@torch.library.custom_op("menagerie::linear_cross_entropy_backward", mutates_args=())
def linear_cross_entropy_backward(dloss: Tensor, factor: Tensor, dhidden: Tensor, dweight: Tensor) -> tuple[Tensor, Tensor]:
    """(dhidden, dweight), each times dloss * factor."""
    both = dloss * factor
    return (dhidden * both).to(dhidden.dtype), (dweight * both).to(dweight.dtype)


@linear_cross_entropy_backward.register_fake
def _(dloss: Tensor, factor: Tensor, dhidden: Tensor, dweight: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(dhidden), torch.empty_like(dweight)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, losses, dhidden, dweight, factor = output
    ctx.save_for_backward(dhidden, dweight, factor)
    ctx.mark_non_differentiable(losses, dhidden, dweight, factor)
    ctx.set_materialize_grads(False)  # zeros for the other outputs would be as large as the gradients
    ctx.wanted = inputs[-2:]
    ctx.handed_out = False


def _backward(ctx: Any, dloss: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if dloss is None:
        return (None,) * 12
    if ctx.handed_out:
        raise RuntimeError(
            "linear_cross_entropy: its gradient was already taken, and is not kept; call it again for another backward pass"
        )
    dhidden, dweight, factor = ctx.saved_tensors
    if type(dhidden) is not Tensor:  # traced by a compiler, which knows no change in place
        dhidden, dweight = linear_cross_entropy_backward(dloss, factor, dhidden, dweight)
    elif torch.is_grad_enabled():
        raise RuntimeError(
            "linear_cross_entropy: its gradient cannot be differentiated again; for second derivatives use "
            "kernels.linear_cross_entropy.reference, which torch differentiates, else leave out create_graph=True"
        )
    else:  # in place: a second copy of the weight's gradient would be most of the memory that is used here
        ctx.handed_out = True
        both = dloss * factor
        for gradient in (dhidden, dweight):
            _scale(gradient, both)
    return (dhidden if ctx.wanted[0] else None, dweight if ctx.wanted[1] else None, *[None] * 10)


def _scale(gradient: Tensor, factor: Tensor) -> None:
    """gradient *= factor, in place; on a GPU nothing is read or written where the factor is 1."""
    if gradient.is_cuda:
        from kernels.linear_cross_entropy import triton

        triton.scale(gradient, factor)
    else:
        gradient.mul_(factor)


linear_cross_entropy.register_autograd(_backward, setup_context=_setup)
refuse_double_backward(linear_cross_entropy_backward, "linear_cross_entropy")
