"""A corpus in a bucket, on a real server that speaks S3 over HTTP (moto's). docs/corpus.md says what this does not show."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import boto3
import polars as pl
import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from pipeline.corpus import Corpus
from pipeline.receipt import Output, Receipt
from pipeline.sources.jsonl import JsonlParams, JsonlSource
from pipeline.sources.parquet import ParquetSource
from pipeline.storage import Storage, join_url
from pipeline.tables import identify

EN, DE = "2023-06/0000/en_head", "2023-06/0000/de_head"
PART = 10 << 20  # pyarrow uploads larger files in parts of this size


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """host:port of an S3 server with an empty bucket `crawl`."""
    server_module = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        server = server_module.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        address = "{}:{}".format(*server.get_host_and_port())
        s3 = pafs.S3FileSystem(endpoint_override=address, scheme="http", allow_bucket_creation=True)
        s3.create_dir("crawl")
        yield address
        server.stop()


@pytest.fixture
def url(endpoint: str, request: pytest.FixtureRequest) -> str:
    """A fresh folder in the bucket."""
    return f"s3://crawl/{request.node.name}/corpus?endpoint_override={endpoint}&scheme=http"


def table(partition: str, rows: int, **columns: list[int]) -> pa.Table:
    return pa.table({"id": identify(partition, rows)[0], **columns})


def test_a_table_comes_back_as_it_was_written(url: str) -> None:
    corpus = Corpus(url)
    content = table(EN, 40_000, x=list(range(40_000)))
    written = corpus.write("documents", EN, content)
    assert Corpus(url).read("documents", EN).equals(content)
    assert corpus.read("documents", EN, ["x"]).column_names == ["x"]
    assert corpus.partitions("documents") == [EN]
    assert corpus.storage.local is None and corpus.storage.size(written.path) == written.bytes
    assert corpus.storage.digest(written.path) == written.digest


def test_a_scan_joins_aligned_tables(url: str) -> None:
    corpus = Corpus(url)
    for partition in (DE, EN):
        corpus.write("documents", partition, table(partition, 20_000, x=list(range(20_000))))
        corpus.write("signals", partition, table(partition, 20_000, y=list(range(20_000))))
    frame = corpus.scan("documents", "signals")
    assert frame.select(pl.len()).collect().item() == 40_000
    got = frame.filter(pl.col("x") == 17_000).select("partition", "id", "y").collect()
    assert got.rows() == [(p, f"{p}.json.gz/17000", 17_000) for p in (DE, EN)]
    corpus.write("signals", EN, table(EN, 19_999, y=list(range(19_999))))
    with pytest.raises(ValueError, match=r"documents/.*\(20000 rows\) and .*signals/.*\(19999 rows\) hold different documents"):
        corpus.scan("documents", "signals")


def test_receipts_and_their_outputs(url: str) -> None:
    corpus = Corpus(url)
    written = corpus.write("documents", EN, table(EN, 3))
    receipt = Receipt("mine", "2023-06/0000", "f", 3, 3, {}, {written.path: Output(written.digest, written.bytes, 3)})
    assert corpus.receipt("mine", "2023-06/0000") is None and list(corpus.receipts("mine")) == []
    corpus.write_receipt(receipt)
    assert corpus.receipt("mine", "2023-06/0000") == receipt and list(corpus.receipts("mine")) == [receipt]
    assert corpus.intact(receipt)
    corpus.storage.delete(written.path)
    corpus.storage.delete(written.path)
    assert not corpus.intact(receipt)
    corpus.forget(receipt)
    assert corpus.storage.files("") == [] and corpus.partitions("documents") == []


def test_messages_name_the_file_and_not_half_a_query(url: str) -> None:
    with pytest.raises(ValueError) as told:
        Corpus(url).read("documents", EN)
    folder, query = url.split("?")
    assert str(told.value) == f"{folder}/documents/{EN}.parquet?{query} is missing: build the stage that writes documents"


def test_a_damaged_file_is_one_clear_line(url: str) -> None:
    corpus = Corpus(url)
    corpus.storage.write(corpus.path("documents", EN), b"<html>")
    with pytest.raises(ValueError, match="cannot be read") as told:
        corpus.read("documents", EN)
    assert "\n" not in str(told.value)


def test_an_unknown_bucket_says_so(endpoint: str) -> None:
    storage = Storage(f"s3://none/x?endpoint_override={endpoint}&scheme=http")
    assert storage.files("documents") == []
    with pytest.raises(OSError, match="bucket does not exist"):
        storage.write("a", b"x")


def test_large_files_go_up_in_parts_and_small_ones_in_one_request(url: str, endpoint: str) -> None:
    storage = Storage(url)
    for name, size in (("small.bin", 1000), ("large.gz", 2 * PART + 17)):
        content = bytes(range(251)) * (size // 251 + 1)
        written = storage.write(name, content)
        assert storage.read(name) == content and storage.digest(name) == written.digest
    client = boto3.client("s3", endpoint_url=f"http://{endpoint}")
    keys = {name: storage.absolute(name).removeprefix("crawl/") for name in ("small.bin", "large.gz")}
    tags = {name: client.head_object(Bucket="crawl", Key=key)["ETag"].strip('"') for name, key in keys.items()}
    assert "-" not in tags["small.bin"] and tags["large.gz"].endswith("-3")  # S3 marks the number of parts


def test_an_upload_that_was_not_completed_is_not_visible(url: str) -> None:
    storage = Storage(url)
    storage.write("a.bin", b"old")
    stream = storage.filesystem.open_output_stream(storage.absolute("a.bin"), compression=None)
    stream.write(bytes(2 * PART))
    assert storage.read("a.bin") == b"old" and storage.files("") == ["a.bin"]
    stream.close()
    assert storage.size("a.bin") == 2 * PART


def test_resource_files_are_fetched_whole(url: str, tmp_path: Path) -> None:
    storage = Storage(url)
    storage.write("global/models/lm.bin", b"model")
    assert storage.fetch("global/models/lm.bin", tmp_path).read_bytes() == b"model"
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["lm.bin"]


def test_sources_read_from_a_bucket(url: str) -> None:
    storage = Storage(url)
    storage.write("in/a.jsonl", b'{"text": "one"}\n{"text": "two"}\n')
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(pa.table({"text": ["three"]}), sink)
    storage.write("in/b.parquet", sink.getvalue())
    rows = [*JsonlSource().read(join_url(url, "in/a.jsonl")), *ParquetSource().read(join_url(url, "in/b.parquet"))]
    assert [(row.record_id, getattr(row, "text", None)) for row in rows] == [("a/0", "one"), ("a/1", "two"), ("b/0", "three")]


def test_the_endpoint_may_come_from_the_environment(url: str, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Corpus(url).write("documents", EN, table(EN, 3))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{endpoint}")
    plain = Corpus(url.split("?")[0])
    assert plain.read("documents", EN).num_rows == 3
    Storage(plain.url).write("in/a.jsonl", b'{"text": "one"}\n')
    params = JsonlParams(paths=(f"{plain.url}/in/*.jsonl",))
    (file,) = params.files()
    before = params.identity(file)
    assert file == f"{plain.url}/in/a.jsonl" and before == params.identity(file)
    Storage(plain.url).write("in/a.jsonl", b'{"text": "one more"}\n')
    assert params.identity(file) != before
