"""A uniform sample of vote rows that merges like a statistic: the same rows however the documents are split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import xxhash

SIZE = 1 << 17
"""Rows that a sample keeps: 2.6 MB at 20 functions."""


@dataclass(frozen=True)
class VoteSample:
    """The votes on the documents whose ids hash lowest (bottom-k sampling): uniform, and merged exactly.

    keys: (s,) uint64 hashes, ascending. votes: (s, m) int8. size: most rows that are kept.
    """

    keys: np.ndarray
    votes: np.ndarray
    size: int = SIZE

    @classmethod
    def measure(cls, votes: np.ndarray, ids: Sequence[str], size: int = SIZE) -> VoteSample:
        """The sample of votes (n, m) on the documents of these ids."""
        keys = np.fromiter((xxhash.xxh3_64_intdigest(i.encode()) for i in ids), np.uint64, len(votes))
        return cls._lowest(keys, votes, size)

    @classmethod
    def merge(cls, parts: Iterable[VoteSample]) -> VoteSample:
        """The sample of all parts' documents together. ValueError on none."""
        parts = list(parts)
        if not parts:
            raise ValueError("there are no samples to merge: the stream of votes is empty")
        keys, votes = (np.concatenate([getattr(p, name) for p in parts]) for name in ("keys", "votes"))
        return cls._lowest(keys, votes, parts[0].size)

    @classmethod
    def _lowest(cls, keys: np.ndarray, votes: np.ndarray, size: int) -> VoteSample:
        chosen = np.argsort(keys, kind="stable")[:size]
        return cls(keys[chosen], np.ascontiguousarray(votes[chosen]), size)

    def to_table(self) -> pa.Table:
        """One row per document: `key`, and `votes` as a fixed-size list."""
        m = self.votes.shape[1]
        flat = pa.array(self.votes.ravel(), pa.int8())
        return pa.table({"key": pa.array(self.keys, pa.uint64()), "votes": pa.FixedSizeListArray.from_arrays(flat, m)})

    @classmethod
    def from_table(cls, table: pa.Table, size: int = SIZE) -> VoteSample:
        """The sample that a table (or several, concatenated) holds."""
        column = table["votes"].combine_chunks()
        m = column.type.list_size
        votes = column.flatten().to_numpy().reshape(-1, m)
        return cls._lowest(table["key"].to_numpy(), votes, size)
