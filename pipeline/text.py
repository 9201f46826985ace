"""One batch of documents, tokenised once: every signal and the MinHash shingles read the same flat arrays."""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.text_tables import tables

T = TypeVar("T")

UPPER, ASCII_LETTER, ALPHA, WORD = 1, 2, 4, 8
"""Flags of raw words: `str.isupper`; has one of a-z, A-Z; has a letter (`str.isalpha`); is of word characters, no marks."""
LARGEST = (1 << 32) - 1
"""Bytes of a batch, so that positions fit 32 bits."""

_PUNCTUATION = string.punctuation.encode()
_ELLIPSIS, _TERMINAL, _BULLET = 1, 2, 4
_FNV_BASIS, _FNV_PRIME, _BITS = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1
_NGRAM = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Words:
    """The normalised words of a batch, document after document.

    offsets: int64 (documents + 1,), where each document's words begin; hashes: uint64 (words,), see `word_hash`; lengths:
    uint32 (words,), characters. utf8: uint8, all words, a space after each; a document's are
    `utf8[byte_offsets[d] : byte_offsets[d + 1]]`, and n consecutive words, joined by one space, are
    `utf8[starts[i] : ends[i + n - 1]]`. line_offsets: int64 (lines + 1,), where each line's words begin; line_lengths,
    line_numeric: uint32 (lines,), characters of each normalised line, and how many of them are numeric (`str.isnumeric`);
    lines as `TextBatch.lines` has them.
    """

    offsets: NDArray[np.int64]
    byte_offsets: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    lengths: NDArray[np.uint32]
    utf8: NDArray[np.uint8]
    line_offsets: NDArray[np.int64]
    line_lengths: NDArray[np.uint32]
    line_numeric: NDArray[np.uint32]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Words per document."""
        return np.diff(self.offsets)

    @property
    def starts(self) -> NDArray[np.uint32]:
        """Where each word begins in `utf8`; uint32 (words,)."""
        return self._spans[0]

    @property
    def ends(self) -> NDArray[np.uint32]:
        """Where each word ends in `utf8`; uint32 (words,)."""
        return self._spans[1]

    @cached_property
    def _spans(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        from pipeline.word_kernels import word_spans

        starts, ends = (np.empty(len(self.hashes), np.uint32) for _ in range(2))
        word_spans(self.utf8, starts, ends)
        return starts, ends


@dataclass(frozen=True)
class RawWords:
    """The words of a batch as they stand in the text, punctuation marks included, document after document.

    offsets: int64 (documents + 1,), where each document's words begin; hashes: uint64 (words,), see `word_hash`; starts:
    uint32 (words,), the byte of `TextBatch.data` where each begins; flags: uint8 (words,), of UPPER, ASCII_LETTER, ALPHA, WORD.
    """

    offsets: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    starts: NDArray[np.uint32]
    flags: NDArray[np.uint8]
    batch: TextBatch = field(repr=False)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Words per document."""
        return np.diff(self.offsets)

    @property
    def ends(self) -> NDArray[np.uint32]:
        """The byte of `TextBatch.data` where each word ends; uint32 (words,)."""
        return self._sizes[0]

    @property
    def lengths(self) -> NDArray[np.uint32]:
        """Characters of each word; uint32 (words,)."""
        return self._sizes[1]

    def has(self, flag: int) -> NDArray[np.int64]:
        """Words per document that have the flag."""
        return per_document(self.flags & flag != 0, self.offsets)

    @cached_property
    def _sizes(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        from pipeline.text_kernels import raw_word_sizes

        ends, lengths = (np.empty(len(self.hashes), np.uint32) for _ in range(2))
        of = tables()
        raw_word_sizes(self.batch.data, self.batch.offsets, of.pages, of.entries, self.starts, ends, lengths)
        return ends, lengths


@dataclass(frozen=True)
class Distinct:
    """The distinct normalised words of each document, in the order in which they come first (a document with more than a
    million of them has them in several such runs).

    offsets: int64 (documents + 1,); hashes: uint64; counts: uint32. repeated: bool (words,), for every normalised word
    whether its document has it more than once.
    """

    offsets: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    counts: NDArray[np.uint32]
    repeated: NDArray[np.bool_]


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
        starts, flags = np.empty(most, np.uint32), np.empty(most, np.uint8)
        n = raw_words(self.data, self.offsets, of.pages, of.entries, offsets, hashes, starts, flags)
        return RawWords(offsets, _cut(hashes, n), _cut(starts, n), _cut(flags, n), self)

    @cached_property
    def words(self) -> Words:
        """Normalised words: ASCII punctuation deleted, lower case, cut at white space, in NFD (RedPajama-V2's `normalize`)."""
        from pipeline.normal_word_kernels import words

        of, most, lines = tables(), (len(self.data) + len(self)) // 2 + 1, self._most_lines()
        offsets, byte_offsets = (np.empty(len(self) + 1, np.int64) for _ in range(2))
        hashes, lengths = np.empty(most, np.uint64), np.empty(most, np.uint32)
        # NFD makes three bytes of one at most, and each word has a space after it.
        # A few bytes more are for kernels that read several at a time.
        utf8 = np.empty(3 * len(self.data) + most + 8, np.uint8)
        line_offsets = np.empty(lines + 1, np.int64)
        line_lengths, line_numeric = (np.empty(lines, np.uint32) for _ in range(2))
        n, size, lines = words(
            self.data, self.offsets, of.pages, of.entries, of.combining, of.spelling, of.spelled, of.spelled_characters,
            of.spelled_numeric, of.ascii, offsets, byte_offsets, hashes, lengths, utf8, line_offsets, line_lengths,
            line_numeric,
        )  # fmt: skip
        return Words(
            offsets, byte_offsets, _cut(hashes, n), _cut(lengths, n), _cut(utf8, size + 8)[:size],
            _cut(line_offsets, lines + 1), _cut(line_lengths, lines), _cut(line_numeric, lines),
        )  # fmt: skip

    @cached_property
    def distinct_words(self) -> Distinct:
        """Each document's distinct normalised words with their counts."""
        from pipeline.word_kernels import distinct

        words = self.words
        offsets, most = np.empty(len(self) + 1, np.int64), len(words.hashes)
        hashes, counts = np.empty(most, np.uint64), np.empty(most, np.uint32)
        repeated = np.empty(most, np.bool_)
        n = distinct(words.offsets, words.hashes, offsets, hashes, counts, repeated.view(np.uint8))
        return Distinct(offsets, _cut(hashes, n), _cut(counts, n), repeated)

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

        of, most = tables(), self._most_lines()
        offsets, counts = np.empty(len(self) + 1, np.int64), np.empty((len(self), 6), np.int64)
        starts, ends = (np.empty(most, np.int32) for _ in range(2))
        upper, marks = np.empty(most, np.uint32), np.empty(most, np.uint8)
        n = scan(self.data, self.offsets, of.pages, of.entries, offsets, starts, ends, upper, marks, counts)
        return Lines(offsets, _cut(starts, n), _cut(ends, n), _cut(upper, n), _cut(marks, n)), counts

    def _most_lines(self) -> int:
        from pipeline.text_kernels import count_newlines

        return int(count_newlines(self.data)) + len(self)


_ZERO = np.zeros(1, np.int64)
_KEPT_AS = {"text": "strings", "lines": "_scan", "tally": "_scan", "sentences": "_scan"}


def normalise(text: str) -> str:
    """The text without ASCII punctuation, in lower case, in NFD. Its words are what `.split()` gives."""
    # In UTF-8 no byte of a longer sequence is ASCII, so the punctuation can be deleted from the bytes.
    return unicodedata.normalize("NFD", text.encode().translate(None, _PUNCTUATION).decode().lower())


def word_hash(word: str) -> int:
    """The 64-bit hash of a word in every batch, on every machine: FNV-1a of its UTF-8, then MurmurHash3's `fmix64`."""
    h = _FNV_BASIS
    for byte in word.encode():
        h = ((h ^ byte) * _FNV_PRIME) & _BITS
    h = ((h ^ (h >> 33)) * 0xFF51AFD7ED558CCD) & _BITS
    h = ((h ^ (h >> 33)) * 0xC4CEB9FE1A85EC53) & _BITS
    return h ^ (h >> 33)


def ngram_hash(words: Sequence[str]) -> int:
    """The 64-bit hash of consecutive words: a polynomial of their hashes, so that it can roll from one to the next."""
    h = 0
    for word in words:
        h = (h * _NGRAM + word_hash(word)) & _BITS
    return h


def hash_sets(sets: Iterable[Iterable[int]]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Sets of hashes as `word_kernels.count_members` reads them: set_offsets int64 (sets + 1,), and the slots of all."""
    laid: list[NDArray[np.uint64]] = []
    for members in sets:
        hashes = {h for h in members if h}
        size = 1 << (4 * len(hashes)).bit_length() if hashes else 0
        slots = np.zeros(size, np.uint64)
        for h in hashes:
            at = h & (size - 1)
            while slots[at]:
                at = (at + 1) & (size - 1)
            slots[at] = h
        laid.append(slots)
    offsets = np.concatenate([_ZERO, np.cumsum([len(s) for s in laid], dtype=np.int64)])
    return offsets, np.concatenate(laid) if laid else np.empty(0, np.uint64)


def per_document(values: NDArray, offsets: NDArray[np.int64]) -> NDArray:
    """Sum of each document's values, int64 for integers and flags, else float64.

    A document's sum depends on its own values alone, not on its neighbours.
    """
    starts, filled = offsets[:-1], np.diff(offsets) > 0
    kind = np.float64 if values.dtype.kind == "f" else np.int64
    sums = np.zeros(len(starts), kind)
    if filled.any():
        sums[filled] = np.add.reduceat(values, starts[filled], dtype=kind)
    return sums


def concatenated(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The column as one array."""
    if isinstance(column, pa.Array):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _cut(array: NDArray, size: int) -> NDArray:
    """The array without what was not written: the memory behind it goes back."""
    array.resize(size, refcheck=False)
    return array
