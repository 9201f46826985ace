"""Rows of votes in a form that log-linear models sum over quickly: votes of several functions as one number, or sparse hits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_BLOCK = 1 << 15  # rows that are worked on at once: what is known of them stays in the cache
_LARGEST = 20_000  # entries of a joint table: what the cache holds
_SMALLEST = 32


class GroupedVotes:
    """Rows (n, m) as numbers, one per group of functions: their votes together are the row of a joint table.

    A score then costs one look-up per group, and a sum over the rows one addition, whatever the functions vote. Tables have
    at most a fourth as many entries as there are rows, so that making them costs little beside.
    """

    def __init__(self, rows: np.ndarray, k: int) -> None:
        (n, m), self.values = rows.shape, k + 1
        size = _group_size(n, self.values)
        size = -(-m // -(-m // size)) if m else 1  # as few groups, of one size or nearly
        self.groups = [range(first, min(first + size, m)) for first in range(0, m, size)]
        self.m, self.blocks = m, [slice(first, min(first + _BLOCK, n)) for first in range(0, n, _BLOCK)]
        self._codes = [self._encode(rows[block]) for block in self.blocks]

    def _encode(self, rows: np.ndarray) -> np.ndarray:
        columns = np.array(rows.T, order="C")  # a copy, also where the transpose is contiguous
        columns += np.int8(1)
        digits = columns.view(np.uint8)
        codes = np.zeros((len(self.groups), len(rows)), np.uint16)
        for code, group in zip(codes, self.groups, strict=True):
            for i in group:
                code *= np.uint16(self.values)
                code += digits[i]
        return codes

    def tables(self, weights: np.ndarray) -> list[np.ndarray]:
        """Of weights (m, k + 1, c): the sums for each group's joint votes, (c, (k + 1)^size)."""
        out = []
        columns = np.ascontiguousarray(np.moveaxis(weights, 2, 0))
        for group in self.groups:
            table = np.zeros((weights.shape[2], 1))
            for i in group:
                table = (table[:, :, None] + columns[:, i, None, :]).reshape(len(columns), -1)
            out.append(table)
        return out

    def scores(self, number: int, tables: Sequence[np.ndarray], base: np.ndarray) -> np.ndarray:
        """base + Σ_i weights[i, vote_i + 1], (c, rows) float64, of a block."""
        block = self.blocks[number]
        out = np.repeat(base[:, None], block.stop - block.start, axis=1).astype(np.float64)
        for code, table in zip(self._codes[number], tables, strict=True):
            for c, column in enumerate(table):
                out[c] += column.take(code)
        return out

    def tally(self, mass: np.ndarray, sums: list[np.ndarray], number: int) -> None:
        """Add the mass (c, rows) of a block's rows to the sums of each group's joint votes, which begin as `zeros`."""
        for code, total in zip(self._codes[number], sums, strict=True):
            for c, weight in enumerate(mass):
                total[c] += np.bincount(code, weight, total.shape[1])

    def zeros(self, c: int) -> list[np.ndarray]:
        """Sums of nothing, for `tally`."""
        return [np.zeros((c, self.values ** len(group))) for group in self.groups]

    def by_vote(self, sums: Sequence[np.ndarray]) -> np.ndarray:
        """The sums per function and vote for a class, (m, k, c)."""
        out = np.empty((self.m, self.values - 1, len(sums[0]) if sums else 0))
        for group, total in zip(self.groups, sums, strict=True):
            rest = total.reshape(len(total), 1, -1)
            for i in group:  # peel off the first function's digit, and sum over it
                split = rest.reshape(len(total), self.values, -1)
                out[i] = split.sum(axis=2)[:, 1:].T
                rest = split.sum(axis=1)
        return out


class SparseVotes:
    """The same of rows on which few functions vote: work for each vote, and none for a function that abstains."""

    def __init__(self, rows: np.ndarray, k: int) -> None:
        from scipy.sparse import csr_array

        (n, self.m), self.k = rows.shape, k
        cast = rows >= 0
        at = (np.arange(self.m, dtype=np.int32) * k + rows)[cast]
        ends = np.concatenate([[0], np.cumsum(cast.sum(axis=1))])
        hits = csr_array((np.ones(len(at)), at, ends), shape=(n, self.m * k))
        self.blocks = [slice(first, min(first + _BLOCK, n)) for first in range(0, n, _BLOCK)]
        self._hits = [hits[block] for block in self.blocks]
        self._turned = [part.T.tocsr() for part in self._hits]

    def tables(self, weights: np.ndarray) -> list[np.ndarray]:
        """Of weights (m, k + 1, c): all functions abstain in the base (c,); a vote takes its abstention back (m·k, c)."""
        silence = weights[:, 0]
        return [silence.sum(axis=0), (weights[:, 1:] - silence[:, None]).reshape(self.m * self.k, -1)]

    def scores(self, number: int, tables: Sequence[np.ndarray], base: np.ndarray) -> np.ndarray:
        """As `GroupedVotes.scores`."""
        return np.ascontiguousarray((self._hits[number] @ tables[1] + (base + tables[0])).T)

    def tally(self, mass: np.ndarray, sums: list[np.ndarray], number: int) -> None:
        """As `GroupedVotes.tally`."""
        sums[0] += self._turned[number] @ np.ascontiguousarray(mass.T)

    def zeros(self, c: int) -> list[np.ndarray]:
        """Sums of nothing, for `tally`."""
        return [np.zeros((self.m * self.k, c))]

    def by_vote(self, sums: Sequence[np.ndarray]) -> np.ndarray:
        """As `GroupedVotes.by_vote`."""
        return sums[0].reshape(self.m, self.k, -1)


EncodedVotes = GroupedVotes | SparseVotes


def encode(rows: np.ndarray, k: int) -> EncodedVotes:
    """Rows (n, m), -1 abstains, in the form in which sums over them take the least work."""
    groups = -(-rows.shape[1] // _group_size(len(rows), k + 1))
    return SparseVotes(rows, k) if np.count_nonzero(rows >= 0) < len(rows) * groups else GroupedVotes(rows, k)


def _group_size(n: int, values: int) -> int:
    """How many functions of so many values fit into a joint table that suits n rows."""
    most = min(max(n // 4, _SMALLEST), _LARGEST)
    return max(1, int(np.log(most) / np.log(values) + 1e-9))
