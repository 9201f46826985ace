"""The words of a batch as flat arrays: as they stand in the text, normalised, and the distinct ones of each document."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.text_tables import tables

UPPER, ASCII_LETTER, ALPHA, WORD = 1, 2, 4, 8
"""Flags of raw words: `str.isupper`; has one of a-z, A-Z; has a letter (`str.isalpha`); is of word characters, no marks."""


class Utf8(NamedTuple):
    """The text of a batch, without the batch: document d is `data[offsets[d] : offsets[d + 1]]`; uint8, int64."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]


class _Spanned:
    """What both kinds of words know of themselves, from their offsets and spans."""

    offsets: NDArray[np.int64]

    @cached_property
    def _spans(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        raise NotImplementedError

    @property
    def counts(self) -> NDArray[np.int64]:
        """Words per document; int64 (documents,)."""
        return np.diff(self.offsets)

    @property
    def starts(self) -> NDArray[np.uint32]:
        """The byte where each word begins: of `Words.utf8`, or of `TextBatch.data`; uint32 (words,)."""
        return self._spans[0]

    @property
    def ends(self) -> NDArray[np.uint32]:
        """The byte where each word ends, in the same bytes; uint32 (words,)."""
        return self._spans[1]


@dataclass(frozen=True)
class Words(_Spanned):
    """The normalised words of a batch, document after document.

    offsets: int64 (documents + 1,), where each document's words begin; hashes: uint64 (words,), see `word_hash`; lengths:
    uint32 (words,), characters. A document's words are spelled in `utf8[byte_offsets[d] : byte_offsets[d + 1]]`, and n
    consecutive words, joined by one space, in `utf8[starts[i] : ends[i + n - 1]]`. line_offsets: int64 (lines + 1,), where
    each line's words begin; line_lengths, line_numeric: uint32 (lines,), characters of each normalised line, and how many of
    them are numeric (`str.isnumeric`); lines as `TextBatch.lines` has them.
    """

    offsets: NDArray[np.int64]
    byte_offsets: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    lengths: NDArray[np.uint32]
    line_offsets: NDArray[np.int64]
    line_lengths: NDArray[np.uint32]
    line_numeric: NDArray[np.uint32]
    text: Utf8 = field(repr=False)

    @cached_property
    def utf8(self) -> NDArray[np.uint8]:
        """All words, a space after each. It is there from the start; made again after `release_utf8`."""
        return normalised_words(self.text).utf8

    def release_utf8(self) -> None:
        """Drop `utf8`, which takes the memory of the text, in some scripts three times that."""
        self.__dict__.pop("utf8", None)

    @cached_property
    def _spans(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        from pipeline.word_kernels import word_spans

        starts, ends = (np.empty(len(self.hashes), np.uint32) for _ in range(2))
        word_spans(self.utf8, starts, ends)
        return starts, ends


@dataclass(frozen=True)
class RawWords(_Spanned):
    """The words of a batch as they stand in the text, punctuation marks included, document after document.

    offsets: int64 (documents + 1,), where each document's words begin; hashes: uint64 (words,), see `word_hash`; flags: uint8
    (words,), of UPPER, ASCII_LETTER, ALPHA, WORD. Where words begin and end is found when it is first asked for.
    """

    offsets: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    flags: NDArray[np.uint8]
    text: Utf8 = field(repr=False)

    @cached_property
    def lengths(self) -> NDArray[np.uint32]:
        """Characters of each word; uint32 (words,)."""
        from pipeline.text_kernels import count_characters

        lengths = np.empty(len(self.hashes), np.uint32)
        count_characters(self.text.data, self.starts, self.ends, lengths)
        return lengths

    def has(self, flag: int) -> NDArray[np.int64]:
        """Words per document that have the flag."""
        from pipeline.word_kernels import count_flags

        counts = np.empty(len(self.offsets) - 1, np.int64)
        count_flags(self.flags, flag, self.offsets, counts)
        return counts

    @cached_property
    def _spans(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        from pipeline.text_kernels import raw_word_spans

        (starts, ends), of = (np.empty(len(self.hashes), np.uint32) for _ in range(2)), tables()
        raw_word_spans(*self.text, of.pages, of.entries, starts, ends)
        return starts, ends


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


def normalised_words(text: Utf8) -> Words:
    """ASCII punctuation deleted, lower case, cut at white space, in NFD (RedPajama-V2's `normalize`)."""
    from pipeline.normal_word_kernels import words

    of, documents, size, lines = tables(), len(text.offsets) - 1, len(text.data), most_lines(text)
    most = (size + documents) // 2 + 1
    offsets, byte_offsets = (np.empty(documents + 1, np.int64) for _ in range(2))
    hashes, lengths = np.empty(most, np.uint64), np.empty(most, np.uint32)
    # NFD makes three bytes of one at most, and each word has a space after it.
    # A few bytes more are for kernels that read several at a time.
    utf8 = np.empty(3 * size + most + 8, np.uint8)
    line_offsets = np.empty(lines + 1, np.int64)
    line_lengths, line_numeric = (np.empty(lines, np.uint32) for _ in range(2))
    n, size, lines = words(
        *text, of.pages, of.entries, of.combining, of.spelling, of.spelled, of.spelled_characters,
        of.spelled_numeric, of.ascii, offsets, byte_offsets, hashes, lengths, utf8, line_offsets, line_lengths,
        line_numeric,
    )  # fmt: skip
    made = Words(
        offsets, byte_offsets, cut(hashes, n), cut(lengths, n), cut(line_offsets, lines + 1), cut(line_lengths, lines),
        cut(line_numeric, lines), text,
    )  # fmt: skip
    made.__dict__["utf8"] = cut(utf8, size + 8)[:size]
    return made


def most_lines(text: Utf8) -> int:
    """Lines that the text has at most, so that arrays can be made for them."""
    from pipeline.text_kernels import count_newlines

    return int(count_newlines(text.data)) + len(text.offsets) - 1


def cut(array: NDArray, size: int) -> NDArray:
    """The array without what was not written: the memory behind it goes back."""
    array.resize(size, refcheck=False)
    return array
