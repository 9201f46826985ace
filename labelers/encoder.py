"""A small text encoder: hashed words and word pairs, summed embeddings, two layers. Learns in seconds on a processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

CHARACTERS = 20_000
"""Of a document that are read."""


@dataclass(frozen=True)
class EncoderConfig:
    """features: hash buckets of words and word pairs. width: of the summed embedding. dimension: of what comes out."""

    features: int = 1 << 16
    width: int = 64
    dimension: int = 64


class PooledEncoder(nn.Module):
    """Bags of hashed words to (b, dimension) vectors: mean embedding, layer norm, one hidden layer."""

    def __init__(self, config: EncoderConfig = EncoderConfig()) -> None:
        super().__init__()
        self.config = config
        self.words = nn.EmbeddingBag(config.features, config.width, mode="sum")
        nn.init.normal_(self.words.weight, std=1.0)
        self.head = nn.Sequential(
            nn.LayerNorm(config.width), nn.Linear(config.width, 2 * config.width), nn.GELU(),
            nn.Linear(2 * config.width, config.dimension),
        )  # fmt: skip

    def forward(self, bags: Bags) -> torch.Tensor:
        """(b, dimension) of b bags."""
        return self.head(self.words(bags.words, bags.offsets, per_sample_weights=bags.weights))


@dataclass(frozen=True)
class Bags:
    """Words of b documents: words (t,) int64 buckets, offsets (b,) int64 where each begins, weights (t,) float32."""

    words: torch.Tensor
    offsets: torch.Tensor
    weights: torch.Tensor


class Hashed:
    """Documents as rows of word counts, from which bags are drawn: whole, or with words dropped (a view)."""

    def __init__(self, texts: Sequence[str], features: int) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer

        vectorizer = HashingVectorizer(
            n_features=features,
            ngram_range=(1, 2),
            alternate_sign=False,
            norm=None,  # type: ignore[arg-type]
            token_pattern=r"(?u)\b\w+\b",
        )
        counts: Any = vectorizer.transform([t[:CHARACTERS] for t in texts])
        self._starts, self._words, self._counts = counts.indptr, counts.indices, np.sqrt(counts.data).astype(np.float32)

    def __len__(self) -> int:
        return len(self._starts) - 1

    @property
    def empty(self) -> np.ndarray:
        """(n,) documents without a word."""
        return np.diff(self._starts) == 0

    def bags(self, rows: np.ndarray, keep: float = 1.0, rng: np.random.Generator | None = None) -> Bags:
        """The bags of some rows; with `keep` below 1 each word stays with that probability (at least one does)."""
        lengths = self._starts[rows + 1] - self._starts[rows]
        first = np.cumsum(lengths) - lengths
        at = np.arange(lengths.sum()) + np.repeat(self._starts[rows] - first, lengths)
        weights, document = self._counts[at], np.repeat(np.arange(len(rows)), lengths)
        if keep < 1:
            assert rng is not None
            stays = rng.random(len(at)) < keep
            stays[first[lengths > 0]] |= np.bincount(document[stays], minlength=len(rows))[lengths > 0] == 0
            at, weights, document = at[stays], weights[stays], document[stays]
        total = np.bincount(document, weights, len(rows))
        weights = weights / np.maximum(total, 1e-9)[document].astype(np.float32)
        offsets = np.searchsorted(document, np.arange(len(rows)))
        return Bags(
            torch.from_numpy(self._words[at].astype(np.int64)),
            torch.from_numpy(offsets.astype(np.int64)),
            torch.from_numpy(weights.astype(np.float32)),
        )


def to_arrays(module: nn.Module) -> dict[str, np.ndarray]:
    """A module's weights as float32 arrays."""
    return {name: value.detach().float().cpu().numpy() for name, value in module.state_dict().items()}


def from_arrays(module: nn.Module, arrays: dict[str, np.ndarray]) -> None:
    """Load what `to_arrays` gave. ValueError if they are of another module."""
    try:
        module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
    except RuntimeError as error:
        raise ValueError(f"the weights are of another model: {' '.join(str(error).split())}") from error


def config_of(told: dict[str, Any]) -> EncoderConfig:
    return EncoderConfig(**{name: told[name] for name in asdict(EncoderConfig())})
