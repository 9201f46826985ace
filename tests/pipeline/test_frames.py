from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from pipeline.frames import characters, join_aligned, read_plain


def test_aligned_tables_stand_side_by_side_with_one_id() -> None:
    frame = join_aligned(
        {"documents": pa.table({"id": ["x", "y"], "n": [1, 2]}), "signals": pa.table({"id": ["x", "y"], "s": [3, 4]})}
    )
    assert frame.to_dict(as_series=False) == {"id": ["x", "y"], "n": [1, 2], "s": [3, 4]}


def test_ids_are_compared_as_text_however_they_are_stored() -> None:
    other = pa.table({"id": pa.array(["x", "y"], pa.large_string()), "s": [3, 4]})
    assert join_aligned({"documents": pa.table({"id": ["x", "y"]}), "signals": other})["s"].to_list() == [3, 4]


def test_a_column_of_two_tables_is_called_after_its_table() -> None:
    one, two = pa.table({"id": ["x"], "label": ["good"], "p": [1.0]}), pa.table({"id": ["x"], "label": ["news"]})
    assert join_aligned({"labels/quality": one}).columns == ["id", "label", "p"]
    assert join_aligned({"labels/quality": one, "labels/topic": two}).columns == ["id", "quality_label", "p", "topic_label"]


@pytest.mark.parametrize("ids", [["y", "x"], ["x"], ["x", "y", "z"]])
def test_tables_of_different_documents_are_refused_by_name(ids: list[str]) -> None:
    with pytest.raises(ValueError, match=r"s/0: documents .2 rows. and signals .* build signals again"):
        join_aligned({"documents": pa.table({"id": ["x", "y"]}), "signals": pa.table({"id": ids})}, "s/0")


def test_plain_files_keep_their_columns_and_get_an_id(tmp_path: Path) -> None:
    rows = [{"text": "älter", "n": None}, {"text": None, "n": 2}]
    lines = "".join(json.dumps(r) + "\n" for r in rows).encode()
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    pl.DataFrame(rows).with_columns(id=pl.Series([7, 8])).write_parquet(tmp_path / "c.parquet")
    for name, ids in (
        ("a.jsonl", ["a.jsonl/0", "a.jsonl/1"]),
        ("b.jsonl.gz", ["b.jsonl.gz/0", "b.jsonl.gz/1"]),
        ("c.parquet", ["7", "8"]),
    ):
        frame = read_plain(tmp_path / name)
        assert frame["id"].to_list() == ids
        assert frame["n"].to_list() == [None, 2]
        assert frame.select(characters(frame, "f")).to_series().to_list() == [5, 0]


@pytest.mark.parametrize(
    ("name", "content"), [("a.parquet", b"no"), ("a.jsonl", b"{"), ("a.csv", b"a"), ("none.parquet", None)]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        read_plain(tmp_path / name)
