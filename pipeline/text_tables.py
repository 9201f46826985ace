"""What Python knows about each code point, as flat tables that compiled kernels read."""

from __future__ import annotations

import re
import string
import unicodedata
from dataclasses import dataclass
from functools import cache

import numpy as np
import regex
from numpy.typing import NDArray

WORD = 1 << 0
"""`\\w` of `regex`: Unicode's own, marks and joiners included."""
RAW_SPACE = 1 << 1
"""`\\s` of `regex`: Unicode's White_Space."""
ALNUM = 1 << 2
"""`\\w` of `re`: `str.isalnum`, or the underscore."""
SPACE = 1 << 3
"""`str.isspace`: where `str.split` cuts and `str.strip` strips."""
UPPER = 1 << 4
"""`str.isupper` of the character alone."""
NOT_UPPER = 1 << 5
"""Lower or title case: no word that has it is `str.isupper`."""
NUMERIC = 1 << 6
"""`str.isnumeric`."""
ALPHA = 1 << 7
"""`str.isalpha`."""
ASCII_LETTER = 1 << 8
CASED = 1 << 9
"""Cased and not ignorable, for the rule of the final sigma (Unicode, 3.13, Final_Sigma)."""
IGNORABLE = 1 << 10
"""Case_Ignorable, for the same rule."""
COMBINING = 1 << 11
"""In NFD it begins with a mark of a combining class other than 0, so that marks may have to be put in order."""
BULLET = 1 << 12
"""RedPajama-V2's bullet points."""
TERMINAL = 1 << 13
"""RedPajama-V2's terminal punctuation marks."""

CODE_POINTS = 0x110000
PAGE = 256
BULLETS = "\u2022\u2023\u25b6\u25c0\u25e6\u25a0\u25a1\u25aa\u25ab\u2013"
TERMINALS = ".!?\u201d"
_LETTERS = ((0, 0x3400), (0xA000, 0xAC00), (0xD7B0, 0xD800), (0xF900, 0x20000), (0xE0000, 0xE1000))
_IDEOGRAPHS = ((0x3400, 0xA000), (0xAC00, 0xD7B0), (0x20000, 0x40000))
"""Where characters are assigned: those that may have any property, and ideographs and syllables without case or marks, which
would take most of the time. Elsewhere are surrogates, private and unassigned code points, which have no property."""
DELETED, BLANK, NEWLINE = -1, -2, -3
"""What `CodePointTables.ascii` says instead of a character: punctuation, white space, line feed."""


@dataclass(frozen=True)
class CodePointTables:
    """Two-stage tables: what holds for c is `entries[pages[c >> 8] * 256 + (c & 255)]`.

    pages: uint16 (4352,). entries: uint32, the flags of this module in the low 16 bits; in the high 16 the number of the
    spelling that the character has in lower case and NFD, 0 if its own. spelling i: the bytes
    `spelled[spelling[i] : spelling[i + 1]]`, spelled_characters[i] code points, of which spelled_numeric[i] are numeric.
    combining: uint8, the canonical combining class, in the same places as entries. ascii: int16 (128,), the lower-case
    character, or DELETED, BLANK, NEWLINE.
    """

    pages: NDArray[np.uint16]
    entries: NDArray[np.uint32]
    combining: NDArray[np.uint8]
    spelling: NDArray[np.uint32]
    spelled: NDArray[np.uint8]
    spelled_characters: NDArray[np.uint8]
    spelled_numeric: NDArray[np.uint8]
    ascii: NDArray[np.int16]


