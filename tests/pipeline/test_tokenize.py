"""From a mixture to shards: what is selected is there, once, under its own id, and in every run the same bytes."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline import tables as schemas
from pipeline.corpus import Corpus
from pipeline.receipt import Receipt
from pipeline.shards import TokenShards
from pipeline.stage import Params, PartitionStage, StageResult
from pipeline.tokenize import Tokenize, TokenizeParams, TokenizerTraining, TrainTokenizer, manifest_path, stages
from pipeline.tokenizer import DocumentTokenizer, train_bpe
from workflows.engine import Engine
from workflows.inline import InlineExecutor
from workflows.progress import Progress

WORDS = ["crawl", "token", "shard", "mixture", "document", "page", "éclair", "漢字", "weight", "<|endoftext|>", "epoch"]
TRAINING = TokenizerTraining(vocab_size=300)
PARTITIONS = ("2024-10/0000/en_head", "2024-10/0000/en_tail", "2024-10/0001/de_head")


def _documents(partition: str, texts: Sequence[str]) -> pa.Table:
    ids, numbers = schemas.identify(partition, len(texts))
    columns = {"id": ids, "id_int": numbers, "raw_content": pa.array(texts, pa.large_string())}
    return pa.table([columns.get(f.name, pa.nulls(len(texts), f.type)) for f in schemas.DOCUMENTS], schema=schemas.DOCUMENTS)


def _mixture(documents: pa.Table, choices: Sequence[tuple[str | None, str | None]]) -> pa.Table:
    rows = [
        {"id": i, "component": c, "split": s, "repeats": 1.0 if c else 0.0, "reason": None if c else "quality"}
        for i, (c, s) in zip(documents["id"].to_pylist(), choices, strict=True)
    ]
    return pa.Table.from_pylist(rows, schemas.MIXTURE)


class GivenParams(Params):
    seed: int = 0
    unselected: bool = False


@dataclass
class Given(PartitionStage):
    """Writes documents and a mixture of them."""

    params: GivenParams
    name, outputs = "given", ("documents", "mixture/main")

    def partitions(self) -> Sequence[str]:
        return PARTITIONS

    def run(self, partition: str, tables: Mapping[str, pa.Table]) -> StageResult:
        dice = random.Random(f"{self.params.seed} {partition}")
        texts = ["", *(" ".join(dice.choices(WORDS, k=dice.randrange(30))) for _ in range(40))]
        documents = _documents(partition, texts)
        splits = [("web", "train"), ("web", "train"), ("books", "train"), ("web", "heldout"), (None, None)]
        choices = [("web", "train"), *(dice.choice(splits) for _ in texts[1:])]
        if self.params.unselected or partition.endswith("tail"):
            choices = [(None, None)] * len(texts)
        return StageResult(len(texts), {"documents": documents, "mixture/main": _mixture(documents, choices)})


def _build(folder: Path, params: TokenizeParams, unselected: bool = False) -> dict[str, list[Receipt]]:
    corpus = Corpus(str(folder))
    engine = Engine(corpus, InlineExecutor(corpus.storage), Progress(quiet=True))
    return {stage.name: engine.run(stage) for stage in (Given(GivenParams(unselected=unselected)), *stages(params))}


def _content(folder: Path) -> dict[str, bytes]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if "receipts" not in p.parts}


def test_shards_hold_exactly_the_selected_documents_under_their_ids(tmp_path: Path) -> None:
    receipts = _build(tmp_path, TokenizeParams(train=TRAINING))
    corpus = Corpus(str(tmp_path))
    chosen: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for partition in PARTITIONS:
        rows = zip(
            *(corpus.read("documents", partition)[c].to_pylist() for c in ("id", "raw_content")),
            *(corpus.read("mixture/main", partition)[c].to_pylist() for c in ("component", "split")),
            strict=True,
        )
        for identifier, text, component, split in rows:
            if component:
                chosen.setdefault((component, split), []).append((identifier, text))
    assert set(chosen) == {("web", "train"), ("web", "heldout"), ("books", "train")}
    counted = {row["id"]: row["tokens"] for p in PARTITIONS for row in corpus.read("token_counts/main", p).to_pylist()}
    assert len(counted) == sum(map(len, chosen.values()))
    for (component, split), expected in chosen.items():
        shards = TokenShards(tmp_path / manifest_path("main", component, split))
        tokenizer = DocumentTokenizer(shards.tokenizer)
        assert tokenizer.sha256 == shards.manifest.tokenizer_sha256
        assert (shards.manifest.component, shards.manifest.split, shards.eos) == (component, split, tokenizer.eos)
        assert shards.document_ids(0, len(shards)) == [identifier for identifier, _ in expected]
        spans = [shards.document(n) for n in range(shards.total_documents)]
        assert [tokenizer.decode(shards.tokens(a, b)) for a, b in spans] == [text for _, text in expected]
        assert [b - a for a, b in spans] == [counted[identifier] for identifier, _ in expected]
        for shard in shards.manifest.shards:
            assert xxhash.xxh3_128((shards.path.parent / shard.path).read_bytes()).hexdigest() == shard.xxh3
        for file in shards.manifest.files():
            assert (shards.path.parent / file).is_file()

    for receipt in receipts["tokenize/main"]:
        assert receipt.conserved
    by_partition = {r.partition: r for r in receipts["tokenize/main"]}
    assert dict(by_partition[PARTITIONS[1]].drops) == {"not_selected": 41}
    total = sum(v for r in receipts["tokenize/main"] for k, v in r.metrics.items() if k == "tokens/web/train")
    assert total == receipts["manifests/main"][0].metrics["tokens/web/train"]


def test_two_builds_give_the_same_bytes(tmp_path: Path) -> None:
    _build(tmp_path / "one", TokenizeParams(train=TRAINING))
    _build(tmp_path / "two", TokenizeParams(train=TRAINING))
    assert _content(tmp_path / "one") == _content(tmp_path / "two")


def test_a_given_tokenizer_is_used_and_travels_with_the_shards(tmp_path: Path) -> None:
    given_path = tmp_path / "mine.json"
    given_path.write_bytes(train_bpe(["some other text"], 280, eos="</s>"))
    _build(tmp_path / "corpus", TokenizeParams(tokenizer=str(given_path)))
    assert not (tmp_path / "corpus/global/train-tokenizer").exists()
    shards = TokenShards(tmp_path / "corpus" / manifest_path("main", "web", "train"))
    assert shards.tokenizer.read_bytes() == given_path.read_bytes()
    assert shards.tokenizer.is_relative_to(tmp_path / "corpus")


def test_another_tokenizer_makes_other_shards_and_a_second_run_none(tmp_path: Path) -> None:
    first = _build(tmp_path, TokenizeParams(train=TRAINING))
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    _build(tmp_path, TokenizeParams(train=TRAINING))
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == times
    second = _build(tmp_path, TokenizeParams(train=TokenizerTraining(vocab_size=280)))
    assert [r.fingerprint for r in first["tokenize/main"]] != [r.fingerprint for r in second["tokenize/main"]]
    assert TokenShards(tmp_path / manifest_path("main", "web", "train")).manifest.vocabulary <= 280


@pytest.mark.parametrize("train", [TRAINING, None])
def test_an_empty_mixture_is_refused(tmp_path: Path, train: TokenizerTraining | None) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(train_bpe(["text"], 280))
    params = TokenizeParams(train=train, tokenizer=None if train else str(path))
    with pytest.raises(ValueError, match="mixture main selects no document"):
        _build(tmp_path / "corpus", params, unselected=True)


def test_tables_of_different_documents_are_refused() -> None:
    documents = _documents(PARTITIONS[0], ["a", "b"])
    mixture = _mixture(_documents(PARTITIONS[1], ["a", "b"]), [("web", "train")] * 2)
    stage = TrainTokenizer(TokenizeParams(train=TRAINING))
    with pytest.raises(ValueError, match=r"documents and mixture/main hold different documents in 2024-10/0000/en_head"):
        stage.summarise(PARTITIONS[0], {"documents": documents, "mixture/main": mixture})


def test_a_component_whose_name_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(train_bpe(["text"], 280))
    stage = Tokenize(TokenizeParams(tokenizer=str(path)))
    stage.setup({"tokenizer": path})
    documents = _documents(PARTITIONS[0], ["a"])
    with pytest.raises(ValueError, match=r"'\.\./x'"):
        stage.run(PARTITIONS[0], {"documents": documents, "mixture/main": _mixture(documents, [("../x", "train")])})


def test_parameters_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="not both"):
        TokenizeParams(tokenizer="a.json", train=TRAINING)
    with pytest.raises(ValidationError):
        TokenizerTraining(vocab_size=256)


@given(
    st.lists(st.lists(st.integers(0, 12), max_size=6), min_size=1, max_size=6),
    st.integers(1, 30),
    st.integers(1, 20),
    st.randoms(use_true_random=False),
)
@settings(max_examples=100, deadline=None)
def test_the_sample_does_not_depend_on_how_summaries_are_merged(
    sizes: list[list[int]], total: int, cap: int, dice: random.Random
) -> None:
    training = TokenizerTraining(vocab_size=300, sample_characters=total, partition_characters=10_000, document_characters=cap)
    stage = TrainTokenizer(TokenizeParams(train=training))
    summaries, everything = [], []
    for number, lengths in enumerate(sizes):
        documents = _documents(f"part/{number}", ["x" * n for n in lengths])
        choices = [dice.choice([("web", "train"), ("web", "heldout"), (None, None)]) for _ in lengths]
        tables = {"documents": documents, "mixture/main": _mixture(documents, choices)}
        summaries.append(stage.summarise(f"part/{number}", tables))
        columns = (documents[c].to_pylist() for c in ("id_int", "id", "raw_content"))
        rows = zip(zip(*columns, strict=True), choices, strict=True)
        everything += [(n, i, text[:cap]) for (n, i, text), choice in rows if choice == ("web", "train")]
    expected, seen = [], 0
    for number, identifier, text in sorted(everything):
        if seen < total:
            expected.append((number, identifier, text))
            seen += len(text)
    at = dice.randrange(len(summaries) + 1)
    left = [stage.merge(summaries[:at])] if at else []
    right = [stage.merge(summaries[at:])] if summaries[at:] else []
    for merged in (
        stage.merge(summaries),
        stage.merge(left + right),
        reduce(lambda a, b: stage.merge([a, b]), summaries[::-1]),
    ):
        sample = stage.merge([merged])
        assert list(zip(*(sample[c].to_pylist() for c in ("id_int", "id", "text")), strict=True)) == expected
