"""The sufficient statistics of a vote matrix: integer counts that add up over any way of splitting the documents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa

from labelers.patterns import Patterns
from labelers.votes import Votes, check_k, check_votes, dense_blocks

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

_ROWS = 1 << 14
_MOST_PAIRS = 16_000  # function-class pairs: 2 GB of counts


@dataclass
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
    def measure(
        cls,
        votes: Votes,
        functions: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
        k: int | None = None,
    ) -> VoteStatistics:
        """The statistics of votes (n, m), dense (-1 abstains, classes from 0) or sparse (class + 1).

        functions, classes: names; by default `f0`, ... and `0`, ... for k classes. ValueError on any other vote.
        """
        if classes is None:
            classes = default_names("", check_k(2 if k is None else k))
        checked = check_votes(votes, len(classes), functions)
        total = cls.empty(default_names("f", checked.shape[1]) if functions is None else functions, classes)
        for _, block in dense_blocks(checked):
            total._add_block(block)
        return total

    @classmethod
    def of_patterns(cls, patterns: Patterns, functions: Sequence[str], classes: Sequence[str]) -> VoteStatistics:
        """The statistics of documents of which only the distinct rows and their counts are left."""
        total = cls.empty(functions, classes)
        m, k, rows, counts = len(functions), len(classes), patterns.rows, patterns.counts
        for first in range(0, len(rows), _ROWS):
            piece, weight = rows[first : first + _ROWS], counts[first : first + _ROWS]
            hot = (piece[:, :, None] == np.arange(k, dtype=np.int8)).reshape(len(piece), m * k).astype(np.float64)
            total.pairs += np.rint(hot.T @ (hot * weight[:, None])).astype(np.int64)  # integers below 2**53
            tally = hot.reshape(len(piece), m, k).sum(axis=1)
            cast, top = tally.sum(axis=1), tally.max(axis=1)
            single = (cast > 0) & ((tally == top[:, None]).sum(axis=1) == 1)
            overlap, conflict = cast > 1, (tally > 0).sum(axis=1) > 1
            voted = (piece >= 0).astype(np.float64)
            total.overlaps += np.rint((weight * overlap) @ voted).astype(np.int64)
            total.conflicts += np.rint((weight * conflict) @ voted).astype(np.int64)
            total.outcomes += np.bincount(tally.argmax(axis=1)[single], weight[single], k).astype(np.int64)
            for name, which in (
                ("documents", cast >= 0),
                ("labelled", cast > 0),
                ("overlapping", overlap),
                ("conflicting", conflict),
            ):
                setattr(total, name, getattr(total, name) + int(weight @ which))
        return total

    @classmethod
    def empty(cls, functions: Sequence[str], classes: Sequence[str]) -> VoteStatistics:
        """The statistics of no documents. ValueError where the pair counts would not fit in memory."""
        m, k = len(functions), len(classes)
        if m * k > _MOST_PAIRS:
            raise ValueError(
                f"{m:,} functions of {k} classes need {(m * k) ** 2 * 8 / 1e9:,.0f} GB of pair counts (at most "
                f"{_MOST_PAIRS**2 * 8 / 1e9:,.0f}): drop functions, or split the task"
            )
        if len(set(functions)) < m:
            twice = sorted({f for f in functions if list(functions).count(f) > 1})
            raise ValueError(f"labelling functions share a name: {', '.join(twice)}; each needs one of its own")
        none = np.zeros(m, np.int64)
        pairs, outcomes = np.zeros((m * k, m * k), np.int64), np.zeros(k, np.int64)
        return cls(tuple(functions), tuple(classes), 0, pairs, none, none.copy(), outcomes, 0, 0, 0)

    def __add__(self, other: VoteStatistics) -> VoteStatistics:
        """The statistics of both sets of documents. ValueError if they are of other functions or classes."""
        for what in ("functions", "classes"):
            one, two = getattr(self, what), getattr(other, what)
            if one != two:
                raise ValueError(f"statistics of other {what} cannot be added: {', '.join(one)}; {', '.join(two)}")
        added = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)[2:]}
        return VoteStatistics(self.functions, self.classes, **added)

    @classmethod
    def merge(cls, parts: Iterable[VoteStatistics]) -> VoteStatistics:
        """The statistics of all parts together, in any order, added in a tree. ValueError on none."""
        level = list(parts)
        if not level:
            raise ValueError("there are no statistics to merge: the stream of votes is empty")
        while len(level) > 1:
            level = [level[i] + level[i + 1] if i + 1 < len(level) else level[i] for i in range(0, len(level), 2)]
        return level[0]

    def _add_block(self, block: np.ndarray) -> None:
        """Count a block of rows in place. Each (function, class) is a plane of bits, so that a pair's count is the number of
        bits that two planes share: exact integers, and many times faster than a product of matrices."""
        n, (m, k) = len(block), (len(self.functions), len(self.classes))
        if not n or not m:
            self.documents += n
            return
        columns = np.ascontiguousarray(block.T)
        tally = np.zeros((k, n), np.uint8 if m < 256 else np.uint16)
        planes = np.zeros((m * k, -(-n // 64) * 8), np.uint8)
        for i, column in enumerate(columns):
            for c in range(k):
                hits = column == c
                tally[c] += hits
                planes[i * k + c, : -(-n // 8)] = np.packbits(hits)
        words = planes.view(np.uint64)
        for a in range(m * k):
            if words[a].any():
                self.pairs[a, a:] += np.bitwise_count(words[a] & words[a:]).sum(axis=1, dtype=np.int64)
        lower = np.tril_indices(m * k, -1)
        self.pairs[lower] = self.pairs.T[lower]

        cast = tally.sum(axis=0, dtype=np.uint32)
        top = tally.max(axis=0)
        single = (cast > 0) & ((tally == top).sum(axis=0) == 1)
        overlap, conflict = cast > 1, (tally > 0).sum(axis=0) > 1
        voted = np.bitwise_or.reduce(words.reshape(m, k, -1), axis=1)
        for counts, where in ((self.overlaps, overlap), (self.conflicts, conflict)):
            shared = np.zeros(planes.shape[1], np.uint8)
            shared[: -(-n // 8)] = np.packbits(where)
            counts += np.bitwise_count(voted & shared.view(np.uint64)).sum(axis=1, dtype=np.int64)
        self.outcomes[:] += np.bincount(tally.argmax(axis=0)[single], minlength=k)
        for name, count in (("documents", n), ("labelled", cast > 0), ("overlapping", overlap), ("conflicting", conflict)):
            setattr(self, name, getattr(self, name) + int(np.sum(count)))

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


def default_names(prefix: str, count: int) -> tuple[str, ...]:
    """Names of what has none: the prefix and a number."""
    return tuple(f"{prefix}{i}" for i in range(count))


def tallies(votes: np.ndarray, k: int) -> np.ndarray:
    """Votes per class, (n, k) int32, of votes (n, m)."""
    return np.stack([(votes == c).sum(axis=1, dtype=np.int32) for c in range(k)], axis=1)
