"""The compiled pass that makes normalised words: ASCII punctuation deleted, lower case, cut at white space, in NFD.

As in `text_kernels`, text is valid UTF-8, and work arrays come from the caller, large enough for the worst case.
"""

from __future__ import annotations

import numpy as np
from numba import types

from pipeline import text_tables as table
from pipeline.compiled import compiled, part, read_only
from pipeline.kernel_parts import FNV_BASIS, FNV_PRIME, avalanche, decode, entry

BYTES, OFFSETS, PAGES, ENTRIES = (read_only(t) for t in (types.uint8, types.int64, types.uint16, types.uint32))
U1, U4, U8, I8 = (t[::1] for t in (types.uint8, types.uint32, types.uint64, types.int64))

SPACE, NUMERIC, CASED = np.uint32(table.SPACE), np.uint32(table.NUMERIC), np.uint32(table.CASED)
IGNORABLE, COMBINING = np.uint32(table.IGNORABLE), np.uint32(table.COMBINING)
NEWLINE, SIGMA = np.int16(table.NEWLINE), 0x3A3


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
