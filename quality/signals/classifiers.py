"""The three classifier signals of RedPajama-V2, with models that the user gives: fastText, one per signal."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa

from pipeline.text import TextBatch
from quality.classifiers import Classifier
from quality.registry import Context, scores, signal

_SOURCE = "RedPajama-V2; RedPajama-V1"
_SHARE = (0.0, 1.0)
_ENGLISH = "en"


@signal("rps_doc_ml_palm_score", needs="text", columns="language", resources="classifiers", source=_SOURCE, range=_SHARE)
def palm_score(text: TextBatch, context: Context) -> pa.Array:
    """Probability that an English document is like Wikipedia, books and OpenWebText rather than a crawled page, by the
    classifier given for this signal; null without one, in other languages, and for an empty text."""
    return _classify("rps_doc_ml_palm_score", text, context, lambda language: language == _ENGLISH)


@signal("rps_doc_ml_wikipedia_score", needs="text", columns="language", resources="classifiers", source=_SOURCE, range=_SHARE)
def wikipedia_score(text: TextBatch, context: Context) -> pa.Array:
    """Probability that a document in another language than English is like Wikipedia rather than a crawled page, by the
    classifier given for this signal; null without one, in English, and for an empty text."""
    return _classify("rps_doc_ml_wikipedia_score", text, context, lambda language: language != _ENGLISH)


@signal("rps_doc_ml_wikiref_score", needs="text", columns="language", resources="classifiers", source=_SOURCE, range=_SHARE)
def wikiref_score(text: TextBatch, context: Context) -> pa.Array:
    """Probability that an English document is like the pages that Wikipedia refers to rather than any crawled page, by the
    classifier given for this signal; null without one, in other languages, and for an empty text."""
    return _classify("rps_doc_ml_wikiref_score", text, context, lambda language: language == _ENGLISH)


def _classify(name: str, text: TextBatch, context: Context, judges: Callable[[str | None], bool]) -> pa.Array:
    """The scores of a signal's model, or of its model of each document's language. Without a column `language` all documents
    are judged."""
    models: Classifier | Mapping[str, Classifier] | None = context.resources.classifiers.get(name)
    if models is None:
        return pa.nulls(len(text), pa.float64())
    languages = text.columns["language"].to_pylist() if "language" in text.columns else None
    values = np.full(len(text), np.nan)
    for row in range(len(text)):
        language = languages[row] if languages is not None else None
        if languages is not None and not judges(language):
            continue
        model = models.get(language or "") if isinstance(models, Mapping) else models
        score = model.score(text.string(row)) if model is not None else None
        if score is not None:
            values[row] = score
    return scores(values, ~np.isnan(values))
