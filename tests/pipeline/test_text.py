"""The views of a TextBatch equal their plain definitions, for any text."""

from __future__ import annotations

import itertools
import re
import string
import unicodedata
import weakref

import numpy as np
import pyarrow as pa
import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.text import TextBatch, per_document
from pipeline.word_hashes import hash_sets, ngram_hash, normalise, word_hash
from pipeline.words import ALPHA, ASCII_LETTER, UPPER, WORD, RawWords, Words

SPECIAL = " \n\r\t.…#ΣσςİıßǄǅ\u0301\u0316\u0344\u00ad\u200d'·:\0AZaz09_{}!?”•–一가각\u1100\u1161\U0001d160²½٣"
ALPHABET = st.characters(exclude_categories=["Cs"]) | st.sampled_from(SPECIAL) | st.sampled_from("abc XYZ.\n")
TEXTS = st.lists(st.text(ALPHABET), max_size=5)
ODD = ["", "\n", "a\r\nb\n\n c…  \n...", "ΑΣ. ΑΣΑ", "İI ıß ﬁ Ǆ", "e\u0301 é", "a\x1cb\x85c\u2028d", "\0", "𝔘 😀"]
SIGMAS = ["Σ", "ΑΣ", "ΑΣ\u0301", "Α'Σ", "ΑΣ.Β", "ΑΣ\u00adΒ", "ΑΣ ΒΣ", "ΣΣΣ", "1Σ", "Α\u0301Σ2", "aΣ\nΣa", "Α.Σ-Σ.!"]
MARKS = ["a\u0301\u0316\u0300", "\u0316\u0301x", "각\u0316\u0301", "e.\u0316é\u0316", "\u0344\u0316", "q\u0307\u0323" * 40]


def normalized(text: str) -> str:
    """RedPajama-V2's `normalize`, step by step."""
    text = text.translate(str.maketrans("", "", string.punctuation)).lower().strip()
    return unicodedata.normalize("NFD", re.sub(r"\s+", " ", text))


def spelled(words: Words) -> list[list[str]]:
    pairs = zip(words.starts.tolist(), words.ends.tolist(), strict=True)
    flat = [words.utf8[start:end].tobytes().decode() for start, end in pairs]
    return [flat[start:end] for start, end in zip(words.offsets[:-1], words.offsets[1:], strict=True)]


def raw_spelled(words: RawWords) -> list[list[str]]:
    pairs = zip(words.starts.tolist(), words.ends.tolist(), strict=True)
    flat = [words.text.data[start:end].tobytes().decode() for start, end in pairs]
    return [flat[start:end] for start, end in zip(words.offsets[:-1], words.offsets[1:], strict=True)]


@settings(max_examples=300, deadline=None)
@given(TEXTS)
@example(ODD)
@example(SIGMAS)
@example(MARKS)
def test_words_equal_their_definitions(texts: list[str]) -> None:
    batch = TextBatch(pa.array(texts, pa.string()))
    expected = [normalized(t).split() for t in texts]
    assert spelled(batch.words) == expected
    flat = [w for words in expected for w in words]
    assert batch.words.hashes.tolist() == [word_hash(w) for w in flat]
    assert batch.words.lengths.tolist() == [len(w) for w in flat]
    offsets = batch.words.byte_offsets.tolist()
    told = [batch.words.utf8[a:b].tobytes().decode() for a, b in itertools.pairwise(offsets)]
    assert told == [normalized(t) + " " * bool(normalized(t)) for t in texts]
    lines = [normalized(m[0]) for t in texts for m in re.finditer(r"([^\n]*\n|[^\n]+$)", t)]
    assert np.diff(batch.words.line_offsets).tolist() == [len(line.split()) for line in lines]
    assert batch.words.line_lengths.tolist() == [len(line) for line in lines]
    assert batch.words.line_numeric.tolist() == [sum(c.isnumeric() for c in line) for line in lines]


@settings(max_examples=200, deadline=None)
@given(TEXTS)
@example(ODD)
@example(SIGMAS)
@example(MARKS)
def test_raw_words_equal_their_definitions(texts: list[str]) -> None:
    words = TextBatch(pa.array(texts, pa.string())).raw_words
    expected = [regex.findall(r"\w+|[^\w\s]+", t) for t in texts]
    assert raw_spelled(words) == expected
    flat = [w for told in expected for w in told]
    assert words.hashes.tolist() == [word_hash(w) for w in flat]
    assert words.lengths.tolist() == [len(w) for w in flat]
    holds = {
        UPPER: str.isupper,
        ASCII_LETTER: re.compile("[a-zA-Z]").search,
        ALPHA: lambda w: any(c.isalpha() for c in w),
        WORD: regex.compile(r"\w").match,
    }
    for flag, told in holds.items():
        assert (words.flags & flag != 0).tolist() == [bool(told(w)) for w in flat], flag
        assert words.has(flag).tolist() == [sum(bool(told(w)) for w in row) for row in expected]


