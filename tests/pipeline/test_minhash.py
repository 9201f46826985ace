"""MinHash signatures and bands equal RedPajama-V2's."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.minhash import BANDS, MinHash, MinHashParams, band_bytes, band_column, signature_matrix
from pipeline.tables import MINHASH
from pipeline.text import TextBatch, normalise


def permuted(shingles: set[str], seed: int = 42) -> list[int]:
    """The definition, in Python's integers."""
    draw = np.random.RandomState(seed)
    prime = (1 << 61) - 1
    pairs = [(int(draw.randint(1, prime, dtype=np.uint64)), int(draw.randint(0, prime, dtype=np.uint64))) for _ in range(128)]
    hashes = [int.from_bytes(hashlib.sha1(s.encode()).digest()[:4], "little") for s in shingles]
    return [min(((h * a + b) % (1 << 64) % prime) & 0xFFFFFFFF for h in hashes) for a, b in pairs]


@pytest.mark.parametrize("folder", ["", "edge"])
def test_signatures_and_bands_equal_the_reference(shared: Path, folder: str) -> None:
    documents = pq.read_table(shared / "rpv2" / folder / "documents.parquet")
    golden = pq.read_table(shared / "rpv2" / folder / "minhash.parquet")
    ours = MinHash().sign(TextBatch(documents["raw_content"]))
    assert ours.to_pylist() == golden["signature"].to_pylist()
    assert ours.type == MINHASH.field("signature").type
    for level in BANDS:
        assert band_column(ours, level).to_pylist() == golden[f"signature_sim{level}"].to_pylist(), level


def test_the_published_signature_of_twenty_words() -> None:
    signature = MinHash().sign(TextBatch(pa.array([" ".join(f"w{i}" for i in range(20))])))[0].as_py()
    assert signature[:4] == [106647781, 238106919, 1647313094, 147759549]
    digest = hashlib.sha256(np.array(signature, "<u4").tobytes()).hexdigest()
    assert digest == "70e60f0c312f39d1ffb4afdf4a28d6f967c82833af5fc6ebdd4eb40cbfa3f3b2"


@settings(max_examples=25, deadline=None)
@given(
    documents=st.lists(st.lists(st.sampled_from(["a", "bé", "Ω!", "d-d", "😀", "…"]), max_size=30), max_size=4),
    width=st.integers(1, 14),
    seed=st.integers(0, 2**32 - 1),
)
def test_signatures_follow_the_definition_for_any_text(documents: list[list[str]], width: int, seed: int) -> None:
    texts = [" ".join(d) for d in documents]
    signed = MinHash(MinHashParams(shingle=width, seed=seed)).sign(TextBatch(pa.array(texts, pa.string())))
    for text, signature in zip(texts, signed.to_pylist(), strict=True):
        words = normalise(text).split()
        if len(words) < width:
            assert signature is None
        else:
            assert signature == permuted({" ".join(words[i : i + width]) for i in range(len(words) - width + 1)}, seed)


def test_a_document_of_many_shingles_is_signed_in_pieces() -> None:
    words = [f"w{i}" for i in range(10_000)]
    signature = MinHash(MinHashParams(shingle=1)).sign(TextBatch(pa.array([" ".join(words)])))[0].as_py()
    assert signature == permuted(set(words))


def test_signatures_of_a_sliced_and_chunked_column_keep_their_rows() -> None:
    column = MinHash(MinHashParams(shingle=2)).sign(TextBatch(pa.array(["a b", "a", "b c", "", "a b"])))
    matrix, rows = signature_matrix(pa.chunked_array([column.slice(0, 2), column.slice(2)]))
    assert rows.tolist() == [0, 2, 4]
    assert matrix.tolist() == [column[i].as_py() for i in (0, 2, 4)]
    sliced, rows = signature_matrix(column.slice(1, 3))
    assert rows.tolist() == [1] and sliced.tolist() == [column[2].as_py()]
    nothing, rows = signature_matrix(column.slice(1, 1))
    assert nothing.shape == (0, 128) and len(rows) == 0


def test_a_level_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"no similarity level 0.5; there is 1.0, 0.9, 0.8, 0.7"):
        band_bytes(np.zeros((1, 128), np.uint32), "0.5")
