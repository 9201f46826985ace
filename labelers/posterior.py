"""Class probabilities of votes under a log-linear model: a prior and what each vote adds to it."""

from __future__ import annotations

import numpy as np

_TABLE = 1 << 11  # entries of a joint table of several functions: small enough for the cache


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
    """log_prior + Σ_i weights[i, vote_i + 1], (c, n) float64, of weights (m, k + 1, c) and log_prior (c,).

    Functions are taken several at a time: their votes together are the row of a joint table, which is summed once, so that a
    document costs one look-up per group and class.
    """
    (n, m), values, classes = votes.shape, weights.shape[1], len(log_prior)
    columns = np.ascontiguousarray(votes.T)
    scores = np.repeat(log_prior[:, None], n, axis=1).astype(np.float64)
    group = max(1, int(np.log(_TABLE) / np.log(values)))
    for first in range(0, m, group):
        chosen = range(first, min(first + group, m))
        table, code = np.zeros((1, classes)), np.zeros(n, np.uint16)
        for i in chosen:
            table = (table[:, None, :] + weights[i][None, :, :]).reshape(-1, classes)
            code *= np.uint16(values)
            code += (columns[i] + np.int8(1)).view(np.uint8)
        for c in range(classes):
            scores[c] += np.ascontiguousarray(table[:, c])[code]
    return scores
