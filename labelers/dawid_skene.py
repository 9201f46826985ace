"""Dawid and Skene's model (1979): a table P(vote | Y) per function, by MAP-EM over the distinct rows of the vote matrix, or,
from statistics alone, over pairs of functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from labelers.dependencies import full_pairs
from labelers.models import LabelModel
from labelers.patterns import Patterns
from labelers.statistics import VoteStatistics
from labelers.vote_tables import coin_tables

_TINY = 1e-300


class DawidSkene(LabelModel):
    """A full table P(vote | Y) per function, fitted by expectation maximisation with Dirichlet priors.

    From statistics alone it maximises the composite likelihood of all pairs of functions (Varin et al. 2011): consistent like
    the other, somewhat less precise, and exact over any split of the documents.

    abstain: `symbol` makes abstaining one more vote, so that one-sided functions are learned from; `missing` takes it to say
    nothing. strength: the prior of a function is as strong as this many of its own votes per class, of which the share
    `accuracy` would be right were classes even. Counted in votes and not in documents, it also holds functions that seldom
    vote; counted per class, it holds tables whose k² entries share the votes.
    balance_strength: the uniform prior of the class balance where that is learned, in documents.
    shares: how much of a vote each function has, (m,) in (0, 1]; copies share one (`dependencies.vote_shares`).

    After fit: `tables_` (m, k + 1, k), `agreement_` (m,), how often a function's votes are the class by the probabilities
    alone, without the prior, `log_likelihood_` per document, `iterations_`.
    """

    name = "dawid-skene"
    uses_rows = True
    parameters = (
        "k",
        "seed",
        "abstain",
        "errors",
        "strength",
        "accuracy",
        "balance_strength",
        "iterations",
        "tolerance",
        "shares",
    )
    tables_: np.ndarray
    agreement_: np.ndarray
    log_likelihood_: float
    iterations_: int

    def __init__(
        self,
        k: int = 2,
        seed: int = 0,
        abstain: Literal["symbol", "missing"] = "symbol",
        errors: Literal["free", "even"] = "free",
        strength: float = 25.0,
        accuracy: float = 0.7,
        balance_strength: float = 10.0,
        iterations: int = 300,
        tolerance: float = 1e-7,
        shares: Sequence[float] | np.ndarray | None = None,
    ) -> None:
        super().__init__(k, seed)
        if abstain not in ("symbol", "missing"):
            raise ValueError(f"abstain is {abstain!r}: symbol or missing")
        if errors not in ("free", "even"):
            raise ValueError(f"errors is {errors!r}: free or even")
        if strength < 0 or not 0 < accuracy < 1 or balance_strength < 0 or iterations < 1:
            raise ValueError("strength and balance_strength are from 0, accuracy between 0 and 1, iterations from 1")
        self.abstain, self.errors, self.strength, self.accuracy = abstain, errors, strength, accuracy
        self.balance_strength, self.iterations, self.tolerance = balance_strength, iterations, tolerance
        self.shares = None if shares is None else np.asarray(shares, np.float64)

    def _fit(self, statistics: VoteStatistics, rows: Patterns | None, balance: np.ndarray | None) -> None:
        m = len(statistics.functions)
        self._exponents = np.ones(m) if self.shares is None else self.shares
        if self._exponents.shape != (m,) or (self._exponents <= 0).any() or (self._exponents > 1).any():
            raise ValueError(f"shares are {m} numbers above 0, at most 1: one per labelling function")
        if rows is None and m == 1:
            self.notes_.append("statistics of a single function hold no pair: its prior alone decides")
        step = self._rows_step(rows) if rows is not None else self._pairs_step(statistics)
        start = np.full(self.k, 1 / self.k)
        if rows is None:  # pairs tell little of the balance, and EM over them hardly moves it
            from labelers.balance import estimate_balance

            start = estimate_balance(statistics)
        self._maximise(statistics, step, start, balance)
        self.accuracies_ = precision(self.tables_, self.class_balance_)
        weights = self._log_tables(self.tables_)
        self.weights_, self.log_prior_ = weights, np.log(self.class_balance_)

    def _maximise(self, statistics: VoteStatistics, step: Callable, start: np.ndarray, balance: np.ndarray | None) -> None:
        """EM from the prior tables. step(tables, share) -> expected joint counts (m, k + 1, k), of documents, expected
        documents per class (k,), and the log-likelihood per document."""
        share = start if balance is None else balance
        tables = self._maximum(statistics, np.zeros((len(statistics.functions), self.k + 1, self.k)), share)
        last, likelihood, iteration, joint = -np.inf, -np.inf, 0, np.empty(tables.shape)
        for iteration in range(1, self.iterations + 1):  # noqa: B007
            joint, documents, likelihood = step(tables, share)
            if balance is None:
                share = documents + self.balance_strength / self.k
                share = share / share.sum()
            tables = self._maximum(statistics, joint, share)
            if abs(likelihood - last) < self.tolerance:
                break
            last = likelihood
        else:
            self.notes_.append(f"EM had not settled after {self.iterations} iterations")
        right, cast = np.einsum("icc->i", joint[:, 1:]), joint[:, 1:].sum(axis=(1, 2))
        self.agreement_ = np.divide(right, cast, out=np.full(len(cast), np.nan), where=cast > 0)
        self.tables_, self.class_balance_ = tables, share
        self.log_likelihood_, self.iterations_ = likelihood, iteration

    def _maximum(self, statistics: VoteStatistics, joint: np.ndarray, share: np.ndarray) -> np.ndarray:
        """The M-step: likeliest tables (m, k + 1, k) of expected counts (m, k + 1, k) and the prior."""
        if self.errors == "free":
            return _normalised(joint + self._prior(statistics, share))
        right = np.einsum("icc->i", joint[:, 1:]) + self.strength * self.accuracy + 1e-9
        cast = joint[:, 1:].sum(axis=(1, 2)) + self.strength + 2e-9
        return _normalised(coin_tables(right / cast, statistics.counts.sum(axis=1) / statistics.documents, self.k))

    def _prior(self, statistics: VoteStatistics, share: np.ndarray) -> np.ndarray:
        """Pseudo-counts (m, k + 1, k): `strength` votes per class of each function, and the abstentions that go with them.

        A vote for a class multiplies its odds by as much as makes `accuracy` of an even balance.
        """
        m, k, n = len(statistics.functions), self.k, statistics.documents
        lift = self.accuracy / (1 - self.accuracy) * (k - 1)
        right = share * np.where(np.eye(k, dtype=bool), lift, 1)
        right /= right.sum(axis=1, keepdims=True)
        counts = statistics.counts + 1e-3
        votes = counts / counts.sum(axis=1, keepdims=True)
        strength = self.strength * np.exp(-(votes * np.log(votes)).sum(axis=1))  # by how many classes it votes for, in effect
        votes *= strength[:, None]
        prior = np.empty((m, k + 1, k))
        prior[:, 1:] = votes[:, :, None] * right
        silent = np.maximum(n - statistics.counts.sum(axis=1), 0) / counts.sum(axis=1)
        prior[:, 0] = (silent * strength)[:, None] * share
        return prior

    def _log_tables(self, tables: np.ndarray) -> np.ndarray:
        """What a vote adds to the log-probability of each class, (m, k + 1, k)."""
        told = np.log(tables + _TINY)
        if self.abstain == "missing":
            told -= np.log(tables[:, 1:].sum(axis=1, keepdims=True) + _TINY)
            told[:, 0] = 0
        return told * self._exponents[:, None, None]

    def _rows_step(self, rows: Patterns) -> Callable:
        """The E-step over distinct rows. Scores are relative to class 0, which has what the other classes leave."""
        m, k, counts, encoded = rows.rows.shape[1], self.k, rows.counts, rows.encoded
        total, cast = counts.sum(), encoded.zeros(1)
        for number, block in enumerate(encoded.blocks):
            encoded.tally(counts[None, block], cast, number)
        votes = encoded.by_vote(cast)[:, :, 0]

        def step(tables: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
            weights, log_share = self._log_tables(tables), np.log(share)
            told = encoded.tables(weights[..., 1:] - weights[..., :1])
            sums, documents, evidence = encoded.zeros(k - 1), np.zeros(k), 0.0
            for number, block in enumerate(encoded.blocks):
                scores = encoded.scores(number, told, log_share[1:] - log_share[0])
                top = np.maximum(scores.max(axis=0), 0)
                belief = np.exp(scores - top)
                norm = np.exp(-top) + belief.sum(axis=0)
                belief *= counts[block] / norm
                documents[1:] += belief.sum(axis=1)
                evidence += float(counts[block] @ (np.log(norm) + top))
                encoded.tally(belief, sums, number)
            documents[0] = max(total - documents[1:].sum(), 0.0)
            joint = np.empty((m, k + 1, k))
            joint[:, 1:, 1:] = encoded.by_vote(sums)
            joint[:, 1:, 0] = np.maximum(votes - joint[:, 1:, 1:].sum(axis=2), 0)
            joint[:, 0] = np.maximum(documents - joint[:, 1:].sum(axis=1), 0)
            silent = total - votes.sum(axis=1)
            first = float(total * log_share[0] + (votes * weights[:, 1:, 0]).sum() + silent @ weights[:, 0, 0])
            return joint, documents, (first + evidence) / total

        return step

    def _pairs_step(self, statistics: VoteStatistics) -> Callable:
        """The E-step over pairs of functions: P(Y | λ_i = a, λ_j = b) for every pair, weighed by how often it occurs."""
        m, n = len(statistics.functions), statistics.documents
        joint_votes = full_pairs(statistics)
        single = np.einsum("iaia->ia", joint_votes).copy()
        exponents = self._exponents

        def step(tables: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
            weights, log_share = self._log_tables(tables), np.log(share)
            expected, likelihood, documents = np.empty_like(tables), 0.0, np.zeros(len(share))
            for i in range(m):
                others = np.arange(m) != i
                if not others.any():
                    scores, seen = log_share + weights[i], single[i]
                else:  # (k + 1, m - 1, k + 1, k)
                    scores = log_share + weights[i][:, None, None] + weights[others][None]
                    seen = joint_votes[i][:, others] * (exponents[others] / exponents[others].sum())[None, :, None]
                belief, evidence = _softmax(scores)
                mass = belief * seen[..., None]
                expected[i] = mass.reshape(len(tables[i]), -1, len(share)).sum(axis=1) * n
                likelihood += float((seen * evidence).sum()) / m
                documents += expected[i].sum(axis=0) * exponents[i]
            return expected, documents / exponents.sum(), likelihood

        return step

    def _conditional_probs(self) -> np.ndarray:
        return self.tables_


def precision(tables: np.ndarray, balance: np.ndarray) -> np.ndarray:
    """P(vote = Y | it votes), (m,), of tables P(vote | Y) (m, k + 1, k)."""
    joint = tables[:, 1:] * balance
    return np.einsum("icc->i", joint) / np.maximum(joint.sum(axis=(1, 2)), _TINY)


def _normalised(joint: np.ndarray) -> np.ndarray:
    joint = joint + 1e-9
    return joint / joint.sum(axis=1, keepdims=True)


def _softmax(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Along the last axis: probabilities, and the logarithm of their sum before."""
    if scores.shape[-1] == 2:  # reductions over an axis of two are slow
        top = np.maximum(scores[..., 0], scores[..., 1])
        belief = np.exp(scores - top[..., None])
        norm = belief[..., 0] + belief[..., 1]
    else:
        top = scores.max(axis=-1)
        belief = np.exp(scores - top[..., None])
        norm = belief.sum(axis=-1)
    belief /= norm[..., None]
    return belief, np.log(norm) + top
