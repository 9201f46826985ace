"""fastText classifiers that tell documents of one kind from others, as RedPajama-V2 trains and applies them."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import Field, field_validator

from pipeline.stage import Params

LABEL = "__label__"
OTHER = "__label__cc"
"""RedPajama-V2's label of crawled pages: a document's score is its probability of not being one."""
BINS = 10
_KEY = "classifiers"
_THREADS = 12
"""fastText 0.9.3 initialises a tenth of its vectors per thread, and none beyond: fewer than 11 threads train on whatever was in
memory. They write to the same vectors without locks, so two trainings give almost, not exactly, the same model."""


class ClassifierParams(Params):
    """How a classifier is trained. The defaults of fastText are RedPajama-V2's."""

    name: str = Field(default="positive", pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Label of the positive documents.")
    samples: int = Field(default=75_000, ge=10, description="Documents of each class, at most; both get as many.")
    held_out: float = Field(default=0.1, gt=0, lt=1, description="Share of them that is not trained on, but tested.")
    seed: int = Field(default=0, ge=0, lt=1 << 31, description="Decides the sample, what is held out, and the first vectors.")
    lr: float = Field(default=0.1, gt=0, description="Learning rate.")
    dim: int = Field(default=100, ge=1, description="Size of word vectors.")
    epoch: int = Field(default=5, ge=1, description="Passes over the training set.")
    word_ngrams: int = Field(default=1, ge=1, description="Longest n-gram of words.")
    min_count: int = Field(default=1, ge=1, description="Words that occur less often are left out.")
    bucket: int = Field(default=2_000_000, ge=1, description="Buckets of n-grams, where word_ngrams is above 1.")

    @field_validator("name")
    @classmethod
    def _is_not_the_others(cls, name: str) -> str:
        if LABEL + name == OTHER:
            raise ValueError("cc is the label of the negative documents; choose another")
        return name


def prepare(text: str) -> str:
    """The text as the classifier sees it: lines joined by spaces."""
    return " ".join(text.splitlines()).strip()


class Classifier:
    """A fastText model in a file. ValueError if it cannot be loaded."""

    def __init__(self, path: Path) -> None:
        import fasttext

        self.path = path
        if not path.is_file():
            raise ValueError(f"{path}: there is no such model; train one with `menagerie models train-classifier`")
        try:
            self._model = fasttext.load_model(str(path))
        except ValueError as error:
            raise ValueError(f"{path} is no fastText model: {error}") from error
        if not self.labels:
            raise ValueError(f"{path} is no classifier: it has no labels beginning with {LABEL}")
        if OTHER not in self.labels:
            raise ValueError(f"{path} has no label {OTHER}, for documents of the crawl at large: its scores would mean nothing")

    @property
    def labels(self) -> list[str]:
        """With their prefix, the commonest first."""
        return list(self._model.f.getLabels("strict")[0]) if self._is_supervised() else []

    def _is_supervised(self) -> bool:
        return self._model.f.getArgs().model.name == "supervised"

    def score(self, text: str) -> float | None:
        """The probability of the top label, or 1 minus it if that is `__label__cc`; None for an empty text, or one without a
        label."""
        if not text:
            return None
        # What `predict` of the module returns breaks under NumPy 2; the call below is what it wraps.
        predicted = self._model.f.predict(prepare(text) + "\n", 1, 0.0, "strict")
        if not predicted:
            return None
        probability, label = predicted[0]
        return 1 - probability if label == OTHER else probability


@dataclass(frozen=True)
class CalibrationBin:
    """Held-out documents whose score lies in a tenth of [0, 1]: their mean score, and the share that is positive."""

    documents: int
    mean_score: float
    positive: float


@dataclass(frozen=True)
class Evaluation:
    """Held-out documents, and how well the classifier tells them apart.

    precision, recall, f1: at a score of 0.5. auc: area under the ROC curve. brier: mean squared error of the score.
    calibration_error: mean distance between score and share of positives over the bins, weighted by documents.
    """

    positives: int
    negatives: int
    precision: float
    recall: float
    f1: float
    auc: float
    brier: float
    calibration_error: float
    calibration: tuple[CalibrationBin, ...]


@dataclass(frozen=True)
class Trained:
    """A trained classifier: where it is, what it was trained on, how it does."""

    path: Path
    params: ClassifierParams
    training_positives: int
    training_negatives: int
    evaluation: Evaluation
    sha256: str


def train(
    positives: Sequence[tuple[str, str]], negatives: Sequence[tuple[str, str]], path: Path, params: ClassifierParams
) -> Trained:
    """Train on (id, text) pairs of two kinds, as many of each, and test on the held-out ones.

    A text of both kinds is left out; which texts are held out depends on the text, so that no copy is on both sides.
    ValueError if there is not enough to train and test on.
    """
    import fasttext

    texts = _balanced(positives, negatives)
    split = [[_is_held_out(t, params) for t in kind] for kind in texts]
    held_out = [[t for t, out in zip(kind, s, strict=True) if out] for kind, s in zip(texts, split, strict=True)]
    training = [[t for t, out in zip(kind, s, strict=True) if not out] for kind, s in zip(texts, split, strict=True)]
    for kind, name in enumerate(("positive", "negative")):
        if not training[kind] or not held_out[kind]:
            raise ValueError(
                f"{len(texts[kind])} {name} documents (without copies and those that are both) are too few to train and to "
                "test on: give more, or hold out another share"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "train.txt"
        lines = [f"{label} {text}" for label, kind in zip((LABEL + params.name, OTHER), training, strict=True) for text in kind]
        lines.sort(key=lambda line: xxhash.xxh3_64_intdigest(line.encode(), params.seed + 1))
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        try:
            model = fasttext.train_supervised(
                input=str(file), lr=params.lr, dim=params.dim, epoch=params.epoch, wordNgrams=params.word_ngrams,
                minCount=params.min_count, bucket=params.bucket, thread=_THREADS, seed=params.seed, verbose=0,
            )  # fmt: skip
        except RuntimeError as error:
            raise ValueError(
                f"fastText cannot train this ({error}): a lower lr than {params.lr:g}, or another dim, may help"
            ) from error
        partial = path.with_name(f".{path.name}.partial")
        model.save_model(str(partial))
        partial.replace(path)
    classifier = Classifier(path)
    scores = [np.array([classifier.score(t) or 0.0 for t in kind]) for kind in held_out]
    with path.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return Trained(path, params, len(training[0]), len(training[1]), evaluate(scores[0], scores[1]), sha256)


def evaluate(positives: NDArray[np.float64], negatives: NDArray[np.float64]) -> Evaluation:
    """How well scores tell positives from negatives, and whether they are probabilities."""
    from sklearn.metrics import brier_score_loss, precision_recall_fscore_support, roc_auc_score

    truth = np.concatenate([np.ones(len(positives), int), np.zeros(len(negatives), int)])
    scores = np.concatenate([positives, negatives]).clip(0, 1)  # fastText's probabilities pass 1 by a rounding
    precision, recall, f1, _ = precision_recall_fscore_support(truth, scores >= 0.5, average="binary", zero_division=0.0)  # type: ignore[arg-type]
    bins: list[CalibrationBin] = []
    for number in range(BINS):
        inside = np.minimum((scores * BINS).astype(int), BINS - 1) == number
        count = int(inside.sum())
        bins.append(CalibrationBin(count, *(float(x[inside].mean()) if count else 0.0 for x in (scores, truth))))
    error = sum(b.documents * abs(b.mean_score - b.positive) for b in bins) / len(scores)
    return Evaluation(
        len(positives), len(negatives), float(precision), float(recall), float(f1), float(roc_auc_score(truth, scores)),
        float(brier_score_loss(truth, scores)), error, tuple(bins),
    )  # fmt: skip


def model_card(trained: Trained, positives: str, negatives: str, signal: str | None = None) -> str:
    """The model card, in Markdown. positives, negatives: where the documents came from."""
    e, p = trained.evaluation, trained.params
    bins = [
        f"| {i / BINS:.1f}-{(i + 1) / BINS:.1f} | {b.documents} | {b.mean_score:.3f} | {b.positive:.3f} |"
        for i, b in enumerate(e.calibration)
        if b.documents
    ]
    settings = ", ".join(f"{name} {value}" for name, value in p.model_dump().items() if name != "name")
    use = f"--classifier {signal or 'rps_doc_ml_wikipedia_score'}={trained.path.name}"
    return "\n".join(
        [
            f"# {trained.path.name}",
            "",
            f"A fastText classifier that tells `{LABEL}{p.name}` from `{OTHER}`. The score of a document is the probability "
            "that it is of the first kind. It sees the text with its lines joined by spaces.",
            "",
            f"- positive documents: {positives}",
            f"- negative documents: {negatives}",
            f"- trained on {trained.training_positives} and {trained.training_negatives} documents, each text once",
            f"- fastText {_fasttext_version()}: {settings}",
            f"- sha256: {trained.sha256}",
            f"- use: `menagerie annotate IN -o OUT {use}`",
            "",
            f"## Held-out documents: {e.positives} positive, {e.negatives} negative",
            "",
            "| precision at 0.5 | recall at 0.5 | F1 | AUC | Brier score | calibration error |",
            "|---|---|---|---|---|---|",
            f"| {e.precision:.4f} | {e.recall:.4f} | {e.f1:.4f} | {e.auc:.4f} | {e.brier:.4f} | {e.calibration_error:.4f} |",
            "",
            "| score | documents | mean score | share positive |",
            "|---|---|---|---|",
            *bins,
            "",
        ]
    )


def told_as_json(trained: Trained) -> dict[str, Any]:
    """For `--json`."""
    return {**asdict(trained), "path": str(trained.path), "params": trained.params.model_dump()}


def classifier_files(models: Mapping[str, str | Mapping[str, str]]) -> dict[str, str]:
    """The files of models by signal, or by signal and language, under the keys that `load_classifiers` reads."""
    found: dict[str, str] = {}
    for signal, told in models.items():
        by_language = (
            {f"{_KEY}/{signal}": told} if isinstance(told, str) else {f"{_KEY}/{signal}/{k}": v for k, v in told.items()}
        )
        found |= by_language
    return found


def load_classifiers(files: Mapping[str, Path]) -> dict[str, Classifier | dict[str, Classifier]]:
    """The models among files, by signal, or by signal and language; a file that serves several is loaded once.

    ValueError if one is no classifier.
    """
    keys = {key: path for key, path in files.items() if key.startswith(f"{_KEY}/")}
    loaded = {path: Classifier(path) for path in dict.fromkeys(keys.values())}
    models: dict[str, Classifier | dict[str, Classifier]] = {}
    for key, path in keys.items():
        _, signal, *language = key.split("/")
        if not language:
            models[signal] = loaded[path]
            continue
        of_language = models.setdefault(signal, {})
        assert isinstance(of_language, dict)
        of_language[language[0]] = loaded[path]
    return models


def _balanced(positives: Iterable[tuple[str, str]], negatives: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Prepared texts of each kind, each once, those of both left out, as many of each as there are of the fewer."""
    kinds = [list(dict.fromkeys(text for _, raw in kind if (text := prepare(raw)))) for kind in (positives, negatives)]
    both = set(kinds[0]) & set(kinds[1])
    kinds = [[text for text in kind if text not in both] for kind in kinds]
    number = min(map(len, kinds))
    return [kind[:number] for kind in kinds]


def _is_held_out(text: str, params: ClassifierParams) -> bool:
    return xxhash.xxh3_64_intdigest(text.encode(), params.seed + 2) < params.held_out * 2**64


def _fasttext_version() -> str:
    for name in ("fasttext", "fasttext-wheel"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "of unknown version"
