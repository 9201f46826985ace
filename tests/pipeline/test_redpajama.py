"""RedPajama-V2 as published: its ids, texts and signals come through unchanged, and what it lacks is counted."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import tables
from pipeline.corpus import Corpus
from pipeline.ingest_redpajama import IngestRedPajama, IngestRedPajamaParams
from pipeline.sources.common_crawl import DownloadParams
from pipeline.sources.record import Document, Reject
from pipeline.sources.redpajama import RedPajamaParams
from pipeline.sources.redpajama_signals import SIGNALS, published_schema
from pipeline.sources.registry import open_source
from pipeline.stage import StageResult

BASE = "2023-06/0000/en_head"


def record(n: int, text: str | None = None) -> dict[str, Any]:
    """A document with CCNet's fields."""
    text = f"Line one of {n}.\nLine two\n" if text is None else text
    return {
        "url": f"http://www.example.org/{n}",
        "date_download": "2023-01-27T21:38:46Z",
        "digest": f"sha1:{n:032d}",
        "length": len(text),
        "nlines": 2,
        "source_domain": "www.example.org",
        "title": f"Title {n}",
        "raw_content": text,
        "cc_segment": "crawl-data/CC-MAIN-2023-06/x.warc.wet.gz",
        "original_nlines": 5,
        "original_length": 500,
        "line_ids": [1, 3],
        "language": "en",
        "language_score": 0.97,
        "perplexity": 301.5,
        "bucket": "head",
    }


def signals(n: int, base: str = BASE, row: int | None = None) -> dict[str, Any]:
    """The published signals of `record(n)`."""
    length = len(record(n)["raw_content"])
    first = length - 9
    values: dict[str, Any] = {
        name: [[0, first, float(n)], [first, length, 0.5]] if name.startswith("rps_lines_") else [[0, length, n + i / 100]]
        for i, name in enumerate(SIGNALS)
    }
    values["rps_doc_ml_wikipedia_score"] = [[0, length, None]]
    identifier = f"{base}.json.gz/{n if row is None else row}"
    return {
        "id": identifier,
        "id_int": tables.id_int(identifier),
        "metadata": {"url": record(n)["url"], "language": "en", "snapshot_id": "2023-06"},
        "quality_signals": values,
    }


def pack(rows: list[Any]) -> bytes:
    return gzip.compress(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))


Publish = Callable[..., Path]


@pytest.fixture
def publish(tmp_path: Path) -> Publish:
    """Write one partition of a release; a component that is None is missing."""

    def write(
        documents: list[Any] | bytes | None,
        quality: list[Any] | bytes | None = None,
        duplicates: list[str] | bytes | None = None,
        base: str = BASE,
    ) -> Path:
        root = tmp_path / "release"
        for folder, ending, content in (("documents", ".json.gz", documents), ("quality_signals", ".signals.json.gz", quality)):
            if content is not None:
                path = root / folder / f"{base}{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content if isinstance(content, bytes) else pack(content))
        if duplicates is not None:
            path = root / "duplicates" / f"{base}.duplicates.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(duplicates, bytes):
                path.write_bytes(duplicates)
            else:
                columns = {
                    "shard_id": [f"{base}.json.gz"] * len(duplicates),
                    "doc_id": duplicates,
                    "digest": ["d"] * len(duplicates),
                }
                pq.write_table(pa.table(columns), path)
        return root

    return write


def stage(root: Path, **options: Any) -> IngestRedPajama:
    return IngestRedPajama(IngestRedPajamaParams(source=RedPajamaParams(url=str(root)), **options))


def ingest(root: Path, **options: Any) -> StageResult:
    result = stage(root, **options).run(BASE, {})
    documents, values = result.tables["documents"], result.tables["signals"]
    assert documents.schema.equals(tables.DOCUMENTS) and values.schema.equals(published_schema())
    assert documents["id"].equals(values["id"])
    assert result.rows_in == documents.num_rows + sum(result.drops.values())
    assert result.rejects is not None and result.rejects.num_rows == sum(result.drops.values())
    return result


