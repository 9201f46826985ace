"""CCNet's stages on the engine: five WET files as five shards, in groups of one and of five."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.corpus import Corpus
from pipeline.language import LanguageParams
from pipeline.mine import Mine, MineParams
from pipeline.paragraphs import Paragraphs, ParagraphsParams
from pipeline.receipt import Receipt
from pipeline.stage import Params, PartitionStage, StageResult
from tests.pipeline.wet_shards import read_shard
from workflows.engine import Engine
from workflows.inline import InlineExecutor
from workflows.progress import Progress


class Files(Params):
    files: tuple[str, ...]


@dataclasses.dataclass
class ReadWet(PartitionStage):
    """One shard per WET file, read by the tests' own reader."""

    params: Files

    name = "read-wet"
    outputs = ("raw",)

    def partitions(self) -> Sequence[str]:
        return [f"web/{number:04d}" for number in range(len(self.params.files))]

    def run(self, partition: str, tables: Mapping[str, pa.Table]) -> StageResult:
        table = read_shard(Path(self.params.files[int(partition[-4:])]))
        return StageResult(table.num_rows, {"raw": table})


EMBEDDED = LanguageParams(kind="resiliparse")


def build(
    folder: Path, shared: Path, group_shards: int, language: LanguageParams = EMBEDDED, keep: tuple[str, ...] | None = None
) -> list[list[Receipt]]:
    group = ParagraphsParams(group_shards=group_shards)
    files = tuple(map(str, sorted((shared / "web").glob("*.warc.wet.gz"))))
    corpus = Corpus(str(folder))
    engine = Engine(corpus, InlineExecutor(corpus.storage), Progress(quiet=True), keep_rejects=True)
    mine = Mine(MineParams(paragraphs=group, language=language, keep_languages=keep))
    return [engine.run(stage) for stage in (ReadWet(Files(files=files)), Paragraphs(group), mine)]


def rows(corpus: Corpus, columns: list[str]) -> dict[str, dict]:
    parts = [corpus.read("documents", p, ["record_id", *columns]) for p in corpus.partitions("documents")]
    return {row.pop("record_id"): row for row in pa.concat_tables(parts).to_pylist()}


def modified(folder: Path, below: str) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in (folder / below).rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def corpus(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    # At threshold 0 every document that has a line left stays.
    build(folder, shared, group_shards=5, language=LanguageParams(model=str(shared / "models" / "lid.176.ftz"), threshold=0.0))
    return Corpus(str(folder))


def test_a_corpus_of_one_group_equals_ccnet(corpus: Corpus, shared: Path) -> None:
    golden = pq.read_table(shared / "ccnet_reference" / "dedup.parquet").to_pylist()
    columns = ["line_ids", "original_nlines", "nlines", "original_length", "length"]
    assert rows(corpus, columns) == {row["id"]: {c: row[c] for c in columns} for row in golden if row["kept"]}
    rejects = [pq.read_table(path) for path in sorted(Path(corpus.url).glob("rejects/mine/**/*.parquet"))]
    lost = pa.concat_tables(rejects)["record_id"].to_pylist()
    assert sorted(lost) == sorted(row["id"] for row in golden if not row["kept"])


def test_a_smaller_group_keeps_more_and_a_changed_group_is_built_again(corpus: Corpus, shared: Path, tmp_path: Path) -> None:
    build(tmp_path, shared, group_shards=1)
    apart = rows(Corpus(str(tmp_path)), ["line_ids"])
    assert len(list((tmp_path / "global" / "paragraphs").glob("web/*.parquet"))) == 5
    build(tmp_path, shared, group_shards=5)
    together = rows(Corpus(str(tmp_path)), ["line_ids"])
    assert len(list((tmp_path / "global" / "paragraphs").glob("web/*.parquet"))) == 1
    assert together.items() <= rows(corpus, ["line_ids"]).items()
    both = together.keys() & apart.keys()
    assert len(both) > 700
    assert all(set(together[record]["line_ids"]) <= set(apart[record]["line_ids"]) for record in both)
    assert sum(len(apart[record]["line_ids"]) - len(together[record]["line_ids"]) for record in both) > 1000


def test_languages_to_keep_are_mined_again_without_hashing_again(shared: Path, tmp_path: Path) -> None:
    build(tmp_path, shared, group_shards=5)
    before = modified(tmp_path, "global/paragraphs"), modified(tmp_path, "documents")
    build(tmp_path, shared, group_shards=5)
    assert (modified(tmp_path, "global/paragraphs"), modified(tmp_path, "documents")) == before
    *_, receipts = build(tmp_path, shared, group_shards=5, keep=("it",))
    assert modified(tmp_path, "global/paragraphs") == before[0]
    assert {p.rsplit("/", 1)[1] for p in Corpus(str(tmp_path)).partitions("documents")} == {"it_all"}
    assert all(receipt.conserved and receipt.drops["language_not_kept"] for receipt in receipts)
