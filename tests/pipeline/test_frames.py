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


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"text": "a"}\n{oops\n', "line 2 is not JSON"),
        (b'{"text": "a"}\n\n[1]\n', "line 3 is no JSON object"),
        (b'{"text": "a \xff"}\n', "line 1 is not UTF-8"),
        (b"\n\n", "the file has no lines"),
        (b"", "the file has no lines"),
        (b'{"text": 1}\n', "column text holds Int64, not text"),
        (b'{"text": ["a"]}\n', "column text holds List"),
        (b'{"text": "a", "id": [1]}\n', "column id holds List"),
        (b'{"text": "a", "id": null}\n', "1 documents have no id"),
        (b'{"text": "12"}\n{"text": 12}\n', "line 2: field text holds 12, not text"),
        (b'{"text": "a"}\n{"text": ["a"]}\n', 'line 2: field text holds ."a"., not text'),
        (b'{"text": "a"}\n{"text": "a \\ud800 b"}\n', "line 2 escapes half of a surrogate pair"),
        (b'{"text": "a"}\n{"text": "b \\udc00"}\n', "line 2 escapes half of a surrogate pair"),
        (b'{"text": "a"}\n{"text": "b", "x": NaN}\n', "line 2 is not JSON: NaN is no number there"),
        (b'\xef\xbb\xbf{"text": "a"}\n', "the file begins with a byte order mark"),
        (b'{"text": "a", "x": {"k": 1}}\n{"text": "b", "x": 5}\n', "line 2: field x is no object, unlike in line 1"),
    ],
)
def test_what_is_wrong_with_a_jsonl_file_is_told_with_its_line(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(content))
    for name in ("a.jsonl", "b.jsonl.gz"):
        with pytest.raises(ValueError, match=f"{name}: {told}"):
            read_plain(tmp_path / name)


def test_texts_that_look_like_numbers_and_lists_stay_texts(tmp_path: Path) -> None:
    texts = ["12", "[1]", "true", "{}", "a \x00 b", "\U0001f600"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    assert read_plain(tmp_path / "a.jsonl")["text"].to_list() == texts
    (tmp_path / "a.jsonl").write_text('{"text": "12", "x": {"k": 1}}\n{"text": "b", "x": "y"}\n')
    assert read_plain(tmp_path / "a.jsonl")["text"].to_list() == ["12", "b"]


def test_a_cut_gzip_file_and_a_folder_are_told_apart_from_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 1000)[:-12])
    (tmp_path / "folder.parquet").mkdir()
    for name, told in (("cut.jsonl.gz", "is damaged"), ("folder.parquet", "is a folder"), ("none.parquet", "no such file")):
        with pytest.raises(ValueError, match=f"{name}: .*{told}"):
            read_plain(tmp_path / name)


def test_text_in_another_guise_becomes_strings(tmp_path: Path) -> None:
    for values in (pl.Series([b"a", None]), pl.Series(["a", None], dtype=pl.Categorical), pl.Series([None, None])):
        pl.DataFrame({"text": values}).write_parquet(tmp_path / "a.parquet")
        frame = read_plain(tmp_path / "a.parquet")
        assert frame.schema["text"] == pl.String
        assert frame["text"].to_list() == [None if v is None else "a" for v in values.to_list()]
    pl.DataFrame({"text": [b"\xff"]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet: column text holds bytes that are not UTF-8"):
        read_plain(tmp_path / "a.parquet")
