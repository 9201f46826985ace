"""Dawid and Skene's model (1979), by MAP-EM over the distinct rows of the vote matrix."""

from __future__ import annotations

from typing import Literal

import numpy as np

from labelers.models import LabelModel
from labelers.patterns import Patterns
from labelers.statistics import VoteStatistics
from labelers.votes import Votes

_TINY = 1e-300


class DawidSkene(LabelModel):
    """A full table P(vote | Y) per function, fitted by expectation maximisation with Dirichlet priors.

    abstain: `symbol` makes abstaining one more vote, so that one-sided functions are learned from; `missing` takes it to say
    nothing. strength: the prior of a function is as strong as this many of its own votes; accuracy: ... of which this share
    is right. Counted in votes and not in documents, the prior also holds functions that seldom vote. balance_strength: the
    uniform prior of the class balance, in documents with votes, where the balance is learned.
    """

    name = "dawid-skene"
    needs_votes = True
    parameters = ("k", "seed", "abstain", "strength", "accuracy", "balance_strength", "iterations", "tolerance")
    tables_: np.ndarray
    log_likelihood_: float
    iterations_: int

    def __init__(
        self,
        k: int = 2,
        seed: int = 0,
        abstain: Literal["symbol", "missing"] = "symbol",
        strength: float = 10.0,
        accuracy: float = 0.7,
        balance_strength: float = 10.0,
        iterations: int = 200,
        tolerance: float = 1e-6,
    ) -> None:
        super().__init__(k, seed)
        if abstain not in ("symbol", "missing"):
            raise ValueError(f"abstain is {abstain!r}: symbol or missing")
        if strength < 0 or not 0 < accuracy < 1 or balance_strength < 0 or iterations < 1:
            raise ValueError("strength and balance_strength are from 0, accuracy between 0 and 1, iterations from 1")
        self.abstain, self.strength, self.accuracy = abstain, strength, accuracy
        self.balance_strength, self.iterations, self.tolerance = balance_strength, iterations, tolerance

    def _fit(self, statistics: VoteStatistics, votes: Votes | None, balance: np.ndarray | None) -> None:
        assert votes is not None
        data = Patterns.of(votes, self.k)
        prior = self._prior(statistics, balance)
        counts, total = data.counts, data.counts.sum()
        belief = _majority(data, self.k, balance)
        share = np.full(self.k, 1 / self.k) if balance is None else balance
        last, likelihood, step = -np.inf, -np.inf, 0
        for step in range(1, self.iterations + 1):
            mass = belief * counts[:, None]
            if balance is None:
                share = mass.sum(axis=0) + self.balance_strength / self.k
                share /= share.sum()
            tables = self._tables(data, mass, prior)
            log_prior, weights = self._weights(tables, share)
            scores = log_prior + data.hits @ weights
            top = scores.max(axis=1, keepdims=True)
            belief = np.exp(scores - top)
            norm = belief.sum(axis=1, keepdims=True)
            belief /= norm
            likelihood = float(counts @ (np.log(norm[:, 0]) + top[:, 0])) / total
            if abs(likelihood - last) < self.tolerance:
                break
            last = likelihood
        else:
            self.notes_.append(f"EM had not settled after {self.iterations} iterations")
        self.class_balance_, self.tables_ = share, tables
        self.log_likelihood_, self.iterations_ = likelihood, step
        self._set_weights()
        self.accuracies_ = accuracies(tables, share)

    def _prior(self, statistics: VoteStatistics, balance: np.ndarray | None) -> np.ndarray:
        """Pseudo-counts (m, k + 1, k): `strength` votes of each function, and the abstentions that go with them."""
        m, k, n = len(statistics.functions), self.k, statistics.documents
        share = np.full(k, 1 / k) if balance is None else balance
        right = np.eye(k) * self.accuracy + (1 - np.eye(k)) * (1 - self.accuracy) * share / (1 - share)[:, None]
        counts = statistics.counts + 1e-3
        votes = counts / counts.sum(axis=1, keepdims=True) * self.strength
        prior = np.empty((m, k + 1, k))
        prior[:, 1:] = votes[:, :, None] * right
        silent = np.maximum(n - statistics.counts.sum(axis=1), 0) / counts.sum(axis=1)
        prior[:, 0] = (silent * self.strength)[:, None] * share
        return prior

    def _tables(self, data: Patterns, mass: np.ndarray, prior: np.ndarray) -> np.ndarray:
        """P(vote | Y), (m, k + 1, k), at the posterior's mode."""
        m, k = data.rows.shape[1], self.k
        joint = np.asarray(data.hits.T @ mass).reshape(m, k, k)
        tables = prior.copy()
        tables[:, 1:] += joint
        tables[:, 0] += np.maximum(mass.sum(axis=0) - joint.sum(axis=1), 0)
        tables += 1e-9
        return tables / tables.sum(axis=1, keepdims=True)

    def _weights(self, tables: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-prior (k,) and what a vote adds to it (m·k, k), with the abstentions of all functions in the former."""
        told = np.log(tables + _TINY)
        if self.abstain == "symbol":
            silence = told[:, 0]
            return np.log(share) + silence.sum(axis=0), (told[:, 1:] - silence[:, None]).reshape(-1, self.k)
        voted = tables[:, 1:].sum(axis=1, keepdims=True)
        return np.log(share), (told[:, 1:] - np.log(voted)).reshape(-1, self.k)

    def _set_weights(self) -> None:
        told = np.log(self.tables_ + _TINY)
        if self.abstain == "missing":
            told = told - np.log(self.tables_[:, 1:].sum(axis=1, keepdims=True))
            told[:, 0] = 0
        self.weights_, self.log_prior_ = told, np.log(self.class_balance_)

    def _conditional_probs(self) -> np.ndarray:
        return self.tables_


def accuracies(tables: np.ndarray, balance: np.ndarray) -> np.ndarray:
    """P(vote = Y | it votes), (m,), of tables P(vote | Y) (m, k + 1, k)."""
    joint = tables[:, 1:] * balance
    return np.einsum("icc->i", joint) / np.maximum(joint.sum(axis=(1, 2)), _TINY)


def _majority(data: Patterns, k: int, balance: np.ndarray | None) -> np.ndarray:
    """Where EM begins: (u, k) shares of the votes, softened so that no class is ruled out."""
    m = data.rows.shape[1]
    tally = data.hits @ np.tile(np.eye(k), (m, 1))
    share = np.full(k, 1 / k) if balance is None else balance
    return (tally + share) / (tally.sum(axis=1, keepdims=True) + 1)
