"""Gopher's measurements as its rules are applied today: by datatrove's definitions (its filters of quality and repetition).

They differ from RedPajama-V2's signals of like names: lengths are characters of the whole text, an n-gram found again skips
the words that it covers, lines are those of `str.splitlines`, words of symbols alone do not count. Words are raw words.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from functools import cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.punctuation import CONTROL_CHARACTERS, PUNCTUATION
from pipeline.text import TextBatch
from pipeline.word_hashes import word_hash
from pipeline.words import ALPHA
from quality.registry import ratio, scores, signal
from quality.signals.terminal_punctuation import TERMINAL_PUNCTUATION

_QUALITY = "Gopher (Rae et al. 2021), A.1.1, as datatrove has it"
_REPETITION = "Gopher (Rae et al. 2021), table A1, as datatrove has it"
_SHARE = (0.0, 1.0)
SYMBOLS = frozenset((*string.punctuation, *PUNCTUATION, *CONTROL_CHARACTERS.replace("\n", ""), *TERMINAL_PUNCTUATION))
"""A word made of these alone is a symbol."""
STOP_WORDS: Mapping[str, tuple[str, ...]] = {
    "en": ("the", "be", "to", "of", "and", "that", "have", "with"),
    "de": ("der", "die", "und", "in", "zu", "den", "das", "nicht"),
    "fr": ("de", "la", "le", "et", "les", "des", "en", "que"),
    "es": ("de", "la", "que", "el", "en", "y", "los", "se"),
    "it": ("di", "e", "il", "la", "che", "in", "per", "non"),
}
"""Gopher's eight English words, and eight of the commonest function words of the other languages of RedPajama-V2."""


@signal("gopher_word_count", needs="raw_words", source=_QUALITY, range=(0, None))
def word_count(text: TextBatch) -> pa.Array:
    """Raw words that are no symbols (punctuation and control characters alone)."""
    return scores(_words(text)[:, 0])


@signal("gopher_mean_word_length", needs="raw_words", source=_QUALITY, range=(1, None))
def mean_word_length(text: TextBatch) -> pa.Array:
    """Characters in raw words that are no symbols over their number; null without any."""
    return ratio(_words(text)[:, 1], _words(text)[:, 0])


@signal("gopher_hash_to_word_ratio", needs=("text", "raw_words"), source=_QUALITY, range=(0, None))
def hash_to_word_ratio(text: TextBatch) -> pa.Array:
    """Occurrences of `#` over raw words; null without words."""
    return ratio(line_counts(text, "hash_marks"), text.raw_words.counts)


@signal("gopher_ellipsis_to_word_ratio", needs=("text", "raw_words"), source=_QUALITY, range=(0, None))
def ellipsis_to_word_ratio(text: TextBatch) -> pa.Array:
    """Occurrences of `...` and `…` over raw words; null without words."""
    return ratio(line_counts(text, "ellipses"), text.raw_words.counts)


@signal("gopher_frac_lines_start_with_bullet", needs="text", source=_QUALITY, range=_SHARE)
def fraction_of_lines_starting_with_bullet(text: TextBatch) -> pa.Array:
    """Lines (`str.splitlines`) that begin, white space apart, with `•` or `-`, over all; null without lines."""
    return ratio(line_counts(text, "bullet_lines"), line_counts(text, "lines"))


@signal("gopher_frac_lines_end_with_ellipsis", needs="text", source=_QUALITY, range=_SHARE)
def fraction_of_lines_ending_with_ellipsis(text: TextBatch) -> pa.Array:
    """Lines (`str.splitlines`) that end, white space apart, with `...` or `…`, over all; null without lines."""
    return ratio(line_counts(text, "ellipsis_lines"), line_counts(text, "lines"))


@signal("gopher_frac_words_with_letter", needs="raw_words", source=_QUALITY, range=_SHARE)
def fraction_of_words_with_letter(text: TextBatch) -> pa.Array:
    """Raw words with a letter (`str.isalpha`) over all raw words; null without words."""
    return ratio(text.raw_words.has(ALPHA), text.raw_words.counts)


@signal("gopher_stop_words", needs="raw_words", columns="language", source=_QUALITY, range=(0, 8))
def stop_words(text: TextBatch) -> pa.Array:
    """How many of eight frequent words of the document's language are among its raw words; null in a language without a list,
    English where there is no column `language`."""
    from quality.signals.gopher_kernels import count_stop_words

    found = np.empty(len(text), np.int64)
    rows = np.array([[word_hash(word) for word in words] for words in STOP_WORDS.values()], np.uint64)
    count_stop_words(text.raw_words.offsets, text.raw_words.hashes, _languages(text), rows, found)
    return scores(found, found >= 0)


