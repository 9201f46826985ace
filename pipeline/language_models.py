"""The stage `language-models`: language models trained on a sample of the corpus itself, for `mine` to score with."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from pydantic import Field

from pipeline.cutoffs import write_percentiles
from pipeline.language import LanguageDetector, LanguageParams, load_detector
from pipeline.perplexity import CUTOFF_FILES, TOKENIZER_SUFFIX
from pipeline.stage import GlobalResult, GlobalStage
from pipeline.train_language_model import LanguageModelParams, train_language_model, write_card

SAMPLE = pa.schema(
    [
        pa.field("language", pa.string(), nullable=False),
        pa.field("key", pa.uint64(), nullable=False),  # hash of the record id: the smallest are the sample
        pa.field("text", pa.large_string(), nullable=False),
    ]
)
_DETECTED = 256  # documents whose language is identified together
_LEAST_DOCUMENTS = 20  # fewer say nothing about percentiles


class LanguageModelsParams(LanguageModelParams):
    """Language models of the corpus: which languages, and from how much of its text."""

    languages: tuple[str, ...] = Field(min_length=1, description="Languages to train a model for.")
    language: LanguageParams = Field(default=LanguageParams(), description="How languages are identified; as in `mine`.")
    sample_documents: int = Field(default=200_000, gt=0, description="Most documents of a language that are sampled.")
    sample_characters: int = Field(
        default=100_000_000, gt=0, description="Characters of a language at which the sample is full."
    )
    document_characters: int = Field(default=100_000, gt=0, description="Characters that a document has in the sample at most.")
    minimum_characters: int = Field(
        default=100_000,
        ge=0,
        description="A language whose sample is shorter gets no model: its documents go into the bucket `all`.",
    )
    remove_repeated_lines: bool = Field(
        default=True, description="Leave out lines that more than one sampled document has, as `mine` will have removed them."
    )


@dataclass
class LanguageModels(GlobalStage):
    """A SentencePiece model, an n-gram model and percentiles of perplexity per language, below `global/language-models/all/`.

    The sample is that of the smallest hashes of record ids, so that it does not depend on how the corpus is cut into
    partitions. Part of it is held out from training and gives the percentiles: scored on its own training text, a model would
    put them far too low. A language with too little text gets empty model files, which `PerplexityModels` reads as no model.
    """

    params: LanguageModelsParams

    name = "language-models"
    version = 1
    inputs = ("raw",)

    def files(self) -> Mapping[str, str]:
        return self.params.language.files()

    def setup(self, files: Mapping[str, Path]) -> None:
        self._detector: LanguageDetector = load_detector(self.params.language, files)

    def summarise(self, partition: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        """The sample of one partition: language, key, text; the smallest keys of each language."""
        raw = tables["raw"]
        seed, longest = self.params.seed, self.params.document_characters
        keys = np.array([xxhash.xxh3_64_intdigest(i.encode(), seed) for i in raw["record_id"].to_pylist()], np.uint64)
        found: dict[str, list[tuple[int, str]]] = {language: [] for language in self.params.languages}
        characters = dict.fromkeys(found, 0)
        for rows in _batches(np.argsort(keys, kind="stable")):
            texts = raw["raw_content"].take(pa.array(rows)).to_pylist()
            for row, text, language in zip(rows.tolist(), texts, self._languages(texts), strict=True):
                if language in found and not self._full(len(found[language]), characters[language]):
                    found[language].append((int(keys[row]), text[:longest]))
                    characters[language] += len(found[language][-1][1])
            if all(self._full(len(found[language]), characters[language]) for language in found):
                break
        rows = [(language, key, text) for language, sampled in sorted(found.items()) for key, text in sampled]
        return pa.table([pa.array(c, f.type) for c, f in zip(_columns(rows), SAMPLE, strict=True)], schema=SAMPLE)

    def merge(self, summaries: Sequence[pa.Table]) -> pa.Table:
        """The smallest keys of several samples. Associative: what one sample leaves out, none that holds it can keep."""
        rows = pa.concat_tables(summaries).sort_by([("language", "ascending"), ("key", "ascending"), ("text", "ascending")])
        kept: list[bool] = []
        documents, characters, current = 0, 0, None
        for language, length in zip(rows["language"].to_pylist(), _lengths(rows["text"]), strict=True):
            if language != current:
                documents, characters, current = 0, 0, language
            kept.append(not self._full(documents, characters))
            documents += 1
            characters += length
        return rows.filter(pa.array(kept, pa.bool_()))

    def finish(self, group: str, summary: pa.Table) -> GlobalResult:
        sample = self.merge([summary])
        files: dict[str, pa.Table | bytes] = {}
        metrics: dict[str, Any] = {}
        percentiles: dict[str, dict[float, float]] = {}
        for language in self.params.languages:
            chosen = sample.filter(pa.array([other == language for other in sample["language"].to_pylist()], pa.bool_()))
            texts = self._texts(chosen["text"])
            model, tokenizer = f"{group}/{language}.arpa", f"{group}/{language}{TOKENIZER_SUFFIX}"
            characters = sum(map(len, texts))
            if len(texts) < _LEAST_DOCUMENTS or characters < self.params.minimum_characters:
                files |= {model: b"", tokenizer: b""}
                metrics[language] = {"skipped": "too_little_text", "documents": len(texts), "characters": characters}
                continue
            with tempfile.TemporaryDirectory(prefix="language-models.") as folder:
                trained = train_language_model(lambda texts=texts: texts, language, Path(folder), self.params, threads=1)
                files |= {model: trained.model.read_bytes(), tokenizer: trained.tokenizer.read_bytes()}
            files[f"{group}/{language}.card.json"] = write_card(trained.card)
            percentiles[language] = trained.percentiles
            tokens, held_out = trained.card["model"]["tokens"], trained.card["held_out"]
            metrics[language] = {"documents": len(texts), "characters": characters, "tokens": tokens, "held_out": held_out}
        files[f"{group}/{CUTOFF_FILES[0]}"] = write_percentiles(percentiles)
        return GlobalResult(files, metrics)

    def _languages(self, texts: list[str]) -> Iterator[str | None]:
        languages, scores = self._detector.detect(texts)
        for language, score in zip(languages, scores.tolist(), strict=True):
            yield language if score >= self.params.language.threshold else None

    def _full(self, documents: int, characters: int) -> bool:
        return documents >= self.params.sample_documents or characters >= self.params.sample_characters

    def _texts(self, column: pa.ChunkedArray) -> list[str]:
        """The sampled texts to train on."""
        if not self.params.remove_repeated_lines:
            return [text for text in column.to_pylist() if text]
        from pipeline.paragraphs import Lines

        lines = Lines.of(column.combine_chunks().cast(pa.large_string()))
        seen, times = np.unique(lines.hashes[lines.first_in_document()], return_counts=True)
        kept = lines.kept(seen[times > 1])
        values = lines.values.to_pylist()
        bounds = zip(lines.offsets[:-1].tolist(), lines.offsets[1:].tolist(), strict=True)
        texts = ("\n".join(values[i] for i in range(start, stop) if kept[i]) for start, stop in bounds)
        return [text for text in texts if text]


def _batches(order: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(order), _DETECTED):
        yield order[start : start + _DETECTED]


def _columns(rows: list[tuple[str, int, str]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[], [], []]


def _lengths(texts: pa.ChunkedArray) -> list[int]:
    """Characters of each text."""
    import pyarrow.compute as pc

    return pc.utf8_length(texts).to_pylist()  # type: ignore[attr-defined]
