"""The compiled parts of MinHash: SHA-1 of many shingles at a time, rolling hashes, and the minimum of each permutation."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pipeline.compiled import compiled, part, read_only
from pipeline.kernel_parts import NGRAM, avalanche

BYTES, OFFSETS, HASHES, POSITIONS = (read_only(t) for t in (types.uint8, types.int64, types.uint64, types.uint32))
I8, U4, U8 = types.int64[::1], types.uint32[::1], types.uint64[::1]
SIGNATURES = types.uint32[:, ::1]

LANES = 64
"""Shingles that go through SHA-1 together, in vector registers; a multiple of every machine's vector length."""
BLOCKS = 6
"""Blocks of SHA-1 that a shingle has at most, of 64 bytes each."""
LONGEST = 64 * BLOCKS - 9
"""Bytes of a shingle that SHA-1 pads to so many blocks."""
BLOCK = 512
"""Shingle hashes that a permutation goes over at a time: they stay in the first-level cache."""
PRIME = np.uint64((1 << 61) - 1)
LOW = np.uint64(0xFFFFFFFF)
EMPTY = np.uint32(0xFFFFFFFF)


@part
def rotate(x, by):
    return np.uint32((x << np.uint32(by)) | (x >> np.uint32(32 - by)))


@part
def swapped(x):
    """The four bytes of x in the other order."""
    a, b = (x & np.uint32(0xFF00)) << np.uint32(8), (x >> np.uint32(8)) & np.uint32(0xFF00)
    return np.uint32((x << np.uint32(24)) | a | b | (x >> np.uint32(24)))


