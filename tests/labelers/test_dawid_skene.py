from __future__ import annotations

import itertools

import numpy as np
import pytest

from labelers.dawid_skene import DawidSkene
from labelers.patterns import Patterns
from labelers.statistics import VoteStatistics
from labelers.synthetic import coin_tables, generate, votes_of


def by_loop(votes: np.ndarray, tables: np.ndarray, balance: np.ndarray) -> np.ndarray:
    """P(Y | votes) by the definition."""
    out = np.empty((len(votes), len(balance)))
    for n, row in enumerate(votes):
        for y in range(len(balance)):
            out[n, y] = balance[y] * np.prod([tables[i, v + 1, y] for i, v in enumerate(row)])
    return out / out.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("family", ["asymmetric", "imbalanced", "keywords", "multiclass"])
def test_the_posterior_is_bayes_rule_with_the_fitted_tables(family: str) -> None:
    data = generate(family, 5, n=600)
    model = DawidSkene(data.k).fit(data.votes)
    votes = data.votes[:50]
    assert np.allclose(model.predict_proba(votes), by_loop(votes, model.tables_, model.class_balance_), atol=1e-9)


def test_em_never_lowers_the_posterior() -> None:
    data = generate("asymmetric", 2, n=1500)

    def objective(iterations: int) -> float:
        # with a fixed balance and no prior, the likelihood itself must rise
        model = DawidSkene(2, strength=0, iterations=iterations, tolerance=0).fit(data.votes, [0.5, 0.5])
        return model.log_likelihood_

    path = [objective(i) for i in (1, 2, 3, 5, 8, 13)]
    assert all(b >= a - 1e-12 for a, b in itertools.pairwise(path))


def test_tables_and_balance_come_near_the_truth() -> None:
    rng = np.random.default_rng(0)
    gold = rng.choice(3, 20_000, p=[0.5, 0.3, 0.2])
    tables = coin_tables(np.array([0.8, 0.7, 0.6, 0.75, 0.65]), np.array([0.9, 0.6, 0.8, 0.7, 0.5]), 3)
    tables[0, 1:, 1] = tables[0, [2, 1, 3], 1]  # mistakes class 1 for 0
    model = DawidSkene(3).fit(votes_of(tables, gold, rng))
    assert np.abs(model.tables_ - tables).max() < 0.06 and np.abs(model.class_balance_ - [0.5, 0.3, 0.2]).max() < 0.03


def test_pairs_alone_give_nearly_what_rows_give() -> None:
    data = generate("asymmetric", 7, n=4000)
    rows, pairs = DawidSkene().fit(data.votes), DawidSkene().fit(VoteStatistics.measure(data.votes))
    assert np.abs(rows.accuracies_ - pairs.accuracies_).max() < 0.08
    assert (rows.predict_proba(data.votes).argmax(1) == pairs.predict_proba(data.votes).argmax(1)).mean() > 0.95


def test_copies_that_share_a_vote_count_once() -> None:
    data = generate("symmetric", 3, n=3000)
    tripled = np.column_stack([data.votes, data.votes[:, 0], data.votes[:, 0]])
    shares = np.ones(tripled.shape[1])
    shares[[0, -1, -2]] = 1 / 3
    alone = DawidSkene().fit(data.votes).predict_proba(data.votes)
    assert np.abs(DawidSkene(shares=shares).fit(tripled).predict_proba(tripled) - alone).max() < 0.02
    with pytest.raises(ValueError, match="one per labelling function"):
        DawidSkene(shares=[1.0]).fit(tripled)


def test_missing_abstentions_say_nothing() -> None:
    data = generate("symmetric", 4, n=1000)
    model = DawidSkene(abstain="missing").fit(data.votes, [0.3, 0.7])
    assert model.predict_proba(np.full((1, data.votes.shape[1]), -1))[0] == pytest.approx([0.3, 0.7])


def test_patterns_count_every_row() -> None:
    data = generate("keywords", 2, n=2000)
    patterns = Patterns.of(data.votes, data.k)
    rows, counts = np.unique(data.votes, axis=0, return_counts=True)
    order = np.lexsort(patterns.rows.T[::-1])
    assert (patterns.rows[order] == rows).all() and (patterns.counts[order] == counts).all()
    halves = Patterns.of(data.votes[:700], data.k) + Patterns.of(data.votes[700:], data.k)
    assert (halves.rows == patterns.rows).all() and (halves.counts == patterns.counts).all()


@pytest.mark.parametrize("from_pairs", [False, True])
def test_even_errors_come_near_the_truth(from_pairs: bool) -> None:
    rng = np.random.default_rng(0)
    accuracy, coverage = np.array([0.8, 0.5, 0.6, 0.7, 0.3, 0.65]), np.array([0.9, 0.6, 0.8, 0.7, 0.5, 0.4])
    gold = rng.choice(5, 8000, p=[0.3, 0.1, 0.2, 0.25, 0.15])
    votes = votes_of(coin_tables(accuracy, coverage, 5), gold, rng)
    model = DawidSkene(5, errors="even").fit(VoteStatistics.measure(votes, k=5) if from_pairs else votes)
    assert np.abs(model.accuracies_ - accuracy).max() < 0.06
    assert np.abs(1 - model.tables_[:, 0] - coverage[:, None]).max() < 0.02 and np.allclose(model.tables_.sum(axis=1), 1)


def test_the_prior_of_a_function_that_votes_for_one_class_is_that_of_one_class() -> None:
    counts = np.array([[100, 0, 0], [50, 50, 0], [40, 40, 40]])
    votes = np.full((400, 3), -1)
    for i, row in enumerate(counts):
        votes[: row.sum(), i] = np.repeat(np.arange(3), row)
    model = DawidSkene(3, strength=10)
    prior = model._prior(VoteStatistics.measure(votes, k=3), np.full(3, 1 / 3))
    assert prior[:, 1:].sum(axis=(1, 2)) == pytest.approx([10, 20, 30], rel=0.01)


@pytest.mark.parametrize(
    "told", [{"abstain": "maybe"}, {"errors": "odd"}, {"strength": -1}, {"accuracy": 1.0}, {"iterations": 0}]
)
def test_wrong_parameters_are_told(told: dict) -> None:
    with pytest.raises(ValueError):
        DawidSkene(**told)
