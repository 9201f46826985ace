"""Accuracies of labelling functions from triplets of them (Fu et al. 2020, FlyingSquid, section 3; arXiv 2002.11955).

For functions that are independent given the class, E[λ_i λ_j] = E[λ_i Y]·E[λ_j Y]: three of them give |E[λ_i Y]| as
sqrt(|M_ij M_ik / M_jk|). For k classes, and functions that err evenly, the same holds for agreement above chance:
M_ij = (k·P(λ_i = λ_j) - P(both vote)) / (k - 1), which is E[λ_i λ_j] for votes -1, 0, +1 where k = 2.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from labelers.statistics import VoteStatistics

Method = Literal["mean", "median", "weighted"]


def agreement_moments(statistics: VoteStatistics) -> tuple[np.ndarray, np.ndarray]:
    """M (m, m), over all documents, and the standard error of each entry."""
    k, n = len(statistics.classes), statistics.documents
    both = statistics.pair_overlaps() / n
    agree = both - statistics.pair_conflicts() / n
    moments = (k * agree - both) / (k - 1)
    square = agree + (both - agree) / (k - 1) ** 2
    return moments, np.sqrt(np.maximum(square - moments**2, 1 / n) / n)


def triplet_strengths(
    moments: np.ndarray, errors: np.ndarray, method: Method, usable: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """|a| (m,) = |E[λ_i Y]| of each function, its standard error (m,), and on how many triplets it rests (m,).

    usable: (m, m) bool, pairs that may stand in a triplet. `mean` and `median` are over all triplets, of which one whose M_jk
    is 0 counts as 0, as in the published code. `weighted` averages log |a| with each triplet's precision, so that pairs that
    seldom meet, or hardly agree, count for little. Errors are by the delta method, moments of different pairs taken as
    uncorrelated, and no less than what M_ij / a_j would have if every a_j were known: near 0 the former means nothing.
    """
    m = len(moments)
    size = np.abs(moments)
    relative = np.divide(errors, size, out=np.full_like(size, np.inf), where=size > 0) ** 2
    strength, error, rests = np.zeros(m), np.full(m, np.inf), np.zeros(m, int)
    for i in range(m):
        others = np.flatnonzero(usable[i])
        rows, columns = np.triu_indices(len(others), 1)
        j, h = others[rows], others[columns]
        kept = usable[j, h]
        j, h = j[kept], h[kept]
        rests[i] = len(j)
        if not len(j):
            continue
        product = size[i, j] * size[i, h]
        squares = np.divide(product, size[j, h], out=np.zeros_like(product), where=size[j, h] > 0)
        if method == "weighted":
            weight = np.where(squares > 0, 1 / (relative[i, j] + relative[i, h] + relative[j, h]), 0)
            rests[i] = (weight > 0).sum()
            if not rests[i]:
                continue
            weight /= weight.sum()
            strength[i] = np.exp(0.5 * (weight @ np.log(squares, out=np.zeros_like(squares), where=squares > 0)))
        else:
            roots = np.sqrt(squares)
            strength[i] = roots.mean() if method == "mean" else np.median(roots)
            weight = np.full(len(j), 1 / len(j))
        own = np.bincount(np.concatenate([j, h]), np.concatenate([weight, weight]), m)
        used, pairs = own > 0, weight > 0
        parts = own[used] ** 2 @ relative[i][used] + weight[pairs] ** 2 @ relative[j, h][pairs]
        error[i] = strength[i] * 0.5 * np.sqrt(parts) if np.isfinite(parts) else np.inf
    known = np.divide(1.0, errors**2, out=np.zeros((m, m)), where=usable & (errors > 0)) @ strength**2
    least = np.divide(1.0, np.sqrt(known), out=np.full(m, np.inf), where=known > 0)
    return strength, np.maximum(error, least), rests


def recover_signs(moments: np.ndarray, errors: np.ndarray, doubt: float = 5.0) -> np.ndarray:
    """+1 or -1 per function, (m,): -1 for those worse than chance, if most votes are better.

    sign(M_ij) = s_i·s_j. All begin as better; the one that the others contradict most is turned, until none is contradicted by
    more than `doubt` standard errors.
    """
    certainty = np.clip(moments / np.maximum(errors, 1e-300), -20, 20)
    np.fill_diagonal(certainty, 0)
    spread = np.sqrt(np.maximum((certainty != 0).sum(axis=1), 1))
    signs = np.ones(len(moments))
    for _ in range(len(signs)):
        pull = (certainty @ signs) * signs / spread
        worst = int(pull.argmin())
        if pull[worst] >= -doubt:
            break
        signs[worst] = -signs[worst]
    return signs if np.sqrt(np.abs(certainty).sum(axis=1)) @ signs >= 0 else -signs
