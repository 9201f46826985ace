"""Majority vote: every labelling function counts the same, or by a weight that is given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from labelers.models import LabelModel, check_balance
from labelers.statistics import VoteStatistics
from labelers.votes import Votes, dense_blocks


class MajorityVote(LabelModel):
    """Equal mass on the classes with the most votes; uniform where every function abstains (Snorkel's MajorityLabelVoter).

    weights: one number from 0 per function instead of 1 each. Without a balance, `class_balance_` is the share of each class
    among the documents that have a majority, and it takes no part in the labels; a balance that is given decides what a
    document without votes gets, and between tied classes.
    """

    name = "majority"
    parameters = ("k", "seed", "weights")
    prior_: np.ndarray

    def __init__(self, k: int = 2, seed: int = 0, weights: Sequence[float] | np.ndarray | None = None) -> None:
        super().__init__(k, seed)
        self.weights = None if weights is None else np.asarray(weights, np.float64)
        if self.weights is not None and not (np.isfinite(self.weights).all() and (self.weights >= 0).all()):
            raise ValueError("the weights of a majority vote are finite numbers from 0")

    def _fit(self, statistics: VoteStatistics, votes: Votes | None, balance: np.ndarray | None) -> None:
        m, k = len(statistics.functions), self.k
        weights = np.ones(m) if self.weights is None else self.weights
        if weights.shape != (m,):
            raise ValueError(f"majority vote has {weights.shape[0]} weights for {m} labelling functions")
        total = int(statistics.outcomes.sum())
        self.prior_ = np.full(k, 1 / k) if balance is None else balance
        seen = statistics.outcomes / total if total else np.full(k, 1 / k)
        self.class_balance_ = seen if balance is None else balance
        self.log_prior_ = np.log(self.prior_)
        self.weights_ = np.zeros((m, k + 1, k))
        self.weights_[:, 1:] = np.eye(k) * weights[:, None, None]
        self.accuracies_ = _agreement(statistics)

    def predict_proba(self, votes: Votes) -> np.ndarray:
        """(n, k) float64, rows sum to 1: the mass is shared among the classes with the most votes, as the prior is."""
        checked = self._checked(votes)
        out = np.empty((checked.shape[0], self.k))
        weights = self.weights_[:, 1:].max(axis=2).max(axis=1, initial=0)
        for first, block in dense_blocks(checked):
            tally = np.stack([(block == c).astype(np.float64) @ weights for c in range(self.k)], axis=1)
            top = tally >= tally.max(axis=1, keepdims=True) - 1e-12
            mass = top * self.prior_
            out[first : first + len(block)] = mass / mass.sum(axis=1, keepdims=True)
        return out

    def _conditional_probs(self) -> np.ndarray:
        raise ValueError("majority vote has no conditional probabilities: it learns nothing about the functions")


def _agreement(statistics: VoteStatistics) -> np.ndarray:
    """How often a function agrees with another one where both vote, (m,); NaN where it never meets one."""
    both = statistics.pair_overlaps().astype(np.float64)
    differ = statistics.pair_conflicts().astype(np.float64)
    np.fill_diagonal(both, 0)
    np.fill_diagonal(differ, 0)
    met = both.sum(axis=1)
    return np.divide(met - differ.sum(axis=1), met, out=np.full(len(met), np.nan), where=met > 0)
