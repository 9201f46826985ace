"""The compiled passes over the UTF-8 of a batch: lines and counts, raw words, normalised words.

Each pass decodes the bytes once and looks every code point up in `text_tables`. Text is valid UTF-8: whoever calls checks.
All work arrays come from the caller, large enough for the worst case; what is not written costs no memory.
"""

from __future__ import annotations

import numpy as np
from numba import types

from pipeline import text_tables as table
from pipeline.compiled import compiled, part, read_only

BYTES, OFFSETS, PAGES, ENTRIES = (read_only(t) for t in (types.uint8, types.int64, types.uint16, types.uint32))
HASHES = read_only(types.uint64)
U1, U4, U8, I4, I8 = (t[::1] for t in (types.uint8, types.uint32, types.uint64, types.int32, types.int64))

FNV_BASIS, FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
MIX_1, MIX_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
THIRTY_THREE = np.uint64(33)

WORD, RAW_SPACE, ALNUM, SPACE = (np.uint32(f) for f in (table.WORD, table.RAW_SPACE, table.ALNUM, table.SPACE))
UPPER, NOT_UPPER, NUMERIC = np.uint32(table.UPPER), np.uint32(table.NOT_UPPER), np.uint32(table.NUMERIC)
ALPHA, ASCII_LETTER, CASED = np.uint32(table.ALPHA), np.uint32(table.ASCII_LETTER), np.uint32(table.CASED)
IGNORABLE, COMBINING = np.uint32(table.IGNORABLE), np.uint32(table.COMBINING)
BULLET, TERMINAL = np.uint32(table.BULLET), np.uint32(table.TERMINAL)
BLANK, NEWLINE = np.int16(table.BLANK), np.int16(table.NEWLINE)
SIGMA = 0x3A3


@part
def decode(data, p):
    """The code point at byte p, beyond ASCII, and its length in bytes."""
    b = np.uint32(data[p])
    if b < 0xE0:
        return np.uint32(((b & 0x1F) << 6) | (data[p + 1] & 0x3F)), 2
    if b < 0xF0:
        return np.uint32(((b & 0xF) << 12) | (np.uint32(data[p + 1] & 0x3F) << 6) | (data[p + 2] & 0x3F)), 3
    high = ((b & 7) << 18) | (np.uint32(data[p + 1] & 0x3F) << 12)
    return np.uint32(high | (np.uint32(data[p + 2] & 0x3F) << 6) | (data[p + 3] & 0x3F)), 4


@part
def entry(pages, entries, c):
    """What the tables say of the code point c."""
    return entries[(np.uint32(pages[c >> 8]) << 8) | (c & 0xFF)]


@part
def avalanche(h):
    """MurmurHash3's finaliser: every bit of h moves every bit of the result."""
    h ^= h >> THIRTY_THREE
    h *= MIX_1
    h ^= h >> THIRTY_THREE
    h *= MIX_2
    return h ^ (h >> THIRTY_THREE)


@part
def is_plain(b):
    """An ASCII letter or digit."""
    return 97 <= b <= 122 or 65 <= b <= 90 or 48 <= b <= 57


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


@compiled(BYTES, OFFSETS, PAGES, ENTRIES, I8, U8, U4, U1)
def raw_words(data, offsets, pages, entries, word_offsets, hashes, starts, flags):
    """Runs of word characters and runs of other characters that are no white space. Out: as RawWords has them."""
    n = 0
    for d in range(len(offsets) - 1):
        word_offsets[d] = n
        p, end = offsets[d], offsets[d + 1]
        kind = np.uint32(0)  # of the run that is open: WORD, RAW_SPACE, or 0 for what is neither
        seen = np.uint32(0)
        h = FNV_BASIS
        opened = p
        kind = RAW_SPACE
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
                    starts[n] = opened
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
                opened = p
                h = FNV_BASIS
                seen = np.uint32(0)
            if p < end and now != RAW_SPACE:
                seen |= k
                for i in range(p, q):
                    h = (h ^ np.uint64(data[i])) * FNV_PRIME
            p = q
    word_offsets[len(offsets) - 1] = n
    return n


