"""A chain over the classes of adjacent spans or frames: transition from lagged votes, posterior by forward-backward.

FlyingSquid's sequence model enumerates all k^v label vectors of v frames; on a chain the same marginals cost O(n·k²).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labelers.balance import positive_shares
from labelers.votes import Votes, dense_blocks


def check_lengths(lengths: Sequence[int] | np.ndarray, n: int) -> np.ndarray:
    """Lengths of sequences as int64. ValueError unless they are from 1 and sum to n rows."""
    told = np.asarray(lengths)
    if told.ndim != 1 or not np.issubdtype(told.dtype, np.integer) or (told < 1).any() or told.sum() != n:
        raise ValueError(f"lengths are whole numbers from 1 that sum to the number of rows, {n}")
    return told.astype(np.int64)


def lagged_pairs(votes: Votes, k: int, lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Documents where function i votes a and, in the next row of the same sequence, function j votes b: (m·k, m·k) float64,
    exact integers. Adds up over whole sequences."""
    ends = np.cumsum(check_lengths(lengths, votes.shape[0]))
    m = votes.shape[1]
    last = np.zeros(votes.shape[0], bool)
    last[ends - 1] = True
    total = np.zeros((m * k, m * k))
    carried = np.empty((0, m), np.int8)
    for first, block in dense_blocks(votes):
        joined = np.concatenate([carried, block])
        begin = first - len(carried)
        here = ~last[begin : begin + len(joined) - 1]
        hot = (joined[:, :, None] == np.arange(k, dtype=np.int8)).reshape(len(joined), m * k).astype(np.float32)
        total += hot[:-1][here].T @ hot[1:][here]
        carried = block[-1:]
    return total


@dataclass(frozen=True)
class Chain:
    """start: P(Y) at any position, (k,). transition: P(next = b | Y = a), (k, k)."""

    start: np.ndarray
    transition: np.ndarray

    @classmethod
    def fit(cls, lagged: np.ndarray, tables: np.ndarray, balance: np.ndarray) -> Chain:
        """From `lagged_pairs` and tables P(vote | Y) (m, k + 1, k).

        Votes of adjacent rows are independent given both classes, so their joint is X·J·Xᵀ with X = P(vote | Y), of every pair
        of functions, a function with itself included; least squares gives J = P(Y, next). The chain is taken to be reversible.
        """
        m, _, k = tables.shape
        steps = lagged.reshape(m, k, m, k)
        told = tables[:, 1:].reshape(m * k, k)
        joint = (steps.reshape(m * k, m * k)).astype(np.float64)
        # How many adjacent rows there are is not told by votes that abstain: the scale cancels when J is normalised.
        scale = 1 / np.sqrt(np.maximum(told @ balance, 1e-12))
        inverse = np.linalg.pinv(told * scale[:, None], rcond=1e-6)
        found = inverse @ (joint * np.outer(scale, scale)) @ inverse.T
        found = np.maximum((found + found.T) / 2, 0)
        found = found / max(found.sum(), 1e-300) + 1e-6
        for _ in range(200):  # margins are the class balance
            ratio = balance / found.sum(axis=1)
            found = found * np.sqrt(np.outer(ratio, ratio))
        return cls(positive_shares(balance), found / found.sum(axis=1, keepdims=True))

    def marginals(self, scores: np.ndarray, lengths: Sequence[int] | np.ndarray) -> np.ndarray:
        """P(Y_t | all votes of the sequence), (n, k), of scores log P(votes | Y) (n, k). All sequences move on together."""
        lengths = check_lengths(lengths, len(scores))
        order = np.argsort(-lengths, kind="stable")
        begins = (np.cumsum(lengths) - lengths)[order]
        sizes = lengths[order]
        likelihood = np.exp(scores - scores.max(axis=1, keepdims=True))
        forward = np.empty_like(likelihood)
        longest = int(sizes[0]) if len(sizes) else 0
        running = np.searchsorted(-sizes, -np.arange(longest), side="left")  # sequences longer than t
        state = np.empty((len(sizes), len(self.start)))
        for t in range(longest):
            alive = running[t]
            prior = self.start if t == 0 else state[:alive] @ self.transition
            state = prior * likelihood[begins[:alive] + t]
            state /= state.sum(axis=1, keepdims=True)
            forward[begins[:alive] + t] = state
        backward = np.ones((len(sizes), len(self.start)))
        out = np.empty_like(likelihood)
        for t in range(longest - 1, -1, -1):
            alive = running[t]
            if t + 1 < longest:
                on = running[t + 1]
                moved = (likelihood[begins[:on] + t + 1] * backward[:on]) @ self.transition.T
                backward[:on] = moved / moved.sum(axis=1, keepdims=True)
            belief = forward[begins[:alive] + t] * backward[:alive]
            out[begins[:alive] + t] = belief / belief.sum(axis=1, keepdims=True)
        return out
