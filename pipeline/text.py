"""One batch of documents, tokenised once: every signal and the MinHash shingles read the same flat arrays."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import regex
import xxhash
from numpy.typing import NDArray

_RAW_WORD = regex.compile(r"\w+|[^\w\s]+")  # NLTK's WordPunctTokenizer, whose `\w` takes in marks and joiners, unlike `re`
_SENTENCE = re.compile(r"\b[^.!?]+[.!?]*")
_ASCII_LETTER = re.compile(r"[a-zA-Z]")
_PUNCTUATION = string.punctuation.encode()
_ELLIPSES = ("...", "…")


@dataclass(frozen=True)
class Words:
    """The words of a batch, document after document.

    offsets: int64 (documents + 1,), where each document's words begin; hashes: uint64 (words,), xxh3 of the word's UTF-8;
    lengths: int64 (words,), characters. utf8: all words of the batch, joined by one space; the word i is
    `utf8[starts[i] : ends[i]]`, so that n consecutive words, joined by one space, are `utf8[starts[i] : ends[i + n - 1]]`.
    """

    offsets: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    lengths: NDArray[np.int64]
    utf8: bytes
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Words per document."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class RawWords(Words):
    """Words as they stand in the text, punctuation marks included. Both flags: bool (words,)."""

    upper: NDArray[np.bool_]  # str.isupper
    ascii_letter: NDArray[np.bool_]  # has one of a-z, A-Z


@dataclass(frozen=True)
class Distinct:
    """The distinct normalised words of each document: offsets int64 (documents + 1,), hashes uint64, counts int64."""

    offsets: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class Lines:
    """The lines of a batch, each with its newline; a newline at the end of a document opens no further line.

    offsets: int64 (documents + 1,); starts, ends: int64 (lines,), in characters of the document;
    ellipsis: bool (lines,), whether the line ends with `...` or `…` before its trailing white space.
    """

    offsets: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    ellipsis: NDArray[np.bool_]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Lines per document."""
        return np.diff(self.offsets)


class TextBatch:
    """A batch of documents and its views, each computed when it is first read, and then kept.

    text: a string column (large, chunked or not); null counts as empty. columns: further columns of the same rows, for
    signals that read more than the text (language, crawl metadata). ValueError on text that is not UTF-8, or on columns of
    another length. Views cost several times the text in memory: `TextBatch.over` cuts a table into batches of bounded size.
    """

    def __init__(
        self, text: pa.Array | pa.ChunkedArray, columns: Mapping[str, pa.Array | pa.ChunkedArray] | None = None
    ) -> None:
        try:
            text.validate(full=True)
        except pa.ArrowInvalid as error:
            raise ValueError(f"the text is not UTF-8: {error}; decode it before, with its own charset") from error
        self.text: pa.LargeStringArray = pc.fill_null(concatenated(text.cast(pa.large_string())), "")
        self.columns: Mapping[str, pa.Array] = {name: concatenated(column) for name, column in (columns or {}).items()}
        for name, column in self.columns.items():
            if len(column) != len(self.text):
                raise ValueError(f"column {name} has {len(column)} rows, the text has {len(self.text)}")

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
        return np.fromiter((text.count(substring) for text in self.strings), np.int64, len(self))

    @cached_property
    def raw_words(self) -> RawWords:
        """Runs of word characters, and runs of what is neither a word character nor white space, in the raw text."""
        words, vocabulary = _words([_RAW_WORD.findall(text) for text in self.strings])
        upper = np.fromiter((w.isupper() for w in vocabulary.words), np.bool_, len(vocabulary.words))
        letter = np.fromiter((_ASCII_LETTER.search(w) is not None for w in vocabulary.words), np.bool_, len(vocabulary.words))
        return RawWords(**vars(words), upper=upper[vocabulary.codes], ascii_letter=letter[vocabulary.codes])

    @cached_property
    def words(self) -> Words:
        """Normalised words: ASCII punctuation deleted, lower case, cut at white space, in NFD (RedPajama-V2's `normalize`)."""
        return _words([normalise(text).split() for text in self.strings])[0]

    @cached_property
    def distinct_words(self) -> Distinct:
        """Each document's distinct normalised words with their counts."""
        words = self.words
        found = [
            np.unique(words.hashes[start:end], return_counts=True)
            for start, end in zip(words.offsets[:-1], words.offsets[1:], strict=True)
        ]
        hashes = np.concatenate([h for h, _ in found]) if found else np.empty(0, np.uint64)
        counts = np.concatenate([c for _, c in found]) if found else np.empty(0, np.int64)
        return Distinct(_offsets([len(h) for h, _ in found]), hashes, counts.astype(np.int64))

    @cached_property
    def lines(self) -> Lines:
        """Lines of the raw text."""
        counts, lengths, ellipsis = [], [], []
        for text in self.strings:
            lines = text.split("\n")
            last = lines.pop()
            lengths.extend(len(line) + 1 for line in lines)
            if last:
                lines.append(last)
                lengths.append(len(last))
            ellipsis.extend(line.rstrip().endswith(_ELLIPSES) for line in lines)
            counts.append(len(lines))
        offsets = _offsets(counts)
        ends = np.cumsum(np.array(lengths, np.int64))
        # The running sum goes over the whole batch; a document's own characters begin where its first line begins.
        begin = np.concatenate([[0], ends])[offsets[:-1]] if len(ends) else np.zeros(len(counts), np.int64)
        ends = ends - np.repeat(begin, counts)
        return Lines(offsets, ends - np.array(lengths, np.int64), ends, np.array(ellipsis, np.bool_))

    @cached_property
    def sentences(self) -> NDArray[np.int64]:
        """Sentences per document: matches of `\\b[^.!?]+[.!?]*` in the raw text."""
        return np.fromiter((len(_SENTENCE.findall(text)) for text in self.strings), np.int64, len(self))


def normalise(text: str) -> str:
    """The text without ASCII punctuation, in lower case, in NFD. Its words are what `.split()` gives."""
    # In UTF-8 no byte of a longer sequence is ASCII, so the punctuation can be deleted from the bytes.
    return unicodedata.normalize("NFD", text.encode().translate(None, _PUNCTUATION).decode().lower())


@dataclass(frozen=True)
class _Vocabulary:
    """Distinct words, and which of them each word is: what holds for a word is found out once."""

    words: list[str] = field(default_factory=list)
    codes: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))


def _words(documents: Sequence[list[str]]) -> tuple[Words, _Vocabulary]:
    flat = [word for document in documents for word in document]
    encoded = pa.array(flat, pa.large_string()).dictionary_encode()
    vocabulary = _Vocabulary(encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False))
    utf8 = [word.encode() for word in vocabulary.words]
    hashes = np.fromiter((xxhash.xxh3_64_intdigest(word) for word in utf8), np.uint64, len(utf8))
    lengths = np.fromiter((len(word) for word in vocabulary.words), np.int64, len(utf8))
    sizes = np.fromiter((len(word) for word in utf8), np.int64, len(utf8))[vocabulary.codes]
    ends = np.cumsum(sizes + 1) - 1  # a space follows each word
    words = Words(
        offsets=_offsets([len(document) for document in documents]),
        hashes=hashes[vocabulary.codes],
        lengths=lengths[vocabulary.codes],
        utf8=" ".join(flat).encode(),
        starts=ends - sizes,
        ends=ends,
    )
    return words, vocabulary


def concatenated(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The column as one array."""
    if isinstance(column, pa.Array):
        return column
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _offsets(counts: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.array(counts, np.int64))])
