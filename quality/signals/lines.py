"""The six line signals of RedPajama-V2: one value per line, lines as `TextBatch.lines` has them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.text import TextBatch
from pipeline.word_hashes import word_hash
from quality.registry import line_scores, signal

_C4 = "RedPajama-V2; C4 (Raffel et al. 2020, 2.2)"
_GOPHER = "RedPajama-V2; Gopher A.1.1"
_REFINED_WEB = "RedPajama-V2; RefinedWeb (Penedo et al. 2023, G.2)"
_JAVASCRIPT = np.uint64(word_hash("javascript"))


@signal("rps_lines_ending_with_terminal_punctution_mark", needs="lines", source=_C4, range=(0, 1), level="line")
def ending_with_terminal_punctuation_mark(text: TextBatch) -> pa.Array:
    """1 for a line that ends, trailing white space apart, with `.`, `!`, `?` or `”`, else 0."""
    return line_scores(text.lines.terminal, text.lines.offsets)


@signal("rps_lines_javascript_counts", needs=("lines", "words"), source=_C4, range=(0, None), level="line")
def javascript_counts(text: TextBatch) -> pa.Array:
    """Normalised words of the line that are "javascript"."""
    words = text.words
    found = np.searchsorted(words.line_offsets, np.flatnonzero(words.hashes == _JAVASCRIPT), side="right") - 1
    return line_scores(np.bincount(found, minlength=len(words.line_lengths)), text.lines.offsets)


@signal("rps_lines_num_words", needs=("lines", "words"), source=_C4, range=(0, None), level="line")
def number_of_words(text: TextBatch) -> pa.Array:
    """Normalised words of the line."""
    return line_scores(np.diff(text.words.line_offsets), text.lines.offsets)


@signal("rps_lines_numerical_chars_fraction", needs=("lines", "words"), source=_REFINED_WEB, range=(0, 1), level="line")
def fraction_of_numerical_characters(text: TextBatch) -> pa.Array:
    """Numeric characters (`str.isnumeric`) over characters of the normalised line; 0 for an empty one."""
    words = text.words
    return line_scores(words.line_numeric / np.maximum(words.line_lengths, 1), text.lines.offsets)


@signal("rps_lines_start_with_bulletpoint", needs="lines", source=_GOPHER, range=(0, 1), level="line")
def starting_with_bullet_point(text: TextBatch) -> pa.Array:
    """1 for a line that begins, white space apart, with one of `•‣▶◀◦■□▪▫–`, else 0; one null for a text without lines."""
    lines = text.lines
    values = line_scores(lines.bullet, lines.offsets)
    if (lines.counts > 0).all():
        return values
    return pa.array([told or [None] for told in values.to_pylist()], values.type)


@signal("rps_lines_uppercase_letter_fraction", needs="lines", source=_REFINED_WEB, range=(0, 1), level="line")
def fraction_of_upper_case_letters(text: TextBatch) -> pa.Array:
    """Characters in capitals (`str.isupper`) over all characters of the line, its newline included."""
    lines = text.lines
    return line_scores(lines.upper / np.maximum(lines.ends - lines.starts, 1), lines.offsets)
