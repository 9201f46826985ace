"""How decoding shares out its keys, by head dimension: measured on the GPU, see benchmarks/NOTES.md."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch


@dataclass(frozen=True)
class Split:
    """Keys that a program reads at a time, blocks in flight, programs per multiprocessor, query rows in a tile at most."""

    keys: int
    stages: int
    programs: int
    rows: int = 64


@dataclass(frozen=True)
class Plan:
    """How caches and the prefix are split, in one launch; warps of each program, and bytes of spills allowed."""

    own: Split
    prefix: Split
    warps: int = 4
    spills: int = 0


def plan(head_dim: int, dtype: torch.dtype, narrow: bool) -> Plan:
    """narrow: no prefix, and no more query rows than the narrowest tile has. Fewer warps wait less for one another there."""
    if dtype == torch.float32:
        one = Split(32 if head_dim <= 128 else 16, 2, 2)
        return Plan(one, one)
    if head_dim > 128:
        return Plan(Split(32, 3, 2), Split(32, 3, 2), spills=48)
    return Plan(Split(64, 3, 2), Split(64, 3, 2), warps=2 if narrow else 4)


@lru_cache(1024)
def count(tiles: int, keys: int, split: Split, processors: int) -> int:
    """Into how many stretches each of `tiles` tiles' keys are split: as many as leave the busiest multiprocessor the least.

    No more programs than fit side by side, if there are that few tiles; no stretch shorter than two blocks of keys.
    """
    blocks = -(-keys // split.keys)
    most = max(1, min(split.programs * processors // tiles, -(-blocks // 2)))
    best, least = 1, -1
    for splits in range(1, most + 1):
        stretch = -(-blocks // splits)
        busiest = -(-tiles * splits // processors) * stretch
        # Of two that take as long the one with more programs, each waits for its own loads; but none without a key.
        if -(-blocks // stretch) == splits and (least < 0 or busiest <= least):
            best, least = splits, busiest
    return best
