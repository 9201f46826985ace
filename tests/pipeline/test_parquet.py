"""Parquet files as a source: rows in, the same number of documents and rejects out."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources.fields import Fields
from pipeline.sources.parameters import Limits
from pipeline.sources.parquet import ParquetParams, ParquetSource
from pipeline.sources.record import Document, Reject


def reasons(rows: list[Document | Reject]) -> Counter[str]:
    return Counter(row.reason if isinstance(row, Reject) else "document" for row in rows)


def write(path: Path, columns: dict[str, Any], **options: Any) -> str:
    pq.write_table(pa.table(columns), path, **options)
    return str(path)


def test_columns_and_fields_of_structs_are_found(tmp_path: Path) -> None:
    moment = datetime(2024, 5, 1, 12)
    file = write(
        tmp_path / "x.parquet",
        {
            "text": pa.array(["one", "two"]).dictionary_encode(),
            "metadata": [{"url": "http://a", "title": "A", "other": 1}, None],
            "date": [moment, None],
            "unused": [1, 2],
        },
    )
    one, two = ParquetSource().read(file)
    assert one == Document("x/0", "http://a", "2024-05-01T12:00:00", None, "x.parquet", 3, "A", "one")
    assert two == Document("x/1", None, None, None, "x.parquet", 3, None, "two")


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.string_view()])
def test_text_may_have_any_string_type(tmp_path: Path, kind: pa.DataType) -> None:
    values = pa.array(["é", "b", None, ""]).cast(kind)
    rows = list(ParquetSource().read(write(tmp_path / "x.parquet", {"text": values})))
    assert reasons(rows) == {"document": 2, "no_text": 1, "empty_text": 1}
    assert isinstance(rows[0], Document) and rows[0].text == "é" and rows[0].original_length == 2


def test_bytes_that_are_not_utf8_are_a_counted_reject(tmp_path: Path) -> None:
    raw = pa.array([b"ab\xff", b"ok"])
    unchecked = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    (bad, good) = ParquetSource().read(write(tmp_path / "x.parquet", {"text": unchecked}))
    assert isinstance(bad, Reject) and (bad.reason, bad.record_id, bad.excerpt) == ("bad_utf8", "x/0", "ab�")
    assert isinstance(good, Document) and good.text == "ok"


def test_a_missing_column_is_one_clear_error(tmp_path: Path) -> None:
    file = write(tmp_path / "x.parquet", {"content": ["a"], "url": ["u"]})
    with pytest.raises(ValueError, match=r"x\.parquet has no column raw_content or text.*it has content, url: name") as told:
        list(ParquetSource().read(file))
    assert "\n" not in str(told.value)
    assert reasons(list(ParquetSource(Fields(text=("content",))).read(file))) == {"document": 1}


def test_a_damaged_row_group_loses_its_rows_and_no_others(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    write(file, {"text": [f"document {n}" for n in range(1000)]}, row_group_size=100, compression="zstd")
    column = pq.read_metadata(file).row_group(3).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    content = bytearray(file.read_bytes())
    content[start : start + column.total_compressed_size] = b"\x07" * column.total_compressed_size
    file.write_bytes(content)
    rows = list(ParquetSource().read(str(file)))
    assert reasons(rows) == {"document": 900, "corrupt_parquet": 100}
    assert [row.record_id for row in rows] == [f"x/{n}" for n in range(1000)]
    assert {row.record_id for row in rows if isinstance(row, Reject)} == {f"x/{n}" for n in range(300, 400)}


@pytest.mark.parametrize("content", [b"", b"PAR1", b"<html>not found</html>" * 10])
def test_a_file_that_is_no_parquet_is_one_reject(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.parquet").write_bytes(content)
    assert reasons(list(ParquetSource().read(str(tmp_path / "x.parquet")))) == {"corrupt_parquet": 1}


def test_a_cut_file_is_one_reject(tmp_path: Path) -> None:
    file = write(tmp_path / "x.parquet", {"text": ["a"] * 1000})
    Path(file).write_bytes(Path(file).read_bytes()[:-20])
    assert reasons(list(ParquetSource().read(file))) == {"corrupt_parquet": 1}


def test_a_text_above_the_limit_is_too_large(tmp_path: Path) -> None:
    file = write(tmp_path / "x.parquet", {"text": ["a" * 101, "b" * 100]})
    params = ParquetParams(paths=(file,))
    assert reasons(list(params.open(Limits(max_record_bytes=100)).read(params.files()[0]))) == {"too_large": 1, "document": 1}


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.none() | st.text(max_size=5), max_size=60),
    group=st.integers(1, 20),
    batch=st.integers(1, 20),
)
def test_rows_come_out_once_each_in_order(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str | None], group: int, batch: int
) -> None:
    path = tmp_path_factory.mktemp("p") / "x.parquet"
    write(path, {"text": pa.array(texts, pa.string())}, row_group_size=group)
    rows = list(ParquetSource(batch_rows=batch).read(str(path)))
    assert [row.record_id for row in rows] == [f"x/{n}" for n in range(len(texts))]
    assert [row.text for row in rows if isinstance(row, Document)] == [t for t in texts if t and not t.isspace()]
