"""Majority vote: every labelling function counts the same, or by a weight that is given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from labelers.models import LabelModel
from labelers.patterns import Patterns
from labelers.statistics import VoteStatistics
from labelers.votes import Votes, dense_blocks

_SAME = 1e-12  # weights that sum to within this are tied


class MajorityVote(LabelModel):
    """Equal mass on the classes with the most votes; uniform where every function abstains (Snorkel's MajorityLabelVoter).

    weights: one number from 0 per function instead of 1 each. accuracy: if given, the probabilities are those of functions
    that are right this often (of even classes) and err independently, so that a narrow majority is less sure than a wide one;
    the likeliest class stays the same. A balance that is given decides between tied classes, and what a document without votes
    gets; with `accuracy` it is the prior. Without one, `class_balance_` tells the share of each class among the documents that
    have a majority (by the weights, where it is fitted on rows), and takes no part in the labels.
    """

    name = "majority"
    parameters = ("k", "seed", "weights", "accuracy")

    def __init__(
        self,
        k: int = 2,
        seed: int = 0,
        weights: Sequence[float] | np.ndarray | None = None,
        accuracy: float | None = None,
    ) -> None:
        super().__init__(k, seed)
        self.weights = None if weights is None else np.asarray(weights, np.float64)
        self.accuracy = accuracy
        if self.weights is not None and not (np.isfinite(self.weights).all() and (self.weights >= 0).all()):
            raise ValueError("the weights of a majority vote are finite numbers from 0")
        if accuracy is not None and not 1 / self.k < accuracy < 1:
            raise ValueError(f"accuracy is {accuracy}: between chance (1 / {self.k}) and 1")

    def _fit(self, statistics: VoteStatistics, rows: Patterns | None, balance: np.ndarray | None) -> None:
        m, k = len(statistics.functions), self.k
        weights = np.ones(m) if self.weights is None else self.weights
        if weights.shape != (m,):
            raise ValueError(f"majority vote has {len(weights)} weights for {m} labelling functions")
        outcomes = statistics.outcomes if self.weights is None or rows is None else _outcomes(rows, weights)
        total = outcomes.sum()
        even = np.full(k, 1 / k)
        self.class_balance_ = (outcomes / total if total else even) if balance is None else balance
        self.log_prior_ = np.log(even if balance is None else balance)
        lift = 1.0 if self.accuracy is None else np.log(self.accuracy / (1 - self.accuracy) * (k - 1))
        self.weights_ = np.zeros((m, k + 1, k))
        self.weights_[:, 1:] = np.eye(k) * weights[:, None, None] * lift
        self.accuracies_ = _agreement(statistics)

    def predict_proba(self, votes: Votes) -> np.ndarray:
        """(n, k) float64, rows sum to 1. Without `accuracy` the mass is shared among the classes with the most votes."""
        if self.accuracy is not None:
            return super().predict_proba(votes)
        checked = self._checked(votes)
        out = np.empty((checked.shape[0], self.k))
        weights, prior = self.weights_[:, 1, 0], np.exp(self.log_prior_)
        for first, block in dense_blocks(checked):
            tally = np.stack([(block == c).astype(np.float64) @ weights for c in range(self.k)], axis=1)
            top = tally >= tally.max(axis=1, keepdims=True) - _SAME
            mass = top * prior
            out[first : first + len(block)] = mass / mass.sum(axis=1, keepdims=True)
        return self._calibrated(out)

    def _conditional_probs(self) -> np.ndarray:
        raise ValueError("majority vote has no conditional probabilities: it learns nothing about the functions")


def rarity_weights(statistics: VoteStatistics) -> np.ndarray:
    """-log(coverage) of each function over their median, (m,): a rule that seldom fires is more specific (as in TF-IDF)."""
    counts = statistics.counts.sum(axis=1)
    rarity = -np.log(np.clip(counts, 1, None) / (statistics.documents + 1))
    middle = np.median(rarity[counts > 0]) if (counts > 0).any() else 1.0
    return rarity / max(middle, 1e-9)


def _outcomes(rows: Patterns, weights: np.ndarray) -> np.ndarray:
    """Documents per class that has the most weight, (k,), of those where it is one."""
    tally = np.stack([(rows.rows == c) @ weights for c in range(rows.k)], axis=1)
    top = tally >= tally.max(axis=1, keepdims=True) - _SAME
    single = (top.sum(axis=1) == 1) & (tally.max(axis=1) > 0)
    return np.bincount(tally.argmax(axis=1)[single], rows.counts[single], rows.k)


def _agreement(statistics: VoteStatistics) -> np.ndarray:
    """How often a function agrees with another one where both vote, (m,); NaN where it never meets one."""
    both = statistics.pair_overlaps().astype(np.float64)
    differ = statistics.pair_conflicts().astype(np.float64)
    np.fill_diagonal(both, 0)
    np.fill_diagonal(differ, 0)
    met = both.sum(axis=1)
    return np.divide(met - differ.sum(axis=1), met, out=np.full(len(met), np.nan), where=met > 0)
