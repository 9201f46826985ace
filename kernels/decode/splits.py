"""How decoding shares out its keys, by head dimension: measured on the GPU, see benchmarks/NOTES.md."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Split:
    """Keys that a program reads at a time, warps, blocks in flight, programs per multiprocessor, query rows in a tile at most,

    and bytes of spills allowed.
    """

    keys: int
    warps: int
    stages: int
    programs: int
    rows: int = 64
    spills: int = 0


def split(head_dim: int, dtype: torch.dtype, shared: bool) -> Split:
    """shared: for a prefix that all sequences read, at the same time as other programs read what is theirs."""
    if dtype == torch.float32:
        return Split(32 if head_dim <= 128 else 16, 4, 2, 2)
    if head_dim > 128:
        return Split(32, 4, 3, 2, spills=16)
    return Split(64, 4, 2, 1 if shared else 2)
