"""Whether probabilities mean what they say, and how to mend them on a small labelled set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from labelers.metrics import check_gold, measure

_TINY = 1e-12
_FOLDS = 5
_ENOUGH = 100  # documents that isotonic regression needs

CalibrationKind = Literal["temperature", "isotonic"]


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


_KINDS: dict[str, type[Temperature] | type[Isotonic]] = {"temperature": Temperature, "isotonic": Isotonic}


class Calibrated:
    """What gives class probabilities, and may have them calibrated: `calibration_` is the state of that, or None."""

    calibration_: dict[str, Any] | None = None

    def calibrate(self, probabilities: np.ndarray, gold: np.ndarray, kind: CalibrationKind = "temperature") -> Self:
        """Calibrate all probabilities to come on those that the model gives documents of known class, (n, k) and (n,).

        Labels may change with `isotonic`. ValueError on no documents, an unknown kind, or a model that is calibrated already.
        """
        if self.calibration_ is not None:
            raise ValueError("the model is calibrated already: fit it again first")
        if kind not in _KINDS:
            raise ValueError(f"there is no calibration {kind!r}; there are: {', '.join(_KINDS)}")
        self.calibration_ = {"kind": kind, **_KINDS[kind]().fit(probabilities, gold).to_state()}
        return self

    def _calibrated(self, probabilities: np.ndarray) -> np.ndarray:
        if self.calibration_ is None:
            return probabilities
        state = {name: value for name, value in self.calibration_.items() if name != "kind"}
        return _KINDS[self.calibration_["kind"]].from_state(state).apply(probabilities)


def cross_calibrated(probabilities: np.ndarray, gold: np.ndarray, kind: CalibrationKind, seed: int = 0) -> np.ndarray:
    """(n, k) probabilities, each calibrated on the other documents, by fifths: what calibration does to documents that it has
    not seen. As they were where there is a single document."""
    n = len(gold)
    folds = min(_FOLDS, n)
    place = np.random.default_rng(seed).permutation(n) % max(folds, 1)
    out = np.array(probabilities, np.float64)
    for fold in range(folds if n > 1 else 0):
        here = place == fold
        out[here] = _KINDS[kind]().fit(probabilities[~here], gold[~here]).apply(probabilities[here])
    return out


def judged(
    model: Calibrated, probabilities: np.ndarray, gold: np.ndarray, kind: CalibrationKind | None
) -> tuple[np.ndarray, dict[str, Any], list[str]]:
    """Calibrate a model, if a kind is given, on the probabilities (n, k) that it gives documents of known class (n,).

    Returns the probabilities to judge it by (of calibration, those of documents that it did not see), what the reliability
    is, for a receipt, and warnings.
    """
    before = reliability_curve(probabilities, gold)
    told: dict[str, Any] = {"calibration": (model.calibration_ or {}).get("kind")}
    warnings = []
    if kind is not None:
        warnings += [f"{len(gold)} documents with votes are few for isotonic regression: temperature needs fewer"] * (
            kind == "isotonic" and len(gold) < _ENOUGH
        )
        found = cross_calibrated(probabilities, gold, kind)
        model.calibrate(probabilities, gold, kind)
        told = {"calibration": kind, "error_before": before.error, "log_loss_before": _log_loss(probabilities, gold)}
        probabilities = found
    curve = reliability_curve(probabilities, gold)
    told |= {"error": curve.error, "log_loss": _log_loss(probabilities, gold)}
    told |= {name: getattr(curve, name).tolist() for name in ("confidence", "accuracy", "documents")}
    return probabilities, told, warnings


def tell_reliability(told: Mapping[str, Any]) -> str:
    """How sure the label model is, and how often it is right then; and what calibration did."""
    bins = zip(told["confidence"], told["accuracy"], told["documents"], strict=True)
    line = "reliability, sure / right: " + ", ".join(f"{s:.0%} / {r:.0%} ({n:,})" for s, r, n in bins)
    if "error_before" not in told:
        return f"{line}; calibration error {told['error']:.3f}"
    return (
        f"{line}; by {told['calibration']}, on documents not calibrated on: calibration error {told['error_before']:.3f} -> "
        f"{told['error']:.3f}, log loss {told['log_loss_before']:.3f} -> {told['log_loss']:.3f}"
    )


def _log_loss(probabilities: np.ndarray, gold: np.ndarray) -> float:
    return measure(probabilities, probabilities.argmax(axis=1), gold, ("log_loss",))["log_loss"]


def _checked(probabilities: np.ndarray, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.ndim != 2 or not np.isfinite(probabilities).all() or (probabilities < 0).any():
        raise ValueError("probabilities are (documents, classes), finite, from 0")
    return probabilities, check_gold(gold, *probabilities.shape)
