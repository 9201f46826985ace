"""`menagerie models train-lm` on every kind of file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from pipeline import tables
from pipeline.corpus import Corpus
from pipeline.perplexity import PerplexityModels, PerplexityParams
from pipeline.training_text import TrainingText
from tests.pipeline.library_text import docstrings
from workflows.cli import menagerie

TEXTS = [" ".join(text.split()) for text in docstrings(150_000)]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(menagerie, ["models", "train-lm", *map(str, arguments)])


def test_every_kind_of_input_gives_the_same_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"{t}\n" for t in TEXTS))
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as out:
        out.writelines(json.dumps({"raw_content": t}) + "\n" for t in TEXTS)
    pq.write_table(pa.table({"raw_content": TEXTS}), tmp_path / "c.parquet")
    (tmp_path / "d.txt").write_text("\n\n".join(t.replace(" ", "\n", 1) for t in TEXTS))
    (tmp_path / "e").mkdir()
    for i, text in enumerate(TEXTS):
        (tmp_path / f"e/{i:05d}.txt").write_text(text)
    for name in ("a.txt", "b.jsonl.gz", "c.parquet"):
        assert list(TrainingText([tmp_path / name], "en")()) == TEXTS, name
    assert [t.replace("\n", " ") for t in TrainingText([tmp_path / "d.txt"], "en", "blank-line")()] == TEXTS
    assert list(TrainingText([tmp_path / "e"], "en", "file")()) == TEXTS


def test_a_corpus_gives_the_documents_of_the_language(tmp_path: Path) -> None:
    corpus = Corpus(str(tmp_path / "corpus"))
    for partition, texts in (("s/0000/en_head", TEXTS[:30]), ("s/0000/de_all", ["deutsch"]), ("s/0001/en_tail", TEXTS[30:50])):
        ids, numbers = tables.identify(partition, len(texts))
        values = {"id": ids, "id_int": numbers, "raw_content": texts}
        columns = [values.get(field.name, pa.nulls(len(texts), field.type)) for field in tables.DOCUMENTS]
        corpus.write("documents", partition, pa.table(columns, names=tables.DOCUMENTS.names).cast(tables.DOCUMENTS))
    assert list(TrainingText([tmp_path / "corpus"], "en")()) == TEXTS[:50]
    with pytest.raises(ValueError, match="holds no documents in fr"):
        TrainingText([tmp_path / "corpus"], "fr").files()


def test_what_cannot_be_read_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{broken\n{"other": 1}\n{"text": "two"}\n')
    (tmp_path / "b.txt").write_bytes(b"three\n\xff\xfe\nfour\n")
    texts = TrainingText([tmp_path / "a.jsonl", tmp_path / "b.txt"], "en")
    for _ in range(2):
        assert list(texts()) == ["one", "two", "three", "four"]
        assert texts.rejected == {"bad_json": 1, "no_text": 1, "bad_utf8": 1}


def test_models_are_trained_and_added_to_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"{t}\n" for t in TEXTS))
    options = ["-o", tmp_path / "lm", "--vocab-size", 500, "--order", 3, "--prune", "0,0,1", "--held-out", 0.2]
    done = run(tmp_path / "a.txt", *options, "--language", "en", "--percentiles", "25,50", "--json")
    assert done.exit_code == 0, done.output
    card = json.loads(done.stdout)
    assert card == json.loads((tmp_path / "lm/en.card.json").read_text()) | {"unread": {}}
    assert card["text"]["documents"] == len(TEXTS) and card["held_out"]["cutoffs"].keys() == {"25", "50"}
    assert card["model"]["ngrams"]["3"] < card["model"]["tokens"]
    shown = run(tmp_path / "a.txt", *options, "--language", "xx")
    assert shown.exit_code == 0, shown.output
    for told in ("held out", "3-grams", "median of", "below", "percentile 60", "xx.arpa"):
        assert told in shown.output
    names = sorted(p.name for p in (tmp_path / "lm").iterdir())
    assert names == sorted(["cutoffs.json", *(f"{c}.{s}" for c in ("en", "xx") for s in ("arpa", "sp.model", "card.json"))])
    params = PerplexityParams(models=str(tmp_path / "lm"), percentiles=(25, 50))
    models = PerplexityModels.load(params, {key: Path(p) for key, p in PerplexityModels.files(params).items()})
    assert models.cutoffs["en"] == tuple(card["held_out"]["cutoffs"].values())
    assert models.score(TEXTS[:3], "en") == models.score(TEXTS[:3], "xx")


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "a.bin").write_text("one\n")
    to = ["-o", tmp_path / "lm", "--language", "en"]
    for arguments, told in (
        ([tmp_path / "none.txt", *to], "none.txt does not exist"),
        ([tmp_path / "a.bin", *to], "neither .parquet nor .jsonl"),
        ([tmp_path / "a.txt", *to], "give more documents"),
        ([tmp_path / "a.txt", *to, "--order", 9], "--order 9: Input should be less than or equal to 6"),
        ([tmp_path / "a.txt", *to, "--prune", "1"], "the first 0"),
        ([tmp_path / "a.txt", *to, "--percentiles", "60,30"], "--percentiles 60,30: give two numbers between 0 and 100"),
        ([tmp_path / "a.txt", *to[:3], "../en"], "--language ../en: write a language code"),
    ):
        failed = run(*arguments)
        assert isinstance(failed.exception, ValueError) and told in str(failed.exception), failed.output
        assert "\n" not in str(failed.exception)
    for arguments in ([tmp_path / "a.txt", *to, "--prune", "0,x"], [tmp_path / "a.txt", *to, "--percentiles", "30"], [*to]):
        assert run(*arguments).exit_code == 2
