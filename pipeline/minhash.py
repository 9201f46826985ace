"""MinHash signatures with RedPajama-V2's values, and their bands (RedPajama-V2, `dedupe/minhash.py`; Broder 1997)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha1
from itertools import pairwise
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from pipeline.stage import Params
from pipeline.tables import MINHASH, PERMUTATIONS, SIMILARITIES
from pipeline.text import TextBatch, concatenated
from pipeline.words import Words

BANDS: dict[str, tuple[int, int]] = dict(zip(SIMILARITIES, ((1, 128), (5, 25), (9, 13), (14, 9)), strict=True))
"""(bands, rows of a band) per similarity level. A pair of Jaccard similarity s shares a band with probability
1 - (1 - s^rows)^bands. RedPajama-V2's, which minimise the sum of false positives and false negatives."""

_SHINGLES = 1 << 18
"""Shingles whose hashes are held at a time, about: 1 MB."""


class MinHashParams(Params):
    """The permutations are always 128, as the schema of table `minhash` has it."""

    shingle: int = Field(
        default=13, ge=1, description="Consecutive normalised words in a shingle. Shorter documents have no signature."
    )
    seed: int = Field(
        default=42, ge=0, lt=1 << 32, description="Seed of the permutations. Signatures of different seeds do not compare."
    )
    scheme: Literal["redpajama-v2", "affine32"] = Field(
        default="redpajama-v2",
        description="`redpajama-v2`: RedPajama-V2's values (datasketch's scheme `legacy`), SHA-1 of each shingle. `affine32`: "
        "several times faster, other values. Signatures of different schemes do not compare.",
    )


@dataclass(frozen=True)
class MinHash:
    """Signatures of 128 permutations over the set of a document's shingles.

    redpajama-v2: a shingle is hashed to the first four bytes of its SHA-1, little endian; value j is the least of
    ((h a_j + b_j) mod 2^64 mod (2^61 - 1)) mod 2^32, where the first modulus is an overflow that RedPajama-V2 has.
    affine32: a shingle is hashed to 32 bits by a polynomial of its words' hashes that rolls from one shingle to the next, and
    value j is the least of (h a_j + b_j) mod 2^32, a_j odd: each is a permutation of the 32-bit numbers, and vector units do
    eight at a time. The minimum over a set is that over all its shingles, repeated or not, so that none are looked up.
    """

    params: MinHashParams = field(default_factory=MinHashParams)

    @property
    def schema(self) -> pa.Schema:
        """tables.MINHASH; the metadata of the field `signature` says how it was made."""
        signature = MINHASH.field("signature").with_metadata({k: str(v) for k, v in self.params.model_dump().items()})
        return MINHASH.set(MINHASH.get_field_index("signature"), signature)

    def sign(self, text: TextBatch) -> pa.FixedSizeListArray:
        """One list of 128 uint32 per document; null for a document of fewer words than a shingle has."""
        from pipeline import minhash_kernels

        words, pieces = text.words, _Pieces.cut(text.words, self.params.shingle)
        values = np.empty((len(pieces.counts), PERMUTATIONS), np.uint32)
        if self.params.scheme == "affine32":
            begins, ends = pieces.begins, pieces.ends
            minima, permutations = minhash_kernels.affine_minima, _affine_permutations(self.params.seed)
        else:
            begins, ends = pieces.bytes_of(words)
            minima, permutations = minhash_kernels.legacy_minima, _legacy_permutations(self.params.seed)
        for first, last in _stretches(pieces.counts):
            told = begins, ends, first, last, self.params.shingle
            offsets = np.empty(last - first + 1, np.int64)
            shingles = np.empty(int(pieces.counts[first:last].sum()), np.uint32)
            if self.params.scheme == "affine32":
                minhash_kernels.rolling_shingles(words.hashes, *told, offsets, shingles)
            else:
                left = minhash_kernels.sha1_shingles(words.utf8, *told, offsets, shingles)
                for start, size, place in left.tolist():  # long ones, which hashlib is fast with
                    spelled = words.utf8[start : start + size].tobytes()
                    shingles[place] = int.from_bytes(sha1(spelled).digest()[:4], "little")
            minima(shingles, offsets, *permutations, values[first:last])
        if len(values) > len(text):
            values = np.minimum.reduceat(values, pieces.firsts)
        unsigned = words.counts < self.params.shingle
        values[unsigned] = 0
        return pa.FixedSizeListArray.from_arrays(values.ravel(), type=MINHASH.field("signature").type, mask=pa.array(unsigned))