def test_a_partition_comes_through_unchanged(publish: Publish) -> None:
    count = 5
    root = publish([record(n) for n in range(count)], [signals(n) for n in range(count)], [f"{BASE}.json.gz/3"])
    assert stage(root).partitions() == [BASE]
    result = ingest(root)
    assert result.drops == {} and not any(result.metrics.values())
    assert result.tables["documents"]["id_int"][0].as_py() == 13812950656272331291  # RedPajama-V2's own
    for n, (document, row) in enumerate(
        zip(result.tables["documents"].to_pylist(), result.tables["signals"].to_pylist(), strict=True)
    ):
        identity = {"id": f"{BASE}.json.gz/{n}", "id_int": signals(n)["id_int"], "record_id": f"{BASE}/{n}"}
        assert document == record(n) | identity
        told = signals(n)["quality_signals"]
        for name in SIGNALS:
            lines = name.startswith("rps_lines_")
            assert row[name] == ([s for _, _, s in told[name]] if lines else told[name][0][2]), name
        first = told["rps_lines_num_words"][0][1]
        assert (row["line_start"], row["line_end"]) == ([0, first], [first, first + 9])
        assert row["is_duplicate"] is (n == 3)


def test_the_tables_make_an_aligned_corpus(publish: Publish, tmp_path: Path) -> None:
    result = ingest(publish([record(n) for n in range(4)], [signals(n) for n in range(3)]))
    corpus = Corpus(str(tmp_path / "corpus"))
    for name, table in result.tables.items():
        corpus.write(str(name), BASE, table)
    frame = corpus.scan("documents", "signals").select("id", "title", "rps_doc_word_count", "rps_lines_num_words").collect()
    assert frame["rps_doc_word_count"].is_null().to_list() == [False] * 3 + [True]


def test_rpv2s_own_signals_survive_the_round_trip(publish: Publish, shared: Path) -> None:
    documents = pq.read_table(shared / "rpv2" / "documents.parquet").to_pylist()[:120]
    golden = {row["id"]: row for row in pq.read_table(shared / "rpv2" / "signals.parquet").to_pylist()}
    published, expected = [], []
    for n, document in enumerate(documents):
        row = golden[document["id"]]
        length, spans = len(document["raw_content"]), list(zip(row["line_start"], row["line_end"], strict=True))
        values = {
            name: [[*span, score] for span, score in zip(spans, row[name], strict=True)]
            if name.startswith("rps_lines_")
            else [[0, length, row[name]]]
            for name in row
            if name not in ("id", "line_start", "line_end")
        }
        identifier = f"{BASE}.json.gz/{n}"
        published.append({"id": identifier, "metadata": {"url": document["url"]}, "quality_signals": values})
        expected.append(
            {**{name: row[name] for name in (*SIGNALS, "line_start", "line_end")}, "id": identifier, "is_duplicate": None}
        )
    keys = ("url", "source_domain", "title", "digest", "raw_content", "language", "language_score")
    root = publish([{key: document[key] for key in keys} for document in documents], published)
    result = ingest(root)
    assert result.drops == {} and result.metrics["unusable_signals"] == {}
    assert result.metrics["unknown_signals"] == sorted(
        name for name in golden[documents[0]["id"]] if name.endswith("_correction")
    )
    assert result.tables["signals"].to_pylist() == expected
    assert result.tables["documents"]["raw_content"].to_pylist() == [document["raw_content"] for document in documents]


def test_missing_components_are_counted_and_lose_no_document(publish: Publish) -> None:
    result = ingest(publish([record(n) for n in range(3)]))
    assert result.tables["documents"].num_rows == 3 and result.drops == {}
    assert result.metrics["missing_signals_files"] == result.metrics["missing_duplicates_files"] == 1
    assert result.metrics["documents_without_signals"] == 3
    values = result.tables["signals"].drop_columns("id")
    assert all(column.null_count == 3 for column in values.columns)


def test_missing_documents_are_one_counted_loss(publish: Publish) -> None:
    result = ingest(publish(None, [signals(0)]))
    assert result.rows_in == 1 and result.drops == {"missing_file": 1}


