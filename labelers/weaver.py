"""Ensembles of continuous scores and judges (Weaver; Saad-Falcon et al. 2025, arXiv 2506.18203), without thresholds."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from labelers.calibration import Calibrated
from labelers.metrics import measure
from labelers.models import TieBreak, check_balance, check_seed, labels
from labelers.triplets import recover_signs, triplet_strengths
from labelers.votes import check_k

Scaling = Literal["rank", "standard", "none"]

_GRID = 256
_SAME = 1 - 1e-6  # correlation of scores that are one


class Weaver(Calibrated):
    """P(Y = 1 | scores) of (n, m) continuous scores or 0/1 judges of different scales, from unlabelled scores alone.

    For scores that are independent given a binary class, centred covariances are a product, Cov(s_i, s_j) = b_i·b_j with
    b_i = sd(Y)·(E[s_i | 1] - E[s_i | 0]), so that triplets give b with no threshold; the classes' means follow from the
    balance, and Fisher's linear discriminant weighs the scores by the precision that is left within the classes. (Weaver itself
    binarises, or uses uncentred moments, which favour scores with a large mean.)

    scaling: `rank` maps each score to a normal quantile of its rank, which any monotone scale survives; `standard` divides by
    the standard deviation of what lies between the 1st and 99th percentile; `none` leaves it. Missing (NaN) scores count as
    the middle one. Scores that are the same once scaled count once. least: scores that share less than this correlation with
    the class are dropped and named in `notes_`.
    Without a class balance, `fit` counts it on `dev` labels, else estimates it from the third moments of the combined score.
    Assumes that most scores are higher for class 1. k is 2.

    After fit: `weights_` (m,), `correlations_` (m,) with the class, `accuracies_` (m,): how often a score alone, cut halfway
    between its classes' means, tells the class (NaN where it is the same everywhere), `class_balance_` (2,), `kept_` (m,) bool,
    `notes_`.
    """

    name = "weaver"
    weights_: np.ndarray
    correlations_: np.ndarray
    accuracies_: np.ndarray
    class_balance_: np.ndarray
    kept_: np.ndarray
    notes_: list[str]

    def __init__(self, k: int = 2, seed: int = 0, scaling: Scaling = "rank", least: float = 0.1) -> None:
        if check_k(k) != 2:
            raise ValueError(f"k is {k}: weaver knows two classes, the second one where scores are high")
        if scaling not in ("rank", "standard", "none"):
            raise ValueError(f"scaling is {scaling!r}: rank, standard or none")
        if not 0 <= least < 1:
            raise ValueError("least is a correlation from 0, below 1")
        self.scaling: Scaling = scaling
        self.k, self.seed, self.least = 2, check_seed(seed), least

    def fit(
        self,
        scores: np.ndarray,
        class_balance: float | Sequence[float] | np.ndarray | None = None,
        *,
        functions: Sequence[str] | None = None,
        dev: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> Self:
        """Fit on scores (n, m). class_balance: P(Y), (2,), or P(Y = 1) alone. dev: scores and gold classes (0 or 1) of a few
        documents, which decide the balance. ValueError: not (n, m) numbers, infinite ones, no documents, fewer than one
        score."""
        scores = _scores(scores)
        n, m = scores.shape
        if not n or not m:
            raise ValueError(f"weaver cannot be fitted on {n} documents and {m} scores")
        balance = _positive_share(class_balance)
        self.functions = tuple(functions) if functions is not None else tuple(f"s{i}" for i in range(m))
        if len(self.functions) != m:
            raise ValueError(f"{len(self.functions)} names are given for {m} scores")
        self.notes_, self.calibration_ = [], None
        empty = np.asarray(np.isnan(scores).all(axis=0))
        self._learn_scales(scores, empty)
        scaled = self._scaled(scores)
        deviation = scaled.std(axis=0)
        usable = ~empty & (deviation > 1e-9)
        self._drop(~usable, "the same on every document, or missing")
        covariance = np.cov(scaled.T, bias=True).reshape(m, m)
        usable &= ~self._copies(covariance, usable)
        self.kept_ = usable
        strength = self._strengths(covariance, n)
        self.correlations_ = np.divide(strength, deviation, out=np.zeros(m), where=deviation > 1e-9)
        weak = usable & (np.abs(self.correlations_) < self.least)
        if (usable & ~weak).sum() >= 3:
            self._drop(weak, f"correlated with the class by less than {self.least}")
            self.kept_ = usable & ~weak
        self._discriminant(scaled, covariance, strength, balance, dev)
        return self

    def _copies(self, covariance: np.ndarray, usable: np.ndarray) -> np.ndarray:
        """Usable scores that say what an earlier one says, (m,) bool, up to their scale: together they count once."""
        spread = np.sqrt(np.maximum(np.diag(covariance), 1e-18))
        same = np.abs(covariance) > _SAME * np.outer(spread, spread)
        copies = np.zeros(len(covariance), bool)
        for i in np.flatnonzero(usable):
            first = np.flatnonzero(same[i, :i] & usable[:i] & ~copies[:i])
            if len(first):
                copies[i] = True
                self.notes_.append(f"{self.functions[i]} is the same as {self.functions[first[0]]}: they count once")
        return copies

    def _strengths(self, covariance: np.ndarray, n: int) -> np.ndarray:
        """b (m,): signed, of the usable scores."""
        m = len(covariance)
        strength = np.zeros(m)
        chosen = np.flatnonzero(self.kept_)
        if len(chosen) < 3:
            self.notes_.append(f"{len(chosen)} usable scores: fewer than three cannot be weighed, so their scaled mean decides")
            strength[chosen] = 0.5 * np.sqrt(np.diag(covariance)[chosen])
            return strength
        inner = covariance[np.ix_(chosen, chosen)]
        variance = np.diag(inner)
        errors = np.sqrt((np.outer(variance, variance) + inner**2) / n)
        off = ~np.eye(len(chosen), dtype=bool)
        found, _, rests = triplet_strengths(inner, errors, "weighted", off)
        found = np.where(rests > 0, np.minimum(found, 0.99 * np.sqrt(variance)), 0)
        strength[chosen] = found * recover_signs(np.where(off, inner, 0), errors)
        return strength

    def _discriminant(
        self, scaled: np.ndarray, covariance: np.ndarray, strength: np.ndarray, balance: float | None, dev: Any
    ) -> None:
        """Weights by Fisher's discriminant with independent scores within a class, then the balance and the two classes' means
        and variance of the combined score, taken as normal."""
        within = np.maximum(np.diag(covariance) - strength**2, 0.02 * np.diag(covariance) + 1e-12)
        self.weights_ = np.where(self.kept_, strength / within, 0.0)
        length = np.abs(self.weights_).sum()
        if length:
            self.weights_ /= length
        combined = (scaled - self._middle) @ self.weights_
        gap = float(self.weights_ @ strength)  # sd(Y)·(mean at 1 - mean at 0) of the combined score
        variance = float(combined.var())
        if dev is not None:
            if not isinstance(dev, tuple) or len(dev) != 2:
                raise ValueError("dev is scores (d, m) and gold classes (d,), 0 or 1")
            dev_scores, gold = self._checked(dev[0]), np.asarray(dev[1])
            if gold.shape != (len(dev_scores),) or not np.isin(gold, (0, 1)).all():
                raise ValueError("dev is scores (d, m) and gold classes (d,), 0 or 1")
            if balance is None:
                balance = float((gold.sum() + 1) / (len(gold) + 2))
        if balance is None:
            balance = _skewed_balance(combined, gap)
        self.class_balance_ = np.array([1 - balance, balance])
        self.accuracies_ = self._alone(strength, within)
        spread = np.sqrt(balance * (1 - balance))
        distance = gap / spread
        self._means = (-balance * distance, (1 - balance) * distance)
        self._within = max(variance - gap**2, 0.05 * variance + 1e-12)

    def _alone(self, strength: np.ndarray, within: np.ndarray) -> np.ndarray:
        """Normal scores of one variance: Φ(half the distance of the classes' means)."""
        from scipy.special import ndtr

        spread = np.sqrt(np.prod(self.class_balance_))
        constant = within <= 1e-11
        return np.where(constant, np.nan, ndtr(strength / (2 * spread * np.sqrt(np.where(constant, 1, within)))))

    def predict_proba(self, scores: np.ndarray) -> np.ndarray:
        """P(Y | scores), (n, 2), of scores (n, m)."""
        scores = self._checked(scores)
        combined = (self._scaled(scores) - self._middle) @ self.weights_
        low, high = self._means
        odds = ((combined - low) ** 2 - (combined - high) ** 2) / (2 * self._within)
        odds += np.log(self.class_balance_[1] / self.class_balance_[0])
        positive = 1 / (1 + np.exp(-np.clip(odds, -500, 500)))
        return self._calibrated(np.stack([1 - positive, positive], axis=1))

    def predict(self, scores: np.ndarray, tie_break: TieBreak = "abstain", ids: Sequence[str] | None = None) -> np.ndarray:
        """The likelier class, (n,) int64; -1 where both are as likely, or as `LabelModel.predict` breaks ties."""
        return labels(self.predict_proba(scores), tie_break, ids, self.seed)

    def score(
        self,
        scores: np.ndarray,
        gold: np.ndarray,
        metrics: Sequence[str] = ("accuracy",),
        tie_break: TieBreak = "random",
    ) -> dict[str, float]:
        """As `LabelModel.score`."""
        probabilities = self.predict_proba(scores)
        return measure(probabilities, labels(probabilities, tie_break, None, self.seed), gold, metrics)

    def conditional_probs(self) -> np.ndarray:
        """ValueError: continuous scores have densities, and no table."""
        raise ValueError(
            "weaver has no conditional probabilities: its scores are continuous; see accuracies_ and correlations_"
        )

    def select(self, scores: np.ndarray, queries: Sequence[Any] | np.ndarray) -> dict[Any, int]:
        """For each query, the row of its best candidate: repeated sampling with verifiers. queries: (n,), whose rows belong
        together; ties go to the first."""
        best = self.predict_proba(scores)[:, 1]
        queries = np.asarray(queries)
        if queries.shape != (len(best),):
            raise ValueError(f"queries have shape {queries.shape}, expected ({len(best)},)")
        chosen: dict[Any, int] = {}
        for row, query in enumerate(queries.tolist()):
            if query not in chosen or best[row] > best[chosen[query]]:
                chosen[query] = row
        return chosen

    def _learn_scales(self, scores: np.ndarray, empty: np.ndarray) -> None:
        """Quantiles (m, 256) of each score, from which ranks and robust scales come."""
        levels = np.linspace(0, 1, _GRID)
        self._grid = np.zeros((scores.shape[1], _GRID))
        for i in np.flatnonzero(~empty):
            self._grid[i] = np.nanquantile(scores[:, i], levels)
        scaled = self._scaled(scores)
        self._middle = scaled.mean(axis=0)

    def _scaled(self, scores: np.ndarray) -> np.ndarray:
        out = np.empty(scores.shape)
        for i, column in enumerate(scores.T):
            grid = self._grid[i]
            column = np.where(np.isnan(column), np.median(grid), column)
            if self.scaling == "none":
                out[:, i] = column
            elif self.scaling == "standard":
                low, high = grid[2], grid[-3]
                clipped = np.clip(column, low, high)
                inner = np.clip(grid, low, high)
                out[:, i] = (clipped - inner.mean()) / (inner.std() or 1.0)
            else:
                from scipy.special import ndtri

                # the middle of equal scores' ranks: 0/1 judges stay two values
                rank = (np.searchsorted(grid, column, "left") + np.searchsorted(grid, column, "right")) / (2 * _GRID)
                out[:, i] = ndtri(np.clip(rank, 0.5 / _GRID, 1 - 0.5 / _GRID))
        return out

    def _drop(self, which: np.ndarray, why: str) -> None:
        names = [f for f, w in zip(self.functions, which, strict=True) if w]
        if names:
            self.notes_.append(f"left out, being {why}: {', '.join(names)}")

    def _checked(self, scores: np.ndarray) -> np.ndarray:
        if not hasattr(self, "weights_"):
            raise ValueError("weaver is not fitted yet: call fit first")
        scores = _scores(scores)
        if scores.shape[1] != len(self.functions):
            raise ValueError(f"scores have shape {scores.shape}, expected (documents, {len(self.functions)})")
        return scores

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted model as JSON."""
        self._checked(np.empty((0, len(self.functions))))
        state = {
            "model": self.name, "k": self.k, "scaling": self.scaling, "least": self.least, "seed": self.seed,
            "functions": self.functions, "notes": self.notes_, "means": self._means, "within": self._within,
            "calibration": self.calibration_,
        }  # fmt: skip
        arrays = {n: getattr(self, n).tolist() for n in _ARRAYS}
        Path(path).write_text(json.dumps(state | arrays, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Weaver:
        """The model that `save` wrote. ValueError if the file holds none."""
        try:
            state = json.loads(Path(path).read_text())
            if state.pop("model") != cls.name:
                raise ValueError("another model")
            model = cls(state["k"], state["seed"], state["scaling"], state["least"])
            for name in _ARRAYS:
                setattr(model, name, np.array(state[name]))
            model.functions, model.notes_ = tuple(state["functions"]), state["notes"]
            model._means, model._within = tuple(state["means"]), state["within"]
            model.calibration_ = state["calibration"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path} holds no weaver model: {error}") from error
        return model


_ARRAYS = ("weights_", "correlations_", "accuracies_", "class_balance_", "kept_", "_grid", "_middle")


def _scores(scores: Any) -> np.ndarray:
    try:
        scores = np.asarray(scores)
    except ValueError as error:
        raise ValueError("scores have rows of different lengths, expected numbers (documents, scores)") from error
    if scores.ndim != 2 or not (np.issubdtype(scores.dtype, np.number) or scores.dtype == bool):
        raise ValueError(f"scores are {scores.dtype} of shape {scores.shape}, expected numbers (documents, scores)")
    scores = scores.astype(np.float64)
    infinite = np.isinf(scores)
    if infinite.any():
        row, column = (int(i) for i in np.argwhere(infinite)[0])
        raise ValueError(f"score in column {column} is infinite on row {row}: give NaN where there is none")
    return scores


def _positive_share(class_balance: Any) -> float | None:
    """P(Y = 1) of a class balance (2,), or of that number alone."""
    if class_balance is None or np.ndim(class_balance):
        shares = check_balance(class_balance, 2)
        return None if shares is None else float(shares[1])
    if isinstance(class_balance, str | bool) or not 0 < class_balance < 1:
        raise ValueError(f"class_balance is {class_balance!r}: the share of class 1, between 0 and 1, or of both classes")
    return float(class_balance)


def _skewed_balance(combined: np.ndarray, gap: float) -> float:
    """P(Y = 1) from the third central moment of the combined score: noise that is symmetric within a class adds none, and a
    two-point mixture has gap³·(1 - 2π)/sqrt(π(1 - π)). Kept between .05 and .95."""
    if gap <= 1e-9:
        return 0.5
    third = float(((combined - combined.mean()) ** 3).mean()) / gap**3
    half = third / np.sqrt(third**2 + 4)  # solves (1 - 2π) / sqrt(π(1 - π)) = third
    return float(np.clip(0.5 * (1 - half), 0.05, 0.95))
