"""The importance signals of RedPajama-V2: log ratios of hashed n-grams between a target domain and Common Crawl (DSIR)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.text import TextBatch
from quality.importance import TARGETS, count_of_features, hashed_features, log_poisson, log_ratios
from quality.registry import Context, Measure, scores, signal
from quality.signals.content import by_language

_SOURCE = "RedPajama-V2; DSIR (Xie et al. 2023)"
_NAMES = {"wikipedia": "Wikipedia", "openwebtext": "OpenWebText", "books": "books"}


@dataclass(frozen=True)
class Importance:
    """Of a batch: sums float64 (documents, TARGETS), NaN where there is no table; features and raw words int64 (documents,);
    mean_lengths float64 (documents, 1 + TARGETS), of the source and of the targets."""

    sums: NDArray[np.float64]
    features: NDArray[np.int64]
    words: NDArray[np.int64]
    mean_lengths: NDArray[np.float64]


def importance(text: TextBatch, context: Context) -> Importance:
    """All targets at once: the features are hashed and looked up in one pass."""

    def compute() -> Importance:
        weights, words = context.resources.importance_weights, text.raw_words
        which = by_language(text, weights.languages)
        features = hashed_features(words, weights.values.shape[1])
        lengths = np.vstack([weights.mean_lengths, np.full((1, 1 + len(TARGETS)), np.nan)])[which]  # -1 is the last row
        return Importance(log_ratios(features, weights, which), count_of_features(words), words.counts, lengths)

    return text.once("importance", compute)


def _plain(target: int) -> Measure:
    def measure(text: TextBatch, context: Context) -> pa.Array:
        told = importance(text, context)
        return _scores(told.sums[:, target], told, text, context)

    name = _NAMES[TARGETS[target]]
    measure.__qualname__ = f"{TARGETS[target]}_importance"
    measure.__doc__ = (
        f"Log ratio of the probabilities of the raw words and pairs of words under {name} and under Common Crawl, as hashed "
        "into buckets; null for an empty text, and without tables of its language. Fixed: divided by the number of words and "
        "pairs, since as published it grows with the length of the text. The hash is the same on every machine in both modes."
    )
    return measure


def _length_corrected(target: int) -> Measure:
    def measure(text: TextBatch, context: Context) -> pa.Array:
        told = importance(text, context)
        lengths = told.words if context.mode == "fixed" else text.characters
        correction = log_poisson(lengths, told.mean_lengths[:, 1 + target]) - log_poisson(lengths, told.mean_lengths[:, 0])
        return _scores(told.sums[:, target] + correction, told, text, context)

    name = _NAMES[TARGETS[target]]
    measure.__qualname__ = f"{TARGETS[target]}_importance_length_correction"
    measure.__doc__ = (
        f"The importance for {name} plus the log ratio of the Poisson probabilities of the length; null as the importance is. "
        "Fixed: the length is in raw words, as the means are; as published it is in characters, so that nearly every "
        "correction is 0. The sum is divided by the number of words and pairs."
    )
    return measure


def _scores(values: NDArray[np.float64], told: Importance, text: TextBatch, context: Context) -> pa.Array:
    if context.mode == "fixed":
        values = values / np.maximum(told.features, 1)
    return scores(values, ~np.isnan(values) & (text.characters > 0))


for _place in sorted(range(len(TARGETS)), key=lambda i: TARGETS[i]):
    for _name, _make in (("importance", _plain), ("importance_length_correction", _length_corrected)):
        signal(
            f"rps_doc_{TARGETS[_place]}_{_name}", needs=("raw_words", "characters"), columns="language",
            resources="importance", source=_SOURCE,
        )(_make(_place))  # fmt: skip
