"""Two texts side by side, with the words that differ marked."""

from __future__ import annotations

import difflib
import html
import re

MOST_WORDS = 600


def side_by_side(left: str, right: str) -> tuple[str, str]:
    """Both texts as HTML, words that the other lacks in `<mark>`. At most MOST_WORDS of each, from where they first differ."""
    one, other = _words(left), _words(right)
    start = _first_difference(one, other)
    one, other = one[start : start + MOST_WORDS], other[start : start + MOST_WORDS]
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
    halves: tuple[list[str], list[str]] = ([], [])
    for tag, a, b, c, d in matcher.get_opcodes():
        for half, words in ((halves[0], one[a:b]), (halves[1], other[c:d])):
            told = html.escape("".join(words))
            half.append(told if tag == "equal" or not told.strip() else f"<mark>{told}</mark>")
    lead = "… " if start else ""
    return lead + "".join(halves[0]), lead + "".join(halves[1])


def _words(text: str) -> list[str]:
    return re.findall(r"\S+\s*|\s+", text)


def _first_difference(one: list[str], other: list[str], lead: int = 40) -> int:
    """A little before the first difference, so that a long common beginning does not hide it."""
    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return max(0, same - lead)
