"""JSON lines: every line comes out once, as a document or with the reason why not, whatever the file has been through."""

from __future__ import annotations

import gzip
import io
import json
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.fields import Fields
from pipeline.sources.jsonl import JsonlParams, JsonlSource, read_json
from pipeline.sources.lines import Fault, Line, LineLimits, split_lines
from pipeline.sources.parameters import Limits
from pipeline.sources.record import Document, Reject

PACKERS = {"plain": bytes, "gz": gzip.compress, "zst": zstandard.ZstdCompressor(write_checksum=True).compress}


def reasons(rows: list[Document | Reject]) -> Counter[str]:
    return Counter(row.reason if isinstance(row, Reject) else "document" for row in rows)


def read(path: Path, content: bytes, source: JsonlSource | None = None) -> list[Document | Reject]:
    path.write_bytes(content)
    return list((source or JsonlSource()).read(str(path)))


def lines_of(content: bytes, limits: LineLimits | None = None) -> list[Line | Fault]:
    return list(split_lines(io.BytesIO(content), limits or LineLimits()))


@pytest.mark.parametrize("form", PACKERS)
def test_fields_come_from_where_ccnet_and_its_wrappers_have_them(tmp_path: Path, form: str) -> None:
    flat = {"url": "http://a.org/x", "date_download": "2023-01-27T21:38:46Z", "digest": "sha1:A", "title": "T"}
    wrapped = {"id": "7", "text": "two", "metadata": {**flat, "cc_segment": "seg", "original_length": 99}}
    content = "\n".join(json.dumps(r) for r in ({**flat, "raw_content": "einé"}, wrapped, {"text": "three"})).encode()
    one, two, three = read(tmp_path / f"0000.json.{form}", PACKERS[form](content))
    assert one == Document("0000/0", "http://a.org/x", flat["date_download"], "sha1:A", f"0000.json.{form}", 5, "T", "einé")
    assert two == Document("0000/1", "http://a.org/x", flat["date_download"], "sha1:A", "seg", 99, "T", "two")
    assert three == Document("0000/2", None, None, None, f"0000.json.{form}", 5, None, "three")


def test_real_ccnet_output_and_its_wrapper_give_the_same_documents(shared: Path) -> None:
    source = JsonlSource()
    head = list(source.read(str(shared / "ccnet" / "head.json.gz")))
    wrapped = list(source.read(str(shared / "ccnet" / "000.json.gz")))
    assert reasons(head) == {"document": 30} and reasons(wrapped) == {"document": 10}
    for one, other in zip(head[:10], wrapped, strict=True):
        assert isinstance(one, Document) and isinstance(other, Document)
        assert (one.text, one.url, one.date, one.digest, one.title, one.segment, one.original_length) == (
            other.text,
            other.url,
            other.date,
            other.digest,
            other.title,
            other.segment,
            other.original_length,
        )


def test_a_recipe_may_name_other_fields(tmp_path: Path) -> None:
    fields = Fields(text=("body.html.text",), id=("key",), url=(), date=("when",))
    record = {"body": {"html": {"text": "t"}}, "key": 12, "url": "u", "when": 2020}
    (got,) = read(tmp_path / "x.jsonl", json.dumps(record).encode(), JsonlSource(fields))
    assert got == Document("12", None, "2020", None, "x.jsonl", 1, None, "t")


def test_every_bad_line_is_counted_with_its_reason(tmp_path: Path) -> None:
    rows: list[tuple[bytes, str]] = [
        (b'{"text": "good"}', "document"),
        (b'{"text": "cut', "bad_json"),
        (b"[" * 100_000, "bad_json"),
        (b'{"n": ' + b"9" * 5000 + b"}", "bad_json"),
        (b'{"text": "\xff"}', "bad_utf8"),
        (b'{"text": "\\ud800"}', "bad_utf8"),
        (b'["text"]', "not_an_object"),
        (b'{"url": "http://a"}', "no_text"),
        (b'{"text": null}', "no_text"),
        (b'{"text": 5}', "no_text"),
        (b'{"text": " \\n"}', "empty_text"),
        (b'{"text": "t", "url": ["u"]}', "bad_field"),
        (b"x" * 200_000, "too_large"),
        (b'{"text": "end"}', "document"),
    ]
    got = read(tmp_path / "x.jsonl", b"\n\n".join(row for row, _ in rows), JsonlSource(limits=LineLimits(line=150_000)))
    assert [row.reason if isinstance(row, Reject) else "document" for row in got] == [reason for _, reason in rows]
    assert [row.record_id for row in got] == [f"x/{2 * n}" for n in range(len(rows))]
    for row in got:
        assert isinstance(row, Document) or len(row.excerpt or "") <= 2000


def test_a_byte_order_mark_is_no_part_of_the_first_record(tmp_path: Path) -> None:
    assert reasons(read(tmp_path / "x.jsonl", b'\xef\xbb\xbf{"text": "t"}\r\n')) == {"document": 1}


RECORDS = [json.dumps({"text": f"document {n} " + "word " * (n % 50)}).encode() + b"\n" for n in range(400)]


