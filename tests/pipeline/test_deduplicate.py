"""Clusters equal RedPajama-V2's, and do not depend on how documents are laid out."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.components import connected_components
from pipeline.deduplicate import CLUSTERED, SHUFFLED, STARS, Cluster, Deduplicate, DeduplicateParams
from pipeline.minhash import BANDS, MinHash
from pipeline.tables import DUPLICATES, MINHASH, SIMILARITIES, id_int
from pipeline.text import TextBatch

LEVELS = [f"sim{level}" for level in SIMILARITIES]


def corpus(ids: Sequence[str], texts: Sequence[str], signatures: pa.Array | None = None) -> dict[str, pa.Table]:
    """The tables of one partition."""
    signatures = MinHash().sign(TextBatch(pa.array(texts, pa.large_string()))) if signatures is None else signatures
    documents = {
        "id": pa.array(ids, pa.string()),
        "id_int": pa.array([id_int(i) for i in ids], pa.uint64()),
        "raw_content": pa.array(texts, pa.large_string()),
    }
    minhash = pa.table({"id": documents["id"], "signature": signatures}, schema=MINHASH)
    return {"documents": pa.table(documents), "minhash": minhash}


def cut(tables: dict[str, pa.Table], sizes: Sequence[int]) -> dict[str, dict[str, pa.Table]]:
    """The rows of one partition as several."""
    bounds = [0, *np.cumsum(sizes).tolist()]
    return {
        f"p{number}": {name: table.slice(start, end - start) for name, table in tables.items()}
        for number, (start, end) in enumerate(itertools.pairwise(bounds))
    }


def deduplicated(
    partitions: dict[str, dict[str, pa.Table]], params: DeduplicateParams | None = None
) -> tuple[pl.DataFrame, dict]:
    """Both stages over partitions, with the shuffle done by hand; the duplicates of all, and the metrics of `cluster`."""
    cluster = Cluster(params or DeduplicateParams())
    summaries = pa.concat_tables([cluster.summarise(name, tables) for name, tables in partitions.items()])
    assert summaries.schema == SHUFFLED
    buckets = sorted(set(summaries["bucket"].to_pylist()), reverse=True)
    reduced = [cluster.reduce(summaries.filter(pa.compute.equal(summaries["bucket"], b))) for b in buckets]
    assert all(r.schema == STARS for r in reduced)
    result = cluster.finish("all", pa.concat_tables(reduced))
    assert sorted(result.files) == sorted(f"{name}.parquet" for name in partitions)
    marked = []
    for name, tables in partitions.items():
        clustered = result.files[f"{name}.parquet"]
        assert isinstance(clustered, pa.Table) and clustered.schema == CLUSTERED
        stage = Deduplicate(cluster.params)
        assert list(stage.global_tables(name).values()) == [f"cluster/{name}.parquet"]
        done = stage.run(name, {"documents": tables["documents"], "clustered": clustered})
        table = done.tables["duplicates"]
        assert table.schema == DUPLICATES and table["id"].equals(tables["documents"]["id"])
        assert done.rows_in == table.num_rows
        marked.append(pl.from_arrow(table))
    json.dumps(result.metrics)
    return pl.concat(marked), dict(result.metrics)


@pytest.fixture(scope="module")
def golden(shared: Path) -> tuple[dict[str, pa.Table], pl.DataFrame]:
    documents = pq.read_table(shared / "rpv2" / "documents.parquet")
    minhash = pq.read_table(shared / "rpv2" / "minhash.parquet")
    signatures = minhash["signature"].combine_chunks().cast(MINHASH.field("signature").type)
    tables = corpus(documents["id"].to_pylist(), documents["raw_content"].to_pylist(), signatures)
    assert tables["documents"]["id_int"].to_pylist() == minhash["id_int"].to_pylist()
    clusters = pl.read_parquet(shared / "rpv2" / "clusters.parquet")
    return tables, clusters


def test_clusters_equal_the_reference_at_every_level(golden: tuple[dict[str, pa.Table], pl.DataFrame]) -> None:
    tables, clusters = golden
    marked, metrics = deduplicated(cut(tables, [100, 0, 250, 48]))
    for level in SIMILARITIES:
        theirs = clusters.filter(pl.col("similarity") == float(level))
        ours = marked.drop_nulls(f"cluster_sim{level}")
        assert dict(ours.select("id", f"cluster_sim{level}").iter_rows()) == dict(theirs.select("id", "cluster_id").iter_rows())
        counts = theirs.group_by("cluster_id").len()["len"]
        assert metrics[f"sim{level}"] == {
            "clusters": theirs["cluster_id"].n_unique(),
            "documents": theirs.height,
            "removed": theirs.height - theirs["cluster_id"].n_unique(),
            "largest": counts.max(),
        }
        # The rule of the reference: drop unless id_int == cluster_id.
        kept = set(theirs.filter(pl.col("id_int") == pl.col("cluster_id"))["id"])
        assert set(ours.filter(f"keep_sim{level}")["id"]) == kept
    assert metrics["documents"] == 398 and metrics["warnings"] == []


def test_exact_duplicates_are_the_groups_of_equal_text(golden: tuple[dict[str, pa.Table], pl.DataFrame]) -> None:
    tables, _ = golden
    marked, metrics = deduplicated(cut(tables, [300, 98]))
    texts = dict(zip(tables["documents"]["id"].to_pylist(), tables["documents"]["raw_content"].to_pylist(), strict=True))
    groups: dict[str, list[str]] = {}
    for name, text in texts.items():
        groups.setdefault(text, []).append(name)
    expected = {}
    for members in groups.values():
        first = min(members, key=id_int)
        expected |= {m: first for m in members if m != first}
    assert dict(marked.drop_nulls("exact_of").select("id", "exact_of").iter_rows()) == expected
    assert metrics["exact"]["removed"] == len(expected) > 20


WORDS = [f"w{i}" for i in range(8)]
BASE = [" ".join(f"{name}{i}" for i in range(40)) for name in "abc"]


@st.composite
def collections_(draw: st.DrawFn) -> list[str]:
    """Texts among which are exact, normalised and near duplicates, short ones, and strangers."""
    texts = []
    for _ in range(draw(st.integers(0, 14))):
        text = draw(st.sampled_from([*BASE, "short", "", "!", "?"]))
        change = draw(st.sampled_from(["none", "case", "tail", "stranger"]))
        if change == "case":
            text = text.upper() + "."
        elif change == "tail":
            text += " " + draw(st.sampled_from(WORDS))
        elif change == "stranger":
            text = " ".join(draw(st.lists(st.sampled_from(WORDS), min_size=13, max_size=20)))
        texts.append(text)
    return texts


@settings(max_examples=25, deadline=None)
@given(texts=collections_(), data=st.data())
def test_clusters_do_not_depend_on_order_partitions_or_buckets(texts: list[str], data: st.DataObject) -> None:
    ids = [f"d{i}" for i in range(len(texts))]
    keep = data.draw(st.sampled_from(["lowest_id", "longest"]))
    exact = data.draw(st.sampled_from(["raw", "normalized"]))
    reference, told = deduplicated({"all": corpus(ids, texts)}, DeduplicateParams(keep=keep, exact=exact))

    order = data.draw(st.permutations(range(len(texts))))
    at = data.draw(st.integers(0, len(texts)))
    tables = corpus([ids[i] for i in order], [texts[i] for i in order])
    params = DeduplicateParams(keep=keep, exact=exact, buckets=data.draw(st.sampled_from([1, 3, 64])))
    other, metrics = deduplicated(cut(tables, [at, len(texts) - at]), params)
    assert reference.sort("id").equals(other.sort("id"))
    assert told == metrics


@settings(max_examples=25, deadline=None)
@given(texts=collections_(), keep=st.sampled_from(["lowest_id", "longest"]), exact=st.sampled_from(["raw", "normalized"]))
def test_of_every_cluster_exactly_one_document_survives(texts: list[str], keep: str, exact: str) -> None:
    ids = [f"d{i}" for i in range(len(texts))]
    params = DeduplicateParams.model_validate({"keep": keep, "exact": exact})
    marked, _ = deduplicated({"all": corpus(ids, texts)}, params)
    length = {i: len(t) for i, t in zip(ids, texts, strict=True)}
    for level in LEVELS:
        frame = marked.with_columns(pl.col(f"cluster_{level}").alias("cluster"), pl.col(f"keep_{level}").alias("keep"))
        assert frame.filter(pl.col("cluster").is_null())["keep"].all()
        for members in frame.drop_nulls("cluster").partition_by("cluster"):
            names = members["id"].to_list()
            assert len(names) > 1 and members["cluster"][0] == min(id_int(n) for n in names)
            best = min(names, key=lambda n: (-length[n] if keep == "longest" else 0, id_int(n)))
            assert members.filter("keep")["id"].to_list() == [best]
            # Exact and fuzzy marks agree: no cluster loses all of its members to the two of them together.
            assert members.filter(pl.col("keep") & pl.col("exact_of").is_null()).height == 1
    kept = set(marked.filter(pl.col("exact_of").is_null())["id"])
    assert set(marked.drop_nulls("exact_of")["exact_of"]) <= kept


def test_normalised_equality_ignores_case_and_punctuation_but_not_wordless_text() -> None:
    texts = ["The cat, sat.", "the  CAT sat", "the cat", "!", "?", "!", "", ""]
    tables = {"p": corpus([f"d{i}" for i in range(8)], texts)}
    raw, _ = deduplicated(tables, DeduplicateParams(exact="raw"))
    assert raw["exact_of"].is_not_null().to_list().count(True) == 2
    normalised, metrics = deduplicated(tables, DeduplicateParams(exact="normalized", similarities=()))
    groups = {frozenset((i, of)) for i, of in normalised.drop_nulls("exact_of").select("id", "exact_of").iter_rows()}
    assert groups == {frozenset(("d0", "d1")), frozenset(("d3", "d5")), frozenset(("d6", "d7"))}
    assert set(metrics) == {"documents", "warnings", "exact"}
    none, metrics = deduplicated(tables, DeduplicateParams(exact="none", similarities=("0.8",)))
    assert none["exact_of"].null_count() == 8 and set(metrics) == {"documents", "warnings", "sim0.8"}


def test_the_best_by_a_signal_is_kept_and_null_is_the_worst() -> None:
    text = " ".join(WORDS * 3)
    tables = corpus(["d0", "d1", "d2"], [text] * 3)
    tables["signals"] = pa.table({"id": tables["documents"]["id"], "score": pa.array([None, 1.0, 2.0])})
    for prefer, expected in (("highest", "d2"), ("lowest", "d1")):
        params = DeduplicateParams.model_validate({"keep": "best", "signal": "score", "prefer": prefer})
        assert Cluster(params).input_tables() == ("documents", "minhash", "signals")
        marked, _ = deduplicated({"p": tables}, params)
        assert marked.filter(pl.col("exact_of").is_null())["id"].to_list() == [expected]
        assert marked.filter("keep_sim0.7")["id"].to_list() == [expected]
    params = DeduplicateParams(keep="best", signal="other")
    with pytest.raises(ValueError, match="compares the signal other, but the table signals has score"):
        Cluster(params).summarise("p", tables)


def test_documents_whose_id_int_collides_stay_apart() -> None:
    text, other = " ".join(WORDS * 3), " ".join(reversed(WORDS * 3))
    tables = corpus(["d0", "d1", "d2", "d3"], [text, text, other, other])
    same = pa.array([7, 8, 7, 9], pa.uint64())
    tables["documents"] = tables["documents"].set_column(1, "id_int", same)
    marked, metrics = deduplicated(cut(tables, [1, 3]), DeduplicateParams())
    assert marked["exact_of"].to_list() == [None, "d0", None, "d2"]
    assert metrics["sim1.0"]["clusters"] == 2
    assert marked["keep_sim1.0"].to_list() == [True, False, True, False]


def test_one_id_in_two_partitions_counts_as_two_documents() -> None:
    tables = corpus(["d0"], [" ".join(WORDS * 3)])
    marked, _ = deduplicated({"p0": tables, "p1": tables})
    assert marked["exact_of"].to_list() == [None, "d0"]
    assert marked["keep_sim0.8"].to_list() == [True, False]


def test_a_giant_cluster_is_named_in_a_warning() -> None:
    tables = corpus([f"d{i}" for i in range(5)], [" ".join(WORDS * 3)] * 5)
    _, metrics = deduplicated({"p": tables}, DeduplicateParams(giant=4, similarities=("0.7",)))
    first = min(range(5), key=lambda i: id_int(f"d{i}"))
    assert [w.split(":")[0] for w in metrics["warnings"]] == [
        "5 documents are one exact cluster (kept",
        "5 documents are one sim0.7 cluster (kept",
    ]
    assert f"row {first} of p" in metrics["warnings"][0]


def test_an_empty_corpus_has_no_clusters() -> None:
    marked, metrics = deduplicated({"p": corpus([], [])})
    assert marked.height == 0 and metrics["exact"]["clusters"] == 0
    cluster = Cluster()
    assert cluster.finish("all", cluster.reduce(SHUFFLED.empty_table())).files == {}


def test_tables_that_do_not_belong_together_are_an_error() -> None:
    tables, others = corpus(["d0", "d1"], ["a", "b"]), corpus(["d1", "d0"], ["a", "b"])
    with pytest.raises(ValueError, match="p: minhash and documents hold different documents: build minhash again"):
        Cluster().summarise("p", {"documents": tables["documents"], "minhash": others["minhash"]})
    clustered = pa.table({f.name: pa.nulls(1, f.type) if f.nullable else [0] for f in CLUSTERED if "keep" not in f.name})
    with pytest.raises(ValueError, match="p: cluster has seen other documents"):
        Deduplicate().run("p", {"documents": tables["documents"], "clustered": clustered})


def test_parameters_say_what_is_wrong() -> None:
    with pytest.raises(ValidationError, match="go together"):
        DeduplicateParams(keep="best")
    with pytest.raises(ValidationError, match="go together"):
        DeduplicateParams(signal="score")
    assert DeduplicateParams.model_validate({"similarities": [0.8, 1]}).similarities == ("0.8", "1.0")
    with pytest.raises(ValidationError):
        DeduplicateParams.model_validate({"similarities": ["0.5"]})
    assert pickle.loads(pickle.dumps(Cluster())) == Cluster()
    assert set(BANDS) == set(SIMILARITIES)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_components_are_the_closure_of_the_edges(graph: tuple[int, list[tuple[int, int]]]) -> None:
    nodes, edges = graph
    found = connected_components(nodes, [a for a, _ in edges], [b for _, b in edges])
    reach = np.eye(nodes, dtype=bool)
    for a, b in edges:
        reach[a, b] = reach[b, a] = True
    for k in range(nodes):
        reach |= np.outer(reach[:, k], reach[k])
    assert found.tolist() == [int(np.flatnonzero(row)[0]) for row in reach]
    assert connected_components(0, [], []).tolist() == []
