"""How large a tile each kernel works on, by head dimension and mask: measured on the GPU, see benchmarks/NOTES.md."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tile:
    """Rows of queries and of keys that a program works on at a time, and how.

    stages: blocks in flight; spills: bytes per thread that the compiler may spill.
    """

    queries: int
    keys: int
    warps: int
    stages: int = 2
    spills: int = 0


@dataclass(frozen=True)
class Tiles:
    """The tiles of the forward kernel and of the two backward kernels."""

    forward: Tile
    dkdv: Tile
    dq: Tile


def tiles(head_dim: int, dtype: torch.dtype, sparse: bool) -> Tiles:
    """sparse: a window or documents, so that loops are short."""
    if dtype == torch.float32:
        # Exact float32 products take three tensor-core passes and many registers: for checks, not for speed.
        small = Tile(16, 16, 4, spills=400)
        return Tiles(small, small, small)
    if head_dim <= 64:
        small = Tile(64, 64, 4, stages=3)
        return Tiles(small, small, small) if sparse else Tiles(Tile(64, 128, 4), small, Tile(64, 64, 4))
    if head_dim <= 128:
        return Tiles(Tile(64, 64, 4, stages=3), Tile(64, 64, 4), Tile(64, 64, 4))
    return Tiles(Tile(128, 64, 8), Tile(32, 64, 8, spills=64), Tile(64, 64, 8))
