"""Interpolated modified Kneser-Ney smoothing, as KenLM's `lmplz` does it, written as an ARPA file.

Sources: Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling" (1998), 4.1.6 and equation 26;
Heafield et al., "Scalable Modified Kneser-Ney Language Model Estimation" (2013).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.arpa import ArpaWriter
from pipeline.ngram import BEGIN, CHUNK_TOKENS, UNKNOWN, AdjustedCounts, OrderStatistics, count_ngrams, words
from pipeline.spill import Spill

FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""For an order whose closed-form discounts do not exist or are out of range; those of lmplz's --discount_fallback."""


@dataclass(frozen=True)
class Estimate:
    """What became of an estimation. ngrams and discounts by order; fallback: the orders with FALLBACK_DISCOUNTS."""

    tokens: int
    ngrams: Mapping[int, int]
    discounts: Mapping[int, tuple[float, float, float]]
    fallback: tuple[int, ...]


def estimate(
    sentences: Iterable[np.ndarray],
    vocabulary: Sequence[str],
    order: int,
    target: Path,
    *,
    prune: Sequence[int] = (),
    scratch: Path | None = None,
    chunk_tokens: int = CHUNK_TOKENS,
    partitions: int | None = None,
) -> Estimate:
    """Estimate a model of `order` words (2 to 6, KenLM's limit) and write it to `target` as ARPA.

    sentences: arrays of word ids; vocabulary: the word of each id, read after the sentences are through, so that it may grow
    with them; ids 0, 1, 2 are <unk>, <s>, </s>. scratch: folder for spilled counts (a temporary one by default). The same
    sentences give the same bytes.
    """
    if not 2 <= order <= 6:
        raise ValueError(f"order {order}: KenLM reads models of order 2 to 6")
    with tempfile.TemporaryDirectory(prefix="ngrams.", dir=scratch) as name:
        folder = Path(name)
        counts = count_ngrams(sentences, order, folder, prune, chunk_tokens, partitions)
        found = {n: discounts(s) for n, s in counts.statistics.items()}
        used = {n: d or FALLBACK_DISCOUNTS for n, d in found.items()}
        grams, backoffs = _normalise(counts, used, folder)
        unigrams = _unigrams(counts.unigrams, used[1], backoffs[1])
        sizes = {1: unigrams.height} | {n: s.kept for n, s in counts.statistics.items() if n > 1}
        with ArpaWriter(target, folder, vocabulary, sizes) as arpa:
            _interpolate(unigrams, grams, backoffs, order, arpa)
    return Estimate(counts.tokens, sizes, used, tuple(n for n, d in found.items() if d is None))


def discounts(statistics: OrderStatistics) -> tuple[float, float, float] | None:
    """D1, D2, D3+ of one order from its counts of counts; None where they do not exist, or leave [0, count]."""
    n = statistics.adjusted.astype(np.float64)
    if not n[:3].all():
        return None
    y = n[0] / (n[0] + 2 * n[1])
    found = tuple(float(k - (k + 1) * y * n[k] / n[k - 1]) for k in (1, 2, 3))
    return (found[0], found[1], found[2]) if all(0 <= d <= k for k, d in enumerate(found, 1)) else None


def _discount(values: tuple[float, float, float]) -> pl.Expr:
    """The discount of each row's adjusted count."""
    one, two, more = values
    return pl.when(pl.col("count") == 1).then(one).when(pl.col("count") == 2).then(two).otherwise(more)


def _sums() -> list[pl.Expr]:
    """Per context: the sum of counts, and of what `_gamma` takes from it for the lower order."""
    kept = pl.col("kept")
    return [
        pl.col("count").sum().alias("denominator"),
        *((kept & (pl.col("count") == k)).sum().alias(f"n{k}") for k in (1, 2)),
        (kept & (pl.col("count") > 2)).sum().alias("n3"),
        pl.col("count").filter(~kept).sum().alias("pruned"),
    ]