@pytest.mark.parametrize("form", ["gz", "zst"])
@pytest.mark.parametrize("keep", [0, 1, 5, 50, 0.3, 0.9, -1])
def test_a_cut_file_gives_what_is_whole_and_one_reject(tmp_path: Path, form: str, keep: float) -> None:
    packed = PACKERS[form](b"".join(RECORDS))
    cut = packed[: int(keep * len(packed)) if isinstance(keep, float) else keep]
    got = read(tmp_path / f"x.json.{form}", cut)
    if len(cut) == 1:  # too short to be told from text
        assert reasons(got) == {"bad_json": 1}
        return
    assert reasons(got)["truncated"] == 1 and len(got) == reasons(got)["document"] + 1
    assert [d.text for d in got[:-1] if isinstance(d, Document)] == [json.loads(r)["text"] for r in RECORDS[: len(got) - 1]]
    assert keep != 0.9 or form == "zst" or len(got) > 300


def test_a_corrupt_gzip_file_gives_the_good_lines_before(tmp_path: Path) -> None:
    members = [gzip.compress(b"".join(RECORDS[n : n + 100])) for n in range(0, 400, 100)]
    spoiled = bytearray(members[2])
    spoiled[len(spoiled) // 2 :] = random.Random(1).randbytes(len(spoiled) // 2)
    got = read(tmp_path / "x.json.gz", members[0] + members[1] + bytes(spoiled) + members[3])
    assert reasons(got)["corrupt_gzip"] == 1
    texts = [row.text for row in got if isinstance(row, Document)]
    assert texts[:220] == [json.loads(record)["text"] for record in RECORDS[:220]]
    assert len(texts) < 300


def test_a_wrong_checksum_is_told(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b"".join(RECORDS)))
    packed[-8] ^= 1
    assert reasons(read(tmp_path / "x.json.gz", bytes(packed))) == {"document": 400, "corrupt_gzip": 1}


def test_joined_members_and_frames_are_one_file(tmp_path: Path) -> None:
    for form in ("gz", "zst"):
        joined = b"".join(PACKERS[form](record) for record in RECORDS)
        assert reasons(read(tmp_path / f"x.{form}", joined)) == {"document": 400}
    padded = gzip.compress(RECORDS[0]) + bytes(1000) + gzip.compress(RECORDS[1]) + bytes(7)
    assert reasons(read(tmp_path / "y.gz", padded)) == {"document": 2}
    skippable = b"\x50\x2a\x4d\x18\x05\0\0\0hello"
    framed = skippable + PACKERS["zst"](RECORDS[0]) + skippable + PACKERS["zst"](RECORDS[1])
    assert reasons(read(tmp_path / "y.zst", framed)) == {"document": 2}
    assert reasons(read(tmp_path / "z.zst", framed + skippable[:10])) == {"document": 2, "truncated": 1}


def test_what_follows_the_compressed_data_is_told(tmp_path: Path) -> None:
    for form in ("gz", "zst"):
        got = read(tmp_path / f"x.{form}", PACKERS[form](RECORDS[0]) + b"<html>")
        assert reasons(got) == {"document": 1, "trailing_data": 1}


def test_a_server_that_unpacked_what_it_served_does_no_harm(tmp_path: Path) -> None:
    assert reasons(read(tmp_path / "x.json.gz", b"".join(RECORDS))) == {"document": 400}


@pytest.mark.parametrize("form", ["gz", "zst"])
def test_a_decompression_bomb_stops_at_the_limit(tmp_path: Path, form: str) -> None:
    bomb = PACKERS[form](RECORDS[0] + bytes(200 << 20))
    assert len(bomb) < 300_000
    got = read(tmp_path / f"x.{form}", bomb, JsonlSource(limits=LineLimits(line=1 << 20, expanded=50 << 20)))
    assert [row.reason if isinstance(row, Reject) else "document" for row in got] == [
        "document",
        "too_large",
        "decompression_limit",
    ]


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(JsonlSource().read(str(tmp_path / "none.jsonl")))


def test_the_recipe_lists_files_and_opens_them(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_bytes(RECORDS[0])
    params = JsonlParams(paths=(f"{tmp_path}/*.jsonl",))
    assert [Path(f).name for f in params.files()] == ["a.jsonl", "b.jsonl"]
    source = params.open(Limits(max_record_bytes=5))
    assert [reasons(list(source.read(f))) for f in params.files()] == [{"too_large": 1}] * 2
    with pytest.raises(ValueError, match="no file matches"):
        JsonlParams(paths=(f"{tmp_path}/*.none",)).files()


@given(st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), max_size=20), st.sampled_from(list(PACKERS)))
def test_lines_are_those_that_split_gives(rows: list[bytes], form: str) -> None:
    content = b"".join(row + b"\n" for row in rows)
    head = b"plain\n" + content  # so that no random line looks compressed
    got = lines_of(PACKERS[form](head))
    assert [line.content for line in got if isinstance(line, Line)] == head.split(b"\n")[:-1]
    assert not any(isinstance(line, Fault) for line in got)


@given(st.data())
def test_damage_never_raises_and_never_changes_what_came_before(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(["gz", "zst"]))
    packed = bytearray(PACKERS[form](b"".join(RECORDS[:60])))
    position = data.draw(st.integers(0, len(packed) - 1))
    packed[position] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x.{form}"
        path.write_bytes(bytes(packed))
        got: list[Any] = list(read_json(str(path), "x", LineLimits(expanded=1 << 24)))
    fatal = [row for row in got if isinstance(row, Reject)]
    whole = [row.value for row in got if not isinstance(row, Reject)]
    # Either the damage is told, or it hit a byte that carries no content (a gzip header's time, say).
    assert fatal or whole == [json.loads(r) for r in RECORDS[:60]]
