"""A fastText model, called below its Python package, whose wrappers print warnings and fail under NumPy 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

_LARGE = 1 << 14  # bytes of a block, and buckets

LABEL = "__label__"


class FastTextModel:
    """A classifier or an embedding from a .bin or .ftz file. ValueError if the file is none."""

    def __init__(self, path: Path) -> None:
        from fasttext.FastText import _FastText

        try:
            self._model: Any = _FastText(model_path=str(path)).f
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{path} is no fastText model: {error}") from error
        self.dimension: int = self._model.getArgs().dim
        self.labels: tuple[str, ...] = ()
        if "sup" in str(self._model.getArgs().model):
            self.labels = tuple(label.removeprefix(LABEL) for label in self._model.getLabels("strict")[0])

    @property
    def words(self) -> set[str]:
        """The words that it knows; the end of a line is one to fastText."""
        return set(self._model.getVocab("strict")[0])

    def classify(self, texts: Sequence[str]) -> tuple[list[str | None], np.ndarray]:
        """The likeliest label of each text (None if it knows no word), and its probability. ValueError without labels."""
        if not self.labels:
            raise ValueError("this fastText model holds word vectors, and no labels")
        found = [self._model.predict(one_line(t) + "\n", 1, 0.0, "strict") for t in texts]
        names = [f[0][1].removeprefix(LABEL) if f else None for f in found]
        return names, np.array([min(f[0][0], 1.0) if f else 0.0 for f in found])

    def probabilities(self, texts: Sequence[str], labels: Sequence[str]) -> np.ndarray:
        """(n, len(labels)) probability of each label; rows sum to 1, and are uniform for a text without a word."""
        column = {LABEL + label: i for i, label in enumerate(labels)}
        out = np.zeros((len(texts), len(labels)))
        for row, text in enumerate(map(one_line, texts)):
            for probability, label in self._model.predict(text + "\n", -1, 0.0, "strict") if text else ():
                if label in column:
                    out[row, column[label]] = probability
        total = out.sum(axis=1, keepdims=True)
        return np.divide(out, total, out=np.full_like(out, 1 / max(len(labels), 1)), where=total > 0)

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """(n, dimension) float32: the mean of the unit vectors of each text's words (zero for a text without any)."""
        import fasttext_pybind as fasttext

        out = np.zeros((len(texts), self.dimension), np.float32)
        vector = fasttext.Vector(self.dimension)
        for row, text in enumerate(map(one_line, texts)):
            if text:  # the end of a line is a word to fastText, and alone says nothing
                self._model.getSentenceVector(vector, text + "\n")
                out[row] = np.array(vector)
        return out


def train(kind: Literal["supervised", "unsupervised"], texts: Path, output: Path, **options: Any) -> None:
    """Train a fastText model on a file, in one thread: the same file gives the same model. RuntimeError says why it cannot be.

    In one thread, fastText 0.9.3 sets a tenth of its input matrix to random numbers and leaves the rest as memory happens to
    be: NaNs, where something freed held some. Memory fresh from the system is zero, so it is trained in a process of its own
    whose allocator takes every large block from there. Word pairs or subwords must be on, so that the matrix is large.
    """
    assert options.get("wordNgrams", 1) > 1 or options.get("maxn", 0) > 0, "without buckets the matrix is small"
    options["bucket"] = max(options.get("bucket", 0), _LARGE)
    told = json.dumps({"kind": kind, "texts": str(texts), "output": str(output), "options": options})
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(_LARGE), "MALLOC_PERTURB_": "0"}
    command = [sys.executable, "-P", "-c", _TRAIN, told]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])


_TRAIN = """
import json, sys
import fasttext
told = json.loads(sys.argv[1])
call = getattr(fasttext, "train_" + told["kind"])
call(told["texts"], thread=1, verbose=0, **told["options"]).save_model(told["output"])
"""


def one_line(text: str) -> str:
    """fastText reads one document a line."""
    return " ".join(text.split())
