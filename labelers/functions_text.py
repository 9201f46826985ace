"""Labelling functions that look for words or patterns in the text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl
from polars.exceptions import PolarsError
from pydantic import Field, PrivateAttr, model_validator

from labelers.functions import class_index, votes_of
from labelers.functions_rules import FunctionParams, text_column

PIECE = 1000
"""Keywords in one automaton: a longer list is counted in several, since one is limited in size."""


class TextParams(FunctionParams):
    """A labelling function that counts keywords, or matches of a regular expression, in the text. Null text abstains."""

    keywords: tuple[str, ...] | None = Field(None, description="Words or phrases, found as whole words.")
    keywords_file: str | None = Field(
        None, description="The same from a file, one a line; lines that begin with # are comments."
    )
    pattern: str | None = Field(
        None, description="A regular expression instead (Rust's syntax: no look-around), `(?i)` and so on."
    )
    column: str | None = Field(None, description="Column with the text; `raw_content`, `text` or `content` if not given.")
    ignore_case: bool = Field(True, description="Whether keywords are found in any case; a pattern says so itself.")
    count: Literal["matches", "per_1000_words", "per_1000_characters"] = Field(
        "matches",
        description="What `min` and `max` bound: matches, or matches per 1000 words (between white space) or characters.",
    )
    min: float | None = Field(None, description="Least count for the vote; 1 match if neither min nor max is given.")
    max: float | None = Field(None, description="Largest count for the vote.")
    vote: str = Field(description="Class voted for where the count is within bounds.")
    otherwise: str | None = Field(None, description="Class voted for elsewhere; none abstains.")

    _from_file: tuple[str, ...] | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _check(self) -> TextParams:
        what = f"labelling function {self.name}"
        if sum(g is not None for g in (self.keywords, self.keywords_file, self.pattern)) != 1:
            raise ValueError(f"{what}: give one of keywords, keywords_file and pattern")
        if self.keywords is not None and not all(k.strip() for k in self.keywords or ("",)):
            raise ValueError(f"{what}: keywords must be a list of words that are not empty")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"{what}: min {self.min:g} is above max {self.max:g}")
        if self.count != "matches" and self.min is None and self.max is None:
            raise ValueError(f"{what}: count {self.count} needs min or max")
        if self.pattern is not None:
            try:
                pl.Series([""]).str.count_matches(self.pattern)
            except PolarsError as error:
                raise ValueError(f"{what}: pattern {self.pattern!r} is not understood: {_told(error)}") from error
        return self

    def classes_named(self) -> tuple[str | None, ...]:
        return (self.vote, self.otherwise)

    def files(self) -> Mapping[str, str]:
        return {f"keywords:{self.keywords_file}": self.keywords_file} if self.keywords_file else {}

    def load(self, files: Mapping[str, Path]) -> TextParams:
        if self.keywords_file is None:
            return self
        loaded = self.model_copy()
        loaded._from_file = read_keywords(files[f"keywords:{self.keywords_file}"], f"labelling function {self.name}")
        return loaded

    def expression(self, frame: pl.DataFrame, index: Mapping[str, int]) -> pl.Expr:
        what = f"labelling function {self.name}"
        text = pl.col(text_column(self.column, frame, what))
        count: Any = pl.sum_horizontal([text.str.count_matches(p) for p in self._patterns()]).cast(pl.Float64)
        if self.count == "per_1000_words":
            words = text.str.count_matches(r"\S+")
            count = pl.when(words > 0).then(1000 * count / words).otherwise(0.0)
        elif self.count == "per_1000_characters":
            characters = text.str.len_chars()
            count = pl.when(characters > 0).then(1000 * count / characters).otherwise(0.0)
        inside = pl.lit(True)
        if self.min is not None or self.max is None:
            inside = inside & (count >= (1 if self.min is None else self.min))
        if self.max is not None:
            inside = inside & (count <= self.max)
        inside = pl.when(text.is_not_null()).then(inside)
        return votes_of(inside, class_index(self.vote, index, what), class_index(self.otherwise, index, what))

    def _patterns(self) -> list[str]:
        if self.pattern is not None:
            return [self.pattern]
        keywords = self.keywords or self._from_file
        assert keywords, "load reads the keywords of a file"
        # Longer ones first: where one is the beginning of another, the alternation must not stop at it.
        ordered = sorted(set(keywords), key=lambda k: (-len(k), k))
        flags = "(?i)" if self.ignore_case else ""
        return [f"{flags}(?:{'|'.join(map(_whole, ordered[i : i + PIECE]))})" for i in range(0, len(ordered), PIECE)]


def read_keywords(path: Path, what: str) -> tuple[str, ...]:
    """The keywords of a file, one a line. ValueError if there is none, or it is not UTF-8."""
    try:
        lines: Sequence[str] = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{what}: keywords file {path}: {error}") from error
    found = tuple(dict.fromkeys(k for line in lines if (k := line.strip()) and not k.startswith("#")))
    if not found:
        raise ValueError(f"{what}: the keywords file {path} holds no keyword")
    return found


def _whole(keyword: str) -> str:
    """A keyword as a pattern: bounded where it begins or ends in a word character; any white space between its words."""
    words = keyword.split()
    pattern = r"\s+".join(re.escape(w) for w in words)
    before = r"\b" if re.match(r"\w", words[0]) else ""
    return before + pattern + (r"\b" if re.search(r"\w$", words[-1]) else "")


def _told(error: BaseException) -> str:
    return " ".join(str(error).split())
