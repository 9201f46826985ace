"""Embeddings by a transformer: any Hugging Face or sentence-transformers encoder in a local folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from labelers.embeddings import unit

Pooling = Literal["auto", "mean", "cls"]


class TransformerEmbedder:
    """Pooled last hidden states. Needs the packages torch and transformers, which are imported here only.

    pooling: `auto` reads what a sentence-transformers folder says (1_Pooling/config.json), and is `mean` elsewhere.
    max_length: tokens of a document that are read. ValueError if the folder holds no model, or the package is missing.
    """

    kind = "transformer"

    def __init__(
        self, folder: str | Path, pooling: Pooling = "auto", max_length: int = 512, batch: int = 32, device: str | None = None
    ) -> None:
        try:
            import torch
            from transformers import AutoModel, AutoTokenizer
        except ImportError as error:
            raise ValueError(f"embeddings by a transformer need the package {error.name}: pip install transformers") from error
        path = Path(folder).expanduser()
        self._check(path)
        self.pooling = _pooling(path) if pooling == "auto" else pooling
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(str(path), local_files_only=True)
            self._model: Any = AutoModel.from_pretrained(str(path), local_files_only=True).eval()
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{path} holds no transformer that can be loaded: {' '.join(str(error).split())}") from error
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._model.to(self._device)
        positions = getattr(self._model.config, "max_position_embeddings", max_length)
        self.max_length = min(max_length, positions)
        self.batch = batch
        self.dimension: int = self._model.config.hidden_size

    @staticmethod
    def _check(path: Path) -> None:
        if not (path / "config.json").is_file():
            raise ValueError(f"{path} is no folder of a model: there is no config.json in it; name a local folder")

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        import torch

        out = np.zeros((len(texts), self.dimension), np.float32)
        # Texts of like length together: padding is work for nothing.
        order = sorted((i for i, t in enumerate(texts) if t.strip()), key=lambda i: len(texts[i]))
        with torch.inference_mode():
            for start in range(0, len(order), self.batch):
                rows = order[start : start + self.batch]
                tokens = self._tokenizer(
                    [texts[i] for i in rows], padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
                ).to(self._device)
                states = self._model(**tokens).last_hidden_state
                if self.pooling == "cls":
                    pooled = states[:, 0]
                else:
                    mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
                    pooled = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
                out[rows] = pooled.float().cpu().numpy()
        return unit(out)


def model_files(folder: str | Path) -> dict[str, str]:
    """The files that decide what a model in a folder computes: they belong to a stage's fingerprint. ValueError without one."""
    path = Path(folder).expanduser()
    TransformerEmbedder._check(path)
    kinds = (".json", ".safetensors", ".bin", ".txt", ".model")
    found = sorted(p for p in path.rglob("*") if p.suffix in kinds and p.is_file())
    return {f"model:{p.relative_to(path)}": str(p) for p in found}


def _pooling(path: Path) -> Literal["mean", "cls"]:
    told = path / "1_Pooling" / "config.json"
    if told.is_file() and json.loads(told.read_text(encoding="utf-8")).get("pooling_mode_cls_token"):
        return "cls"
    return "mean"
