"""Numba kernel of C4's rules, which judge line by line. Text is UTF-8."""

from __future__ import annotations

import numpy as np
from numba import int64, uint8, uint16, uint32

from pipeline.compiled import compiled, part, read_only
from quality.signals.kernel_parts import break_width, code_at, ends_with_dots, is_among, is_space, lstrip, rstrip, width_at

FATES = (
    "kept",
    "long_word",
    "no_terminal_punctuation",
    "few_words",
    "lorem_ipsum",
    "javascript",
    "curly_bracket",
    "policy",
)
"""What becomes of a line, in the order of the columns that `judge_lines` fills; the first that applies."""
_KEPT, _LONG_WORD, _NO_END, _FEW_WORDS, _LOREM_IPSUM, _JAVASCRIPT, _CURLY_BRACKET, _POLICY = range(8)
_BREAKS = np.zeros(256, np.bool_)
_BREAKS[[10, 11, 12, 13, 28, 29, 30, 0xC2, 0xE2]] = True
"""Bytes that may begin a line break of str.splitlines."""
_OPEN, _CLOSE, _CURLY = 91, 93, 123
_NAMED = np.frombuffer(b"[edit]|[citation needed]|", np.uint8)
_LOREM = np.frombuffer(b"lorem ipsum|", np.uint8)
_SCRIPT = np.frombuffer(b"javascript|", np.uint8)
_POLICIES = np.frombuffer(
    b"terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies|", np.uint8
)  # fmt: skip
"""Phrases, each closed by a bar."""
_BAR = 124
_FIRST = np.zeros((3, 256), np.bool_)
_FIRST[0, ord("l")] = _FIRST[1, ord("j")] = True
_FIRST[2, [ord("t"), ord("p"), ord("c"), ord("u")]] = True
"""The bytes that the phrases of _LOREM, _SCRIPT and _POLICIES begin with."""


@part
def _phrase_at(text, begin, end, phrases):
    """Bytes of the phrase that text[begin:end] begins with; 0 if with none."""
    i, start = begin, 0
    for p in range(len(phrases)):
        if phrases[p] == _BAR:
            if i >= 0:
                return p - start
            i, start = begin, p + 1
        elif i >= 0:
            i = i + 1 if i < end and text[i] == phrases[p] else -1
    return 0


@part
def _holds(text, length, phrases, firsts):
    """Whether text[:length] has one of the phrases in it. firsts: the bytes that they begin with."""
    for i in range(length):  # noqa: SIM110 (Numba has no any)
        if firsts[text[i]] and _phrase_at(text, i, length, phrases):
            return True
    return False


@part
def _citation(data, begin, end, digits):
    """Bytes of the citation mark that begins at byte `begin`, an opening bracket; 0 if it is none."""
    i = begin + 1
    while i < end:
        byte = data[i]
        if not (48 <= byte <= 57 or (byte >= 0x80 and is_among(digits, code_at(data, i)))):
            break
        i += width_at(data, i)
    if i < end and data[i] == _CLOSE:
        return i + 1 - begin
    return _phrase_at(data, begin, end, _NAMED)


@part
def _count_words(data, begin, end, longest):
    """Words between white space, or -1 if one has more characters than `longest`."""
    words = length = 0
    i = begin
    while i < end:
        if is_space(code_at(data, i)):
            length = 0
        else:
            words += length == 0
            length += 1
            if length > longest:
                return -1
        i += width_at(data, i)
    return words


@part
def _ends_a_sentence(byte):
    return byte == 46 or byte == 63 or byte == 33 or byte == 34 or byte == 39


@part
def _sentences(data, length, pages, entries, alphanumeric):
    """Matches of `\\b[^.!?]+[.!?]*` in data[:length]."""
    count = i = 0
    before = False
    while i < length:
        code = code_at(data, i)
        word = entries[(np.int64(pages[code >> 8]) << 8) | (code & 255)] & alphanumeric != 0
        stop = code == 46 or code == 33 or code == 63
        if word == before or stop:
            before = word
            i += width_at(data, i)
            continue
        count += 1
        while i < length and not (data[i] == 46 or data[i] == 33 or data[i] == 63):
            i += 1
        while i < length and (data[i] == 46 or data[i] == 33 or data[i] == 63):
            i += 1
        before = False  # the match ends with a mark, or with the text
    return count


@part
def _fate(data, begin, end, clean, digits, few, longest):
    """What becomes of the line data[begin:end], stripped; a kept one lies in `clean`, so many bytes, without citation marks
    and in lower case as far as the phrases need it."""
    words = -2
    if end - begin > longest:  # no shorter line has a long word
        words = _count_words(data, begin, end, longest)
        if words == -1:
            return _LONG_WORD, 0
    if begin == end or not (_ends_a_sentence(data[end - 1]) or data[end - 1] == _CLOSE):
        return _NO_END, 0
    length, i, curly = 0, begin, False
    while i < end:
        byte = data[i]
        if byte == _OPEN:
            skipped = _citation(data, i, end, digits)
            if skipped:
                i += skipped
                continue
        curly |= byte == _CURLY
        clean[length] = byte
        length += 1
        i += 1
    if length == 0 or not _ends_a_sentence(clean[length - 1]) or ends_with_dots(clean, 0, length):
        return _NO_END, 0
    if words == -2:
        words = _count_words(data, begin, end, longest)
    if words < few:
        return _FEW_WORDS, 0
    i, cleaned, length = 0, length, 0
    while i < cleaned:
        byte = clean[i]
        if byte == 0xE2 and clean[i + 1] == 0x84 and clean[i + 2] == 0xAA:  # the Kelvin sign, whose lower case is k
            byte = np.uint8(107)
            i += 2
        elif 65 <= byte <= 90:
            byte |= np.uint8(32)
        clean[length] = byte
        length += 1
        i += 1
    if _holds(clean, length, _LOREM, _FIRST[0]):
        return _LOREM_IPSUM, 0
    if _holds(clean, length, _SCRIPT, _FIRST[1]):
        return _JAVASCRIPT, 0
    if curly:
        return _CURLY_BRACKET, 0
    if _holds(clean, length, _POLICIES, _FIRST[2]):
        return _POLICY, 0
    return _KEPT, length


@compiled(
    read_only(uint8), int64[::1], uint16[::1], uint32[::1], int64, int64[::1], int64, int64, int64[:, ::1]
)  # fmt: skip
def judge_lines(data, offsets, pages, entries, alphanumeric, digits, few, longest, counts):
    """Fill counts (documents, FATES + 1), which is zero: lines of str.splitlines by fate, and sentences in the kept ones.

    pages, entries: code-point tables, with the flag of `\\w`; digits: sorted decimal digits beyond ASCII; few: words that a
    line must have; longest: characters that a word may have.
    """
    clean = np.empty(1024, np.uint8)
    for d in range(len(offsets) - 1):
        i, end = offsets[d], offsets[d + 1]
        while i < end:
            stop, width = i, 0
            while stop < end:
                if _BREAKS[data[stop]]:
                    width = break_width(data, stop, end)
                    if width:
                        break
                stop += 1
            if stop - i > len(clean):
                clean = np.empty(2 * (stop - i), np.uint8)
            first = lstrip(data, i, stop)
            fate, length = _fate(data, first, rstrip(data, first, stop), clean, digits, few, longest)
            counts[d, fate] += 1
            if fate == _KEPT:
                counts[d, len(FATES)] += _sentences(clean, length, pages, entries, alphanumeric)
            i = stop + width
