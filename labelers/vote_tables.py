"""Tables P(vote, Y) of a function from what is known of it: its votes, the class balance, and how often it is right."""

from __future__ import annotations

import numpy as np

from labelers.statistics import VoteStatistics

_TINY = 1e-12


def two_sided_tables(shares: np.ndarray, right: np.ndarray, balance: np.ndarray, mend: bool = True) -> np.ndarray:
    """P(vote | Y), (m, k + 1, k), of functions that abstain whatever the class.

    shares: (m, k) P(λ = c). right: (m,) P(λ = Y), jointly with voting. balance: (k,).
    For k = 2 the margins and the diagonal leave one solution, FlyingSquid's closed form; for more classes it is the table of
    maximal entropy: one odds ratio for the diagonal, the margins fitted. Where no table has these margins and this diagonal,
    the closed form has negative entries: the function then gets the table of one that errs evenly. mend=False replaces
    negative entries by their absolute values instead, as the published code does.
    """
    k = len(balance)
    cast = shares.sum(axis=1)
    columns = cast[:, None] * balance
    if k == 2:
        both = 0.5 * (right + shares[:, 1] - columns[:, 0])  # p(+, +)
        joint = np.empty((len(shares), 2, 2))
        joint[:, 1, 1], joint[:, 1, 0] = both, shares[:, 1] - both
        joint[:, 0, 1] = columns[:, 1] - both
        joint[:, 0, 0] = columns[:, 0] - joint[:, 1, 0]
        impossible = joint.min(axis=(1, 2)) < 0
    else:
        joint = _maximal_entropy(shares, columns, right)
        impossible = np.abs(np.einsum("icc->i", joint) - right) > 1e-3 * cast
    tables = np.empty((len(shares), k + 1, k))
    if mend:
        accuracy = np.clip(np.divide(right, cast, out=np.full_like(cast, 1 / k), where=cast > 0), 0.01, 0.99)[:, None, None]
        even = np.where(np.eye(k, dtype=bool), accuracy, (1 - accuracy) / (k - 1)) * columns[:, None, :]
        joint = np.where(impossible[:, None, None], even, joint)
        tables[:, 0] = (1 - cast)[:, None]
        tables[:, 1:] = joint / balance
        return as_tables(tables)
    tables[:, 0] = (1 - cast)[:, None] * balance
    tables[:, 1:] = joint
    tables = np.maximum(np.abs(tables), _TINY)
    return tables / tables.sum(axis=(1, 2), keepdims=True) / balance  # columns need not sum to one: the joint does


def coin_tables(accuracy: np.ndarray, coverage: np.ndarray, k: int) -> np.ndarray:
    """Tables (m, k + 1, k) of functions that vote on a share of documents, whatever the class, and err evenly."""
    tables = np.empty((len(accuracy), k + 1, k))
    tables[:, 0] = (1 - coverage)[:, None]
    right = np.eye(k)[None] * accuracy[:, None, None] + (1 - np.eye(k)) * ((1 - accuracy) / (k - 1))[:, None, None]
    tables[:, 1:] = right * coverage[:, None, None]
    return tables


def one_sided_table(share: float, gap: float, c: int, balance: np.ndarray) -> np.ndarray:
    """P(vote | Y), (k + 1, k), of a function that votes only for class c. share: P(λ = c). gap: P(λ = c | Y = c) less
    P(λ = c | Y ≠ c)."""
    k = len(balance)
    gap = float(np.clip(gap, -share / (1 - balance[c]), share / balance[c]))  # P(λ = c | Y) is from 0
    table = np.zeros((k + 1, k))
    table[c + 1] = share - balance[c] * gap
    table[c + 1, c] = share + (1 - balance[c]) * gap
    table[c + 1] = np.clip(table[c + 1], 0, 1)
    table[0] = 1 - table[c + 1]
    return table


def as_tables(tables: np.ndarray) -> np.ndarray:
    """Columns that sum to one, nothing impossible."""
    tables = np.maximum(tables, _TINY)
    return tables / tables.sum(axis=-2, keepdims=True)


def _maximal_entropy(rows: np.ndarray, columns: np.ndarray, trace: np.ndarray) -> np.ndarray:
    """(m, k, k) with these margins, (m, k), and the trace (m,), as near as the margins allow."""
    m, k = rows.shape
    low, high = np.full(m, -12.0), np.full(m, 12.0)
    joint = np.empty((m, k, k))
    eye = np.eye(k, dtype=bool)
    for _ in range(30):
        middle = (low + high) / 2
        joint = np.where(eye, np.exp(middle)[:, None, None], 1.0) * rows[:, :, None] * columns[:, None, :] + 1e-15
        for _ in range(30):  # iterative proportional fitting
            joint *= (rows / np.maximum(joint.sum(axis=2), 1e-300))[:, :, None]
            joint *= (columns / np.maximum(joint.sum(axis=1), 1e-300))[:, None, :]
        more = np.einsum("icc->i", joint) < trace
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    return joint


def class_covariances(statistics: VoteStatistics, c: int) -> tuple[np.ndarray, np.ndarray]:
    """Covariances (m, m) of the functions' votes for class c, and their standard errors. A function counts 1 where it votes
    for c and -1/(k - 1) where for another class. Whatever the balance and however unevenly functions err, those that are
    independent given Y = c or not co-vary as a product."""
    m, k, n = len(statistics.functions), len(statistics.classes), statistics.documents
    code = np.full(k, -1 / (k - 1))
    code[c] = 1
    pairs = statistics.pairs.reshape(m, k, m, k) / n
    means = statistics.counts / n
    mean = means @ code
    second = means @ code**2
    covariance = np.einsum("iajb,a,b->ij", pairs, code, code, optimize=True) - np.outer(mean, mean)
    spread = np.maximum(second - mean**2, 1 / n)
    return covariance, np.sqrt(np.outer(spread, spread) / n)
