"""CCNet's own measurements of a document, as signals: what RedPajama-V2 publishes as `ccnet_*`."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.text import TextBatch
from quality.registry import scores, signal

_SOURCE = "CCNet; RedPajama-V2"
BUCKETS = ("head", "middle", "tail")
"""CCNet's perplexity buckets; RedPajama-V2 writes their position as a float."""


@signal("ccnet_length", needs="characters", columns="length", source=_SOURCE, range=(0, None))
def length(text: TextBatch) -> pa.Array:
    """Characters of the document; counted from the text where the documents have no column `length`."""
    return _column(text, "length", text.characters)


@signal("ccnet_original_length", needs="characters", columns="original_length", source=_SOURCE, range=(0, None))
def original_length(text: TextBatch) -> pa.Array:
    """Bytes of the source record's block; the characters of the text where there is no column `original_length`."""
    return _column(text, "original_length", text.characters)


@signal("ccnet_nlines", needs="lines", columns="nlines", source=_SOURCE, range=(1, None))
def nlines(text: TextBatch) -> pa.Array:
    """Lines of the document; newlines of the text plus one where the documents have no column `nlines`."""
    return _column(text, "nlines", _lines(text))


@signal("ccnet_original_nlines", needs="lines", columns="original_nlines", source=_SOURCE, range=(1, None))
def original_nlines(text: TextBatch) -> pa.Array:
    """Lines before paragraph deduplication; those of the text where there is no column `original_nlines`."""
    return _column(text, "original_nlines", _lines(text))


@signal("ccnet_language_score", columns="language_score", source=_SOURCE, range=(0, 1))
def language_score(text: TextBatch) -> pa.Array:
    """Confidence of the language identification; null without it."""
    return _column(text, "language_score")


@signal("ccnet_perplexity", columns="perplexity", source=_SOURCE, range=(0, None))
def perplexity(text: TextBatch) -> pa.Array:
    """Perplexity under the language model of the document's language; null without a model."""
    return _column(text, "perplexity")


@signal("ccnet_bucket", columns="bucket", source=_SOURCE, range=(0, 2))
def bucket(text: TextBatch) -> pa.Array:
    """Perplexity bucket: head 0.0, middle 1.0, tail 2.0, anything else null."""
    if "bucket" not in text.columns:
        return _column(text, "bucket")
    names = pc.SetLookupOptions(pa.array(BUCKETS), skip_nulls=True)
    return pc.call_function("index_in", [text.columns["bucket"].cast(pa.string())], names).cast(pa.float64())


def _lines(text: TextBatch) -> np.ndarray:
    """Newlines plus one: a newline at the end of a text, or an empty text, has one line more than there are to read."""
    ends = text.offsets[1:]
    empty = ends == text.offsets[:-1]
    open_ended = empty.copy()
    open_ended[~empty] = text.data[ends[~empty] - 1] == ord("\n")
    return text.lines.counts + open_ended


def _column(text: TextBatch, name: str, otherwise: np.ndarray | None = None) -> pa.Array:
    if name in text.columns:
        try:
            values = text.columns[name].cast(pa.float64())
            no_value = pa.scalar(None, pa.float64())
            return pc.call_function("if_else", [pc.call_function("is_nan", [values]), no_value, values])
        except pa.ArrowException as error:
            raise ValueError(f"column {name} should hold numbers: {error}; rename it, or leave out ccnet_{name}") from error
    return scores(otherwise) if otherwise is not None else pa.nulls(len(text), pa.float64())
