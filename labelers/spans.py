"""Spans: an interval algebra over text annotations, on flat arrays.

The algebra is Rekall's (Fu et al. 2019, arXiv 1910.02993) for one axis, with half-open integer offsets, so that spans which
touch share no character and no operation is approximate. A document's annotation is a list of `[start, end, score]`, the
format of RedPajama-V2 and Dolma. All documents lie behind each other on one line, which makes every operation a sort and a
sweep over flat arrays: O((a + b) log + k) for a and b spans and k results.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from labelers.spans_arrow import read_lines, read_lists, write_lists
from labelers.votes import MOST_CLASSES

ScoreOf = Literal["max", "min", "sum", "mean", "weighted"]
"""How scores become one: `weighted` is the mean weighted by length. Spans without a score (NaN) do not count."""
Reduction = Literal["coverage", "count", "length", "max", "min", "sum", "mean", "weighted"]
"""What a document's spans become: `coverage` is the share of its characters that a span covers, `length` their number."""


@dataclass(frozen=True, eq=False)
class Spans:
    """Spans of `documents` documents, sorted by document, start, end; several may be equal (a multiset).

    document, start, end: (n,) int64, half-open offsets (characters or tokens) from 0; score: (n,) float64, NaN for none.
    An empty span (start = end) covers nothing: it is kept, and relates to no other span. Build with `of` or `from_arrow`.
    """

    document: np.ndarray
    start: np.ndarray
    end: np.ndarray
    score: np.ndarray
    documents: int

    def __len__(self) -> int:
        return len(self.start)

    @classmethod
    def of(
        cls,
        document: Any,
        start: Any,
        end: Any,
        score: Any = None,
        documents: int | None = None,
    ) -> Spans:
        """Spans from columns in any order. ValueError on columns of unequal length, offsets below 0, or an end before a start.

        score: per span, one number for all, or None. documents: how many there are, if the last ones may have no span.
        """
        d, s, e = (_offsets(column, name) for column, name in ((document, "document"), (start, "start"), (end, "end")))
        if not len(d) == len(s) == len(e):
            raise ValueError(f"spans have {len(d)} documents, {len(s)} starts and {len(e)} ends: give one of each per span")
        scores = np.full(len(s), np.nan if score is None else score, np.float64) if np.ndim(score) == 0 else None
        scores = np.asarray(score, np.float64) if scores is None else scores
        if len(scores) != len(s):
            raise ValueError(f"spans have {len(s)} starts and {len(scores)} scores: give one of each per span")
        n = int(d.max(initial=-1)) + 1 if documents is None else documents
        for wrong, told in ((d < 0, "a document below 0"), (d >= n, f"a document beyond the {n} there are"),
                            (s < 0, "a start below 0"), (e < s, "an end before its start")):  # fmt: skip
            if wrong.any():
                i = int(np.flatnonzero(wrong)[0])
                raise ValueError(f"span {i} has {told}: document {d[i]}, [{s[i]}, {e[i]})")
        return cls._sorted(d, s, e, scores, n)

    @classmethod
    def _sorted(cls, document: np.ndarray, start: np.ndarray, end: np.ndarray, score: np.ndarray, documents: int) -> Spans:
        after = (document[1:] > document[:-1]) | (
            (document[1:] == document[:-1]) & ((start[1:] > start[:-1]) | ((start[1:] == start[:-1]) & (end[1:] >= end[:-1])))
        )
        if after.all():
            return cls(document, start, end, score, documents)
        order = np.lexsort((end, start, document))
        return cls(document[order], start[order], end[order], score[order], documents)

    @classmethod
    def from_arrow(cls, column: pa.Array | pa.ChunkedArray | Sequence[Any]) -> Spans:
        """One list per document of `[start, end, score]` (lists or structs; a score may be null). A null list has no spans."""
        return cls.of(*read_lists(column))

    @classmethod
    def from_lines(cls, start: pa.Array | pa.ChunkedArray, end: pa.Array | pa.ChunkedArray, score: Any) -> Spans:
        """Line signals as a corpus keeps them: three list columns with one entry per line of each document."""
        return cls.of(*read_lines(start, end, score))

    @classmethod
    def from_matches(cls, texts: Iterable[str | None], pattern: Any) -> Spans:
        """Where a compiled pattern (`re` or `regex`) matches, with score 1; offsets in characters."""
        found: list[tuple[int, int, int]] = []
        number = -1
        for number, text in enumerate(texts):
            found += [(number, m.start(), m.end()) for m in pattern.finditer(text or "")]
        document, start, end = np.array(found, np.int64).reshape(-1, 3).T
        return cls.of(document, start, end, 1.0, number + 1)

    def to_arrow(self) -> pa.Array:
        """A list of `{start, end, score}` per document; `from_arrow` reads it back."""
        return write_lists(self.start, self.end, self.score, self._counts())

    @property
    def length(self) -> np.ndarray:
        """(n,) characters (or tokens) of each span."""
        return self.end - self.start

    # --- one set

    def select(self, mask: np.ndarray) -> Spans:
        """The spans where a boolean mask (n,) holds, or at sorted indices."""
        mask = np.asarray(mask)
        if mask.dtype == bool and mask.shape != self.start.shape:
            raise ValueError(f"the mask has shape {mask.shape}, and there are {len(self)} spans")
        return Spans(self.document[mask], self.start[mask], self.end[mask], self.score[mask], self.documents)

    def filter(
        self,
        min_score: float | None = None,
        max_score: float | None = None,
        min_length: int | None = None,
        max_length: int | None = None,
    ) -> Spans:
        """Spans within bounds, ends included. A span without a score passes no bound on the score."""
        keep = np.ones(len(self), bool)
        for value, low, high in ((self.score, min_score, max_score), (self.length, min_length, max_length)):
            keep &= (value >= low) if low is not None else True
            keep &= (value <= high) if high is not None else True
        return self.select(keep)

    def dilate(self, before: int, after: int | None = None, lengths: Any = None) -> Spans:
        """Each span longer by `before` and `after` (the same if not given), cut at 0 and at the document's length.

        Negative numbers shrink spans; those of which nothing is left go. lengths: (documents,), or None for no right end.
        """
        after = before if after is None else after
        for told in (before, after):
            if isinstance(told, bool) or not isinstance(told, int | np.integer):
                raise ValueError(f"dilate by {told!r}: give a whole number of characters")
        start, end = np.maximum(self.start - before, 0), self.end + after
        if lengths is not None:
            limit = self._lengths(lengths)[self.document]
            start, end = np.minimum(start, limit), np.minimum(end, limit)
        keep = (start < end) & (self.start < self.end)
        return Spans._sorted(self.document[keep], start[keep], end[keep], self.score[keep], self.documents)

    def coalesce(self, gap: int = 0, score: ScoreOf = "max") -> Spans:
        """Spans joined where at most `gap` characters lie between them (0: they overlap or touch). Empty spans go.

        A joined span has the scores of its parts, reduced.
        """
        if gap < 0:
            raise ValueError(f"coalesce: gap {gap} is below 0; 0 joins spans that overlap or touch")
        a = self._proper()
        if not len(a):
            return a
        start, end = a._on_line(a, gap + 1)
        reach = np.maximum.accumulate(end)
        first = np.concatenate(([True], start[1:] > reach[:-1] + gap))
        at = np.flatnonzero(first)
        last = np.concatenate((at[1:], [len(a)])) - 1
        ends = a.start[at] + (reach[last] - start[at])  # on the line, lengths are those in the document
        return Spans(a.document[at], a.start[at], ends, _reduce(a, at, score), a.documents)

    def complement(self, lengths: Any, score: float = np.nan) -> Spans:
        """What no span covers of each document, 0 to its length. lengths: (documents,)."""
        sizes = self._lengths(lengths)
        whole = np.arange(self.documents)
        return Spans.of(whole, np.zeros_like(sizes), sizes, score, self.documents)._proper().minus(self)

    # --- two sets

    def union(self, other: Spans) -> Spans:
        """All spans of both (a multiset, as in Rekall); `coalesce` joins them."""
        _same_documents(self, other)
        d, s, e, x = (np.concatenate(pair) for pair in zip(self._columns(), other._columns(), strict=True))
        return Spans._sorted(d, s, e, x, self.documents)

    def intersect(
        self, other: Spans, score: Literal["first", "second", "sum", "product", "min", "max", "mean"] = "first"
    ) -> Spans:
        """What each pair of spans that share a character has in common: a join, with the scores combined."""
        from labelers.spans_join import join

        one, two = join(self, other, "intersects")
        a, b = self.score[one], other.score[two]
        combined = {
            "first": lambda: a, "second": lambda: b, "sum": lambda: a + b, "product": lambda: a * b,
            "min": lambda: np.fmin(a, b), "max": lambda: np.fmax(a, b), "mean": lambda: (a + b) / 2,
        }  # fmt: skip
        if score not in combined:
            raise ValueError(f"intersect: there is no score {score!r}; there are: {', '.join(combined)}")
        start, end = np.maximum(self.start[one], other.start[two]), np.minimum(self.end[one], other.end[two])
        return Spans._sorted(self.document[one], start, end, combined[score](), self.documents)

    def minus(self, other: Spans) -> Spans:
        """What `other` leaves of each span: none, one or several pieces, with the span's score."""
        _same_documents(self, other)
        a, b = self._proper(), other.coalesce()
        start, end = a._on_line(b)
        cut_start, cut_end = b._on_line(a)
        low = np.searchsorted(cut_end, start, "right")  # the first cut that ends after the span starts
        cuts = np.searchsorted(cut_start, end, "left") - low
        span = np.repeat(np.arange(len(a)), cuts + 1)
        piece = np.arange(len(span)) - np.repeat(np.cumsum(cuts + 1) - (cuts + 1), cuts + 1)
        edges = low[span] + piece
        padded_start, padded_end = np.append(b.start, 0), np.append(b.end, 0)
        begin = np.where(piece == 0, a.start[span], padded_end[np.maximum(edges - 1, 0)])
        stop = np.where(piece == cuts[span], a.end[span], padded_start[np.minimum(edges, len(b))])
        keep = begin < stop
        span = span[keep]
        return Spans._sorted(a.document[span], begin[keep], stop[keep], a.score[span], a.documents)

    def join(self, other: Spans, on: str | Sequence[str] = "intersects", within: tuple[int, int | None] | None = None):
        """Index pairs of spans that stand in one of the relations: see `labelers.spans_join.join`."""
        from labelers.spans_join import join

        return join(self, other, on, within)

    def related(
        self, other: Spans, on: str | Sequence[str] = "intersects", within: tuple[int, int | None] | None = None
    ) -> Spans:
        """The spans that stand in a relation to at least one of `other`, once each (Rekall's filter_against)."""
        return self.select(np.unique(self.join(other, on, within)[0]))

    # --- to documents, windows and votes

    def reduce(self, how: Reduction, lengths: Any = None) -> np.ndarray:
        """(documents,) float64: one number per document. lengths: (documents,), needed for `coverage` only.

        Without spans (or, for `max` to `weighted`, without scores) a document has 0 for coverage, count, length and sum, else
        NaN. Coverage and length count a character that several spans cover once; an empty document's coverage is NaN.
        """
        if how == "count":
            return self._counts().astype(np.float64)
        if how in ("coverage", "length"):
            joined = self.coalesce()
            covered = np.bincount(joined.document, joined.length, self.documents)
            if how == "length":
                return covered
            if lengths is None:
                raise ValueError("coverage needs the documents' lengths")
            sizes = self._lengths(lengths)
            if (covered > sizes).any():
                row = int(np.flatnonzero(covered > sizes)[0])
                raise ValueError(
                    f"document {row} has length {sizes[row]}, and spans that cover {covered[row]:.0f}: another unit?"
                )
            return np.divide(covered, sizes, out=np.full(self.documents, np.nan), where=sizes > 0)
        result = np.full(self.documents, 0.0 if how == "sum" else np.nan)
        starts = np.flatnonzero(np.diff(self.document, prepend=-1))
        reduced = _reduce(self, starts, how)
        result[self.document[starts]] = np.nan_to_num(reduced) if how == "sum" else reduced
        return result

    def onto(self, windows: Spans) -> Spans:
        """The spans cut by windows, each window a document of its own with offsets that count from its start.

        So paragraphs, lines or token windows are reduced and voted on as documents are; window i of the result is the i-th of
        `windows`. A span in several windows has a piece in each.
        """
        from labelers.spans_join import join

        one, window = join(self, windows, "intersects")
        begin = windows.start[window]
        start = np.maximum(self.start[one], begin) - begin
        end = np.minimum(self.end[one], windows.end[window]) - begin
        return Spans._sorted(window, start, end, self.score[one], len(windows))

    @classmethod
    def windows(cls, lengths: Any, size: int) -> Spans:
        """Windows of `size` characters or tokens that follow each other; a document's last one may be shorter."""
        if size < 1:
            raise ValueError(f"windows of size {size}: give at least 1")
        sizes = _offsets(lengths, "length")
        _not_negative(sizes)
        counts = -(-sizes // size)
        document = np.repeat(np.arange(len(sizes)), counts)
        start = (np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)) * size
        return cls.of(document, start, np.minimum(start + size, sizes[document]), None, len(sizes))

    def to_votes(
        self,
        vote: int,
        otherwise: int = -1,
        how: Reduction = "coverage",
        lengths: Any = None,
        min: float | None = None,
        max: float | None = None,
    ) -> np.ndarray:
        """(documents,) int8 votes: `vote` where the reduced value lies in [min, max], else `otherwise`; NaN abstains (-1)."""
        if min is None and max is None:
            raise ValueError("to_votes: give min or max, the threshold of the reduced value")
        for told in (vote, otherwise):
            if not -1 <= told < MOST_CLASSES:
                raise ValueError(f"to_votes: {told} is no vote; classes count from 0, and -1 abstains")
        low, high = -np.inf if min is None else min, np.inf if max is None else max
        if not low <= high:  # or NaN
            raise ValueError(f"to_votes: no value lies between min {min} and max {max}")
        value = self.reduce(how, lengths)
        inside = (value >= low) & (value <= high)
        return np.where(np.isnan(value), -1, np.where(inside, vote, otherwise)).astype(np.int8)

    # --- inside

    def _columns(self) -> tuple[np.ndarray, ...]:
        return self.document, self.start, self.end, self.score

    def _proper(self) -> Spans:
        """Without empty spans."""
        keep = self.start < self.end
        return self if keep.all() else self.select(keep)

    def _counts(self) -> np.ndarray:
        return np.bincount(self.document, minlength=self.documents)

    def _lengths(self, lengths: Any) -> np.ndarray:
        sizes = _offsets(lengths, "length")
        if len(sizes) != self.documents:
            raise ValueError(f"there are {self.documents} documents, and {len(sizes)} lengths")
        _not_negative(sizes)
        return sizes

    def _on_line(self, other: Spans, margin: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Start and end with every document behind the one before it, the same for both sets; `margin` apart."""
        shift = line(self, other, margin)[self.document]
        return self.start + shift, self.end + shift


def line(one: Spans, two: Spans, margin: int = 1) -> np.ndarray:
    """(documents,) where each document begins, if all lie on one line without overlap."""
    extent = np.zeros(one.documents, np.int64)
    for spans in (one, two):
        np.maximum.at(extent, spans.document, spans.end)
    return np.concatenate(([0], np.cumsum(extent + margin)[:-1])) if len(extent) else extent


def _reduce(spans: Spans, starts: np.ndarray, how: str) -> np.ndarray:
    """The scores of each run of spans (that begin at `starts`) as one; NaN where none has a score."""
    if not len(starts):
        return np.empty(0)
    if how in ("max", "min"):
        return (np.fmax if how == "max" else np.fmin).reduceat(spans.score, starts)
    if how not in ("sum", "mean", "weighted"):
        raise ValueError(f"there is no reduction {how!r} of scores; there are: max, min, sum, mean, weighted")
    scored = ~np.isnan(spans.score)
    weight = np.where(scored, spans.length if how == "weighted" else 1, 0).astype(np.float64)
    total = np.add.reduceat(np.where(scored, spans.score, 0) * (weight if how == "weighted" else 1), starts)
    if how == "sum":
        return np.where(np.add.reduceat(scored, starts, dtype=np.int64) > 0, total, np.nan)
    weights = np.add.reduceat(weight, starts)
    return np.divide(total, weights, out=np.full(len(starts), np.nan), where=weights > 0)


def _offsets(column: Any, name: str) -> np.ndarray:
    values = np.asarray(column)
    if values.dtype.kind == "f":
        whole = values.astype(np.int64, copy=True) if np.isfinite(values).all() else None
        if whole is None or (whole != values).any():
            raise ValueError(f"a span's {name} is no whole number")
        return whole
    if values.dtype.kind not in "iub" and values.size:
        raise ValueError(f"a span's {name} is {values.dtype}, not a whole number")
    return values.astype(np.int64)


def _not_negative(sizes: np.ndarray) -> None:
    if (sizes < 0).any():
        raise ValueError(f"document {int(np.argmax(sizes < 0))} has a length below 0")


def _same_documents(one: Spans, two: Spans) -> None:
    if one.documents != two.documents:
        raise ValueError(f"spans of {one.documents} documents and of {two.documents}: both must be of the same documents")
