from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from labelers.fasttext_model import FastTextModel, train
from labelers.functions import apply, labeling_function
from labelers.functions_classifier import Classifier, ClassifierParams
from labelers.functions_yaml import function_files, load_functions

CLASSES = ("bad", "good")
FRAME = pl.DataFrame({"id": list("abc"), "text": ["quarks and leptons", "cheap pills", None]})
SOURCE = """
def label(texts):
    return [("science", 0.9) if "quark" in t else ("advert", 0.6) for t in texts]

number = 3
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fastText classifier of two topics."""
    folder = tmp_path_factory.mktemp("fasttext")
    lines = ["__label__science quarks leptons atoms", "__label__advert cheap pills buy now"] * 50
    (folder / "train.txt").write_text("\n".join(lines))
    train("supervised", folder / "train.txt", folder / "topic.bin", dim=8, epoch=20, lr=0.5, wordNgrams=2)
    return folder / "topic.bin"


def votes(params: ClassifierParams, frame: pl.DataFrame = FRAME) -> list[int]:
    files = {key: Path(path) for key, path in function_files([params]).items()}
    return apply(load_functions([params], files), CLASSES, frame)["f"].to_pylist()


def test_training_does_not_depend_on_what_memory_held_before(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("__label__science quarks leptons atoms\n__label__advert cheap pills buy now\n" * 50)
    found = set()
    for _ in range(4):
        freed = [np.full(size, np.nan) for size in (10_000, 50_000, 100_000, 800_000)]
        del freed
        train("supervised", tmp_path / "train.txt", tmp_path / "m.bin", dim=16, epoch=5, wordNgrams=2, bucket=100_000)
        found.add(FastTextModel(tmp_path / "m.bin").classify(["quarks pills"])[1][0])
    assert len(found) == 1


def test_a_fasttext_model_votes_where_it_is_sure_enough(model: Path) -> None:
    classes = {"science": "good", "advert": "bad"}
    params = ClassifierParams(name="f", classifier=str(model), classes=classes, min_probability=0.5)
    assert votes(params) == [1, 0, -1]
    assert votes(params.model_copy(update={"classes": {"science": "good"}})) == [1, -1, -1]
    unsure = pl.DataFrame({"id": ["a"], "text": ["quarks pills"]})
    assert votes(params.model_copy(update={"min_probability": 0.999}), unsure) == [-1]


def test_probabilities_of_a_fasttext_model_sum_to_one(model: Path) -> None:
    loaded = FastTextModel(model)
    assert set(loaded.labels) == {"science", "advert"}
    found = loaded.probabilities(["quarks\nand", "", "entirely unknown"], ["advert", "science"])
    assert found.sum(axis=1) == pytest.approx([1, 1, 1]) and found[0, 1] > 0.5
    assert loaded.vectors(["quarks", ""]).shape == (2, 8)


def test_a_python_callable_votes(tmp_path: Path) -> None:
    (tmp_path / "topic.py").write_text(SOURCE)
    classifier = f"{tmp_path / 'topic.py'}:label"
    params = ClassifierParams(
        name="f", classifier=classifier, classes={"science": "good", "advert": "bad"}, min_probability=0.7
    )
    assert function_files([params]) == {f"classifier:{classifier}": str(tmp_path / "topic.py")}
    assert votes(params) == [1, -1, -1]


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        (lambda texts: ["good", "bad"], [1, 0, -1]),
        (lambda texts: [None, ("good", 0.2)], [-1, 1, -1]),
        (lambda texts: ["great", "bad"], "on document a votes 'great', which is no class"),
        (lambda texts: ["good"], "gives 1 answers for 2 texts"),
        (lambda texts: 1 / 0, "the classifier fails: ZeroDivisionError"),
    ],
)
def test_labels_are_classes_unless_told_otherwise(answers: Any, told: Any) -> None:
    if isinstance(told, list):
        assert apply([Classifier("f", answers)], CLASSES, FRAME)["f"].to_pylist() == told
        return
    with pytest.raises(ValueError, match=told):
        apply([Classifier("f", answers)], CLASSES, FRAME)


@pytest.mark.parametrize(
    ("classifier", "told"),
    [
        ("topic", "neither a fastText model"),
        ("no_such_module:f", "there is no module no_such_module"),
        ("{folder}/topic.py:nothing", "has no callable nothing"),
        ("{folder}/topic.py:number", "has no callable number"),
        ("{folder}/topic.bin", "is no fastText model"),
    ],
)
def test_what_is_no_classifier_is_told(tmp_path: Path, classifier: str, told: str) -> None:
    (tmp_path / "topic.py").write_text(SOURCE)
    (tmp_path / "topic.bin").write_text("nothing")
    with pytest.raises(ValueError, match=told):
        votes(ClassifierParams(name="f", classifier=classifier.format(folder=tmp_path)))


def test_preprocessors_run_once_per_document_and_share_their_work() -> None:
    seen: list[str] = []

    def words(document: dict) -> list[str]:
        seen.append(document["id"])
        return (document["text"] or "").split()

    def count(words: list[str]) -> int:
        return len(words)

    @labeling_function(pre=[words, count], vote="good")
    def long(n: int) -> bool:
        return n > 2

    @labeling_function(pre=[words, count], vote="bad")
    def short(n: int) -> bool:
        return n < 2

    table = apply([long, short], CLASSES, FRAME)
    assert (table["long"].to_pylist(), table["short"].to_pylist()) == ([1, -1, -1], [-1, -1, 0]) and seen == list("abc")


def test_a_preprocessor_that_fails_names_itself_and_the_document() -> None:
    def broken(document: dict) -> str:
        return document["text"].upper()

    @labeling_function(pre=[broken])
    def f(text: str) -> None:
        return None

    with pytest.raises(ValueError, match="preprocessor broken of labelling function f fails on document c: AttributeError"):
        apply([f], CLASSES, FRAME)
    with pytest.raises(ValueError, match="has preprocessors and takes no document"):
        labeling_function(pre=[broken])(lambda: pl.lit(1))
