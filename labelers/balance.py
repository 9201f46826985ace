"""How often each class occurs, estimated from votes without labels."""

from __future__ import annotations

import numpy as np

from labelers.statistics import VoteStatistics


def balance_from_accuracies(statistics: VoteStatistics, accuracies: np.ndarray) -> np.ndarray:
    """P(Y), (k,), from P(vote = Y | it votes) (m,) of functions that err evenly and abstain whatever the class.

    P(λ = c | votes) = α·π_c + (1 - α)/(k - 1)·(1 - π_c) for each function: a least-squares fit over the functions, each
    weighed by its votes and by how far it is above chance, brought back to shares above 0.
    """
    k = len(statistics.classes)
    counts = statistics.counts.astype(np.float64)
    cast = counts.sum(axis=1)
    usable = (cast > 0) & np.isfinite(accuracies)
    if not usable.any():
        return np.full(k, 1 / k)
    off = (1 - accuracies[usable]) / (k - 1)
    slope = accuracies[usable] - off
    excess = counts[usable] / cast[usable, None] - off[:, None]
    weight = cast[usable] * slope
    spread = float(weight @ slope)
    if spread <= 1e-12:
        return np.full(k, 1 / k)
    return positive_shares(weight @ excess / spread)


def positive_shares(shares: np.ndarray, least: float = 0.01) -> np.ndarray:
    """Shares that sum to one, none below `least` of an even share."""
    floor = least / len(shares)
    shares = np.maximum(shares, floor)
    return shares / shares.sum()


def estimate_balance(statistics: VoteStatistics) -> np.ndarray:
    """P(Y), (k,), from the statistics of votes: FlyingSquid's accuracies, then `balance_from_accuracies`.

    Right where functions err evenly between classes; where they do not, `DawidSkene(k).fit(votes).class_balance_` is better.
    ValueError on no documents.
    """
    from labelers.flyingsquid import FlyingSquid

    return FlyingSquid(len(statistics.classes), balance="estimate").fit(statistics).class_balance_
