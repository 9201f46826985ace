"""Classifiers: trained on files or conditions, tested on what they have not seen, and used as signals."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipeline.text import TextBatch
from quality.annotate import Annotate, AnnotateParams
from quality.classifiers import Classifier, ClassifierParams, evaluate, prepare, train
from quality.registry import Context, measure, select
from quality.resources import SignalResources
from quality.training_documents import Selection, sample
from workflows.cli import menagerie

NAMES = ["rps_doc_ml_palm_score", "rps_doc_ml_wikipedia_score", "rps_doc_ml_wikiref_score"]
GOOD, BAD = ["theorem", "proof", "lemma", "algebra", "ring"], ["buy", "cheap", "offer", "click", "now"]


def texts(words: list[str], number: int, seed: int) -> list[tuple[str, str]]:
    draw = random.Random(seed)
    return [(f"{seed}/{i}", f"{' '.join(draw.choices(words, k=30))}\n{draw.randrange(10**6)}") for i in range(number)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "good.bin"
    params = ClassifierParams(name="good", held_out=0.2, epoch=20)
    trained = train(texts(GOOD, 60, 1), texts(BAD, 60, 2), path, params)
    assert trained.evaluation.auc == 1 and trained.evaluation.precision == trained.evaluation.recall == 1
    assert trained.training_positives + trained.evaluation.positives == 60
    return path


def scores(model: Any, rows: list[str | None], languages: list[str | None] | None) -> dict[str, list[float | None]]:
    columns = {"language": pa.array(languages, pa.string())} if languages is not None else None
    context = Context(resources=SignalResources(classifiers=dict.fromkeys(NAMES, model)))
    measured = measure(TextBatch(pa.array(rows, pa.large_string()), columns), select(NAMES), context)
    return {name: column.to_pylist() for name, column in measured.items()}


def test_signals_are_the_probability_of_not_being_a_crawled_page(model: Path) -> None:
    good, bad = " ".join(GOOD * 4), " ".join(BAD * 4)
    told = scores(Classifier(model), [good, bad, "", None, good, good], ["en", "en", "en", "en", "de", None])
    assert told[NAMES[0]] == told[NAMES[2]]
    for name, judged in ((NAMES[0], (0, 1)), (NAMES[1], (4, 5))):
        assert [row for row, value in enumerate(told[name]) if value is not None] == list(judged)
    assert told[NAMES[0]][0] > 0.9 > 0.1 > told[NAMES[0]][1]  # type: ignore[operator]
    # The value is the module's own, rounded: what `predict` would say if it worked under every NumPy.
    import fasttext

    probability, label = fasttext.load_model(str(model)).f.predict(good + "\n", 1, 0.0, "strict")[0]
    assert label == "__label__good" and told[NAMES[0]][0] == pytest.approx(probability, abs=1e-8)
    without_languages = scores(Classifier(model), [good], None)
    assert all(values[0] is not None for values in without_languages.values())


def test_models_by_language(model: Path) -> None:
    told = scores({"de": Classifier(model)}, [" ".join(GOOD)] * 3, ["de", "fr", "en"])
    assert [value is None for value in told[NAMES[1]]] == [False, True, True]


def test_lines_become_one() -> None:
    assert prepare(" a\nb\r\nc\u2028d \n") == "a b c d"


def test_a_recipe_names_models_by_signal_and_language(model: Path) -> None:
    params = AnnotateParams.model_validate(
        {"signals": [NAMES[1]], "classifiers": {NAMES[1]: {"de": str(model)}, NAMES[0]: str(model)}}
    )
    stage = Annotate(params)
    files = stage.files()
    assert set(files) == {f"classifiers/{NAMES[1]}/de", f"classifiers/{NAMES[0]}"}
    stage.setup({key: Path(path) for key, path in files.items()})
    table = pa.table({"id": ["a", "b"], "raw_content": [" ".join(GOOD)] * 2, "language": ["de", "it"]})
    values = stage.run("p", {"documents": table}).tables["signals"][NAMES[1]].to_pylist()
    assert values[0] > 0.5 and values[1] is None


def test_no_text_is_on_both_sides(tmp_path: Path) -> None:
    same = [(str(i), "one text of both kinds") for i in range(50)]
    params = ClassifierParams(held_out=0.3, epoch=2)
    first = train(texts(GOOD, 40, 1) * 3 + same, texts(BAD, 40, 2) + same, tmp_path / "a.bin", params)
    assert first.training_positives + first.evaluation.positives == 40
    with pytest.raises(ValueError, match=r"0 positive documents .* are too few to train and to test on"):
        train(same, same, tmp_path / "c.bin", params)


def test_evaluation_of_known_scores() -> None:
    told = evaluate(np.array([0.9, 0.8, 0.4]), np.array([0.1, 0.6, 0.2]))
    assert (told.precision, told.recall) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert told.auc == pytest.approx(8 / 9)
    assert told.brier == pytest.approx((0.01 + 0.04 + 0.36 + 0.01 + 0.36 + 0.04) / 6)
    assert [b.documents for b in told.calibration] == [0, 1, 1, 0, 1, 0, 1, 0, 1, 1]
    assert told.calibration_error == pytest.approx((0.1 + 0.2 + 0.6 + 0.6 + 0.2 + 0.1) / 6)


def test_files_that_are_no_classifier(tmp_path: Path, shared: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no such model; train one with `menagerie models train-classifier`"):
        Classifier(tmp_path / "none.bin")
    (tmp_path / "text.bin").write_text("no model")
    with pytest.raises(ValueError, match="is no fastText model"):
        Classifier(tmp_path / "text.bin")
    with pytest.raises(ValueError, match="has no label __label__cc"):
        Classifier(shared / "models" / "lid.176.ftz")


def test_a_sample_does_not_depend_on_the_order_of_documents() -> None:
    import polars as pl

    rows = [(f"d{i}", f"text {i % 70}") for i in range(100)]
    frames = [
        pl.DataFrame(rows, schema=["id", "text"], orient="row"),
        pl.DataFrame(rows[::-1], schema=["id", "text"], orient="row"),
    ]
    samples = [sorted(text for _, text in sample([frame[:40], frame[40:]], 20, 3)) for frame in frames]
    assert samples[0] == samples[1] and len(set(samples[0])) == 20
    assert len(sample([frames[0]], 1000, 3)) == 70


def test_the_command_trains_on_conditions_and_writes_a_card(tmp_path: Path) -> None:
    kinds = {"good": texts(GOOD, 40, 1), "bad": texts(BAD, 40, 2)}
    rows = [{"id": i, "raw_content": t, "kind": k, "language": "en"} for k, found in kinds.items() for i, t in found]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "all.parquet")
    negatives = tmp_path / "bad.txt"
    negatives.write_text("\n".join(prepare(t) for _, t in texts(BAD, 40, 3)))
    arguments = ["models", "train-classifier", "-o", str(tmp_path / "m.bin"), "--corpus", str(tmp_path / "all.parquet")]
    arguments += ["--positive", "kind = 'good'", "--negative", str(negatives), "--language", "en", "--held-out", "0.3"]
    run = CliRunner().invoke
    done = run(menagerie, [*arguments, "--epoch", "20", "--name", "math"])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "AUC 1.0000" in done.output and "share positive" in done.output
    card = (tmp_path / "m.bin.md").read_text()
    assert "where kind = 'good'" in card and "__label__math" in card and "| precision at 0.5 |" in card
    told = json.loads(run(menagerie, [*arguments, "--epoch", "20", "--json"]).output)
    assert told["evaluation"]["auc"] == 1 and len(told["evaluation"]["calibration"]) == 10
    out = tmp_path / "out.parquet"
    model = f"palm={tmp_path / 'm.bin'}"
    done = run(
        menagerie, ["annotate", str(tmp_path / "all.parquet"), "-o", str(out), "--signals", NAMES[0], "--classifier", model]
    )
    assert done.exit_code == 0, done.output
    values = pq.read_table(out)[NAMES[0]].to_pylist()
    assert min(values[:40]) > max(values[40:])
    for arguments, message in (
        (["--positive", "kind = 'good'"], "name a --corpus too"),
        (
            ["--positive", "kinds = 'good'", "--corpus", str(tmp_path / "all.parquet")],
            r"there is no column kinds (did you mean kind",
        ),
        (
            ["--positive", "kind = 'ugly'", "--corpus", str(tmp_path / "all.parquet")],
            "no document with text; widen the condition",
        ),
        (["--positive", str(negatives), "--held-out", "2"], "--held-out: Input should be less than 1"),
        (["--positive", str(negatives), "--name", "cc"], "cc is the label of the negative documents"),
    ):
        refused = run(menagerie, ["models", "train-classifier", "-o", str(out), "--negative", str(negatives), *arguments])
        assert message in str(refused.exception), refused.exception


def test_a_corpus_is_selected_from_over_all_its_tables(tmp_path: Path) -> None:
    from pipeline.corpus import Corpus

    corpus = Corpus(str(tmp_path / "corpus"))
    for part in ("2023-06/0000/en_head", "2023-06/0001/en_head"):
        ids = [f"{part}.json.gz/{i}" for i in range(3)]
        corpus.write("documents", part, pa.table({"id": ids, "raw_content": ["a", "b", ""], "language": ["en", "de", "en"]}))
        corpus.write("signals", part, pa.table({"id": ids, "rps_doc_word_count": [1.0, 5.0, 9.0]}))
    found = [b["text"].to_list() for b in Selection(corpus.url, "rps_doc_word_count > 2").batches()]
    assert found == [["b"], ["b"]]
    assert [b.height for b in Selection(corpus.url, None, "en").batches()] == [1, 1]
    with pytest.raises(ValueError, match="is no corpus with documents"):
        list(Selection(str(tmp_path / "nothing")).batches())
