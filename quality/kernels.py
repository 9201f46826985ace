"""The compiled parts of signals: repeated n-grams, importance weights, entropies. Arrays as `pipeline.words` has them."""

from __future__ import annotations

import numpy as np
from numba import types

from pipeline.compiled import compiled, part, read_only
from pipeline.kernel_parts import NGRAM

OFFSETS, HASHES, COUNTS = (read_only(t) for t in (types.int64, types.uint64, types.uint32))
U4, I8 = types.uint32[::1], types.int64[::1]
WEIGHTS = types.Array(types.float64, 3, "C", readonly=True)

FIBONACCI = np.uint64(0xD6E8FEB86659FD93)
SHORTEST, LONGEST, COUNTED = 2, 10, 4
"""n-grams of 2 to 4 words are counted for the most common one, those of 5 to 10 for what repeats."""
TABLE = 1 << 20
"""Different n-grams held at a time; a document with more is gone through several times, so that memory stays bounded."""


@compiled(OFFSETS, HASHES, types.int64, types.int64, types.int64, U4, I8, U4)
def feature_buckets(offsets, hashes, first, last, buckets, unigrams, pair_offsets, pairs):
    """Buckets of words first to last - 1 of a batch, and of the pairs that they begin. Returns the number of pairs."""
    n = 0
    scale = np.uint64(buckets)
    for i in range(first, last):
        unigrams[i - first] = ((hashes[i] >> np.uint64(32)) * scale) >> np.uint64(32)
    for d in range(len(offsets) - 1):
        pair_offsets[d] = n
        for i in range(max(first, offsets[d]), min(last, offsets[d + 1] - 1)):
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
def repeated(hashes, width, places, marks, n, slots, keys, firsts, counts):
    """Find which runs of `width` words that begin at places[k], k < n, come more than once: marks[k] = 1, else 0.

    Returns the count of the most common one, and the k where it comes first, the first of several; 1 and -1 if none repeats.
    """
    size = 64
    shift = np.uint64(58)
    while size < 2 * min(n, TABLE):
        size *= 2
        shift -= np.uint64(1)
    rounds = 1
    r = 0
    while r < rounds:
        if r == 0:
            marks[:n] = 0
            best, where = np.int64(1), np.int64(-1)
        slots[:size] = 0
        found = 0
        for k in range(n):
            i = np.int64(places[k])
            g = hashes[i]
            for j in range(i + 1, i + width):
                g = g * NGRAM + hashes[j]
            if rounds > 1 and np.int64(((g >> np.uint64(32)) * np.uint64(rounds)) >> np.uint64(32)) != r:
                continue
            s = np.int64((g * FIBONACCI) >> shift)
            while slots[s] and keys[slots[s] - 1] != g:
                s = (s + 1) & (size - 1)
            told = np.int64(slots[s]) - 1
            if told >= 0:
                marks[firsts[told]] = 1
                marks[k] = 1
                counts[told] += 1
            else:
                if found == TABLE:
                    break
                slots[s] = found + 1
                keys[found] = g
                firsts[found] = k
                counts[found] = 1
                found += 1
        else:
            for j in range(found):
                count, at = np.int64(counts[j]), np.int64(firsts[j])
                if count > best or (count == best and count > 1 and at < where):
                    best, where = count, at
            r += 1
            continue
        # Too many different ones for the table: from the start, in more rounds, each for a part of the hashes.
        rounds *= 2
        r = 0
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
    most, size = min(longest, TABLE), 64
    while size < 2 * most:
        size *= 2
    places, marks = np.empty(longest + 1, np.uint32), np.empty(longest + 1, np.uint8)
    slots, keys = np.empty(size, np.uint32), np.empty(most, np.uint64)
    firsts, counts = np.empty(most, np.uint32), np.empty(most, np.uint32)
    fractions[:] = 0.0
    for d in range(len(offsets) - 1):
        begin, end = offsets[d], offsets[d + 1]
        total = 0
        n = 0
        for i in range(begin, end):
            total += np.int64(lengths[i])
            places[n] = i
            n += again[i]
        marks[:n] = 1
        for width in range(SHORTEST, LONGEST + 1):
            m = 0
            for k in range(n - 1):
                i = places[k]
                places[m] = i
                m += (places[k + 1] == i + 1) & (marks[k] == 1) & (marks[k + 1] == 1)
            n = m
            best, where = repeated(hashes, width, places, marks, n, slots, keys, firsts, counts)
            if best == 1:
                break  # nothing longer repeats either
            covered = begin
            characters = 0
            if width <= COUNTED:
                for i in range(places[where], places[where] + width):
                    characters += best * np.int64(lengths[i])
            else:
                for k in range(n):
                    if marks[k]:
                        i = np.int64(places[k])
                        for j in range(max(i, covered), i + width):
                            characters += np.int64(lengths[j])
                        covered = i + width
            fractions[d, width - SHORTEST] = characters / total
