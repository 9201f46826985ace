"""Numba kernels of Gopher's and FineWeb's rules about lines and paragraphs. Text is UTF-8, lengths are characters."""

from __future__ import annotations

import numpy as np
from numba import int64, uint8

from pipeline.compiled import compiled, part, read_only
from quality.signals.kernel_parts import (
    break_width,
    code_at,
    ends_with_dots,
    ends_with_ellipsis,
    finish_hash,
    is_among,
    larger,
    last_start,
    lstrip,
    rstrip,
    seen_before,
    starts_with_bullet,
)

LINE_COUNTS = (
    "lines",  # of str.splitlines
    "bullet_lines",
    "ellipsis_lines",
    "blocks",  # what runs of newlines separate, an empty one at either end included
    "repeated_blocks",
    "repeated_block_characters",
    "paragraphs",
    "repeated_paragraphs",
    "repeated_paragraph_characters",
    "filled_lines",  # with more than white space
    "punctuated_lines",
    "short_lines",
    "repeated_line_characters",
    "newlines",
    "hash_marks",
    "ellipses",  # `...`, not overlapping, and U+2026
)
"""Columns of what `count_lines` fills."""
SHORT = 30
"""Characters of a short line, at most (FineWeb)."""
_NEWLINE = 10
_SLOTS = 256
"""Of a set of hashes that is still small."""
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_SEED = np.uint64(0xCBF29CE484222325)


_BREAK, _HASH, _DOT = 1, 2, 3
_KINDS = np.zeros(256, np.uint8)
_KINDS[[11, 12, 13, 28, 29, 30, 0xC2, 0xE2]] = _BREAK
_KINDS[35], _KINDS[46] = _HASH, _DOT
"""Bytes that may begin a line break of str.splitlines (the newline apart) or U+2026, and those that are counted."""


@part
def _one_line(data, begin, end, count):
    """A line of str.splitlines, without its end."""
    count[0] += 1
    first = lstrip(data, begin, end)
    if starts_with_bullet(data, first, end):
        count[1] += 1
    if ends_with_ellipsis(data, first, rstrip(data, first, end)):
        count[2] += 1


@part
def _broken_line(data, begin, stop, end, count):
    """What lies between two newlines, as the lines of str.splitlines; the newline at `stop`, or the end, closes the last."""
    i = begin
    for j in range(begin, stop):
        if j >= i and break_width(data, j, end):
            _one_line(data, i, j, count)
            i = j + break_width(data, j, end)
    if i < stop or (i == stop and stop < end):
        _one_line(data, i, stop, count)


@part
def _is_terminal(data, start, terminals):
    byte = data[start]
    if byte < 0x80:
        return byte == 33 or byte == 46 or byte == 63
    return is_among(terminals, code_at(data, start))


@part
def _hash(data, begin, end):
    """A hash of the bytes, and how many characters they are."""
    characters, value = 0, _SEED
    for i in range(begin, end):
        byte = data[i]
        characters += byte & 0xC0 != 0x80
        value = (value ^ np.uint64(byte)) * _PRIME
    return finish_hash(value), characters


@compiled(read_only(uint8), int64[::1], int64[::1], int64, int64[:, ::1])
def count_lines(data, offsets, terminals, short, counts):
    """Fill counts (documents, LINE_COUNTS), which is zero. terminals: sorted code points; short: a short line's characters."""
    lines, paragraphs = np.zeros(_SLOTS, np.uint64), np.zeros(_SLOTS, np.uint64)
    for d in range(len(offsets) - 1):
        begin, end, count = offsets[d], offsets[d + 1], counts[d]
        line_slots, line_held, paragraph_slots, paragraph_held = _SLOTS, 0, _SLOTS, 0
        lines[:_SLOTS] = 0
        paragraphs[:_SLOTS] = 0
        text_begin = lstrip(data, begin, end)
        text_end = rstrip(data, text_begin, end)
        count[6] = 1 if text_begin == text_end else 0
        if begin == end:
            count[3] = 1
            continue
        # An empty block lies before a newline that begins the text, and after one that ends it; the second is a copy.
        edges = np.int64(data[begin] == _NEWLINE) + np.int64(data[end - 1] == _NEWLINE)
        count[3] = edges
        count[4] = 1 if edges == 2 else 0
        joined, characters = _SEED, -1  # of the paragraph so far: a hash of its lines' hashes; characters, -1 before a line
        i = begin
        while i < end:
            stop, length, broken, value, counted = i, 0, False, _SEED, i
            while stop < end and data[stop] != _NEWLINE:
                byte = data[stop]
                kind = _KINDS[byte]
                if kind != 0:
                    if kind == _BREAK:
                        broken = True
                        count[15] += byte == 0xE2 and data[stop + 1] == 0x80 and data[stop + 2] == 0xA6
                    elif kind == _HASH:
                        count[14] += 1
                    elif stop >= counted and ends_with_dots(data, stop, min(stop + 3, end)):
                        count[15] += 1
                        counted = stop + 3
                length += byte & 0xC0 != 0x80
                value = (value ^ np.uint64(byte)) * _PRIME
                stop += 1
            count[13] += stop < end
            key = finish_hash(value)
            if broken:
                _broken_line(data, i, stop, end, count)
            else:
                _one_line(data, i, stop, count)
            if stop > i:
                copy = seen_before(lines, line_slots, key)
                if not copy:
                    line_held += 1
                    if 2 * line_held > line_slots:
                        lines = larger(lines, line_slots)
                        line_slots *= 2
                count[3] += 1
                if copy:
                    count[4] += 1
                    count[5] += length
                if lstrip(data, i, stop) < stop:
                    count[9] += 1
                    count[10] += _is_terminal(data, last_start(data, i, stop), terminals)
                    count[11] += length <= short
                    if copy:
                        count[12] += length
            # Paragraphs are of the text without the white space around it.
            first, last = max(i, text_begin), min(stop, text_end)
            if first < last:
                if first > i or last < stop:
                    key, length = _hash(data, first, last)
                joined = (joined ^ key) * _PRIME
                characters += length + 1
            if characters >= 0 and (stop >= text_end or data[stop + 1] == _NEWLINE):
                count[6] += 1
                if seen_before(paragraphs, paragraph_slots, finish_hash(joined)):
                    count[7] += 1
                    count[8] += characters
                else:
                    paragraph_held += 1
                    if 2 * paragraph_held > paragraph_slots:
                        paragraphs = larger(paragraphs, paragraph_slots)
                        paragraph_slots *= 2
                joined, characters = _SEED, -1
            i = stop + 1
