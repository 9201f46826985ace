"""One batch of documents, tokenised once: every signal and the MinHash shingles read the same flat arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.text_tables import tables
from pipeline.words import Distinct, RawWords, Utf8, Words, cut, most_lines, normalised_words

T = TypeVar("T")

LARGEST = (1 << 32) - 1
"""Bytes of a batch, so that positions fit 32 bits."""

_ELLIPSIS, _TERMINAL, _BULLET = 1, 2, 4
_STRETCH = 1 << 20
_ZERO = np.zeros(1, np.int64)
_KEPT_AS = {"text": "strings", "lines": "_scan", "tally": "_scan", "sentences": "_scan"}


@dataclass(frozen=True)
class Lines:
    """The lines of a batch, each with its newline; a newline at the end of a document opens no further line.

    offsets: int64 (documents + 1,); starts, ends: int32 (lines,), in characters of the document; upper: uint32 (lines,),
    characters in capitals (`str.isupper`); bool (lines,): ellipsis, terminal: whether the line ends, trailing white space
    apart, with `...` or `…`, or with one of `.!?”`; bullet: whether it begins, white space apart, with a bullet point.
    """

    offsets: NDArray[np.int64]
    starts: NDArray[np.int32]
    ends: NDArray[np.int32]
    upper: NDArray[np.uint32]
    marks: NDArray[np.uint8] = field(repr=False)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Lines per document."""
        return np.diff(self.offsets)

    @property
    def ellipsis(self) -> NDArray[np.bool_]:
        return self.marks & _ELLIPSIS != 0

    @property
    def terminal(self) -> NDArray[np.bool_]:
        return self.marks & _TERMINAL != 0

    @property
    def bullet(self) -> NDArray[np.bool_]:
        return self.marks & _BULLET != 0


@dataclass(frozen=True)
class Tally:
    """Occurrences per document, int64 (documents,): `{` and `}`; `#`; `...`, not overlapping; `…`."""

    curly_brackets: NDArray[np.int64]
    hash_marks: NDArray[np.int64]
    dots: NDArray[np.int64]
    ellipses: NDArray[np.int64]