@signal("gopher_frac_dup_paragraphs", needs="text", source=_REPETITION, range=_SHARE)
def fraction_of_repeated_paragraphs(text: TextBatch) -> pa.Array:
    """Paragraphs (between empty lines) that came before, over all."""
    return ratio(line_counts(text, "repeated_paragraphs"), line_counts(text, "paragraphs"))


@signal("gopher_frac_chars_dup_paragraphs", needs=("text", "characters"), source=_REPETITION, range=_SHARE)
def fraction_of_characters_in_repeated_paragraphs(text: TextBatch) -> pa.Array:
    """Characters of the paragraphs that came before, over those of the text; null if it is empty."""
    return ratio(line_counts(text, "repeated_paragraph_characters"), text.characters)


@signal("gopher_frac_dup_lines", needs="text", source=_REPETITION, range=_SHARE)
def fraction_of_repeated_lines(text: TextBatch) -> pa.Array:
    """Lines (between runs of newlines, an empty one before a leading and after a closing run) that came before, over all."""
    return ratio(line_counts(text, "repeated_blocks"), line_counts(text, "blocks"))


@signal("gopher_frac_chars_dup_lines", needs=("text", "characters"), source=_REPETITION, range=_SHARE)
def fraction_of_characters_in_repeated_lines(text: TextBatch) -> pa.Array:
    """Characters of the lines that came before, over those of the text; null if it is empty."""
    return ratio(line_counts(text, "repeated_block_characters"), text.characters)


def _gram_signals() -> None:
    def register(name: str, column: int, definition: str) -> None:
        def measure(text: TextBatch) -> pa.Array:
            return ratio(_grams(text)[:, column], text.characters)

        measure.__doc__, measure.__qualname__ = definition, name
        signal(name, needs=("characters", "raw_words"), source=_REPETITION, range=(0.0, None))(measure)

    for n in range(2, 5):
        told = f"Characters of the commonest {n}-gram of raw words, joined by spaces, times its count, over those of the text."
        register(f"gopher_frac_chars_top_{n}gram", n - 2, told)
    for n in range(5, 11):
        told = (
            f"Characters of {n}-grams of raw words that came before, each one found skipping its words, over those of the text."
        )
        register(f"gopher_frac_chars_dup_{n}gram", n - 2, told)


_gram_signals()


def line_counts(text: TextBatch, name: str) -> NDArray[np.int64]:
    """A column of `line_rule_kernels.LINE_COUNTS`, int64 (documents,); counted at the first call for a batch."""
    from quality.signals.line_rule_kernels import LINE_COUNTS, SHORT, count_lines

    def compute() -> NDArray[np.int64]:
        counts = np.zeros((len(text), len(LINE_COUNTS)), np.int64)
        count_lines(text.data, text.offsets, _code_points(TERMINAL_PUNCTUATION), SHORT, counts)
        return counts

    return text.once("line_rules", compute)[:, LINE_COUNTS.index(name)]


def _words(text: TextBatch) -> NDArray[np.int64]:
    """Words that are no symbols, and their characters: int64 (documents, 2)."""
    from quality.signals.gopher_kernels import count_words

    def compute() -> NDArray[np.int64]:
        words, counts = text.raw_words, np.zeros((len(text), 2), np.int64)
        ascii_symbols = np.array([chr(code) in SYMBOLS for code in range(128)])
        others = _code_points("".join(c for c in SYMBOLS if ord(c) >= 128))
        count_words(text.data, words.offsets, words.starts, words.ends, words.flags, ascii_symbols, others, counts)
        return counts

    return text.once("gopher.words", compute)


def _grams(text: TextBatch) -> NDArray[np.int64]:
    from quality.signals.gopher_kernels import repeated_grams

    def compute() -> NDArray[np.int64]:
        words, characters = text.raw_words, np.zeros((len(text), 9), np.int64)
        repeated_grams(text.data, words.offsets, words.hashes, words.starts, words.ends, characters)
        return characters

    return text.once("gopher.grams", compute)


def _languages(text: TextBatch) -> NDArray[np.int64]:
    """The row of STOP_WORDS of each document, -1 where its language has none."""
    if "language" not in text.columns:
        return np.zeros(len(text), np.int64)
    rows = {language: row for row, language in enumerate(STOP_WORDS)}
    return np.array([rows.get(language, -1) for language in text.columns["language"].to_pylist()], np.int64)


@cache
def _code_points(characters: str) -> NDArray[np.int64]:
    return np.array(sorted(map(ord, characters)), np.int64)
