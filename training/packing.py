"""Documents in packed rows: positions that restart with each document, and masks that keep documents apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


def positions_in_documents(documents: Tensor) -> Tensor:
    """How far each position is from the start of its document. documents: (rows, length), constant within a document.

    Returns int64 (rows, length).
    """
    index = torch.arange(documents.shape[1], device=documents.device).expand(documents.shape)
    first = torch.ones_like(documents, dtype=torch.bool)
    first[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return index - torch.where(first, index, 0).cummax(dim=1).values


def document_starts(documents: Tensor) -> Tensor:
    """Where each position's document starts in its row: what the fused operators read. Returns int32 (rows, length)."""
    index = torch.arange(documents.shape[1], device=documents.device)
    return (index - positions_in_documents(documents)).to(torch.int32)


def dense_mask(documents: Tensor) -> Tensor:
    """Which key (last axis) each query may see: its own document, up to itself. Returns bool (rows, 1, length, length)."""
    length = documents.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    return (causal & (documents[:, :, None] == documents[:, None, :]))[:, None]


def block_mask(documents: Tensor) -> BlockMask:
    """The same mask for FlexAttention, which skips blocks of keys that no query of a block may see."""
    from torch.nn.attention.flex_attention import create_block_mask

    def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (documents[row, query] == documents[row, key])

    rows, length = documents.shape
    return create_block_mask(visible, rows, None, length, length, device=documents.device.type)
