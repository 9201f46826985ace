"""The ingest stage: real files to raw documents, with every record accounted for."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.corpus import encode_table
from pipeline.ingest import Ingest, IngestParams, source_domain
from pipeline.tables import RAW, REJECTS
from tests.pipeline.archives import members, response, warc_record

LONG = b"<p>" + b"A sentence that is long enough to count. " * 20


def stage(*paths: object, **params: object) -> Ingest:
    source = {"kind": "auto", "paths": [str(p) for p in paths]}
    return Ingest(IngestParams.model_validate({"snapshot": "2024-01", "source": source, **params}))


def test_wet_documents_are_those_of_ccnet(shared: Path) -> None:
    ingest = stage(shared / "web/*.warc.wet.gz", shards=2)
    results = [ingest.run(p, {}) for p in ingest.partitions()]
    raw = pa.concat_tables([r.tables["raw"] for r in results])
    assert sum(r.drops["too_short"] for r in results) == 8
    reference = pq.read_table(shared / "ccnet_reference/dedup.parquet", columns=["id", "original_nlines", "original_length"])
    got = {r["record_id"]: r for r in raw.to_pylist()}
    assert list(got) == reference["id"].to_pylist()
    assert [r["original_length"] for r in got.values()] == reference["original_length"].to_pylist()
    assert [r["raw_content"].count("\n") + 1 for r in got.values()] == reference["original_nlines"].to_pylist()
    for row in pq.read_table(shared / "rpv2/documents.parquet").to_pylist():
        document = got[row["id"]]
        assert document["raw_content"][:40_000] == row["raw_content"]
        assert all(document[name] == row[name] for name in ("url", "source_domain", "title", "digest"))


def test_all_text_of_pages_is_what_the_wet_files_hold(shared: Path) -> None:
    extract = {"main_content": False, "time_limit": 0}
    pages = stage(shared / "web/web-002.warc.gz", extract=extract).run("2024-01/0000", {}).tables["raw"].to_pylist()
    rows = stage(shared / "web/web-002.warc.wet.gz").run("2024-01/0000", {}).tables["raw"].to_pylist()
    wet = {r["record_id"]: r for r in rows}
    # Browsers read GB2312 as GBK, which has other dashes than those that these WET files were made with.
    comparable = [("has_title", "=", True), ("charset", "!=", "GB2312")]
    titled = set(pq.read_table(shared / "web/truth.parquet", filters=comparable)["id"].to_pylist())
    compared = 0
    for page in pages:
        other = wet.get(page["record_id"])
        # A byte order mark stays in those WET files, and pushes the title into the text.
        if other and page["record_id"] in titled and "\ufeff" not in other["raw_content"]:
            compared += 1
            assert (page["title"], page["raw_content"], page["url"]) == (other["title"], other["raw_content"], other["url"])
    assert compared > 200


def test_every_record_is_a_row_or_a_counted_reject(tmp_path: Path) -> None:
    path = tmp_path / "mixed.warc.gz"
    path.write_bytes(
        members(
            warc_record("warcinfo", b"a: b", None),
            warc_record("request", b"GET / HTTP/1.1\r\n\r\n"),
            warc_record("response", response(LONG), "http://a.test/0"),
            warc_record("response", response(b"", status="301 Moved"), "http://a.test/1"),
            warc_record("response", response(b"%PDF", "Content-Type: application/pdf"), "http://a.test/2"),
            warc_record("response", response(b"<p>short"), "http://a.test/3"),
            warc_record("revisit", response(b""), "http://a.test/4"),
            warc_record("response", response(LONG, "Content-Type: text/plain"), "http://a.test/5"),
            warc_record("response", response(LONG * 50), "http://a.test/6"),
            warc_record("conversion", b"Title\n" + LONG, "http://a.test/7"),
            warc_record("response", response(LONG), length=10**6),
        )
        + b"trailing junk"
    )
    ingest = stage(path, extract={"main_content": False, "max_bytes": 20_000})
    result = ingest.run("2024-01/0000", {})
    raw = result.tables["raw"]
    assert raw.schema == RAW and result.rejects is not None and result.rejects.schema == REJECTS
    assert raw["record_id"].to_pylist() == ["mixed/0", "mixed/4", "mixed/6"]
    assert raw["title"].to_pylist() == [None, None, "Title"]
    assert result.rows_in == raw.num_rows + sum(result.drops.values()) == 12
    assert result.rejects.num_rows == sum(result.drops.values())
    assert result.drops == {
        "content_type_pdf": 1,
        "http_status_3xx": 1,
        "junk": 1,
        "record_cut": 1,
        "record_type_request": 1,
        "record_type_revisit": 1,
        "record_type_warcinfo": 1,
        "too_large": 1,
        "too_short": 1,
    }
    short = next(r for r in result.rejects.to_pylist() if r["reason"] == "too_short")
    assert (short["record_id"], short["excerpt"]) == ("mixed/3", "short")


def test_shards_are_contiguous_and_take_every_file_once(tmp_path: Path) -> None:
    for n in range(7):
        (tmp_path / f"{n}.warc").write_bytes(b"")
    for shards in (1, 3, 7, 50, None):
        ingest = stage(tmp_path / "*.warc", shards=shards)
        names = ingest.partitions()
        assert names == [f"2024-01/{n:04d}" for n in range(min(shards or 7, 7))]
        assert [f for p in names for f in ingest.shard_files(p)] == [str(tmp_path / f"{n}.warc") for n in range(7)]
    with pytest.raises(ValueError, match="2024-01/0099 is no partition"):
        ingest.shard_files("2024-01/0099")
    with pytest.raises(ValueError, match="no file matches"):
        stage(tmp_path / "*.nothing").partitions()


def test_a_changed_file_changes_the_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.warc"
    path.write_bytes(warc_record("conversion", b"x"))
    before = stage(path).source_digests("2024-01/0000")
    assert before == stage(path).source_digests("2024-01/0000")
    path.write_bytes(warc_record("conversion", b"y"))
    assert before != stage(path).source_digests("2024-01/0000")


def test_a_stage_travels_and_gives_the_same_bytes_elsewhere(shared: Path) -> None:
    ingest = stage(shared / "web/web-004.warc.gz")
    here = ingest.run("2024-01/0000", {})
    there = pickle.loads(pickle.dumps(ingest)).run("2024-01/0000", {})
    plain = stage(shared / "web/web-004.warc.gz", extract={"time_limit": 0}).run("2024-01/0000", {})
    encoded = [encode_table("raw", r.tables["raw"]).to_pybytes() for r in (here, there, plain)]
    assert encoded[0] == encoded[1] == encoded[2]
    assert here.drops == there.drops == plain.drops


def test_memory_does_not_grow_with_html(tmp_path: Path) -> None:
    """Peak of a process that ingests 8 times the HTML (with little text in it) stays within what one part needs."""
    block = response(b"<html><!--" + bytes(range(32, 127)) * 20_000 + b"--><p>" + b"little text " * 50)
    peaks = []
    for copies in (20, 160):
        path = tmp_path / f"{copies}.warc.gz"
        one = members(warc_record("response", block))
        path.write_bytes(one * copies)
        code = (
            "import resource, sys; from pipeline.ingest import Ingest, IngestParams\n"
            f"s = Ingest(IngestParams.model_validate(dict(snapshot='x', source=dict(kind='warc', paths=[{str(path)!r}]))))\n"
            f"assert s.run('x/0000', {{}}).tables['raw'].num_rows == {copies}\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        peaks.append(int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout))
    assert peaks[1] - peaks[0] < 50_000, f"KiB: {peaks}; the pages are {160 * len(block) >> 10} KiB"


@pytest.mark.parametrize(
    "url",
    [
        "http://www.a.test:80/x",
        "https://a.test",
        "HTTP://A.test/",
        "http://u:p@a.test/",
        "http://[::1]/x",
        "ftp://a/",
        "",
        "a b",
        "http://a/\n",
        "http://a?b",
    ],
)
def test_domains_are_those_of_urlparse(url: str) -> None:
    from urllib.parse import urlparse

    assert source_domain(url) == urlparse(url).netloc
    assert source_domain("http://[broken/") == "" and source_domain(None) is None
