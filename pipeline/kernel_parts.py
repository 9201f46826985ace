"""Parts of the kernels of text: code points of UTF-8, what `text_tables` says of them, and how hashes are mixed."""

from __future__ import annotations

import numpy as np

from pipeline.compiled import part

FNV_BASIS, FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
NGRAM = np.uint64(0x9E3779B97F4A7C15)
"""Base of the polynomial over word hashes that hashes n words: the golden ratio of Fibonacci hashing, which is odd."""
_MIX_1, _MIX_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_THIRTY_THREE = np.uint64(33)


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
    h ^= h >> _THIRTY_THREE
    h *= _MIX_1
    h ^= h >> _THIRTY_THREE
    h *= _MIX_2
    return h ^ (h >> _THIRTY_THREE)


@part
def is_plain(b):
    """An ASCII letter or digit."""
    return 97 <= b <= 122 or 65 <= b <= 90 or 48 <= b <= 57
