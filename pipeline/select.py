"""Which documents enter a mixture, under which component, and why the others do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import polars as pl
import xxhash
from pydantic import Field, StringConstraints, field_validator, model_validator

from pipeline import expressions
from pipeline.importance_sample import NOT_SAMPLED, ImportanceSample
from pipeline.stage import Params

NO_COMPONENT = "no_component"
"""The reason of a document that passes every filter and belongs to no component."""

Reason = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
ComponentName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]


class Filter(Params):
    """One named condition. The first filter that a document fails is the reason why it is not selected."""

    name: Reason = Field(description="The reason that drop counts show for documents that fail here, snake_case.")
    keep: str | None = Field(None, description="SQL condition that a selected document meets; unknown (null) fails it.")
    drop: str | None = Field(None, description="SQL condition that no selected document meets; unknown (null) passes.")

    @model_validator(mode="after")
    def _check(self) -> Filter:
        if (self.keep is None) == (self.drop is None):
            raise ValueError(f"filter {self.name}: give either keep or drop")
        if self.name in (NO_COMPONENT, NOT_SAMPLED):
            raise ValueError(f"filter {self.name}: this name is for documents that no component takes, or that are not sampled")
        expressions.parse(self.keep or self.drop or "", f"filter {self.name}")
        return self

    def passes(self, frame: pl.DataFrame) -> pl.Expr:
        """True where a document passes; never null. ValueError if the condition does not fit the frame's columns."""
        source = self.keep if self.keep is not None else self.drop
        assert source is not None
        holds = expressions.condition(source, frame, f"filter {self.name}").fill_null(False)
        return holds if self.keep is not None else ~holds


class Component(Params):
    """One part of a mixture. Conditions given together must all hold; a component without any takes every document."""

    name: ComponentName = Field(description="Its name, in paths and reports.")
    where: str | None = Field(None, description="SQL condition over the columns of the tables; unknown (null) does not match.")
    languages: tuple[str, ...] | None = Field(None, description="Only documents in these languages.")
    buckets: tuple[str, ...] | None = Field(None, description="Only documents of these perplexity buckets (head, middle, ...).")
    weight: float | None = Field(
        None, gt=0, description="Its share of the tokens, relative to the others'; given for all components or for none "
        "(then in proportion to the tokens that each has)."
    )  # fmt: skip
    sample: ImportanceSample | None = Field(None, description="Only a sample of its documents, by importance.")
    max_epochs: float = Field(1.0, gt=0, description="How often its tokens may be seen at most; needing more is an error.")

    @field_validator("where")
    @classmethod
    def _parses(cls, value: str | None) -> str | None:
        if value is not None:
            expressions.parse(value, "where")
        return value

    def matches(self, frame: pl.DataFrame) -> pl.Expr:
        """True where the component takes a document; never null. ValueError if it does not fit the frame's columns."""
        what = f"component {self.name}"
        met = pl.lit(True)
        if self.where is not None:
            met &= expressions.condition(self.where, frame, what)
        for column, values in (("language", self.languages), ("bucket", self.buckets)):
            if values is not None:
                if column not in frame.columns:
                    raise expressions.unknown_column(column, frame.columns, what)
                met &= pl.col(column).is_in(list(values))
        return met.fill_null(False)


def assign(frame: pl.DataFrame, filters: Sequence[Filter], components: Sequence[Component]) -> pl.DataFrame:
    """Columns `component` and `reason`, aligned with the frame: exactly one of them is null in every row.

    Filters apply in order, and the first that fails is the reason; then the first component that matches takes the document.
    """
    reason = pl.lit(None, pl.String)
    for rule in reversed(filters):
        reason = pl.when(rule.passes(frame)).then(reason).otherwise(pl.lit(rule.name))
    component = pl.lit(None, pl.String)
    for part in reversed(components):
        component = pl.when(part.matches(frame)).then(pl.lit(part.name)).otherwise(component)
    chosen = frame.select("id", reason.alias("reason"), component.alias("component"))
    return chosen.select(
        pl.when(pl.col("reason").is_null()).then("component").alias("component"),
        pl.when(pl.col("reason").is_null() & pl.col("component").is_null())
        .then(pl.lit(NO_COMPONENT))
        .otherwise("reason")
        .alias("reason"),
    )


def held_out(keys: pl.Series, fraction: float) -> pl.Series:
    """True for about `fraction` of the keys, by xxh3-64 of the key: the same key is held out in every run and partition."""
    bound = int(fraction * 2**64)
    return pl.Series("heldout", [xxhash.xxh3_64_intdigest(str(k).encode()) < bound for k in keys.to_list()], dtype=pl.Boolean)
