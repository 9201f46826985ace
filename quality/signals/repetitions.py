"""The nine repetition signals of RedPajama-V2, after Gopher's rules (Rae et al. 2021, A.1.1), on normalised words."""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.text import TextBatch
from quality.registry import Measure, scores, signal

COUNTED, MASKED = (2, 3, 4), (5, 6, 7, 8, 9, 10)
_SOURCE = "RedPajama-V2; Gopher A.1.1"


def repetition_fractions(text: TextBatch) -> NDArray[np.float64]:
    """All nine at once, as one look at the n-grams gives them: float64 (documents, 9), COUNTED then MASKED."""

    def compute() -> NDArray[np.float64]:
        from quality.kernels import repetitions

        fractions = np.empty((len(text), len(COUNTED) + len(MASKED)))
        words = text.words
        repetitions(words.offsets, words.hashes, words.lengths, text.distinct_words.repeated.view(np.uint8), fractions)
        return fractions

    return text.once("repetitions", compute)


def _of_most_common(width: int, column: int) -> Measure:
    def measure(text: TextBatch) -> pa.Array:
        return scores(repetition_fractions(text)[:, column])

    measure.__qualname__ = f"fraction_of_top_{width}gram"
    measure.__doc__ = (
        f"Characters of the most common {width} words in a row (the first of several) times their count, over the characters "
        "of all words, without spaces; 0 if nothing repeats. Overlaps count twice."
    )
    return measure


def _of_repeated(width: int, column: int) -> Measure:
    def measure(text: TextBatch) -> pa.Array:
        return scores(repetition_fractions(text)[:, column])

    measure.__qualname__ = f"fraction_of_duplicate_{width}grams"
    measure.__doc__ = (
        f"Characters of the words that any repeated run of {width} words covers, its first occurrence included, over the "
        "characters of all words, without spaces; 0 if nothing repeats."
    )
    return measure


_register = partial(signal, needs=("words", "distinct_words"), source=_SOURCE)
# In RedPajama-V2's order, which is that of the names.
for _width in sorted(MASKED, key=str):
    _column = len(COUNTED) + MASKED.index(_width)
    _register(f"rps_doc_frac_chars_dupe_{_width}grams", range=(0, 1))(_of_repeated(_width, _column))
for _width in COUNTED:
    _register(f"rps_doc_frac_chars_top_{_width}gram", range=(0, None))(_of_most_common(_width, COUNTED.index(_width)))
