"""A fastText model, called below its Python package, whose wrappers print warnings and fail under NumPy 2."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

_M_MMAP_THRESHOLD, _LARGE = -3, 1 << 14

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


def train(kind: Literal["supervised", "unsupervised"], path: Path, **options: Any) -> Any:
    """A fastText model trained on a file in one thread: the same file gives the same model. RuntimeError if it diverges.

    In one thread, fastText 0.9.3 sets a tenth of its input matrix to random numbers and leaves the rest as memory happens to
    be: NaNs where a freed array held some. Memory fresh from the system is zero, so the allocator is told to take large blocks
    from there. `bucket` is at least large enough for that.
    """
    import fasttext

    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
    options["bucket"] = max(options.get("bucket", 0), _LARGE)
    return getattr(fasttext, f"train_{kind}")(str(path), thread=1, verbose=0, **options)


def one_line(text: str) -> str:
    """fastText reads one document a line."""
    return " ".join(text.split())
