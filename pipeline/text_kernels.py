"""The compiled passes over the UTF-8 of a batch as it stands: lines and counts, raw words.

Each pass decodes the bytes once and looks every code point up in `text_tables`. Text is valid UTF-8: whoever calls checks.
All work arrays come from the caller, large enough for the worst case; what is not written costs no memory.
"""

from __future__ import annotations

import numpy as np
from numba import types

from pipeline import text_tables as table
from pipeline.compiled import compiled, read_only
from pipeline.kernel_parts import FNV_BASIS, FNV_PRIME, avalanche, decode, entry, is_plain

BYTES, OFFSETS, PAGES, ENTRIES = (read_only(t) for t in (types.uint8, types.int64, types.uint16, types.uint32))
POSITIONS = read_only(types.uint32)
U1, U4, U8, I4, I8 = (t[::1] for t in (types.uint8, types.uint32, types.uint64, types.int32, types.int64))

WORD, RAW_SPACE, ALNUM, SPACE = (np.uint32(f) for f in (table.WORD, table.RAW_SPACE, table.ALNUM, table.SPACE))
UPPER, NOT_UPPER, BULLET = np.uint32(table.UPPER), np.uint32(table.NOT_UPPER), np.uint32(table.BULLET)
ALPHA, ASCII_LETTER, TERMINAL = np.uint32(table.ALPHA), np.uint32(table.ASCII_LETTER), np.uint32(table.TERMINAL)


@compiled(BYTES)
def count_newlines(data):
    n = 0
    for p in range(len(data)):
        n += data[p] == 10
    return n


@compiled(BYTES, OFFSETS, PAGES, ENTRIES, I8, I4, I4, U4, U1, types.int64[:, ::1])
def scan(data, offsets, pages, entries, line_offsets, starts, ends, upper, marks, tally):
    """Lines, and counts per document.

    Out: line_offsets; per line starts, ends (characters), upper (characters in capitals), marks (1 ellipsis, 2 terminal
    punctuation, 4 bullet point); tally (documents, 6): characters, sentences, curly brackets, `#`, `...`, `…`.
    """
    line = 0
    for d in range(len(offsets) - 1):
        line_offsets[d] = line
        p, end = offsets[d], offsets[d + 1]
        position = 0  # in characters
        start = 0
        capitals = 0
        dots = 0  # that end at the last character that is no white space
        gap = True  # white space since then
        blank = True  # nothing but white space in this line
        last = np.uint32(0)  # the last character that is no white space, and its flags
        last_flags = np.uint32(0)
        bullet = False
        sentences = 0
        inside = 0  # 0 between sentences, 1 in one, 2 in its marks
        joined = False  # the character before is of a word, for `\b`
        brackets = 0
        hash_marks = 0
        run = 0  # of dots
        triples = 0
        ellipses = 0
        while p < end:
            # Most of a text are runs of ASCII letters and digits, of which only the number and the capitals count.
            first = p
            while p < end and is_plain(data[p]):
                capitals += data[p] < 91 and data[p] > 64
                p += 1
            if p > first:
                position += p - first
                if inside != 1:
                    sentences += not joined
                    inside = 0 if joined else 1
                joined = True
                run = 0
                dots = 0
                gap = False
                blank = False
                last = np.uint32(0)
                last_flags = np.uint32(0)
                if p == end:
                    starts[line], ends[line], upper[line], marks[line] = start, position, capitals, 4 if bullet else 0
                    line += 1
                    break
            c = np.uint32(data[p])
            if c < 128:
                p += 1
                k = entries[c]
            else:
                c, size = decode(data, p)
                p += size
                k = entry(pages, entries, c)
            position += 1

            alnum = (k & ALNUM) != 0
            if c == 0x2E or c == 0x21 or c == 0x3F:
                if inside == 1:
                    inside = 2
            elif inside != 1:
                # A match begins at a word boundary; after one has ended too, which the marks before make no word.
                if alnum != joined:
                    sentences += 1
                    inside = 1
                else:
                    inside = 0
            joined = alnum

            if c == 0x2E:
                run += 1
                if run == 3:
                    triples += 1
                    run = 0
            else:
                run = 0
                if c == 0x7B or c == 0x7D:
                    brackets += 1
                elif c == 0x23:
                    hash_marks += 1
                elif c == 0x2026:
                    ellipses += 1

            if k & SPACE:
                gap = True
            else:
                dots = (1 if gap else dots + 1) if c == 0x2E else 0
                gap = False
                last = c
                last_flags = k
                if blank:
                    blank = False
                    bullet = (k & BULLET) != 0
                capitals += (k & UPPER) != 0
            if c == 10 or p == end:
                starts[line] = start
                ends[line] = position
                upper[line] = capitals
                mark = 0
                if not blank:
                    if last == 0x2026 or dots >= 3:
                        mark |= 1
                    if last_flags & TERMINAL:
                        mark |= 2
                    if bullet:
                        mark |= 4
                marks[line] = mark
                line += 1
                start = position
                capitals = 0
                dots = 0
                gap = True
                blank = True
                bullet = False
        tally[d, 0] = position
        tally[d, 1] = sentences
        tally[d, 2] = brackets
        tally[d, 3] = hash_marks
        tally[d, 4] = triples
        tally[d, 5] = ellipses
    line_offsets[len(offsets) - 1] = line
    return line


