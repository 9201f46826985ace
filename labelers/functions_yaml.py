"""Every kind of labelling function that YAML knows, told apart by the field that it alone has, and how they are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Discriminator, Tag

from labelers.functions import Function
from labelers.functions_classifier import ClassifierParams
from labelers.functions_judge import JudgeParams
from labelers.functions_python import PythonParams, file_of, load_python
from labelers.functions_rules import RuleParams
from labelers.functions_scores import ScoreParams
from labelers.functions_spans import SpanParams
from labelers.functions_text import TextParams

_OWN_FIELDS = {
    "python": "python",
    "keywords": "text",
    "keywords_file": "text",
    "pattern": "text",
    "score": "score",
    "spans": "spans",
    "classifier": "classifier",
    "judge": "judge",
}


def _kind(told: Any) -> str:
    if isinstance(told, dict):
        return next((kind for own, kind in _OWN_FIELDS.items() if own in told), "rule")
    return next((tag for tag, kind in _KINDS.items() if isinstance(told, kind)), "rule")


_KINDS = {
    "python": PythonParams,
    "text": TextParams,
    "score": ScoreParams,
    "spans": SpanParams,
    "classifier": ClassifierParams,
    "judge": JudgeParams,
}

Told = RuleParams | TextParams | ScoreParams | SpanParams | ClassifierParams | JudgeParams | PythonParams

AnyFunctionParams = Annotated[
    Annotated[RuleParams, Tag("rule")]
    | Annotated[TextParams, Tag("text")]
    | Annotated[ScoreParams, Tag("score")]
    | Annotated[SpanParams, Tag("spans")]
    | Annotated[ClassifierParams, Tag("classifier")]
    | Annotated[JudgeParams, Tag("judge")]
    | Annotated[PythonParams, Tag("python")],
    Discriminator(_kind),
]
"""A labelling function in YAML: a rule, unless it has the field of another kind (`keywords`, `score`, `judge`, ...)."""


def load_functions(told: Sequence[Told], files: Mapping[str, Path]) -> list[Function]:
    """The labelling functions of a task, in order.

    files: local path of each resource file, by the key that `function_files` gave it. ValueError if one cannot be loaded, a
    Python file holds no labelling function, or two functions have one name.
    """
    functions: list[Function] = []
    for entry in told:
        if isinstance(entry, PythonParams):
            functions += load_python(entry.python, files)
        else:
            functions.append(entry.load(files))
    names = [f.name for f in functions]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two labelling functions are called {name}")
        if name == "id":
            raise ValueError("a labelling function cannot be called id: its votes are a column beside the documents' id")
    return functions


def function_files(told: Sequence[Told]) -> dict[str, str]:
    """The files that the functions come from or read, by key: their content belongs to a stage's fingerprint."""
    files: dict[str, str] = {}
    for entry in told:
        if isinstance(entry, PythonParams):
            files[f"python:{entry.python}"] = file_of(entry.python)
        else:
            files |= entry.files()
    return files
