"""Spilled rows come back, all of them, each from its own partition."""

from __future__ import annotations

import tempfile
from pathlib import Path

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline.spill
from pipeline.spill import Spill

ROWS = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 3), st.integers(0, 100)), max_size=30)


@settings(max_examples=20, deadline=None)
@given(st.lists(ROWS, max_size=4), st.sampled_from([1, 2, 8]), st.sampled_from([1, 2]), st.sampled_from([1, 10, 1000]))
def test_every_row_is_in_exactly_one_partition(
    appends: list[list[tuple[int, int, int]]], partitions: int, of: int, buffered: int
) -> None:
    schema = {"a": pl.UInt32, "b": pl.UInt32, "value": pl.Int64}
    before, pipeline.spill._BUFFERED_ROWS = pipeline.spill._BUFFERED_ROWS, buffered
    of = min(of, partitions)
    try:
        with tempfile.TemporaryDirectory() as folder:
            spill = Spill(Path(folder) / "spill", partitions, ["a", "b"])
            for rows in appends:
                spill.append(pl.DataFrame(rows, schema, orient="row"))
            read = [spill.read(partition, of) for partition in range(of)]
            found = [row for frame in read if frame is not None for row in frame.rows()]
            assert sorted(found) == sorted(row for rows in appends for row in rows)
            homes: dict[tuple[int, int], set[int]] = {}
            for partition, frame in enumerate(read):
                for a, b, _ in frame.rows() if frame is not None else ():
                    homes.setdefault((a, b), set()).add(partition)
            assert all(len(home) == 1 for home in homes.values()), "rows of one key lie together"
            spill.clear()
            assert not list(Path(folder).rglob("*"))
    finally:
        pipeline.spill._BUFFERED_ROWS = before


def test_keys_are_spread_evenly(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "spill", 16, ["a", "b"])
    pairs = [(a, b) for a in range(100) for b in range(100)]
    spill.append(pl.DataFrame(pairs, {"a": pl.UInt32, "b": pl.UInt32}, orient="row"))
    sizes = [frame.height for p in range(16) if (frame := spill.read(p)) is not None]
    assert len(sizes) == 16 and min(sizes) > 400 and max(sizes) < 900