def test_damaged_components_are_counted_and_lose_no_document(publish: Publish) -> None:
    whole = pack([signals(n) for n in range(200)])
    result = ingest(publish([record(n) for n in range(200)], whole[: len(whole) // 2], b"no parquet"))
    assert result.tables["documents"].num_rows == 200 and result.drops == {}
    assert result.metrics["unusable_signals"] == {"truncated": 1} and result.metrics["damaged_duplicates_files"] == 1
    assert 0 < result.metrics["documents_without_signals"] < 200


def test_a_damaged_documents_file_keeps_ids_and_signals_of_the_rest(publish: Publish) -> None:
    rows: list[Any] = [record(n) for n in range(6)]
    rows[1] = b'{"url": "http://www.exa'
    rows[2] = {**record(2), "nlines": "many"}
    rows[3] = {k: v for k, v in record(3).items() if k != "raw_content"}
    result = ingest(publish(rows, [signals(n) for n in range(6)]))
    assert result.drops == {"bad_field": 1, "bad_json": 1, "no_text": 1}
    assert result.tables["documents"]["id"].to_pylist() == [f"{BASE}.json.gz/{n}" for n in (0, 4, 5)]
    assert result.tables["signals"]["ccnet_bucket"].to_pylist() == [0.0, 4.0, 5.0]
    assert result.rejects is not None and result.rejects["record_id"].to_pylist() == [f"{BASE}/{n}" for n in (1, 2, 3)]


def test_a_row_with_the_signals_of_another_document_is_dropped(publish: Publish) -> None:
    shifted = [signals(n + 1, row=n) for n in range(3)] + [signals(3), signals(9)]
    result = ingest(publish([record(n) for n in range(4)], shifted))
    assert result.drops == {"signals_mismatch": 3} and result.tables["documents"]["id"].to_pylist() == [f"{BASE}.json.gz/3"]
    assert result.metrics["signals_without_document"] == 1


def test_signals_of_another_file_are_one_clear_error(publish: Publish) -> None:
    root = publish([record(0)], [signals(0, base="2023-06/0001/en_head")])
    with pytest.raises(
        ValueError, match=r"en_head\.signals\.json\.gz, line 1, has signals of 2023-06/0001/en_head\.json\.gz/0"
    ) as told:
        ingest(root)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "change",
    [
        {"rps_doc_word_count": [[0, 5, "many"]]},
        {"rps_doc_word_count": []},
        {"rps_doc_word_count": 5},
        {"rps_lines_num_words": [[0, 5, 1.0]]},
        {"rps_lines_num_words": [[0, 5]]},
        {"rps_lines_num_words": [["0", 5, 1.0]]},
    ],
)
def test_signals_of_another_shape_are_counted(publish: Publish, change: dict[str, Any]) -> None:
    row = signals(0)
    row["quality_signals"].update(change)
    result = ingest(publish([record(0), record(1)], [row, signals(1)]))
    assert result.metrics["unusable_signals"] == {"bad_signal": 1} and result.metrics["documents_without_signals"] == 1
    assert result.tables["signals"]["ccnet_bucket"].to_pylist() == [None, 1.0]


def test_a_text_without_lines_has_empty_lists(publish: Publish) -> None:
    values: dict[str, Any] = {name: [] for name in SIGNALS if name.startswith("rps_lines_")}
    values["rps_lines_start_with_bulletpoint"] = [[0, 0, None]]  # so does the release's code
    row = {"id": f"{BASE}.json.gz/0", "quality_signals": values}
    (got,) = ingest(publish([record(0, text="")], [row])).tables["signals"].to_pylist()
    assert got.pop("rps_lines_start_with_bulletpoint") == [None]
    assert all(got[name] == [] for name in values if name in got) and got["line_start"] == []


def test_published_duplicates_may_be_dropped(publish: Publish) -> None:
    root = publish([record(n) for n in range(4)], [signals(n) for n in range(4)], [f"{BASE}.json.gz/{n}" for n in (1, 2)])
    result = ingest(root, duplicates="drop")
    assert result.drops == {"exact_duplicate": 2}
    assert result.tables["signals"]["is_duplicate"].to_pylist() == [False, False]


def test_documents_without_signals_may_be_dropped(publish: Publish) -> None:
    result = ingest(publish([record(n) for n in range(4)], [signals(n) for n in range(2)]), require_signals=True)
    assert result.drops == {"no_signals": 2} and result.tables["documents"].num_rows == 2


def test_partitions_are_chosen_by_snapshot_language_bucket_and_shard(publish: Publish) -> None:
    bases = ["2023-06/0000/en_head", "2023-06/0001/de_middle", "2023-06/0002/en_tail", "2022-49/0000/en_head"]
    for base in bases:
        root = publish([record(0)], base=base)
    (root / "documents" / "notes.json.gz").write_bytes(b"")

    def chosen(**choice: Any) -> list[str]:
        return RedPajamaParams(url=str(root), **choice).bases()

    assert chosen() == ["2022-49/0000/en_head", "2023-06/0000/en_head", "2023-06/0001/de_middle"]
    assert chosen(snapshots=["2023-06"], languages=["en"], buckets=["head", "tail"]) == [bases[0], bases[2]]
    assert chosen(shards=[1, 2]) == [bases[1]]
    with pytest.raises(ValueError, match=r"has no documents/.*snapshots of any name, languages fr"):
        chosen(languages=["fr"])


def test_the_fingerprint_knows_what_is_missing(publish: Publish) -> None:
    root = publish([record(0)])
    before = stage(root).source_digests(BASE)
    assert sum(digest == "missing" for digest in before.values()) == 2
    publish([record(0)], [signals(0)])
    after = stage(root).source_digests(BASE)
    assert sum(digest == "missing" for digest in after.values()) == 1
    assert {k for k in before if before[k] != after[k]} == {f"quality_signals/{BASE}.signals.json.gz"}


def test_the_release_is_read_from_the_web(publish: Publish, crawl_server: Any, act: Any, tmp_path: Path) -> None:
    other = "2023-06/0001/en_middle"
    root = publish([record(n) for n in range(50)], [signals(n) for n in range(50)], [f"{BASE}.json.gz/1"])
    crawl_server.files.update({str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()})
    crawl_server.files["listings/en-2023-06-head_middle.txt"] = f"{BASE}\n{other}\n".encode()
    crawl_server.script[f"documents/{BASE}.json.gz"] = [act(status=503), act(cut=1000)]
    download = DownloadParams(cache=str(tmp_path / "cache"), backoff=0.01)
    source = RedPajamaParams(url=crawl_server.url, snapshots=("2023-06",), languages=("en",), download=download)
    web = IngestRedPajama(IngestRedPajamaParams(source=source))
    assert web.partitions() == [BASE, other]
    assert web.run(BASE, {}).tables == stage(root).run(BASE, {}).tables
    assert web.run(other, {}).drops == {"missing_file": 1}  # the release lacks some of what it lists
    with pytest.raises(ValueError, match=r"listings/de-2023-06-head_middle\.txt is not there"):
        source.model_copy(update={"languages": ("de",)}).bases()
    with pytest.raises(ValueError, match="name the snapshots"):
        source.model_copy(update={"snapshots": ()}).bases()


def test_a_listing_of_something_else_is_refused(crawl_server: Any, tmp_path: Path) -> None:
    crawl_server.files["listings/en-2023-06-head_middle.txt"] = b"<html>"
    source = RedPajamaParams(
        url=crawl_server.url, snapshots=("2023-06",), languages=("en",), download=DownloadParams(cache=str(tmp_path))
    )
    with pytest.raises(ValueError, match="line 1: '<html>' is not <snapshot>"):
        source.bases()


def test_texts_alone_are_a_source_like_any_other(publish: Publish) -> None:
    root = publish([record(0), b"broken", record(2)])
    files, source = open_source(RedPajamaParams(url=str(root)))
    assert files == [f"{root}/documents/{BASE}.json.gz"]
    one, bad, two = source.read(files[0])
    assert isinstance(one, Document) and isinstance(bad, Reject) and isinstance(two, Document)
    assert [one.record_id, bad.record_id, two.record_id] == [f"{BASE}/{n}" for n in range(3)]
    assert (one.text, one.title, one.segment) == (record(0)["raw_content"], "Title 0", record(0)["cc_segment"])
    assert bad.reason == "bad_json"
