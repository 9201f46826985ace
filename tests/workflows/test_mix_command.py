from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from labelers.stages import Label, LabelParams, Vote
from labelers.stages_fit import FitLabels
from pipeline.corpus import Corpus
from pipeline.mix import Mix, MixParams, Plan
from pipeline.stage import Params, PartitionStage, StageResult
from workflows.cli import menagerie
from workflows.engine import Engine
from workflows.inline import InlineExecutor
from workflows.progress import Progress

MIX = {
    "name": "small",
    "tables": ["documents", "signals", "labels/quality"],
    "select": [{"name": "short", "drop": "length < 10"}, {"name": "bad", "keep": "label = 'good'"}],
    "components": [{"name": "english", "languages": ["en"], "weight": 2}, {"name": "rest", "weight": 1}],
    "heldout": 0.1,
}
PLAIN = MIX | {"select": MIX["select"][:1], "heldout": 0}


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(menagerie, ["mix", *map(str, arguments)])


def documents(partition: str, n: int = 100) -> dict[str, list]:
    return {
        "id": [f"{partition}.json.gz/{i}" for i in range(n)],
        "length": [(i * 37) % 100 for i in range(n)],
        "language": [("en", "de")[i % 2] for i in range(n)],
    }


@dataclass
class Made(PartitionStage):
    """Documents and signals out of nothing."""

    name, outputs = "made", ("documents", "signals")
    params: Params

    def partitions(self) -> Sequence[str]:
        return ["2023-06/0000/en_head", "2023-06/0001/en_head"]

    def run(self, partition: str, tables: Mapping[str, pa.Table]) -> StageResult:
        told = documents(partition)
        signals = pa.table({"id": told["id"], "words": [float(i) for i in range(100)]})
        return StageResult(100, {"documents": pa.table(told), "signals": signals})


TASK = LabelParams.model_validate(
    {
        "task": "quality",
        "classes": ["bad", "good"],
        "functions": [{"name": "wordy", "column": "words", "min": 30, "vote": "good", "otherwise": "bad"}],
    }
)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    corpus = Corpus(str(tmp_path / "corpus"))
    engine = new_engine(corpus)
    for stage in (Made(Params()), Vote(TASK), FitLabels(TASK), Label(TASK)):
        engine.run(stage)
    return corpus


def new_engine(corpus: Corpus) -> Engine:
    return Engine(corpus, InlineExecutor(corpus.storage), Progress(quiet=True))


def config(tmp_path: Path, told: dict) -> Path:
    path = tmp_path / "mix.yaml"
    path.write_text(json.dumps(told))
    return path


def contents(corpus: Corpus) -> dict[str, str]:
    return {p: hashlib.sha256(corpus.storage.read(p)).hexdigest() for p in corpus.storage.files("")}


def test_a_dry_run_shows_the_plan_and_writes_nothing(corpus: Corpus, tmp_path: Path) -> None:
    before = contents(corpus)
    done = run(corpus.url, "--config", config(tmp_path, MIX), "--dry-run")
    assert done.exit_code == 0, done.output
    for part in ("mixture small", "english 66.7%", "rest 33.3%", "not selected", "short: 20 documents", "bad: "):
        assert part in done.output, done.output
    assert contents(corpus) == before


def test_a_mixture_of_a_corpus_is_what_the_stages_build(corpus: Corpus, tmp_path: Path) -> None:
    done = run(corpus.url, "--config", config(tmp_path, MIX))
    assert done.exit_code == 0, done.output
    assert "mixture small" in done.output
    written = contents(corpus)
    frame = corpus.scan("documents", "labels/quality", "mixture/small").collect()
    assert frame.height == 200
    assert frame["component"].is_null().eq(frame["reason"].is_not_null()).all()
    assert frame.filter(pl.col("reason") == "short")["length"].max() < 10
    assert frame.filter(pl.col("component") == "english")["language"].unique().to_list() == ["en"]
    # A build with the same parameters finds every receipt as it should be.
    engine = new_engine(corpus)
    for stage in (Made(Params()), Vote(TASK), FitLabels(TASK), Label(TASK), Plan(MixParams.model_validate(MIX))):
        engine.run(stage)
    stage = Mix(MixParams.model_validate(MIX))
    assert engine.plan(stage).todo == []
    assert contents(corpus) == written


