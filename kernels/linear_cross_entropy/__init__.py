"""Cross entropy of a linear output layer whose logits are never whole.

Tokens are taken in chunks: one matrix product gives a chunk's logits, one kernel replaces them by their gradient and leaves the
losses, two more products turn that into the gradients of input and weight. So the forward pass computes the gradients and the
backward pass only scales them: nothing of the size of the logits is kept, and nothing is computed twice.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from kernels.arguments import check_is_tensor, check_range, check_shape, check_tensors
from kernels.dispatch import interpreted
from kernels.linear_cross_entropy import operator as _operator  # registers torch.ops.menagerie.linear_cross_entropy
from kernels.linear_cross_entropy import reference

__all__ = ["LinearCrossEntropy", "linear_cross_entropy"]


class LinearCrossEntropy(NamedTuple):
    """What the loss is, and whose.

    loss: () float32, differentiable. token_loss: as targets, float32, nats, without z-loss, weights and scale; 0 where ignored;
    no gradient. documents: as they were given.
    """

    loss: Tensor
    token_loss: Tensor
    documents: Tensor | None

    def by_document(self, count: int) -> tuple[Tensor, Tensor]:
        """Summed losses and tokens of documents 0 … count - 1: float32 (count,) each. Ignored tokens count, with loss 0."""
        if self.documents is None:
            raise ValueError("linear_cross_entropy: by_document needs the documents of the tokens: give documents=")
        labels = self.documents.flatten()
        if labels.device.type == "cpu" and labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < count:
            raise ValueError(
                f"linear_cross_entropy: by_document({count}) of labels from {int(labels.min())} to {int(labels.max())}; "
                "they must be 0 ... count - 1"
            )
        sums = self.token_loss.new_zeros(2, count)
        sums[0].index_add_(0, labels, self.token_loss.flatten())
        sums[1].index_add_(0, labels, torch.ones_like(self.token_loss).flatten())
        return sums[0], sums[1]


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    weights: Tensor | None = None,
    documents: Tensor | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    scale: float = 1.0,
    z_loss: float = 0.0,
    ignore_index: int = -100,
    chunk: int | None = None,
    accumulate: torch.dtype = torch.float32,
) -> LinearCrossEntropy:
    """Cross entropy of softmax(hidden @ weight.T) against targets, in nats.

    hidden: (..., width); weight: (vocabulary, width); targets: (...) int64, `ignore_index` where there is none. Under autocast
    products run in its dtype, else in hidden's; a float32 weight gets a float32 gradient in either case.
    loss = scale * sum_i w_i (CE_i + z_loss * logsumexp_i^2), over the sum of the w_i for "mean"; w_i: `weights` (...), or 1.
    documents: (...) integer labels, carried to the result so that losses can be told by document.
    chunk: tokens whose logits exist at a time; default: what `chunk_tokens` picks. accumulate: dtype in which chunks of the
    weight's gradient are summed; the weight's own narrow dtype saves 4 bytes per weight and rounds once per chunk.

    Logits are rounded to the products' dtype, except each target's own, computed in float32 as softmax and losses are.
    The loss of no token is 0. No synchronisation with the host. On a GPU a target outside the vocabulary gives NaN.
    ValueError on other shapes, dtypes and devices; RuntimeError where the gradient is asked for twice or differentiated.
    """
    check_tensors("linear_cross_entropy", hidden=hidden, weight=weight, weights=weights)
    for name, labels in (("targets", targets), ("documents", documents)):
        if labels is not None:
            check_is_tensor("linear_cross_entropy", name, labels)
            if labels.device != hidden.device:
                raise ValueError(
                    f"linear_cross_entropy: {name} is on {labels.device} and hidden on {hidden.device}; move both to one device"
                )
    if documents is not None and (documents.is_floating_point() or documents.dtype == torch.bool):
        raise ValueError(f"linear_cross_entropy: documents is {documents.dtype}; it must be integer labels: use .long()")
    if hidden.ndim == 0 or hidden.shape[:-1] != targets.shape or targets.dtype != torch.int64:
        raise ValueError(
            f"linear_cross_entropy: targets is {str(targets.dtype).removeprefix('torch.')} {tuple(targets.shape)}; it must be "
            f"int64 and of hidden's shape {tuple(hidden.shape)} without its last axis"
        )
    check_shape("linear_cross_entropy", "weight", weight, (None, hidden.shape[-1]), "(vocabulary, width)")
    if 0 in weight.shape:
        raise ValueError(
            f"linear_cross_entropy: weight has shape {tuple(weight.shape)}; it must be (vocabulary, width), 1 or more"
        )
    for name, given in (("weights", weights), ("documents", documents)):
        if given is not None and given.shape != targets.shape:
            raise ValueError(
                f"linear_cross_entropy: {name} has shape {tuple(given.shape)}; it must be targets' {tuple(targets.shape)}"
            )
    if reduction not in ("mean", "sum"):
        raise ValueError(
            f"linear_cross_entropy: reduction is {reduction!r}; it is 'mean' or 'sum', and token_loss has each token's own"
        )
    if chunk is not None:
        check_range("linear_cross_entropy", "tokens in a chunk", chunk, 1, 2**31 - 1, "give None to have it chosen")
    if accumulate not in (torch.float32, weight.dtype):
        raise ValueError(f"linear_cross_entropy: accumulate is {accumulate}; it is torch.float32 or weight's {weight.dtype}")
    device = hidden.device.type
    compute = (
        torch.get_autocast_dtype(device)
        if torch.is_autocast_enabled(device) and hidden.dtype != torch.float64
        else hidden.dtype
    )
    if compute == weight.dtype or weight.dtype == torch.float32:
        flat, flat_targets = hidden.to(compute).reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    else:
        raise ValueError(
            f"linear_cross_entropy: weight is {weight.dtype} and products run in {compute}; make weight that, or float32"
        )
    flat_weights = None if weights is None else weights.detach().reshape(-1)
    mean = reduction == "mean"
    if not (hidden.is_cuda or interpreted()) or hidden.dtype == torch.float64:
        loss, losses = reference.linear_cross_entropy(
            flat, weight.to(compute), flat_targets, flat_weights, mean, scale, z_loss, ignore_index
        )
    else:
        tracking = torch.is_grad_enabled()
        loss, losses, *_ = _operator.linear_cross_entropy(
            flat, weight, flat_targets, flat_weights, mean, scale, z_loss, ignore_index,
            chunk or _operator.chunk_tokens(flat.shape[0], weight.shape[0], compute), accumulate,
            tracking and hidden.requires_grad, tracking and weight.requires_grad,
        )  # fmt: skip
    return LinearCrossEntropy(loss, losses.detach().view(targets.shape), documents)
