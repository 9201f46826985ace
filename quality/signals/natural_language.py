"""The nine natural-language signals of RedPajama-V2, most of them from Gopher's rules (Rae et al. 2021, A.1.1)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.text import TextBatch
from quality.registry import ratio, scores, signal

_GOPHER = "RedPajama-V2; Gopher A.1.1"
_SYMBOLS = ("#", "...", "…")


@signal("rps_doc_frac_all_caps_words", needs="raw_words", source="RedPajama-V2")
def fraction_of_capital_words(text: TextBatch) -> pa.Array:
    """Raw words in capitals (`str.isupper`) over all raw words; null without words. Range [0, 1]."""
    words = text.raw_words
    return ratio(_per_document(words.upper, words.offsets), words.counts)


@signal("rps_doc_frac_lines_end_with_ellipsis", needs="lines", source=_GOPHER)
def fraction_of_lines_ending_with_ellipsis(text: TextBatch) -> pa.Array:
    """Lines that end with `...` or `…`, trailing white space apart, over all lines, empty ones included; null without lines.
    Range [0, 1]."""
    return ratio(_per_document(text.lines.ellipsis, text.lines.offsets), text.lines.counts)


@signal("rps_doc_frac_no_alph_words", needs="raw_words", source=_GOPHER)
def fraction_of_words_without_letter(text: TextBatch) -> pa.Array:
    """Raw words without any of a-z and A-Z over all raw words; null without words. Range [0, 1].

    Punctuation marks are raw words, and letters beyond ASCII do not count, as in RedPajama-V2.
    """
    words = text.raw_words
    count = _per_document(words.ascii_letter, words.offsets)
    share = np.divide(count, words.counts, out=np.zeros(len(text)), where=words.counts > 0)
    return scores(1 - share, words.counts > 0)


@signal("rps_doc_frac_unique_words", needs="distinct_words", source="RedPajama-V2")
def fraction_of_unique_words(text: TextBatch) -> pa.Array:
    """Distinct normalised words over all normalised words; null without words. Range (0, 1]."""
    return ratio(np.diff(text.distinct_words.offsets), text.words.counts)


@signal("rps_doc_mean_word_length", needs="words", source=_GOPHER)
def mean_word_length(text: TextBatch) -> pa.Array:
    """Characters in normalised words over normalised words; null without words."""
    return ratio(_per_document(text.words.lengths, text.words.offsets), text.words.counts)


@signal("rps_doc_num_sentences", needs="sentences", source="RedPajama-V2; C4")
def number_of_sentences(text: TextBatch) -> pa.Array:
    """Stretches of the raw text that begin at a word boundary and end with `.`, `!`, `?` or the text."""
    return scores(text.sentences)


@signal("rps_doc_symbol_to_word_ratio", needs=("text", "raw_words"), source=_GOPHER)
def symbol_to_word_ratio(text: TextBatch) -> pa.Array:
    """Occurrences of `#`, `...` and `…` in the raw text over raw words; null without words."""
    return ratio(sum(text.count(symbol) for symbol in _SYMBOLS), text.raw_words.counts)


@signal("rps_doc_unigram_entropy", needs="distinct_words", source="RedPajama-V2")
def unigram_entropy(text: TextBatch) -> pa.Array:
    """Entropy, in nats, of the distribution of the normalised words; null without words."""
    distinct, total = text.distinct_words, text.words.counts
    share = distinct.counts / np.repeat(total, np.diff(distinct.offsets))
    # Adding 0 turns the -0.0 of a document of one word into 0.0.
    return scores(-_per_document(share * np.log(share), distinct.offsets) + 0.0, total > 0)


@signal("rps_doc_word_count", needs="words", source=_GOPHER)
def word_count(text: TextBatch) -> pa.Array:
    """Normalised words."""
    return scores(text.words.counts)


def _per_document(values: NDArray, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum of each document's values; one after the other, so that a document's sum does not depend on its neighbours."""
    document = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return np.bincount(document, weights=values, minlength=len(offsets) - 1).astype(np.float64)
