"""Which labelling functions copy one another, or err together: found from the statistics alone, with what to do about it.

Given the class, independent functions co-vary as a product: corr(λ_i, λ_j) = a_i · a_j. A robust rank-one fit of the
correlations gives a; a pair that goes together more than that says the same thing twice. The idea is that of Varma et al.
(arXiv 1903.05844) - what is not low rank is a dependency - with an L1 fit in the place of robust PCA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from labelers.statistics import VoteStatistics

_COPY = 0.8
_SAME = 0.999
_FLOOR = 0.05


@dataclass(frozen=True)
class Dependency:
    """Two functions that go together more than their accuracies explain.

    strength: the share of what is left to explain, from 0 (independent given the class) to 1 (the same votes).
    """

    first: str
    second: str
    strength: float
    kind: Literal["copy", "dependent"]

    @property
    def remedy(self) -> str:
        """What to do, and what a model that is told does by itself."""
        if self.kind == "copy":
            return f"drop {self.second}, or let {self.first} and {self.second} share one vote"
        return f"let {self.first} and {self.second} share {2 / (1 + self.strength):.1f} votes, or make one function of them"

    def __str__(self) -> str:
        what = "nearly copies" if self.kind == "copy" else "goes together with"
        return f"{self.second} {what} {self.first} (strength {self.strength:.2f}): {self.remedy}"


def dependence(statistics: VoteStatistics, least: float = 0.5, significance: float = 4.0) -> np.ndarray:
    """Strength of each pair's dependence given the class, (m, m) symmetric, 0 where there is none or it cannot be told.

    least: weakest strength that counts. significance: how many standard errors above independence it must lie. Four
    functions or more are needed to tell a dependency from accuracy; below that, only identical votes are told.
    """
    m, n = len(statistics.functions), statistics.documents
    together = association(statistics)
    off = ~np.eye(m, dtype=bool)
    if m < 4 or not n:
        return np.where(off & (together > _SAME), 1.0, 0.0)
    correlation = correlations(statistics)
    error = 1 / np.sqrt(n)
    same = off & (together > _SAME)
    flagged = off & (together > _COPY)  # before anything is fitted: copies must not be taken for accuracy
    if (off & ~flagged).sum(axis=1).min() < 3:  # nor accuracy for copies, where nearly all go together
        flagged = same
    strength = np.zeros((m, m))
    for _ in range(5):
        quality = _rank_one(correlation, off & ~flagged, 3 * error)
        explained = np.outer(quality, quality)
        strength = (correlation - explained) / np.maximum(1 - explained, _FLOOR)
        strength = np.where(same, 1.0, strength)
        found = same | (off & (strength > least) & (correlation - explained > significance * error))
        if (found == flagged).all():
            break
        flagged = found
    return np.where(flagged, np.clip(strength, 0, 1), 0.0)


def find_dependencies(statistics: VoteStatistics, least: float = 0.5, strength: np.ndarray | None = None) -> list[Dependency]:
    """Pairs of functions that copy one another or err together, strongest first. strength: of `dependence`, if it is known."""
    strength = dependence(statistics, least) if strength is None else strength
    pairs = [(float(strength[i, j]), int(i), int(j)) for i, j in np.argwhere(np.triu(strength, 1))]
    names = statistics.functions
    return [
        Dependency(names[i], names[j], s, "copy" if s > _COPY else "dependent")
        for s, i, j in sorted(pairs, key=lambda p: (-p[0], p[1:]))
    ]


def vote_shares(strength: np.ndarray) -> np.ndarray:
    """How much of a vote each function has, (m,) in (0, 1], given `dependence`: k copies of one have 1/k each."""
    return 1 / (1 + strength.sum(axis=1))


def effective_functions(statistics: VoteStatistics) -> float:
    """How many independent functions the voting ones amount to: copies count once."""
    votes = statistics.counts.sum(axis=1) > 0
    return float(vote_shares(dependence(statistics))[votes].sum())


def correlations(statistics: VoteStatistics) -> np.ndarray:
    """Correlations (m, m) of the functions' votes, summed over classes: a function counts 1 for the class that it votes for,
    -1/(k - 1) for the others, 0 where it abstains. For k = 2 this is the correlation of votes -1, 0, +1."""
    m, k, n = len(statistics.functions), len(statistics.classes), statistics.documents
    pairs = statistics.pairs.reshape(m, k, m, k) / n
    means = statistics.counts / n
    code = np.where(np.eye(k, dtype=bool), 1.0, -1 / (k - 1))
    moments = np.einsum("iajb,ab->ij", pairs, code.T @ code, optimize=True)
    mean = means @ code.T
    covariance = moments - mean @ mean.T
    spread = np.sqrt(np.maximum(np.diag(covariance), 0))
    scale = np.outer(spread, spread)
    return np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 1e-12)


def association(statistics: VoteStatistics) -> np.ndarray:
    """Cramér's V (m, m) of each pair's votes, abstaining included: 1 where one function's vote tells the other's."""
    m, k = len(statistics.functions), len(statistics.classes)
    joint = full_pairs(statistics)
    single = np.einsum("iaia->ia", joint)
    values = (single > 0).sum(axis=1)
    chi = np.zeros((m, m))
    for i in range(m):  # one function at a time: (k + 1, m, k + 1) and not its square
        expected = single[i][:, None, None] * single[None]
        gap = (joint[i] - expected) ** 2
        chi[i] = np.divide(gap, expected, out=np.zeros_like(gap), where=expected > 0).sum(axis=(0, 2))
    freedom = np.maximum(np.minimum(values[:, None], values[None, :]) - 1, 1)
    return np.sqrt(np.clip(chi / freedom, 0, 1)) if m and k else chi


def full_pairs(statistics: VoteStatistics) -> np.ndarray:
    """P(λ_i = a, λ_j = b), (m, k + 1, m, k + 1), index 0 abstains."""
    m, k, n = len(statistics.functions), len(statistics.classes), max(statistics.documents, 1)
    votes = statistics.pairs.reshape(m, k, m, k) / n
    counts = statistics.counts / n
    joint = np.empty((m, k + 1, m, k + 1))
    joint[:, 1:, :, 1:] = votes
    joint[:, 1:, :, 0] = counts[:, :, None] - votes.sum(axis=3)
    joint[:, 0, :, 1:] = counts[None] - votes.sum(axis=1)
    silent = 1 - counts.sum(axis=1)
    joint[:, 0, :, 0] = silent[:, None] - joint[:, 0, :, 1:].sum(axis=2)
    return np.where(joint > 1e-15, joint, 0)  # what rounding leaves of an impossible pair


def _rank_one(target: np.ndarray, usable: np.ndarray, floor: float) -> np.ndarray:
    """a (m,) that minimises Σ |target_ij - a_i·a_j| over usable pairs, by iteratively reweighted least squares."""
    a = np.full(len(target), 0.3)
    for _ in range(300):
        weight = usable / np.maximum(np.abs(target - np.outer(a, a)), floor)
        step = (weight * target) @ a / np.maximum(weight @ (a * a), 1e-12)
        new = 0.5 * (a + step)  # alternating steps on a product overshoot
        if np.abs(new - a).max(initial=0) < 1e-6:
            return new
        a = new
    return a
