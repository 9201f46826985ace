"""Long convolution with dense filters: `conv_fft`.

    y = postgate * (filter * (pregate * u) + skip (pregate * u)),  * along the last axis, causal or two-sided

Filters are as long as the rows (Hyena, Monarch Mixer). One program convolves rows of up to 8192 samples on chip; longer ones
take three passes through memory; causal ones of up to 256 are not transformed at all (`triton_short`). See
`kernels.conv_fft.transforms` for the mathematics and the choice of factors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.arguments import autocast, check_range, check_same_dtype, check_shape, check_tensors
from kernels.conv_fft.plans import LONGEST, DocumentPlan, found_plan, plan_documents
from kernels.differentiation import refuse_double_backward
from kernels.dispatch import implementation

__all__ = ["DocumentPlan", "conv_fft", "plan_documents"]


def conv_fft(
    u: Tensor,
    filter: Tensor,
    *,
    reverse_filter: Tensor | None = None,
    skip: Tensor | None = None,
    pregate: Tensor | None = None,
    postgate: Tensor | None = None,
    kept_frequencies: float = 1.0,
    cu_seqlens: Tensor | None = None,
    document_starts: Tensor | None = None,
    longest_document: int | None = None,
    documents: DocumentPlan | None = None,
) -> Tensor:
    """Convolve each channel of u with its own filter, gates and skip included.

    u, pregate, postgate: (B, H, L) of one dtype, 1 <= L <= 4M. filter: (H, K), any K: lags 0 ... K - 1; with K < L a partial
    convolution, and taps beyond L have no effect. reverse_filter: (H, K'), lags -1 ... -K', for a two-sided convolution (a
    causal one without). skip: (H,), added to the tap of lag 0. Filters and skip are float32 (or u's dtype); sums are
    float32, and float16 operands are used inside on CUDA. kept_frequencies: 1, 1/2 or 1/4: only this fraction of the
    filter's spectrum, the lowest frequencies of the right-angle transform, is used (frequency-sparse convolution), and the
    rest costs nothing; but never fewer than 16 columns of the transform's last factor, so 1/4 is 1/2 for 1024 and 2048 samples
    and above 8192, and up to 512 all is kept. cu_seqlens or document_starts: documents that are convolved as if each were alone
    (see `kernels.documents`); longest_document: an upper bound on their lengths, which spares the kernels for longer ones and
    is not checked on a GPU: a longer document's end may come out as zeros. documents: instead of all three, what
    `plan_documents` made of them; without it the plan is made when a tensor of boundaries is first seen, or changed, and kept
    as long as it lives.
    Returns a tensor like u. ValueError on anything else. float32 and float64 on CUDA take the library's FFT, with documents one
    after the other.
    Source: FlashFFTConv (Fu et al. 2023) for the operator; right-angle transforms (Crandall and Fagin 1994) for the method.
    """
    u, pregate, postgate = autocast(u, pregate, postgate)  # type: ignore[assignment]
    check_tensors("conv_fft", u=u, filter=filter, reverse_filter=reverse_filter, skip=skip, pregate=pregate, postgate=postgate)
    check_same_dtype("conv_fft", u=u, pregate=pregate, postgate=postgate)
    check_shape("conv_fft", "u", u, (None, None, None), "(batch, channels, length)")
    _, channels, length = u.shape
    check_range("conv_fft", "samples in a row", length, 1, LONGEST, "split longer rows into overlapping ones")
    check_shape("conv_fft", "filter", filter, (channels, None), "(channels, taps)")
    check_range("conv_fft", "filter taps", filter.shape[1], 1, 1 << 31, "give it at least one tap")
    for name, gate in (("pregate", pregate), ("postgate", postgate)):
        if gate is not None:
            check_shape("conv_fft", name, gate, u.shape, "the shape of u")
    if reverse_filter is not None:
        check_shape("conv_fft", "reverse_filter", reverse_filter, (channels, None), "(channels, taps)")
    if kept_frequencies not in (1, 0.5, 0.25):
        raise ValueError(f"conv_fft: kept_frequencies is {kept_frequencies}; it may be 1, 0.5 or 0.25")
    if documents is not None and not (cu_seqlens is None and document_starts is None and longest_document is None):
        raise ValueError("conv_fft: documents and boundaries together; the plan has them: give it alone")
    if longest_document is not None:
        check_range("conv_fft", "as longest_document", longest_document, 1, LONGEST, "give the longest document's length")
    if documents is None:
        documents = found_plan(u, cu_seqlens, document_starts, longest_document, reverse_filter is None)
    else:
        _check_plan(documents, u, reverse_filter is None)
    if documents is not None and kept_frequencies != 1:
        raise ValueError(
            "conv_fft: kept_frequencies and documents together; a transform per document has no common frequencies"
        )
    wide = torch.float64 if u.dtype == torch.float64 else torch.float32
    # Taps that reach no sample must not come in, not by their rounding either.
    filter = filter[:, :length].to(wide)
    if reverse_filter is not None:
        reverse_filter = reverse_filter[:, : max(1, length - 1)].to(wide)
    if skip is not None:
        check_shape("conv_fft", "skip", skip, (channels,), "(channels,)")
        filter = torch.cat([filter[:, :1] + skip.to(wide)[:, None], filter[:, 1:]], dim=1)
    starts, table, longest = (None, None, 0)
    if documents is not None:
        starts, table, longest = documents.starts, documents.table, documents.longest % length  # 0: no bound
    return torch.ops.menagerie.conv_fft(
        u, filter, reverse_filter, pregate, postgate, starts, float(kept_frequencies), longest, table
    )


def _check_plan(plan: DocumentPlan, u: Tensor, causal: bool) -> None:
    """ValueError if the plan was made for other tensors."""
    batch, channels, length = u.shape
    made = (*plan.starts.shape, plan.channels)
    if made != (batch, length, channels) or plan.starts.device != u.device:
        raise ValueError(
            f"conv_fft: documents were planned for (batch, channels, length) = {(made[0], made[2], made[1])} on "
            f"{plan.starts.device} and u is {tuple(u.shape)} on {u.device}; call plan_documents with a tensor like u"
        )
    if plan.causal != causal:
        kinds = {True: "causal", False: "two-sided"}
        raise ValueError(
            f"conv_fft: documents were planned for {kinds[plan.causal]} filters and these are {kinds[causal]}; "
            f"call plan_documents with causal={causal}"
        )


@torch.library.custom_op("menagerie::conv_fft", mutates_args=())
def _forward(
    u: Tensor,
    filter: Tensor,
    reverse_filter: Tensor | None,
    pre: Tensor | None,
    post: Tensor | None,
    document_starts: Tensor | None,
    fraction: float,
    longest: int,
    table: Tensor | None = None,
) -> Tensor:
    return implementation("conv_fft", u).forward(
        u, filter, reverse_filter, pre, post, document_starts, fraction, longest, table
    )


@_forward.register_fake
def _(u: Tensor, *arguments: Any) -> Tensor:
    return torch.empty_like(u, memory_format=torch.contiguous_format)


@torch.library.custom_op("menagerie::conv_fft_backward", mutates_args=())
def _backward(
    dy: Tensor,
    u: Tensor,
    filter: Tensor,
    reverse_filter: Tensor | None,
    pre: Tensor | None,
    post: Tensor | None,
    document_starts: Tensor | None,
    fraction: float,
    longest: int,
    table: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, filter, reverse_filter, pre and post; empty where there is no such argument."""
    gradients = implementation("conv_fft", u).backward(
        dy, u, filter, reverse_filter, pre, post, document_starts, fraction, longest, table
    )
    return tuple(u.new_empty(0) if g is None else g for g in gradients)  # type: ignore[return-value]


@_backward.register_fake
def _(
    dy: Tensor, u: Tensor, filter: Tensor, reverse_filter: Tensor | None, pre: Tensor | None, post: Tensor | None, *rest: Any
) -> tuple[Tensor, ...]:
    like = (u, filter, reverse_filter, None if pre is None else u, None if post is None else u)
    return tuple(u.new_empty(0) if t is None else torch.empty_like(t, memory_format=torch.contiguous_format) for t in like)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, fraction, longest, table = inputs
    ctx.save_for_backward(*tensors, table)
    ctx.rest = fraction, longest


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, table = ctx.saved_tensors
    gradients = torch.ops.menagerie.conv_fft_backward(dy, *tensors, *ctx.rest, table)
    given = (True, True, *(tensor is not None for tensor in tensors[2:5]))
    return (*(g if there else None for g, there in zip(gradients, given, strict=True)), None, None, None, None)


_forward.register_autograd(_differentiate, setup_context=_setup)
refuse_double_backward(_backward, "conv_fft")
