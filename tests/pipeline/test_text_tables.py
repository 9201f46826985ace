"""The tables of code points say of every character what Python says."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

import numpy as np
import pytest
import regex

from pipeline import text_tables as table
from pipeline.text_tables import CODE_POINTS, PAGE, tables

TEXT = "".join(map(chr, range(CODE_POINTS)))
SURROGATES = slice(0xD800, 0xE000)


def flag(bit: int) -> np.ndarray:
    told = tables()
    return told.entries.reshape(-1, PAGE)[told.pages].ravel() & bit != 0


def matches(pattern: re.Pattern[str] | regex.Pattern[str]) -> np.ndarray:
    found = np.zeros(CODE_POINTS, bool)
    for match in pattern.finditer(TEXT):
        found[match.start() : match.end()] = True
    return found


@pytest.mark.parametrize(
    ("bit", "pattern"),
    [
        (table.WORD, regex.compile(r"\w+")),
        (table.RAW_SPACE, regex.compile(r"\s+")),
        (table.ALNUM, re.compile(r"\w+")),
        (table.SPACE, re.compile(r"\s+")),
        (table.ASCII_LETTER, re.compile("[a-zA-Z]+")),
    ],
)
def test_classes_of_regular_expressions(bit: int, pattern: re.Pattern[str]) -> None:
    assert np.array_equal(flag(bit), matches(pattern))


@pytest.mark.parametrize(
    ("bit", "holds"),
    [
        (table.SPACE, str.isspace),
        (table.UPPER, str.isupper),
        (table.NUMERIC, str.isnumeric),
        (table.ALPHA, str.isalpha),
        (table.NOT_UPPER, lambda c: not (c + "A").isupper()),
    ],
)
def test_methods_of_str(bit: int, holds: Callable[[str], bool]) -> None:
    assert np.array_equal(flag(bit), np.fromiter(map(holds, TEXT), bool, CODE_POINTS))


def test_what_a_final_sigma_looks_at() -> None:
    def final(before: str) -> np.ndarray:
        # One string for all: a space is neither cased nor ignorable, and ends the look. İ becomes two characters.
        told = " ".join(f"{before}{c}Σ" for c in TEXT if c != "İ" and c != " ").lower()
        letters = np.fromiter((m[0] == "ς" for m in re.finditer(r"[σς](?= |$)", told)), bool)
        return np.insert(np.insert(letters, ord(" "), False), ord("İ"), True)

    after_letter, after_digit = final("A"), final("1")
    assert np.array_equal(flag(table.CASED), after_digit)
    assert np.array_equal(flag(table.IGNORABLE), after_letter & ~after_digit)


def test_spellings_in_lower_case_and_decomposed() -> None:
    told = tables()
    numbers = told.entries.reshape(-1, PAGE)[told.pages].ravel() >> 16
    changed = {c: s for c in TEXT[128:] if (s := unicodedata.normalize("NFD", c.lower())) != c}
    assert np.flatnonzero(numbers).tolist() == [ord(c) for c in changed]
    for character, expected in changed.items():
        number = numbers[ord(character)]
        spelled = told.spelled[told.spelling[number] : told.spelling[number + 1]].tobytes().decode()
        assert spelled == expected
        assert told.spelled_characters[number] == len(expected)
        assert told.spelled_numeric[number] == sum(c.isnumeric() for c in expected)


def test_combining_classes() -> None:
    told = tables()
    classes = np.fromiter(map(unicodedata.combining, TEXT), np.uint8, CODE_POINTS)
    assert np.array_equal(told.combining.reshape(-1, PAGE)[told.pages].ravel(), classes)
    marks = np.flatnonzero(flag(table.COMBINING)).tolist()
    assert set(np.flatnonzero(classes).tolist()) <= set(marks)
    assert all(unicodedata.combining(unicodedata.normalize("NFD", chr(c))[0]) for c in marks)


def test_ascii_is_page_0() -> None:
    assert tables().pages[0] == 0
    assert tables().ascii[ord("\n")] == table.NEWLINE and tables().ascii[ord("-")] == table.DELETED
    assert [tables().ascii[c] for c in (0, ord("A"), ord("\x1c"), ord("_"))] == [0, ord("a"), table.BLANK, table.DELETED]
