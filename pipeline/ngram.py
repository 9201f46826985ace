"""Counts of n-grams, and Kneser-Ney's adjusted counts of the shorter ones, in memory that does not grow with the text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.spill import Spill

UNKNOWN, BEGIN, END = 0, 1, 2
"""Word ids of <unk>, <s> and </s>; the same as SentencePiece's."""
CHUNK_TOKENS = 1 << 21
PARTITIONS = 64  # of spilled counts; 1 GB of text makes some 4 million rows in each


def words(order: int) -> list[str]:
    """Column names of an n-gram: w1 is the first word, w<order> the predicted one."""
    return [f"w{i}" for i in range(1, order + 1)]


@dataclass
class OrderStatistics:
    """What one order's discounts and the model's header need. adjusted: n-grams with adjusted count 1, 2, 3 and 4."""

    adjusted: np.ndarray = field(default_factory=lambda: np.zeros(4, np.int64))
    ngrams: int = 0
    kept: int = 0

    def add(self, rows: pl.DataFrame) -> None:
        self.adjusted += np.array([(rows["count"] == k).sum() for k in range(1, 5)], np.int64)
        self.ngrams += rows.height
        self.kept += int(rows["kept"].sum())


@dataclass
class AdjustedCounts:
    """N-grams of each order with their adjusted counts (Chen and Goodman 1998, 4.1.6).

    An n-gram of the highest order, or one that begins with <s>, counts how often it occurs; any other how many different
    words come before it. unigrams: columns w1, count, kept. higher: for orders 2 and up the columns w1.., count, kept,
    partitioned by context. `kept` is false where pruning takes the n-gram out of the model.
    """

    order: int
    tokens: int
    unigrams: pl.DataFrame
    higher: dict[int, Spill]
    statistics: dict[int, OrderStatistics]


def count_ngrams(
    sentences: Iterable[np.ndarray],
    order: int,
    folder: Path,
    prune: Sequence[int] = (),
    chunk_tokens: int = CHUNK_TOKENS,
    partitions: int | None = None,
) -> AdjustedCounts:
    """Count the n-grams of sentences, each an array of word ids without <s> and </s>, and adjust the counts.

    order: 2 or more. prune: as lmplz, one threshold per order (the last holds for the rest; never falling; the first 0):
    n-grams that occur that often or less leave the model. folder: for spilled counts, some 100 bytes per token.
    """
    thresholds = prune_thresholds(prune, order)
    spill = Spill(folder / "counts", partitions or PARTITIONS, words(order)[-2:])
    tokens = 0
    for chunk in _chunks(sentences, chunk_tokens):
        windows = _windows(chunk, order)
        tokens += windows.height
        spill.append(windows.group_by(words(order)).agg(count=pl.len().cast(pl.UInt64)))
    if not tokens:
        raise ValueError("there is no text to count n-grams in")
    needed = partitions or 1  # no more than the text needs, now that its length is known
    while not partitions and needed < PARTITIONS and needed * CHUNK_TOKENS < tokens:
        needed *= 2
    return _adjust(spill, needed, order, thresholds, folder, tokens)


def prune_thresholds(prune: Sequence[int], order: int) -> tuple[int, ...]:
    """One pruning threshold per order, as lmplz reads them. ValueError for what it refuses."""
    given = tuple(prune) or (0,)
    if len(given) > order or given[0] != 0 or any(b < a for a, b in pairwise(given)):
        told = " ".join(map(str, given))
        raise ValueError(f"prune {told}: give at most {order} thresholds that never fall, the first 0 (words are not pruned)")
    return given + (given[-1],) * (order - len(given))


def _chunks(sentences: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    chunk: list[np.ndarray] = []
    held = 0
    for sentence in sentences:
        chunk.append(sentence)
        held += len(sentence) + 1
        if held >= size:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def _windows(sentences: list[np.ndarray], order: int) -> pl.DataFrame:
    """Every n-gram of the sentences: one row per word and end of sentence, its context filled up with <s>."""
    before, after = np.full(order - 1, BEGIN, np.uint32), np.array([END], np.uint32)
    flat = np.concatenate([part for s in sentences for part in (before, s.astype(np.uint32, copy=False), after)])
    ends = np.flatnonzero(flat != BEGIN)  # <s> is never predicted
    return pl.DataFrame({w: flat[ends - (order - 1 - i)] for i, w in enumerate(words(order))})


def _adjust(spill: Spill, partitions: int, order: int, thresholds: Sequence[int], folder: Path, tokens: int) -> AdjustedCounts:
    higher = {n: Spill(folder / f"adjusted{n}", partitions, words(n - 1)) for n in range(2, order + 1)}
    statistics = {n: OrderStatistics() for n in range(1, order + 1)}
    unigrams = []
    for partition in range(partitions):
        read = spill.read(partition, partitions)
        if read is None:
            continue
        padded = read.group_by(words(order)).agg(pl.col("count").sum())
        # An n-gram and all its suffixes of two words or more have the same last two words: they are all here.
        level = padded.filter(pl.col("w2") != BEGIN).with_columns(occurrences=pl.col("count"))
        for n in range(order, 1, -1):
            if n < order:
                level = pl.concat([_suffixes(level, n + 1), _beginnings(padded, order, n)])
            level = level.with_columns(kept=pl.col("occurrences") > thresholds[n - 1])
            statistics[n].add(level)
            higher[n].append(level.select(*words(n), "count", "kept"))
        unigrams.append(_suffixes(level, 2))
    spill.clear()
    told = pl.concat(unigrams).group_by("w1").agg(pl.col("count").sum()).sort("w1").with_columns(kept=pl.lit(True))
    statistics[1].add(told)
    return AdjustedCounts(order, tokens, told, higher, statistics)


def _suffixes(level: pl.DataFrame, order: int) -> pl.DataFrame:
    """The n-grams of one order less that follow a word: count = how many different words (<s> is one) they follow."""
    renamed = level.select(*(pl.col(f"w{i + 1}").alias(f"w{i}") for i in range(1, order)), "occurrences")
    return renamed.group_by(words(order - 1)).agg(count=pl.len().cast(pl.UInt64), occurrences=pl.col("occurrences").sum())


def _beginnings(padded: pl.DataFrame, order: int, n: int) -> pl.DataFrame:
    """The n-grams that begin with <s>: in the padded ones, those with `order - n` more <s> before it."""
    skip = order - n
    rows = padded.filter((pl.col(f"w{skip + 1}") == BEGIN) & (pl.col(f"w{skip + 2}") != BEGIN))
    return rows.select(*(pl.col(f"w{i + skip}").alias(f"w{i}") for i in range(1, n + 1)), "count", occurrences="count")
