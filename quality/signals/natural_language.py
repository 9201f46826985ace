"""The nine natural-language signals of RedPajama-V2, most of them from Gopher's rules (Rae et al. 2021, A.1.1)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.text import TextBatch, per_document
from pipeline.words import ALPHA, ASCII_LETTER, UPPER
from quality.registry import Context, ratio, scores, signal

_GOPHER = "RedPajama-V2; Gopher A.1.1"


@signal("rps_doc_frac_all_caps_words", needs="raw_words", source="RedPajama-V2", range=(0, 1))
def fraction_of_capital_words(text: TextBatch) -> pa.Array:
    """Raw words in capitals (`str.isupper`) over all raw words; null without words."""
    words = text.raw_words
    return ratio(words.has(UPPER), words.counts)


@signal("rps_doc_frac_lines_end_with_ellipsis", needs="lines", source=_GOPHER, range=(0, 1))
def fraction_of_lines_ending_with_ellipsis(text: TextBatch) -> pa.Array:
    """Lines that end with `...` or `…`, trailing white space apart, over all lines, empty ones included; null without lines."""
    return ratio(per_document(text.lines.ellipsis, text.lines.offsets), text.lines.counts)


@signal("rps_doc_frac_no_alph_words", needs="raw_words", source=_GOPHER, range=(0, 1))
def fraction_of_words_without_letter(text: TextBatch, context: Context) -> pa.Array:
    """Raw words without any of a-z and A-Z over all raw words, punctuation marks among them; null without words.

    Fixed: letters of all scripts count (`str.isalpha`). As published, "à" and every word of Greek have none.
    """
    words = text.raw_words
    with_letter = words.has(ALPHA if context.mode == "fixed" else ASCII_LETTER)
    share = np.divide(with_letter, words.counts, out=np.zeros(len(text)), where=words.counts > 0)
    return scores(1 - share, words.counts > 0)


@signal("rps_doc_frac_unique_words", needs=("words", "distinct_words"), source="RedPajama-V2", range=(0, 1))
def fraction_of_unique_words(text: TextBatch) -> pa.Array:
    """Distinct normalised words over all normalised words; null without words."""
    return ratio(np.diff(text.distinct_words.offsets), text.words.counts)


@signal("rps_doc_mean_word_length", needs="words", source=_GOPHER, range=(1, None))
def mean_word_length(text: TextBatch) -> pa.Array:
    """Characters in normalised words over normalised words; null without words."""
    return ratio(per_document(text.words.lengths, text.words.offsets), text.words.counts)


@signal("rps_doc_num_sentences", needs="sentences", source="RedPajama-V2; C4", range=(0, None))
def number_of_sentences(text: TextBatch) -> pa.Array:
    """Stretches of the raw text that begin at a word boundary and end with `.`, `!`, `?` or the text."""
    return scores(text.sentences)


@signal("rps_doc_symbol_to_word_ratio", needs=("tally", "raw_words"), source=_GOPHER, range=(0, None))
def symbol_to_word_ratio(text: TextBatch) -> pa.Array:
    """Occurrences of `#`, `...` and `…` in the raw text over raw words; null without words."""
    tally = text.tally
    return ratio(tally.hash_marks + tally.dots + tally.ellipses, text.raw_words.counts)


@signal("rps_doc_unigram_entropy", needs=("words", "distinct_words"), source="RedPajama-V2", range=(0, None))
def unigram_entropy(text: TextBatch) -> pa.Array:
    """Entropy, in nats, of the distribution of the normalised words; null without words."""
    from quality.kernels import entropy

    distinct, total, entropies = text.distinct_words, text.words.counts, np.empty(len(text))
    entropy(distinct.offsets, distinct.counts, total, entropies)
    return scores(entropies, total > 0)


@signal("rps_doc_word_count", needs="words", source=_GOPHER, range=(0, None))
def word_count(text: TextBatch) -> pa.Array:
    """Normalised words."""
    return scores(text.words.counts)