@compiled(BYTES, OFFSETS, PAGES, ENTRIES, ENTRIES, U4, U4)
def raw_word_sizes(data, offsets, pages, entries, starts, ends, lengths):
    """Ends in bytes, and lengths in characters, of raw words that begin at `starts`."""
    total = offsets[len(offsets) - 1]
    d = 0
    for i in range(len(starts)):
        p = np.int64(starts[i])
        while offsets[d + 1] <= p:
            d += 1
        stop = offsets[d + 1]
        kind = np.uint32(0)
        length = 0
        while p < stop:
            c = np.uint32(data[p])
            size = 1
            if c >= 128:
                c, size = decode(data, p)
            now = entry(pages, entries, c) & (WORD | RAW_SPACE)
            if length == 0:
                kind = now
            elif now != kind:
                break
            length += 1
            p += size
        ends[i] = p
        lengths[i] = length
    return total


@part
def is_final(data, begin, end, p, pages, entries):
    """Whether the sigma at byte p of a document is a final one: a cased character before it, and none after it.

    ASCII punctuation is deleted before the case is lowered, so that it does not count; ignorable characters are passed over.
    """
    q = p - 1
    before = False
    while q >= begin:
        while (data[q] & 0xC0) == 0x80:
            q -= 1
        c = np.uint32(data[q])
        if c >= 128:
            c = decode(data, q)[0]
        k = entry(pages, entries, c)
        if (c >= 128 or not is_punctuation(c)) and not k & IGNORABLE:
            before = (k & CASED) != 0
            break
        q -= 1
    if not before:
        return False
    q = p + 2
    while q < end:
        c = np.uint32(data[q])
        size = 1
        if c >= 128:
            c, size = decode(data, q)
        k = entry(pages, entries, c)
        if (c >= 128 or not is_punctuation(c)) and not k & IGNORABLE:
            return (k & CASED) == 0
        q += size
    return True


@part
def is_punctuation(c):
    return 33 <= c <= 47 or 58 <= c <= 64 or 91 <= c <= 96 or 123 <= c <= 126


@part
def reorder(utf8, begin, end, pages, combining):
    """Put the marks of one word in canonical order, in place (Unicode 3.11, D109): a stable sort of each run by class."""
    p = begin
    while p < end:
        # A run of marks: code points and classes, if it is out of order.
        q = p
        count = 0
        ordered = True
        previous = 0
        while q < end:
            size = 1
            klass = 0
            if utf8[q] >= 128:
                c, size = decode(utf8, q)
                klass = combining[(np.uint32(pages[c >> 8]) << 8) | (c & 0xFF)]
            if klass == 0:
                break
            ordered &= klass >= previous
            previous = klass
            count += 1
            q += size
        if not ordered:
            at, classes, sizes = np.empty(count, np.int64), np.empty(count, np.uint8), np.empty(count, np.uint8)
            r = p
            places = np.zeros(257, np.int64)
            for i in range(count):
                c, size = decode(utf8, r)
                at[i], sizes[i] = r - p, size
                classes[i] = combining[(np.uint32(pages[c >> 8]) << 8) | (c & 0xFF)]
                places[classes[i] + 1] += 1
                r += size
            for i in range(256):
                places[i + 1] += places[i]
            order = np.empty(count, np.int64)
            for i in range(count):
                order[places[classes[i]]] = i
                places[classes[i]] += 1
            copy = utf8[p:q].copy()
            r = p
            for i in order:
                for j in range(sizes[i]):
                    utf8[r] = copy[at[i] + j]
                    r += 1
        p = q
        if p < end:
            size = 1
            if utf8[p] >= 128:
                size = decode(utf8, p)[1]
            p += size