@dataclass(frozen=True)
class _Pieces:
    """Documents in pieces of at most _SHINGLES shingles, so that a long one takes no more memory: a signature is the minimum of
    those of its pieces. firsts: the first piece of each document; begins, ends: the words of each piece, numbers of the batch,
    pieces overlap by a shingle less a word; counts: shingles of each. All int64."""

    firsts: NDArray[np.int64]
    begins: NDArray[np.int64]
    ends: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def cut(cls, words: Words, width: int) -> _Pieces:
        number = np.maximum(-(-(words.counts - width + 1) // _SHINGLES), 1)
        firsts = np.cumsum(number) - number
        owner = np.repeat(np.arange(len(number)), number)
        begins = words.offsets[owner] + (np.arange(len(owner)) - firsts[owner]) * _SHINGLES
        ends = np.minimum(begins + _SHINGLES + width - 1, words.offsets[owner + 1])
        return cls(firsts, begins, ends, np.maximum(ends - begins - width + 1, 0))

    def bytes_of(self, words: Words) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where pieces begin and end in `words.utf8`."""
        if len(self.begins) == len(self.firsts):
            return words.byte_offsets[:-1], words.byte_offsets[1:]
        from pipeline.minhash_kernels import word_bytes

        begins, ends = np.empty_like(self.begins), np.empty_like(self.ends)
        word_bytes(words.utf8, self.begins, begins)
        word_bytes(words.utf8, self.ends, ends)
        return begins, ends


def _stretches(counts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Cut pieces into stretches of about _SHINGLES shingles: first and last + 1 of each."""
    ends = np.flatnonzero(np.diff(np.cumsum(counts) // _SHINGLES)) + 1
    yield from pairwise([0, *ends.tolist(), len(counts)])


@lru_cache(maxsize=16)
def _legacy_permutations(seed: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """a_j in [1, p) and b_j in [0, p), drawn by turns, as datasketch draws them (`MinHash._init_permutations`)."""
    draw, prime = np.random.RandomState(seed), (1 << 61) - 1
    pairs = [
        (draw.randint(1, prime, dtype=np.uint64), draw.randint(0, prime, dtype=np.uint64)) for _ in range(PERMUTATIONS)
    ]  # fmt: skip
    a, b = np.array(pairs, np.uint64).T
    return np.ascontiguousarray(a), np.ascontiguousarray(b)


@lru_cache(maxsize=16)
def _affine_permutations(seed: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Odd a_j, and b_j, of 32 bits, drawn by Philox, which gives the same numbers on every machine."""
    a, b = np.random.Generator(np.random.Philox(seed)).integers(0, 1 << 32, (2, PERMUTATIONS), dtype=np.uint32)
    return a | np.uint32(1), b


def signature_matrix(signatures: pa.Array | pa.ChunkedArray) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The signatures that are there, uint32 (n, 128), and the row of each in the column, int64 (n,)."""
    flat = concatenated(signatures)
    rows = np.flatnonzero(flat.is_valid().to_numpy(zero_copy_only=False))
    values = flat.drop_null().flatten()
    return values.to_numpy(zero_copy_only=False).astype(np.uint32, copy=False).reshape(-1, PERMUTATIONS), rows


def band_bytes(signatures: NDArray[np.uint32], level: str) -> NDArray[np.void]:
    """The bands of signatures (n, 128) at a similarity level: (n, bands), each the bytes of its rows as big-endian uint32.

    ValueError on a level that is not among SIMILARITIES.
    """
    if level not in BANDS:
        raise ValueError(f"no similarity level {level}; there is {', '.join(BANDS)}")
    bands, rows = BANDS[level]
    big_endian = np.ascontiguousarray(signatures[:, : bands * rows].astype(">u4"))
    return big_endian.view(np.dtype((np.void, 4 * rows)))


def band_column(signatures: pa.Array | pa.ChunkedArray, level: str) -> pa.Array:
    """A column of signatures as RedPajama-V2's column `signature_sim<level>`: lists of bands; null without a signature."""
    matrix, rows = signature_matrix(signatures)
    lists: list[list[bytes] | None] = [None] * len(signatures)
    for row, bands in zip(rows.tolist(), band_bytes(matrix, level), strict=True):
        lists[row] = [band.tobytes() for band in bands]
    return pa.array(lists, pa.list_(pa.binary()))
