"""Speed of joining spans: `python benchmarks/spans.py [--spans 1000000]`.

Two sets of made-up spans, a thousand to a document, are joined on sharing a character, on Allen's relations one by one, and
subtracted. The peer is Polars' inequality join (`join_where`) on the same columns in the same run; it must find as
many pairs.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import polars as pl

from labelers.spans import Spans
from labelers.spans_join import RELATIONS


def made_up(n: int, seed: int) -> Spans:
    """Spans of 1 to 40 characters in documents of 20,000: words, lines, matches of patterns."""
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 20_000, n)
    return Spans.of(rng.integers(0, max(n // 1000, 1), n), start, start + rng.integers(1, 41, n), rng.random(n), n // 1000 or 1)


def frame(spans: Spans) -> pl.DataFrame:
    return pl.DataFrame({"document": spans.document, "start": spans.start, "end": spans.end})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=1_000_000)
    n = parser.parse_args().spans
    one, two = made_up(n, 0), made_up(n, 1)
    few = made_up(1000, 2)
    few.join(few, RELATIONS)  # compiles, once per machine

    def timed(what: str, pairs: int, begun: tuple[float, float]) -> float:
        wall, cpu = time.perf_counter() - begun[0], time.process_time() - begun[1]
        print(f"{what:44} {pairs:12,} pairs {wall:7.2f} s {cpu:7.2f} s of processors")
        return wall

    def clock() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    print(f"{n:,} spans and {n:,} spans in {one.documents:,} documents")
    begun = clock()
    found = len(one.join(two)[0])
    ours = timed("share a character", found, begun)
    for relation in RELATIONS:
        if relation in ("before", "after"):
            continue
        begun = clock()
        timed(relation, len(one.join(two, relation)[0]), begun)
    begun = clock()
    timed("before, at most 10 characters between", len(one.join(two, "before", (1, 10))[0]), begun)
    begun = clock()
    timed("minus (pieces)", len(one.minus(two)), begun)
    begun = clock()
    timed("coalesce (spans left)", len(one.coalesce()), begun)

    left, right = frame(one).lazy(), frame(two).lazy()
    begun = clock()
    joined = left.join_where(
        right, pl.col("document") == pl.col("document_right"), pl.col("start") < pl.col("end_right"),
        pl.col("end") > pl.col("start_right"),
    ).select(pl.len()).collect().item()  # fmt: skip
    theirs = timed("share a character, by Polars' join_where", joined, begun)
    assert joined == found, f"Polars finds {joined:,} pairs"
    print(f"{theirs / ours:.1f} times as fast as Polars")


if __name__ == "__main__":
    main()
