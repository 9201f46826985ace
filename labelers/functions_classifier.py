"""Labelling functions from classifiers: a fastText model, or any Python callable."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
from pydantic import Field

from labelers.functions import class_index
from labelers.functions_python import file_of, import_file
from labelers.functions_rules import FunctionParams, text_column
from labelers.votes import ABSTAIN

Classify = Callable[[Sequence[str]], Sequence[Any]]
"""Texts to one answer per text: a label, a pair of a label and its probability, or None."""


class ClassifierParams(FunctionParams):
    """A labelling function from a classifier: what it is sure enough of becomes a vote. Null text abstains."""

    classifier: str = Field(
        description="A fastText model (.bin, .ftz), or a Python callable: `module:attribute` or `file.py:attribute`. It is "
        "given a list of texts and answers with a label, a (label, probability) pair or None for each."
    )
    column: str | None = Field(None, description="Column with the text; `raw_content`, `text` or `content` if not given.")
    classes: dict[str, str | None] | None = Field(
        None, description="Class of each of its labels; other labels abstain. Not given: its labels are the task's classes."
    )
    min_probability: float = Field(0.0, ge=0, le=1, description="Least probability of a label that becomes a vote.")

    def classes_named(self) -> tuple[str | None, ...]:
        return tuple((self.classes or {}).values())

    @property
    def _path(self) -> str:
        return self.classifier if self.classifier.endswith((".bin", ".ftz")) else file_of(self.classifier.rpartition(":")[0])

    def files(self) -> Mapping[str, str]:
        if not self.classifier.endswith((".bin", ".ftz")) and ":" not in self.classifier:
            raise ValueError(
                f"labelling function {self.name}: classifier {self.classifier} is neither a fastText model (.bin, .ftz) nor "
                "module:attribute"
            )
        return {f"classifier:{self.classifier}": self._path}

    def load(self, files: Mapping[str, Path]) -> Classifier:
        what = f"labelling function {self.name}"
        path = files[f"classifier:{self.classifier}"]
        return Classifier(self.name, self._loaded(path, what), self.classes, self.min_probability, self.column)

    def _loaded(self, path: Path, what: str) -> Classify:
        if self.classifier.endswith((".bin", ".ftz")):
            from labelers.fasttext_model import FastTextModel

            try:
                model = FastTextModel(path)
                model.classify([])
            except ValueError as error:
                raise ValueError(f"{what}: {error}") from error

            def classify(texts: Sequence[str]) -> list[tuple[str | None, float]]:
                labels, probabilities = model.classify(texts)
                return list(zip(labels, probabilities.tolist(), strict=True))

            return classify
        module, _, attribute = self.classifier.rpartition(":")
        holder = import_file(path, what) if module.endswith(".py") else importlib.import_module(module)
        called: Any = getattr(holder, attribute, None)
        if not callable(called):
            raise ValueError(f"{what}: {module} has no callable {attribute}")
        return cast(Classify, called)  # whatever it returns, `vote_on` checks


@dataclass(frozen=True)
class Classifier:
    """A labelling function that asks a callable. classes: class of each label; None takes labels for classes."""

    name: str
    classify: Classify
    classes: Mapping[str, str | None] | None = None
    min_probability: float = 0.0
    column: str | None = None

    def vote_on(self, frame: pl.DataFrame, index: Mapping[str, int]) -> tuple[np.ndarray, Counter[str]]:
        what = f"labelling function {self.name}"
        column = text_column(self.column, frame, what)
        known = frame[column].is_not_null().to_numpy().nonzero()[0]
        texts = frame[column].drop_nulls().to_list()
        try:
            answers = self.classify(texts) if texts else []
        except Exception as error:
            raise ValueError(f"{what}: the classifier fails: {type(error).__name__}: {error}") from error
        if len(answers) != len(texts):
            raise ValueError(f"{what}: the classifier gives {len(answers)} answers for {len(texts)} texts")
        votes = np.full(frame.height, ABSTAIN, np.int8)
        for row, answer in zip(known.tolist(), answers, strict=True):
            label, probability = answer if isinstance(answer, tuple) else (answer, 1.0)
            if label is None or not probability >= self.min_probability:
                continue
            named = label if self.classes is None else self.classes.get(str(label))
            votes[row] = class_index(named, index, f"{what} on document {frame['id'][row]}")
        return votes, Counter()