@intrinsic
def four_bytes(typing, utf8, position):
    """The four bytes from a position on, which need not be aligned, as the machine's uint32."""

    def generate(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        word = ir.IntType(32)
        pointer = builder.bitcast(builder.gep(array.data, [arguments[1]]), word.as_pointer())
        return builder.load(pointer, align=1)

    return types.uint32(utf8, position), generate


@part
def fill(utf8, start, size, block, last, w, lane):
    """Put one padded block of a message of `size` bytes into the column `lane` of the message schedule."""
    left = size - 64 * block
    p = start + 64 * block
    whole = min(16, max(left, 0) >> 2)
    j = lane
    for _ in range(whole):
        w[j] = swapped(four_bytes(utf8, p))  # pyright: ignore[reportCallIssue]
        p += 4
        j += LANES
    if whole < 16:
        rest = left - 4 * whole
        x = np.uint32(0)
        if rest >= 0:
            # The end of the message, and the bit after it.
            x = np.uint32(0x80) << np.uint32(24 - 8 * rest)
            if rest > 0:
                told = swapped(four_bytes(utf8, p))  # pyright: ignore[reportCallIssue]
                x |= told & ~(np.uint32(0xFFFFFFFF) >> np.uint32(8 * rest))
        w[j] = x
        for t in range(whole + 1, 16):
            w[t * LANES + lane] = np.uint32(0)
    if last:
        w[14 * LANES + lane] = np.uint32(size >> 29)
        w[15 * LANES + lane] = np.uint32(size << 3)


@part
def five_rounds(s, w, t, kind, k):
    """Rounds t to t + 4: after five, the five variables have their places again."""
    for i in range(LANES):
        a, b, c = s[i], s[i + LANES], s[i + 2 * LANES]
        d, e = s[i + 3 * LANES], s[i + 4 * LANES]
        j = t * LANES + i
        e = np.uint32(e + rotate(a, 5) + choose(b, c, d, kind) + k + w[j])
        b = rotate(b, 30)
        d = np.uint32(d + rotate(e, 5) + choose(a, b, c, kind) + k + w[j + LANES])
        a = rotate(a, 30)
        c = np.uint32(c + rotate(d, 5) + choose(e, a, b, kind) + k + w[j + 2 * LANES])
        e = rotate(e, 30)
        b = np.uint32(b + rotate(c, 5) + choose(d, e, a, kind) + k + w[j + 3 * LANES])
        d = rotate(d, 30)
        a = np.uint32(a + rotate(b, 5) + choose(c, d, e, kind) + k + w[j + 4 * LANES])
        c = rotate(c, 30)
        s[i], s[i + LANES], s[i + 2 * LANES] = a, b, c
        s[i + 3 * LANES], s[i + 4 * LANES] = d, e


@part
def choose(b, c, d, kind):
    if kind == 0:
        return np.uint32(d ^ (b & (c ^ d)))
    if kind == 2:
        return np.uint32((b & c) | (d & (b | c)))
    return np.uint32(b ^ c ^ d)


@part
def sha1(utf8, starts, sizes, places, n, blocks, w, s, h, out):
    """First four bytes of the SHA-1 of n messages, LANES at most, of the same number of blocks, little endian."""
    # Every loop goes over all lanes, used or not: a number that is known becomes vector instructions without a rest.
    for i in range(LANES):
        h[i], h[i + LANES], h[i + 2 * LANES] = np.uint32(0x67452301), np.uint32(0xEFCDAB89), np.uint32(0x98BADCFE)
        h[i + 3 * LANES], h[i + 4 * LANES] = np.uint32(0x10325476), np.uint32(0xC3D2E1F0)
    for block in range(blocks):
        for i in range(n):
            fill(utf8, starts[i], sizes[i], block, block == blocks - 1, w, i)
        for i in range(16 * LANES, 80 * LANES):
            w[i] = rotate(w[i - 3 * LANES] ^ w[i - 8 * LANES] ^ w[i - 14 * LANES] ^ w[i - 16 * LANES], 1)
        for i in range(5 * LANES):
            s[i] = h[i]
        for t in range(0, 20, 5):
            five_rounds(s, w, t, 0, np.uint32(0x5A827999))
        for t in range(20, 40, 5):
            five_rounds(s, w, t, 1, np.uint32(0x6ED9EBA1))
        for t in range(40, 60, 5):
            five_rounds(s, w, t, 2, np.uint32(0x8F1BBCDC))
        for t in range(60, 80, 5):
            five_rounds(s, w, t, 1, np.uint32(0xCA62C1D6))
        for i in range(5 * LANES):
            h[i] = np.uint32(h[i] + s[i])
    for i in range(n):
        out[places[i]] = swapped(h[i])


@compiled(BYTES, OFFSETS, OFFSETS, types.int64, types.int64, types.int64, I8, U4)
def sha1_shingles(utf8, begins, ends, first, last, width, shingle_offsets, out):
    """Hashes of the shingles of pieces first to last - 1: four bytes of the SHA-1 of `width` words, joined by a space.

    begins, ends: the bytes of each piece. utf8: the normalised words, a space after each, in memory that goes on for three
    bytes or more. Returns what is left to do: int64 (n, 3), the first byte, the size and the place in `out` of each shingle
    of more than LONGEST bytes.
    """
    w, s, h = np.zeros(80 * LANES, np.uint32), np.empty(5 * LANES, np.uint32), np.empty(5 * LANES, np.uint32)
    # Shingles of as many blocks wait for each other, so that no lane idles.
    waiting = np.zeros(BLOCKS + 1, np.int64)
    start, size = np.empty((BLOCKS + 1, LANES), np.int64), np.empty((BLOCKS + 1, LANES), np.int64)
    place = np.empty((BLOCKS + 1, LANES), np.int64)
    left, lefts = np.empty((4, 3), np.int64), 0
    recent = np.zeros(width, np.int64)  # where the latest words begin, by turns
    n = 0
    for d in range(first, last):
        shingle_offsets[d - first] = n
        count, turn = 0, 0
        recent[0] = begins[d]
        for p in range(begins[d], ends[d]):
            if utf8[p] != 32:
                continue
            # A word ends; the shingle of the `width` words up to it began where the oldest of them did.
            count += 1
            turn = turn + 1 if turn + 1 < width else 0
            begin = recent[turn]
            recent[turn] = p + 1
            if count < width:
                continue
            length = p - begin
            if length > LONGEST:
                if lefts == len(left):
                    more = np.empty((2 * lefts, 3), np.int64)
                    more[:lefts] = left
                    left = more
                left[lefts, 0], left[lefts, 1], left[lefts, 2] = begin, length, n
                lefts += 1
            else:
                q = (length + 8) // 64 + 1
                k = waiting[q]
                start[q, k], size[q, k], place[q, k] = begin, length, n
                waiting[q] = k + 1
                if k + 1 == LANES:
                    sha1(utf8, start[q], size[q], place[q], LANES, q, w, s, h, out)
                    waiting[q] = 0
            n += 1
    shingle_offsets[last - first] = n
    for q in range(1, BLOCKS + 1):
        if waiting[q]:
            sha1(utf8, start[q], size[q], place[q], waiting[q], q, w, s, h, out)
    return left[:lefts]


@compiled(BYTES, OFFSETS, I8)
def word_bytes(utf8, words, positions):
    """Fill positions: the bytes where words of these numbers begin, which ascend; the end of `utf8` for what is beyond."""
    n, k = 0, 0
    for p in range(len(utf8)):
        while k < len(words) and words[k] == n:
            positions[k] = p
            k += 1
        n += utf8[p] == 32
    positions[k:] = len(utf8)
    return k


@compiled(HASHES, OFFSETS, OFFSETS, types.int64, types.int64, types.int64, I8, U4)
def rolling_shingles(hashes, begins, ends, first, last, width, shingle_offsets, out):
    """32-bit hashes of all shingles of pieces first to last - 1, from the words' hashes: a polynomial that rolls on.

    begins, ends: the words of each piece.
    """
    top = np.uint64(1)
    for _ in range(width - 1):
        top *= NGRAM
    n = 0
    for d in range(first, last):
        shingle_offsets[d - first] = n
        begin, end = begins[d], ends[d]
        if end - begin < width:
            continue
        g = np.uint64(0)
        for i in range(begin, begin + width - 1):
            g = g * NGRAM + hashes[i]
        for i in range(begin + width - 1, end):
            g = g * NGRAM + hashes[i]
            out[n] = np.uint32(avalanche(g) >> np.uint64(32))
            n += 1
            g -= hashes[i - width + 1] * top
    shingle_offsets[last - first] = n
    return n


@compiled(POSITIONS, OFFSETS, HASHES, HASHES, SIGNATURES)
def legacy_minima(shingles, offsets, multipliers, increments, signatures):
    """Minima of ((h * a + b) mod 2^64 mod (2^61 - 1)) mod 2^32 over each document's shingles."""
    low, high = np.empty(len(multipliers), np.uint64), np.empty(len(multipliers), np.uint64)
    for j in range(len(multipliers)):
        low[j], high[j] = multipliers[j] & LOW, multipliers[j] >> np.uint64(32)
    for d in range(len(offsets) - 1):
        signatures[d, :] = EMPTY
        for block in range(offsets[d], offsets[d + 1], BLOCK):
            part_of = shingles[block : min(block + BLOCK, offsets[d + 1])]
            for j in range(len(multipliers)):
                a, c, b = low[j], high[j], increments[j]
                least = np.int64(signatures[d, j])
                for i in range(len(part_of)):
                    h = np.uint64(part_of[i])
                    # The product, of 32-bit factors that vector units multiply.
                    x = h * a + ((h * c) << np.uint64(32)) + b
                    r = np.int64((x & PRIME) + (x >> np.uint64(61)))
                    # r - p, where r is not below p, ends in the same 32 bits as r + 1.
                    v = (r + (r >= np.int64(PRIME))) & np.int64(0xFFFFFFFF)
                    least = min(least, v)
                signatures[d, j] = np.uint32(least)


@compiled(POSITIONS, OFFSETS, POSITIONS, POSITIONS, SIGNATURES)
def affine_minima(shingles, offsets, multipliers, increments, signatures):
    """Minima of (h * a + b) mod 2^32 over each document's shingles."""
    for d in range(len(offsets) - 1):
        signatures[d, :] = EMPTY
        for block in range(offsets[d], offsets[d + 1], BLOCK):
            part_of = shingles[block : min(block + BLOCK, offsets[d + 1])]
            for j in range(len(multipliers)):
                a, b = multipliers[j], increments[j]
                least = signatures[d, j]
                for i in range(len(part_of)):
                    least = min(least, np.uint32(part_of[i] * a + b))
                signatures[d, j] = least
