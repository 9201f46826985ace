from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labelers.patterns import Patterns
from labelers.statistics import VoteStatistics
from labelers.votes import to_sparse

FUNCTIONS, CLASSES = ("f", "g", "h"), ("x", "y", "z")
matrices = hnp.arrays(np.int8, st.tuples(st.integers(0, 40), st.just(3)), elements=st.integers(-1, 2))


def measure(votes: np.ndarray) -> VoteStatistics:
    return VoteStatistics.measure(votes, FUNCTIONS, CLASSES)


@settings(deadline=None, max_examples=60)
@given(matrices)
def test_statistics_are_what_counting_by_hand_gives(votes: np.ndarray) -> None:
    s = measure(votes)
    rows = [[int(v) for v in row] for row in votes]
    assert s.documents == len(rows)
    for i in range(3):
        assert s.counts[i].tolist() == [sum(r[i] == c for r in rows) for c in range(3)]
        others = [[v for j, v in enumerate(r) if j != i and v >= 0] for r in rows]
        assert s.overlaps[i] == sum(r[i] >= 0 and bool(o) for r, o in zip(rows, others, strict=True))
        assert s.conflicts[i] == sum(r[i] >= 0 and any(v != r[i] for v in o) for r, o in zip(rows, others, strict=True))
        for j in range(3):
            both = [(r[i], r[j]) for r in rows if r[i] >= 0 and r[j] >= 0]
            assert s.pair_overlaps()[i, j] == len(both)
            assert s.pair_conflicts()[i, j] == sum(a != b for a, b in both)
    cast = [[v for v in r if v >= 0] for r in rows]
    assert (s.labelled, s.overlapping) == (sum(len(c) > 0 for c in cast), sum(len(c) > 1 for c in cast))
    assert s.conflicting == sum(len(set(c)) > 1 for c in cast)
    tops = [[k for k in range(3) if c.count(k) == max(map(c.count, range(3)))] for c in cast if c]
    assert s.outcomes.tolist() == [tops.count([k]) for k in range(3)]


@settings(deadline=None, max_examples=60)
@given(matrices, st.lists(st.integers(0, 40), max_size=3))
def test_statistics_of_parts_add_up_to_those_of_the_whole(votes: np.ndarray, cuts: list[int]) -> None:
    edges = [0, *sorted(min(c, len(votes)) for c in cuts), len(votes)]
    parts = [measure(votes[a:b]).to_table() for a, b in itertools.pairwise(edges)]
    merged = VoteStatistics.from_table(pa.concat_tables(parts), CLASSES)
    assert merged.to_table().equals(measure(votes).to_table())
    assert (merged.pairs == measure(votes).pairs).all()


def test_counts_past_what_float32_holds_are_exact() -> None:
    votes = np.zeros(((1 << 16) * 3 + 5, 3), np.int8)
    assert measure(votes).pairs[0, 3] == len(votes)


@pytest.mark.parametrize("votes", [np.full((2, 3), 3, np.int8), np.full((2, 3), -2, np.int8), np.zeros((2, 2), np.int8)])
def test_votes_that_are_no_class_are_refused(votes: np.ndarray) -> None:
    with pytest.raises(ValueError, match="votes"):
        measure(votes)


@settings(deadline=None, max_examples=60)
@given(matrices)
def test_sparse_votes_have_the_same_statistics(votes: np.ndarray) -> None:
    assert VoteStatistics.measure(to_sparse(votes), FUNCTIONS, CLASSES).to_table().equals(measure(votes).to_table())


@settings(deadline=None, max_examples=60)
@given(matrices, st.lists(st.integers(0, 40), max_size=6), st.randoms())
def test_statistics_add_up_in_any_order(votes: np.ndarray, cuts: list[int], random) -> None:
    edges = [0, *sorted(min(c, len(votes)) for c in cuts), len(votes)]
    parts = [measure(votes[a:b]) for a, b in itertools.pairwise(edges)]
    random.shuffle(parts)
    assert VoteStatistics.merge(parts).to_table().equals(measure(votes).to_table())


@settings(deadline=None, max_examples=60)
@given(matrices, st.permutations(range(3)))
def test_statistics_follow_the_order_of_functions(votes: np.ndarray, order: list[int]) -> None:
    one, other = measure(votes), measure(votes[:, order])
    assert (other.counts == one.counts[order]).all()
    assert (other.pair_overlaps() == one.pair_overlaps()[np.ix_(order, order)]).all()


def test_what_cannot_be_merged_is_told() -> None:
    with pytest.raises(ValueError, match="no statistics to merge: the stream of votes is empty"):
        VoteStatistics.merge([])
    one = measure(np.zeros((1, 3), np.int8))
    with pytest.raises(ValueError, match="statistics of other functions cannot be added"):
        one + VoteStatistics.measure(np.zeros((1, 3), np.int8), ("f", "g", "i"), CLASSES)


def test_pair_counts_that_would_fill_the_memory_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1,200 functions of 56 classes need 36 GB of pair counts"):
        VoteStatistics.measure(np.full((1, 1200), -1, np.int8), k=56)


@settings(deadline=None, max_examples=60)
@given(matrices)
def test_distinct_rows_and_their_counts_have_the_same_statistics(votes: np.ndarray) -> None:
    patterns = Patterns.of(votes, 3)
    assert patterns.counts.sum() == len(votes) and len(np.unique(patterns.rows, axis=0)) == len(patterns.rows)
    assert VoteStatistics.of_patterns(patterns, FUNCTIONS, CLASSES).to_table().equals(measure(votes).to_table())
