"""CCNet's text normalisation before a language model: a document becomes one line of lower-case, unaccented text."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from pipeline.punctuation import CONTROL_CHARACTERS, PUNCTUATION

_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
_DIGIT = re.compile(r"\d")
_CONTROLS = frozenset(CONTROL_CHARACTERS)
_ASCII_CONTROLS = bytes(ord(c) for c in CONTROL_CHARACTERS if ord(c) < 128)
_ASCII_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_CACHED_LENGTH = 8  # characters; Latin scripts have short runs that come again and again


def normalize(text: str) -> str:
    """The text as CCNet scores it (source: cc_net `text_normalizer.normalize` with all its steps on).

    In this order: strip, lower, NFD without nonspacing marks (category Mn), every decimal digit to 0, the 34 punctuation
    characters to ASCII, control characters deleted. Newlines are control characters: the result is one line, and the last
    word of a line joins the first of the next.
    """
    text = text.strip().lower()
    if not text.isascii():
        # ASCII characters neither decompose nor take part in the reordering of marks, so that each run between them may be
        # folded by itself.
        text = _BEYOND_ASCII.sub(_fold, text)
    return text.encode("utf-8", "surrogatepass").translate(_ASCII_DIGITS, _ASCII_CONTROLS).decode("utf-8", "surrogatepass")


def _fold(run: re.Match[str]) -> str:
    found = run[0]
    return _fold_short(found) if len(found) <= _CACHED_LENGTH else _fold_run(found)


def _fold_run(run: str) -> str:
    bare = "".join([c for c in unicodedata.normalize("NFD", run) if unicodedata.category(c) != "Mn"])
    return "".join([PUNCTUATION.get(c, c) for c in _DIGIT.sub("0", bare) if c not in _CONTROLS])


_fold_short = lru_cache(maxsize=1 << 16)(_fold_run)
