"""Distillation: a classifier of the text learns what a label model says, and labels every document at its own speed.

The targets are soft: a classifier that is shown a document as 70 % good is not told that it is good. It sees more than the
labelling functions do, so it also labels documents on which all of them abstain.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from labelers.fasttext_model import LABEL, FastTextModel, one_line, train
from labelers.metrics import measure
from labelers.options import check_options

Kind = Literal["fasttext", "encoder"]
FASTTEXT, ENCODER = "classifier.bin", "classifier.safetensors"
"""Files that a distilled model is stored in, by kind."""


class Distilled(Protocol):
    """A classifier of texts."""

    classes: tuple[str, ...]

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """(n, k) class probabilities; rows sum to 1."""
        ...

    def file(self) -> tuple[str, bytes]:
        """Name and content of its file; `load_distilled` reads it."""
        ...


class FastTextClassifier:
    """A fastText classifier (Joulin et al. 2017) on words and word pairs, trained on soft targets by repetition.

    fastText takes one label a line. A document stands in the training file `copies` times, with its classes in proportion to
    their probabilities: the mean of its losses is then, to 1/copies, the cross-entropy with the soft target.
    """

    def __init__(self, content: bytes, classes: Sequence[str]) -> None:
        self._content, self.classes = content, tuple(classes)
        with tempfile.TemporaryDirectory(prefix="distilled.") as folder:  # fastText loads from files only
            path = Path(folder) / FASTTEXT
            path.write_bytes(content)
            self._model = FastTextModel(path)
        self._names = [_name(c) for c in range(len(self.classes))]

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        probabilities: np.ndarray,
        classes: Sequence[str],
        dimension: int = 16,
        epochs: int | None = None,
        learning_rate: float = 0.2,
        copies: int = 4,
        buckets: int = 100_000,
        seed: int = 0,
    ) -> FastTextClassifier:
        """Train in one thread, so that the same targets give the same classifier. ValueError on texts without a word.

        epochs: by default 5, and up to 25 for few documents, so that at least 20,000 lines are seen.
        """
        epochs = epochs or min(max(5, -(-20_000 // (copies * max(len(texts), 1)))), 25)
        copied = _copies(probabilities, copies)  # (n, k) lines of each document and class
        document, label = np.repeat(np.indices(copied.shape).reshape(2, -1), copied.ravel(), axis=1)
        order = np.random.default_rng(seed).permutation(len(document))
        lines = [one_line(t) for t in texts]
        with tempfile.TemporaryDirectory(prefix="distilled.") as folder:
            path, model = Path(folder) / "train.txt", Path(folder) / FASTTEXT
            with path.open("w", encoding="utf-8") as file:
                for i in order.tolist():
                    file.write(f"{LABEL}{_name(label[i])} {lines[document[i]]}\n")
            _train(path, model, learning_rate, dim=dimension, epoch=epochs, bucket=buckets)
            return cls(model.read_bytes(), classes)

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        return self._model.probabilities(texts, self._names)

    def file(self) -> tuple[str, bytes]:
        return FASTTEXT, self._content


@dataclass(frozen=True)
class EncoderOptions:
    """Parameters of the classifier `encoder`, apart from it, so that they are checked where torch is not there.

    features, width, dimension: see `EncoderConfig`. keep: share of a document's words that a training step sees. ValueError on
    a number out of its range.
    """

    features: int = 1 << 16
    width: int = 64
    dimension: int = 64
    epochs: int = 8
    batch: int = 128
    keep: float = 0.8
    learning_rate: float = 3e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("features", "width", "dimension", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"encoder classifier: {name} is {getattr(self, name)}, and must be at least 1")
        if not 0 < self.keep <= 1 or not self.learning_rate > 0 or self.seed < 0:
            raise ValueError(
                f"encoder classifier: keep is {self.keep} (above 0, at most 1), learning_rate {self.learning_rate} (above 0), "
                f"seed {self.seed} (from 0)"
            )


def check_classifier_options(kind: Kind, options: Mapping[str, Any]) -> None:
    """ValueError on an option that the classifier of this kind does not take, or that is out of range."""
    if kind == "fasttext":
        check_options(f"{kind} classifier", options, FastTextClassifier.fit, ("texts", "probabilities", "classes"))
    else:
        check_options(f"{kind} classifier", options, EncoderOptions)
        EncoderOptions(**options)


def fit_distilled(
    kind: Kind, texts: Sequence[str], probabilities: np.ndarray, classes: Sequence[str], seed: int = 0, **options: Any
) -> Distilled:
    """Train a classifier of the kind on class probabilities (n, k). ValueError on other shapes, or too few texts with words."""
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.shape != (len(texts), len(classes)):
        raise ValueError(
            f"{len(texts)} texts and {len(classes)} classes need probabilities of that shape, not {probabilities.shape}"
        )
    worded = np.array([bool(t.strip()) for t in texts], bool)
    if worded.sum() < 2:
        raise ValueError(f"a classifier cannot learn from {int(worded.sum())} texts with a word in them")
    kept, targets = [t for t, w in zip(texts, worded, strict=True) if w], probabilities[worded]
    if kind == "fasttext":
        check_classifier_options(kind, options)
        return FastTextClassifier.fit(kept, targets, classes, seed=seed, **options)
    if kind == "encoder":
        from labelers.distill_encoder import EncoderClassifier

        check_classifier_options(kind, options)
        return EncoderClassifier.fit(kept, targets, classes, EncoderOptions(seed=seed, **options))
    raise ValueError(f"there is no distilled model {kind!r}; there are: fasttext, encoder")


def load_distilled(path: Path, classes: Sequence[str]) -> Distilled:
    """The classifier in a file that `Distilled.file` gave. ValueError if it holds none."""
    if path.name.endswith(".bin"):
        model = FastTextClassifier(path.read_bytes(), classes)
        if not set(model._model.labels) <= set(model._names):
            raise ValueError(f"{path} is a fastText classifier of other classes: {', '.join(model._model.labels[:5])}")
        return model
    from labelers.distill_encoder import EncoderClassifier

    return EncoderClassifier.load(path)


def noise_aware_targets(probabilities: np.ndarray, cast: np.ndarray, least_confidence: float = 0.0) -> np.ndarray:
    """Rows of (n, k) probabilities to learn from, (n,) bool: somebody voted, and the likeliest class is likely enough.

    A document on which every function abstains has the prior for a label, which says nothing about its text.
    """
    return (np.asarray(cast) > 0) & (np.asarray(probabilities).max(axis=1, initial=0) >= least_confidence)


def encode_card(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def compare(
    labels: Mapping[str, np.ndarray], gold: np.ndarray | None, metrics: Sequence[str] = ("accuracy", "macro_f1", "log_loss")
) -> dict[str, dict[str, float]]:
    """How probabilities (n, k) of several models do on gold classes (n,), by model; and how often two agree with each other.

    The first of `labels` is the label model; each other one's `agreement` is with it.
    """
    told: dict[str, dict[str, float]] = {}
    first = next(iter(labels.values()))
    for name, probabilities in labels.items():
        chosen = probabilities.argmax(axis=1)
        told[name] = measure(probabilities, chosen, gold, metrics) if gold is not None and len(gold) else {}
        if probabilities is not first and len(first):
            told[name]["agreement"] = float((chosen == first.argmax(axis=1)).mean())
    return told


def _train(path: Path, model: Path, learning_rate: float, **options: Any) -> None:
    """A fastText classifier of a training file. Where a learning rate makes it diverge, half of it is tried, a few times."""
    for _ in range(5):
        try:
            return train("supervised", path, model, lr=learning_rate, wordNgrams=2, minCount=2, **options)
        except RuntimeError as error:
            failure = error
            if "NaN" not in str(error):
                break
            learning_rate /= 2
    raise ValueError(f"fastText finds nothing to learn in {path.name}: {failure}")


def _copies(probabilities: np.ndarray, copies: int) -> np.ndarray:
    """(n, k) whole numbers that sum to `copies` in each row, nearest to copies x probability (largest remainders)."""
    share = probabilities / probabilities.sum(axis=1, keepdims=True) * copies
    whole = np.floor(share).astype(np.int64)
    missing = copies - whole.sum(axis=1)
    rank = np.argsort(np.argsort(-(share - whole), axis=1, kind="stable"), axis=1)
    return whole + (rank < missing[:, None])


def _name(c: int) -> str:
    """A label for fastText, which splits at white space: the number of the class."""
    return f"class{c}"
