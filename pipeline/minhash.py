"""MinHash signatures with RedPajama-V2's values, and their bands (RedPajama-V2, `dedupe/minhash.py`; Broder 1997)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from pipeline.stage import Params
from pipeline.tables import MINHASH, PERMUTATIONS, SIMILARITIES
from pipeline.text import TextBatch, concatenated

BANDS: dict[str, tuple[int, int]] = dict(zip(SIMILARITIES, ((1, 128), (5, 25), (9, 13), (14, 9)), strict=True))
"""(bands, rows of a band) per similarity level. A pair of Jaccard similarity s shares a band with probability
1 - (1 - s^rows)^bands. RedPajama-V2's, which minimise the sum of false positives and false negatives."""

_BATCH = 1 << 12  # shingles whose 128 permuted hashes are held at a time: 4 MB


class MinHashParams(Params):
    """The permutations are always 128, as the schema of table `minhash` has it."""

    shingle: int = Field(
        default=13, ge=1, description="Consecutive normalised words in a shingle. Shorter documents have no signature."
    )
    seed: int = Field(
        default=42, ge=0, lt=1 << 32, description="Seed of the permutations. Signatures of different seeds do not compare."
    )


@dataclass(frozen=True)
class MinHash:
    """Signatures of 128 permutations over the set of a document's shingles.

    A shingle is hashed to the first four bytes of its sha1, little endian; the permutations are datasketch's legacy scheme.
    """

    params: MinHashParams = field(default_factory=MinHashParams)

    def sign(self, text: TextBatch) -> pa.FixedSizeListArray:
        """One list of 128 uint32 per document; null for a document of fewer words than a shingle has."""
        from datasketch import MinHash as Sketch

        words, width = text.words, self.params.shingle
        signed = words.counts >= width
        values = np.zeros((len(text), PERMUTATIONS), np.uint32)
        sketch = Sketch(num_perm=PERMUTATIONS, seed=self.params.seed, scheme="legacy")
        for document in np.flatnonzero(signed):
            start, end = words.offsets[document], words.offsets[document + 1]
            begins, stops = words.starts[start : end - width + 1].tolist(), words.ends[start + width - 1 : end].tolist()
            shingles = list({words.utf8[b:e] for b, e in zip(begins, stops, strict=True)})
            for first in range(0, len(shingles), _BATCH):
                sketch.update_batch(shingles[first : first + _BATCH])
            values[document] = sketch.hashvalues
            sketch.clear()
        return pa.FixedSizeListArray.from_arrays(values.ravel(), type=MINHASH.field("signature").type, mask=pa.array(~signed))


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
