"""Documents to train a classifier or an importance table on: of a corpus or of files, those that meet a condition, a sample."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import xxhash

from pipeline import expressions
from pipeline.corpus import Corpus
from pipeline.frames import TEXT_COLUMNS, join_aligned, read_plain

_PLAIN = (".parquet", ".jsonl", ".ndjson", ".json", ".gz", ".zst")
_TEXT = ".txt"


@dataclass(frozen=True)
class Selection:
    """The documents of a corpus, or of a Parquet, JSONL or text file (one document a line), that meet a condition.

    source: a corpus's folder or URL, or a file. where: SQL over the columns of the corpus's `tables` that there are, or of the
    file; None for all. language: only documents of it, where there is a column `language`.
    """

    source: str
    where: str | None = None
    language: str | None = None
    tables: tuple[str, ...] = ("documents", "signals", "duplicates")

    @property
    def told(self) -> str:
        """For a person, and the model card."""
        return f"{self.source}{f' where {self.where}' if self.where else ''}"

    def batches(self) -> Iterator[pl.DataFrame]:
        """Columns `id` and `text`, of documents with text, in order. ValueError if the source or the condition is wrong."""
        for frame in self._frames():
            name = next((n for n in TEXT_COLUMNS if n in frame.columns), None)
            if name is None:
                raise ValueError(f"{self.source}: no column {' or '.join(TEXT_COLUMNS)}; there is {', '.join(frame.columns)}")
            if self.where is not None:
                frame = frame.filter(expressions.condition(self.where, frame, self.source))
            if self.language is not None and "language" in frame.columns:
                frame = frame.filter(pl.col("language") == self.language)
            yield frame.select("id", pl.col(name).fill_null("").alias("text")).filter(pl.col("text") != "")

    def _frames(self) -> Iterator[pl.DataFrame]:
        if self.source.endswith(_TEXT):
            path = Path(self.source)
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"{path} cannot be read: {error}") from error
            yield pl.DataFrame({"id": [f"{path.name}/{row}" for row in range(len(lines))], "text": lines})
            return
        if self.source.endswith(_PLAIN):
            yield read_plain(Path(self.source))
            return
        corpus = Corpus(self.source)
        partitions = corpus.partitions("documents")
        if not partitions:
            raise ValueError(f"{self.source} is no corpus with documents, and no .parquet, .jsonl or .txt file")
        tables = [t for t in self.tables if t == "documents" or corpus.partitions(t)]
        for partition in partitions:
            yield join_aligned({table: corpus.read(table, partition) for table in tables}, partition)


def is_file(told: str) -> bool:
    """Whether what a user gave for documents is a file, rather than a condition."""
    return told.endswith((*_PLAIN, _TEXT))


def sample(batches: Iterable[pl.DataFrame], most: int, seed: int) -> list[tuple[str, str]]:
    """(id, text) of at most `most` documents, each text once, in the order of their hashes: the sample is that of the lowest
    hashes of the text, so it does not depend on how documents are partitioned."""
    kept: list[tuple[int, str, str]] = []  # a heap of negated hashes: the largest hash is on top
    seen: set[int] = set()
    for batch in batches:
        for name, text in batch.select("id", "text").iter_rows():
            rank = xxhash.xxh3_64_intdigest(text.encode(), seed)
            if rank in seen or (len(kept) == most and -rank < kept[0][0]):
                continue
            seen.add(rank)
            if len(kept) < most:
                heapq.heappush(kept, (-rank, name, text))
            else:
                seen.discard(-heapq.heappushpop(kept, (-rank, name, text))[0])
    return [(name, text) for _, name, text in sorted(kept, reverse=True)]
