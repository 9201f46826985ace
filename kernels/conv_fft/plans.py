"""Plans of packed documents, made once for a batch's boundaries and shared by all layers and passes that see them.

A plan is found again by the identity and version of the tensor of boundaries, which is held weakly. torch counts a tensor's
versions, but for writes that it does not see: replays of a CUDA graph. So nothing is looked up while a graph is captured, for
its replays must read the boundaries of their time, nor while torch.compile traces, where equal plans are one anyway.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils.weak import WeakTensorKeyDictionary

from kernels.arguments import check_range
from kernels.conv_fft.rows import document_table, table_size
from kernels.dispatch import implementation
from kernels.documents import resolve_documents

LONGEST = 1 << 22


@dataclass(frozen=True)
class DocumentPlan:
    """Which documents a (batch, channels, length) tensor has, as `conv_fft` reads them; `plan_documents` makes it.

    starts: (batch, length) int32, for each sample where its document starts. table: the documents by length, None where no
    kernel runs. longest: no document is longer. causal: filters have no reverse part.
    """

    starts: Tensor
    table: Tensor | None
    channels: int
    longest: int
    causal: bool


@torch.library.custom_op("menagerie::conv_fft_documents", mutates_args=())
def _table(starts: Tensor, channels: int, longest: int, causal: bool) -> Tensor:
    return document_table(starts, channels, longest, causal)


@_table.register_fake
def _(starts: Tensor, channels: int, longest: int, causal: bool) -> Tensor:
    return starts.new_empty(table_size(starts.shape[0], starts.shape[1], longest, causal), dtype=torch.int64)


def plan_documents(
    u: Tensor,
    *,
    cu_seqlens: Tensor | None = None,
    document_starts: Tensor | None = None,
    longest_document: int | None = None,
    causal: bool = True,
) -> DocumentPlan:
    """The plan that `conv_fft(..., documents=plan)` takes, for tensors of u's shape and device, and filters of one kind.

    u: (batch, channels, length). cu_seqlens, document_starts, longest_document: as `conv_fft` takes them. causal: filters have
    no reverse part. A few small kernels, without synchronisation with the host. Make it once for a batch, outside of a CUDA
    graph only if the graph is replayed for these very documents. ValueError on what are no boundaries.
    """
    batch, channels, length = u.shape
    if longest_document is not None:
        check_range("conv_fft", "as longest_document", longest_document, 1, LONGEST, "give the longest document's length")
    starts = resolve_documents("conv_fft", cu_seqlens, document_starts, batch, length, u.device)
    if starts is None:
        raise ValueError("conv_fft: plan_documents without documents; give cu_seqlens or document_starts")
    longest = min(longest_document or length, length)
    table = None
    on_kernels = u.dtype in (torch.float16, torch.bfloat16) and u.numel() > 0
    if on_kernels and not implementation("conv_fft", u).__name__.endswith("reference"):
        table = torch.ops.menagerie.conv_fft_documents(starts, channels, longest, causal)
    return DocumentPlan(starts, table, channels, longest, causal)


# By the boundaries' identity: the tensor's version, and the plans made of it. A plan that is kept has no starts where they are
# the tensor itself, which it would keep alive.
_known: Any = WeakTensorKeyDictionary()


def found_plan(
    u: Tensor, cu_seqlens: Tensor | None, document_starts: Tensor | None, longest: int | None, causal: bool
) -> DocumentPlan | None:
    """The plan of whichever form is given, the one made before if the tensor has not changed; None when none is given."""
    boundaries = document_starts if cu_seqlens is None else cu_seqlens
    if boundaries is None:
        return None

    def made() -> DocumentPlan:
        return plan_documents(
            u, cu_seqlens=cu_seqlens, document_starts=document_starts, longest_document=longest, causal=causal
        )

    if (cu_seqlens is not None and document_starts is not None) or not _may_be_kept(boundaries):
        return made()
    version, plans = _known.get(boundaries, (-1, {}))
    if version != boundaries._version:
        plans = {}
        _known[boundaries] = (boundaries._version, plans)
    stream = torch.cuda.current_stream(u.device).cuda_stream if u.is_cuda else 0
    place = (u.shape, u.dtype, u.device, stream, torch.is_inference_mode_enabled())
    key = (*place, longest, causal, cu_seqlens is None)
    if key not in plans:
        plan = made()
        plans[key] = dataclasses.replace(plan, starts=None) if plan.starts is boundaries else plan
    plan = plans[key]
    return dataclasses.replace(plan, starts=boundaries) if plan.starts is None else plan


def _may_be_kept(boundaries: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()
        and type(boundaries) is Tensor
        and not boundaries.is_inference()
        and _get_current_dispatch_mode() is None
        and not (boundaries.is_cuda and torch.cuda.is_current_stream_capturing())
    )
