"""Paragraph hashes against CCNet's own, and the promises of the stage that finds repeated paragraphs."""

from __future__ import annotations

import hashlib
import re
import sys
from collections import Counter
from functools import reduce
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.paragraphs import Lines, Paragraphs, ParagraphsParams, contains, hash_lines, normalize, text_batches
from tests.pipeline.wet_shards import raw_table, read_shards

# Letters whose lower case depends on what is around them, digits of several scripts, what is deleted, odd white space.
ODD = "aZ Σσς\u0130\u0131ßẞ\u0345\u0307'´’“”«»１٣９7…—．\t\x00\x1c\x1f\x7f\x85\x9f\xa0\u2028\u200b\r\U0001d7d8\U00010400"
odd_text = st.text(st.one_of(st.sampled_from(ODD), st.characters(exclude_categories=["Cs"])))
hash_sets = st.dictionaries(st.integers(0, 30), st.booleans(), max_size=20)


def expected_hash(line: str) -> int:
    return int.from_bytes(hashlib.sha1(normalize(line).encode()).digest()[:8], "little")


def large(texts: list[str]) -> pa.Array:
    return pa.array(texts, pa.large_string())


@pytest.fixture(scope="module")
def shards(shared: Path) -> dict[str, pa.Table]:
    return read_shards(shared)


def test_hashes_equal_those_of_ccnet(shards: dict[str, pa.Table], shared: Path) -> None:
    golden = pq.read_table(shared / "ccnet_reference" / "hashes.parquet")
    raw = pa.concat_tables(shards.values())
    assert raw["record_id"].to_pylist() == golden["id"].to_pylist()
    lines = Lines.of(raw["raw_content"].combine_chunks())
    expected = golden["hashes"].combine_chunks()
    assert np.array_equal(lines.offsets, expected.offsets.to_numpy())
    assert np.array_equal(lines.hashes, expected.flatten().to_numpy())


def test_normalisation_follows_its_definition_step_by_step() -> None:
    assert normalize("  Zoë — “2024 １٣” \x07 ΟΔΟΣ… ") == "zoë  0000 00  οδος"  # the blanks around what is deleted stay
    assert normalize("　\n ") == ""
    assert expected_hash("") == int.from_bytes(bytes.fromhex("da39a3ee5e6b4b0d"), "little")  # SHA-1 of nothing


def test_every_character_normalises_like_the_definition_alone_and_between_letters() -> None:
    points = [p for p in range(sys.maxunicode + 1) if not 0xD800 <= p <= 0xDFFF and p != 10]
    sample = points[:0x3000] + points[0x3000::37]
    lines = [chr(p) for p in sample] + [f"A{chr(p)}B" for p in sample]
    assert hash_lines(large(lines)).tolist() == [expected_hash(line) for line in lines]


def test_the_lower_case_of_every_character_is_one_character_or_asks_for_context() -> None:
    """What lets a table stand for str.lower: U+0130 alone grows, and lower case stays as it is when lowered again."""
    characters = [chr(p) for p in range(sys.maxunicode + 1) if not 0xD800 <= p <= 0xDFFF]
    assert [c for c in characters if len(c.lower()) != 1] == ["\u0130"]
    assert all(c.lower().lower() == c.lower() for c in characters)


@settings(deadline=None, max_examples=200)
@given(st.lists(odd_text, max_size=8))
def test_lines_hash_alone_as_they_do_together(texts: list[str]) -> None:
    lines = Lines.of(large(texts))
    split = [text.split("\n") if text else [] for text in texts]
    assert lines.counts.tolist() == [len(part) for part in split]
    assert lines.values.to_pylist() == [line for part in split for line in part]
    assert lines.hashes.tolist() == [expected_hash(line) for part in split for line in part]


@given(st.lists(st.lists(st.sampled_from("abcA1 "), max_size=6), max_size=6), st.sets(st.sampled_from("abc1"), max_size=3))
def test_kept_lines_are_the_first_of_their_hash_and_not_repeated_in_the_group(parts: list[list[str]], gone: set[str]) -> None:
    texts = ["\n".join(part) for part in parts]
    repeated = np.unique(np.array([expected_hash(c) for c in gone], np.uint64))
    expected = []
    for text in texts:
        seen: set[int] = set()
        for line in text.split("\n") if text else []:
            value = expected_hash(line)
            expected.append(value not in seen and value not in repeated)
            seen.add(value)
    assert Lines.of(large(texts)).kept(repeated).tolist() == expected