@settings(max_examples=200, deadline=None)
@given(TEXTS)
@example(ODD)
@example(["... …  \n....\n. . .\n…..\n.\t..\n", "a.b!?c  d.\n.e_f ?!", "  • x\n▪\n –\n-", "X”\n” \ny"])
def test_lines_sentences_and_counts_equal_their_definitions(texts: list[str]) -> None:
    batch = TextBatch(pa.array(texts, pa.large_string()))
    spans = [[m.span() for m in re.finditer(r"([^\n]*\n|[^\n]+$)", t)] for t in texts]
    lines = [t[a:b] for t, told in zip(texts, spans, strict=True) for a, b in told]
    assert batch.lines.counts.tolist() == [len(told) for told in spans]
    assert list(zip(batch.lines.starts.tolist(), batch.lines.ends.tolist(), strict=True)) == [s for told in spans for s in told]
    assert batch.lines.ellipsis.tolist() == [line.rstrip().endswith(("...", "…")) for line in lines]
    assert batch.lines.terminal.tolist() == [line.rstrip().endswith((".", "!", "?", "”")) for line in lines]
    assert batch.lines.bullet.tolist() == [line.lstrip().startswith(tuple("•‣▶◀◦■□▪▫–")) for line in lines]
    assert batch.lines.upper.tolist() == [sum(c.isupper() for c in line) for line in lines]
    assert batch.sentences.tolist() == [len(re.findall(r"\b[^.!?]+[.!?]*", t)) for t in texts]
    assert batch.characters.tolist() == [len(t) for t in texts]
    assert batch.tally.curly_brackets.tolist() == [t.count("{") + t.count("}") for t in texts]
    for told, symbol in ((batch.tally.hash_marks, "#"), (batch.tally.dots, "..."), (batch.tally.ellipses, "…")):
        assert told.tolist() == [t.count(symbol) for t in texts] == batch.count(symbol).tolist()


@settings(max_examples=50, deadline=None)
@given(TEXTS)
def test_distinct_words_are_counted_per_document(texts: list[str]) -> None:
    batch = TextBatch(pa.array(texts, pa.string()))
    distinct, words = batch.distinct_words, batch.words
    for d, text in enumerate(texts):
        told = normalized(text).split()
        first, last = distinct.offsets[d], distinct.offsets[d + 1]
        order = list(dict.fromkeys(told))
        assert distinct.hashes[first:last].tolist() == [word_hash(w) for w in order]
        assert distinct.counts[first:last].tolist() == [told.count(w) for w in order]
        assert distinct.repeated[words.offsets[d] : words.offsets[d + 1]].tolist() == [told.count(w) > 1 for w in told]


@pytest.mark.parametrize("plane", [0, 1, 2, 3, 14])
def test_words_of_the_characters_of_a_plane_equal_their_definitions(plane: int) -> None:
    """Each character alone, in a word, and doubled: case, marks, numbers and spaces of all planes that have characters (of
    those with ideographs alone, one in 32)."""
    step = 1 if plane < 2 else 32
    codes = [c for c in range(plane << 16, (plane + 1) << 16, step) if not 0xD800 <= c < 0xE000]
    texts = ["".join(f"{chr(c)} a{chr(c)}B{chr(c)}{chr(c)}\n" for c in codes[i : i + 512]) for i in range(0, len(codes), 512)]
    batch = TextBatch(pa.array(texts, pa.string()))
    assert spelled(batch.words) == [normalized(t).split() for t in texts]
    assert raw_spelled(batch.raw_words) == [regex.findall(r"\w+|[^\w\s]+", t) for t in texts]
    assert batch.sentences.tolist() == [len(re.findall(r"\b[^.!?]+[.!?]*", t)) for t in texts]
    lines = [line for t in texts for line in t.split("\n")[:-1]]
    if plane:  # in plane 0 there is the newline itself
        assert batch.lines.upper.tolist() == [sum(c.isupper() for c in line) for line in lines]
        assert batch.words.line_numeric.tolist() == [sum(c.isnumeric() for c in normalized(line)) for line in lines]


