"""Labelling functions from YAML: what they share, and rules: a range or a condition, and a vote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import polars as pl
from polars.exceptions import PolarsError
from pydantic import Field, model_validator

from labelers.functions import Function, class_index, votes_of
from pipeline import expressions
from pipeline.frames import TEXT_COLUMNS
from pipeline.stage import Params

Scalar = str | bool | int | float


class FunctionParams(Params):
    """What every labelling function in YAML has. A kind either is a function itself, or loads one from files."""

    name: str = Field(min_length=1, description="Its name: a column of `votes/<task>`.")

    def classes_named(self) -> tuple[str | None, ...]:
        """The classes that it may vote for, as far as YAML names them; checked when a recipe is read."""
        return ()

    def files(self) -> Mapping[str, str]:
        """Resource files, by a key of its own; their content belongs to a stage's fingerprint."""
        return {}

    def load(self, files: Mapping[str, Path]) -> Function:
        """The function. files: local path of each entry of `files()`."""
        return self  # type: ignore[return-value]


def text_column(column: str | None, frame: pl.DataFrame, what: str) -> str:
    """The column that holds the text: the one that is named, else the first of `TEXT_COLUMNS`. ValueError if it is no text."""
    name = column or next((n for n in TEXT_COLUMNS if n in frame.columns), None)
    if name is None:
        raise ValueError(
            f"{what}: no column {' or '.join(TEXT_COLUMNS)}; name the column; there are: {', '.join(frame.columns)}"
        )
    if name not in frame.columns:
        raise expressions.unknown_column(name, frame.columns, what)
    if frame.schema[name] != pl.String:
        raise ValueError(f"{what}: column {name} is {frame.schema[name]}, not text")
    return name


class RuleParams(FunctionParams):
    """A labelling function from YAML: a condition on one column, or a SQL condition, and a vote. Unknown (null) abstains."""

    column: str | None = Field(None, description="Column that `min`, `max` or `values` look at.")
    min: float | None = Field(None, description="Lower end of the range.")
    max: float | None = Field(None, description="Upper end of the range.")
    closed: Literal["both", "left", "right", "none"] = Field("both", description="Which ends belong to the range.")
    values: tuple[Scalar, ...] | None = Field(None, description="Values that count as inside, instead of a range.")
    where: str | None = Field(None, description="SQL condition over all columns, instead of a column.")
    vote: str = Field(description="Class voted for inside the range (or where the condition holds).")
    otherwise: str | None = Field(None, description="Class voted for outside; none abstains.")

    @model_validator(mode="after")
    def _check(self) -> RuleParams:
        ranged = self.min is not None or self.max is not None
        if (self.column is None) == (self.where is None):
            raise ValueError(f"labelling function {self.name}: give either column or where")
        if self.column is not None and ranged == (self.values is not None):
            raise ValueError(f"labelling function {self.name}: column {self.column} needs min and/or max, or values")
        if self.where is not None and (ranged or self.values is not None):
            raise ValueError(f"labelling function {self.name}: min, max and values go with column, not with where")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"labelling function {self.name}: min {self.min:g} is above max {self.max:g}")
        if self.values is not None and len({isinstance(v, str) + 2 * isinstance(v, bool) for v in self.values}) != 1:
            raise ValueError(
                f"labelling function {self.name}: values must be of one kind: all text, all numbers, or all booleans"
            )
        if self.where is not None:
            expressions.parse(self.where, f"labelling function {self.name}")
        return self

    def classes_named(self) -> tuple[str | None, ...]:
        return (self.vote, self.otherwise)

    def expression(self, frame: pl.DataFrame, index: Mapping[str, int]) -> pl.Expr:
        what = f"labelling function {self.name}"
        return votes_of(self.inside(frame), class_index(self.vote, index, what), class_index(self.otherwise, index, what))

    def inside(self, frame: pl.DataFrame) -> pl.Expr:
        """True inside, false outside, null where unknown (NaN is unknown). ValueError if the frame does not fit."""
        what = f"labelling function {self.name}"
        if self.where is not None:
            return expressions.condition(self.where, frame, what)
        assert self.column is not None
        if self.column not in frame.columns:
            raise expressions.unknown_column(self.column, frame.columns, what)
        value, kind = pl.col(self.column), frame.schema[self.column]
        if self.values is not None:
            expression = value.is_in(pl.lit(pl.Series(list(self.values), strict=False)).implode())
            try:
                frame.head(0).select(expression)
            except (PolarsError, TypeError) as error:
                raise ValueError(f"{what}: column {self.column} is {kind}, not one of {list(self.values)}") from error
            return expression
        if not kind.is_numeric():
            raise ValueError(f"{what}: column {self.column} is {kind}; min and max need numbers")
        value = value.fill_nan(None) if kind.is_float() else value
        inside = pl.lit(True)
        if self.min is not None:
            inside &= value >= self.min if self.closed in ("both", "left") else value > self.min
        if self.max is not None:
            inside &= value <= self.max if self.closed in ("both", "right") else value < self.max
        return inside