def _gamma(values: tuple[float, float, float]) -> pl.Expr:
    """The share of a context's probability that discounts and pruning set free; its backoff weight."""
    one, two, more = values
    return (one * pl.col("n1") + two * pl.col("n2") + more * pl.col("n3") + pl.col("pruned")) / pl.col("denominator")


def _normalise(
    counts: AdjustedCounts, used: Mapping[int, tuple[float, float, float]], folder: Path
) -> tuple[dict[int, Spill], dict[int, Spill]]:
    """Discounted probabilities before interpolation, and backoff weights, each partitioned by the n-gram's last two words.

    grams[n]: w1.., alpha, gamma (of its context); backoffs[n]: w1.., backoff, for every n-gram that is a context.
    """
    grams: dict[int, Spill] = {}
    backoffs: dict[int, Spill] = {}
    for n, spill in counts.higher.items():
        grams[n] = Spill(folder / f"grams{n}", spill.partitions, words(n)[-2:])
        backoffs[n - 1] = Spill(folder / f"backoffs{n - 1}", spill.partitions if n > 2 else 1, words(n - 1)[-2:])
        context = words(n - 1)
        for partition in range(spill.partitions):
            rows = spill.read(partition)
            if rows is None:
                continue
            sums = rows.group_by(context).agg(_sums()).with_columns(gamma=_gamma(used[n]))
            backoffs[n - 1].append(sums.select(*context, backoff="gamma"))
            kept = rows.filter("kept").join(sums.select(*context, "denominator", "gamma"), on=context)
            alpha = (pl.col("count") - _discount(used[n])) / pl.col("denominator")
            grams[n].append(kept.select(*words(n), alpha.alias("alpha"), "gamma"))
        spill.clear()
    return grams, backoffs


def _unigrams(rows: pl.DataFrame, used: tuple[float, float, float], backoffs: Spill) -> pl.DataFrame:
    """Columns w1, probability, backoff. Interpolated with the uniform distribution over all words but <s>.

    <unk> has count 0, so that the uniform part is all of it; <s> is never predicted and has probability 1, as in lmplz.
    """
    total = rows.select(_sums()).with_columns(gamma=_gamma(used)).row(0, named=True)
    uniform = total["gamma"] / (rows.height + 1)  # all words, </s> among them, and <unk>
    alpha = (pl.col("count") - _discount(used)) / total["denominator"]
    seen = rows.select("w1", probability=alpha + uniform)
    special = pl.DataFrame(
        {"w1": [UNKNOWN, BEGIN], "probability": [uniform, 1.0]}, schema={"w1": pl.UInt32, "probability": pl.Float64}
    )
    return _with_backoffs(pl.concat([special, seen]), backoffs.read(0), ["w1"])


def _with_backoffs(rows: pl.DataFrame, weights: pl.DataFrame | None, keys: list[str]) -> pl.DataFrame:
    """Add `backoff` and sort. What is no context (it ends in </s>, say) backs off with weight 1."""
    if weights is None:
        return rows.with_columns(backoff=pl.lit(1.0)).sort(keys)
    return rows.join(weights, on=keys, how="left").with_columns(pl.col("backoff").fill_null(1.0)).sort(keys)


def _interpolate(
    unigrams: pl.DataFrame, grams: Mapping[int, Spill], backoffs: Mapping[int, Spill], order: int, arpa: ArpaWriter
) -> None:
    arpa.write(1, unigrams)
    for partition in range(grams[order].partitions):
        lower = unigrams.select("w1", lower="probability")
        for n in range(2, order + 1):
            rows = grams[n].read(partition)
            if rows is None:
                break  # what has no bigram here has nothing longer
            suffix = [f"w{i}" for i in range(2, n + 1)]
            joined = rows.join(lower, left_on=suffix, right_on=words(n - 1), how="inner")
            assert joined.height == rows.height, "the suffix of every n-gram is in the model"
            rows = joined.select(*words(n), probability=pl.col("alpha") + pl.col("gamma") * pl.col("lower"))
            lower = rows.select(*words(n), lower="probability")
            if n < order:
                arpa.write(n, _with_backoffs(rows, backoffs[n].read(partition), words(n)))
            else:
                arpa.write(n, rows.sort(words(n)))
