"""Labelling functions from spans: annotations of parts of a document, reduced to one number and compared with thresholds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from labelers.functions import class_index
from labelers.functions_rules import FunctionParams
from labelers.spans import Reduction, Spans
from pipeline import expressions
from pipeline.frames import characters

LINE_START, LINE_END = "line_start", "line_end"
"""Where a corpus keeps the ends of the lines that line signals have one score each for."""


class SpanParams(FunctionParams):
    """A labelling function from spans. A column holds `[start, end, score]` triples per document, or is a line signal.

    Spans are filtered, cut by other spans, joined, and reduced to one number per document. A document without a value (no
    spans to take the mean of, no text) abstains, and so does one whose spans are null.
    """

    spans: str = Field(description="Column of spans, or of a line signal (`rps_lines_num_words`).")
    min_score: float | None = Field(None, description="Least score of the spans that count.")
    max_score: float | None = Field(None, description="Largest score of the spans that count.")
    min_length: int | None = Field(None, description="Least length, in characters, of the spans that count.")
    max_length: int | None = Field(None, description="Largest length of the spans that count.")
    within: str | None = Field(None, description="Column of other spans: only what lies in them counts.")
    minus: str | None = Field(None, description="Column of other spans: what lies in them does not count.")
    gap: int | None = Field(None, ge=0, description="Join spans that have at most so many characters between them.")
    reduce: Reduction = Field(
        "coverage",
        description="What is compared: `coverage` (share of the document's characters), `count`, `length` (characters), or the "
        "`max`, `min`, `sum`, `mean` or length-`weighted` mean of the scores.",
    )
    min: float | None = Field(None, description="Least value for the vote.")
    max: float | None = Field(None, description="Largest value for the vote.")
    vote: str = Field(description="Class voted for where the value is within bounds.")
    otherwise: str | None = Field(None, description="Class voted for elsewhere; none abstains.")

    @model_validator(mode="after")
    def _check(self) -> SpanParams:
        what = f"labelling function {self.name}"
        if self.min is None and self.max is None:
            raise ValueError(f"{what}: spans need min or max, the threshold of their {self.reduce}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"{what}: min {self.min:g} is above max {self.max:g}")
        return self

    def classes_named(self) -> tuple[str | None, ...]:
        return (self.vote, self.otherwise)

    def vote_on(self, frame: pl.DataFrame, index: Mapping[str, int]) -> tuple[np.ndarray, Counter[str]]:
        what = f"labelling function {self.name}"
        spans = spans_of(self.spans, frame, what)
        spans = spans.filter(self.min_score, self.max_score, self.min_length, self.max_length)
        if self.within is not None:
            spans = spans.intersect(spans_of(self.within, frame, what).coalesce())
        if self.minus is not None:
            spans = spans.minus(spans_of(self.minus, frame, what))
        if self.gap is not None:
            spans = spans.coalesce(self.gap)
        lengths: Any = None
        if self.reduce == "coverage":
            lengths = frame.select(characters(frame, what)).to_series().to_numpy()
        classes = (class_index(c, index, what) for c in (self.vote, self.otherwise))
        try:
            votes = spans.to_votes(*classes, how=self.reduce, lengths=lengths, min=self.min, max=self.max)
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from error
        votes[frame[self.spans].is_null().to_numpy()] = -1
        return votes, Counter()


def spans_of(column: str, frame: pl.DataFrame, what: str) -> Spans:
    """The spans of a column of triples, or of a line signal. ValueError if the column is not there or holds neither."""
    if column not in frame.columns:
        raise expressions.unknown_column(column, frame.columns, what)
    kind = frame.schema[column]
    inner = kind.inner if isinstance(kind, pl.List) else None
    try:
        if inner is not None and inner.is_numeric():
            for name in (LINE_START, LINE_END):
                if name not in frame.columns:
                    raise ValueError(
                        f"{column} has one number per line: the columns {LINE_START} and {LINE_END} must be there too"
                    )
            start, end, score = (frame[name].to_arrow() for name in (LINE_START, LINE_END, column))
            return Spans.from_lines(start, end, score)
        if inner is None or not inner.is_nested():
            raise ValueError(f"column {column} is {kind}, not spans: a list of [start, end, score], or of a number per line")
        return Spans.from_arrow(frame[column].to_arrow())
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
