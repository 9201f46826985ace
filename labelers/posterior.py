"""Class probabilities of votes under a log-linear model: a prior and what each vote adds to it."""

from __future__ import annotations

import numpy as np

_TABLE = 1 << 11  # entries of a joint table of several functions: small enough for the cache


def posterior(votes: np.ndarray, log_prior: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """softmax(log_prior + Σ_i weights[i, vote_i + 1]), (n, k) float64.

    votes: (n, m) int8, -1 abstains. log_prior: (k,). weights: (m, k + 1, k).
    """
    scores = log_scores(votes, log_prior, weights)
    if len(log_prior) == 2:
        out = np.empty((len(votes), 2))
        odds = scores[1] - scores[0]
        np.negative(np.abs(odds), out=scores[0])
        np.exp(scores[0], out=scores[0])  # of the unlikelier class to the likelier one: never overflows
        scores[1] = 1 / (1 + scores[0])
        scores[0] *= scores[1]
        first = odds < 0
        out[:, 0] = np.where(first, scores[1], scores[0])
        out[:, 1] = np.where(first, scores[0], scores[1])
        return out
    scores -= scores.max(axis=0)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=0)
    return np.ascontiguousarray(scores.T)


def log_scores(votes: np.ndarray, log_prior: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """log_prior + Σ_i weights[i, vote_i + 1], (k, n) float64.

    Functions are taken several at a time: their votes together are the row of a joint table, which is summed once, so that a
    document costs one look-up per group and class.
    """
    k, (n, m) = len(log_prior), votes.shape
    columns = np.ascontiguousarray(votes.T)
    scores = np.repeat(log_prior[:, None], n, axis=1).astype(np.float64)
    group = max(1, int(np.log(_TABLE) / np.log(k + 1)))
    for first in range(0, m, group):
        chosen = range(first, min(first + group, m))
        table, code = np.zeros((1, k)), np.zeros(n, np.uint16)
        for i in chosen:
            table = (table[:, None, :] + weights[i][None, :, :]).reshape(-1, k)
            code *= np.uint16(k + 1)
            code += (columns[i] + np.int8(1)).view(np.uint8)
        for c in range(k):
            scores[c] += np.ascontiguousarray(table[:, c])[code]
    return scores
