"""The stage `annotate` keeps rows, order and schemas, whatever the batch size."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from pipeline.minhash import MinHash
from pipeline.tables import DOCUMENTS, MINHASH, identify
from pipeline.text import TextBatch
from quality import registry
from quality.annotate import Annotate, AnnotateParams, annotate


def documents(texts: list[str]) -> pa.Table:
    ids, id_ints = identify("2023-06/0000/en_head", len(texts))
    columns = {"id": ids, "id_int": id_ints, "raw_content": pa.array(texts, pa.large_string())}
    full = {f.name: columns.get(f.name, pa.nulls(len(texts), f.type)) for f in DOCUMENTS}
    return pa.table(full, schema=DOCUMENTS)


def test_one_pass_gives_both_tables_aligned_with_the_documents() -> None:
    table = documents(["a b c " * 10, "", "too short"])
    result = Annotate().run("2023-06/0000/en_head", {"documents": table})
    assert result.rows_in == 3
    signals, minhash = result.tables["signals"], result.tables["minhash"]
    assert signals["id"].equals(table["id"]) and minhash["id"].equals(table["id"])
    assert minhash.schema == MINHASH and signals.schema.equals(registry.schema(registry.select()))
    assert minhash["signature"].is_valid().to_pylist() == [True, False, False]
    assert minhash.schema.field("signature").metadata == {b"shingle": b"13", b"seed": b"42", b"scheme": b"redpajama-v2"}
    assert result.metrics == {"unsigned_documents": 2}
    assert signals["rps_doc_word_count"].to_pylist() == [30, 0, 2]


def test_the_size_of_a_batch_changes_nothing(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pq.read_table(shared / "rpv2" / "documents.parquet").slice(0, 80)
    whole = annotate(table, registry.select(), MinHash())
    over = TextBatch.over
    monkeypatch.setattr(TextBatch, "over", lambda rows: over(rows, size=20_000))
    cut = annotate(table, registry.select(), MinHash())
    assert whole.signals.combine_chunks().equals(cut.signals.combine_chunks())
    assert whole.minhash.combine_chunks().equals(cut.minhash.combine_chunks())


def test_batches_cover_every_document_once() -> None:
    texts = ["x" * n for n in (0, 5, 100, 3, 0, 0, 250, 1)] + [""]
    table = pa.table({"raw_content": texts, "n": list(range(9))})
    batches = list(TextBatch.over(table, size=100))
    assert [s for b in batches for s in b.strings] == texts
    assert [n for b in batches for n in b.columns["n"].to_pylist()] == list(range(9))
    assert len(batches) > 1
    assert list(TextBatch.over(table.slice(0, 0))) == []


def test_no_documents_give_empty_tables_of_the_schema() -> None:
    result = Annotate().run("p", {"documents": documents([])})
    assert result.tables["minhash"].schema == MINHASH
    assert result.tables["signals"].schema == registry.schema(registry.select())


def test_only_the_signals_that_are_asked_for_are_measured() -> None:
    params = AnnotateParams.model_validate({"signals": ["rps_doc_word_count"]})
    result = Annotate(params).run("p", {"documents": documents(["a b"])})
    assert result.tables["signals"].column_names == ["id", "rps_doc_word_count"]


def test_parameters_name_what_they_do_not_know() -> None:
    with pytest.raises(ValidationError, match="no signal is named words"):
        AnnotateParams.model_validate({"signals": ["words"]})
    with pytest.raises(ValidationError):
        AnnotateParams.model_validate({"minhash": {"permutations": 64}})
    default = AnnotateParams().model_dump(mode="json")
    assert default["signals"] == "all" and default["mode"] == "redpajama-v2"
    assert default["minhash"] == {"shingle": 13, "seed": 42, "scheme": "redpajama-v2"}
    with pytest.raises(ValidationError, match="redpajama-v2"):
        AnnotateParams.model_validate({"mode": "mended"})
    assert pickle.loads(pickle.dumps(Annotate())) == Annotate()


def test_text_that_cannot_be_read_is_one_clear_error() -> None:
    bad = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe"))
    with pytest.raises(ValueError, match="the text is not UTF-8"):
        TextBatch(bad)
    with pytest.raises(ValueError, match="no column raw_content; there is id, text"):
        annotate(pa.table({"id": ["a"], "text": ["b"]}), registry.select())
    with pytest.raises(ValueError, match="column n has 2 rows, the text has 1"):
        TextBatch(pa.array(["a"]), {"n": pa.array([1, 2])})


def test_a_null_document_counts_as_empty() -> None:
    text = TextBatch(pa.array([None, "a"], pa.string()))
    assert text.words.counts.tolist() == [0, 1] and text.characters.tolist() == [0, 1]