@compiled(BYTES, OFFSETS, PAGES, ENTRIES, I8, U8, U1)
def raw_words(data, offsets, pages, entries, word_offsets, hashes, flags):
    """Runs of word characters and runs of other characters that are no white space. Out: as RawWords has them."""
    n = 0
    for d in range(len(offsets) - 1):
        word_offsets[d] = n
        p, end = offsets[d], offsets[d + 1]
        seen = np.uint32(0)
        h = FNV_BASIS
        kind = RAW_SPACE  # of the run that is open: WORD, RAW_SPACE, or 0 for what is neither
        while p <= end:
            if kind == WORD:
                while p < end and is_plain(data[p]):
                    seen |= entries[data[p]]
                    h = (h ^ np.uint64(data[p])) * FNV_PRIME
                    p += 1
            q = p
            k = RAW_SPACE
            if p < end:
                c = np.uint32(data[p])
                if c < 128:
                    q = p + 1
                    k = entries[c]
                else:
                    c, size = decode(data, p)
                    q = p + size
                    k = entry(pages, entries, c)
            else:
                q = p + 1
            now = k & (WORD | RAW_SPACE)
            if now != kind:
                if kind != RAW_SPACE:
                    hashes[n] = avalanche(h)
                    f = 0
                    if (seen & UPPER) != 0 and (seen & NOT_UPPER) == 0:
                        f |= 1
                    if seen & ASCII_LETTER:
                        f |= 2
                    if seen & ALPHA:
                        f |= 4
                    if kind == WORD:
                        f |= 8
                    flags[n] = f
                    n += 1
                kind = now
                h = FNV_BASIS
                seen = np.uint32(0)
            if p < end and now != RAW_SPACE:
                seen |= k
                for i in range(p, q):
                    h = (h ^ np.uint64(data[i])) * FNV_PRIME
            p = q
    word_offsets[len(offsets) - 1] = n
    return n


@compiled(BYTES, OFFSETS, PAGES, ENTRIES, U4, U4)
def raw_word_spans(data, offsets, pages, entries, starts, ends):
    """The bytes where raw words begin and end."""
    n = 0
    for d in range(len(offsets) - 1):
        p, end = offsets[d], offsets[d + 1]
        kind = RAW_SPACE
        while p < end:
            c = np.uint32(data[p])
            size = 1
            if c >= 128:
                c, size = decode(data, p)
            now = entry(pages, entries, c) & (WORD | RAW_SPACE)
            if now != kind:
                if kind != RAW_SPACE:
                    ends[n] = p
                    n += 1
                if now != RAW_SPACE:
                    starts[n] = p
                kind = now
            p += size
        if kind != RAW_SPACE:
            ends[n] = end
            n += 1
    return n


@compiled(BYTES, POSITIONS, POSITIONS, U4)
def count_characters(data, starts, ends, lengths):
    """Characters of words that begin and end at these bytes."""
    for i in range(len(starts)):
        n = 0
        for p in range(starts[i], ends[i]):
            n += data[p] & 0xC0 != 0x80
        lengths[i] = n
    return len(starts)
