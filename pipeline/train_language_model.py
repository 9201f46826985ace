"""Train what CCNet scores documents with: SentencePiece pieces, an n-gram model over them, and perplexity percentiles."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
from pydantic import Field, field_validator

from pipeline.cutoffs import CCNET_PERCENTILES, percentile_table
from pipeline.normalize import normalize
from pipeline.perplexity import TOKENIZER_SUFFIX, LanguageModel
from pipeline.stage import Params

if TYPE_CHECKING:
    from pipeline.pieces import PieceVocabulary

_BATCH = 256  # documents encoded together


class LanguageModelParams(Params):
    """How a language's SentencePiece model and n-gram model are trained."""

    vocabulary_size: int = Field(
        default=65536, gt=0, description="SentencePiece pieces (CCNet: 65536); fewer where the text has fewer."
    )
    character_coverage: float = Field(
        default=0.9995, gt=0, le=1, description="Share of the text's characters that pieces cover."
    )
    tokenizer_characters: int = Field(
        default=10_000_000,
        gt=0,
        description="Characters of text that the SentencePiece model is trained on; a sample by hash if less.",
    )
    order: int = Field(default=5, ge=2, le=6, description="Words of an n-gram, the predicted one included (CCNet: 5).")
    prune: tuple[int, ...] = Field(
        default=(),
        description="As lmplz --prune: per order, n-grams that occur this often or less leave the model; the first is 0, the "
        "last holds for higher orders. [0, 0, 1] drops trigrams and longer ones seen once. Empty: keep all.",
    )
    held_out: float = Field(
        default=0.1, gt=0, lt=1, description="Share of documents that are not trained on, but scored to find the cutoffs."
    )
    held_out_documents: int = Field(default=10_000, gt=0, description="Most documents scored for the cutoffs.")
    percentiles: tuple[float, float] = Field(
        default=CCNET_PERCENTILES, description="Percentiles of held-out perplexity that end head and middle."
    )
    seed: int = Field(default=0, ge=0, description="Decides which documents are held out and which are sampled.")

    @field_validator("percentiles")
    @classmethod
    def _rise(cls, percentiles: tuple[float, float]) -> tuple[float, float]:
        if not 0 < percentiles[0] < percentiles[1] < 100:
            raise ValueError("give two numbers between 0 and 100, the smaller first: where head ends, where middle ends")
        return percentiles


@dataclass(frozen=True)
class TrainedModel:
    """tokenizer, model: the files. percentiles: of held-out perplexity. card: everything to be told, as JSON can hold it."""

    tokenizer: Path
    model: Path
    percentiles: dict[float, float]
    card: dict[str, Any]


def train_language_model(
    texts: Callable[[], Iterable[str]], language: str, folder: Path, params: LanguageModelParams, threads: int = -1
) -> TrainedModel:
    """Train on documents and write `<language>.sp.model` and `<language>.arpa` into a folder; the same texts, the same bytes.

    texts is called, and run through, twice. Documents are normalised as CCNet normalises what it scores; each is one sentence.
    A hash of its text decides whether a document is held out, so that copies of it fall on the same side. Scratch files take
    about 200 bytes per token in `folder` while it trains. ValueError if the text does not suffice.
    """
    from sentencepiece import SentencePieceProcessor

    from pipeline.kneser_ney import estimate
    from pipeline.ngram import prune_thresholds
    from pipeline.pieces import PieceVocabulary, train_pieces

    prune_thresholds(params.prune, params.order)
    folder.mkdir(parents=True, exist_ok=True)
    split = _read(texts(), params)
    if not len(split.held_out) or not len(split.sample):
        raise ValueError(
            f"{split.documents} documents of {language} leave {len(split.sample)} to train on and {len(split.held_out)} held "
            f"out (share {params.held_out:g}): give more documents"
        )
    lines = [line for line in map(normalize, split.sample.texts()) if line]
    tokenizer = folder / f"{language}{TOKENIZER_SUFFIX}"
    tokenizer.write_bytes(train_pieces(lines, params.vocabulary_size, params.character_coverage))
    sampled = sum(map(len, lines))
    del lines
    split.sample.clear()
    pieces = SentencePieceProcessor(model_file=str(tokenizer))
    vocabulary = PieceVocabulary(pieces)
    training = (text for text in texts() if not _is_held_out(_hash(text, params.seed), params))
    model = folder / f"{language}.arpa"
    estimated = estimate(
        _sentences(training, vocabulary, threads), vocabulary.words, params.order, model, prune=params.prune, scratch=folder
    )
    scored = LanguageModel(tokenizer, model)
    perplexities = [p for p in scored.perplexities(split.held_out.texts()) if p is not None]
    table = percentile_table(perplexities, params.percentiles)
    card = {
        "language": language,
        "parameters": params.model_dump(mode="json"),
        "text": {
            "documents": split.documents,
            "empty_documents": split.empty,
            "characters": split.characters,
            "training_documents": split.documents - split.kept_out,
        },
        "tokenizer": {"file": tokenizer.name, "pieces": pieces.get_piece_size(), "characters": sampled} | _file(tokenizer),
        "model": {
            "file": model.name,
            "tokens": estimated.tokens,
            "ngrams": {str(n): count for n, count in estimated.ngrams.items()},
            "discounts": {str(n): [round(d, 6) for d in found] for n, found in estimated.discounts.items()},
            "fallback_discounts": list(estimated.fallback),
        }
        | _file(model),
        "held_out": {
            "documents": split.kept_out,
            "scored": len(perplexities),
            "median_perplexity": round(float(np.median(perplexities)), 1),
            "cutoffs": {f"{p:g}": table[float(p)] for p in params.percentiles},
        },
    }
    return TrainedModel(tokenizer, model, table, card)


