"""Class probabilities of votes under a log-linear model: a prior and what each vote adds to it."""

from __future__ import annotations

import numpy as np

from labelers.encoded import GroupedVotes


def posterior(votes: np.ndarray, log_prior: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """softmax(log_prior + Σ_i weights[i, vote_i + 1]), (n, k) float64.

    votes: (n, m) int8, -1 abstains. log_prior: (k,). weights: (m, k + 1, k).
    """
    if len(log_prior) == 2:
        odds = log_scores(votes, log_prior[1:] - log_prior[:1], weights[..., 1:] - weights[..., :1])[0]
        out = np.empty((len(votes), 2))
        smaller = np.exp(-np.abs(odds))  # of the unlikelier class to the likelier one: never overflows
        larger = 1 / (1 + smaller)
        smaller *= larger
        first = odds < 0
        out[:, 0] = np.where(first, larger, smaller)
        out[:, 1] = np.where(first, smaller, larger)
        return out
    scores = log_scores(votes, log_prior, weights)
    scores -= scores.max(axis=0)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=0)
    return np.ascontiguousarray(scores.T)


def log_scores(votes: np.ndarray, log_prior: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """log_prior + Σ_i weights[i, vote_i + 1], (c, n) float64, of weights (m, k + 1, c) and log_prior (c,)."""
    encoded = GroupedVotes(votes, weights.shape[1] - 1)
    tables, scores = encoded.tables(weights), np.empty((len(log_prior), len(votes)))
    for number, block in enumerate(encoded.blocks):
        scores[:, block] = encoded.scores(number, tables, log_prior)
    return scores
