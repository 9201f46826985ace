"""The compiled parts of views that are made of words: where they lie, which are distinct, which are in sets of hashes."""

from __future__ import annotations

import numpy as np
from numba import types

from pipeline.compiled import compiled, part, read_only
from pipeline.kernel_parts import NGRAM

BYTES, OFFSETS, HASHES = (read_only(t) for t in (types.uint8, types.int64, types.uint64))
U1, U4, U8, I8 = (t[::1] for t in (types.uint8, types.uint32, types.uint64, types.int64))

TABLE = 1 << 20
"""Different words that a hash table holds, so that a document of any length takes a table of bounded memory."""


@compiled(BYTES, U4, U4)
def word_spans(utf8, starts, ends):
    """Where the words of Words.utf8 begin and end, in bytes: a space follows each."""
    n = 0
    start = 0
    for p in range(len(utf8)):
        if utf8[p] == 32:
            starts[n] = start
            ends[n] = p
            start = p + 1
            n += 1
    return n


@compiled(BYTES, types.uint8, OFFSETS, I8)
def count_flags(flags, flag, offsets, counts):
    """Fill counts (documents,): words that have the flag."""
    for d in range(len(offsets) - 1):
        n = 0
        for i in range(offsets[d], offsets[d + 1]):
            n += flags[i] & flag != 0
        counts[d] = n


@compiled(OFFSETS, HASHES, I8, U8, U4, U1)
def distinct(offsets, hashes, distinct_offsets, found, counts, repeated):
    """Each document's distinct hashes, in the order in which they come first, with their counts; and for every word whether
    it comes more than once."""
    n = 0
    longest = 0
    for d in range(len(offsets) - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    most, size = min(longest, TABLE), 64
    while size < 2 * most:
        size *= 2
    slots, firsts = np.zeros(size, np.uint32), np.empty(most, np.uint32)
    for d in range(len(offsets) - 1):
        distinct_offsets[d] = n
        begin, end = offsets[d], offsets[d + 1]
        size = 64
        while size < 2 * min(end - begin, TABLE):
            size *= 2
        mask = np.int64(size - 1)
        rounds, r = 1, 0
        while r < rounds:
            slots[:size] = 0
            base = n
            for i in range(begin, end):
                h = hashes[i]
                if rounds > 1 and np.int64(((h >> np.uint64(32)) * np.uint64(rounds)) >> np.uint64(32)) != r:
                    continue
                s = np.int64(h) & mask
                while slots[s] and found[base + np.int64(slots[s]) - 1] != h:
                    s = (s + 1) & mask
                told = np.int64(slots[s]) - 1
                if told < 0:
                    if n - base == TABLE:
                        break
                    slots[s] = n - base + 1
                    firsts[n - base] = i - begin
                    found[n] = h
                    counts[n] = 1
                    repeated[i] = 0
                    n += 1
                else:
                    counts[base + told] += 1
                    repeated[i] = 1
                    repeated[begin + np.int64(firsts[told])] = 1
            else:
                r += 1
                continue
            # Too many for the table: from the start, in more rounds, each for a part of the hashes.
            n = distinct_offsets[d]
            rounds *= 2
            r = 0
    distinct_offsets[len(offsets) - 1] = n
    return n


@part
def place_of(slots, base, size, h):
    """Where a hash lies in the set that begins at `base`, or -1."""
    if size == 0:
        return np.int64(-1)
    at = np.int64(h) & (size - 1)
    while slots[base + at] != 0:
        if slots[base + at] == h:
            return base + at
        at = (at + 1) & (size - 1)
    return np.int64(-1)


@compiled(OFFSETS, HASHES, OFFSETS, OFFSETS, HASHES, I8)
def count_members(offsets, hashes, which, set_offsets, slots, counts):
    """Per document, how many words are in a set. Out: counts.

    which: the set of each document, or -1; set s: the slots `slots[set_offsets[s] : set_offsets[s + 1]]`, as `hash_sets` lays
    them out.
    """
    for d in range(len(offsets) - 1):
        s = which[d]
        total = 0
        if s >= 0:
            base, size = set_offsets[s], set_offsets[s + 1] - set_offsets[s]
            for i in range(offsets[d], offsets[d + 1]):
                total += place_of(slots, base, size, hashes[i]) >= 0
        counts[d] = total


@compiled(OFFSETS, HASHES, OFFSETS, OFFSETS, HASHES, HASHES, OFFSETS, HASHES, I8)
def count_phrases(offsets, hashes, which, first_offsets, firsts, widths, set_offsets, slots, counts):
    """Per document, how many runs of words are in a set of phrases. Out: counts.

    which: the set of each document, or -1. firsts: sets of the phrases' first words, each with a bit in `widths` for every
    number of words that a phrase has which begins so; slots: sets of the phrases (`ngram_hash`); both as `hash_sets` lays
    them out. Few words begin a phrase, so that most are looked up once, whatever the numbers of words.
    """
    for d in range(len(offsets) - 1):
        s = which[d]
        total = 0
        if s >= 0:
            base, size = first_offsets[s], first_offsets[s + 1] - first_offsets[s]
            for i in range(offsets[d], offsets[d + 1]):
                at = place_of(firsts, base, size, hashes[i])
                if at < 0:
                    continue
                g = hashes[i]
                left = widths[at]
                width = 1
                while left != 0 and i + width <= offsets[d + 1]:
                    if left & np.uint64(2):
                        total += place_of(slots, set_offsets[s], set_offsets[s + 1] - set_offsets[s], g) >= 0
                    left = (left >> np.uint64(1)) & ~np.uint64(1)
                    if i + width < offsets[d + 1]:
                        g = g * NGRAM + hashes[i + width]
                    width += 1
        counts[d] = total