def test_two_mixtures_stand_side_by_side(corpus: Corpus, tmp_path: Path) -> None:
    run(corpus.url, "--config", config(tmp_path, MIX))
    first = contents(corpus)
    done = run(corpus.url, "--config", config(tmp_path, MIX | {"name": "other", "heldout": 0}))
    assert done.exit_code == 0, done.output
    assert first.items() <= contents(corpus).items()
    assert corpus.partitions("mixture/other") == corpus.partitions("mixture/small")


def test_a_mixture_of_plain_files(tmp_path: Path) -> None:
    pl.DataFrame(documents("a")).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame(documents("b", 50)).select("language", "length", "id").write_ndjson(tmp_path / "b.jsonl")
    inputs, out = (tmp_path / "a.parquet", tmp_path / "b.jsonl"), tmp_path / "out.parquet"
    done = run(*inputs, "-c", config(tmp_path, PLAIN), "--json", "-o", out)
    assert done.exit_code == 0, done.output
    plan = json.loads(done.output)
    frame = pl.read_parquet(out)
    assert frame.columns == ["id", "length", "language", "component", "split", "repeats", "reason"]
    assert frame["id"].to_list() == documents("a")["id"] + documents("b", 50)["id"]
    assert plan["documents"] == 150 and plan["drops"]["short"]["documents"] == frame.filter(pl.col("reason") == "short").height
    run(*inputs, "-c", config(tmp_path, PLAIN), "-o", out, "--selected")
    assert pl.read_parquet(out).equals(frame.filter(pl.col("component").is_not_null()))
    out.unlink()
    assert run(*inputs, "-c", config(tmp_path, PLAIN), "-o", out, "--dry-run").exit_code == 0
    assert not out.exists()


def test_what_cannot_be_mixed_is_one_clear_line(tmp_path: Path, corpus: Corpus) -> None:
    pl.DataFrame(documents("a")).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame(documents("b")).with_columns(more=1).write_parquet(tmp_path / "b.parquet")
    pl.DataFrame(documents("c")).with_columns(split=pl.lit("x")).write_parquet(tmp_path / "c.parquet")
    out = tmp_path / "out.parquet"
    capped = PLAIN | {"tokens": 10**9}
    unknown = PLAIN | {"select": [{"name": "f", "keep": "lengths > 1"}]}
    for arguments, told, expected in [
        ((tmp_path / "a.parquet",), capped, "component english has"),
        ((tmp_path / "a.parquet",), unknown, "filter f: there is no column lengths (did you mean length?)"),
        ((tmp_path / "a.parquet", tmp_path / "b.parquet", "-o", out), PLAIN, "differ in the columns more"),
        ((tmp_path / "c.parquet", "-o", out), PLAIN, "already has a column split"),
        ((tmp_path, "--dry-run"), PLAIN, "has no documents"),
        ((corpus.url,), MIX | {"tables": ["documents", "duplicates"]}, "reads duplicates, which no stage before it writes"),
        ((corpus.url, "--dry-run"), MIX | {"tables": ["documents", "duplicates"]}, "duplicates"),
    ]:
        failed = run(*arguments, "-c", config(tmp_path, told))
        assert isinstance(failed.exception, ValueError), (expected, failed.output)
        assert expected in str(failed.exception)
        assert not out.exists() and not list(tmp_path.glob(".*.tmp"))


def test_a_corpus_takes_no_output_file(corpus: Corpus, tmp_path: Path) -> None:
    assert run(corpus.url, "-c", config(tmp_path, MIX), "-o", tmp_path / "x.parquet").exit_code == 2
    assert run(corpus.url, tmp_path / "a.parquet", "-c", config(tmp_path, MIX)).exit_code == 2
