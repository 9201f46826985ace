"""The compiled parts of signals: repeated n-grams, importance weights, entropies. Arrays as `pipeline.text` has them."""

from __future__ import annotations

import numpy as np
from numba import types

from pipeline.compiled import compiled, part, read_only

OFFSETS, HASHES, COUNTS = (read_only(t) for t in (types.int64, types.uint64, types.uint32))
U4, I8 = types.uint32[::1], types.int64[::1]
WEIGHTS = types.Array(types.float64, 3, "C", readonly=True)

NGRAM = np.uint64(0x9E3779B97F4A7C15)
FIBONACCI = np.uint64(0xD6E8FEB86659FD93)
SHORTEST, LONGEST, COUNTED = 2, 10, 4
"""n-grams of 2 to 4 words are counted for the most common one, those of 5 to 10 for what repeats."""
TABLE = 1 << 20
"""Distinct n-grams held at a time; a document with more is gone through several times, so that memory stays bounded."""


@compiled(OFFSETS, HASHES, types.int64, U4, I8, U4)
def feature_buckets(offsets, hashes, buckets, unigrams, pair_offsets, pairs):
    """Buckets of words and of pairs of words. Returns the number of pairs."""
    n = 0
    scale = np.uint64(buckets)
    for d in range(len(offsets) - 1):
        pair_offsets[d] = n
        for i in range(offsets[d], offsets[d + 1]):
            unigrams[i] = ((hashes[i] >> np.uint64(32)) * scale) >> np.uint64(32)
        for i in range(offsets[d], offsets[d + 1] - 1):
            pair = hashes[i] * NGRAM + hashes[i + 1]
            pairs[n] = ((pair >> np.uint64(32)) * scale) >> np.uint64(32)
            n += 1
    pair_offsets[len(offsets) - 1] = n
    return n


@compiled(OFFSETS, COUNTS, OFFSETS, WEIGHTS, types.float64[:, ::1])
def weigh(offsets, buckets, which, weights, sums):
    """Add the weights of each document's buckets to sums (documents, 3): three targets, which one look-up finds together."""
    for d in range(len(offsets) - 1):
        language = which[d]
        if language < 0:
            continue
        a, b, c = 0.0, 0.0, 0.0
        for i in range(offsets[d], offsets[d + 1]):
            bucket = buckets[i]
            a += weights[language, bucket, 0]
            b += weights[language, bucket, 1]
            c += weights[language, bucket, 2]
        sums[d, 0] += a
        sums[d, 1] += b
        sums[d, 2] += c


@compiled(OFFSETS, COUNTS, OFFSETS, types.float64[::1])
def entropy(distinct_offsets, counts, totals, entropies):
    """Entropy in nats of each document's words, of which there are `totals`; 0 without words."""
    for d in range(len(distinct_offsets) - 1):
        s = 0.0
        for i in range(distinct_offsets[d], distinct_offsets[d + 1]):
            share = counts[i] / totals[d]
            s -= share * np.log(share)
        entropies[d] = s + 0.0


@part
def repeated(g, marks, n, slots, firsts, counts):
    """Find what comes more than once among g[i], i < n, where marks[i] & 2, and set marks[i] |= 1 there.

    Returns the count and the place of the most common one, the first of several; 1 and -1 if nothing repeats.
    """
    candidates = 0
    for i in range(n):
        candidates += marks[i] >> 1
    rounds = candidates // TABLE + 1
    size = 64
    shift = np.uint64(58)
    while size < 2 * (candidates // rounds + 1):
        size *= 2
        shift -= np.uint64(1)
    best, where = np.int64(1), np.int64(-1)
    for r in range(rounds):
        slots[:size] = 0
        found = 0
        for i in range(n):
            if not marks[i] & 2:
                continue
            h = g[i]
            if rounds > 1 and np.int64(h >> np.uint64(48)) % rounds != r:
                continue
            s = np.int64((h * FIBONACCI) >> shift)
            while slots[s] and g[firsts[slots[s] - 1]] != h:
                s = (s + 1) & (size - 1)
            told = np.int64(slots[s]) - 1
            if told >= 0:
                marks[firsts[told]] |= 1
                marks[i] |= 1
                counts[told] += 1
            else:
                slots[s] = found + 1
                firsts[found] = i
                counts[found] = 1
                found += 1
        for j in range(found):
            count, at = np.int64(counts[j]), np.int64(firsts[j])
            if count > best or (count == best and count > 1 and at < where):
                best, where = count, at
    return best, where


@compiled(OFFSETS, HASHES, COUNTS, read_only(types.uint8), types.float64[:, ::1])
def repetitions(offsets, hashes, lengths, again, fractions):
    """Out: fractions (documents, 9): characters in the most common n-gram times its count, n = 2 to 4, over all characters;
    then characters in words that any repeated n-gram covers, n = 5 to 10, over all characters.

    An n-gram can only repeat where both (n - 1)-grams in it do, so that ever fewer places are looked at. again: for every
    word whether it comes more than once.
    """
    longest = 0
    for d in range(len(offsets) - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    g, marks = np.empty(longest, np.uint64), np.empty(longest + 1, np.uint8)
    most = min(longest, 2 * TABLE)
    size = 64
    while size < 2 * (min(longest, TABLE) + 1):
        size *= 2
    slots, firsts, counts = np.empty(size, np.uint32), np.empty(most + 1, np.uint32), np.empty(most + 1, np.uint32)
    fractions[:] = 0.0
    for d in range(len(offsets) - 1):
        begin = offsets[d]
        n = offsets[d + 1] - begin
        total = 0
        for i in range(n):
            total += np.int64(lengths[begin + i])
            g[i] = hashes[begin + i]
            marks[i] = again[begin + i]
        for width in range(SHORTEST, min(LONGEST, n) + 1):
            m = n - width + 1
            for i in range(m):
                both = marks[i] & marks[i + 1] & 1
                marks[i] = both << 1
                if both:
                    g[i] = g[i] * NGRAM + hashes[begin + i + width - 1]
            best, where = repeated(g, marks, m, slots, firsts, counts)
            if best == 1:
                break  # nothing longer repeats either
            covered = 0
            characters = 0
            if width <= COUNTED:
                for i in range(where, where + width):
                    characters += best * np.int64(lengths[begin + i])
            else:
                for i in range(m):
                    if marks[i] & 1:
                        for j in range(max(i, covered), i + width):
                            characters += np.int64(lengths[begin + j])
                        covered = i + width
            fractions[d, width - SHORTEST] = characters / total
