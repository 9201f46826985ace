"""Language identification: fastText's lid.176 as CCNet uses it, or Resiliparse's built-in detector."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import Field, model_validator

from pipeline.stage import Params

MODEL_KEY = "language_id"
"""The key of the fastText model among a stage's resource files."""
RANK_LIMIT = 1200
"""Resiliparse's out-of-place rank above which, as its documentation says, a result is usually false. It scores 0.5."""

_LABEL = "__label__"
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")  # it becomes a part of a file name, before an underscore


class LanguageParams(Params):
    """Language identification."""

    kind: Literal["fasttext", "resiliparse"] = Field(
        default="fasttext",
        description="fasttext: a fastText model (CCNet's choice). resiliparse: the detector that comes with Resiliparse "
        "(101 languages, no model file); its score is 1 - rank / 2400, so that 0.5 is its own limit of trust.",
    )
    model: str | None = Field(
        default=None,
        description="For fasttext: a path to a model such as lid.176.bin, or a name from `menagerie models list` that has "
        "been fetched. lid176 if not given.",
    )
    threshold: float = Field(
        default=0.5, ge=0, le=1, description="Least score, rounded to two decimals, with which a document is kept (CCNet: 0.5)."
    )

    @model_validator(mode="after")
    def _one_detector(self) -> LanguageParams:
        if self.kind == "resiliparse" and self.model is not None:
            raise ValueError(f"kind: resiliparse takes no model, and model: {self.model} is given; remove one of the two")
        return self

    def files(self) -> Mapping[str, str]:
        """The model file, if there is one. ValueError if it is not there, with the command that fetches it."""
        if self.kind == "resiliparse":
            return {}
        from pipeline.models import locate, registry

        model = self.model or "lid176"
        if model in registry():
            return {MODEL_KEY: str(locate(model)[0])}
        if "://" not in model and not Path(model).expanduser().is_file():
            raise ValueError(
                f"the language-id model {model} does not exist: give a path to lid.176.bin or lid.176.ftz, "
                "or run `menagerie models fetch lid176` and give lid176"
            )
        return {MODEL_KEY: model if "://" in model else str(Path(model).expanduser())}


class LanguageDetector(Protocol):
    """Says which language a text is in."""

    def detect(self, texts: Sequence[str]) -> tuple[list[str | None], np.ndarray]:
        """Per text its language code (None if there is nothing to go by), and a score in [0, 1], rounded to two decimals."""
        ...


def load_detector(params: LanguageParams, files: Mapping[str, Path]) -> LanguageDetector:
    """The detector that the parameters name. files: local paths of `params.files()`. ValueError if the model is none."""
    return FastText(files[MODEL_KEY]) if params.kind == "fasttext" else Resiliparse()


class FastText:
    """A fastText classifier on the text with its newlines deleted, as CCNet does it (cc_net `split_by_lang.py`)."""

    def __init__(self, path: Path) -> None:
        from fasttext.FastText import _FastText

        try:
            # `load_model` of the package prints a warning, and its `predict` fails under NumPy 2: go below both.
            self._predict: Any = _FastText(model_path=str(path)).f.predict
            self._predict("a\n", 1, 0.0, "strict")
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{path} is no fastText classifier: {error}") from error

    def detect(self, texts: Sequence[str]) -> tuple[list[str | None], np.ndarray]:
        languages: list[str | None] = []
        scores = np.zeros(len(texts))
        for row, text in enumerate(texts):
            found = self._predict(text.replace("\n", "") + "\n", 1, 0.0, "strict")
            languages.append(_code(found[0][1].removeprefix(_LABEL)) if found else None)
            scores[row] = found[0][0] if found else 0.0
        return languages, scores.round(2)


class Resiliparse:
    """Resiliparse's `detect_fast`. It gives a distance, the out-of-place rank, which the score maps to [0, 1]."""

    def detect(self, texts: Sequence[str]) -> tuple[list[str | None], np.ndarray]:
        from resiliparse.parse.lang import detect_fast

        languages: list[str | None] = []
        ranks = np.full(len(texts), 2.0 * RANK_LIMIT)
        for row, text in enumerate(texts):
            # Asked about digits and dashes, it would answer English.
            language, rank = detect_fast(text, cutoff=2 * RANK_LIMIT) if any(map(str.isalpha, text)) else ("unknown", 0)
            if language == "unknown":
                languages.append(None)
            else:
                languages.append(language)
                ranks[row] = rank
        return languages, (1 - ranks / (2 * RANK_LIMIT)).round(2)


def _code(label: str) -> str:
    code = label.replace("_", "-")
    if not _CODE.fullmatch(code):
        raise ValueError(f"the language-id model answers {label!r}, which is no language code: give a language-id model")
    return code
