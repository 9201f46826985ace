"""Hashes of words and of consecutive words, the same on every machine, and sets of them as compiled kernels read them."""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

_PUNCTUATION = string.punctuation.encode()
_FNV_BASIS, _FNV_PRIME, _BITS = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1
_NGRAM = 0x9E3779B97F4A7C15


def normalise(text: str) -> str:
    """The text without ASCII punctuation, in lower case, in NFD. Its words are what `.split()` gives."""
    # In UTF-8 no byte of a longer sequence is ASCII, so the punctuation can be deleted from the bytes.
    return unicodedata.normalize("NFD", text.encode().translate(None, _PUNCTUATION).decode().lower())


def word_hash(word: str) -> int:
    """The 64-bit hash of a word in every batch, on every machine: FNV-1a of its UTF-8, then MurmurHash3's `fmix64`."""
    h = _FNV_BASIS
    for byte in word.encode():
        h = ((h ^ byte) * _FNV_PRIME) & _BITS
    h = ((h ^ (h >> 33)) * 0xFF51AFD7ED558CCD) & _BITS
    h = ((h ^ (h >> 33)) * 0xC4CEB9FE1A85EC53) & _BITS
    return h ^ (h >> 33)


def ngram_hash(words: Sequence[str]) -> int:
    """The 64-bit hash of consecutive words: a polynomial of their hashes, so that it can roll from one to the next."""
    h = 0
    for word in words:
        h = (h * _NGRAM + word_hash(word)) & _BITS
    return h


def hash_sets(sets: Iterable[Iterable[int]]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Sets of hashes as `word_kernels.count_members` reads them: set_offsets int64 (sets + 1,), and the slots of all."""
    laid: list[NDArray[np.uint64]] = []
    for members in sets:
        hashes = {h for h in members if h}
        size = 1 << (4 * len(hashes)).bit_length() if hashes else 0
        slots = np.zeros(size, np.uint64)
        for h in hashes:
            at = h & (size - 1)
            while slots[at]:
                at = (at + 1) & (size - 1)
            slots[at] = h
        laid.append(slots)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum([len(s) for s in laid], dtype=np.int64)])
    return offsets, np.concatenate(laid) if laid else np.empty(0, np.uint64)
