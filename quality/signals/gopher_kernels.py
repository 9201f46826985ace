"""Numba kernels of Gopher's rules about words: n-grams that repeat, words of symbols, stop words."""

from __future__ import annotations

import numpy as np
from numba import boolean, int64, uint8, uint32, uint64

from pipeline.compiled import compiled, part, read_only
from quality.signals.kernel_parts import code_at, is_among, width_at

TOP = (2, 3, 4)
REPEATED = (5, 6, 7, 8, 9, 10)
_BASE = np.uint64(0xD6E8FEB86659FD93)
_POWERS = 64
_SPELLINGS = 1 << 20
"""Words of a document whose hashes are kept; those beyond are hashed again for each n: time for memory."""
_MIX = np.uint64(0xFF51AFD7ED558CCD)
_LETTER = 4
"""The flag ALPHA of RawWords."""


@part
def _characters(data, begin, end):
    count = 0
    for i in range(begin, end):
        count += data[i] & 0xC0 != 0x80
    return count


@part
def _only_symbols(data, begin, end, ascii_symbols, symbols):
    i = begin
    while i < end:
        if data[i] < 0x80:
            if not ascii_symbols[data[i]]:
                return False
        elif not is_among(symbols, code_at(data, i)):
            return False
        i += width_at(data, i)
    return True


@part
def _spelling(data, begin, end):
    """A hash of bytes; that of two strings joined is the first's times _BASE to the second's length, plus the second's."""
    value = np.uint64(0)
    for i in range(begin, end):
        scattered = np.uint64(data[i] + 1) * _MIX
        value = value * _BASE + (scattered ^ (scattered >> np.uint64(32)))
    return value


@part
def _power(exponent):
    result, square = np.uint64(1), _BASE
    while exponent:
        if exponent & 1:
            result *= square
        square *= square
        exponent >>= 1
    return result


@part
def _slot(gram, size):
    """Where a hash belongs among so many slots: its high 32 bits, scaled to the range."""
    mixed = (gram ^ (gram >> np.uint64(31))) * _MIX
    return np.int64(((mixed >> np.uint64(32)) * np.uint64(size)) >> np.uint64(32))


