"""MinHash signatures and bands equal RedPajama-V2's."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.minhash import BANDS, MinHash, MinHashParams, band_bytes, band_column, signature_matrix
from pipeline.tables import MINHASH
from pipeline.text import TextBatch
from pipeline.word_hashes import ngram_hash, normalise

SCHEMES = ("redpajama-v2", "affine32")


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


def test_a_document_of_many_shingles_is_signed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [f"w{i}" for i in range(3_000)]
    texts = pa.array([" ".join(words), "a b", " ".join(words[:700]), "", " ".join(words[5:])])
    for scheme in SCHEMES:
        minhash = MinHash(MinHashParams.model_validate({"shingle": 2, "scheme": scheme}))
        whole = minhash.sign(TextBatch(texts))
        if scheme == "redpajama-v2":
            assert whole[0].as_py() == permuted({" ".join(pair) for pair in itertools.pairwise(words)})
        with monkeypatch.context() as patched:
            patched.setattr("pipeline.minhash._SHINGLES", 100)
            assert minhash.sign(TextBatch(texts)).equals(whole)
        assert [minhash.sign(TextBatch(texts.slice(i, 1)))[0].as_py() for i in range(5)] == whole.to_pylist()


def test_words_of_any_length_are_signed() -> None:
    """Shingles around every limit of SHA-1's blocks, and longer than what goes through it in vectors."""
    lengths = [*range(1, 3), *range(50, 70), *range(115, 132), 246, 247, 248, 374, 375, 376, 377, 1000, 100_000]
    words = ["é" * (n // 2) + "x" * (n % 2) for n in lengths]
    for width in (1, 2):
        signature = MinHash(MinHashParams(shingle=width)).sign(TextBatch(pa.array([" ".join(words)])))[0].as_py()
        told = [normalise(w) for w in words]
        assert signature == permuted({" ".join(told[i : i + width]) for i in range(len(told) - width + 1)})


@settings(max_examples=25, deadline=None)
@given(
    words=st.lists(st.sampled_from(["a", "bé", "Ω!", "d", "e"]), max_size=30),
    width=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_fast_scheme_follows_its_definition(words: list[str], width: int, seed: int) -> None:
    params = MinHashParams(shingle=width, seed=seed, scheme="affine32")
    signature = MinHash(params).sign(TextBatch(pa.array([" ".join(words)], pa.string())))[0].as_py()
    told = [normalise(w) for w in words]
    if len(words) < width:
        assert signature is None
        return
    a, b = np.random.Generator(np.random.Philox(seed)).integers(0, 1 << 32, (2, 128), dtype=np.uint32).tolist()
    hashes = [avalanche(ngram_hash(told[i : i + width])) >> 32 for i in range(len(told) - width + 1)]
    assert signature == [min((h * (x | 1) + y) % 2**32 for h in hashes) for x, y in zip(a, b, strict=True)]


def avalanche(h: int) -> int:
    """The first two steps of MurmurHash3's `fmix64`; the third leaves the high half alone."""
    h = ((h ^ (h >> 33)) * 0xFF51AFD7ED558CCD) % 2**64
    return ((h ^ (h >> 33)) * 0xC4CEB9FE1A85EC53) % 2**64


@pytest.mark.parametrize("scheme", ["redpajama-v2", "affine32"])
def test_estimates_of_the_jaccard_similarity_have_the_error_of_128_permutations(scheme: str) -> None:
    """sqrt(J (1 - J) / 128) of standard deviation, and no bias; over sets of 20 to 2,000 words."""
    rng, errors, expected = np.random.default_rng(7), [], []
    minhash = MinHash(MinHashParams.model_validate({"shingle": 1, "scheme": scheme}))
    for size, shared_words in itertools.product((20, 200, 2000), (0.1, 0.3, 0.5, 0.7, 0.9)):
        for _ in range(16):
            common = int(size * shared_words)
            words = [f"w{n}" for n in rng.choice(10**9, 2 * size - common, replace=False)]
            one, two = words[:size], words[size - common :]
            jaccard = len({*one} & {*two}) / len({*one} | {*two})
            signed = minhash.sign(TextBatch(pa.array([" ".join(one), " ".join(two)])))
            a, b = np.array(signed.to_pylist())
            errors.append((a == b).mean() - jaccard)
            expected.append(np.sqrt(jaccard * (1 - jaccard) / 128))
    scaled = np.array(errors) / np.array(expected)
    assert abs(scaled.mean()) < 4 / np.sqrt(len(scaled)), "biased"
    assert 0.8 < scaled.std() < 1.2


def test_real_near_duplicates_are_estimated_alike(shared: Path) -> None:
    documents = pq.read_table(shared / "rpv2" / "documents.parquet")
    pairs = pq.read_table(shared / "rpv2" / "pairs.parquet").to_pylist()
    places = {name: i for i, name in enumerate(documents["id"].to_pylist())}
    text = TextBatch(documents["raw_content"])
    for scheme in SCHEMES:
        signed = MinHash(MinHashParams.model_validate({"scheme": scheme})).sign(text).to_pylist()
        errors = []
        for pair in pairs:
            a, b = (np.array(signed[places[pair[key]]]) for key in ("id_a", "id_b"))
            errors.append((a == b).mean() - pair["jaccard"])
        assert abs(np.mean(errors)) < 0.02 and np.abs(errors).max() < 0.18, scheme


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
