"""Perplexity on held-out documents: each document by itself, each of its tokens scored exactly once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.shards import TokenShards
from training.weights import Trained, load_trained

_BATCH_TOKENS = 1 << 14  # per forward pass


@dataclass(frozen=True)
class _Part:
    """Positions of one document that are read together; `scored`: how many of the last targets count."""

    inputs: npt.NDArray[Any]
    targets: npt.NDArray[Any]
    scored: int


def evaluate(
    folder: str | Path, manifests: Mapping[str, str | Path], device: str = "auto", max_tokens: int | None = None
) -> dict[str, dict[str, float]]:
    """Perplexity per component.

    folder: a finished run. manifests: token shards by component. max_tokens: stop after the document that reaches as many
    tokens of a component; None: all. Returns by component: documents, tokens, loss (nats per token), perplexity, and
    bits_per_byte, which compares models of different tokenizers. ValueError for shards of another tokenizer.

    A document starts after an end-of-text token and ends with one, which is scored too. A document longer than the model's
    sequences is read in parts that overlap by half, so that every later token has at least half a sequence before it.
    """
    place = torch.device("cuda" if device == "auto" and torch.cuda.is_available() else device if device != "auto" else "cpu")
    trained = load_trained(folder, place)
    return {name: _evaluate(trained, TokenShards(path), place, max_tokens) for name, path in manifests.items()}


def _evaluate(trained: Trained, shards: TokenShards, device: torch.device, max_tokens: int | None) -> dict[str, float]:
    import hashlib

    from tokenizers import Tokenizer

    if hashlib.sha256(trained.tokenizer.read_bytes()).hexdigest() != shards.manifest.tokenizer_sha256:
        raise ValueError(f"{shards.path} was written with another tokenizer than {trained.tokenizer}: tokenize with that one")
    tokenizer = Tokenizer.from_file(str(trained.tokenizer))
    documents = _documents(shards, max_tokens)
    texts = tokenizer.decode_batch([document[:-1].tolist() for document in documents], skip_special_tokens=False)
    parts = [part for document in documents for part in _parts(document, trained.eos, trained.seq_len)]
    loss = 0.0
    rows = max(_BATCH_TOKENS // trained.seq_len, 1)
    packed = list(_rows(parts, trained.seq_len))
    for start in range(0, len(packed), rows):
        loss += _loss(trained, packed[start : start + rows], device)
    tokens, size = sum(map(len, documents)), sum(len(text.encode()) for text in texts)
    return {
        "documents": len(documents),
        "tokens": tokens,
        "loss": loss / tokens if tokens else math.nan,
        "perplexity": math.exp(loss / tokens) if tokens else math.nan,
        "bits_per_byte": loss / math.log(2) / size if size else math.nan,
    }


def _documents(shards: TokenShards, max_tokens: int | None) -> list[npt.NDArray[Any]]:
    documents, tokens = [], 0
    for index in range(shards.total_documents):
        if max_tokens is not None and tokens >= max_tokens:
            break
        documents.append(shards.tokens(*shards.document(index)))
        tokens += len(documents[-1])
    return documents


def _parts(document: npt.NDArray[Any], eos: int, length: int) -> Iterator[_Part]:
    inputs = np.concatenate([[eos], document[:-1]])
    stop = min(length, len(document))
    yield _Part(inputs[:stop], document[:stop], stop)
    stride = max(length // 2, 1)
    while stop < len(document):
        scored = min(stride, len(document) - stop)
        stop += scored
        yield _Part(inputs[max(stop - length, 0) : stop], document[max(stop - length, 0) : stop], scored)


def _rows(parts: list[_Part], length: int) -> Iterator[list[_Part]]:
    """Parts packed into rows of at most `length` positions, in order."""
    row: list[_Part] = []
    filled = 0
    for part in parts:
        if filled + len(part.targets) > length:
            yield row
            row, filled = [], 0
        row.append(part)
        filled += len(part.targets)
    if row:
        yield row


@torch.inference_mode()
def _loss(trained: Trained, rows: list[list[_Part]], device: torch.device) -> float:
    length = trained.seq_len
    inputs = np.zeros((len(rows), length), np.int64)
    targets = np.zeros((len(rows), length), np.int64)
    documents = np.full((len(rows), length), -1, np.int64)  # the rest of a row is a document that nobody scores
    scored = np.zeros((len(rows), length), bool)
    for r, row in enumerate(rows):
        at = 0
        for number, part in enumerate(row):
            stop = at + len(part.targets)
            inputs[r, at:stop], targets[r, at:stop], documents[r, at:stop] = part.inputs, part.targets, number
            scored[r, stop - part.scored : stop] = True
            at = stop
    tokens, wanted, isolated, counted = (torch.from_numpy(a).to(device) for a in (inputs, targets, documents, scored))
    return float(trained.model(tokens, isolated, targets=wanted).token_loss[counted].double().sum())
