"""FineWeb's measurements (Penedo et al. 2024, section 3.6), as datatrove's `fineweb_quality_filter` defines them."""

from __future__ import annotations

import pyarrow as pa

from pipeline.text import TextBatch
from quality.registry import ratio, scores, signal
from quality.signals.gopher import line_counts

_SOURCE = "FineWeb (Penedo et al. 2024), 3.6, as datatrove has it"
_SHARE = (0.0, 1.0)


@signal("fineweb_frac_lines_end_with_punctuation", needs="text", source=_SOURCE, range=_SHARE)
def fraction_of_lines_ending_with_punctuation(text: TextBatch) -> pa.Array:
    """Lines that are not blank and whose last character ends a sentence in some script, over lines that are not blank; null
    without any."""
    return ratio(line_counts(text, "punctuated_lines"), line_counts(text, "filled_lines"))


@signal("fineweb_frac_short_lines", needs="text", source=_SOURCE, range=_SHARE)
def fraction_of_short_lines(text: TextBatch) -> pa.Array:
    """Lines of at most 30 characters over all lines, blank ones apart; null without any."""
    return ratio(line_counts(text, "short_lines"), line_counts(text, "filled_lines"))


@signal("fineweb_frac_chars_dup_lines", needs=("text", "characters"), source=_SOURCE, range=_SHARE)
def fraction_of_characters_in_repeated_lines(text: TextBatch) -> pa.Array:
    """Characters of lines that came before over characters that are no newlines, blank lines apart; null without lines."""
    characters = text.characters - line_counts(text, "newlines")
    valid = line_counts(text, "filled_lines") > 0
    repeated = line_counts(text, "repeated_line_characters")
    return scores(repeated / characters.clip(1), valid)


@signal("fineweb_newline_to_word_ratio", needs=("text", "raw_words"), source=_SOURCE, range=(0.0, None))
def newline_to_word_ratio(text: TextBatch) -> pa.Array:
    """Newlines over raw words; null without words."""
    return ratio(line_counts(text, "newlines"), text.raw_words.counts)
