"""Contrastive losses, and an embedder trained with them from weak labels.

Unit vectors, similarity σ(a, b) = ⟨a, b⟩, temperature τ, P(i) the other points of i's class, N(i) those of other classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize, softplus

from labelers.embeddings import MODEL, encode, unit
from labelers.encoder import EncoderConfig, Hashed, PooledEncoder, config_of, from_arrays, to_arrays

Loss = Literal["supcon", "spread"]


def supcon(points: torch.Tensor, labels: torch.Tensor, temperature: float = 0.5) -> torch.Tensor:
    """The supervised contrastive loss whose denominator leaves out the other positives (TABi, arXiv 2204.08173, section 3).

    mean over i of −1/|P(i)| Σ_{p∈P(i)} log[e^{σ(i,p)/τ} / (e^{σ(i,p)/τ} + Σ_{n∈N(i)} e^{σ(i,n)/τ})]. points: (b, d), made unit
    vectors here. labels: (b,). A point without a positive does not count; without any, the loss is 0.
    """
    unit_points = normalize(points, dim=-1)
    same = labels[:, None] == labels[None, :]
    positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=points.device)
    return _supcon(unit_points @ unit_points.T / temperature, positive, ~same)


def spread(
    first: torch.Tensor,
    second: torch.Tensor,
    labels: torch.Tensor,
    temperature: float = 0.5,
    supervised: float = 1.0,
    spreading: float = 1.0,
) -> torch.Tensor:
    """The spread loss (arXiv 2204.07596, section 4): classes stay apart, and points of one class do not collapse.

    (supervised·L_sup + spreading·L_cNCE)/(supervised + spreading), L_cNCE(i) = −log[e^{σ(i,i⁺)/τ} / Σ_{p∈P(i)} e^{σ(i,p)/τ}],
    i⁺ the same document in the other view. first, second: (b, d), two views; P(i) and N(i) are in the view that i is not in, so
    P(i) holds i⁺. The mean over both directions. ValueError if both weights are 0 or one is below.
    """
    if supervised < 0 or spreading < 0 or supervised + spreading == 0:
        raise ValueError(f"spread: weights {supervised} and {spreading} must not be below 0, nor both 0")
    one, two = normalize(first, dim=-1), normalize(second, dim=-1)
    same = labels[:, None] == labels[None, :]
    forward = one @ two.T / temperature
    total = points = one.new_zeros(())
    for logits in (forward, forward.T):
        apart = torch.logsumexp(logits.masked_fill(~same, -torch.inf), dim=1) - logits.diagonal()
        points = points + apart.mean()
        total = total + _supcon(logits, same, ~same)
    return (supervised * total + spreading * points) / (2 * (supervised + spreading))


def tabi(
    queries: torch.Tensor,
    entities: torch.Tensor,
    query_entities: torch.Tensor,
    entity_ids: torch.Tensor,
    query_types: torch.Tensor,
    alpha: float = 0.1,
    temperature: float = 0.01,
) -> torch.Tensor:
    """TABi (arXiv 2204.08173, section 3): α·L_type + (1 − α)·L_ent, each `supcon` times τ.

    L_ent is over queries (b, d) and entities (e, d) together, by entity (b,) and (e,); L_type over queries, by type (b,). For a
    corpus: entity = cluster of near-duplicates, type = topic or domain.
    """
    by_entity = supcon(torch.cat((queries, entities)), torch.cat((query_entities, entity_ids)), temperature)
    return temperature * (alpha * supcon(queries, query_types, temperature) + (1 - alpha) * by_entity)


def _supcon(logits: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    against = torch.logsumexp(logits.masked_fill(~negative, -torch.inf), dim=1, keepdim=True)  # -inf without negatives
    losses = softplus(against - logits).masked_fill(~positive, 0.0)
    count = positive.sum(dim=1)
    per_point = losses.sum(dim=1) / count.clamp(min=1)
    return per_point.sum() / (count > 0).sum().clamp(min=1)


class ContrastiveEmbedder:
    """A pooled encoder that weak labels have taught which documents are alike."""

    kind = "contrastive"

    def __init__(self, encoder: PooledEncoder) -> None:
        self.encoder = encoder.eval()
        self.dimension = encoder.config.dimension

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        probabilities: np.ndarray,
        loss: Loss = "spread",
        config: EncoderConfig = EncoderConfig(),  # noqa: B008
        epochs: int = 10,
        batch: int = 256,
        keep: float = 0.6,
        temperature: float = 0.5,
        learning_rate: float = 3e-3,
        confidence: float = 0.6,
        seed: int = 0,
    ) -> ContrastiveEmbedder:
        """Train from class probabilities (n, k), a label model's say.

        Documents whose likeliest class is below `confidence` do not take part. Each time a document is seen, its class is drawn
        from its probabilities, so that doubt stays doubt. Views are bags of words with each word kept with probability `keep`.
        ValueError if probabilities are not (n, k), or fewer than two documents are left.
        """
        probabilities = np.asarray(probabilities, np.float64)
        if probabilities.ndim != 2 or len(probabilities) != len(texts):
            raise ValueError(f"{len(texts)} texts need probabilities (n, k), not {probabilities.shape}")
        torch.manual_seed(seed)
        rng, encoder = np.random.default_rng(seed), PooledEncoder(config)
        hashed = Hashed(texts, config.features)
        usable = np.flatnonzero((probabilities.max(axis=1, initial=0) >= confidence) & ~hashed.empty)
        if len(usable) < 2:
            raise ValueError(f"{len(usable)} of {len(texts)} documents have a class of probability {confidence} or more")
        train(encoder, hashed, probabilities, usable, loss, epochs, batch, keep, temperature, learning_rate, rng)
        return cls(encoder)

    def embed(self, texts: Sequence[str], batch: int = 512) -> np.ndarray:
        hashed = Hashed(texts, self.encoder.config.features)
        out = np.zeros((len(texts), self.dimension), np.float32)
        rows = np.flatnonzero(~hashed.empty)
        with torch.inference_mode():
            for start in range(0, len(rows), batch):
                piece = rows[start : start + batch]
                out[piece] = self.encoder(hashed.bags(piece)).numpy()
        return unit(out)

    def files(self) -> dict[str, bytes]:
        return {MODEL: encode(self.kind, asdict(self.encoder.config), to_arrays(self.encoder))}

    @classmethod
    def from_arrays(cls, told: dict[str, Any], arrays: dict[str, np.ndarray]) -> ContrastiveEmbedder:
        encoder = PooledEncoder(config_of(told))
        from_arrays(encoder, arrays)
        return cls(encoder)


def train(
    encoder: nn.Module,
    hashed: Hashed,
    probabilities: np.ndarray,
    usable: np.ndarray,
    loss: Loss,
    epochs: int,
    batch: int,
    keep: float,
    temperature: float,
    learning_rate: float,
    rng: np.random.Generator,
) -> list[float]:
    """Adam on two views of each batch of `usable` rows; the mean loss of each epoch. encoder: bags to (b, d) vectors."""
    optimizer = torch.optim.Adam(encoder.parameters(), learning_rate)
    cumulative = probabilities.cumsum(axis=1)
    history = []
    encoder.train()
    for _ in range(epochs):
        order, losses = rng.permutation(usable), []
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            if len(rows) < 2:
                continue
            drawn = (rng.random(len(rows))[:, None] * cumulative[rows, -1:] > cumulative[rows]).sum(axis=1)
            labels = torch.from_numpy(drawn)
            one, two = (encoder(hashed.bags(rows, keep, rng)) for _ in range(2))
            if loss == "spread":
                value = spread(one, two, labels, temperature)
            elif loss == "supcon":
                value = supcon(torch.cat((one, two)), torch.cat((labels, labels)), temperature)
            else:
                raise ValueError(f"there is no contrastive loss {loss!r}; there are: supcon, spread")
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value.item())
        history.append(float(np.mean(losses)))
    encoder.eval()
    return history
