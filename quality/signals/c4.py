"""C4's line rules (Raffel et al. 2020, section 2.2) as signals, as datatrove's `c4_filters` applies them.

Each line (`str.splitlines`) has one fate, the first that applies: `long_word` (a word of more than 1000 characters),
`no_terminal_punctuation` (it ends with none of `.?!"'`, or with `...`; citation marks such as [1] are deleted before),
`few_words` (less than 3), `lorem_ipsum`, `javascript`, `curly_bracket`, `policy` (terms of use, cookies), else it is kept.
"""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.text import TextBatch
from pipeline.text_tables import ALNUM, tables
from quality.registry import ratio, scores, signal

_SOURCE = "C4 (Raffel et al. 2020), 2.2, as datatrove has it"
FEW_WORDS, LONGEST_WORD = 3, 1000
_FATES = {
    "long_word": "with a word of more than 1000 characters",
    "no_terminal_punctuation": "that do not end like a sentence",
    "few_words": "of less than 3 words that end like a sentence",
    "lorem_ipsum": "with `lorem ipsum`, among those that end like a sentence",
    "javascript": "with `javascript`, among those that end like a sentence",
    "curly_bracket": "with `{`, among those that end like a sentence",
    "policy": "on terms of use, privacy or cookies, among those that end like a sentence",
}


@signal("c4_num_sentences", needs="text", source=_SOURCE, range=(0, None))
def number_of_sentences(text: TextBatch) -> pa.Array:
    """Sentences (as `rps_doc_num_sentences` counts them) in the lines that C4's rules keep."""
    return scores(_judged(text)[:, -1])


@signal("c4_frac_lines_kept", needs="text", source=_SOURCE, range=(0, 1))
def fraction_of_lines_kept(text: TextBatch) -> pa.Array:
    """Lines that C4's rules keep over all lines; null without lines."""
    fates = _judged(text)[:, :-1]
    return ratio(fates[:, 0], fates.sum(axis=1))


def _fate_signals() -> None:
    def register(column: int, fate: str, told: str) -> None:
        def measure(text: TextBatch) -> pa.Array:
            return scores(_judged(text)[:, column])

        name = f"c4_lines_{fate}"
        measure.__doc__, measure.__qualname__ = f"Lines that C4's rules drop as {fate}: {told}.", name
        signal(name, needs="text", source=_SOURCE, range=(0, None))(measure)

    for column, (fate, told) in enumerate(_FATES.items(), 1):
        register(column, fate, told)


_fate_signals()


def _judged(text: TextBatch) -> NDArray[np.int64]:
    """Lines by fate, the kept ones first, and sentences in kept lines: int64 (documents, 9)."""
    from quality.signals.c4_kernels import FATES, judge_lines

    def compute() -> NDArray[np.int64]:
        assert ("kept", *_FATES) == FATES
        counts, of = np.zeros((len(text), len(FATES) + 1), np.int64), tables()
        judge_lines(text.data, text.offsets, of.pages, of.entries, ALNUM, _decimals(), FEW_WORDS, LONGEST_WORD, counts)
        return counts

    return text.once("c4", compute)


@cache
def _decimals() -> NDArray[np.int64]:
    """The decimal digits beyond ASCII: what `\\d` of a citation mark matches."""
    return np.array([code for code in range(128, sys.maxunicode + 1) if chr(code).isdecimal()], np.int64)
