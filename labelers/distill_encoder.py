"""A small neural classifier of texts, distilled from soft labels: hashed words, summed embeddings, two layers (needs torch)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import log_softmax

from labelers.distill import ENCODER, EncoderOptions
from labelers.embeddings import encode
from labelers.encoder import Bags, EncoderConfig, Hashed, PooledEncoder, config_of, from_arrays, to_arrays


class _Network(nn.Module):
    def __init__(self, config: EncoderConfig, k: int) -> None:
        super().__init__()
        self.encoder = PooledEncoder(config)
        self.out = nn.Linear(config.dimension, k)

    def forward(self, bags: Bags) -> torch.Tensor:
        return self.out(torch.relu(self.encoder(bags)))


class EncoderClassifier:
    """`PooledEncoder` and a linear layer, trained on the cross-entropy with soft targets."""

    def __init__(self, network: _Network, classes: Sequence[str]) -> None:
        self._network, self.classes = network.eval(), tuple(classes)

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        probabilities: np.ndarray,
        classes: Sequence[str],
        options: EncoderOptions,
    ) -> EncoderClassifier:
        """Adam, words dropped at random (`keep`), weight decay on the layers. probabilities: (n, k) targets."""
        torch.manual_seed(options.seed)
        config, batch = EncoderConfig(options.features, options.width, options.dimension), options.batch
        rng, network = np.random.default_rng(options.seed), _Network(config, len(classes))
        hashed, targets = Hashed(texts, config.features), torch.from_numpy(probabilities.astype(np.float32))
        optimizer = torch.optim.AdamW(network.parameters(), options.learning_rate, weight_decay=1e-3)
        usable = np.flatnonzero(~hashed.empty)
        network.train()
        for _ in range(options.epochs):
            order = rng.permutation(usable)
            for start in range(0, len(order), batch):
                rows = order[start : start + batch]
                logits = network(hashed.bags(rows, options.keep, rng))
                loss = -(targets[torch.from_numpy(rows)] * log_softmax(logits, dim=1)).sum(dim=1).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return cls(network, classes)

    def predict_proba(self, texts: Sequence[str], batch: int = 512) -> np.ndarray:
        hashed = Hashed(texts, self._network.encoder.config.features)
        out = np.full((len(texts), len(self.classes)), 1 / len(self.classes))
        rows = np.flatnonzero(~hashed.empty)
        with torch.inference_mode():
            for start in range(0, len(rows), batch):
                piece = rows[start : start + batch]
                out[piece] = torch.softmax(self._network(hashed.bags(piece)).double(), dim=1).numpy()
        return out

    def file(self) -> tuple[str, bytes]:
        told: dict[str, Any] = asdict(self._network.encoder.config) | {"classes": self.classes}
        return ENCODER, encode("classifier", told, to_arrays(self._network))

    @classmethod
    def load(cls, path: Path) -> EncoderClassifier:
        """ValueError if the file holds no such classifier."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        content = path.read_bytes()
        try:
            arrays = load(content)
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            told = json.loads(header["__metadata__"]["embedder"])
            network = _Network(config_of(told), len(told["classes"]))
            from_arrays(network, arrays)
        except (SafetensorError, KeyError, ValueError) as error:
            raise ValueError(f"{path} is no distilled classifier: {error}") from error
        return cls(network, told["classes"])
