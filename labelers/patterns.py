"""The distinct rows of a vote matrix and how often each occurs: all that a model without order can learn from the votes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from labelers.encoded import EncodedVotes, encode
from labelers.votes import Votes, dense_blocks

_HASH_SEED = 0x6D656E61
_COUNTED = 1 << 20  # possible rows up to which they are counted by number, without sorting
_PROBE = 1 << 12
_REPEATED = 0.1


@dataclass(frozen=True)
class Patterns:
    """rows: (u, m) int8, each different, or nearly (`of`). counts: (u,) float64, how many documents have it."""

    rows: np.ndarray
    counts: np.ndarray
    k: int

    @classmethod
    def of(cls, votes: Votes, k: int) -> Patterns:
        """The patterns of checked votes (n, m), in an order that does not depend on that of the documents.

        Votes of so many functions that hardly a row repeats (fewer than a tenth of 4096 rows) stay as they are, each counted
        once: to find the few that do costs more than it saves.
        """
        if isinstance(votes, np.ndarray) and _hardly_repeat(votes, k):
            return cls(votes, np.ones(len(votes)), k)
        found = [_distinct(block, None, k) for _, block in dense_blocks(votes)]
        if not found:
            return cls(np.empty((0, votes.shape[1]), np.int8), np.empty(0), k)
        rows, counts = (np.concatenate([f[i] for f in found]) for i in (0, 1))
        return cls(*(_distinct(rows, counts, k) if len(found) > 1 else found[0]), k)

    def __add__(self, other: Patterns) -> Patterns:
        rows, counts = (np.concatenate([getattr(p, name) for p in (self, other)]) for name in ("rows", "counts"))
        return Patterns(*_distinct(rows, counts, self.k), self.k)

    @cached_property
    def encoded(self) -> EncodedVotes:
        """The rows in the form that sums over them are quickest in."""
        return encode(self.rows, self.k)


def _hardly_repeat(votes: np.ndarray, k: int) -> bool:
    if len(votes) < 4 * _PROBE or (k + 1) ** votes.shape[1] <= _COUNTED:
        return False
    probe = votes[:: len(votes) // _PROBE]
    return len(_distinct(probe, None, k)[0]) > (1 - _REPEATED) * len(probe)


def _distinct(rows: np.ndarray, counts: np.ndarray | None, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows and the sums of their counts (1 each by default).

    Few possible rows are numbered and counted. Else rows are told apart by a 64-bit linear hash of their votes, and by the
    votes themselves if two different rows ever share one.
    """
    m = rows.shape[1]
    columns = np.ascontiguousarray(rows.T)
    possible = (k + 1) ** m
    if possible <= _COUNTED:
        numbers = np.zeros(len(rows), np.uint32)
        for column in columns:
            numbers *= np.uint32(k + 1)
            numbers += (column + np.int8(1)).view(np.uint8)
        sums = np.bincount(numbers, counts, possible)
        there = np.flatnonzero(sums)
        digits = there[:, None] // (k + 1) ** np.arange(m - 1, -1, -1) % (k + 1)
        return (digits - 1).astype(np.int8), sums[there].astype(np.float64)
    multipliers = np.random.default_rng(_HASH_SEED).integers(1, 1 << 63, m, dtype=np.uint64)
    codes = np.zeros(len(rows), np.uint64)
    for column, multiplier in zip(columns, multipliers, strict=True):
        codes += (np.arange(k + 1, dtype=np.uint64) * multiplier)[column + np.int8(1)]
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    found = rows[first]
    if not (found[inverse] == rows).all():
        found, inverse = np.unique(rows, axis=0, return_inverse=True)
    return found, np.bincount(inverse.ravel(), counts, len(found)).astype(np.float64)
