"""Whether probabilities mean what they say, and how to mend them on a small labelled set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from labelers.metrics import check_gold

_TINY = 1e-12


@dataclass(frozen=True)
class ReliabilityCurve:
    """Per bin of confidence: its mean, the share of labels that were right, and documents. error: their mean distance weighed
    by documents (expected calibration error; Guo et al. 2017, arXiv 1706.04599)."""

    confidence: np.ndarray
    accuracy: np.ndarray
    documents: np.ndarray
    error: float


def reliability_curve(probabilities: np.ndarray, gold: np.ndarray, bins: int = 10) -> ReliabilityCurve:
    """Of (n, k) probabilities and gold classes (n,): `bins` bins of equal width from 1/k to 1; empty ones are left out."""
    probabilities, gold = _checked(probabilities, gold)
    k = probabilities.shape[1]
    sure = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == gold
    place = np.clip(((sure - 1 / k) / (1 - 1 / k) * bins).astype(int), 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    kept = count > 0
    confidence = np.bincount(place, sure, bins)[kept] / count[kept]
    accuracy = np.bincount(place, right, bins)[kept] / count[kept]
    error = float(count[kept] @ np.abs(confidence - accuracy) / max(len(gold), 1))
    return ReliabilityCurve(confidence, accuracy, count[kept], error)


@dataclass
class Temperature:
    """Temperature scaling with a bias per class (Guo et al. 2017): p ∝ exp(log p / T + b). Two classes' order may change only
    by the bias, which mends a wrong class balance. bias=False leaves it out: then the likeliest class stays the same."""

    bias: bool = False
    temperature: float = 1.0
    offsets: tuple[float, ...] = ()

    def fit(self, probabilities: np.ndarray, gold: np.ndarray) -> Temperature:
        """Minimise the log loss on (n, k) probabilities and gold classes (n,), with a weak prior towards no change, so that a
        handful of documents does no harm. ValueError on no documents."""
        from scipy.optimize import minimize

        probabilities, gold = _checked(probabilities, gold)
        if not len(gold):
            raise ValueError("calibration needs labelled documents, and there are none")
        logs, k = np.log(np.maximum(probabilities, _TINY)), probabilities.shape[1]

        def loss(told: np.ndarray) -> float:
            scaled = logs * np.exp(-told[0]) + (told[1:] if self.bias else 0.0)
            scaled = scaled - scaled.max(axis=1, keepdims=True)
            likelihood = scaled[np.arange(len(gold)), gold] - np.log(np.exp(scaled).sum(axis=1))
            return float(-likelihood.sum() + 0.5 * (told**2).sum())

        found = minimize(loss, np.zeros(1 + (k if self.bias else 0)), method="BFGS").x
        self.temperature = float(np.exp(np.clip(found[0], -5, 5)))
        self.offsets = tuple(float(b) for b in found[1:]) if self.bias else (0.0,) * k
        return self

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated (n, k) probabilities."""
        scaled = np.log(np.maximum(probabilities, _TINY)) / self.temperature + np.asarray(self.offsets or 0.0)
        scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return scaled / scaled.sum(axis=1, keepdims=True)

    def to_state(self) -> dict[str, Any]:
        return {"bias": self.bias, "temperature": self.temperature, "offsets": list(self.offsets)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Temperature:
        return cls(state["bias"], state["temperature"], tuple(state["offsets"]))


@dataclass
class Isotonic:
    """Isotonic regression of each class's probability on its truth, then normalised (Zadrozny and Elkan 2002). Needs some
    hundred labelled documents; `Temperature` needs some dozen."""

    curves: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = ()

    def fit(self, probabilities: np.ndarray, gold: np.ndarray) -> Isotonic:
        """Fit on (n, k) probabilities and gold classes (n,). ValueError on no documents."""
        from sklearn.isotonic import IsotonicRegression

        probabilities, gold = _checked(probabilities, gold)
        if not len(gold):
            raise ValueError("calibration needs labelled documents, and there are none")
        curves = []
        for c in range(probabilities.shape[1]):
            fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(probabilities[:, c], gold == c)
            curves.append((tuple(fitted.X_thresholds_.tolist()), tuple(fitted.y_thresholds_.tolist())))
        self.curves = tuple(curves)
        return self

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated (n, k) probabilities; as they were where every class gets 0."""
        if not self.curves:
            raise ValueError("Isotonic is not fitted yet: call fit first")
        mapped = np.stack([np.interp(probabilities[:, c], *curve) for c, curve in enumerate(self.curves)], axis=1)
        total = mapped.sum(axis=1, keepdims=True)
        return np.where(total > 0, mapped / np.maximum(total, _TINY), probabilities)

    def to_state(self) -> dict[str, Any]:
        return {"curves": self.curves}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Isotonic:
        return cls(tuple((tuple(x), tuple(y)) for x, y in state["curves"]))


def _checked(probabilities: np.ndarray, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.ndim != 2 or not np.isfinite(probabilities).all() or (probabilities < 0).any():
        raise ValueError("probabilities are (documents, classes), finite, from 0")
    return probabilities, check_gold(gold, *probabilities.shape)