def test_views_are_computed_once_and_from_any_string_column() -> None:
    chunked = pa.chunked_array([["a b"], [], ["c", None]], pa.string())
    batch = TextBatch(chunked)
    assert batch.words is batch.words and batch.raw_words is batch.raw_words and batch.lines is batch.lines
    for column in (chunked.cast(pa.large_string()), chunked.cast(pa.string_view()), pa.array(["x", "a b", "c", ""]).slice(1)):
        assert np.array_equal(TextBatch(column).words.hashes, batch.words.hashes)
        assert TextBatch(column).words.counts.tolist() == [2, 1, 0]
        assert TextBatch(column).string(1) == "c"
    assert len(TextBatch(pa.chunked_array([], pa.string()))) == 0
    empty = TextBatch(pa.array([], pa.string()))
    assert len(empty.words.hashes) == len(empty.raw_words.hashes) == len(empty.lines.starts) == len(empty.sentences) == 0


def test_released_views_are_computed_again_and_what_others_are_made_of_stays() -> None:
    batch = TextBatch(pa.array(["a b. c\nd"]))
    words, lines = batch.words, batch.lines
    batch.release("words", "tally", keep=("lines",))
    assert batch.words is not words and np.array_equal(batch.words.hashes, words.hashes) and batch.lines is lines
    batch.release("lines", "text")
    assert batch.lines is not lines and batch.strings == ["a b. c\nd"]
    assert batch.once("x", lambda: [1]) is batch.once("x", lambda: [2])


def test_hashes_are_what_they_were() -> None:
    """Tables of hashed features lie on disk: a word has one hash, whatever the machine and the version."""
    assert word_hash("") == 17280346270528514342 and word_hash("naïve") == word_hash("naïve")
    batch = TextBatch(pa.array(["naïve Ωμέγα"]))
    assert batch.raw_words.hashes.tolist() == [word_hash("naïve"), word_hash("Ωμέγα")]
    assert ngram_hash(["a"]) == word_hash("a")
    assert ngram_hash(["a", "b"]) == (word_hash("a") * 0x9E3779B97F4A7C15 + word_hash("b")) % 2**64
    offsets, slots = hash_sets([[5, 6, 5], [], [7]])
    assert [set(slots[a:b].tolist()) - {0} for a, b in itertools.pairwise(offsets)] == [{5, 6}, set(), {7}]


@pytest.mark.parametrize("stretch", [1, 3, 1000])
def test_sums_are_those_of_any_stretch(monkeypatch: pytest.MonkeyPatch, stretch: int) -> None:
    monkeypatch.setattr("pipeline.text._STRETCH", stretch)
    values, offsets = np.arange(12, dtype=np.uint32), np.array([0, 0, 1, 3, 3, 10, 11, 12, 12])
    told = [int(values[a:b].sum()) for a, b in itertools.pairwise(offsets)]
    assert per_document(values, offsets).tolist() == told and per_document(values / 2, offsets).tolist() == [
        x / 2 for x in told
    ]
    assert per_document(values > 4, offsets).tolist() == [int((values[a:b] > 4).sum()) for a, b in itertools.pairwise(offsets)]


def test_the_spelling_of_words_is_made_again_after_it_was_dropped() -> None:
    words = TextBatch(pa.array(["One, two", "", "É three"])).words
    told = words.utf8.tobytes()
    words.release_utf8()
    assert "utf8" not in words.__dict__ and words.utf8.tobytes() == told == "one two e\u0301 three ".encode()


def test_a_batch_goes_when_it_is_dropped() -> None:
    """Not with the next collection of cycles: views do not hold the batch that they are of."""
    batch = TextBatch(pa.array(["One, two"]))
    assert batch.words.counts.tolist() == [2] and batch.raw_words.ends.tolist() == [3, 4, 8]
    gone = weakref.ref(batch)
    del batch
    assert gone() is None


def test_sums_per_document_do_not_depend_on_neighbours() -> None:
    values, offsets = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0, 0, 3, 3, 4, 4])
    assert per_document(values, offsets).tolist() == [0.0, per_document(values[:3], np.array([0, 3]))[0], 0.0, 0.4, 0.0]
    assert abs(per_document(values, offsets)[1] - 0.6) < 1e-15
    assert per_document(values > 0.15, offsets).tolist() == [0, 2, 0, 1, 0]
    assert per_document(values[:0], np.zeros(3, np.int64)).tolist() == [0, 0]
    assert normalise("A.B-c") == "abc"
