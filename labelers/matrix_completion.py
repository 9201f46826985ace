"""Snorkel's label model for comparison: MeTaL's matrix completion (Ratner et al. 2019, arXiv 1810.02840) with independent
functions, any number of classes, from statistics alone."""

from __future__ import annotations

import numpy as np

from labelers.dawid_skene import precision
from labelers.models import LabelModel
from labelers.patterns import Patterns
from labelers.statistics import VoteStatistics


class MatrixCompletion(LabelModel):
    """μ (m·k, k) = P(λ_i = c | Y = y) such that μ·diag(π)·μᵀ is the pairwise one-hot Gram matrix off its diagonal blocks.

    Minimises ||(O - μPμᵀ) off the blocks||² + ||μP1 - diag O||² + l2·||μ - μ₀||² by L-BFGS (Snorkel: 100 steps of SGD), from μ₀
    = P(λ = c)·precision/π_c at Y = c. As in Snorkel, the balance that is not given is uniform, and abstaining says nothing
    when labels are predicted. Where Snorkel clips μ at 1/10^⌈log10 n⌉ or .01, which flattens functions that seldom vote, the
    floor here is a tenth of a document.
    """

    name = "matrix-completion"
    parameters = ("k", "seed", "precision", "l2", "iterations")
    tables_: np.ndarray

    def __init__(self, k: int = 2, seed: int = 0, precision: float = 0.7, l2: float = 0.0, iterations: int = 500) -> None:
        super().__init__(k, seed)
        if not 0 < precision < 1 or l2 < 0 or iterations < 1:
            raise ValueError("precision is between 0 and 1, l2 from 0, iterations from 1")
        self.precision, self.l2, self.iterations = precision, l2, iterations

    def _fit(self, statistics: VoteStatistics, rows: Patterns | None, balance: np.ndarray | None) -> None:
        from scipy.optimize import minimize

        m, k, n = len(statistics.functions), self.k, statistics.documents
        if m < 3:
            self.notes_.append(f"{m} functions do not determine their accuracies (three do): the prior decides")
        balance = np.full(k, 1 / k) if balance is None else balance
        seen = statistics.pairs / n
        shares = np.diag(seen).copy()
        mask = ~np.kron(np.eye(m, dtype=bool), np.ones((k, k), bool))
        rest = (1 - self.precision) * balance / (1 - balance)[:, None]
        belief = np.where(np.eye(k, dtype=bool), self.precision, rest)  # P(Y | λ = c) at first
        first = shares[:, None] * np.tile(belief, (m, 1)) / balance
        floor = 0.1 / n
        scale = 1 / max(float((seen[mask] ** 2).sum()), 1e-300)  # a loss near 1, so that tolerances mean something

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            mu = flat.reshape(m * k, k)
            weighed = mu * balance
            left = np.where(mask, seen - weighed @ mu.T, 0)
            margin = weighed.sum(axis=1) - shares
            pull = mu - first
            value = (left**2).sum() + (margin**2).sum() + self.l2 * (pull**2).sum()
            slope = -4 * left @ weighed + 2 * margin[:, None] * balance + 2 * self.l2 * pull
            return value * scale, slope.ravel() * scale

        bounds = [(floor, 1.0)] * (m * k * k)
        found = minimize(
            loss, np.clip(first, floor, 1).ravel(), jac=True, bounds=bounds, method="L-BFGS-B",
            options={"maxiter": self.iterations, "maxfun": 2 * self.iterations},
        )  # fmt: skip
        mu = self._aligned(found.x.reshape(m * k, k), shares, balance).reshape(m, k, k)
        silent = np.maximum(1 - mu.sum(axis=1, keepdims=True), floor)
        tables = np.concatenate([silent, mu], axis=1)
        self.tables_ = tables / tables.sum(axis=1, keepdims=True)
        self.class_balance_, self.log_prior_ = balance, np.log(balance)
        self.accuracies_ = precision(self.tables_, balance)
        self.weights_ = np.log(self.tables_)
        self.weights_[:, 0] = 0
        never = statistics.counts == 0
        self.weights_[:, 1:][never] = 0  # a vote that never occurred says nothing

    def _aligned(self, mu: np.ndarray, shares: np.ndarray, balance: np.ndarray) -> np.ndarray:
        """Classes in the order in which votes for a class mean it most often: the loss does not know their names."""
        from scipy.optimize import linear_sum_assignment

        if not np.allclose(balance, balance[0]):
            return mu
        votes = np.einsum("icy->cy", mu.reshape(-1, self.k, self.k))
        _, order = linear_sum_assignment(-votes)
        return mu[:, order]

    def _conditional_probs(self) -> np.ndarray:
        return self.tables_


Snorkel = MatrixCompletion
"""The same under the name of the library that made it known."""
