"""A keyed permutation of range(n), computed element by element: a shuffle that needs no memory and no state.

A Feistel network over the smallest power of four that holds n, with cycle walking (Black & Rogaway, "Ciphers with
arbitrary finite domains", CT-RSA 2002): whatever falls outside the range is permuted again until it falls inside.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

_ROUNDS = 8  # four already make a pseudorandom permutation (Luby & Rackoff, 1988); small domains gain from more


def permute(index: npt.ArrayLike, n: int, *key: int | str) -> npt.NDArray[np.int64]:
    """Where each index goes under the permutation of range(n) that `key` selects.

    index: integers in [0, n), any shape; returns int64 of that shape. Two keys give unrelated permutations.
    """
    values = np.asarray(index, np.uint64)
    assert n > 0
    assert values.size == 0 or int(values.max()) < n
    half = max((max(n - 1, 1).bit_length() + 1) // 2, 1)
    keys = _round_keys(key)
    out = _feistel(values, half, keys)
    outside = out >= n
    while outside.any():  # the domain is below 4 n, so three quarters of a walk end each turn at worst
        out = np.where(outside, _feistel(out, half, keys), out)
        outside = out >= n
    return out.astype(np.int64)


def _round_keys(key: tuple[int | str, ...]) -> npt.NDArray[np.uint64]:
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8 * _ROUNDS).digest()
    return np.frombuffer(digest, "<u8").astype(np.uint64)


def _feistel(values: npt.NDArray[np.uint64], half: int, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> bits, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right + key) & mask)
    return (left << bits) | right


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea & Flood, OOPSLA 2014): every bit of the result depends on every bit of x."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
