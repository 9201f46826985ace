"""Boundaries of documents that are packed into one sequence: what no operator looks across.

Callers give one of two forms:
- `cu_seqlens`: (documents + 1,) int32 or int64, the first token of each document and the end, over all `batch * length`
  tokens in order; an empty document is two equal entries. A row's start is a boundary in any case.
- `document_starts`: (batch, length) int32, for each token the position in its row of its document's first token.

Kernels read `document_starts`: 4 bytes per token, no synchronisation with the host, any number of documents.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.arguments import check_is_tensor


def document_starts_of(cu_seqlens: Tensor, batch: int, length: int) -> Tensor:
    """(batch, length) int32: where each token's document starts in its row. On the device, without synchronisation."""
    tokens = torch.arange(batch * length, dtype=cu_seqlens.dtype, device=cu_seqlens.device)
    document = torch.searchsorted(cu_seqlens, tokens, right=True) - 1
    rows = torch.arange(batch, dtype=torch.int64, device=cu_seqlens.device)[:, None] * length
    return (cu_seqlens[document].view(batch, length) - rows).clamp_min(0).to(torch.int32)


def resolve_documents(
    operator: str,
    cu_seqlens: Tensor | None,
    document_starts: Tensor | None,
    batch: int,
    length: int,
    device: torch.device | None = None,
) -> Tensor | None:
    """The document_starts of whichever form is given, contiguous; None when neither is. device: where they must be, if given.

    ValueError on both at once, on a wrong shape, dtype or device, and, on the CPU, on values that are no boundaries; values on
    a GPU are not looked at, for that would wait for it. TypeError on what is no tensor.
    """
    for name, given in (("cu_seqlens", cu_seqlens), ("document_starts", document_starts)):
        if given is None:
            continue
        check_is_tensor(operator, name, given)
        if device is not None and given.device != device:
            raise ValueError(f"{operator}: {name} is on {given.device} and the sequences are on {device}; move it there")
    if cu_seqlens is not None and document_starts is not None:
        raise ValueError(f"{operator}: give cu_seqlens or document_starts, not both")
    if cu_seqlens is not None:
        if cu_seqlens.ndim != 1 or len(cu_seqlens) < 2 or cu_seqlens.dtype not in (torch.int32, torch.int64):
            raise ValueError(
                f"{operator}: cu_seqlens is {str(cu_seqlens.dtype).removeprefix('torch.')} of shape {tuple(cu_seqlens.shape)}; "
                "it must be int32 or int64 (documents + 1,)"
            )
        if cu_seqlens.device.type == "cpu" and not _is_fake(cu_seqlens):
            if cu_seqlens[0] != 0 or cu_seqlens[-1] != batch * length:
                raise ValueError(
                    f"{operator}: cu_seqlens runs from {int(cu_seqlens[0])} to {int(cu_seqlens[-1])}; "
                    f"it must run from 0 to batch * length = {batch * length}"
                )
            if bool((cu_seqlens[1:] < cu_seqlens[:-1]).any()):
                raise ValueError(f"{operator}: cu_seqlens decreases; it must be the running sum of document lengths")
        return document_starts_of(cu_seqlens.contiguous(), batch, length)
    if document_starts is not None and (document_starts.shape != (batch, length) or document_starts.dtype != torch.int32):
        raise ValueError(
            f"{operator}: document_starts is {str(document_starts.dtype).removeprefix('torch.')} "
            f"of shape {tuple(document_starts.shape)}; "
            f"it must be int32 (batch, length) = ({batch}, {length})"
        )
    if document_starts is None:
        return None
    if document_starts.device.type == "cpu" and not _is_fake(document_starts) and document_starts.numel():
        position = torch.arange(length, dtype=torch.int32)
        previous = torch.nn.functional.pad(document_starts[:, :-1], (1, 0))
        wrong = (document_starts != position) & ((document_starts != previous) | (position == 0))
        if bool(wrong.any()):
            row, token = wrong.nonzero()[0].tolist()
            value = int(document_starts[row, token])
            raise ValueError(
                f"{operator}: document_starts[{row}, {token}] is {value}; where a document starts it must "
                "be the position itself, 0 in a row's first, and elsewhere that of the token before"
            )
    return document_starts.contiguous()


def _is_fake(tensor: Tensor) -> bool:
    """Whether the tensor has no values, because torch.compile or export is tracing."""
    return torch.compiler.is_compiling() or isinstance(tensor, torch._subclasses.FakeTensor) or tensor.is_meta
