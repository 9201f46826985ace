"""How labels and probabilities compare with gold classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

METRICS = ("accuracy", "f1", "macro_f1", "coverage", "log_loss", "brier")


def check_gold(gold: np.ndarray, n: int, k: int) -> np.ndarray:
    """Gold classes as int64 (n,). ValueError unless each is a class."""
    gold = np.asarray(gold)
    if gold.shape != (n,):
        raise ValueError(f"gold classes have shape {gold.shape}, expected ({n},)")
    if not np.issubdtype(gold.dtype, np.integer) or (n and (gold.min() < 0 or gold.max() >= k)):
        raise ValueError(f"gold classes must be whole numbers from 0 to {k - 1}")
    return gold.astype(np.int64)


def measure(probabilities: np.ndarray, labels: np.ndarray, gold: np.ndarray, metrics: Sequence[str]) -> dict[str, float]:
    """The named `METRICS` of labels (n,), -1 for none, and probabilities (n, k). A document without a label counts as wrong;
    `coverage` is the share that has one. ValueError on another metric."""
    n, k = probabilities.shape
    gold = check_gold(gold, n, k)
    if not n:
        raise ValueError("there are no documents to score")
    told = {}
    for metric in (metrics,) if isinstance(metrics, str) else metrics:
        if metric == "accuracy":
            told[metric] = float((labels == gold).mean())
        elif metric == "coverage":
            told[metric] = float((labels >= 0).mean())
        elif metric == "f1":
            told[metric] = _f1(labels, gold, 1)
        elif metric == "macro_f1":
            told[metric] = float(np.mean([_f1(labels, gold, c) for c in range(k)]))
        elif metric == "log_loss":
            told[metric] = float(-np.log(np.maximum(probabilities[np.arange(n), gold], 1e-15)).mean())
        elif metric == "brier":
            told[metric] = float(((probabilities - np.eye(k)[gold]) ** 2).sum(axis=1).mean())
        else:
            raise ValueError(f"there is no metric {metric}; there are: {', '.join(METRICS)}")
    return told


def _f1(labels: np.ndarray, gold: np.ndarray, c: int) -> float:
    hits = np.sum((labels == c) & (gold == c))
    named = np.sum(labels == c) + np.sum(gold == c)
    return float(2 * hits / named) if named else 0.0
