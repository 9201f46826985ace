"""annotate, cluster and deduplicate on the engines: the same bytes in-process and on Ray, and marks that a scan can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from pipeline.corpus import Corpus
from pipeline.deduplicate import Cluster, Deduplicate, DeduplicateParams
from pipeline.stage import Params, PartitionStage, Stage, StageResult
from pipeline.tables import DOCUMENTS, identify
from quality.annotate import Annotate
from tests.workflows.test_engine import content
from workflows.engine import Engine
from workflows.inline import InlineExecutor
from workflows.progress import Progress

pytestmark = pytest.mark.xdist_group("ray")
PARTITIONS = ("toy/0000/en_head", "toy/0000/en_tail", "toy/0001/de_head")


class WriteParams(Params):
    documents: int = 12


@dataclass
class Write(PartitionStage):
    """Documents of which every third is in each partition, and every fourth nearly so."""

    params: WriteParams = field(default_factory=WriteParams)

    name = "write"
    outputs = ("documents",)

    def partitions(self) -> Sequence[str]:
        return PARTITIONS

    def run(self, partition: str, tables: Mapping[str, pa.Table]) -> StageResult:
        rows = self.params.documents if partition != PARTITIONS[1] else 0
        texts = []
        for row in range(rows):
            author = "all" if row % 3 == 0 or row % 4 == 0 else partition
            text = " ".join(f"{author}-{row}-{i}" for i in range(60))
            texts.append(f"{text} {partition}" if row % 4 == 0 else text)
        ids, id_ints = identify(partition, rows)
        columns = {"id": ids, "id_int": id_ints, "raw_content": pa.array(texts, pa.large_string())}
        table = pa.table({f.name: columns.get(f.name, pa.nulls(rows, f.type)) for f in DOCUMENTS}, schema=DOCUMENTS)
        return StageResult(rows, {"documents": table})


def stages(params: DeduplicateParams | None = None) -> list[Stage]:
    params = params or DeduplicateParams()
    return [Write(), Annotate(), Cluster(params), Deduplicate(params)]


def run(folder: Path, params: DeduplicateParams | None = None) -> Corpus:
    corpus = Corpus(str(folder))
    engine = Engine(corpus, InlineExecutor(corpus.storage), Progress(quiet=True))
    for stage in stages(params):
        engine.run(stage)
    return corpus


def test_duplicates_are_marked_across_partitions(tmp_path: Path) -> None:
    corpus = run(tmp_path)
    marked = corpus.scan("documents", "signals", "minhash", "duplicates").collect()
    assert isinstance(marked, pl.DataFrame) and marked.height == 24
    # Rows 3, 6 and 9 are equal in two partitions; rows 0, 4 and 8 differ by their last word.
    assert marked["exact_of"].is_not_null().sum() == 3
    assert marked["keep_sim0.7"].not_().sum() == 6
    receipts = {r.partition: r for r in corpus.receipts("deduplicate")}
    assert set(receipts) == set(PARTITIONS)
    assert sum(r.metrics["duplicates"]["exact"] for r in receipts.values()) == 3
    assert sum(r.metrics["duplicates"]["sim0.7"] for r in receipts.values()) == 6


def test_the_number_of_buckets_changes_no_mark(tmp_path: Path) -> None:
    one = run(tmp_path / "one", DeduplicateParams(buckets=1)).scan("duplicates").collect()
    many = run(tmp_path / "many", DeduplicateParams(buckets=500)).scan("duplicates").collect()
    assert isinstance(one, pl.DataFrame) and isinstance(many, pl.DataFrame)
    assert one.equals(many)


def test_ray_and_inline_mark_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from workflows.cluster import ray_executor

    run(tmp_path / "inline")
    corpus = Corpus(str(tmp_path / "ray"))
    with ray_executor(corpus.storage, cpus=2) as executor:
        engine = Engine(corpus, executor, Progress(quiet=True))
        for stage in stages():
            engine.run(stage)
    assert content(tmp_path / "ray") == content(tmp_path / "inline")
