"""A corpus on disk: aligned tables, receipts, fingerprints, and one lazy view of it all."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from pipeline.corpus import ROW_GROUP, Corpus, encode_table
from pipeline.receipt import Output, Receipt, fingerprint
from pipeline.tables import identify

EN, DE = "2023-06/0000/en_head", "2023-06/0000/de_head"


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(str(tmp_path / "corpus"))


def table(partition: str, rows: int, **columns: list[Any]) -> pa.Table:
    return pa.table({"id": identify(partition, rows)[0], **columns})


def test_a_table_comes_back_as_it_was_written(corpus: Corpus) -> None:
    content = table(EN, 3, x=[1, None, 3], y=[[1.0], [], None])
    written = corpus.write("signals", EN, content)
    assert written.path == f"signals/{EN}.parquet" and corpus.storage.digest(written.path) == written.digest
    assert corpus.read("signals", EN).equals(content)
    assert corpus.read("signals", EN, ["y", "id"]).column_names == ["y", "id"]
    assert corpus.partitions("signals") == [EN] and corpus.partitions("signals", "*/de_*") == []
    header = corpus.header("signals", EN)
    assert (header.rows, header.version, header.schema.names) == (3, 1, ["id", "x", "y"])


def test_the_same_rows_are_the_same_bytes_however_they_were_put_together() -> None:
    whole = table(EN, 100, x=list(range(100)))
    pieces = pa.concat_tables([whole.slice(n, 7) for n in range(0, 100, 7)])
    assert bytes(encode_table("signals", whole)) == bytes(encode_table("signals", pieces))


def test_tables_that_do_not_align_are_named_both(corpus: Corpus) -> None:
    corpus.write("documents", EN, table(EN, 3))
    corpus.write("signals", EN, table(EN, 3, x=[1, 2, 3]).take([0, 2, 1]))
    corpus.write("minhash", EN, table(EN, 2))
    for name, rows in (("signals", 3), ("minhash", 2)):
        for check in (lambda n=name: corpus.check_alignment(EN, "documents", n), lambda n=name: corpus.scan("documents", n)):
            with pytest.raises(ValueError) as told:
                check()
            message = str(told.value)
            assert f"documents/{EN}.parquet (3 rows)" in message and f"{name}/{EN}.parquet ({rows} rows)" in message
            assert f"build {name} again" in message and "\n" not in message


def test_a_missing_table_is_one_clear_error(corpus: Corpus) -> None:
    corpus.write("documents", EN, table(EN, 1))
    for fail in (lambda: corpus.read("votes/quality", EN), lambda: corpus.scan("documents", "votes/quality")):
        with pytest.raises(
            ValueError, match=rf"votes/quality/{EN}.parquet is missing: build the stage that writes votes/quality"
        ):
            fail()
    with pytest.raises(ValueError, match="has no partitions in labels"):
        corpus.scan("labels")


def test_an_unknown_column_is_an_error_and_not_left_out(corpus: Corpus) -> None:
    corpus.write("documents", EN, table(EN, 1))
    with pytest.raises(ValueError, match="has no column text; it has id"):
        corpus.read("documents", EN, ["id", "text"])


def test_two_tables_with_one_column_name_are_refused(corpus: Corpus) -> None:
    corpus.write("documents", EN, table(EN, 1, x=[1]))
    corpus.write("signals", EN, table(EN, 1, x=[1]))
    with pytest.raises(ValueError, match="both documents and signals have a column x"):
        corpus.scan("documents", "signals")


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "text"])
def test_a_damaged_file_is_one_clear_line(corpus: Corpus, damage: str) -> None:
    corpus.write("documents", EN, table(EN, 5000, x=[n * 1.1 for n in range(5000)]))
    path = Path(corpus.url) / "documents" / f"{EN}.parquet"
    content = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(1)
    content[column.data_page_offset + 200] ^= 0xFF
    path.write_bytes({"empty": b"", "cut": bytes(content[:-50]), "flipped": bytes(content), "text": b"<html>"}[damage])
    for fail in (lambda: corpus.read("documents", EN), lambda: corpus.scan("documents").collect()):
        with pytest.raises(ValueError, match=r"documents/.*en_head.parquet cannot be read \(.*\): if it is damaged") as told:
            fail()
        assert "\n" not in str(told.value)


def test_a_parquet_file_of_somebody_else_is_no_table(corpus: Corpus) -> None:
    path = Path(corpus.url) / "documents" / f"{EN}.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(table(EN, 1), path)
    with pytest.raises(ValueError, match=r"is not a table of a corpus"):
        corpus.read("documents", EN)


def test_a_table_of_another_version_is_refused(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus.write("documents", EN, table(EN, 1))
    monkeypatch.setattr("pipeline.tables.SCHEMA_VERSION", 2)
    with pytest.raises(ValueError, match="has schema version 1, this is 2: build the corpus again"):
        corpus.header("documents", EN)


# --- scan


def fill(corpus: Corpus, sizes: list[int]) -> pl.DataFrame:
    """Two aligned tables over several partitions, and their eager join."""
    frames = []
    for shard, rows in enumerate(sizes):
        partition = f"2023-06/{shard:04d}/en_head"
        left = table(
            partition,
            rows,
            x=pa.array(range(rows), pa.int64()),
            words=pa.array([[n] * (n % 3) for n in range(rows)], pa.list_(pa.int32())),
        )
        right = table(
            partition,
            rows,
            **{
                "keep_sim0.7": pa.array([n % 2 == 0 for n in range(rows)], pa.bool_()),
                "y": pa.array([n / 7 for n in range(rows)], pa.float64()),
            },
        )
        corpus.write("documents", partition, left)
        corpus.write("duplicates", partition, right)
        joined = pl.DataFrame(left).join(pl.DataFrame(right), on="id", how="left", maintain_order="left")
        frames.append(joined.select(pl.lit(partition).alias("partition"), pl.all()))
    return pl.concat(frames)


COLUMNS = ["partition", "id", "x", "words", "keep_sim0.7", "y"]
PREDICATES = {
    "none": None,
    "x": pl.col("x") % 3 == 1,
    "both": (pl.col("x") > 4) & pl.col("keep_sim0.7"),
    "partition": pl.col("partition").str.contains("0001"),
    "nothing": pl.col("y") < 0,
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    columns=st.none() | st.lists(st.sampled_from(COLUMNS), min_size=1, unique=True),
    predicate=st.sampled_from(sorted(PREDICATES)),
    head=st.none() | st.integers(0, 50),
    head_first=st.booleans(),
)
def test_scan_equals_an_eager_join(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    columns: list[str] | None,
    predicate: str,
    head: int | None,
    head_first: bool,
) -> None:
    corpus = Corpus(str(tmp_path_factory.mktemp("corpus")))
    eager, lazy = fill(corpus, sizes), corpus.scan("documents", "duplicates")
    assert lazy.collect_schema() == eager.schema

    def ask(frame: Any) -> Any:
        if head is not None and head_first:
            frame = frame.head(head)
        if PREDICATES[predicate] is not None:
            frame = frame.filter(PREDICATES[predicate])
        if head is not None and not head_first:
            frame = frame.head(head)
        return frame.select(columns) if columns is not None else frame

    assert_frame_equal(ask(lazy).collect(), ask(eager))


def test_scan_reads_row_group_by_row_group(corpus: Corpus) -> None:
    eager = fill(corpus, [2 * ROW_GROUP + 5, 3])
    lazy = corpus.scan("documents", "duplicates")
    assert_frame_equal(lazy.collect(), eager)
    assert lazy.select(pl.len()).collect().item() == 2 * ROW_GROUP + 8
    assert_frame_equal(lazy.filter(pl.col("x") == ROW_GROUP + 1).collect(), eager.filter(pl.col("x") == ROW_GROUP + 1))


def test_scan_opens_only_the_tables_it_needs(corpus: Corpus) -> None:
    fill(corpus, [10])
    lazy = corpus.scan("documents", "duplicates")
    (Path(corpus.url) / "duplicates" / f"{EN}.parquet").write_bytes(b"gone")
    assert lazy.select("x").collect().height == 10
    with pytest.raises(ValueError, match="cannot be read"):
        lazy.select("y").collect()


def test_a_corpus_travels_as_its_url(corpus: Corpus) -> None:
    corpus.write("documents", EN, table(EN, 1))
    copy = pickle.loads(pickle.dumps(corpus))
    assert copy == corpus and copy.partitions("documents") == [EN]


# --- receipts


def receipt_of(corpus: Corpus, partition: str = EN) -> Receipt:
    written = [corpus.write(name, partition, table(partition, 3)) for name in ("documents", "signals")]
    outputs = {w.path: Output(w.digest, w.bytes, 3) for w in written}
    return Receipt("mine", partition, "f" * 32, 5, 3, {"too_short": 2}, outputs, {"languages": {"en": 3}}, 100, 1.5)


def test_receipts_round_trip(corpus: Corpus) -> None:
    one, two = receipt_of(corpus, EN), receipt_of(corpus, DE)
    assert corpus.receipt("mine", EN) is None
    corpus.write_receipt(one)
    corpus.write_receipt(two)
    assert corpus.receipt("mine", EN) == one and one.conserved
    assert list(corpus.receipts("mine")) == [two, one]  # in order of partitions
    assert Receipt.from_json(one.to_json()) == one and one.to_json() == Receipt.from_json(one.to_json()).to_json()


def test_a_receipt_knows_whether_its_outputs_are_there(corpus: Corpus) -> None:
    receipt = receipt_of(corpus)
    assert corpus.intact(receipt)
    path = Path(corpus.url) / f"signals/{EN}.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert not corpus.intact(receipt)
    path.unlink()
    assert not corpus.intact(receipt)


def test_forgetting_deletes_what_a_receipt_names_and_then_the_receipt(corpus: Corpus) -> None:
    receipt = receipt_of(corpus)
    corpus.write_receipt(receipt)
    corpus.forget(receipt, keep=[f"signals/{EN}.parquet"])
    assert corpus.partitions("documents") == [] and corpus.partitions("signals") == [EN]
    assert corpus.receipt("mine", EN) == receipt
    corpus.forget(receipt)
    assert corpus.storage.files("") == []


@pytest.mark.parametrize("content", [b"", b"{}", b'{"outputs": {"a": {"size": 1}}}', b"[]", b'{"stage": "mi'])
def test_a_damaged_receipt_is_one_clear_line(corpus: Corpus, content: bytes) -> None:
    corpus.storage.write(corpus.receipt_path("mine", EN), content)
    for fail in (lambda: corpus.receipt("mine", EN), lambda: list(corpus.receipts("mine"))):
        with pytest.raises(ValueError, match=r"receipts/mine/.*\.json is no receipt .*delete it") as told:
            fail()
        assert "\n" not in str(told.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=2),
    max_leaves=4,
)
PARAMETERS = st.dictionaries(st.text("ab", max_size=2), VALUES, max_size=3)
INPUTS = st.dictionaries(st.text("ab/", max_size=3), st.text("01", max_size=3), max_size=3)
TOLD = st.tuples(st.sampled_from(["mine", "mix"]), st.integers(1, 2), PARAMETERS, INPUTS)


@given(TOLD, TOLD)
def test_a_fingerprint_changes_if_and_only_if_something_told_changes(one: Any, other: Any) -> None:
    def strict(value: Any) -> Any:  # 1 and True are equal in Python, and not the same parameter
        if isinstance(value, dict):
            return {"dict": sorted((k, repr(strict(v))) for k, v in value.items())}
        return [strict(v) for v in value] if isinstance(value, (list, tuple)) else (type(value).__name__, value)

    assert (fingerprint(*one) == fingerprint(*other)) == (strict(one) == strict(other))


@given(PARAMETERS, INPUTS)
def test_a_fingerprint_does_not_depend_on_order(params: dict[str, Any], inputs: dict[str, str]) -> None:
    assume(len(params) > 1 or len(inputs) > 1)
    turned = dict(reversed(params.items())), dict(reversed(inputs.items()))
    assert fingerprint("mine", 1, params, inputs) == fingerprint("mine", 1, *turned)