class TextBatch:
    """A batch of documents and its views, each computed when it is first read, and then kept until it is released.

    text: a string column (large, chunked or not); null counts as empty. columns: further columns of the same rows, for
    signals that read more than the text (language, crawl metadata). ValueError on text that is not UTF-8, on more than 4 GiB
    of it, or on columns of another length. Views cost up to three times the text each: `TextBatch.over` cuts a table into
    batches of bounded size, and `release` drops views.
    """

    def __init__(
        self, text: pa.Array | pa.ChunkedArray, columns: Mapping[str, pa.Array | pa.ChunkedArray] | None = None
    ) -> None:
        try:
            text.validate(full=True)
        except pa.ArrowInvalid as error:
            raise ValueError(f"the text is not UTF-8: {error}; decode it before, with its own charset") from error
        whole = concatenated(text.cast(pa.large_string()))
        self.text: pa.LargeStringArray = pc.fill_null(whole, "") if whole.null_count else whole
        self.columns: Mapping[str, pa.Array] = {name: concatenated(column) for name, column in (columns or {}).items()}
        for name, column in self.columns.items():
            if len(column) != len(self.text):
                raise ValueError(f"column {name} has {len(column)} rows, the text has {len(self.text)}")
        _, positions, content = self.text.buffers()
        offsets = np.frombuffer(positions, np.int64)[self.text.offset :][: len(self.text) + 1] if len(self.text) else _ZERO
        data = np.frombuffer(content, np.uint8) if content is not None else np.empty(0, np.uint8)
        self.data: NDArray[np.uint8] = data[offsets[0] : offsets[-1]]
        """The UTF-8 of all documents; document d is `data[offsets[d] : offsets[d + 1]]`."""
        self.offsets: NDArray[np.int64] = offsets - offsets[0]
        self._computed: dict[str, Any] = {}
        if len(self.data) > LARGEST:
            raise ValueError(f"a batch of {len(self.data):,} bytes of text is too large: cut it with TextBatch.over")

    def __len__(self) -> int:
        return len(self.text)

    @classmethod
    def over(cls, documents: pa.Table, *, size: int = 1 << 22) -> Iterator[TextBatch]:
        """The documents of a table with a column `raw_content`, in order, in batches of about `size` bytes of text."""
        if "raw_content" not in documents.column_names:
            raise ValueError(f"no column raw_content; there is {', '.join(documents.column_names)}")
        lengths = pc.fill_null(pc.call_function("binary_length", [documents["raw_content"]]), 0).to_numpy().astype(np.int64)
        batch = np.cumsum(lengths) // size  # documents whose text ends within one stretch of `size` bytes go together
        starts = np.flatnonzero(np.diff(batch, prepend=-1))
        ends = np.append(starts[1:], len(batch)) if len(starts) else starts
        others = [name for name in documents.column_names if name != "raw_content"]
        for start, end in zip(starts, ends, strict=True):
            rows = documents.slice(start, end - start)
            yield cls(rows["raw_content"], {name: rows[name] for name in others})

    def release(self, *views: str, keep: Iterable[str] = ()) -> None:
        """Drop views that are not needed any more, except what those in `keep` are made of; they are computed again if they
        are."""
        for view in {_KEPT_AS.get(v, v) for v in views} - {_KEPT_AS.get(v, v) for v in keep}:
            self.__dict__.pop(view, None)

    def once(self, key: str, compute: Callable[[], T]) -> T:
        """What `compute` returns, computed at the first call with this key: for signals that share more than a view."""
        if key not in self._computed:
            self._computed[key] = compute()
        return self._computed[key]

    def string(self, document: int) -> str:
        """One document as a Python string."""
        return self.data[self.offsets[document] : self.offsets[document + 1]].tobytes().decode()

    @cached_property
    def strings(self) -> list[str]:
        """The documents as Python strings."""
        return self.text.to_pylist()

    @cached_property
    def characters(self) -> NDArray[np.int64]:
        """Code points per document."""
        return pc.call_function("utf8_length", [self.text]).to_numpy(zero_copy_only=False).astype(np.int64)

    def count(self, substring: str) -> NDArray[np.int64]:
        """Non-overlapping occurrences of a string in each raw text."""
        return (
            pc.call_function("count_substring", [self.text], pc.MatchSubstringOptions(substring))
            .to_numpy(zero_copy_only=False)
            .astype(np.int64)
        )

    @cached_property
    def raw_words(self) -> RawWords:
        """Runs of word characters, and runs of what is neither a word character nor white space, in the raw text.

        `\\w+|[^\\w\\s]+` of the library regex, as NLTK's WordPunctTokenizer has it: unlike those of `re`, word characters
        take in marks and joiners.
        """
        from pipeline.text_kernels import raw_words

        of, most = tables(), len(self.data)
        offsets, hashes = np.empty(len(self) + 1, np.int64), np.empty(most, np.uint64)
        flags = np.empty(most, np.uint8)
        n = raw_words(self.data, self.offsets, of.pages, of.entries, offsets, hashes, flags)
        return RawWords(offsets, cut(hashes, n), cut(flags, n), Utf8(self.data, self.offsets))

    @cached_property
    def words(self) -> Words:
        """Normalised words: ASCII punctuation deleted, lower case, cut at white space, in NFD (RedPajama-V2's `normalize`)."""
        return normalised_words(Utf8(self.data, self.offsets))

    @cached_property
    def distinct_words(self) -> Distinct:
        """Each document's distinct normalised words with their counts."""
        from pipeline.word_kernels import distinct

        words = self.words
        offsets, most = np.empty(len(self) + 1, np.int64), len(words.hashes)
        hashes, counts = np.empty(most, np.uint64), np.empty(most, np.uint32)
        repeated = np.empty(most, np.bool_)
        n = distinct(words.offsets, words.hashes, offsets, hashes, counts, repeated.view(np.uint8))
        return Distinct(offsets, cut(hashes, n), cut(counts, n), repeated)

    @property
    def lines(self) -> Lines:
        """Lines of the raw text."""
        return self._scan[0]

    @property
    def sentences(self) -> NDArray[np.int64]:
        """Sentences per document: matches of `\\b[^.!?]+[.!?]*` in the raw text."""
        return self._scan[1][:, 1]

    @property
    def tally(self) -> Tally:
        """Brackets, hash marks and ellipses of the raw text."""
        return Tally(*self._scan[1][:, 2:].T)

    @cached_property
    def _scan(self) -> tuple[Lines, NDArray[np.int64]]:
        from pipeline.text_kernels import scan

        of, most = tables(), most_lines(Utf8(self.data, self.offsets))
        offsets, counts = np.empty(len(self) + 1, np.int64), np.empty((len(self), 6), np.int64)
        starts, ends = (np.empty(most, np.int32) for _ in range(2))
        upper, marks = np.empty(most, np.uint32), np.empty(most, np.uint8)
        n = scan(self.data, self.offsets, of.pages, of.entries, offsets, starts, ends, upper, marks, counts)
        return Lines(offsets, cut(starts, n), cut(ends, n), cut(upper, n), cut(marks, n)), counts


def per_document(values: NDArray, offsets: NDArray[np.int64]) -> NDArray:
    """Sum of each document's values, int64 for integers and flags, else float64.

    A document's sum depends on its own values alone, not on its neighbours.
    """
    kind = np.float64 if values.dtype.kind == "f" else np.int64
    sums = np.zeros(len(offsets) - 1, kind)
    first = 0
    while first < len(sums):
        # A stretch at a time, of which `reduceat` makes a copy in the type of the sums.
        last = int(np.searchsorted(offsets, offsets[first] + _STRETCH, side="right")) - 1
        if last <= first:
            last = first + 1
            sums[first] = values[offsets[first] : offsets[last]].sum(dtype=kind)
        elif (filled := np.diff(offsets[first : last + 1]) > 0).any():
            starts = offsets[first:last][filled] - offsets[first]
            sums[first:last][filled] = np.add.reduceat(values[offsets[first] : offsets[last]], starts, dtype=kind)
        first = last
    return sums


def concatenated(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The column as one array."""
    if isinstance(column, pa.Array):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
