"""The views of a TextBatch equal their plain definitions, for any text."""

from __future__ import annotations

import re
import string
import unicodedata

import numpy as np
import pyarrow as pa
import regex
import xxhash
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.text import TextBatch, Words

TEXTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(" \n\r\t.…#ΣσİßǄ\u0301\u200d\0")), max_size=5
)
ODD = ["", "\n", "a\r\nb\n\n c…  \n...", "ΑΣ. ΑΣΑ", "İI ıß ﬁ Ǆ", "e\u0301 é", "a\x1cb\x85c\u2028d", "\0", "𝔘 😀"]


def normalized(text: str) -> str:
    """RedPajama-V2's `normalize`, step by step."""
    text = text.translate(str.maketrans("", "", string.punctuation)).lower().strip()
    return unicodedata.normalize("NFD", re.sub(r"\s+", " ", text))


def spelled(words: Words) -> list[list[str]]:
    pairs = zip(words.starts.tolist(), words.ends.tolist(), strict=True)
    flat = [words.utf8[start:end].decode() for start, end in pairs]
    return [flat[start:end] for start, end in zip(words.offsets[:-1], words.offsets[1:], strict=True)]


@settings(max_examples=150, deadline=None)
@given(TEXTS)
@example(ODD)
def test_words_equal_their_definitions(texts: list[str]) -> None:
    batch = TextBatch(pa.array(texts, pa.string()))
    raw = [regex.findall(r"\w+|[^\w\s]+", t) for t in texts]
    assert spelled(batch.raw_words) == raw
    assert spelled(batch.words) == [normalized(t).split() for t in texts]
    flat = [w for words in raw for w in words]
    assert batch.raw_words.upper.tolist() == [w.isupper() for w in flat]
    assert batch.raw_words.ascii_letter.tolist() == [bool(re.search("[a-zA-Z]", w)) for w in flat]
    assert batch.raw_words.lengths.tolist() == [len(w) for w in flat]
    assert batch.raw_words.hashes.tolist() == [xxhash.xxh3_64_intdigest(w.encode()) for w in flat]


@settings(max_examples=150, deadline=None)
@given(TEXTS)
@example(ODD)
def test_lines_sentences_and_characters_equal_their_definitions(texts: list[str]) -> None:
    batch = TextBatch(pa.array(texts, pa.large_string()))
    lines = [[m.span() for m in re.finditer(r"([^\n]*\n|[^\n]+$)", t)] for t in texts]
    assert batch.lines.counts.tolist() == [len(spans) for spans in lines]
    assert list(zip(batch.lines.starts.tolist(), batch.lines.ends.tolist(), strict=True)) == [
        s for spans in lines for s in spans
    ]
    told = [t[a:b].rstrip().endswith(("...", "…")) for t, spans in zip(texts, lines, strict=True) for a, b in spans]
    assert batch.lines.ellipsis.tolist() == told
    assert batch.sentences.tolist() == [len(re.findall(r"\b[^.!?]+[.!?]*", t)) for t in texts]
    assert batch.characters.tolist() == [len(t) for t in texts]


@settings(max_examples=50, deadline=None)
@given(TEXTS)
def test_distinct_words_are_counted_per_document(texts: list[str]) -> None:
    distinct = TextBatch(pa.array(texts, pa.string())).distinct_words
    for text, start, end in zip(texts, distinct.offsets[:-1], distinct.offsets[1:], strict=True):
        words = normalized(text).split()
        assert end - start == len(set(words)) and distinct.counts[start:end].sum() == len(words)
        counts = dict(zip(distinct.hashes[start:end].tolist(), distinct.counts[start:end].tolist(), strict=True))
        assert counts == {xxhash.xxh3_64_intdigest(w.encode()): words.count(w) for w in set(words)}


def test_views_are_computed_once_and_from_any_string_column() -> None:
    chunked = pa.chunked_array([["a b"], [], ["c", None]], pa.string())
    batch = TextBatch(chunked)
    assert batch.words is batch.words and batch.raw_words is batch.raw_words
    for column in (chunked.cast(pa.large_string()), chunked.cast(pa.string_view()), pa.array(["x", "a b", "c", ""]).slice(1)):
        assert np.array_equal(TextBatch(column).words.hashes, batch.words.hashes)
        assert TextBatch(column).words.counts.tolist() == [2, 1, 0]
    assert len(TextBatch(pa.chunked_array([], pa.string()))) == 0
