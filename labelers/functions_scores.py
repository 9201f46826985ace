"""Labelling functions from continuous scores: a class at one end, another at the other end, and doubt in between."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from pydantic import Field, model_validator

from labelers.functions import class_index
from labelers.functions_rules import FunctionParams
from labelers.votes import ABSTAIN
from pipeline import expressions


class ScoreParams(FunctionParams):
    """A labelling function from a score: it votes at the ends of the scale and abstains between them. Null and NaN abstain."""

    score: str = Field(description="Column with the score.")
    high: float | None = Field(None, description="From here on it votes `vote`.")
    low: float | None = Field(None, description="Up to here it votes `otherwise`.")
    vote: str | None = Field(None, description="Class of a high score.")
    otherwise: str | None = Field(None, description="Class of a low score.")

    @model_validator(mode="after")
    def _check(self) -> ScoreParams:
        what = f"labelling function {self.name}"
        if self.high is None and self.low is None:
            raise ValueError(f"{what}: a score needs high (where vote begins), low (where otherwise ends), or both")
        for bound, named, class_ in (("high", self.high, self.vote), ("low", self.low, self.otherwise)):
            if (named is None) != (class_ is None):
                told = "vote" if bound == "high" else "otherwise"
                raise ValueError(f"{what}: {bound} goes with {told}, the class of a {bound} score; give both or neither")
        if self.high is not None and self.low is not None and self.low >= self.high:
            raise ValueError(f"{what}: low {self.low:g} is not below high {self.high:g}")
        return self

    def classes_named(self) -> tuple[str | None, ...]:
        return (self.vote, self.otherwise)

    def expression(self, frame: pl.DataFrame, index: Mapping[str, int]) -> pl.Expr:
        what = f"labelling function {self.name}"
        if self.score not in frame.columns:
            raise expressions.unknown_column(self.score, frame.columns, what)
        kind = frame.schema[self.score]
        if not kind.is_numeric():
            raise ValueError(f"{what}: column {self.score} is {kind}; a score is a number")
        value = pl.col(self.score).fill_nan(None) if kind.is_float() else pl.col(self.score)
        vote, otherwise = (class_index(c, index, what) for c in (self.vote, self.otherwise))
        high = value >= self.high if self.high is not None else pl.lit(False)
        low = value <= self.low if self.low is not None else pl.lit(False)
        return pl.when(high).then(pl.lit(vote)).when(low).then(pl.lit(otherwise)).otherwise(pl.lit(ABSTAIN))
