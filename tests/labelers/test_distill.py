from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelers.distill import _copies, compare, fit_distilled, load_distilled, noise_aware_targets
from labelers.stages import DistillParams
from tests.labelers.test_embeddings import texts_of_topics

CLASSES = ("physics", "cooking")


def soft(topics: np.ndarray, seed: int = 0) -> np.ndarray:
    """Probabilities of 0.85 for a class that is right four times in five."""
    said = np.where(np.random.default_rng(seed).random(len(topics)) < 0.2, 1 - topics, topics)
    return np.where(np.arange(2) == said[:, None], 0.85, 0.15)


@pytest.mark.parametrize("kind", ["fasttext", "encoder"])
def test_a_classifier_is_better_than_the_labels_that_it_learns_from(kind: str, tmp_path: Path) -> None:
    if kind == "encoder":
        pytest.importorskip("torch")
    texts, topics = texts_of_topics(400)
    options = {"features": 4096, "width": 16, "dimension": 16} if kind == "encoder" else {}
    model = fit_distilled(kind, texts, soft(topics), CLASSES, **options)  # type: ignore[arg-type]
    new, truth = texts_of_topics(100, 9)
    found = model.predict_proba(new)
    assert found.shape == (100, 2) and np.allclose(found.sum(axis=1), 1)
    assert (found.argmax(axis=1) == truth).mean() > 0.95
    assert 0.6 < found.max(axis=1).mean() < 0.97  # it learned doubt, too
    name, content = model.file()
    (tmp_path / name).write_bytes(content)
    loaded = load_distilled(tmp_path / name, CLASSES)
    assert np.allclose(loaded.predict_proba(new), found) and loaded.classes == CLASSES
    assert loaded.predict_proba(["", "entirely unheard-of"])[0].tolist() == [0.5, 0.5]


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda p: sum(p) > 0.01), min_size=1, max_size=8),
       st.integers(1, 9))  # fmt: skip
def test_copies_are_in_proportion_to_probabilities(rows: list[list[float]], copies: int) -> None:
    probabilities = np.array(rows) / np.sum(rows, axis=1, keepdims=True)
    found = _copies(probabilities, copies)
    assert (found.sum(axis=1) == copies).all() and (found >= 0).all()
    assert (np.abs(found - copies * probabilities) < 1 + 1e-9).all()


def test_documents_without_votes_or_confidence_teach_nothing() -> None:
    probabilities = np.array([[0.9, 0.1], [0.5, 0.5], [0.6, 0.4]])
    assert noise_aware_targets(probabilities, np.array([1, 0, 2])).tolist() == [True, False, True]
    assert noise_aware_targets(probabilities, np.array([1, 0, 2]), 0.7).tolist() == [True, False, False]


def test_models_are_compared_on_gold_and_with_each_other() -> None:
    one, two = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.8, 0.2], [0.7, 0.3]])
    told = compare({"label model": one, "distilled": two}, np.array([0, 1]))
    assert told["label model"]["accuracy"] == 1 and told["distilled"]["accuracy"] == 0.5
    assert told["distilled"]["agreement"] == 0.5 and "agreement" not in told["label model"]


@pytest.mark.parametrize(
    ("kind", "texts", "told"),
    [
        ("fasttext", ["a b", ""], "cannot learn from 1 texts"),
        ("linear", ["a b", "c d"], "no distilled model 'linear'; there are: fasttext, encoder"),
        ("fasttext", ["a"], "need probabilities of that shape"),
    ],
)
def test_what_cannot_be_distilled_is_told(kind: str, texts: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        fit_distilled(kind, texts, np.full((2, 2), 0.5), CLASSES)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["fasttext", "encoder"])
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"epoch": 2}, "takes no option epoch; it takes: .*epochs"),
        ({"epochs": "x"}, "option epochs is 'x', and not a whole number"),
        ({"learning_rate": "x"}, "option learning_rate is 'x', and not a number"),
        ({"dimension": 1.5}, "option dimension is 1.5, and not a whole number"),
    ],
)
def test_wrong_options_are_told(kind: str, options: dict, told: str) -> None:
    if kind == "encoder":
        pytest.importorskip("torch")
    with pytest.raises(ValueError, match=f"{kind} classifier.*{told}"):
        fit_distilled(kind, ["a b", "c d"], np.full((2, 2), 0.5), CLASSES, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"epoch": 2}, "encoder classifier takes no option epoch; it takes: features, width, dimension, epochs"),
        ({"epochs": 0}, "epochs is 0, and must be at least 1"),
        ({"keep": 0.0}, "keep is 0.0"),
        ({"keep": "x"}, "option keep is 'x', and not a number"),
    ],
)
def test_options_of_the_encoder_are_checked_before_anything_runs(options: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        DistillParams.model_validate({"kind": "encoder", "options": options})
    DistillParams.model_validate({"kind": "encoder", "options": {"epochs": 3, "keep": 1.0}})


def test_a_file_of_another_classifier_is_told(tmp_path: Path) -> None:
    texts, topics = texts_of_topics(60)
    three = np.column_stack([soft(topics) * 0.5, np.full(60, 0.5)])
    name, content = fit_distilled("fasttext", texts, three, ("a", "b", "c")).file()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="classifier of other classes: class"):
        load_distilled(tmp_path / name, CLASSES)
    (tmp_path / "classifier.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(ValueError, match="is no distilled classifier"):
        load_distilled(tmp_path / "classifier.safetensors", CLASSES)