def write_card(card: dict[str, Any]) -> bytes:
    """A model card as the bytes of a JSON file."""
    return (json.dumps(card, indent=1, ensure_ascii=False) + "\n").encode()


class HashSample:
    """Some of a stream of texts, whatever their order: those with the smallest hashes, up to a limit of texts or characters."""

    def __init__(self, characters: int | None = None, texts: int | None = None) -> None:
        self._most_characters, self._most_texts = characters, texts
        self._heap: list[tuple[int, str]] = []
        self._characters = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, key: int, text: str) -> None:
        heapq.heappush(self._heap, (-key, text))
        self._characters += len(text)
        while len(self._heap) > 1 and self._over():
            self._characters -= len(heapq.heappop(self._heap)[1])

    def _over(self) -> bool:
        """Whether the limits hold without the text of the largest hash."""
        over_texts = self._most_texts is not None and len(self._heap) > self._most_texts
        left = self._characters - len(self._heap[0][1])
        return over_texts or (self._most_characters is not None and left >= self._most_characters)

    def texts(self) -> list[str]:
        """In order of their hashes."""
        return [text for _, text in sorted(self._heap, key=lambda item: (-item[0], item[1]))]

    def clear(self) -> None:
        self._heap.clear()


@dataclass
class _Split:
    sample: HashSample
    held_out: HashSample
    documents: int = 0
    empty: int = 0
    characters: int = 0
    kept_out: int = 0


def _read(texts: Iterable[str], params: LanguageModelParams) -> _Split:
    """First pass: the SentencePiece sample and the held-out documents, with counts."""
    split = _Split(HashSample(characters=params.tokenizer_characters), HashSample(texts=params.held_out_documents))
    for text in texts:
        if not text or text.isspace():
            split.empty += 1
            continue
        split.documents += 1
        split.characters += len(text)
        key = _hash(text, params.seed)
        if _is_held_out(key, params):
            split.kept_out += 1
            split.held_out.add(key, text)
        else:
            split.sample.add(key, text)
    return split


def _hash(text: str, seed: int) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"), seed)


def _is_held_out(key: int, params: LanguageModelParams) -> bool:
    return key < params.held_out * 2**64


def _sentences(texts: Iterable[str], vocabulary: PieceVocabulary, threads: int) -> Iterator[np.ndarray]:
    """The word ids of each document, without those that have none."""
    stream = iter(texts)
    while batch := list(islice(stream, _BATCH)):
        yield from filter(len, vocabulary.encode([normalize(text) for text in batch], threads))


def _file(path: Path) -> dict[str, Any]:
    with path.open("rb") as content:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(content, "sha256").hexdigest()}
