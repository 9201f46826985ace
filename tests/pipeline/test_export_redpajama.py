"""A corpus in RedPajama-V2's layout is read back as what it was, and has the release's names, schemas and values."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipeline import tables
from pipeline.corpus import Corpus
from pipeline.export_redpajama import export_redpajama
from pipeline.ingest_redpajama import IngestRedPajama, IngestRedPajamaParams
from pipeline.minhash import BANDS, MinHash
from pipeline.sources.redpajama import RedPajamaParams
from pipeline.sources.redpajama_signals import SIGNALS, published_schema
from quality.annotate import annotate
from quality.registry import select
from workflows.cli import menagerie

BASE = "2023-06/0000/en_head"
TEXTS = [
    "One line of text, and no more.",
    "",
    "• bullet\n\nTwo of them!\n" + "many words " * 20,
    "naïve – 漢字 \U0001f600\r\n…",
    "x",
]


def documents(texts: list[str]) -> pa.Table:
    ids, id_ints = tables.identify(BASE, len(texts))
    rows = [
        {
            "url": f"http://www.example.org/{i}",
            "digest": f"sha1:{i:032d}",
            "length": len(text),
            "nlines": text.count("\n") + 1,
            "source_domain": "www.example.org",
            "raw_content": text,
            "line_ids": [0, i],
            "language": "en",
            "language_score": 0.5 + i / 100,
            "perplexity": None if i == 1 else 300.5,
            "bucket": "head",
            "id": identifier,
            "id_int": id_int,
            "record_id": f"{BASE}/{i}",
        }
        for i, (text, identifier, id_int) in enumerate(zip(texts, ids.to_pylist(), id_ints.to_pylist(), strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=tables.DOCUMENTS)


def duplicates(table: pa.Table, of: dict[int, int]) -> pa.Table:
    ids = table["id"].to_pylist()
    levels = [{f"cluster_sim{level}": None, f"keep_sim{level}": True} for level in tables.SIMILARITIES]
    rows = [{"id": i, "exact_of": ids[of[n]] if n in of else None} for n, i in enumerate(ids)]
    return pa.Table.from_pylist([row | {k: v for d in levels for k, v in d.items()} for row in rows], schema=tables.DUPLICATES)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    made, table = Corpus(str(tmp_path / "corpus")), documents(TEXTS)
    told = annotate(table, select([*SIGNALS, "rps_doc_wikipedia_importance_length_correction"]), MinHash())
    for name, content in {"documents": table, "signals": told.signals, "minhash": told.minhash}.items():
        made.write(name, BASE, content)
    made.write("duplicates", BASE, duplicates(table, {4: 0}))
    return made


def unpacked(path: Path) -> list[bytes]:
    return gzip.decompress(path.read_bytes()).splitlines()


def read_back(folder: Path) -> dict[str, pa.Table]:
    stage = IngestRedPajama(IngestRedPajamaParams(source=RedPajamaParams(url=str(folder)), signatures=True))
    assert stage.partitions() == [BASE] and stage.output_tables() == ("documents", "signals", "minhash")
    result = stage.run(BASE, {})
    assert result.drops == {} and result.metrics["unusable_signals"] == {} and result.metrics["unknown_signals"] == []
    assert {key: value for key, value in result.metrics.items() if key.startswith(("missing", "damaged")) and value} == {}
    return {str(name): table for name, table in result.tables.items()}


def test_a_round_trip_changes_nothing(corpus: Corpus, tmp_path: Path) -> None:
    ((partition, told),) = export_redpajama(corpus, str(tmp_path / "out"))
    assert (partition, told.documents, told.signals, told.signatures, told.duplicates) == (BASE, 5, 5, 1, 1)
    assert told.left_out == ["rps_doc_wikipedia_importance_length_correction"]
    back = read_back(tmp_path / "out")
    assert back["documents"].equals(corpus.read("documents", BASE))
    assert back["minhash"].equals(corpus.read("minhash", BASE))
    signals = corpus.read("signals", BASE)
    for name in (*SIGNALS, "line_start", "line_end"):
        assert back["signals"][name].to_pylist() == signals[name].to_pylist(), name
    assert back["signals"]["is_duplicate"].to_pylist() == [False, False, False, False, True]
    # What was read back is written the same again.
    again = Corpus(str(tmp_path / "again"))
    for name, table in back.items():
        again.write(name, BASE, table)
    list(export_redpajama(again, str(tmp_path / "twice")))
    files = sorted(p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert [(tmp_path / "twice" / f).read_bytes() for f in files] == [(tmp_path / "out" / f).read_bytes() for f in files]
    assert len(files) == 5


def test_the_bucket_of_a_corpus_without_perplexity_is_read_back(corpus: Corpus, tmp_path: Path) -> None:
    plain = Corpus(str(tmp_path / "plain"))
    plain.write("documents", "2023-06/0000/en_all", corpus.read("documents", BASE))
    list(export_redpajama(plain, str(tmp_path / "out")))
    url = str(tmp_path / "out")
    with pytest.raises(ValueError, match=r"; there are snapshots 2023-06; languages en; buckets all$"):
        RedPajamaParams(url=url).bases()
    assert RedPajamaParams(url=url, buckets=("all",)).bases() == ["2023-06/0000/en_all"]


def test_the_golden_signals_survive_the_round_trip(shared: Path, tmp_path: Path) -> None:
    golden = pq.read_table(shared / "rpv2" / "signals.parquet").slice(0, 100)
    texts = pq.read_table(shared / "rpv2" / "documents.parquet")["raw_content"].slice(0, 100).to_pylist()
    table, made = documents(texts), Corpus(str(tmp_path / "corpus"))
    schema = published_schema()
    columns = [golden[f.name].cast(f.type) if f.name in golden.column_names else pa.nulls(len(texts), f.type) for f in schema]
    made.write("documents", BASE, table)
    made.write("signals", BASE, pa.Table.from_arrays([table["id"], *columns[1:]], schema=schema))
    made.write("duplicates", BASE, duplicates(table, {}))
    list(export_redpajama(made, str(tmp_path / "out")))
    stage = IngestRedPajama(IngestRedPajamaParams(source=RedPajamaParams(url=str(tmp_path / "out"))))
    back = stage.run(BASE, {}).tables["signals"]
    assert back.drop(["is_duplicate"]).equals(made.read("signals", BASE).drop(["is_duplicate"]))
    assert back["is_duplicate"].to_pylist() == [False] * len(texts)


def test_the_files_are_those_of_the_release(corpus: Corpus, tmp_path: Path) -> None:
    out = tmp_path / "out"
    list(export_redpajama(corpus, str(out)))
    rows = [json.loads(line) for line in unpacked(out / "documents" / f"{BASE}.json.gz")]
    names = [f.name for f in tables.DOCUMENTS if f.name not in ("id", "id_int", "record_id")]
    assert list(rows[0]) == [name for name in names if rows[0].get(name) is not None]
    assert "perplexity" not in rows[1] and rows[2]["raw_content"] == TEXTS[2]
    record: dict[str, Any] = json.loads(unpacked(out / "quality_signals" / f"{BASE}.signals.json.gz")[0])
    assert list(record) == ["id", "id_int", "metadata", "quality_signals"]
    assert list(record["metadata"]) == ["cc_segment", "cc_net_source", "url", "source_domain", "language", "snapshot_id"]
    assert record["id"] == f"{BASE}.json.gz/0" and record["id_int"] == 13812950656272331291
    assert record["metadata"]["cc_net_source"] == f"{BASE}.json.gz" and record["metadata"]["snapshot_id"] == "2023-06"
    assert list(record["quality_signals"]) == list(SIGNALS)
    assert record["quality_signals"]["rps_doc_word_count"] == [[0, len(TEXTS[0]), 7.0]]
    assert record["quality_signals"]["rps_lines_num_words"] == [[0, len(TEXTS[0]), 7.0]]
    signatures = pq.read_table(out / "minhash" / f"{BASE}.minhash.parquet")
    assert [(f.name, str(f.type)) for f in signatures.schema] == [
        ("shard_id", "string"),
        ("id", "string"),
        ("id_int", "uint64"),
        *((f"signature_sim{level}", "list<element: binary>") for level in BANDS),
    ]
    listed = pq.read_table(out / "duplicates" / f"{BASE}.duplicates.parquet").to_pylist()
    assert listed == [{"shard_id": f"{BASE}.json.gz", "doc_id": f"{BASE}.json.gz/4", "digest": f"{4:032d}"}]
    assert (out / "listings" / "en-2023-06-head_middle.txt").read_text() == f"{BASE}\n"


def test_a_listing_names_what_an_earlier_export_left(corpus: Corpus, tmp_path: Path) -> None:
    second = "2023-06/0001/en_middle"
    corpus.write("documents", second, corpus.read("documents", BASE))
    for pattern in ("*/0000/*", "*/0001/*"):
        list(export_redpajama(corpus, str(tmp_path / "out"), pattern))
    assert (tmp_path / "out" / "listings" / "en-2023-06-head_middle.txt").read_text() == f"{BASE}\n{second}\n"


def test_the_command_says_what_it_wrote_and_what_it_lacks(corpus: Corpus, tmp_path: Path) -> None:
    run = CliRunner().invoke
    corpus.storage.delete(corpus.path("minhash", BASE))
    done = run(menagerie, ["export", corpus.url, "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "1 partitions, 5 documents, 5 with signals, 0 signed, 1 exact duplicates" in done.output
    assert "the corpus has no minhash" in done.output
    assert "in no file: rps_doc_wikipedia_importance_length_correction" in done.output
    refused = run(menagerie, ["export", str(tmp_path / "nothing"), "-o", str(tmp_path / "out")])
    assert "has no partition of documents" in str(refused.exception)


def test_a_corpus_is_not_exported_into_itself(corpus: Corpus) -> None:
    with pytest.raises(ValueError, match=r"is the corpus itself, .*: write to another folder"):
        next(export_redpajama(corpus, f"{corpus.url}/../corpus/"))


def test_partitions_of_another_form_are_refused(tmp_path: Path) -> None:
    made = Corpus(str(tmp_path / "corpus"))
    made.write("documents", "part-0", documents(["a"]))
    with pytest.raises(ValueError, match="partition part-0 is not named <snapshot>/<shard>/<language>_<bucket>"):
        list(export_redpajama(made, str(tmp_path / "out")))
