"""How well a label model explains the votes that it was fitted to: what tells whether it can be trusted, without a label."""

from __future__ import annotations

import numpy as np

from labelers.models import LabelModel
from labelers.patterns import Patterns
from labelers.statistics import VoteStatistics


def misfit(statistics: VoteStatistics, model: LabelModel, dependent: np.ndarray) -> tuple[float, int]:
    """Pearson's chi-squared of the functions' votes, one by one and in pairs, against P(vote | Y), and of how many terms.

    Terms whose expected count is below one, and pairs known to depend, (m, m) bool, are left out. As functions of the same
    documents the terms are not independent, so that the sum has the mean of a chi-squared but more spread.
    """
    m, k, n = len(statistics.functions), len(statistics.classes), statistics.documents
    tables = model.conditional_probs()[:, 1:].reshape(m * k, k)
    joint = (tables * model.class_balance_) @ tables.T
    single = tables @ model.class_balance_
    apart = np.triu(np.kron(~(np.eye(m, dtype=bool) | dependent), np.ones((k, k), bool)), 1)
    fitted = np.concatenate([joint[apart], single])
    seen = np.concatenate([statistics.pairs[apart], statistics.counts.ravel()]) / n
    usable = np.maximum(fitted, seen) * n >= 1
    fitted, seen = fitted[usable], seen[usable]
    return float(n * ((seen - fitted) ** 2 / np.maximum(fitted * (1 - fitted), 1 / n)).sum()), max(int(usable.sum()), 1)


def explained_correlation(statistics: VoteStatistics, model: LabelModel, dependent: np.ndarray) -> float:
    """The share of the squared correlations between votes of different functions that P(vote | Y) explains, beyond what chance
    leaves in n documents. Pairs known to depend, (m, m) bool, are left out. 1 where there is nothing to explain."""
    m, k, n = len(statistics.functions), len(statistics.classes), statistics.documents
    tables = model.conditional_probs()[:, 1:].reshape(m * k, k)
    fitted = (tables * model.class_balance_) @ tables.T
    seen = statistics.pairs / n
    means = np.diag(seen)
    product = np.outer(means, means)
    usable = np.kron(~(np.eye(m, dtype=bool) | dependent), np.ones((k, k), bool)) & (product * n > 1)
    if not usable.any():
        return 1.0
    scale = np.outer(means * (1 - means), means * (1 - means))[usable] + 1e-24
    left = ((seen - fitted)[usable] ** 2 / scale - 1 / n).sum()
    there = ((seen - product)[usable] ** 2 / scale - 1 / n).sum()
    if left <= 3 * np.sqrt(2 * usable.sum()) / n:  # no more than chance: a chi-squared of as many terms
        return 1.0
    return float(1 - left / there) if there > 0 else 0.0


def unanimity(statistics: VoteStatistics, rows: Patterns | None, model: LabelModel) -> float:
    """Of documents on which two functions or more vote, and all for one class: the share to which the model gives it. From
    statistics: of pairs of equal votes. 1 where there are none."""
    if rows is not None:
        m, k, encoded = rows.rows.shape[1], rows.k, rows.encoded
        each = np.zeros((m, k + 1, k))
        each[:, 1:] = np.eye(k)
        tally, told = encoded.tables(each), encoded.tables(model.weights_)
        kept = total = 0.0
        for number, block in enumerate(encoded.blocks):
            votes = encoded.scores(number, tally, np.zeros(k))
            most = votes.argmax(axis=0)
            counts = rows.counts[block] * ((votes.max(axis=0) > 1) & ((votes > 0).sum(axis=0) == 1))
            total += float(counts.sum())
            kept += float(counts @ (encoded.scores(number, told, model.log_prior_).argmax(axis=0) == most))
        return kept / total if total else 1.0
    m, k = len(statistics.functions), len(statistics.classes)
    equal = np.einsum("iaja->aij", statistics.pairs.reshape(m, k, m, k)) * ~np.eye(m, dtype=bool)
    kept = total = 0.0
    for c in range(k):
        scores = model.log_prior_ + model.weights_[:, None, c + 1] + model.weights_[None, :, c + 1]
        kept += float((equal[c] * (scores.argmax(axis=2) == c)).sum())
        total += float(equal[c].sum())
    return kept / total if total else 1.0
