"""The sufficient statistics of a vote matrix: integer counts that add up over any way of splitting the documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

SCHEMA = pa.schema(
    [
        pa.field("statistic", pa.string(), nullable=False),
        pa.field("function", pa.string()),
        pa.field("vote", pa.int16()),
        pa.field("other_function", pa.string()),
        pa.field("other_vote", pa.int16()),
        pa.field("count", pa.int64(), nullable=False),
    ]
)
"""One count a row. Function and vote columns are null where a statistic has none."""

_ROWS = 1 << 16  # rows per product: below 2**24, where float32 counts exactly


@dataclass(frozen=True)
class VoteStatistics:
    """Counts over n documents, m labelling functions and k classes.

    pairs: (m·k, m·k) int64, documents where function i votes a and function j votes b, at [i·k + a, j·k + b]; the diagonal
    is each function's count per class. overlaps, conflicts: (m,) documents where the function votes and another one does
    too, or disagrees. outcomes: (k,) documents by the class that most functions vote for, ties in none.
    labelled, overlapping, conflicting: documents with at least one vote, at least two, at least two that disagree.
    """

    functions: tuple[str, ...]
    classes: tuple[str, ...]
    documents: int
    pairs: np.ndarray
    overlaps: np.ndarray
    conflicts: np.ndarray
    outcomes: np.ndarray
    labelled: int
    overlapping: int
    conflicting: int

    @classmethod
    def measure(cls, votes: np.ndarray, functions: Sequence[str], classes: Sequence[str]) -> VoteStatistics:
        """The statistics of votes (n, m): int8, -1 abstains, classes from 0. ValueError on any other vote."""
        m, k = len(functions), len(classes)
        check_votes(votes, m, k)
        voted = votes >= 0
        tally = tallies(votes, k)  # (n, k)
        cast = voted.sum(axis=1)
        disagree = (tally > 0).sum(axis=1) > 1
        top = tally.max(axis=1, initial=0)
        single = (cast > 0) & ((tally == top[:, None]).sum(axis=1) == 1)
        pairs = np.zeros((m * k, m * k), np.int64)
        for start in range(0, len(votes), _ROWS):
            piece = votes[start : start + _ROWS]
            hot = (piece[:, :, None] == np.arange(k, dtype=np.int8)).reshape(len(piece), m * k).astype(np.float32)
            pairs += (hot.T @ hot).astype(np.int64)
        return cls(
            functions=tuple(functions),
            classes=tuple(classes),
            documents=len(votes),
            pairs=pairs,
            overlaps=(voted & (cast > 1)[:, None]).sum(axis=0, dtype=np.int64),
            conflicts=(voted & disagree[:, None]).sum(axis=0, dtype=np.int64),
            outcomes=np.bincount(tally.argmax(axis=1)[single], minlength=k).astype(np.int64),
            labelled=int((cast > 0).sum()),
            overlapping=int((cast > 1).sum()),
            conflicting=int(disagree.sum()),
        )

    @property
    def counts(self) -> np.ndarray:
        """Votes per function and class, (m, k)."""
        return np.diagonal(self.pairs).reshape(len(self.functions), len(self.classes))

    def pair_overlaps(self) -> np.ndarray:
        """Documents where both of two functions vote, (m, m)."""
        m, k = len(self.functions), len(self.classes)
        return self.pairs.reshape(m, k, m, k).sum(axis=(1, 3))

    def pair_conflicts(self) -> np.ndarray:
        """Documents where two functions vote for different classes, (m, m)."""
        m, k = len(self.functions), len(self.classes)
        agreeing = np.einsum("iaja->ij", self.pairs.reshape(m, k, m, k))
        return self.pair_overlaps() - agreeing

    def to_table(self) -> pa.Table:
        """`SCHEMA`; of the pairs, those that occur."""
        rows: list[tuple[str, str | None, int | None, str | None, int | None, int]] = [
            (name, None, None, None, None, getattr(self, name))
            for name in ("documents", "labelled", "overlapping", "conflicting")
        ]
        rows += [("outcomes", None, c, None, None, int(n)) for c, n in enumerate(self.outcomes)]
        for i, function in enumerate(self.functions):
            rows.append(("overlaps", function, None, None, None, int(self.overlaps[i])))
            rows.append(("conflicts", function, None, None, None, int(self.conflicts[i])))
        k = len(self.classes)
        for a, b in np.argwhere(self.pairs):
            i, j = divmod(int(a), k), divmod(int(b), k)
            rows.append(("pairs", self.functions[i[0]], i[1], self.functions[j[0]], j[1], int(self.pairs[a, b])))
        return pa.Table.from_arrays(
            [pa.array(column, f.type) for column, f in zip(zip(*rows, strict=True), SCHEMA, strict=True)], schema=SCHEMA
        )

    @classmethod
    def from_table(cls, table: pa.Table, classes: Sequence[str]) -> VoteStatistics:
        """The statistics that a table (or several, concatenated) holds: counts of the same thing add up."""
        functions: dict[str, int] = {}
        rows = table.select(SCHEMA.names).to_pylist()
        for row in rows:
            if row["statistic"] == "overlaps":
                functions.setdefault(row["function"], len(functions))
        m, k = len(functions), len(classes)
        single = {"documents": 0, "labelled": 0, "overlapping": 0, "conflicting": 0}
        overlaps, conflicts = np.zeros(m, np.int64), np.zeros(m, np.int64)
        outcomes, pairs = np.zeros(k, np.int64), np.zeros((m * k, m * k), np.int64)
        for row in rows:
            statistic, count = row["statistic"], row["count"]
            if statistic in single:
                single[statistic] += count
            elif statistic == "overlaps":
                overlaps[functions[row["function"]]] += count
            elif statistic == "conflicts":
                conflicts[functions[row["function"]]] += count
            elif statistic == "outcomes":
                outcomes[row["vote"]] += count
            else:
                one = functions[row["function"]] * k + row["vote"]
                pairs[one, functions[row["other_function"]] * k + row["other_vote"]] += count
        return cls(
            functions=tuple(functions),
            classes=tuple(classes),
            pairs=pairs,
            overlaps=overlaps,
            conflicts=conflicts,
            outcomes=outcomes,
            **single,
        )


def tallies(votes: np.ndarray, k: int) -> np.ndarray:
    """Votes per class, (n, k) int32, of votes (n, m)."""
    return np.stack([(votes == c).sum(axis=1, dtype=np.int32) for c in range(k)], axis=1)


def check_votes(votes: np.ndarray, m: int, k: int) -> None:
    """ValueError unless votes is (n, m) with values from -1 to k - 1."""
    if votes.ndim != 2 or votes.shape[1] != m:
        raise ValueError(f"votes have shape {votes.shape}, expected (documents, {m})")
    if votes.size and (votes.min() < -1 or votes.max() >= k):
        raise ValueError(f"votes run from {votes.min()} to {votes.max()}: -1 abstains, and classes count from 0 to {k - 1}")