@compiled(
    BYTES, OFFSETS, PAGES, ENTRIES, BYTES, ENTRIES, BYTES, BYTES, BYTES, read_only(types.int16),
    I8, I8, U8, U4, U1, I8, U4, U4,
)  # fmt: skip
def words(
    data, offsets, pages, entries, combining, spelling, spelled, spelled_characters, spelled_numeric, ascii_table,
    word_offsets, byte_offsets, hashes, lengths, utf8, line_offsets, line_lengths, line_numeric,
):  # fmt: skip
    """Normalised words. Out: as Words has them; returns words, bytes and lines."""
    n = 0
    out = 0
    line = 0
    for d in range(len(offsets) - 1):
        word_offsets[d] = n
        byte_offsets[d] = out
        begin, end = offsets[d], offsets[d + 1]
        p = begin
        length = 0  # characters of the word that is open
        numeric = 0  # numeric characters of the line so far, and all, with a space after each word
        characters = 0
        line_offsets[line] = n
        h = FNV_BASIS
        opened = out
        marked = False  # the word has a mark, so that its marks may have to be put in order
        while p < end:
            while p < end and data[p] >= 97 and data[p] <= 122:
                utf8[out] = data[p]
                h = (h ^ np.uint64(data[p])) * FNV_PRIME
                out += 1
                length += 1
                p += 1
            b = data[p] if p < end else np.uint8(32)
            if p == end:
                new_line = False
            elif b < 128:
                p += 1
                a = ascii_table[b]
                if a >= 0:
                    utf8[out] = a
                    out += 1
                    length += 1
                    h = (h ^ np.uint64(a)) * FNV_PRIME
                    numeric += 48 <= a <= 57
                    if p < end:
                        continue
                elif a == table.DELETED and p < end:
                    continue
                new_line = a == NEWLINE
            else:
                new_line = False
                c, size = decode(data, p)
                k = entry(pages, entries, c)
                if not k & SPACE:
                    number = k >> 16
                    if k & COMBINING:
                        marked = True
                    if number == 0:
                        for i in range(p, p + size):
                            utf8[out] = data[i]
                            h = (h ^ np.uint64(data[i])) * FNV_PRIME
                            out += 1
                        length += 1
                        numeric += (k & NUMERIC) != 0
                    elif c == SIGMA:
                        utf8[out] = 0xCF
                        last = 0x82 if is_final(data, begin, end, p, pages, entries) else 0x83
                        utf8[out + 1] = last
                        h = (((h ^ np.uint64(0xCF)) * FNV_PRIME) ^ np.uint64(last)) * FNV_PRIME
                        out += 2
                        length += 1
                    else:
                        for i in range(spelling[number], spelling[number + 1]):
                            utf8[out] = spelled[i]
                            h = (h ^ np.uint64(spelled[i])) * FNV_PRIME
                            out += 1
                        length += spelled_characters[number]
                        numeric += spelled_numeric[number]
                    p += size
                    if p < end:
                        continue
                else:
                    p += size
            # Here the word ends: at white space, or with the document.
            if length:
                if marked:
                    reorder(utf8, opened, out, pages, combining)
                    h = FNV_BASIS
                    for i in range(opened, out):
                        h = (h ^ np.uint64(utf8[i])) * FNV_PRIME
                    marked = False
                hashes[n] = avalanche(h)
                lengths[n] = length
                characters += length + 1
                n += 1
                utf8[out] = 32
                out += 1
                opened = out
                length = 0
                h = FNV_BASIS
            if new_line or p == end:
                line_numeric[line] = numeric
                line_lengths[line] = max(characters - 1, 0)
                numeric = 0
                characters = 0
                line += 1
                line_offsets[line] = n
    word_offsets[len(offsets) - 1] = n
    byte_offsets[len(offsets) - 1] = out
    line_offsets[line] = n
    return n, out, line