@cache
def tables() -> CodePointTables:
    """The tables, made of what `str`, `re`, `regex` and `unicodedata` of this Python say (a tenth of a second)."""
    characters = [chr(c) for first, end in _LETTERS for c in range(first, end)]
    ideographs = [chr(c) for first, end in _IDEOGRAPHS for c in range(first, end)]
    codes = _codes("".join(characters))
    flags = np.zeros(CODE_POINTS, np.uint32)

    def mark(flag: int, holds: list[bool]) -> None:
        flags[codes[np.array(holds, bool)]] |= flag

    text = "".join((*characters, *ideographs))
    for flag, pattern in ((WORD, regex.compile(r"\w+")), (RAW_SPACE, regex.compile(r"\s")), (ALNUM, re.compile(r"\w+"))):
        flags[_codes("".join(pattern.findall(text)))] |= flag
    mark(SPACE, [c.isspace() for c in characters])
    mark(UPPER, [c.isupper() for c in characters])
    mark(NOT_UPPER, [c.islower() or (c.istitle() and not c.isupper()) for c in characters])
    mark(NUMERIC, [c.isnumeric() for c in characters])
    flags[_codes("".join([c for c in ideographs if c.isnumeric()]))] |= NUMERIC
    mark(ALPHA, [c.isalpha() for c in characters])
    flags[_codes("".join([c for c in ideographs if c.isalpha()]))] |= ALPHA
    for flag, told in ((ASCII_LETTER, string.ascii_letters), (BULLET, BULLETS), (TERMINAL, TERMINALS)):
        flags[[ord(c) for c in told]] |= flag
    # Python does not say which characters are cased or ignorable; what it makes of a sigma after them does.
    after_digit, after_letter = (_final_sigma(before, characters) for before in "1A")
    mark(CASED, after_digit)
    mark(IGNORABLE, [a and not d for a, d in zip(after_letter, after_digit, strict=True)])

    classes = np.zeros(CODE_POINTS, np.uint8)
    marks = np.flatnonzero([category[0] == "M" for category in map(unicodedata.category, characters)])
    classes[codes[marks]] = [unicodedata.combining(characters[i]) for i in marks.tolist()]
    spellings, numbers = [""], np.zeros(CODE_POINTS, np.uint32)
    lowered = [c.lower() for c in characters]
    changed = [a != b or not unicodedata.is_normalized("NFD", b) for a, b in zip(characters, lowered, strict=True)]
    spelled = {characters[i]: lowered[i] for i in np.flatnonzero(changed).tolist() if codes[i] >= 128}
    spelled |= {c: c for c in ideographs if not unicodedata.is_normalized("NFD", c)}
    for character, lower in spelled.items():
        numbers[ord(character)] = len(spellings)
        spellings.append(unicodedata.normalize("NFD", lower))
    first_combines = np.array([bool(s) and unicodedata.combining(s[0]) > 0 for s in spellings])
    flags[first_combines[numbers] | (classes > 0)] |= COMBINING
    assert len(spellings) < 1 << 16
    utf8 = [s.encode() for s in spellings]
    # Pages that are alike are kept once; page 0 comes first, so that ASCII needs no look at `pages`.
    flags |= numbers << 16
    seen: dict[bytes, int] = {}
    both = zip(flags.reshape(-1, PAGE), classes.reshape(-1, PAGE), strict=True)
    pages = [seen.setdefault(entries.tobytes() + combining.tobytes(), len(seen)) for entries, combining in both]
    first = np.unique(pages, return_index=True)[1]
    return CodePointTables(
        pages=np.array(pages, np.uint16),
        entries=flags.reshape(-1, PAGE)[first].ravel(),
        combining=classes.reshape(-1, PAGE)[first].ravel(),
        spelling=np.cumsum([0, *map(len, utf8)]).astype(np.uint32),
        spelled=np.frombuffer(b"".join(utf8), np.uint8),
        spelled_characters=np.array([len(s) for s in spellings], np.uint8),
        spelled_numeric=np.array([sum(c.isnumeric() for c in s) for s in spellings], np.uint8),
        ascii=np.array([_ascii(chr(c)) for c in range(128)], np.int16),
    )


def _codes(text: str) -> NDArray[np.int64]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)


def _final_sigma(before: str, characters: list[str]) -> list[bool]:
    """Whether a sigma at the end is the final one after `before` and each character."""
    return [(before + c + "Σ").lower()[-1] == "ς" for c in characters]


def _ascii(character: str) -> int:
    if character == "\n":
        return NEWLINE
    if character.isspace():
        return BLANK
    return DELETED if character in string.punctuation else ord(character.lower())