@given(st.lists(st.integers(0, 50), max_size=30), st.lists(st.integers(0, 50), max_size=30))
def test_contains_is_membership(ordered: list[int], values: list[int]) -> None:
    table = np.unique(np.array(ordered, np.uint64))
    assert contains(table, np.array(values, np.uint64)).tolist() == [v in ordered for v in values]


@given(st.lists(st.text("aé\n", max_size=5), max_size=20), st.integers(1, 12))
def test_batches_cover_a_column_in_order(texts: list[str], size: int) -> None:
    column = pa.chunked_array([large(texts[:3]), large(texts[3:])])
    batches = list(text_batches(column, size))
    assert [t for _, batch in batches for t in batch.to_pylist()] == texts
    assert [start for start, _ in batches] == [0, *np.cumsum([len(b) for _, b in batches]).tolist()][: len(batches)]
    assert all(len(b) == 1 or sum(len(t.encode()) for t in b.to_pylist()) <= size for _, b in batches)


def test_a_batch_boundary_changes_nothing(shards: dict[str, pa.Table], monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Paragraphs(ParagraphsParams())
    whole = stage.summarise("web/0000", {"raw": shards["web/0000"]})
    monkeypatch.setattr(text_batches, "__defaults__", (10_000,))
    assert stage.summarise("web/0000", {"raw": shards["web/0000"]}).equals(whole)


def summary(flags: dict[int, bool]) -> pa.Table:
    keys = sorted(flags)
    return pa.table({"hash": pa.array(keys, pa.uint64()), "repeated": pa.array([flags[k] for k in keys], pa.bool_())})


@given(st.lists(hash_sets, min_size=1, max_size=5), st.randoms())
def test_merging_is_associative_and_does_not_mind_the_order(sets: list[dict[int, bool]], random) -> None:
    stage = Paragraphs(ParagraphsParams())
    tables = [summary(s) for s in sets]
    at_once = stage.merge(tables)
    assert reduce(lambda a, b: stage.merge([a, b]), tables, summary({})).equals(at_once)
    assert reduce(lambda a, b: stage.merge([b, a]), reversed(tables), summary({})).equals(at_once)
    shuffled = random.sample(tables, len(tables))
    assert stage.merge(shuffled).equals(at_once)
    times = Counter(key for s in sets for key in s)
    expected = {key: times[key] > 1 or any(s.get(key, False) for s in sets) for key in times}
    assert at_once.equals(summary(expected))


@given(st.lists(st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4), max_size=4), min_size=1, max_size=4))
def test_a_paragraph_is_repeated_if_two_documents_of_the_group_hold_it(shards: list[list[list[str]]]) -> None:
    stage = Paragraphs(ParagraphsParams(group_shards=10))
    texts = [["\n".join(document) for document in shard] for shard in shards]
    summaries = [stage.summarise(f"x/{i:04d}", {"raw": raw_table(t)}) for i, t in enumerate(texts)]
    result = stage.finish("x/0000", stage.merge(summaries))
    holders = Counter(line for shard in shards for document in shard for line in set(document))
    expected = sorted(expected_hash(line) for line, documents in holders.items() if documents > 1)
    assert result.files["x/0000.parquet"]["hash"].to_pylist() == expected  # type: ignore[index]
    assert result.metrics == {"paragraphs": len(holders), "repeated_paragraphs": len(expected)}


def test_groups_are_contiguous_shards_named_after_the_first() -> None:
    params = ParagraphsParams(group_shards=50)
    groups = [params.group(f"2023-06/{shard:04d}") for shard in (0, 49, 50, 99, 100)]
    assert groups == ["2023-06/0000", "2023-06/0000", "2023-06/0050", "2023-06/0050", "2023-06/0100"]
    alone = [ParagraphsParams(group_shards=1).group(f"a/b/{shard:04d}") for shard in range(12)]
    assert alone == [f"a/b/{shard:04d}" for shard in range(12)]
    assert all(a < b for a, b in pairwise(alone))


@pytest.mark.parametrize("partition", ["web", "web/en_all", "web/٣", "/0001", "web/-1"])
def test_a_partition_without_shard_number_is_an_error(partition: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"partition {partition} of raw does not end in a shard number")):
        ParagraphsParams().group(partition)


def test_an_empty_shard_has_an_empty_summary() -> None:
    stage = Paragraphs(ParagraphsParams())
    empty = stage.summarise("x/0000", {"raw": raw_table([])})
    assert empty.num_rows == 0
    assert stage.merge([empty, empty]).equals(empty)
    assert stage.summarise("x/0000", {"raw": raw_table(["", ""])}).equals(empty)
