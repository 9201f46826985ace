from __future__ import annotations

import numpy as np
import pytest

from labelers.dawid_skene import DawidSkene
from labelers.encoded import GroupedVotes, SparseVotes, encode
from labelers.patterns import Patterns
from labelers.synthetic import coin_tables, votes_of


def drawn(n: int, m: int, k: int, coverage: float = 0.6, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    tables = coin_tables(rng.uniform(0.5, 0.9, m), np.full(m, coverage), k)
    return votes_of(tables, rng.integers(0, k, n), rng)


@pytest.mark.parametrize(("n", "m", "k"), [(1, 1, 2), (40, 7, 2), (70_000, 25, 2), (3000, 11, 5), (500, 3, 127), (0, 4, 3)])
@pytest.mark.parametrize("kind", [GroupedVotes, SparseVotes])
def test_scores_and_sums_are_those_of_the_definition(kind: type, n: int, m: int, k: int) -> None:
    rows = drawn(n, m, k)
    rng = np.random.default_rng(1)
    weights, base, mass = rng.normal(size=(m, k + 1, 2)), rng.normal(size=2), rng.random((2, n))
    encoded = kind(rows, k)
    tables, sums = encoded.tables(weights), encoded.zeros(2)
    assert sum(block.stop - block.start for block in encoded.blocks) == n
    for number, block in enumerate(encoded.blocks):
        expected = base[:, None] + sum(weights[i, rows[block, i] + 1].T for i in range(m))
        assert np.allclose(encoded.scores(number, tables, base), expected, atol=1e-11)
        encoded.tally(mass[:, block], sums, number)
    by_vote = encoded.by_vote(sums)
    for i in range(m):
        for c in range(k):
            assert np.allclose(by_vote[i, c], mass[:, rows[:, i] == c].sum(axis=1), atol=1e-8)


def test_few_votes_are_kept_sparse() -> None:
    assert isinstance(encode(drawn(2000, 60, 2, 0.01), 2), SparseVotes)
    assert isinstance(encode(drawn(2000, 60, 2, 0.9), 2), GroupedVotes)


def plain_em(votes: np.ndarray, k: int, passes: int) -> tuple[np.ndarray, np.ndarray]:
    """MAP-EM from the definition, with the model's own prior: tables and balance."""
    model = DawidSkene(k)
    statistics, _ = model._measure(votes, None, None)
    model._exponents = np.ones(votes.shape[1])
    hot = (votes[:, :, None] == np.arange(-1, k)).astype(np.float64)
    share = np.full(k, 1 / k)
    tables = model._prior(statistics, share)
    tables /= tables.sum(axis=1, keepdims=True)
    for _ in range(passes):
        scores = np.log(share) + np.einsum("nic,icy->ny", hot, np.log(tables), optimize=True)
        belief = np.exp(scores - scores.max(axis=1, keepdims=True))
        belief /= belief.sum(axis=1, keepdims=True)
        share = belief.sum(axis=0) + model.balance_strength / k
        share = share / share.sum()
        joint = np.einsum("nic,ny->icy", hot, belief, optimize=True) + model._prior(statistics, share) + 1e-9
        tables = joint / joint.sum(axis=1, keepdims=True)
    return tables, share


@pytest.mark.parametrize(("n", "m", "k", "coverage"), [(20_000, 20, 2, 0.6), (3000, 8, 2, 0.6), (4000, 30, 4, 0.05)])
def test_quick_passes_are_those_of_plain_em(n: int, m: int, k: int, coverage: float) -> None:
    votes = drawn(n, m, k, coverage)
    model = DawidSkene(k, iterations=6, tolerance=0).fit(votes)
    tables, share = plain_em(votes, k, 6)
    assert np.abs(model.tables_ - tables).max() < 1e-9 and np.abs(model.class_balance_ - share).max() < 1e-9


def test_rows_that_hardly_repeat_are_not_sorted() -> None:
    votes = drawn(20_000, 30, 2)
    patterns = Patterns.of(votes, 2)
    assert patterns.rows is votes and patterns.counts.sum() == len(votes)
    one, other = (DawidSkene().fit(v).predict_proba(votes[:100]) for v in (votes, votes[::-1]))
    assert np.abs(one - other).max() < 1e-6


def test_a_stream_keeps_votes_and_not_the_array_that_held_them() -> None:
    votes = drawn(40_000, 30, 2)
    stream, buffer = DawidSkene(), votes[:20_000].copy()
    stream.partial_fit(buffer)
    buffer[:] = votes[20_000:]
    stream.partial_fit(buffer)
    assert np.abs(stream.tables_ - DawidSkene().fit(votes).tables_).max() < 1e-6
