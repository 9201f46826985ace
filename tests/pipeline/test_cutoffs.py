"""Cutoffs: CCNet's table and percentile files."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cutoffs import CCNET_CUTOFFS, bucket, cutoffs_at, percentile_table, read_percentiles, write_percentiles


def test_buckets_part_where_ccnet_parts_them() -> None:
    english = CCNET_CUTOFFS["en"]
    assert [bucket(p, english) for p in (1.0, 339.9, 340.0, 519.9, 520.0, 1e9)] == [
        "head", "head", "middle", "middle", "tail", "tail",
    ]  # fmt: skip
    assert bucket(None, english) == "all", "an empty text has no perplexity"
    assert bucket(100.0, None) == "all", "a language without cutoffs"


def test_percentiles_survive_their_file(tmp_path: Path) -> None:
    table = percentile_table([float(v) for v in range(1, 102)], [33.3])
    assert table[30.0] == 31.0 and table[60.0] == 61.0 and table[33.3] == 34.3 and len(table) == 100
    (tmp_path / "cutoffs.json").write_bytes(write_percentiles({"en": table, "de": {30.0: 5.0, 60.0: 7.5}}))
    read = read_percentiles(tmp_path / "cutoffs.json")
    assert read["en"] == table
    assert cutoffs_at({"de": read["de"]}, (30, 60), "it") == {"de": (5.0, 7.5)}


def test_a_table_of_ccnets_form_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cutoffs.csv"
    path.write_text("percentile,en,gu\n0,10.5,\n30,340,99\n60,520,120\n")
    assert cutoffs_at(read_percentiles(path), (30, 60), str(path)) == {"en": (340.0, 520.0), "gu": (99.0, 120.0)}
    with pytest.raises(ValueError, match="no percentile 31 for en: it has 0, 30, 60"):
        cutoffs_at(read_percentiles(path), (31, 60), str(path))


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", "[1]"), ("a.json", '{"en": {"x": 1}}'), ("a.json", "{"), ("a.csv", "p,en\n30\n"), ("a.csv", "")],
)
def test_a_file_that_is_no_table_is_named(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name} is not a table of perplexity"):
        read_percentiles(tmp_path / name)


def test_percentiles_of_nothing_are_an_error() -> None:
    with pytest.raises(ValueError, match="no held-out document"):
        percentile_table([])