@part
def _slots_for(words):
    """Slots of a hash set: twice as many as words, for huge documents a quarter more."""
    return 16 + (2 * words if words <= _SPELLINGS else words + words // 4)


@part
def _next(slot, size):
    return slot + 1 if slot + 1 < size else 0


@part
def _commonest(grams, number, slots, counts):
    """Where the commonest of the first `number` n-grams begins, and its count; of several the one that came first."""
    slots[:] = -1
    at, most = 0, 0
    for i in range(number):
        slot = _slot(grams[i], len(slots))
        while slots[slot] >= 0 and grams[slots[slot]] != grams[i]:
            slot = _next(slot, len(slots))
        if slots[slot] < 0:
            slots[slot] = i
            counts[i] = 0
        place = slots[slot]
        counts[place] += 1
        if counts[place] > most or (counts[place] == most and place < at):
            at, most = place, counts[place]
    return at, most


@part
def _skipping(data, grams, number, n, slots, starts, ends):
    slots[:] = -1
    i = characters = 0
    while i < number:
        slot = _slot(grams[i], len(slots))
        while slots[slot] >= 0 and grams[slots[slot]] != grams[i]:
            slot = _next(slot, len(slots))
        if slots[slot] < 0:
            slots[slot] = i
            i += 1
        else:
            for w in range(i, i + n):
                characters += _characters(data, np.int64(starts[w]), np.int64(ends[w]))
            i += n
    return characters


@compiled(read_only(uint8), int64[::1], uint32[::1], uint32[::1], uint8[::1], boolean[::1], int64[::1], int64[:, ::1])
def count_words(data, offsets, starts, ends, flags, ascii_symbols, symbols, counts):
    """Fill counts (documents, 2): words with a character that is no symbol, and their characters.

    starts, ends, flags: of the raw words, whose documents begin at `offsets`. symbols: sorted code points beyond ASCII.
    """
    for d in range(len(offsets) - 1):
        proper = characters = 0
        for w in range(offsets[d], offsets[d + 1]):
            begin, end = np.int64(starts[w]), np.int64(ends[w])
            if flags[w] & _LETTER != 0 or not _only_symbols(data, begin, end, ascii_symbols, symbols):
                proper += 1
                characters += _characters(data, begin, end)
        counts[d, 0] = proper
        counts[d, 1] = characters


@compiled(int64[::1], uint64[::1], int64[::1], uint64[:, ::1], int64[::1])
def count_stop_words(offsets, hashes, languages, stop_words, found):
    """Fill found (documents,): distinct stop words in each document, -1 where it has no list.

    languages: row of stop_words (languages, at most 64 hashes, 0 where there are fewer), or -1.
    """
    for d in range(len(offsets) - 1):
        if languages[d] < 0:
            found[d] = -1
            continue
        listed = stop_words[languages[d]]
        possible = np.zeros(256, np.bool_)  # by the lowest byte: nearly all words are told apart by it
        for s in range(len(listed)):
            possible[listed[s] & np.uint64(255)] = listed[s] != 0
        seen = np.uint64(0)
        for w in range(offsets[d], offsets[d + 1]):
            if possible[hashes[w] & np.uint64(255)]:
                for s in range(len(listed)):
                    if listed[s] == hashes[w]:
                        seen |= np.uint64(1) << np.uint64(s)
        count = 0
        while seen:
            seen &= seen - np.uint64(1)
            count += 1
        found[d] = count


@compiled(read_only(uint8), int64[::1], uint64[::1], uint32[::1], uint32[::1], int64[:, ::1])
def repeated_grams(data, offsets, hashes, starts, ends, characters):
    """Fill characters (documents, 3 + 6), which is zero, from the raw words.

    For n in TOP the characters of the commonest n-gram, joined by spaces, times its count. For n in REPEATED the characters
    of the n-grams, joined by nothing, that occurred before, where each n-gram found skips the words that it covers.
    """
    longest = 0
    for d in range(len(offsets) - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    slots = np.empty(_slots_for(longest), np.int32)
    grams = np.empty(longest, np.uint64)
    seen = np.empty(longest, np.int32)
    spellings = np.empty(min(longest, _SPELLINGS), np.uint64)
    powers = np.ones(_POWERS, np.uint64)
    for i in range(1, _POWERS):
        powers[i] = powers[i - 1] * _BASE
    for d in range(len(offsets) - 1):
        first, words = offsets[d], offsets[d + 1] - offsets[d]
        size = _slots_for(words)
        of = hashes[first : first + words]
        grams[:words] = of
        for n in range(2, 5):
            for i in range(words - n + 1):
                grams[i] = (grams[i] ^ (grams[i] >> np.uint64(29))) * _MIX + of[i + n - 1]
            at, count = _commonest(grams, words - n + 1, slots[:size], seen)
            if count:
                length = n - 1
                for w in range(first + at, first + at + n):
                    length += _characters(data, np.int64(starts[w]), np.int64(ends[w]))
                characters[d, n - 2] = length * count
        spelled = spellings[: min(words, len(spellings))]
        for i in range(words):
            grams[i] = _spelling(data, np.int64(starts[first + i]), np.int64(ends[first + i]))
        spelled[:] = grams[: len(spelled)]
        for n in range(2, 11):
            for i in range(words - n + 1):
                w = first + i + n - 1
                begin, end = np.int64(starts[w]), np.int64(ends[w])
                power = powers[end - begin] if end - begin < _POWERS else _power(end - begin)
                last = spelled[i + n - 1] if i + n <= len(spelled) else _spelling(data, begin, end)
                grams[i] = grams[i] * power + last
            if n >= 5:
                characters[d, n - 2] = _skipping(data, grams, words - n + 1, n, slots[:size], starts[first:], ends[first:])
